//! The service manager's protocols, played by the test: sd_notify(3) and sd_listen_fds(3).

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::place::{Place, Running, eventually};

/// The manager's end of sd_notify.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path("notify")).expect("bound");
        let patience = Some(Duration::from_millis(100));
        socket.set_read_timeout(patience).expect("our socket");
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    fn start(&self, place: &Place, more: &[(&str, &str)]) -> Running {
        let mut command = place.command();
        command
            .env("NOTIFY_SOCKET", place.path("notify"))
            .envs(more.iter().copied());
        place.spawn(&mut command)
    }

    /// Waits for a message with a line that starts so, and returns the whole message. Messages
    /// before it are forgotten.
    fn hears(&mut self, start: &str) -> String {
        eventually(&format!("the service manager hears {start}"), || {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).ok()?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(message.clone());
            message
                .lines()
                .any(|line| line.starts_with(start))
                .then_some(message)
        })
    }
}

#[test]
fn the_service_manager_hears_of_readiness_reloads_and_the_end() {
    let place = Place::new();
    let mut manager = Manager::new(&place);
    let mut running = manager.start(&place, &[]);
    let ready = manager.hears("READY=1");
    assert!(
        ready.contains("STATUS=serving 1 sites with 2 workers"),
        "{ready}"
    );
    assert!(
        manager.heard[0].starts_with("STATUS=asking OCSP"),
        "{:?}",
        manager.heard
    );

    running.signal(Signal::HUP);
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1");

    running.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn a_refused_reload_is_over_too_and_says_so() {
    let mut place = Place::new();
    let mut manager = Manager::new(&place);
    let running = manager.start(&place, &[]);
    manager.hears("READY=1");
    place.tables = "nonsense".to_owned();
    place.write_config();
    running.signal(Signal::HUP);
    manager.hears("RELOADING=1");
    let over = manager.hears("READY=1");
    assert!(over.contains("the last reload was refused"), "{over}");
}

#[test]
fn the_watchdog_is_fed_while_all_is_well() {
    let place = Place::new();
    let mut manager = Manager::new(&place);
    let _running = manager.start(&place, &[("WATCHDOG_USEC", "200000")]);
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
}

#[test]
fn passed_sockets_are_shared_by_the_workers_and_others_bound() {
    let passed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = passed.local_addr().expect("bound");
    let mut place = Place::new();
    place.address = address.to_string();
    let free = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a free port");
    let more = free.local_addr().expect("bound");
    drop(free);
    place.tables = format!("[listen.more]\naddress = \"{more}\"\n");
    let running = place.spawn(&mut passing(&place, passed));
    let status = running.status();
    assert_eq!(status["listeners"][0]["passed"], true);
    assert_eq!(status["listeners"][0]["address"], address.to_string());
    assert_eq!(status["listeners"][1]["passed"], false);
    assert_eq!(status["listeners"][1]["address"], more.to_string());
    for _ in 0..8 {
        running.connect();
    }
}

#[test]
fn a_passed_socket_that_no_listener_wants_prevents_the_start() {
    let passed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = passed.local_addr().expect("bound");
    let place = Place::new();
    let status = passing(&place, passed).status().expect("started");
    assert_eq!(status.code(), Some(1));
    let said = place.log();
    assert!(said.contains(&format!("a socket for {address}")), "{said}");
}

/// `clinch run` with a listening socket as descriptor 3, as systemd passes it.
fn passing(place: &Place, socket: TcpListener) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg("exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"")
        .args(["sh", env!("CARGO_BIN_EXE_clinch"), "run", "-c"])
        .arg(place.write_config());
    place.log_of(&mut command);
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    command
}
