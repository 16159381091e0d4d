//! Figures of ingress: of all, and of the deployments with the most requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::activity::{LATENCY_BOUNDS_US, Live};
use crate::answer::Code;
use crate::route::Routes;

/// Counts of all workers.
#[derive(Default)]
pub(crate) struct Stats {
    connected: AtomicU64,
    disconnected: AtomicU64,
    refused: [AtomicU64; Code::ALL.len()],
    woken: AtomicU64,
    retried: AtomicU64,
    asked: AtomicU64,
    connect_failed: AtomicU64,
    ejected: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn connected(&self) {
        count(&self.connected);
    }

    pub(crate) fn disconnected(&self) {
        count(&self.disconnected);
    }

    pub(crate) fn refused(&self, code: Code) {
        count(&self.refused[code as usize]);
    }

    pub(crate) fn woken(&self) {
        count(&self.woken);
    }

    /// An adapter was asked about a request.
    pub(crate) fn asked(&self) {
        count(&self.asked);
    }

    pub(crate) fn retried(&self) {
        count(&self.retried);
    }

    pub(crate) fn connect_failed(&self) {
        count(&self.connect_failed);
    }

    pub(crate) fn ejected(&self) {
        count(&self.ejected);
    }
}

/// Gives the figures when they are asked for, so that requests only count.
pub(crate) struct Figures {
    pub(crate) stats: Arc<Stats>,
    pub(crate) routes: Arc<Routes>,
    /// Deployments with figures of their own; the rest are `other`.
    pub(crate) most: usize,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

/// One deployment's figures at one moment.
#[derive(Clone, Default)]
struct Row {
    label: String,
    open_requests: u64,
    open_upgrades: u64,
    by_class: [u64; 5],
    latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_us: u64,
}

impl Row {
    fn requests(&self) -> u64 {
        self.by_class.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        self.open_requests += other.open_requests;
        self.open_upgrades += other.open_upgrades;
        self.latency_sum_us += other.latency_sum_us;
        for (sum, value) in self.by_class.iter_mut().zip(other.by_class) {
            *sum += value;
        }
        for (sum, value) in self.latency.iter_mut().zip(other.latency) {
            *sum += value;
        }
    }
}

impl Figures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.routes.for_each_active(|deployment| {
            let Some(live) = deployment.activity.live_if_any() else { return };
            let report = deployment.activity.report();
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let Live { by_class, latency, latency_sum_us, .. } = live;
            rows.push(Row {
                label: deployment.id.to_string(),
                open_requests: report.open_requests.into(),
                open_upgrades: report.open_upgrades.into(),
                by_class: by_class.each_ref().map(load),
                latency: latency.each_ref().map(load),
                latency_sum_us: load(latency_sum_us),
            });
        });
        rows.sort_by(|a, b| b.requests().cmp(&a.requests()).then_with(|| a.label.cmp(&b.label)));
        if rows.len() > self.most {
            let mut other = Row { label: "other".to_owned(), ..Row::default() };
            for row in rows.drain(self.most..) {
                other.add(&row);
            }
            rows.push(other);
        }
        rows
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.stats;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut counter = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        };
        counter("ingress_connections_accepted", "Client connections accepted", load(&stats.connected))?;
        counter("ingress_wakes", "Starts of deployments that requests asked for", load(&stats.woken))?;
        counter("ingress_routing_calls", "Requests that an adapter was asked about", load(&stats.asked))?;
        counter("ingress_retries", "Requests sent again on another connection", load(&stats.retried))?;
        counter(
            "ingress_connect_failures",
            "Connections to upstreams that could not be opened",
            load(&stats.connect_failed),
        )?;
        counter(
            "ingress_ejections",
            "Upstreams left alone for a while, since they took no connections",
            load(&stats.ejected),
        )?;
        let open = load(&stats.connected).saturating_sub(load(&stats.disconnected));
        let gauge = ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(
            "ingress_connections",
            "Client connections open",
            None,
            MetricType::Gauge,
        )?)?;

        let mut family = encoder.encode_descriptor(
            "ingress_own_answers",
            "Answers given by ingress itself, by code",
            None,
            MetricType::Counter,
        )?;
        for (code, value) in Code::ALL.iter().zip(&stats.refused) {
            let value = load(value);
            if value > 0 {
                ConstCounter::new(value).encode(family.encode_family(&[("code", code.as_str())])?)?;
            }
        }

        let rows = self.rows();
        let mut family = encoder.encode_descriptor(
            "ingress_requests",
            "Requests answered, by deployment and class of status",
            None,
            MetricType::Counter,
        )?;
        for row in &rows {
            for (class, value) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(row.by_class) {
                if value > 0 {
                    let labels = [("deployment", row.label.as_str()), ("class", class)];
                    ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let mut family = encoder.encode_descriptor(
            "ingress_open_requests",
            "Requests whose answer has not ended",
            None,
            MetricType::Gauge,
        )?;
        for row in &rows {
            let value = i64::try_from(row.open_requests).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("deployment", row.label.as_str())])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "ingress_open_upgrades",
            "Live WebSockets and other upgrades",
            None,
            MetricType::Gauge,
        )?;
        for row in &rows {
            let value = i64::try_from(row.open_upgrades).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("deployment", row.label.as_str())])?)?;
        }
        let help = "From a request's head to the end of its answer";
        let mut family = encoder.encode_descriptor(
            "ingress_request_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for row in &rows {
            let bounds = LATENCY_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(row.latency).collect();
            let labels = [("deployment", row.label.as_str())];
            let mut histogram = family.encode_family(&labels)?;
            let sum = row.latency_sum_us as f64 / 1e6;
            histogram.encode_histogram::<NoLabelSet>(sum, row.latency.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }
}
