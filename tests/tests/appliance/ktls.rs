//! Listeners whose records the machine's kernel seals: that nothing is lost, and what it costs.

use std::net::SocketAddr;

use clinch_tests::appliance::{HOST, Machine, Parts, Place, address, operator, port, record_cost};
use clinch_tests::backend::{Backend, Stream};
use clinch_tests::bulk::{self, answer, bytes, exchange};
use clinch_tests::client::{Client, Offer};
use clinch_tests::metrics::Metrics;
use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};

#[test]
fn the_kernel_seals_what_a_listener_with_ktls_sends() {
    const LENGTH: usize = 4 << 20;
    let (place, _backend) = place(|stream| answer(stream, LENGTH));
    let key = place.allow_operator();
    let (state, volume, admin) = (place.state(), place.volume(), port());
    let mut parts = place.parts(&[&state, &volume]);
    parts.forwards.push((admin, 9443));
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    assert!(
        !machine.said().contains("configuration_warning"),
        "{}",
        machine.said()
    );
    let sealed = || {
        let said = operator::command(admin, &key, &["status"]).text;
        let count = said.rsplit("kTLS ").next().unwrap_or_default();
        count.trim().parse::<u64>().expect(&said)
    };
    let before = sealed();
    let client = Client::new(place.authority.root());
    let edge = SocketAddr::from(([127, 0, 0, 1], place.port));
    let mut session = client.connect(edge, "edge.test").expect("a handshake");
    let got = exchange(&mut session, &bytes(2, LENGTH));
    assert!(got == bytes(1, LENGTH), "{} other bytes", got.len());
    assert_eq!(sealed(), before + 1);
    machine.assert_sound();
}

#[test]
fn an_answer_costs_clinch_fewer_instructions_where_the_kernel_seals_it() {
    const LENGTH: usize = 8 << 20;
    let (place, _backend) = place(|stream| bulk::pour(stream, LENGTH));
    place.add("clinch.toml", "[listen.plain]\naddress = '0.0.0.0:8444'\n");
    let key = place.allow_operator();
    let (state, volume, admin, plain) = (place.state(), place.volume(), port(), port());
    let mut parts = Parts {
        counting: true,
        ..place.parts(&[&state, &volume])
    };
    parts.forwards.extend([(admin, 9443), (plain, 8444)]);
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    let metrics = || Metrics::parse(&operator::command(admin, &key, &["metrics"]).text);
    for (suite, name) in [
        (TLS13_AES_128_GCM_SHA256, "AES-128-GCM"),
        (TLS13_CHACHA20_POLY1305_SHA256, "ChaCha20-Poly1305"),
    ] {
        let offer = Offer {
            suites: vec![suite],
            ..Offer::default()
        };
        let client = Client::offering(place.authority.root(), &offer);
        let cost = |port, offloaded| {
            let edge = SocketAddr::from(([127, 0, 0, 1], port));
            let fetch = || {
                let mut session = client.connect(edge, "edge.test").expect("a handshake");
                assert_eq!(bulk::draw(&mut session), LENGTH);
            };
            // What is made ready on first use.
            fetch();
            let before = metrics();
            fetch();
            let after = metrics();
            let rise =
                |family, labels: &[&str]| after.sum(family, labels) - before.sum(family, labels);
            let sealed = rise("clinch_ktls_connections_total", &["result=\"offloaded\""]);
            assert_eq!(sealed, offloaded);
            // A nanosecond is an instruction here.
            rise("process_cpu_seconds_total", &[]) * 1e9 / LENGTH as f64
        };
        let (by_clinch, by_kernel) = (cost(plain, 0.0), cost(place.port, 1.0));
        record_cost(&format!(
            "{name}: {by_clinch:.2} instructions of clinch a byte, {by_kernel:.2} where the kernel seals"
        ));
        assert!(by_kernel < by_clinch, "{name}");
    }
    machine.assert_sound();
}

/// A place whose listener asks for kTLS, and a backend for its sites.
fn place(serve: impl Fn(Stream) + Send + Sync + 'static) -> (Place, Backend) {
    let place = Place::new();
    // QEMU reaches 127.0.0.1 of the host and no other loopback address.
    let backend = Backend::tcp_on(address(), serve);
    let text = place.read("clinch.toml");
    let text = text.replace("[listen.public]\n", "[listen.public]\nktls = true\n");
    let at = format!(
        "{HOST}:{}",
        backend.written().rsplit(":").next().expect("a port")
    );
    place.write("clinch.toml", &text.replace(&format!("{HOST}:9"), &at));
    (place, backend)
}
