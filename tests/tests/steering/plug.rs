//! The plug: what happens when it goes.

use clinch_tests::process::Start;
use clinch_tests::{PROMPT, eventually};

use crate::scene::{NAMES, PORT, Scene, scene};

/// The plug's own socket, the client that never answers.
const CLIENT: [&str; 5] = ["state", "syn-sent", "dport", "=", ":8443"];
/// The half-open connection that it keeps in the landing listener's queue.
const REQUEST: [&str; 5] = ["state", "syn-recv", "sport", "=", ":8443"];

/// Plugs of the two listening addresses.
const PLUGS: u64 = 8;
/// Their requests in the queues: three each fill them, before Linux 6.18 two.
const REQUESTS: std::ops::RangeInclusive<usize> = 4..=6;

impl Scene {
    /// Ends these sockets, and says how many there were.
    fn kill(&self, which: &[&str]) -> usize {
        let list = [&["-KtnH"], which].concat();
        self.network.on_server("ss", &list).lines().count()
    }

    /// How many requests are in the landing listeners' queues.
    fn requests(&self) -> usize {
        let list = [&["-tnH"], &REQUEST[..]].concat();
        self.network.on_server("ss", &list).lines().count()
    }

    fn wait_for_requests(&self) {
        eventually("the plugs' requests", PROMPT, || {
            REQUESTS.contains(&self.requests()).then_some(())
        });
    }

    fn plugs(&self) -> u64 {
        self.steering()["plugs"].as_u64().expect("a number")
    }
}

#[test]
fn a_plug_that_is_killed_costs_no_connection_and_comes_back_without_privileges() {
    let scene = scene!(
        "mode = \"kernel\"",
        "user = \"nobody\"\n",
        &Start::default()
    );
    scene.wait_for_mode("kernel");
    for round in 0..3 {
        let plugs = scene.plugs();
        scene.kill(&CLIENT);
        scene.kill(&REQUEST);
        for address in scene.network.addresses(PORT) {
            scene.handshakes(address, &NAMES, 5);
        }
        eventually("new plugs", PROMPT, || {
            (scene.plugs() >= plugs + PLUGS).then_some(())
        });
        scene.wait_for_requests();
        println!("round {round}: {:?} landed", scene.of_workers("landed"));
    }
    scene.wait_for_mode("kernel");
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 10);
    }
    assert_eq!(status_capabilities(scene.clinch.pid()), "0000000000000000");
}

/// Effective capabilities of a process.
fn status_capabilities(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.expect("procfs has it").trim().to_owned()
}

/// When the time of the request is over, the kernel forgets it as if it were killed; the client is
/// still there, and its next SYN makes a new request.
#[test]
fn a_request_that_expires_costs_no_connection_and_comes_back() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    scene.wait_for_requests();
    // Within a second the next SYN may have made another, so that nobody can look for none.
    assert!(REQUESTS.contains(&scene.kill(&REQUEST)));
    for address in scene.network.addresses(PORT) {
        scene.handshakes(address, &NAMES, 10);
    }
    scene.wait_for_requests();
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 10);
    }
}

/// The same for its client, which then is told a time-out and is replaced.
#[test]
fn a_client_that_gives_up_is_replaced() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let plugs = scene.plugs();
    scene.kill(&CLIENT);
    eventually("new plugs", PROMPT, || {
        (scene.plugs() >= plugs + PLUGS).then_some(())
    });
    // The old one's request stays until its SYN-ACK is repeated, to nobody; the new one's is there with
    // its next SYN at the latest. Who comes in between lands, and gets to the same core.
    eventually("a round in which nobody lands", PROMPT, || {
        let landed = scene.of_workers("landed");
        for address in scene.network.addresses(PORT) {
            scene.reach_their_core(address, 10);
        }
        (scene.of_workers("landed") == landed).then_some(())
    });
}
