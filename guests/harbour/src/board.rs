//! Who lies where: boats, berths, what was said and what happened. The rules are pure; [`Board`] puts
//! them behind a lock, tells the feed of each change and has it kept.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::events::Feed;
use crate::keeper::Handle;

/// Boats that the harbour takes, moored and waiting.
const MOST_BOATS: usize = 60;
/// Messages and log entries that are kept; older ones go.
const KEPT: usize = 200;

/// A place to moor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Berth {
    pub name: &'static str,
    /// The longest boat, in metres.
    pub max_length: f64,
}

/// All berths, from the harbour's mouth inwards.
pub const BERTHS: [Berth; 10] = [
    Berth { name: "A1", max_length: 40.0 },
    Berth { name: "A2", max_length: 40.0 },
    Berth { name: "A3", max_length: 24.0 },
    Berth { name: "A4", max_length: 24.0 },
    Berth { name: "B1", max_length: 18.0 },
    Berth { name: "B2", max_length: 18.0 },
    Berth { name: "B3", max_length: 12.0 },
    Berth { name: "B4", max_length: 12.0 },
    Berth { name: "C1", max_length: 8.0 },
    Berth { name: "C2", max_length: 8.0 },
];

/// What kind of boat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Barge,
    Cutter,
    Dinghy,
    Ferry,
    Ketch,
    Trawler,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Barge, Self::Cutter, Self::Dinghy, Self::Ferry, Self::Ketch, Self::Trawler];

    pub fn name(self) -> &'static str {
        match self {
            Self::Barge => "barge",
            Self::Cutter => "cutter",
            Self::Dinghy => "dinghy",
            Self::Ferry => "ferry",
            Self::Ketch => "ketch",
            Self::Trawler => "trawler",
        }
    }
}

/// A boat in the harbour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boat {
    pub id: u64,
    pub name: String,
    pub kind: Kind,
    /// In metres.
    pub length: f64,
    pub arrived_at: DateTime<Utc>,
    /// None: it waits in the roads.
    pub berth: Option<String>,
}

/// A boat that would come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arrival {
    pub name: String,
    pub kind: Kind,
    pub length: f64,
}

/// Something said on the quay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub id: u64,
    pub author: String,
    pub text: String,
    pub at: DateTime<Utc>,
}

/// Something that happened, for the harbour's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub at: DateTime<Utc>,
    pub boat: Option<u64>,
    pub text: String,
}

/// All that is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The last id given.
    pub last_id: u64,
    pub boats: Vec<Boat>,
    pub messages: VecDeque<Message>,
    pub log: VecDeque<Entry>,
}

impl State {
    /// The harbour before anyone has touched it.
    pub fn at_first(now: DateTime<Utc>) -> Self {
        let mut state = Self::default();
        let boats = [
            ("Marigold", Kind::Cutter, 14.5, Some("B1")),
            ("Old Tom", Kind::Trawler, 22.0, Some("A3")),
            ("Sandpiper", Kind::Dinghy, 4.2, Some("C1")),
            ("Three Sisters", Kind::Ketch, 17.0, None),
            ("Patience", Kind::Barge, 31.0, Some("A1")),
        ];
        for (name, kind, length, berth) in boats {
            let Ok(boat) = state.arrive(Arrival { name: name.to_owned(), kind, length }, now) else {
                continue;
            };
            if let Some(berth) = berth {
                // The table above fits the berths; a test says so.
                let _ = state.moor(boat.id, berth, now);
            }
        }
        let _ = state.say("Harbour master", "Welcome. Moor where there is room, and mind the tide.", now);
        state
    }

    /// A boat by its id.
    pub fn boat(&self, id: u64) -> Result<&Boat, Error> {
        self.boats.iter().find(|boat| boat.id == id).ok_or_else(|| no_boat(id))
    }

    /// Who lies at a berth.
    pub fn at(&self, berth: &str) -> Option<&Boat> {
        self.boats.iter().find(|boat| boat.berth.as_deref() == Some(berth))
    }

    pub fn arrive(&mut self, arrival: Arrival, now: DateTime<Utc>) -> Result<Boat, Error> {
        let name = words("name", &arrival.name, 40)?;
        if !(1.0..=60.0).contains(&arrival.length) {
            return Err(Error::invalid(
                "length",
                format!("{} m is no length of a boat: 1 to 60", arrival.length),
            ));
        }
        if self.boats.iter().any(|boat| boat.name.eq_ignore_ascii_case(&name)) {
            return Err(Error::conflict(
                "name-taken",
                format!("there is a boat named {name} in the harbour"),
            ));
        }
        if self.boats.len() >= MOST_BOATS {
            return Err(Error::conflict(
                "harbour-full",
                format!("the harbour takes {MOST_BOATS} boats, and has them"),
            ));
        }
        let id = self.next_id();
        let boat =
            Boat { id, name, kind: arrival.kind, length: arrival.length, arrived_at: now, berth: None };
        self.note(now, Some(id), format!("{} ({}, {} m) arrives", boat.name, boat.kind.name(), boat.length));
        self.boats.push(boat.clone());
        Ok(boat)
    }

