//! The status screen: on the serial console a block of lines whenever something changes, and at most
//! once a minute how many handshakes there are; on the first virtual terminal the same, kept current.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::console;
use crate::network::Network;
use crate::run::Children;
use crate::supervise::Clinch;

/// What does not change while the machine runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of the image.
    pub version: String,
    /// Slot that was booted, and whether it is blessed.
    pub slot: String,
    /// Secure Boot, lockdown, modules.
    pub locks: String,
    /// How the clock was set.
    pub clock: String,
    /// Which configuration is in use.
    pub configuration: String,
}

/// Draws in the background, for ever.
pub fn start(facts: Facts, network: Network, clinch: Clinch, children: Children) {
    std::thread::spawn(move || {
        let mut shown = String::new();
        let mut before: Option<(u64, Instant)> = None;
        let mut told: (Option<u64>, Instant) = (None, Instant::now());
        loop {
            let status = status(&children, &clinch);
            let rate = rate(&status, &mut before);
            let steady = steady(&facts, &network, &clinch, &status);
            let moving = moving(rate);
            let changed = steady != shown;
            if changed {
                for line in steady.lines() {
                    console::pass_on(&format!("| {line}"));
                }
                shown.clone_from(&steady);
            }
            if changed || rate != told.0 && told.1.elapsed() >= PACE_OF_RATES {
                console::pass_on(&format!("| {moving}"));
                told = (rate, Instant::now());
            }
            // Absent on machines without a screen.
            let _ = fs::write("/dev/tty1", format!("\x1b[H\x1b[2J{steady}{moving}\n"));
            std::thread::sleep(EVERY);
        }
    });
}

/// `clinch status` as JSON; null where it does not answer.
pub fn status(children: &Children, clinch: &Clinch) -> serde_json::Value {
    let said = ask(children, clinch, "--json").ok();
    said.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// What clinch measures, as Prometheus reads it.
pub fn metrics(children: &Children, clinch: &Clinch) -> Result<String, String> {
    ask(children, clinch, "--metrics")
}

fn ask(children: &Children, clinch: &Clinch, how: &str) -> Result<String, String> {
    if !clinch.is_ready() {
        return Err("clinch does not serve".to_owned());
    }
    let config = format!("{}/clinch.toml", crate::supervise::CONFIG);
    children.succeed(Command::new("/bin/clinch").args(["status", how, "-c", &config]))
}

/// How connections are brought to cores, in a word.
pub fn steering(status: &serde_json::Value) -> &str {
    status["steering_mode"].as_str().unwrap_or("unknown")
}

/// How many connections the kernel has sealed, or that no listener has asked it to.
pub fn ktls(status: &serde_json::Value) -> String {
    if status["ktls"].is_null() {
        return "off".to_owned();
    }
    sum(status, "ktls").to_string()
}

/// A figure of all workers.
fn sum(status: &serde_json::Value, figure: &str) -> u64 {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers.filter_map(|worker| worker[figure].as_u64()).sum()
}

fn steady(facts: &Facts, network: &Network, clinch: &Clinch, status: &serde_json::Value) -> String {
    let mut text = format!(
        "clinch appliance {}, {}\n{}\n",
        facts.version, facts.slot, facts.locks
    );
    for line in network.lines() {
        let _ = writeln!(text, "network {line}");
    }
    let _ = writeln!(
        text,
        "clock {}\nconfiguration {}",
        facts.clock, facts.configuration
    );
    let phase = if clinch.is_ready() {
        "serves"
    } else if clinch.is_running() {
        "starts"
    } else {
        "is down"
    };
    let _ = writeln!(
        text,
        "clinch {phase}, started {} times, steering {}",
        clinch.starts(),
        steering(status)
    );
    sites(status, &mut text);
    text
}

/// A line for each certificate. Where they are many, how many are in which state, and a line for each
/// that needs somebody, as far as there is room.
fn sites(status: &serde_json::Value, text: &mut String) {
    let all = status["control"]["certificates"].as_array();
    let all = all.map_or(&[][..], Vec::as_slice);
    let state = |certificate: &serde_json::Value| {
        let word = certificate["staple"].as_str().unwrap_or("unknown");
        word.to_owned()
    };
    let mut shown: Vec<&serde_json::Value> = all.iter().collect();
    if all.len() > MOST_LISTED {
        let mut counts = BTreeMap::<String, usize>::new();
        for certificate in all {
            *counts.entry(state(certificate)).or_default() += 1;
        }
        let counts = counts
            .iter()
            .map(|(state, count)| format!("{count} {state}"));
        let counts: Vec<String> = counts.collect();
        let _ = writeln!(
            text,
            "{} certificates, staples: {}",
            all.len(),
            counts.join(", ")
        );
        shown.retain(|certificate| !["stapled", "not_applicable"].contains(&&*state(certificate)));
    }
    for certificate in shown.iter().take(MOST_LISTED) {
        let sites = certificate["sites"].as_array();
        let sites = sites.map_or(&[][..], Vec::as_slice);
        let mut names: Vec<&str> = sites.iter().filter_map(|name| name.as_str()).collect();
        let more = names.len().saturating_sub(MOST_NAMES);
        names.truncate(MOST_NAMES);
        let names = names.join(" ");
        let names = if more > 0 {
            format!("{names} and {more} more")
        } else {
            names
        };
        let _ = writeln!(text, "site {names} staple {}", state(certificate));
    }
    if shown.len() > MOST_LISTED {
        let _ = writeln!(text, "and {} more", shown.len() - MOST_LISTED);
    }
}

fn moving(rate: Option<u64>) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (hours, minutes, seconds) = (now / 3600 % 24, now / 60 % 60, now % 60);
    format!(
        "{hours:02}:{minutes:02}:{seconds:02} UTC, {} handshakes per second",
        rate.map_or("no".to_owned(), |rate| rate.to_string())
    )
}

