//! Pictures of what was recorded: SVG files beside the JSON of a folder under `bench/results`, made from
//! that JSON alone, so that they can be made again without measuring.
//!
//! Bars compare contenders by their medians; the spread is in the JSON. What a scenario has no picture
//! for gets none.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clinch_load::plot::{self, Line};
use clinch_load::{Phase, Report as LoadReport};
use serde::{Deserialize, Serialize};

/// A curve that a scenario found, kept in its report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// Name of the file, without `.svg`.
    pub file: String,
    /// What is shown.
    pub title: String,
    /// The horizontal axis, logarithmic.
    pub x: String,
    /// The vertical axis, from 0 up.
    pub y: String,
    /// Label and points of each line.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// As much of a recorded report as is drawn.
#[derive(Deserialize)]
struct Recorded {
    scenario: String,
    series: Vec<Named>,
    ratios: Vec<Named>,
    #[serde(default)]
    curves: Vec<Curve>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    summary: Median,
}

#[derive(Deserialize)]
struct Median {
    median: f64,
}

/// Draws everything in a folder of results that there is a picture for; says what it wrote.
pub fn draw(results: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(results)
        .with_context(|| format!("no results in {}", results.display()))?;
    let mut written = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for (name, svg) in pictures(&stem, &text).with_context(|| path.display().to_string())? {
            let file = results.join(format!("{name}.svg"));
            std::fs::write(&file, svg)?;
            written.push(file);
        }
    }
    written.sort();
    Ok(written)
}

/// Names and pictures of one file.
fn pictures(stem: &str, text: &str) -> Result<Vec<(String, String)>> {
    if let Some(run) = stem.strip_suffix("-runs") {
        let runs: Vec<LoadReport> = serde_json::from_str(text)?;
        return Ok(vec![(run.to_owned(), percentiles(run, &runs))]);
    }
    let report: Recorded = serde_json::from_str(text)?;
    let mut drawn: Vec<(String, String)> = report.curves.iter().map(curve).collect();
    for bars in BARS.iter().filter(|bars| bars.scenario == report.scenario) {
        let values = bars.values(&report);
        if values.len() > 1 {
            drawn.push((
                bars.file.to_owned(),
                plot::bars(bars.title, bars.unit, &values),
            ));
        }
    }
    Ok(drawn)
}

fn percentiles(run: &str, runs: &[LoadReport]) -> String {
    let curves: Vec<_> = runs
        .iter()
        .filter_map(|run| Some((run.label.clone(), &run.phase(Phase::Ready)?.curve)))
        .collect();
    let pace = match run {
        "headline-open" => "200 visitors a second, random arrivals",
        "headline-closed" => "8 clients in a closed loop",
        other => other,
    };
    plot::percentiles(&format!("Until the handshake is trusted: {pace}"), &curves)
}

fn curve(curve: &Curve) -> (String, String) {
    let lines: Vec<Line> = curve
        .lines
        .iter()
        .map(|(label, points)| Line {
            label: label.clone(),
            points: points.clone(),
        })
        .collect();
    let svg = plot::over_powers(&curve.title, &curve.x, &curve.y, &lines);
    (curve.file.clone(), svg)
}

/// One picture with bars.
struct Bars {
    scenario: &'static str,
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    from: From,
}

