//! ClientHellos that come in pieces, late, in the wrong order or not at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use clinch_load::segments::{Conversation, RST};
use clinch_tests::client::Client;
use clinch_tests::{PROMPT, hello};

use crate::scene::{NAMES, PORT, Scene, scene};

/// A handshake whose hello is sent in two pieces, the second when the first is acknowledged.
fn in_two(client: &Client, address: SocketAddr, at: impl Fn(&[u8]) -> usize) {
    let mut tcp = hello::connect(address).expect("connected");
    let mut tls = client.start("a.test");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("a Vec takes all");
    let at = at(&hello);
    tcp.write_all(&hello[..at]).expect("sent");
    hello::wait_until_read(&tcp);
    tcp.write_all(&hello[at..]).expect("sent");
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)
            .unwrap_or_else(|error| panic!("split at {at}: {error}"));
    }
}

fn name_in(hello: &[u8]) -> usize {
    let found = hello.windows(6).position(|bytes| bytes == b"a.test");
    found.expect("the name is not encrypted")
}

#[test]
fn a_hello_split_at_any_byte_reaches_its_core() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let client = scene.client.clone();
    let len = client.hello("a.test").len();
    for address in scene.network.addresses(PORT) {
        scene.all_on_home("a.test", len - 1, || {
            scene.network.visit(|| {
                (1..len).for_each(|at| in_two(&client, address, |_| at));
            });
        });
    }
    assert!(scene.event("hash_beyond_first_segment") > 0);
    assert!(scene.event("steered") > 0);
    // On a slow machine a client repeats a segment that arrives after its connection's end.
    assert!(scene.netstat("SyncookiesFailed") <= scene.repeated());
}

#[test]
fn a_name_in_the_second_segment_is_found_in_user_space() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let client = scene.client.clone();
    for address in scene.network.addresses(PORT) {
        scene.all_on_home("a.test", 40, || {
            scene.network.visit(|| {
                (0..20).for_each(|_| in_two(&client, address, name_in));
                // In the midst of the name.
                (0..20).for_each(|_| in_two(&client, address, |hello| name_in(hello) + 3));
            });
        });
    }
    scene.wait_for_event("hash_beyond_first_segment", 80);
    assert!(scene.of_workers("handed_over").iter().sum::<u64>() > 0);
}

#[test]
fn a_hello_of_two_segments_reaches_its_core() {
    let scene = scene!("mode = \"kernel\"").with_large_hellos();
    scene.wait_for_mode("kernel");
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 100);
    }
    assert!(scene.event("hash_beyond_first_segment") > 0);
    assert!(scene.event("steered") > 0);
    assert_eq!(scene.netstat("SyncookiesFailed"), 0);
}

/// Drops every other long segment on its way in: the first of each hello, not its repetition.
const LOSS: &str = "-I INPUT -p tcp --dport 8443 -m length --length 1200:1500 -m statistic --mode nth --every 2 --packet 0 -j DROP";

#[test]
fn a_hello_whose_first_segment_is_lost_recovers() {
    let scene = scene!("mode = \"kernel\"").with_large_hellos();
    scene.wait_for_mode("kernel");
    let rule: Vec<&str> = LOSS.split(' ').collect();
    let both = ["iptables", "ip6tables"];
    for (tables, address) in both.into_iter().zip(scene.network.addresses(PORT)) {
        scene.network.on_server(tables, &rule);
        scene.handshakes(address, &NAMES, 3);
        let dropped = dropped(&scene, tables);
        assert!(dropped >= 12, "{tables} dropped {dropped}");
    }
    scene.wait_for_event("out_of_order", 1);
    assert_eq!(scene.netstat("SyncookiesFailed"), 0);
}

fn dropped(scene: &Scene, tables: &str) -> u64 {
    let counted = scene.network.on_server(tables, &["-L", "INPUT", "-vnx"]);
    let rule = counted.lines().find(|line| line.contains("DROP"));
    let first = rule.and_then(|line| line.split_whitespace().next());
    first
        .and_then(|n| n.parse().ok())
        .expect("the rule and its count")
}

/// A post-quantum hello, cut where a segment is full.
fn halves(scene: &Scene) -> (Vec<u8>, usize) {
    let hello = Client::new(scene.setup.authority.root()).hello("a.test");
    assert!(
        hello.len() > 1448,
        "{} bytes need two segments",
        hello.len()
    );
    (hello, 1448)
}

#[test]
fn segments_in_the_wrong_order_are_answered_with_silence_and_then_served() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [SocketAddr::V4(target), _] = scene.network.addresses(PORT) else {
        panic!("the first address is IPv4");
    };
    let client_side = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        scene.network.on_client(words[0], &words[1..]);
    };
    client_side("ip addr add 10.77.0.3/16 dev veth0");
    // The client's kernel does not know of these conversations.
    client_side("iptables -I OUTPUT -s 10.77.0.3 -p tcp --tcp-flags RST RST -j DROP");
    let (hello, cut) = halves(&scene);
    scene.network.visit(|| {
        for port in 20_000..20_020 {
            let source = SocketAddrV4::new([10, 77, 0, 3].into(), port);
            let mut by_hand = Conversation::open(source, target).expect("a SYN-ACK");
            by_hand.send(cut, &hello[cut..]).expect("sent");
            let early = by_hand.receive(QUIET).expect("a socket");
            assert_eq!(early, None, "the second segment alone gets no answer");
            by_hand.send(0, &hello[..cut]).expect("sent");
            by_hand.send(cut, &hello[cut..]).expect("sent again");
            let mut answer = Vec::new();
            while answer.is_empty() {
                let next = by_hand.receive(PROMPT).expect("a socket");
                let next = next.expect("an answer");
                assert_eq!(next.flags & RST, 0, "{next:?}");
                answer = next.payload;
            }
            assert_eq!(answer[0], 22, "a handshake record");
        }
    });
    scene.wait_for_event("out_of_order", 20);
    assert_eq!(scene.netstat("SyncookiesFailed"), 0);
}

/// Long enough for a reset to come over a cable of two namespaces.
const QUIET: Duration = Duration::from_millis(100);

#[test]
fn bytes_that_start_nothing_go_unanswered_and_cost_nothing() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [v4, _] = scene.network.addresses(PORT);
    let said = scene.network.visit(|| {
        let mut stream = TcpStream::connect(v4).expect("connected");
        stream.write_all(&[0x80; 64]).expect("sent");
        stream.set_read_timeout(Some(QUIET)).expect("a TCP socket");
        stream.read(&mut [0; 16])
    });
    let error = said.expect_err("nothing is said");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    scene.wait_for_event("out_of_order", 1);
    assert_eq!(scene.of_workers("accepted"), [0, 0]);
}
