//! The feed of what happens, for any number of listeners. Events are numbered; the last ones are
//! remembered, so that a listener that was cut off takes up where it stopped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

/// Events that are remembered; a listener that is further behind must look at the board anew.
const REMEMBERED: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// From 1, without gaps.
    pub id: u64,
    pub name: &'static str,
    /// JSON on one line.
    pub data: String,
}

/// The feed. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Mutex<Past>>);

#[derive(Debug)]
struct Past {
    last: u64,
    events: VecDeque<Event>,
    listeners: broadcast::Sender<Event>,
}

impl Default for Feed {
    fn default() -> Self {
        let (listeners, _) = broadcast::channel(REMEMBERED);
        Self(Arc::new(Mutex::new(Past { last: 0, events: VecDeque::new(), listeners })))
    }
}

/// What a listener gets.
pub struct Listening {
    /// Remembered events after the one it named.
    pub missed: Vec<Event>,
    /// Whether events between are forgotten.
    pub gap: bool,
    pub coming: broadcast::Receiver<Event>,
}

impl Feed {
    /// Tells all listeners, and remembers.
    pub fn publish(&self, name: &'static str, data: &impl Serialize) {
        let Ok(data) = serde_json::to_string(data) else { return };
        let mut past = self.lock();
        past.last += 1;
        let event = Event { id: past.last, name, data };
        if past.events.len() >= REMEMBERED {
            past.events.pop_front();
        }
        past.events.push_back(event.clone());
        // No listeners is fine.
        let _ = past.listeners.send(event);
    }

    /// Listens from now on, or from after an event that was seen.
    pub fn listen(&self, after: Option<u64>) -> Listening {
        let past = self.lock();
        let missed: Vec<_> = match after {
            Some(after) => past.events.iter().filter(|event| event.id > after).cloned().collect(),
            None => Vec::new(),
        };
        let gap = match after {
            // Ids begin anew with each run of the program: a higher one is of another run.
            Some(after) => after > past.last || past.last - after > missed.len() as u64,
            None => false,
        };
        Listening { missed, gap, coming: past.listeners.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, Past> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_takes_up_where_it_stopped() {
        let feed = Feed::default();
        for number in 1..=3 {
            feed.publish("boat", &number);
        }
        let mut listening = feed.listen(Some(1));
        assert_eq!(listening.missed.iter().map(|event| event.id).collect::<Vec<_>>(), [2, 3]);
        assert!(!listening.gap);
        feed.publish("boat", &4);
        assert_eq!(
            listening.coming.recv().await.unwrap(),
            Event { id: 4, name: "boat", data: "4".to_owned() }
        );
    }

    #[test]
    fn what_is_forgotten_is_said() {
        let feed = Feed::default();
        for number in 0..REMEMBERED + 10 {
            feed.publish("boat", &number);
        }
        assert!(feed.listen(Some(1)).gap);
        assert!(!feed.listen(Some(10)).gap);
        // Of an earlier run of the program.
        assert!(feed.listen(Some(100_000)).gap);
        let fresh = feed.listen(None);
        assert!(fresh.missed.is_empty() && !fresh.gap);
    }
}
