//! What was measured, by round; and the medians, spreads and ratios that are written of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::proxies::{Kind, Yard};
use crate::statistics::{median, percentile, round};

/// Always in a row, null where they could not be had.
const ALWAYS: [&str; 9] = [
    "cpu_us_c64",
    "cpu_us_c16",
    "p50_us",
    "p99_us",
    "down_us_per_mb",
    "up_us_per_mb",
    "ws_us_per_msg",
    "rss_idle_mb",
    "kb_per_conn",
];

/// Whom the others are compared with.
const REFERENCES: [Kind; 6] =
    [Kind::L4, Kind::RawHyper, Kind::Nginx, Kind::Haproxy, Kind::EnvoyWasm, Kind::HytheT0];

type Row = (Kind, usize);

/// Figures as they come.
#[derive(Debug, Default)]
pub struct Samples {
    figures: BTreeMap<Row, BTreeMap<String, BTreeMap<usize, f64>>>,
    notes: BTreeMap<Row, Vec<String>>,
}

impl Samples {
    /// One figure of one round.
    pub fn add(&mut self, kind: Kind, routes: usize, metric: &str, round: usize, value: f64) {
        let metrics = self.figures.entry((kind, routes)).or_default();
        metrics.entry(metric.to_owned()).or_default().insert(round, value);
    }

    /// Says once why a figure is not there.
    pub fn note(&mut self, kind: Kind, routes: usize, text: &str) {
        let notes = self.notes.entry((kind, routes)).or_default();
        if !notes.iter().any(|note| note == text) {
            notes.push(text.to_owned());
        }
    }

    /// The median over the rounds.
    pub fn median(&self, kind: Kind, routes: usize, metric: &str) -> Option<f64> {
        let values = self.values(kind, routes, metric)?;
        Some(median(&values.values().copied().collect::<Vec<_>>()))
    }

    fn values(&self, kind: Kind, routes: usize, metric: &str) -> Option<&BTreeMap<usize, f64>> {
        self.figures.get(&(kind, routes))?.get(metric)
    }

    /// Median, least and most of the same-round ratios of two rows.
    fn ratio(&self, metric: &str, of: Row, to: Row) -> Option<Value> {
        let (of, to) = (self.values(of.0, of.1, metric)?, self.values(to.0, to.1, metric)?);
        let ratios: Vec<f64> = of
            .iter()
            .filter_map(|(round, value)| {
                to.get(round).filter(|other| **other > 0.0).map(|other| value / other)
            })
            .collect();
        (!ratios.is_empty()).then(|| spread(&ratios, 3))
    }

    /// All rows, with what was run.
    pub fn results(&self, run: Value, wanted: &[Kind], tables: &[usize], yard: &Yard) -> Results {
        let mut rows = Vec::new();
        for &kind in wanted {
            let sizes = std::iter::once(1).chain(tables.iter().copied().filter(|_| kind.routes()));
            for routes in sizes {
                let mut row = self.row((kind, routes));
                if let Ok(tool) = yard.tool(kind) {
                    row.insert("version".to_owned(), json!(tool.version));
                }
                rows.push(Value::Object(row));
            }
        }
        Results { run, rows }
    }

    fn row(&self, of: Row) -> Map<String, Value> {
        let (kind, routes) = of;
        let mut row = Map::new();
        row.insert("name".to_owned(), json!(kind.name()));
        row.insert("routes".to_owned(), json!(routes));
        for metric in ALWAYS {
            row.insert(metric.to_owned(), Value::Null);
        }
        let (mut spreads, mut ratios) = (Map::new(), Map::new());
        for (metric, by_round) in self.figures.get(&of).into_iter().flatten() {
            let values: Vec<f64> = by_round.values().copied().collect();
            row.insert(metric.clone(), json!(round(median(&values), 2)));
            if values.len() > 1 {
                spreads.insert(metric.clone(), spread(&values, 2));
            }
            let mut to = Map::new();
            for other in REFERENCES.into_iter().filter(|other| *other != kind) {
                if let Some(ratio) = self.ratio(metric, of, (other, routes)) {
                    to.insert(other.name().to_owned(), ratio);
                }
            }
            if routes > 1
                && let Some(ratio) = self.ratio(metric, of, (kind, 1))
            {
                to.insert("one route".to_owned(), ratio);
            }
            if !to.is_empty() {
                ratios.insert(metric.clone(), Value::Object(to));
            }
        }
        row.insert("spread".to_owned(), Value::Object(spreads));
        row.insert("ratios".to_owned(), Value::Object(ratios));
        row.insert("notes".to_owned(), json!(self.notes.get(&of).cloned().unwrap_or_default()));
        row
    }
}

