//! Stapling as clients see it: `openssl s_client`, `gnutls-cli`, `curl` and rustls on real sockets.

use std::time::{Duration, Instant, SystemTime};

use clinch_tests::backend::{Backend, Stream};
use clinch_tests::client::Client;
use clinch_tests::peers::{curl, gnutls_client, openssl_client, present};
use clinch_tests::process::Start;
use clinch_tests::responder::{Answer, Mode, Responder};
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually, skip};

const STAPLINGS: &str = "clinch_staplings_total";
const FETCHES: &str = "clinch_ocsp_fetches_total";

#[test]
fn openssl_sees_a_good_staple_on_the_first_and_second_handshake_after_one_query() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for _ in 0..2 {
        openssl_client(setup.address, "a.example", &setup.root_path(), &["-status"])
            .has("OCSP Response Status: successful (0x0)")
            .has("Cert Status: good")
            .has("Verify return code: 0 (ok)");
    }
    assert_eq!(setup.responder.count(), 1, "queries to the responder");
    clinch.wait_for_count(STAPLINGS, &["result=\"stapled\""], 2.0);
    clinch.stop();
}

#[test]
fn openssl_sees_the_staple_in_tls_1_2_and_1_3_alike() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        openssl_client(
            setup.address,
            "a.example",
            &setup.root_path(),
            &["-status", version],
        )
        .has(name)
        .has("Cert Status: good");
    }
    clinch.stop();
}

#[test]
fn gnutls_verifies_the_staple() {
    if !present("gnutls-cli") {
        skip!("gnutls-cli is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let said = gnutls_client(setup.address, "a.example", &setup.root_path(), &["-V"]);
    said.has("Options: OCSP status request")
        .has("Response Status: Successful")
        .has("Certificate Status: good")
        .has("The certificate is trusted")
        .has("Handshake was completed");
    clinch.wait_for_count(STAPLINGS, &["result=\"stapled\""], 1.0);
    clinch.stop();
}

#[test]
fn curl_with_cert_status_gets_the_page() {
    if !present("curl") {
        skip!("curl is not installed");
    }
    let web = Backend::tcp(hello_page);
    let (setup, _) = Setup::with_site("a.example", web.written());
    let clinch = setup.start();
    let said = curl(setup.address, "a.example", &setup.root_path(), &[]);
    said.has("SSL certificate status: good (0)")
        .has("hello from the backend");
    assert_eq!(said.code, Some(0));
    clinch.stop();
}

#[test]
fn curl_with_cert_status_refuses_a_site_whose_responder_is_down() {
    if !present("curl") {
        skip!("curl is not installed");
    }
    let web = Backend::tcp(hello_page);
    let (setup, _) = Setup::with_site("a.example", web.written());
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    let said = curl(setup.address, "a.example", &setup.root_path(), &[]);
    // 91: CURLE_SSL_INVALIDCERTSTATUS.
    assert_eq!(said.code, Some(91), "{}", said.text);
    said.lacks("hello from the backend");
    clinch.stop();
}

#[test]
fn rustls_gets_a_staple_that_verifies_in_both_versions() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for client in [setup.client(), Client::tls12(setup.authority.root())] {
        let mut session = client
            .connect(setup.address, "a.example")
            .expect("a handshake");
        assert_stapled(&session, &issued);
        session.echo(b"through to the backend and back");
    }
    clinch.stop();
}

#[test]
fn only_clients_that_ask_get_the_staple() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    // In TLS 1.2 the staple is a message of its own, which `-msg` names.
    let asked = ["-tls1_2", "-msg", "-status"];
    openssl_client(setup.address, "a.example", &setup.root_path(), &asked).has("CertificateStatus");
    let not_asked = ["-tls1_2", "-msg"];
    openssl_client(setup.address, "a.example", &setup.root_path(), &not_asked)
        .has("Verify return code: 0 (ok)")
        .lacks("CertificateStatus");
    openssl_client(setup.address, "a.example", &setup.root_path(), &["-tls1_3"])
        .has("Verify return code: 0 (ok)");
    clinch.wait_for_count(STAPLINGS, &["result=\"stapled\""], 1.0);
    clinch.wait_for_count(STAPLINGS, &["result=\"not_asked\""], 2.0);
    clinch.stop();
}

