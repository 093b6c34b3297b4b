//! The status screen: on the serial console a block of lines whenever something changes, on the
//! first virtual terminal the same, kept current.

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
        loop {
            let status = status(&children, &clinch);
            let rate = rate(&status, &mut before);
            let steady = steady(&facts, &network, &clinch, &status);
            if steady != shown {
                for line in steady.lines() {
                    console::pass_on(&format!("| {line}"));
                }
                shown.clone_from(&steady);
            }
            // Absent on machines without a screen.
            let _ = fs::write(
                "/dev/tty1",
                format!("\x1b[H\x1b[2J{steady}{}", moving(rate)),
            );
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
    for certificate in status["control"]["certificates"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let sites: Vec<&str> = certificate["sites"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| s.as_str())
            .collect();
        let _ = writeln!(
            text,
            "site {} staple {}",
            sites.join(" "),
            certificate["staple"].as_str().unwrap_or("unknown")
        );
    }
    text
}

fn moving(rate: Option<u64>) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (hours, minutes, seconds) = (now / 3600 % 24, now / 60 % 60, now % 60);
    format!(
        "{hours:02}:{minutes:02}:{seconds:02} UTC, {} handshakes per second\n",
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
