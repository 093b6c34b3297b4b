//! The order of the start, seen with a responder that takes connections and never answers.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use clinch::cli::demo::authority::LeafSpec;
use rustix::process::Signal;

use super::place::{Answer, Place, ask, eventually};

/// The responder, and a place whose certificate must be stapled by it.
fn silent() -> (TcpListener, Place) {
    let responder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("http://{}/", responder.local_addr().expect("bound"));
    let place = Place::with_leaf(LeafSpec {
        must_staple: true,
        ocsp_urls: vec![url],
        ..LeafSpec::default()
    });
    (responder, place)
}

fn readiness(place: &Place, word: &str) -> Answer {
    eventually(&format!("/readyz says {word}"), || {
        ask(&place.admin_listen, "GET", "/readyz").filter(|answer| answer.body.contains(word))
    })
}

#[test]
fn clients_are_refused_while_responders_are_asked_and_a_termination_ends_the_wait() {
    let (responder, mut place) = silent();
    place.tables = "[timeouts]\nstartup_wait = \"10m\"\n".to_owned();
    let mut running = place.spawn_unready(&mut place.command());
    let _asked = responder.accept().expect("the first fetch comes");
    assert_eq!(readiness(&place, "not listening yet").status, 503);
    let health = ask(&place.admin_listen, "GET", "/healthz").expect("answered");
    assert_eq!(health.status, 200, "{}", health.body);
    assert_eq!(running.status()["phase"], "starting");
    let refused = TcpStream::connect(running.address()).expect_err("not listening");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0), "{}", place.log());
    assert!(!place.admin().exists(), "the admin socket was removed");
}

#[test]
fn after_the_wait_clients_get_in_and_a_site_without_its_staple_is_named_as_not_ready() {
    let (responder, mut place) = silent();
    place.tables = "[timeouts]\nstartup_wait = \"100ms\"\n".to_owned();
    let running = place.spawn_unready(&mut place.command());
    let _asked = responder.accept().expect("the first fetch comes");
    let unready = readiness(&place, "may not be served without a staple");
    assert_eq!(unready.status, 503);
    assert!(
        unready.body.contains(super::place::NAME),
        "{}",
        unready.body
    );
    eventually("it listens", || TcpStream::connect(running.address()).ok());
    let metrics = ask(&place.admin_listen, "GET", "/metrics").expect("answered");
    let missing = "clinch_certificates_by_staple{state=\"missing\"} 1.0";
    assert!(metrics.body.contains(missing), "{}", metrics.body);
}