#[test]
fn every_site_gets_the_staple_of_its_own_certificate() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let names = ["a.example", "b.example", "c.example"];
    let issued: Vec<_> = names
        .iter()
        .map(|name| setup.site(name, echo.written(), ""))
        .collect();
    let clinch = setup.start();
    for _ in 0..3 {
        for (name, issued) in names.iter().zip(&issued) {
            assert_stapled(&setup.connect(name), issued);
        }
    }
    assert_eq!(
        setup.responder.count(),
        names.len(),
        "one query a certificate"
    );
    clinch.stop();
}

#[test]
fn a_response_signed_by_the_issuer_itself_is_stapled() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup.responder.says(Answer::GoodByIssuer);
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    clinch.stop();
}

#[test]
fn a_must_staple_site_refuses_until_it_has_a_staple_and_then_serves() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let mut spec = setup.leaf("must.example");
    spec.must_staple = true;
    let issued = setup.site_with(&spec, echo.written(), "");
    setup.responder.set(Mode::Refused);
    let clinch = setup.start_as(&Start {
        impatient: true,
        ..Start::default()
    });
    let refused = eventually("clinch listens", PROMPT, || {
        match setup.client().connect(setup.address, "must.example") {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => None,
            outcome => Some(outcome.err()),
        }
    });
    refused.expect("a Must-Staple certificate was served without a staple");
    clinch.wait_for_count(
        "clinch_handshake_failures_total",
        &["reason=\"staple_required\""],
        1.0,
    );

    setup.responder.says(Answer::Good);
    let session = eventually("a handshake once the responder is up", PROMPT * 2, || {
        setup.client().connect(setup.address, "must.example").ok()
    });
    assert_stapled(&session, &issued);
    clinch.stop();
}

#[test]
fn a_site_that_is_not_must_staple_serves_unstapled_and_staples_once_the_responder_is_up() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    let mut session = setup.connect("a.example");
    assert_eq!(session.staple, None);
    session.echo(b"served all the same");
    setup.responder.says(Answer::Good);
    let session = eventually("a staple once the responder is up", PROMPT * 2, || {
        Some(setup.connect("a.example")).filter(|session| session.staple.is_some())
    });
    assert_stapled(&session, &issued);
    clinch.stop();
}

#[test]
fn the_hard_policy_refuses_without_a_staple() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site(
        "hard.example",
        echo.written(),
        "ocsp = { policy = \"hard\" }",
    );
    setup.responder.set(Mode::Refused);
    let clinch = setup.start_as(&Start {
        impatient: true,
        ..Start::default()
    });
    eventually("a refused handshake", PROMPT, || {
        let outcome = setup.client().connect(setup.address, "hard.example");
        let error = outcome.err().expect("served without a staple");
        if error.kind() != std::io::ErrorKind::ConnectionRefused {
            // Not a reset: the client learns that it is the server that cannot.
            assert!(error.to_string().contains("InternalError"), "{error}");
        }
        std::fs::exists(setup.admin_path())
            .ok()
            .filter(|there| *there)?;
        (clinch.count(
            "clinch_handshake_failures_total",
            &["reason=\"staple_required\""],
        ) > 0.0)
            .then_some(())
    });
    clinch.stop();
}

#[test]
fn a_staple_is_not_sent_past_its_next_update() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    setup
        .responder
        .says(Answer::GoodFor(Duration::from_secs(4)));
    let clinch = setup.start();
    setup.responder.set(Mode::Refused);
    let first = setup.connect("a.example");
    let staple = first.staple.as_deref().expect("a staple at first");
    let policy = clinch::ocsp::Policy::default();
    let leaf = &first.chain[0];
    let issuer = &first.chain[1];
    let end = clinch::ocsp::verify(staple, leaf, issuer, &policy, SystemTime::now())
        .expect("right at first")
        .next_update()
        .expect("it has one");
    // Every handshake until then carries it, and none after.
    eventually("the end of the staple", PROMPT, || {
        let before = SystemTime::now();
        let stapled = setup.connect("a.example").staple.is_some();
        let after = SystemTime::now();
        assert!(!(stapled && before >= end), "stapled past nextUpdate");
        assert!(stapled || after >= end, "not stapled before nextUpdate");
        (!stapled).then_some(())
    });
    clinch.wait_for_count(STAPLINGS, &["result=\"expired\""], 1.0);
    clinch.stop();
}

