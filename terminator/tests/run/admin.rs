//! The admin interface over its unix socket, and the commands that use it.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use super::place::{Place, ask, exchange};

#[test]
fn every_page_answers_and_nothing_else_does() {
    let place = Place::new();
    let running = place.start();
    running.connect();
    let get = |path: &str| ask(&place.admin_listen, "GET", path).expect("answered");

    let metrics = get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.head.contains("application/openmetrics-text"),
        "{}",
        metrics.head
    );
    for line in [
        "clinch_connections_accepted_total 1",
        "clinch_handshakes_total{kind=\"tls13_full\"} 1",
        "clinch_certificates 1.0",
        "clinch_worker_alive{worker=\"1\"} 1.0",
        "# EOF",
    ] {
        assert!(
            metrics.body.lines().any(|l| l == line),
            "{line}: {}",
            metrics.body
        );
    }
    assert_eq!(
        (get("/healthz").status, get("/healthz").body.as_str()),
        (200, "ok\n")
    );
    assert_eq!(
        (get("/readyz").status, get("/readyz").body.as_str()),
        (200, "ok\n")
    );

    let status = running.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], running.pid());
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["steering_mode"], "reuseport");
    assert_eq!(status["workers"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        status["control"]["certificates"][0]["staple"],
        "not_applicable"
    );

    assert_eq!(get("/").status, 404);
    assert_eq!(get("/reload").status, 405);
    let post = ask(&place.admin_listen, "POST", "/metrics").expect("answered");
    assert_eq!(post.status, 405);
    assert!(
        post.head.to_ascii_lowercase().contains("allow: get"),
        "{}",
        post.head
    );
}

#[test]
fn a_reload_answers_with_what_it_did_or_why_not() {
    let mut place = Place::new();
    let running = place.start();
    let reload = || ask(&place.admin_listen, "POST", "/reload").expect("answered");
    let answer = reload();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("\"applied\""), "{}", answer.body);
    assert_eq!(running.status()["control"]["epoch"], 2);

    place.tables = "[nonsense]\n".to_owned();
    place.write_config();
    let answer = ask(&place.admin_listen, "POST", "/reload").expect("answered");
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert!(answer.body.contains("\"refused\"") && answer.body.contains("nonsense"));
    assert_eq!(running.status()["control"]["epoch"], 2);
}

#[test]
fn silent_greedy_and_foreign_requests_do_no_harm() {
    let place = Place::new();
    let _running = place.start();
    let silent: Vec<UnixStream> = (0..8)
        .map(|_| UnixStream::connect(place.admin()).expect("accepted"))
        .collect();
    let long = format!(
        "GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    if let Some(answer) = exchange(&place.admin_listen, &long) {
        assert_eq!(answer.status, 431);
    }
    let browser = "POST /reload HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n";
    assert_eq!(
        exchange(&place.admin_listen, browser)
            .expect("answered")
            .status,
        403
    );
    let garbage = exchange(&place.admin_listen, "\x16\x03\x01 hello\r\n\r\n");
    assert!(garbage.is_none_or(|answer| answer.status == 400));
    assert_eq!(
        ask(&place.admin_listen, "GET", "/healthz")
            .expect("answered")
            .status,
        200
    );
    drop(silent);
}

#[test]
fn the_socket_of_a_crashed_process_is_replaced_and_that_of_a_live_one_is_not() {
    let mut place = Place::new();
    let mut crashed = place.start();
    crashed.signal(Signal::KILL);
    crashed.wait();
    assert!(place.admin().exists(), "nobody removed it");

    let running = place.start();
    place.address = place.address.replace(":8443", ":8444");
    let (code, said) = place.fail_to_start();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("another process already serves the admin interface"),
        "{said}"
    );
    assert_eq!(running.status()["pid"], running.pid());
}

#[test]
fn the_commands_show_the_status_and_reload() {
    let mut place = Place::new();
    let running = place.start();
    let config = place.path("clinch.toml").display().to_string();
    let (code, page, said) = place.clinch(&["status", "-c", &config]);
    assert_eq!(code, 0, "{said}");
    assert!(
        page.contains(&format!("process {}, serving", running.pid())),
        "{page}"
    );
    assert!(page.contains("www.example.test"), "{page}");

    let admin = format!("unix:{}", place.admin().display());
    let (code, json, said) = place.clinch(&["status", "--json", "--admin", &admin]);
    assert_eq!(code, 0, "{said}");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["pid"], running.pid());

    let (code, page, said) = place.clinch(&["reload", "-c", &config]);
    assert_eq!(code, 0, "{said}");
    assert!(page.starts_with("reloaded: generation"), "{page}");
    place.tables = "[nonsense]\n".to_owned();
    place.write_config();
    let (code, _, said) = place.clinch(&["reload", "--admin", &admin]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("nonsense"), "{said}");
}

#[test]
fn the_commands_say_when_nobody_answers() {
    let place = Place::new();
    let config = place.write_config().display().to_string();
    for command in ["status", "reload"] {
        let (code, _, said) = place.clinch(&[command, "-c", &config]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("nobody answers at unix:"), "{said}");
    }
}

#[test]
fn a_loopback_address_serves_the_same_pages_and_any_other_is_refused() {
    let mut place = Place::new();
    place.admin_listen = place.address.replace(":8443", ":9443");
    let running = place.start();
    let (code, page, said) = place.clinch(&["status", "--admin", &place.admin_listen]);
    assert_eq!(code, 0, "{said}");
    assert!(
        page.contains(&format!("process {}", running.pid())),
        "{page}"
    );
    drop(running);

    place.admin_listen = "0.0.0.0:9443".to_owned();
    let (code, said) = place.fail_to_start();
    assert_ne!(code, 0);
    assert!(said.contains("loopback"), "{said}");
}

#[test]
fn a_json_log_is_one_object_a_line() {
    let mut place = Place::new();
    place.tables = "[log]\nformat = \"json\"\n".to_owned();
    let running = place.start();
    running.connect();
    let log = place.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let listening = lines.iter().find(|line| line["message"] == "listening");
    let listening = listening.unwrap_or_else(|| panic!("no such event in {log}"));
    assert_eq!(listening["address"], place.address);
    assert_eq!(listening["level"], "INFO");
}