    /// Moors a boat, or moves it. Where it lies there already nothing changes.
    pub fn moor(&mut self, id: u64, berth: &str, now: DateTime<Utc>) -> Result<Boat, Error> {
        let berth =
            BERTHS.iter().find(|one| one.name.eq_ignore_ascii_case(berth.trim())).ok_or_else(|| {
                let names: Vec<_> = BERTHS.iter().map(|berth| berth.name).collect();
                Error::invalid(
                    "berth",
                    format!("there is no berth {berth:?}: take one of {}", names.join(", ")),
                )
            })?;
        let boat = self.boat(id)?.clone();
        if boat.length > berth.max_length {
            let text = format!(
                "{} is {} m long, and {} takes {} m",
                boat.name, boat.length, berth.name, berth.max_length
            );
            return Err(Error::invalid("berth", text));
        }
        match self.at(berth.name) {
            Some(other) if other.id == id => return Ok(boat),
            Some(other) => {
                return Err(Error::conflict("berth-taken", format!("{} lies at {}", other.name, berth.name)));
            }
            None => {}
        }
        self.note(now, Some(id), format!("{} moors at {}", boat.name, berth.name));
        Ok(self.change(id, |boat| boat.berth = Some(berth.name.to_owned()))?.clone())
    }

    /// Sends a boat from its berth to the roads.
    pub fn cast_off(&mut self, id: u64, now: DateTime<Utc>) -> Result<Boat, Error> {
        let boat = self.boat(id)?.clone();
        if let Some(berth) = boat.berth {
            self.note(now, Some(id), format!("{} casts off from {berth}", boat.name));
        }
        Ok(self.change(id, |boat| boat.berth = None)?.clone())
    }

    pub fn depart(&mut self, id: u64, now: DateTime<Utc>) -> Result<Boat, Error> {
        let at = self.boats.iter().position(|boat| boat.id == id).ok_or_else(|| no_boat(id))?;
        let boat = self.boats.remove(at);
        self.note(now, Some(id), format!("{} leaves for the sea", boat.name));
        Ok(boat)
    }

    pub fn say(&mut self, author: &str, text: &str, now: DateTime<Utc>) -> Result<Message, Error> {
        let (author, text) = (words("author", author, 30)?, words("text", text, 500)?);
        let message = Message { id: self.next_id(), author, text, at: now };
        push_bounded(&mut self.messages, message.clone());
        Ok(message)
    }

    pub fn unsay(&mut self, id: u64) -> Result<(), Error> {
        let at = self.messages.iter().position(|message| message.id == id);
        let at = at.ok_or_else(|| Error::not_found(format!("there is no message {id}")))?;
        self.messages.remove(at);
        Ok(())
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Boat)) -> Result<&Boat, Error> {
        let boat = self.boats.iter_mut().find(|boat| boat.id == id).ok_or_else(|| no_boat(id))?;
        change(boat);
        Ok(boat)
    }

    fn note(&mut self, at: DateTime<Utc>, boat: Option<u64>, text: String) {
        push_bounded(&mut self.log, Entry { at, boat, text });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

fn no_boat(id: u64) -> Error {
    Error::not_found(format!("there is no boat {id} in the harbour"))
}

fn push_bounded<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() >= KEPT {
        list.pop_front();
    }
    list.push_back(item);
}

/// A short text that a person gave: trimmed, not empty, on one line, not longer than that.
pub fn words(field: &'static str, text: &str, most: usize) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::invalid(field, format!("{field} is empty: give it 1 to {most} characters")));
    }
    let length = text.chars().count();
    if length > most {
        return Err(Error::invalid(
            field,
            format!("{field} has {length} characters: at most {most} are taken"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, format!("{field} has a control character: write it on one line")));
    }
    Ok(text.to_owned())
}

/// The harbour as all see it.
pub struct Board {
    state: Mutex<State>,
    feed: Feed,
    keeper: Handle,
}

impl Board {
    pub fn new(state: State, feed: Feed, keeper: Handle) -> Self {
        Self { state: Mutex::new(state), feed, keeper }
    }

    /// How it is now.
    pub fn snapshot(&self) -> State {
        self.lock().clone()
    }