#[test]
fn a_staple_is_refreshed_before_it_ends_and_no_handshake_goes_without() {
    for answer in [
        Answer::GoodFor(Duration::from_secs(10)),
        Answer::GoodStill(Duration::from_secs(10)),
    ] {
        let echo = Backend::echo();
        let (setup, _) = Setup::with_site("a.example", echo.written());
        setup.responder.says(answer);
        let clinch = setup.start();
        eventually("a second query", PROMPT, || {
            let stapled = setup.connect("a.example").staple.is_some();
            assert!(stapled, "a handshake went without");
            (setup.responder.count() >= 2).then_some(())
        });
        clinch.wait_for_count(FETCHES, &["result=\"good\""], 2.0);
        assert!(setup.connect("a.example").staple.is_some());
        assert_eq!(clinch.count(STAPLINGS, &["result=\"expired\""]), 0.0);
        clinch.stop();
    }
}

#[test]
fn a_slow_responder_is_waited_for_before_listening() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    setup.responder.set(Mode::Slow(Duration::from_secs(2)));
    let clinch = setup.start_as(&Start {
        impatient: true,
        ..Start::default()
    });
    let first = eventually("the first handshake", PROMPT, || {
        setup.client().connect(setup.address, "a.example").ok()
    });
    assert_stapled(&first, &issued);
    clinch.stop();
}

#[test]
fn a_stuck_responder_delays_neither_start_nor_the_staples_of_others() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.timeouts.push_str("startup_wait = \"2s\"\n");
    let (at, url) = Responder::place();
    let stuck = Responder::start(at, setup.authority.clone());
    stuck.set(Mode::Stuck);
    let mut spec = setup.leaf("stuck.example");
    spec.ocsp_urls = vec![url];
    setup.site_with(&spec, echo.written(), "");
    let issued = setup.site("a.example", echo.written(), "");
    let begun = Instant::now();
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    assert_eq!(setup.connect("stuck.example").staple, None);
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "took {:?}",
        begun.elapsed()
    );
    assert_eq!(stuck.count(), 1);
    clinch.stop();
}

#[test]
fn a_short_request_is_a_get_and_a_long_url_makes_it_a_post() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("get.example", echo.written(), "");
    let mut spec = setup.leaf("post.example");
    spec.ocsp_urls = vec![format!("{}/{}", setup.url, "x".repeat(200))];
    setup.site_with(&spec, echo.written(), "");
    let clinch = setup.start();
    let mut methods: Vec<_> = setup
        .responder
        .requests()
        .into_iter()
        .map(|r| r.method)
        .collect();
    methods.sort();
    assert_eq!(methods, ["GET", "POST"]);
    let post = setup
        .responder
        .requests()
        .into_iter()
        .find(|r| r.method == "POST")
        .expect("one");
    let content_type = post.headers.iter().find(|(name, _)| name == "content-type");
    assert_eq!(content_type.expect("named").1, "application/ocsp-request");
    clinch.stop();
}

#[test]
fn a_responder_set_for_the_site_is_asked_instead_of_the_certificates_own() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let (at, url) = Responder::place();
    let other = Responder::start(at, setup.authority.clone());
    let more = format!("ocsp = {{ responder = {url:?} }}");
    let issued = setup.site("a.example", echo.written(), &more);
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &issued);
    assert_eq!((other.count(), setup.responder.count()), (1, 0));
    clinch.stop();
}

#[test]
fn sites_with_nothing_to_fetch_are_served_without_a_query() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("off.example", echo.written(), "ocsp = false");
    let mut spec = setup.leaf("no-url.example");
    spec.ocsp_urls.clear();
    setup.site_with(&spec, echo.written(), "");
    let clinch = setup.start();
    for name in ["off.example", "no-url.example"] {
        assert_eq!(setup.connect(name).staple, None);
    }
    assert_eq!(setup.responder.count(), 0);
    clinch.wait_for_count(STAPLINGS, &["result=\"not_applicable\""], 2.0);
    assert_eq!(clinch.count("clinch_ocsp_skipped_total", &[]), 2.0);
    let log = clinch.stop();
    let warnings = log.lines().filter(|line| line.contains("WARN"));
    let others: Vec<&str> = warnings
        .filter(|line| !line.contains("running as root"))
        .collect();
    assert_eq!(
        others, [""; 0],
        "a certificate without responder is no warning"
    );
}

/// A web server for one request.
fn hello_page(mut stream: Stream) {
    use std::io::{Read, Write};
    let mut request = Vec::new();
    let mut byte = [0; 1];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let body = "hello from the backend\n";
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}
