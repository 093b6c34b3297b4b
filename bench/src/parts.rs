//! What criterion measured of the parts (`bench/micro`), as a report like any other: from the
//! `benchmark.json` and `sample.json` that it leaves for each benchmark.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::report::Report;
use crate::rounds::{Sample, Series, Summary};

/// Criterion's name for a benchmark: group, function and parameter.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

/// Criterion's samples: nanoseconds that so many iterations took together.
#[derive(Deserialize)]
struct Samples {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Reads a folder that criterion wrote, at whatever depth a benchmark lies in it.
pub fn report(folder: &Path) -> Result<Report> {
    let mut report = Report::new(
        "parts",
        "each part by itself, on one thread: µs of wall time for one; samples are means of many in a row",
    );
    collect(folder, &mut report.series)?;
    ensure!(
        !report.series.is_empty(),
        "{} has nothing of criterion's: run make bench-micro",
        folder.display()
    );
    report.series.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(report)
}

fn collect(folder: &Path, series: &mut Vec<Series>) -> Result<()> {
    let entries = std::fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        // The newest run lies in `new`, beside the one before it in `base`.
        if path.ends_with("new") && path.join("sample.json").exists() {
            series.push(one(&path)?);
        } else {
            collect(&path, series)?;
        }
    }
    Ok(())
}

fn one(folder: &Path) -> Result<Series> {
    let benchmark: Benchmark = read(&folder.join("benchmark.json"))?;
    let samples: Samples = read(&folder.join("sample.json"))?;
    let each = samples.times.iter().zip(&samples.iters);
    let values: Vec<f64> = each.map(|(time, iters)| time / iters / 1000.0).collect();
    ensure!(!values.is_empty(), "{}: no samples", folder.display());
    Ok(Series {
        name: benchmark.full_id,
        unit: "µs",
        summary: Summary::of(values.iter().copied()),
        samples: values.into_iter().map(Sample::from).collect(),
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not criterion's", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_the_newest_samples_per_iteration() {
        let folder = tempfile::tempdir().unwrap();
        for (run, times) in [("base", "[9e9]"), ("new", "[2000.0, 6000.0, 30000.0]")] {
            let run = folder.path().join("lookup/1000").join(run);
            std::fs::create_dir_all(&run).unwrap();
            std::fs::write(run.join("benchmark.json"), r#"{"full_id":"lookup/1000"}"#).unwrap();
            let samples =
                format!(r#"{{"sampling_mode":"Flat","iters":[1.0,2.0,3.0],"times":{times}}}"#);
            std::fs::write(run.join("sample.json"), samples).unwrap();
        }
        let report = report(folder.path()).unwrap();
        let [lookup] = report.series.as_slice() else {
            panic!("one benchmark: {:?}", report.series);
        };
        assert_eq!(lookup.name, "lookup/1000");
        let values: Vec<f64> = lookup.samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [2.0, 3.0, 10.0]);
        assert_eq!(lookup.summary.median, 3.0);
    }

    #[test]
    fn a_folder_without_benchmarks_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = report(folder.path()).unwrap_err().to_string();
        assert!(error.contains("make bench-micro"), "{error}");
    }
}