fn rate(status: &serde_json::Value, before: &mut Option<(u64, Instant)>) -> Option<u64> {
    status["workers"].as_array()?;
    let total = sum(status, "handshakes");
    let now = Instant::now();
    let (last, at) = before.replace((total, now))?;
    Some(total.saturating_sub(last) / now.duration_since(at).as_secs().max(1))
}

const EVERY: Duration = Duration::from_secs(5);
/// A serial line is read by people and kept by collectors.
const PACE_OF_RATES: Duration = Duration::from_secs(60);
const MOST_LISTED: usize = 40;
const MOST_NAMES: usize = 4;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(certificates: Vec<serde_json::Value>) -> Vec<String> {
        let mut text = String::new();
        sites(
            &json!({ "control": { "certificates": certificates } }),
            &mut text,
        );
        text.lines().map(str::to_owned).collect()
    }

    fn certificate(number: usize, staple: &str) -> serde_json::Value {
        json!({ "sites": [format!("s{number}.test")], "staple": staple })
    }

    #[test]
    fn few_certificates_have_a_line_each() {
        let lines = listed(vec![certificate(0, "stapled"), certificate(1, "missing")]);
        assert_eq!(
            lines,
            ["site s0.test staple stapled", "site s1.test staple missing"]
        );
        assert!(listed(Vec::new()).is_empty());
    }

    #[test]
    fn of_ten_thousand_those_in_trouble_are_shown_as_far_as_there_is_room() {
        let mut all: Vec<_> = (0..10_000).map(|n| certificate(n, "stapled")).collect();
        all[7] = certificate(7, "revoked");
        assert_eq!(
            listed(all.clone()),
            [
                "10000 certificates, staples: 1 revoked, 9999 stapled",
                "site s7.test staple revoked"
            ]
        );
        all[..100].fill(certificate(0, "missing"));
        let lines = listed(all);
        assert_eq!(lines.len(), 1 + MOST_LISTED + 1);
        assert_eq!(lines[1 + MOST_LISTED], "and 60 more");
    }

    #[test]
    fn of_many_names_the_first_are_shown() {
        let names: Vec<String> = (0..9).map(|n| format!("n{n}")).collect();
        let lines = listed(vec![json!({ "sites": names, "staple": "stapled" })]);
        assert_eq!(lines, ["site n0 n1 n2 n3 and 5 more staple stapled"]);
    }
}