    /// Looks without copying.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes it by a rule. What changed goes to the feed as the event of that name, and is kept.
    ///
    /// # Errors
    /// The rule's; nothing was changed then.
    pub fn change<T: Serialize>(
        &self,
        event: &'static str,
        rule: impl FnOnce(&mut State, DateTime<Utc>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = self.lock();
        let changed = rule(&mut state, Utc::now())?;
        // Under the lock, so that the feed and the file see changes in their order.
        self.feed.publish(event, &changed);
        self.keeper.keep(&state);
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Rules leave the state whole at every point where they can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn boat(state: &mut State, name: &str, length: f64) -> u64 {
        state.arrive(Arrival { name: name.to_owned(), kind: Kind::Ketch, length }, now()).unwrap().id
    }

    #[test]
    fn the_first_boats_fit_their_berths() {
        let state = State::at_first(now());
        assert_eq!(state.boats.len(), 5);
        assert_eq!(state.boats.iter().filter(|boat| boat.berth.is_none()).count(), 1);
        assert_eq!(state.messages.len(), 1);
    }

    #[test]
    fn a_berth_holds_one_boat_that_fits() {
        let mut state = State::default();
        let (small, large) = (boat(&mut state, "Wren", 7.5), boat(&mut state, "Goose", 20.0));
        assert_eq!(state.moor(small, "c1", now()).unwrap().berth.as_deref(), Some("C1"));
        assert_eq!(state.moor(large, "A1", now()).unwrap().berth.as_deref(), Some("A1"));
        assert_eq!(
            state.moor(small, "A1", now()).unwrap_err(),
            Error::conflict("berth-taken", "Goose lies at A1")
        );
        assert_eq!(
            state.moor(large, "B1", now()).unwrap_err(),
            Error::invalid("berth", "Goose is 20 m long, and B1 takes 18 m")
        );
        let unknown = state.moor(small, "Z9", now()).unwrap_err();
        assert!(unknown.message.starts_with("there is no berth \"Z9\": take one of A1, A2"), "{unknown:?}");
        assert_eq!(state.moor(99, "C2", now()).unwrap_err().code, "not-found");
        // Refusals changed nothing.
        assert_eq!(state.at("C1").unwrap().id, small);
        assert_eq!(state.at("B1"), None);
    }

    #[test]
    fn mooring_twice_is_once() {
        let mut state = State::default();
        let wren = boat(&mut state, "Wren", 7.5);
        state.moor(wren, "C1", now()).unwrap();
        let entries = state.log.len();
        state.moor(wren, "C1", now()).unwrap();
        assert_eq!(state.log.len(), entries);
        assert_eq!(state.cast_off(wren, now()).unwrap().berth, None);
        assert_eq!(state.at("C1"), None);
        assert_eq!(state.depart(wren, now()).unwrap().name, "Wren");
        assert_eq!(state.depart(wren, now()).unwrap_err().code, "not-found");
    }

    #[test]
    fn what_people_type_is_checked() {
        let mut state = State::default();
        boat(&mut state, "  Wren ", 7.5);
        assert_eq!(state.boats[0].name, "Wren");
        let mut refuse = |name: &str, length: f64| {
            state
                .arrive(Arrival { name: name.to_owned(), kind: Kind::Barge, length }, now())
                .unwrap_err()
                .message
        };
        assert_eq!(refuse(" ", 7.0), "name is empty: give it 1 to 40 characters");
        assert_eq!(refuse("wren", 7.0), "there is a boat named wren in the harbour");
        assert_eq!(refuse("Tug", 0.5), "0.5 m is no length of a boat: 1 to 60");
        assert_eq!(refuse("Tug", f64::NAN), "NaN m is no length of a boat: 1 to 60");
        assert_eq!(refuse(&"x".repeat(41), 7.0), "name has 41 characters: at most 40 are taken");
        assert_eq!(refuse("a\nb", 7.0), "name has a control character: write it on one line");
    }

    #[test]
    fn old_messages_make_room() {
        let mut state = State::default();
        for number in 0..KEPT + 3 {
            state.say("me", &number.to_string(), now()).unwrap();
        }
        assert_eq!(state.messages.len(), KEPT);
        assert_eq!(state.messages[0].text, "3");
        let id = state.messages[0].id;
        state.unsay(id).unwrap();
        assert_eq!(state.unsay(id).unwrap_err().code, "not-found");
    }

    #[test]
    fn the_harbour_gets_full() {
        let mut state = State::default();
        for number in 0..MOST_BOATS {
            boat(&mut state, &format!("Boat {number}"), 5.0);
        }
        let refused =
            state.arrive(Arrival { name: "One more".to_owned(), kind: Kind::Ferry, length: 9.0 }, now());
        assert_eq!(refused.unwrap_err().code, "harbour-full");
    }
}
