//! What signals do, and what a start does that finds the ground taken.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use super::place::{Place, echoed, eventually};

#[test]
fn a_hangup_reloads_and_keeps_connections() {
    let mut place = Place::new();
    let running = place.start();
    let mut connection = running.connect();
    assert_eq!(running.status()["control"]["epoch"], 1);

    place.tables = "[[site]]\nnames = \"two.example.test\"\ncert = \"leaf.pem\"\nkey = \"leaf.key\"\nbackend = \"127.0.0.1:9\"\n"
        .replace("leaf", &place.path("leaf").display().to_string());
    place.write_config();
    running.signal(Signal::HUP);
    eventually("the new configuration is in force", || {
        (running.status()["control"]["epoch"] == 2).then_some(())
    });
    assert_eq!(
        running.status()["control"]["sites"][1]["name"],
        "two.example.test"
    );
    eventually("every worker serves it", || {
        let status = running.status();
        let workers = status["workers"].as_array().expect("workers").iter();
        let published = &status["control"]["generation"];
        workers
            .clone()
            .all(|w| &w["generation"] == published)
            .then_some(())
    });
    echoed(&mut connection);
}

#[test]
fn a_hangup_with_a_bad_configuration_changes_nothing_and_says_why() {
    let mut place = Place::new();
    let running = place.start();
    place.tables = "[nonsense]\n".to_owned();
    place.write_config();
    running.signal(Signal::HUP);
    let error = eventually("the refusal is told", || {
        let status = running.status();
        status["control"]["last_reload_error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(error.contains("nonsense"), "{error}");
    assert_eq!(running.status()["control"]["epoch"], 1);
    running.connect();
}

#[test]
fn a_termination_refuses_newcomers_and_lets_connections_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut running = place.start();
        let address = running.address();
        let mut connection = running.connect();
        running.signal(signal);
        eventually("newcomers are refused", || {
            TcpStream::connect(address).err()
        });
        echoed(&mut connection);
        connection.conn.send_close_notify();
        connection.flush_and_end();
        let status = running.wait();
        assert_eq!(status.code(), Some(0), "{}", place.log());
        assert!(!place.admin().exists(), "the admin socket was removed");
    }
}

#[test]
fn connections_that_do_not_finish_are_closed_after_the_drain_time() {
    let mut place = Place::new();
    place.tables = "[timeouts]\ndrain = \"300ms\"\n".to_owned();
    let mut running = place.start();
    let _connection = running.connect();
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0), "{}", place.log());
}

#[test]
fn a_second_termination_ends_at_once() {
    let mut place = Place::new();
    place.tables = "[timeouts]\ndrain = \"1h\"\n".to_owned();
    let mut running = place.start();
    let address = running.address();
    let mut connection = running.connect();
    running.signal(Signal::TERM);
    eventually("newcomers are refused", || {
        TcpStream::connect(address).err()
    });
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0), "{}", place.log());
    let end = connection.sock.read(&mut [0; 64]);
    assert!(end.is_ok() || end.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock));
}

#[test]
fn an_address_in_use_names_it_and_its_holder() {
    let place = Place::new();
    let running = place.start();
    let mut other = Place::new();
    other.address = running.address().to_string();
    let (code, said) = other.fail_to_start();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("{} is already in use", other.address)),
        "{said}"
    );
    assert!(
        said.contains(&format!("process {} (clinch)", running.pid())),
        "{said}"
    );
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_2_and_names_the_place() {
    let mut place = Place::new();
    place.tables = "[timeouts]\nhandshake = \"soon\"\n".to_owned();
    let (code, said) = place.fail_to_start();
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("handshake") && said.contains("clinch.toml"),
        "{said}"
    );

    let (code, _, said) = place.clinch(&["run", "-c", "/nowhere/clinch.toml"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("/nowhere/clinch.toml"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_used_ends_with_2() {
    let place = Place::new();
    std::fs::write(place.path("leaf.pem"), "no certificate").expect("written");
    let (code, said) = place.fail_to_start();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("leaf.pem"), "{said}");
}

/// Ends a TLS stream so that the other side sees it end well.
trait End {
    fn flush_and_end(self);
}

impl End for rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    fn flush_and_end(mut self) {
        self.sock
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("our socket");
        self.conn
            .complete_io(&mut self.sock)
            .expect("close_notify is sent");
    }
}
