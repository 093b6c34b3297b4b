//! `docs/alerts.yml` and `docs/grafana-dashboard.json` load, and ask for nothing that clinch does not
//! write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clinch_tests::peers::{present, run};
use clinch_tests::skip;
use serde_json::Value;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

fn read(name: &str) -> String {
    let path = docs(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let names = text.split(word).filter(|name| name.starts_with("clinch_"));
    names.map(str::to_owned).collect()
}

/// The expressions of the dashboard, with the variables filled in.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(panel["title"].is_string() && !targets.is_empty());
        targets
    });
    targets
        .map(|target| {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression.replace("$__rate_interval", "5m");
            expression.replace("$instance", ".*")
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_there_are() {
    // A test of the terminator holds this list to what is served.
    let handbook = read("METRICS.md");
    let rows = handbook.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<&str> = rows
        .filter_map(|row| row.split(['`', '{']).next())
        .collect();
    let named = metrics_in(&read("alerts.yml"));
    let shown = expressions().iter().flat_map(|e| metrics_in(e)).collect();
    for name in named.union(&shown) {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(listed.contains(family), "{name} is not in METRICS.md");
    }
    assert!(named.len() > 10 && shown.len() > 15);
}

#[test]
fn prometheus_takes_the_alert_rules_and_every_expression_of_the_dashboard() {
    if !present("promtool") {
        skip!("promtool is not installed (Debian package prometheus)");
    }
    let rules = docs("alerts.yml");
    let said = run(
        "promtool",
        &["check", "rules", rules.to_str().expect("UTF-8")],
    );
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has("14 rules found");

    let directory = tempfile::tempdir().expect("a directory");
    let records = expressions()
        .into_iter()
        .enumerate()
        .map(|(n, expression)| {
            let expression = serde_json::to_string(&expression).expect("a string");
            format!("  - record: panel_{n}\n    expr: {expression}\n")
        });
    let text: String = records.collect();
    let path = directory.path().join("dashboard.yml");
    std::fs::write(&path, format!("groups:\n- name: panels\n  rules:\n{text}")).expect("ours");
    let said = run(
        "promtool",
        &["check", "rules", path.to_str().expect("UTF-8")],
    );
    assert_eq!(said.code, Some(0), "{}", said.text);
}
