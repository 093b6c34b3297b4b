//! An outcome for readers: a table for a terminal, JSON for programs, percentile files for the
//! HdrHistogram plotter. The page with plots is `html`, made of the same values.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::generator::Outcome;
use crate::plan::{Pace, Plan, Revocation};
use crate::record::{Counts, Phase};

/// A run, with what its readers need. Times are milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Name in plots and tables.
    pub label: String,
    /// What was done, in a line.
    pub what: String,
    /// The server.
    pub target: String,
    /// Command line.
    pub command: Vec<String>,
    /// Measured seconds.
    pub seconds: f64,
    /// Finished connections a second.
    pub rate: f64,
    /// Counts.
    pub counts: Counts,
    /// Staples that came, wanted or not; warm-up included.
    pub staples: u64,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// Each phase that occurred.
    pub phases: Vec<PhaseReport>,
    /// Each second, by when connections ended.
    pub series: Vec<SecondReport>,
    /// The generator itself.
    pub threads: Vec<ThreadReport>,
    /// Open loop: arrivals that waited for a free place.
    pub held: u64,
    /// What a reader must know before believing the rest.
    pub warnings: Vec<String>,
}

/// The distribution of a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Which.
    pub name: String,
    /// Connections that came through it.
    pub count: u64,
    /// Mean, ms.
    pub mean: f64,
    /// Quantile and ms.
    pub quantiles: Curve,
    /// Enough points for a plot: quantile and ms.
    pub curve: Curve,
}

/// Points of a distribution: quantile (0 to 1) and milliseconds.
pub type Curve = Vec<(f64, f64)>;

/// A second of the run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SecondReport {
    /// Finished in it.
    pub finished: u64,
    /// Failed in it.
    pub failed: u64,
    /// Median until ready, ms.
    pub p50: f64,
    /// 99th percentile until ready, ms.
    pub p99: f64,
    /// Most until ready, ms.
    pub max: f64,
}

/// A thread of the generator.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ThreadReport {
    /// Its core, where it was bound to one.
    pub core: Option<usize>,
    /// Share of its core that it used.
    pub cpu_share: f64,
    /// Share of the time in which it could have run and had to wait for a core.
    pub wait_share: f64,
}

impl Report {
    /// Reports an outcome of a plan.
    pub fn new(label: &str, plan: &Plan, outcome: &Outcome) -> Self {
        let recorder = &outcome.recorder;
        let seconds = outcome.took.as_secs_f64();
        let phases = Phase::ALL
            .iter()
            .map(|phase| (phase, recorder.histogram(*phase)))
            .filter(|(_, histogram)| !histogram.is_empty());
        let cores = plan.threads.iter().zip(&outcome.shares);
        let mut report = Self {
            label: label.to_owned(),
            what: plan.describe(),
            target: plan.address.to_string(),
            command: std::env::args().collect(),
            seconds,
            rate: recorder.counts.finished as f64 / seconds,
            counts: recorder.counts,
            staples: outcome.staples,
            failures: recorder.failures.clone(),
            phases: phases
                .map(|(phase, h)| PhaseReport::new(*phase, h))
                .collect(),
            series: series(outcome),
            threads: cores
                .map(|(core, share)| ThreadReport {
                    core: *core,
                    cpu_share: share.cpu,
                    wait_share: share.wait,
                })
                .collect(),
            held: outcome.held,
            warnings: Vec::new(),
        };
        report.warnings = report.doubts(plan);
        report
    }

