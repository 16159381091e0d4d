//! The decision about a request.

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::Canary;
use crate::bindings::exports::hythe::deployment::http_routing::{Decision, Forwarding, Guest, Head, Reply};
use crate::bindings::hythe::deployment::types::Header;

/// A request may say itself which version it wants, by this header or a cookie of this name: `always` or
/// `never`. The app hears by the header what was decided.
const CHOICE: &str = "x-canary";

/// What a decision needs: the whole spec, here.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Settings {
    closed: Option<String>,
    paths: Vec<PathRule>,
    canary: Option<Share>,
}

#[derive(Serialize, Deserialize)]
struct PathRule {
    prefix: String,
    service: String,
    #[serde(default)]
    strip: bool,
}

#[derive(Serialize, Deserialize)]
struct Share {
    service: String,
    percent: u32,
}

impl Settings {
    /// Whether there is anything to decide.
    pub fn has_effect(&self) -> bool {
        self.closed.is_some() || !self.paths.is_empty() || self.canary.is_some()
    }

    fn decide(&self, head: &Head) -> Decision {
        if let Some(text) = &self.closed {
            return Decision::Respond(closed(text));
        }
        if let Some((rule, rest)) = self.path_rule(&head.path_with_query) {
            return Decision::Forward(Forwarding {
                service: Some(rule.service.clone()),
                path_with_query: rule.strip.then_some(rest),
                ..nothing()
            });
        }
        match &self.canary {
            Some(share) if share.takes(head) => Decision::Forward(Forwarding {
                service: Some(share.service.clone()),
                set_headers: vec![header(CHOICE, "always")],
                ..nothing()
            }),
            Some(_) => {
                Decision::Forward(Forwarding { set_headers: vec![header(CHOICE, "never")], ..nothing() })
            }
            None => Decision::Forward(nothing()),
        }
    }

    /// The rule for a path, and the path without its prefix.
    fn path_rule(&self, path: &str) -> Option<(&PathRule, String)> {
        self.paths.iter().find_map(|rule| {
            let rest = path.strip_prefix(rule.prefix.trim_end_matches('/'))?;
            // Whole segments: `/api` is not the beginning of `/apiary`.
            match rest.as_bytes().first() {
                Some(b'/') => Some((rule, rest.to_owned())),
                Some(b'?') | None => Some((rule, format!("/{rest}"))),
                Some(_) => None,
            }
        })
    }
}

impl Share {
    /// By what the request says itself; else always alike for one client.
    fn takes(&self, head: &Head) -> bool {
        match choice(head) {
            Some(b"always") => true,
            Some(b"never") => false,
            _ => hash(&head.client_address) % 100 < self.percent,
        }
    }
}

fn choice(head: &Head) -> Option<&[u8]> {
    let named = |name: &'static str| head.headers.iter().filter(move |header| header.name == name);
    if let Some(header) = named(CHOICE).next() {
        return Some(&header.value);
    }
    named("cookie")
        .flat_map(|header| header.value.split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(b"x-canary="))
}

/// FNV-1a: the same on every instance and host.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn nothing() -> Forwarding {
    Forwarding {
        deployment_id: None,
        service: None,
        path_with_query: None,
        remove_headers: Vec::new(),
        set_headers: Vec::new(),
        extensions: Vec::new(),
    }
}

fn closed(text: &str) -> Reply {
    Reply {
        status: 503,
        headers: vec![header("content-type", "text/plain; charset=utf-8"), header("retry-after", "60")],
        body: text.as_bytes().to_vec(),
    }
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: value.as_bytes().to_vec() }
}

thread_local! {
    /// The settings that were read last. Requests for one deployment seldom come alone; that another instance
    /// has others, or none, changes no answer.
    static LAST: RefCell<Option<(String, Rc<Settings>)>> = const { RefCell::new(None) };
}

fn settings(config: String) -> Rc<Settings> {
    LAST.with_borrow_mut(|last| match last {
        Some((text, settings)) if *text == config => Rc::clone(settings),
        _ => {
            // `null`, of a fetcher that an earlier version made, decides nothing.
            let settings = Rc::new(serde_json::from_str(&config).unwrap_or_default());
            *last = Some((config, Rc::clone(&settings)));
            settings
        }
    })
}

impl Guest for Canary {
    fn route_http(mut head: Head) -> Decision {
        settings(std::mem::take(&mut head.config)).decide(&head)
    }
}
