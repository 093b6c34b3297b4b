//! Very many clients that say nothing, and floods, while good ones are served.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clinch_load::segments::{SYN, Segment, Sender};
use clinch_tests::{PROMPT, eventually};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::scene::{NAMES, PORT, Scene, rounds, scene};

/// Silent clients at once.
const SILENT: usize = 10_000;

#[test]
fn ten_thousand_silent_clients_leave_memory_and_queues_flat() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    raise_descriptors();
    for address in scene.network.addresses(PORT) {
        // What is made on first use is made now.
        scene.handshakes(address, &NAMES, 20);
    }
    let [v4, v6] = scene.network.addresses(PORT);
    let accepted = || scene.of_workers("accepted").iter().sum::<u64>();
    let (served, before) = (accepted(), Held::by(&scene));
    let silent = scene.network.visit(|| {
        let connect = |n: usize| TcpStream::connect([v4, v6][n % 2]).expect("connected");
        (0..SILENT).map(connect).collect::<Vec<_>>()
    });
    for address in [v4, v6] {
        scene.handshakes(address, &NAMES, 10);
    }
    let after = Held::by(&scene);
    assert_eq!(silent.len(), SILENT);
    assert_eq!(accepted() - served, 80, "the good ones alone");
    assert_eq!(after.waiting, 0, "nothing waits in an accept queue");
    // The requests of the plugs, and what the good ones left behind.
    assert!(after.sockets <= before.sockets + 8, "{before:?} {after:?}");
    assert!(
        after.resident <= before.resident + (1 << 20),
        "{before:?} {after:?}"
    );
    println!("{SILENT} silent clients: {before:?}, then {after:?}");
}

/// What clients may cost the server.
#[derive(Debug)]
struct Held {
    /// Connections and requests that the kernel has on the port.
    sockets: usize,
    /// Connections in accept queues.
    waiting: u64,
    /// Resident memory of the process.
    resident: u64,
}

impl Held {
    fn by(scene: &Scene) -> Self {
        let ss = |more: &[&str]| {
            let base = ["-tnH", "sport", "=", ":8443"];
            scene.network.on_server("ss", &[more, &base].concat())
        };
        let queued = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
        let status = std::fs::read_to_string(format!("/proc/{}/status", scene.clinch.pid()));
        let status = status.expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|kib| kib.trim().strip_suffix("kB")?.trim().parse().ok());
        Self {
            sockets: ss(&["state", "established", "state", "syn-recv"])
                .lines()
                .count(),
            waiting: ss(&["-l"]).lines().filter_map(queued).sum(),
            resident: kib.unwrap_or(0) * 1024,
        }
    }
}

fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = SILENT as u64 + 1000;
    limit.current = Some(wanted.max(limit.current.unwrap_or(wanted)));
    limit.maximum = limit.maximum.map(|most| most.max(wanted));
    setrlimit(Resource::Nofile, limit).expect("root may raise it");
}

#[test]
fn good_clients_handshake_through_a_flood_of_syns() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [SocketAddr::V4(target), _] = scene.network.addresses(PORT) else {
        panic!("the first address is IPv4");
    };
    // Answers to sources that nobody has stay here: the neighbour is looked for in vain.
    let sent = AtomicUsize::new(0);
    let enough = AtomicBool::new(false);
    let most = rounds(30_000, 300_000);
    let client = scene.client.clone();
    let handshakes = scene.network.visit(|| {
        std::thread::scope(|scope| {
            // A thread is in the namespace of the one that started it.
            scope.spawn(|| flood(target, most, &sent, &enough));
            let mut handshakes = 0;
            while sent.load(Ordering::Relaxed) < most || handshakes < 200 {
                let name = NAMES[handshakes % NAMES.len()];
                if let Err(error) = client.connect(target.into(), name) {
                    enough.store(true, Ordering::Relaxed);
                    let sent = sent.load(Ordering::Relaxed);
                    panic!("handshake {handshakes} after {sent} SYNs: {error}");
                }
                handshakes += 1;
            }
            handshakes
        })
    });
    println!("{handshakes} handshakes, none failed, during {most} SYNs");
    scene.wait_for_event("hash_no_timestamps", most as u64 / 4);
    assert!(scene.event("landing") > most as u64 / 4);
    assert_eq!(scene.netstat("SyncookiesFailed"), 0);
    assert_eq!(scene.of_workers("landed"), [0, 0]);
}

/// SYNs from 500 addresses of the test's own subnet, every other one with timestamps.
fn flood(target: SocketAddrV4, most: usize, sent: &AtomicUsize, enough: &AtomicBool) {
    let sender = Sender::open().expect("root may");
    for n in 0..most {
        if enough.load(Ordering::Relaxed) {
            return;
        }
        let host = u8::try_from(n % 250).expect("under 250");
        let source = Ipv4Addr::new(10, 77, 1 + (n / 250 % 2) as u8, 1 + host);
        let segment = Segment {
            source: SocketAddrV4::new(source, 1024 + (n % 60_000) as u16),
            target,
            sequence: n as u32,
            acknowledged: 0,
            flags: SYN,
            timestamps: (n / 500 % 2 == 0).then_some((1, 0)),
            payload: &[],
        };
        // Where the cable is full for a moment, one SYN less does not matter.
        let _ = sender.send(&segment);
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_burst_of_connections_in_every_mixture_is_served_whole() {
    let scene = scene!("mode = \"kernel\"").with_large_hellos();
    scene.wait_for_mode("kernel");
    let addresses = scene.network.addresses(PORT);
    let each = rounds(25, 250);
    for timestamps in [1, 0] {
        scene
            .network
            .set(false, "net.ipv4.tcp_timestamps", timestamps);
        let (client, network) = (&scene.client, &scene.network);
        let before: u64 = scene.of_workers("handshakes").iter().sum();
        network.visit(|| {
            std::thread::scope(|scope| {
                for lane in 0..8 {
                    scope.spawn(move || {
                        for n in 0..each {
                            let name = NAMES[(lane + n) % NAMES.len()];
                            client
                                .connect(addresses[(lane + n / 2) % 2], name)
                                .unwrap_or_else(|error| panic!("lane {lane}, {n}: {error}"));
                        }
                    });
                }
            });
        });
        eventually("all are counted", PROMPT, || {
            let after: u64 = scene.of_workers("handshakes").iter().sum();
            (after - before == 8 * each as u64).then_some(())
        });
    }
}
