//! The tide: a pure function of the clock, told to listeners now and then.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::app::App;

/// From one high water to the next: half a lunar day, 12 h 25.2 min, in seconds.
const PERIOD: f64 = 44_712.0;
const MEAN: f64 = 2.6;
const RANGE: f64 = 1.9;
const EVERY: Duration = Duration::from_secs(10);

/// How high the water stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tide {
    /// In metres above the chart's zero.
    pub height: f64,
    pub rising: bool,
}

/// The tide at a time.
pub fn at(time: DateTime<Utc>) -> Tide {
    let phase = TAU * (time.timestamp_millis() as f64 / 1000.0 / PERIOD).fract();
    // To the centimetre.
    let height = ((MEAN + RANGE * phase.sin()) * 100.0).round() / 100.0;
    Tide { height, rising: phase.cos() > 0.0 }
}

/// Tells listeners how the tide stands, until the program ends.
pub async fn announce(app: Arc<App>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        app.feed.publish("tide", &at(Utc::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_water_rises_and_falls() {
        let after = |seconds: f64| {
            at(DateTime::UNIX_EPOCH + chrono::Duration::milliseconds((seconds * 1000.0) as i64))
        };
        assert_eq!(after(0.0), Tide { height: 2.6, rising: true });
        assert_eq!(after(PERIOD / 4.0).height, 4.5);
        assert_eq!(after(PERIOD * 3.0 / 4.0).height, 0.7);
        assert!(!after(PERIOD / 2.0 - 60.0).rising);
    }
}
