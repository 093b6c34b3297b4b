//! Steering by server name on the real kernel, between two network namespaces, over IPv4 and IPv6.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clinch_tests::backend::Backend;
use clinch_tests::client::{Client, Offer};
use clinch_tests::network::Network;
use clinch_tests::process::{Clinch, Start};
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, eventually, hello, skip};
use rustls::NamedGroup;

const NAMES: [&str; 4] = ["a.test", "b.test", "c.test", "d.test"];
const PORT: u16 = 8443;

/// A server whose sites are steered.
struct Scene {
    clinch: Clinch,
    setup: Setup,
    /// Sends hellos that fit into one segment; see [`Scene::with_large_hellos`].
    client: Client,
    _backend: Backend,
    network: Network,
}

impl Scene {
    /// `None` where the machine has no namespaces.
    fn started(steering: &str, top: &str, how: &Start) -> Option<Self> {
        let network = Network::enter()?;
        let mut setup = Setup::new();
        setup.address = ([0, 0, 0, 0], PORT).into();
        setup.top += top;
        let backend = Backend::echo();
        for name in NAMES {
            setup.site(name, backend.written(), "ocsp = false");
        }
        setup.site("*.wild.test", backend.written(), "ocsp = false");
        setup.tables = format!("[steering]\n{steering}\n[listen.six]\naddress = \"[::]:{PORT}\"\n");
        let clinch = setup.start_as(how);
        let small = Offer {
            groups: vec![NamedGroup::X25519],
            ..Offer::default()
        };
        let scene = Self {
            client: Client::offering(setup.authority.root(), &small),
            clinch,
            setup,
            _backend: backend,
            network,
        };
        Some(scene)
    }

    /// From now on hellos carry post-quantum keys and take two segments, and as the client permutes
    /// its extensions, the name is now in the first and now in the second.
    fn with_large_hellos(mut self) -> Self {
        self.client = Client::new(self.setup.authority.root());
        self
    }

    fn steering(&self) -> serde_json::Value {
        self.clinch.status()["steering"].clone()
    }

    fn wait_for_mode(&self, mode: &str) {
        eventually(&format!("mode {mode}"), PROMPT, || {
            (self.steering()["mode"] == mode).then_some(())
        });
        // The counters below are read four times a second.
        std::thread::sleep(Duration::from_millis(300));
    }

    fn event(&self, event: &str) -> u64 {
        let status = self.steering();
        let events = status["events"].as_array().expect("a list").clone();
        let found = events.iter().find(|pair| pair[0] == event);
        found.and_then(|pair| pair[1].as_u64()).unwrap_or(0)
    }

    fn of_workers(&self, field: &str) -> Vec<u64> {
        let status = self.clinch.status();
        let workers = status["workers"].as_array().expect("a list");
        workers
            .iter()
            .map(|w| w[field].as_u64().expect("a number"))
            .collect()
    }

    /// The home of each site, as clinch reports it.
    fn homes(&self) -> HashMap<String, usize> {
        let status = self.steering();
        let rows = status["table"].as_array().expect("a list");
        let home = |row: &serde_json::Value| {
            let site = row["site"].as_str().expect("a name").to_owned();
            (site, row["workers"][0].as_u64().expect("a number") as usize)
        };
        rows.iter().map(home).collect()
    }

    /// `times` handshakes for each name, of which none may fail.
    fn handshakes(&self, address: SocketAddr, names: &[&str], times: usize) {
        let client = self.client.clone();
        self.network.visit(|| {
            for name in names.iter().cycle().take(names.len() * times) {
                client
                    .connect(address, name)
                    .unwrap_or_else(|error| panic!("{address} {name}: {error}"));
            }
        });
    }

    /// Asserts that connections for a name complete their handshake on its home and nowhere else.
    fn reach_their_core(&self, address: SocketAddr, times: usize) {
        let homes = self.homes();
        for name in NAMES {
            let before = self.of_workers("handshakes");
            self.handshakes(address, &[name], times);
            let after = eventually("all are counted", PROMPT, || {
                let after = self.of_workers("handshakes");
                let all = |counts: &[u64]| counts.iter().sum::<u64>();
                (all(&after) >= all(&before) + times as u64).then_some(after)
            });
            for (worker, (after, before)) in after.iter().zip(&before).enumerate() {
                let expected = if worker == homes[name] {
                    times as u64
                } else {
                    0
                };
                assert_eq!(after - before, expected, "{name} on worker {worker}");
            }
        }
    }

    /// What the server's side of an open connection negotiated.
    fn options(&self, address: SocketAddr) -> String {
        let client = self.client.clone();
        let (session, options) = self.network.visit(|| {
            let session = client.connect(address, "a.test").expect("a handshake");
            let port = session.stream.sock.local_addr().expect("connected").port();
            (session, port)
        });
        let filter = format!("dport = :{options}");
        let text = self.network.on_server("ss", &["-tinoH", &filter]);
        drop(session);
        text
    }

    fn cookie_failures(&self) -> String {
        self.network.on_server("cat", &["/proc/net/netstat"])
    }
}