/// Where the bars come from.
enum From {
    /// Ratios that begin with this, clinch's own name, and ` ÷ ` and the peer's: how many times clinch's
    /// the peer's figure is.
    Ratios(&'static str),
    /// Series that begin with the first and do not end with the second; where the first is empty, those
    /// without a `:`, which parts a detail's name from the contender's.
    Series(&'static str, &'static str),
}

impl Bars {
    fn values(&self, report: &Recorded) -> Vec<(String, f64)> {
        match self.from {
            From::Ratios(clinch) => {
                let prefix = format!("{clinch} ÷ ");
                let of_peer = |ratio: &Named| {
                    let peer = ratio.name.strip_prefix(&prefix)?;
                    Some((short(clinch, peer), 1.0 / ratio.summary.median))
                };
                let own = ("clinch".to_owned(), 1.0);
                std::iter::once(own)
                    .chain(report.ratios.iter().filter_map(of_peer))
                    .collect()
            }
            From::Series(begin, not_at_end) => report
                .series
                .iter()
                .filter(|series| not_at_end.is_empty() || !series.name.ends_with(not_at_end))
                .filter(|series| !begin.is_empty() || !series.name.contains(": "))
                .filter_map(|series| {
                    let name = series.name.strip_prefix(begin)?;
                    Some((name.to_owned(), series.summary.median))
                })
                .collect(),
        }
    }
}

/// A peer's name without the words that it shares with clinch's, such as "req".
fn short(clinch: &str, peer: &str) -> String {
    let shared = clinch.split(" clinch").next().unwrap_or_default();
    let peer = peer.strip_prefix(shared).unwrap_or(peer).trim();
    peer.replace(" unstapled", " (no staple)")
        .replace(" stapled", "")
}

const fn bars(
    scenario: &'static str,
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    from: From,
) -> Bars {
    Bars {
        scenario,
        file,
        title,
        unit,
        from,
    }
}

const BARS: [Bars; 12] = [
    bars(
        "peers",
        "peers-req",
        "CPU of a full stapled handshake and a request: times clinch's",
        "×",
        From::Ratios("req clinch stapled"),
    ),
    bars(
        "peers",
        "peers-hs",
        "CPU of a full stapled handshake without a request: times clinch's",
        "×",
        From::Ratios("hs clinch stapled"),
    ),
    bars(
        "resumed",
        "resumed",
        "CPU of a resumed handshake: times clinch's",
        "×",
        From::Ratios("clinch"),
    ),
    bars(
        "bulk",
        "bulk-aes",
        "CPU per byte to the client, AES-128-GCM: times clinch's",
        "×",
        From::Ratios("AES-128-GCM clinch"),
    ),
    bars(
        "bulk",
        "bulk-chacha",
        "CPU per byte to the client, ChaCha20-Poly1305: times clinch's",
        "×",
        From::Ratios("ChaCha20 clinch"),
    ),
    bars(
        "idle",
        "idle",
        "Resident memory per idle connection",
        "KiB",
        From::Series("", " after one request"),
    ),
    bars(
        "latency",
        "latency-100",
        "From due to the last byte, 100 visitors a second, median",
        "ms",
        From::Series("100/s ", ""),
    ),
    bars(
        "latency",
        "latency-400",
        "From due to the last byte, 400 visitors a second, median",
        "ms",
        From::Series("400/s ", ""),
    ),
    bars(
        "syscalls",
        "syscalls",
        "System calls for a connection with a request",
        "",
        From::Series("", ""),
    ),
    bars(
        "certificates",
        "certificates-memory",
        "Resident memory with 10,000 certificates",
        "MiB",
        From::Series("memory: ", ""),
    ),
    bars(
        "certificates",
        "certificates-reload",
        "Reload of 10,000 certificates until one exchanged is shown",
        "s",
        From::Series("", ""),
    ),
    bars(
        "older",
        "older",
        "CPU of a full TLS 1.2 handshake with RSA 2048 and a request: times clinch's",
        "×",
        From::Ratios("TLS 1.2, RSA: clinch"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_of_ratios_and_of_series() {
        let peers = r#"{"scenario":"peers","series":[],"ratios":[
            {"name":"req clinch stapled ÷ req nginx-stream unstapled","summary":{"median":0.5}},
            {"name":"req clinch unstapled ÷ req nginx-stream unstapled","summary":{"median":0.4}}]}"#;
        let drawn = pictures("peers", peers).expect("a report");
        let [(name, svg)] = drawn.as_slice() else {
            panic!("one picture of {drawn:?}");
        };
        assert_eq!(name, "peers-req");
        assert!(svg.contains("nginx-stream (no staple)") && svg.contains(">2 ×<"));

        let idle = r#"{"scenario":"idle","ratios":[],"series":[
            {"name":"clinch","summary":{"median":5.5}},{"name":"h2o","summary":{"median":31.0}},
            {"name":"clinch after one request","summary":{"median":5.6}}]}"#;
        let drawn = pictures("idle", idle).expect("a report");
        assert!(drawn[0].1.contains("5.5 KiB") && !drawn[0].1.contains("5.6"));
    }

    #[test]
    fn curves_are_drawn_as_recorded() {
        let text = r#"{"scenario":"scale-names","ratios":[],"series":[],"curves":[{"file":"f","title":"growth",
            "x":"sites","y":"µs","lines":[["one name",[[1.0,100.0],[1000000.0,101.0]]]]}]}"#;
        let drawn = pictures("scale-names", text).expect("a report");
        assert_eq!(drawn[0].0, "f");
        assert!(drawn[0].1.contains("growth") && drawn[0].1.contains("1,000,000"));
    }
}
