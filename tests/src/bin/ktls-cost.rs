//! What a long answer costs with records sealed by clinch and by the kernel: processor time a byte, of
//! clinch and of the whole machine, and system calls a MiB.
//!
//!   ktls-cost [MIB] [TIMES]
//!
//! Meant for QEMU with `-icount shift=0` (`make ktls-cost`), where each instruction takes one nanosecond:
//! a time is a count of instructions then, and says nothing about how long they would take.

use std::fs;
use std::process::{Command, Stdio};

use clinch_tests::backend::Backend;
use clinch_tests::client::{Client, Offer};
use clinch_tests::process::Clinch;
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, bulk, eventually};
use rustix::process::{Pid, Signal, kill_process};
use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise| match arguments.next() {
        Some(text) => text.parse().expect("a number"),
        None => otherwise,
    };
    let (mib, times) = (number(16), number(3));
    let backend = Backend::tcp(move |stream| bulk::pour(stream, mib << 20));
    for (suite, name) in [
        (TLS13_AES_128_GCM_SHA256, "AES-128-GCM"),
        (TLS13_CHACHA20_POLY1305_SHA256, "ChaCha20-Poly1305"),
    ] {
        for ktls in [false, true] {
            let (mut setup, _) = Setup::with_site("a.example", backend.written());
            setup.listen = format!("ktls = {ktls}\n");
            setup.top = setup.top.replace("workers = 2", "workers = 1");
            let clinch = setup.start();
            let offer = Offer {
                suites: vec![suite],
                ..Offer::default()
            };
            let client = Client::offering(setup.authority.root(), &offer);
            let fetch = || {
                let mut session = client
                    .connect(setup.address, "a.example")
                    .expect("a handshake");
                assert_eq!(bulk::draw(&mut session), mib << 20);
            };
            fetch();
            let sealed = if ktls { "kernel" } else { "clinch" };
            for _ in 0..times {
                let before = (spent(Some(clinch.pid())), spent(None));
                fetch();
                let after = (spent(Some(clinch.pid())), spent(None));
                let a_byte = |before, after| (after - before) as f64 / (mib << 20) as f64;
                println!(
                    "cost {name} sealed by {sealed}: clinch {:.3} ns a byte, machine {:.3}",
                    a_byte(before.0, after.0),
                    a_byte(before.1, after.1)
                );
            }
            let calls = traced(&clinch, &fetch);
            println!(
                "cost {name} sealed by {sealed}: {:.1} system calls a MiB",
                calls as f64 / mib as f64
            );
            let offloaded =
                clinch.count("clinch_ktls_connections_total", &["result=\"offloaded\""]);
            println!("cost {name} sealed by {sealed}: {offloaded} connections offloaded");
        }
    }
}

/// Processor time of a process, or of all, in nanoseconds.
fn spent(pid: Option<u32>) -> u64 {
    let processes = match pid {
        Some(pid) => vec![format!("/proc/{pid}/task")],
        None => fs::read_dir("/proc")
            .expect("mounted")
            .filter_map(|entry| Some(entry.ok()?.path().join("task").display().to_string()))
            .collect(),
    };
    let tasks = processes
        .iter()
        .filter_map(|tasks| fs::read_dir(tasks).ok());
    let stats = tasks.flatten().filter_map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    stats.sum()
}

/// System calls of clinch while `work` is done.
fn traced(clinch: &Clinch, work: &dyn Fn()) -> u64 {
    let table = std::env::temp_dir().join(format!("strace-{}", clinch.pid()));
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-q", "-p", &clinch.pid().to_string(), "-o"])
        .arg(&table)
        .stderr(Stdio::null())
        .spawn()
        .expect("strace is installed");
    let status = format!("/proc/{}/status", clinch.pid());
    eventually("strace is attached", PROMPT, || {
        let status = fs::read_to_string(&status).expect("clinch runs");
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    work();
    let pid = Pid::from_raw(strace.id().cast_signed()).expect("a child");
    kill_process(pid, Signal::INT).expect("it runs");
    strace.wait().expect("it ends");
    let text = fs::read_to_string(&table).expect("it has written");
    let total = text.lines().rev().find(|line| line.ends_with(" total"));
    total
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .unwrap_or_else(|| panic!("strace counted nothing:\n{text}"))
}
