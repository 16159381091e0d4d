//! One registry for a process, and its text for Prometheus.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::encode`]'s text (OpenMetrics 1.0).
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a process. Cheap to clone; all clones are one. Names begin with `hythe_`.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("hythe"))) }
    }

    /// Registers a metric, `name` without `hythe_` and without a unit's or `_total`'s suffix, and
    /// gives it back.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| registry.register(name, help, metric.clone()));
        metric
    }

    /// Registers what makes its metrics when it is asked, such as figures of many deployments.
    pub fn register_collector(&self, collector: Box<dyn Collector>) {
        self.with(|registry| registry.register_collector(collector));
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.with(|registry| {
            // Writing into a String does not fail; a collector that does ends the text early.
            if let Err(error) = prometheus_client::encoding::text::encode(&mut text, registry) {
                tracing::warn!(%error, "a metric could not be written");
            }
        });
        text
    }

    fn with<R>(&self, f: impl FnOnce(&mut Registry) -> R) -> R {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn what_is_registered_is_in_the_text() {
        let metrics = Metrics::new();
        let counter = metrics.register("things", "Things counted", Counter::<u64>::default());
        counter.inc_by(3);
        let text = metrics.clone().encode();
        assert!(text.contains("hythe_things_total 3"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
