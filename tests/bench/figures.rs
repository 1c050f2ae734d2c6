//! What a benchmark says: medians and spread, ratios taken within one run, and the budget it is held against.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Samples of one quantity.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Runs `work` and records its milliseconds.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let begun = Instant::now();
        let result = work()?;
        self.push(millis(begun.elapsed()));
        Ok(result)
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What a figure must not exceed, or must reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Budget {
    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtMost(limit) if value <= limit => "ok",
            Self::AtLeast(limit) if value >= limit => "ok",
            Self::AtMost(_) | Self::AtLeast(_) => "MISSED",
            Self::None => "",
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::None => String::new(),
        }
    }
}

/// All figures of one run, in the order they were taken.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Value>,
}

impl Report {
    /// A measured quantity.
    pub(crate) fn samples(&mut self, name: &str, unit: &str, samples: &Samples, budget: Budget) {
        let spread = format!("{:.2} - {:.2}", samples.min(), samples.max());
        self.row(name, unit, samples.median(), &spread, budget);
        if let Some(row) = self.rows.last_mut() {
            row["min"] = json!(samples.min());
            row["max"] = json!(samples.max());
            row["samples"] = json!(samples.0.len());
        }
    }

    /// A single value: a size, a ratio of medians.
    pub(crate) fn value(&mut self, name: &str, unit: &str, value: f64, budget: Budget) {
        self.row(name, unit, value, "", budget);
    }

    fn row(&mut self, name: &str, unit: &str, value: f64, spread: &str, budget: Budget) {
        let verdict = budget.verdict(value);
        println!("  {name:<52} {value:>10.3} {unit:<7} {spread:<24} {:<10} {verdict}", budget.text());
        self.rows.push(json!({
            "name": name, "unit": unit, "value": value, "budget": budget.text(), "verdict": verdict,
        }));
    }

    pub(crate) fn section(&mut self, title: &str) {
        println!("\n{title}");
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "figures": self.rows })
    }
}