    /// A phase, if it occurred.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseReport> {
        self.phases.iter().find(|found| found.name == phase.name())
    }

    fn doubts(&self, plan: &Plan) -> Vec<String> {
        let mut doubts = Vec::new();
        let busiest = self.threads.iter().map(|t| t.cpu_share).fold(0.0, f64::max);
        if busiest > BUSY {
            doubts.push(format!(
                "the generator is the bottleneck: a thread used {:.0} % of its core; give it more \
                 cores (--threads, --cores) or less to do (a lower --rate, --check distinct)",
                busiest * 100.0
            ));
        }
        let starved = self.threads.iter().map(|t| t.wait_share);
        let starved = starved.fold(0.0, f64::max);
        if starved > STARVED {
            doubts.push(format!(
                "the generator is the bottleneck: a thread waited for a core for {:.0} % of the time, \
                 because others use it too; what it measured contains that",
                starved * 100.0
            ));
        }
        let late = self.phase(Phase::Late).map_or(0.0, |late| late.at(0.99));
        let ready = self.phase(Phase::Ready).map_or(0.0, |ready| ready.at(0.5));
        if matches!(plan.pace, Pace::Open { .. })
            && self.held == 0
            && late > LATE_MS.max(ready / 2.0)
        {
            doubts.push(format!(
                "arrivals started late (p99 {late:.2} ms) though places were free: the generator, or \
                 what shares its cores, is part of the latency"
            ));
        }
        if self.held > 0 {
            doubts.push(format!(
                "{} arrivals waited for a free place (--most-open): the server is slower than the \
                 rate, and latencies grow as long as the run lasts",
                self.held
            ));
        }
        if plan.revocation == Revocation::Ignore && self.staples > 0 {
            doubts.push(format!(
                "{} staples came although none is wanted: to measure without them, ask for a site \
                 that has none",
                self.staples
            ));
        }
        if self.counts.failed > 0 {
            doubts.push(format!(
                "{} connections failed and are only in the phases that they completed",
                self.counts.failed
            ));
        }
        doubts
    }

    /// The report for a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.label, self.what);
        let counts = &self.counts;
        let _ = writeln!(
            text,
            "  {} finished in {:.1} s ({:.1}/s), {} failed, {} resumed, {} staples",
            counts.finished, self.seconds, self.rate, counts.failed, counts.resumed, self.staples
        );
        if counts.bytes_down + counts.bytes_up > 0 {
            let mbit = |bytes: u64| bytes as f64 * 8.0 / 1e6 / self.seconds;
            let _ = writeln!(
                text,
                "  bodies: {} bytes down ({:.1} Mbit/s), {} bytes up ({:.1} Mbit/s)",
                counts.bytes_down,
                mbit(counts.bytes_down),
                counts.bytes_up,
                mbit(counts.bytes_up)
            );
        }
        let _ = write!(text, "  {:<11} {:>8} {:>9}", "ms", "count", "mean");
        for (name, _) in QUANTILES {
            let _ = write!(text, " {name:>9}");
        }
        text.push('\n');
        for phase in &self.phases {
            let _ = write!(
                text,
                "  {:<11} {:>8} {:>9.3}",
                phase.name, phase.count, phase.mean
            );
            for (_, ms) in &phase.quantiles {
                let _ = write!(text, " {ms:>9.3}");
            }
            text.push('\n');
        }
        for (kind, times) in &self.failures {
            let _ = writeln!(text, "  failed: {times:>8}  {kind}");
        }
        for (index, thread) in self.threads.iter().enumerate() {
            let core = thread
                .core
                .map_or(String::new(), |core| format!(" on core {core}"));
            let (used, waited) = (thread.cpu_share * 100.0, thread.wait_share * 100.0);
            let _ = writeln!(
                text,
                "  generator: thread {index}{core} used {used:.0} % of a core and waited {waited:.0} % for it"
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "  WARNING: {warning}");
        }
        text
    }
}

impl PhaseReport {
    fn new(phase: Phase, histogram: &Histogram<u64>) -> Self {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let at = |(_, q): &(&str, f64)| (*q, ms(histogram.value_at_quantile(*q)));
        let curve = histogram.iter_quantiles(5);
        let points = curve.map(|point| (point.quantile(), ms(point.value_iterated_to())));
        let mut curve: Curve = points.collect();
        // The last connection is one of so many, not the limit of all percentiles.
        let last = 1.0 - 1.0 / histogram.len().max(2) as f64;
        for point in &mut curve {
            point.0 = point.0.min(last);
        }
        Self {
            name: phase.name().to_owned(),
            count: histogram.len(),
            mean: histogram.mean() / 1e6,
            quantiles: QUANTILES.iter().map(at).collect(),
            curve,
        }
    }

    /// Milliseconds at one of the tabled quantiles.
    pub fn at(&self, quantile: f64) -> f64 {
        let found = self.quantiles.iter().find(|(q, _)| *q == quantile);
        found.map_or(f64::NAN, |(_, ms)| *ms)
    }
}

/// A phase as the HdrHistogram plotter reads it (.hgrm): value in ms, percentile, count, 1/(1-p).
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for point in histogram.iter_quantiles(5) {
        let (ms, q) = (
            point.value_iterated_to() as f64 / 1e6,
            point.quantile_iterated_to(),
        );
        let count = histogram.count_between(0, point.value_iterated_to());
        let _ = write!(text, "{ms:>12.6} {q:>14.12} {count:>10}");
        if q < 1.0 {
            let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - q));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:>12.6}, StdDeviation   = {:>12.6}]\n\
         #[Max     = {:>12.6}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.mean() / 1e6,
        histogram.stdev() / 1e6,
        histogram.max() as f64 / 1e6,
        histogram.len(),
        histogram.buckets(),
        2048
    );
    text
}

fn series(outcome: &Outcome) -> Vec<SecondReport> {
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let seconds = outcome.recorder.seconds.iter();
    seconds
        .map(|second| SecondReport {
            finished: second.finished,
            failed: second.failed,
            p50: ms(second.ready.value_at_quantile(0.5)),
            p99: ms(second.ready.value_at_quantile(0.99)),
            max: ms(second.ready.max()),
        })
        .collect()
}

/// What tables show.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// Share of a core from which a thread's own queue shows in what it measures.
const BUSY: f64 = 0.85;

/// Share of waiting for a core from which the generator is not believed.
const STARVED: f64 = 0.1;

/// Lateness that is nobody's concern, ms.
const LATE_MS: f64 = 0.5;
