//! Which requests stand for somebody who wants the app: only they are activity, and only they wake.
//!
//! Not real are prefetches, and what health checkers and uptime monitors send: they would keep everything
//! awake for ever. They are told by their `User-Agent`, which anybody may claim: who claims to be none of
//! importance is taken at his word.

use std::cell::RefCell;

use http::header::{self, HeaderMap};

/// What stands in the `User-Agent` of those that do not count, where nothing else is configured.
pub(crate) const QUIET_AGENTS: [&str; 13] = [
    "kube-probe/",
    "GoogleHC/",
    "GoogleStackdriverMonitoring",
    "ELB-HealthChecker/",
    "Amazon-Route53-Health-Check",
    "Azure Traffic Manager",
    "Consul Health Check",
    "Blackbox Exporter",
    "UptimeRobot/",
    "Pingdom.com_bot",
    "StatusCake",
    "BetterStack",
    "Uptime-Kuma/",
];

/// The last agent of a connection, and whether it counts: nearly always the next one's too.
#[derive(Default)]
pub(crate) struct Agents(RefCell<(Vec<u8>, bool)>);

impl Agents {
    /// Whether the request's agent is one of the quiet ones.
    pub(crate) fn is_quiet(&self, quiet: &[String], headers: &HeaderMap) -> bool {
        let Some(agent) = headers.get(header::USER_AGENT) else { return false };
        let agent = agent.as_bytes();
        let mut last = self.0.borrow_mut();
        if last.0 != agent {
            let found = quiet.iter().any(|quiet| contains(agent, quiet.as_bytes()));
            *last = (agent.to_vec(), found);
        }
        last.1
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn monitors_are_told_from_people() {
        let agents = Agents::default();
        let quiet = QUIET_AGENTS.map(str::to_owned);
        let check = |agent: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_str(agent).unwrap());
            for _ in 0..2 {
                assert_eq!(agents.is_quiet(&quiet, &headers), expected, "{agent}");
            }
        };
        check("kube-probe/1.33", true);
        check("GoogleHC/1.0", true);
        check("ELB-HealthChecker/2.0", true);
        check("Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", true);
        check("uptime-kuma/1.23.1", true);
        check("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", false);
        check("curl/8.14.1", false);
        check("", false);
        assert!(!agents.is_quiet(&quiet, &HeaderMap::new()));
        assert!(!agents.is_quiet(
            &[String::new()],
            &HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("x"))])
        ));
    }
}
