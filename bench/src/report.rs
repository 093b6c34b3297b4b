//! What a scenario found: printed as tables, kept as JSON with every single value.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::{self, Environment};
use crate::pictures::Curve;
use crate::rounds::{Ratio, Series};

/// The findings of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its subcommand.
    pub scenario: &'static str,
    /// What was done, in a sentence.
    pub what: String,
    /// Where and with what.
    pub environment: Environment,
    /// Everything that was measured.
    pub series: Vec<Series>,
    /// What is concluded from.
    pub ratios: Vec<Ratio>,
    /// Promises held against the measurement.
    pub promises: Vec<Promise>,
    /// Curves of what was found, for [`crate::pictures`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
    /// What a reader must know: contenders left out, and the like.
    pub notes: Vec<String>,
    /// Files recorded beside it: name and content.
    #[serde(skip)]
    pub files: Vec<(String, String)>,
}

/// A promised bound beside the figure measured.
#[derive(Clone, Debug, Serialize)]
pub struct Promise {
    /// What is promised.
    pub text: String,
    /// The figure must be at most this.
    pub at_most: f64,
    /// The figure.
    pub measured: f64,
    /// Whether it is.
    pub holds: bool,
}

impl Report {
    /// An empty report.
    pub fn new(scenario: &'static str, what: impl Into<String>) -> Self {
        Self {
            scenario,
            what: what.into(),
            environment: Environment::observe(),
            series: Vec::new(),
            ratios: Vec::new(),
            promises: Vec::new(),
            curves: Vec::new(),
            notes: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Holds a promise against a measured figure.
    pub fn promise(&mut self, text: impl Into<String>, at_most: f64, measured: f64) {
        self.promises.push(Promise {
            text: text.into(),
            at_most,
            measured,
            holds: measured <= at_most,
        });
    }

    /// The report for a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("\n{}: {}\n", self.scenario, self.what);
        let line = |text: &mut String, name: &str, unit: &str, s: &crate::rounds::Summary| {
            let _ = writeln!(
                text,
                "  {name:<58} {:>9.3}  ({:.3} … {:.3}) {unit}",
                s.median, s.least, s.most
            );
        };
        for series in &self.series {
            line(&mut text, &series.name, series.unit, &series.summary);
        }
        for ratio in &self.ratios {
            line(&mut text, &ratio.name, "", &ratio.summary);
        }
        for promise in &self.promises {
            let verdict = if promise.holds { "holds" } else { "NOT MET" };
            let _ = writeln!(
                text,
                "  {verdict}: {} — {:.3}, promised at most {}",
                promise.text, promise.measured, promise.at_most
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        text
    }

    /// Writes the report as JSON to `results/DATE-MACHINE/SCENARIO.json`, and says where.
    pub fn record(&mut self, results: &Path) -> Result<PathBuf> {
        self.environment.load_at_end = Some(machine::load());
        let date = self.environment.date.get(..10).unwrap_or("undated");
        let directory = results.join(format!("{date}-{}", self.environment.slug()));
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(format!("{}.json", self.scenario));
        std::fs::write(&path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        for (name, content) in &self.files {
            let path = directory.join(name);
            std::fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(path)
    }
}