macro_rules! scene {
    ($steering:expr) => {
        scene!($steering, "", &Start::default())
    };
    ($steering:expr, $top:expr, $how:expr) => {
        match Scene::started($steering, $top, $how) {
            Some(scene) => scene,
            None => skip!("network namespaces need root and iproute2"),
        }
    };
}

/// A figure of /proc/net/netstat.
fn netstat(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let found = names.split(' ').position(|known| known == name);
        if let Some(at) = found {
            return values
                .split(' ')
                .nth(at)
                .and_then(|v| v.parse().ok())
                .expect("a number");
        }
    }
    panic!("no {name}")
}

#[test]
fn each_name_reaches_its_core_with_its_tcp_options() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 25);
        let options = scene.options(address);
        for option in ["ts", "sack", "wscale:"] {
            assert!(
                options.contains(option),
                "{address}: no {option} in {options}"
            );
        }
    }
    assert_eq!(scene.of_workers("handed_over"), [0, 0]);
    assert_eq!(scene.of_workers("landed"), [0, 0], "the plugs were in");
    eventually("all are counted", PROMPT, || {
        (scene.event("steered") >= 202).then_some(())
    });
    scene.handshakes(scene.network.addresses(PORT)[0], &["x.wild.test"], 5);
    eventually("wildcards too", PROMPT, || {
        (scene.event("steered") >= 207).then_some(())
    });
    let figures = scene.cookie_failures();
    assert_eq!(netstat(&figures, "SyncookiesFailed"), 0);
    assert!(netstat(&figures, "SyncookiesRecv") >= 207);
}

#[test]
fn clients_without_timestamps_reach_their_core_through_user_space() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    scene.network.set(false, "net.ipv4.tcp_timestamps", 0);
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 25);
        let options = scene.options(address);
        for option in ["sack", "wscale:"] {
            assert!(
                options.contains(option),
                "{address}: no {option} in {options}"
            );
        }
    }
    assert!(scene.of_workers("handed_over").iter().sum::<u64>() > 0);
    assert_eq!(netstat(&scene.cookie_failures(), "SyncookiesRecv"), 0);
}

/// Sends a hello in two pieces and waits for the ServerHello.
fn in_two(address: SocketAddr, hello: &[u8], at: usize) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(PROMPT)).expect("a TCP socket");
    stream.write_all(&hello[..at]).expect("sent");
    hello::wait_until_read(&stream);
    stream.write_all(&hello[at..]).expect("sent");
    let mut first = [0];
    stream
        .read_exact(&mut first)
        .unwrap_or_else(|error| panic!("split at {at}: {error}"));
    assert_eq!(first, [22], "split at {at}");
}

#[test]
fn a_hello_split_at_any_byte_is_served() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let hello = hello::Hello::tls12("a.test").record();
    let [v4, _] = scene.network.addresses(PORT);
    scene
        .network
        .visit(|| (1..hello.len()).for_each(|at| in_two(v4, &hello, at)));
    assert!(scene.event("hash_beyond_first_segment") > 0);
}

#[test]
fn a_hello_of_two_segments_reaches_its_core() {
    let scene = scene!("mode = \"kernel\"").with_large_hellos();
    scene.wait_for_mode("kernel");
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 25);
    }
    assert!(scene.event("hash_beyond_first_segment") > 0);
    assert_eq!(netstat(&scene.cookie_failures(), "SyncookiesFailed"), 0);
}

#[test]
fn a_hello_whose_first_segment_is_lost_recovers() {
    let scene = scene!("mode = \"kernel\"").with_large_hellos();
    scene.wait_for_mode("kernel");
    // Of the long segments every other one is dropped: the first of each hello, not its repetition.
    let rule = "-I INPUT -p tcp --dport 8443 -m length --length 1200:1500 -m statistic --mode nth --every 2 --packet 0 -j DROP";
    scene
        .network
        .on_server("iptables", &rule.split(' ').collect::<Vec<_>>());
    let [v4, _] = scene.network.addresses(PORT);
    scene.handshakes(v4, &NAMES, 3);
    let counted = scene
        .network
        .on_server("iptables", &["-L", "INPUT", "-vnx"]);
    let dropped = counted
        .lines()
        .find(|line| line.contains("DROP"))
        .expect("the rule");
    let dropped: u64 = dropped
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a count");
    assert!(dropped >= 12, "{counted}");
    eventually("the second segments came first", PROMPT, || {
        (scene.event("out_of_order") > 0).then_some(())
    });
    assert_eq!(netstat(&scene.cookie_failures(), "SyncookiesFailed"), 0);
}

#[test]
fn silent_clients_cost_nothing_while_good_ones_are_served() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [v4, _] = scene.network.addresses(PORT);
    let silent = scene.network.visit(|| {
        let connect = |_| TcpStream::connect(v4).expect("connected");
        (0..SILENT).map(connect).collect::<Vec<_>>()
    });
    scene.handshakes(v4, &NAMES, 5);
    let states = scene.network.on_server(
        "ss",
        &["-tnH", "state", "established", "sport", "=", ":8443"],
    );
    let held = states
        .lines()
        .filter(|line| !line.contains("TIME-WAIT"))
        .count();
    assert!(
        held < 50,
        "{held} connections for {SILENT} silent clients:\n{states:.2000}"
    );
    assert!(scene.of_workers("accepted").iter().sum::<u64>() < 50);
    drop(silent);
}

