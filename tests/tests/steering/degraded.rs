//! Where the kernel does not steer.

use clinch_tests::process::Start;
use clinch_tests::{PROMPT, eventually};

use crate::scene::{NAMES, PORT, Scene, scene};

impl Scene {
    /// Each name's connections all end on one core, handed over where they came to another.
    fn hands_over(&self) {
        for address in self.network.addresses(PORT) {
            for name in NAMES {
                let before = self.of_workers("handshakes");
                self.handshakes(address, &[name], 20);
                eventually("all twenty on one core", PROMPT, || {
                    let after = self.of_workers("handshakes");
                    let mut counts = after
                        .iter()
                        .zip(&before)
                        .map(|(after, before)| after - before);
                    counts.any(|n| n == 20).then_some(())
                });
            }
        }
        assert!(self.of_workers("handed_over").iter().sum::<u64>() > 0);
    }

    fn says_once_why(&self, why: &str) {
        let reason = self.steering()["reason"].to_string();
        assert!(reason.contains(why), "{reason}");
        let log = self.clinch.log();
        assert_eq!(log.matches("the kernel does not steer").count(), 1, "{log}");
        let mode = self.steering()["mode"].as_str().expect("a word").to_owned();
        assert_eq!(self.clinch.count("clinch_steering_mode", &[&mode]), 1.0);
    }
}

fn without(capabilities: &str) -> Start {
    Start {
        without: Some(capabilities.to_owned()),
        ..Start::default()
    }
}

#[test]
fn without_the_capability_to_load_programs_connections_are_handed_over() {
    let scene = scene!("mode = \"kernel\"", "", &without("-bpf,-sys_admin"));
    scene.wait_for_mode("hand_over");
    scene.says_once_why("CAP_BPF");
    scene.hands_over();
}

#[test]
fn as_in_a_container_without_any_capability_of_the_network_connections_are_handed_over() {
    let scene = scene!(
        "mode = \"kernel\"",
        "",
        &without("-bpf,-sys_admin,-net_admin,-perfmon,-sys_resource")
    );
    scene.wait_for_mode("hand_over");
    scene.says_once_why("CAP_NET_ADMIN");
    scene.hands_over();
}

#[test]
fn misplaced_connections_may_be_served_where_they_come() {
    let scene = scene!(
        "mode = \"kernel\"\nmisplaced = \"serve\"",
        "",
        &without("-bpf,-sys_admin")
    );
    scene.wait_for_mode("reuseport");
    for address in scene.network.addresses(PORT) {
        scene.handshakes(address, &NAMES, 10);
    }
    assert_eq!(scene.of_workers("handed_over"), [0, 0]);
    assert!(scene.of_workers("accepted").iter().all(|&n| n > 0));
}

#[test]
fn without_cookies_from_the_start_connections_are_handed_over() {
    let Some(scene) = Scene::started_in("mode = \"kernel\"", "", &Start::default(), |network| {
        network.set(true, "net.ipv4.tcp_syncookies", 0);
    }) else {
        clinch_tests::skip!("network namespaces need root and iproute2");
    };
    scene.wait_for_mode("hand_over");
    scene.says_once_why("tcp_syncookies");
    scene.hands_over();
}