fn spread(values: &[f64], digits: i32) -> Value {
    json!({
        "median": round(median(values), digits),
        "min": round(percentile(values, 0.0), digits),
        "max": round(percentile(values, 1.0), digits),
    })
}

/// What is written, and what the page is made of.
#[derive(Debug)]
pub struct Results {
    pub run: Value,
    pub rows: Vec<Value>,
}

impl Results {
    /// # Errors
    /// Where the file is not there or is not such a one.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| {
            format!("can't read {}: `./x bench ingress` without --page makes it", file.display())
        })?;
        let mut all: Value = serde_json::from_slice(&text)?;
        let rows = all["rows"].take().as_array().cloned().context("the results have no rows")?;
        Ok(Self { run: all["run"].take(), rows })
    }

    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(&json!({ "run": self.run, "rows": self.rows }))?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
    }

    /// The row of a proxy with so many routes.
    pub fn row(&self, name: &str, routes: usize) -> Option<&Value> {
        self.rows.iter().find(|row| row["name"] == name && row["routes"] == routes)
    }

    /// A figure, by its median.
    pub fn figure(&self, name: &str, routes: usize, metric: &str) -> Option<f64> {
        self.row(name, routes)?[metric].as_f64()
    }

    /// Median, least and most of the ratios to another row of the same rounds.
    pub fn ratio(&self, name: &str, routes: usize, metric: &str, to: &str) -> Option<[f64; 3]> {
        let ratio = &self.row(name, routes)?["ratios"][metric][to];
        Some([ratio["median"].as_f64()?, ratio["min"].as_f64()?, ratio["max"].as_f64()?])
    }

    /// Least and most of a figure.
    pub fn spread(&self, name: &str, routes: usize, metric: &str) -> Option<[f64; 2]> {
        let spread = &self.row(name, routes)?["spread"][metric];
        Some([spread["min"].as_f64()?, spread["max"].as_f64()?])
    }

    /// Names in the order of the rows.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.rows.iter().filter_map(|row| row["name"].as_str()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Sizes of route tables, from the least.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> =
            self.rows.iter().filter_map(|row| usize::try_from(row["routes"].as_u64()?).ok()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::default();
        for (round, (nginx, own)) in [(10.0, 20.0), (30.0, 30.0), (20.0, 10.0)].into_iter().enumerate() {
            samples.add(Kind::Nginx, 1, "cpu_us_c64", round, nginx);
            samples.add(Kind::HytheT0, 1, "cpu_us_c64", round, own);
        }
        // A round that the other did not have does not count.
        samples.add(Kind::HytheT0, 1, "cpu_us_c64", 3, 1000.0);
        samples.note(Kind::HytheT0, 1, "a reason");
        samples.note(Kind::HytheT0, 1, "a reason");
        let row = Value::Object(samples.row((Kind::HytheT0, 1)));
        assert_eq!(row["ratios"]["cpu_us_c64"]["nginx"], json!({ "median": 1.0, "min": 0.5, "max": 2.0 }));
        assert_eq!(row["spread"]["cpu_us_c64"]["max"], json!(1000.0));
        assert_eq!(row["p50_us"], Value::Null);
        assert_eq!(row["notes"], json!(["a reason"]));
    }
}
