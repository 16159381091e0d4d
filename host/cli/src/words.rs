//! Times and sizes as people say them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::failure::Failure;

/// `5s ago`, `3m ago`, `2h ago`, `4d ago`.
#[must_use]
pub fn ago(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    let past = now.signed_duration_since(at);
    let (days, hours, minutes) = (past.num_days(), past.num_hours(), past.num_minutes());
    if days > 0 {
        format!("{days}d ago")
    } else if hours > 0 {
        format!("{hours}h ago")
    } else if minutes > 0 {
        format!("{minutes}m ago")
    } else {
        // A clock that is a little behind the host's says "now", not a negative time.
        format!("{}s ago", past.num_seconds().max(0))
    }
}

/// `512 B`, `3.4 kB`, `12 MB`: powers of ten.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let digits = usize::from(unit != "B" && value < 10.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A time (RFC 3339) or how long ago: `90s`, `10m`, `2h`, `1d`.
///
/// # Errors
/// Where it is neither.
pub fn since(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Failure> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.with_timezone(&Utc));
    }
    let wrong = || {
        Failure::usage(format!("{text:?} is no time"))
            .at("--since")
            .hint("give a time such as 2026-11-21T20:00:00Z, or how long ago: 30s, 10m, 2h, 1d")
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let count: i64 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let seconds = match unit {
        's' => Some(count),
        'm' => count.checked_mul(60),
        'h' => count.checked_mul(3600),
        'd' => count.checked_mul(86400),
        _ => None,
    };
    seconds
        .filter(|seconds| *seconds >= 0)
        .and_then(TimeDelta::try_seconds)
        .and_then(|span| now.checked_sub_signed(span))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        let now: DateTime<Utc> = "2026-11-21T20:00:00Z".parse().unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(ago(now, since(text, now).unwrap()), expected, "{text}");
        };
        check("30s", "30s ago");
        check("90m", "1h ago");
        check("2026-11-20T19:00:00+00:00", "1d ago");
        assert_eq!(ago(now, now + TimeDelta::seconds(5)), "0s ago");
        for bad in ["", "h", "5", "-3m", "5 parsecs", "é", "9999999999999999d"] {
            assert!(since(bad, now).is_err(), "{bad}");
        }
        assert_eq!([0, 999, 1500, 12_000_000].map(size), ["0 B", "999 B", "1.5 kB", "12 MB"]);
    }
}