/// Silent clients at once; the test process needs a descriptor for each.
const SILENT: usize = 900;

#[test]
fn no_connection_is_lost_while_names_move() {
    let mut scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [v4, v6] = scene.network.addresses(PORT);
    let plain = scene.setup.tables.clone();
    for round in 0..10 {
        scene.setup.tables = format!("{plain}# {round}\n");
        let core = round % 2;
        scene.setup.clear_sites();
        for name in NAMES {
            let more = format!("ocsp = false\ncores = [{core}]");
            let backend = scene._backend.written().to_owned();
            scene.setup.site(name, &backend, &more);
        }
        scene.setup.write_config();
        let reloads = scene.clinch.count("clinch_reloads_total", &["applied"]);
        scene.clinch.signal(rustix::process::Signal::HUP);
        scene.handshakes(v4, &NAMES, 5);
        scene.handshakes(v6, &NAMES, 5);
        eventually("reloaded", PROMPT, || {
            (scene.clinch.count("clinch_reloads_total", &["applied"]) > reloads).then_some(())
        });
    }
    eventually("moved", PROMPT, || {
        scene.homes().values().all(|&home| home == 1).then_some(())
    });
    scene.reach_their_core(v4, 5);
}

#[test]
fn plain_http_gets_its_refusal_and_an_unknown_name_a_reset() {
    let scene = scene!("mode = \"kernel\"\nunknown_sni = \"refuse-early\"");
    scene.wait_for_mode("kernel");
    let [v4, _] = scene.network.addresses(PORT);
    let answer = scene.network.visit(|| {
        let mut stream = TcpStream::connect(v4).expect("connected");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        stream.set_read_timeout(Some(PROMPT)).expect("a TCP socket");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        answer
    });
    assert_eq!(&answer, b"HTTP/1.1 400");
    let client = scene.client.clone();
    let refused = scene
        .network
        .visit(|| client.connect(v4, "nobody.test").map(drop));
    let error = refused.expect_err("refused");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("counted", PROMPT, || {
        (scene.event("refused_early") == 1).then_some(())
    });
    assert_eq!(scene.of_workers("handed_over"), [0, 0]);
}

#[test]
fn follows_the_cookie_switch_and_the_configuration_at_run_time() {
    let mut scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [v4, v6] = scene.network.addresses(PORT);
    for (cookies, mode) in [(2, "kernel"), (0, "hand_over"), (1, "kernel")] {
        scene.network.set(true, "net.ipv4.tcp_syncookies", cookies);
        scene.wait_for_mode(mode);
        scene.handshakes(v4, &NAMES, 5);
        scene.handshakes(v6, &NAMES, 5);
    }
    let on = scene.setup.tables.clone();
    for (tables, mode) in [
        (on.replace("\"kernel\"", "\"off\""), "reuseport"),
        (on, "kernel"),
    ] {
        scene.setup.tables = tables;
        scene.setup.write_config();
        scene.clinch.signal(rustix::process::Signal::HUP);
        scene.handshakes(v4, &NAMES, 5);
        scene.wait_for_mode(mode);
        scene.handshakes(v4, &NAMES, 5);
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
    let [v4, _] = scene.network.addresses(PORT);
    for _ in 0..3 {
        let plugs = scene.steering()["plugs"].as_u64().expect("a number");
        scene
            .network
            .on_server("ss", &["-K", "state", "syn-sent", "dport", "=", ":8443"]);
        scene
            .network
            .on_server("ss", &["-K", "state", "syn-recv", "sport", "=", ":8443"]);
        scene.handshakes(v4, &NAMES, 5);
        eventually("a new plug", PROMPT, || {
            (scene.steering()["plugs"].as_u64() > Some(plugs)).then_some(())
        });
    }
    scene.wait_for_mode("kernel");
    scene.reach_their_core(v4, 5);
}

#[test]
fn without_the_capability_connections_are_handed_over() {
    let how = Start {
        without: Some("-bpf,-sys_admin".to_owned()),
        ..Start::default()
    };
    let scene = scene!("mode = \"kernel\"", "", &how);
    scene.wait_for_mode("hand_over");
    let reason = scene.steering()["reason"].to_string();
    assert!(reason.contains("CAP_BPF"), "{reason}");
    for address in scene.network.addresses(PORT) {
        for name in NAMES {
            let before = scene.of_workers("handshakes");
            scene.handshakes(address, &[name], 10);
            eventually("all ten on one core", PROMPT, || {
                let after = scene.of_workers("handshakes");
                let mut counts = after
                    .iter()
                    .zip(&before)
                    .map(|(after, before)| after - before);
                counts.any(|n| n == 10).then_some(())
            });
        }
    }
    assert!(scene.of_workers("handed_over").iter().sum::<u64>() > 0);
    assert_eq!(
        scene
            .clinch
            .log()
            .matches("the kernel does not steer")
            .count(),
        1
    );
}
