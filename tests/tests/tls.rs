//! Versions, suites, groups, resumption, names and the choice of certificates.

use std::io::{Read, Write};

use clinch::cli::demo::authority::{KeyAlgorithm, LeafSpec};
use clinch_tests::backend::Backend;
use clinch_tests::client::{Client, Offer, Session};
use clinch_tests::hello::{self, Answer, Hello};
use clinch_tests::peers::{openssl_client, present};
use clinch_tests::place;
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::skip;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme};

const FAILURES: &str = "clinch_handshake_failures_total";
const HANDSHAKES: &str = "clinch_handshakes_total";
const UNRECOGNIZED_NAME: u8 = 112;
const PROTOCOL_VERSION: u8 = 70;
const HANDSHAKE_FAILURE: u8 = 40;

/// A connection by a client that offers only this.
fn offering(setup: &Setup, offer: &Offer) -> std::io::Result<Session> {
    Client::offering(setup.authority.root(), offer).connect(setup.address, "a.example")
}

#[test]
fn x25519mlkem768_is_preferred_whatever_the_client_prefers() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    assert_eq!(
        setup.connect("a.example").group(),
        Some(NamedGroup::X25519MLKEM768)
    );
    let groups = vec![
        NamedGroup::X25519,
        NamedGroup::secp256r1,
        NamedGroup::X25519MLKEM768,
    ];
    let session = offering(
        &setup,
        &Offer {
            groups,
            ..Offer::default()
        },
    )
    .expect("a handshake");
    assert_eq!(session.version(), ProtocolVersion::TLSv1_3);
    clinch.stop();
}

#[test]
fn each_group_alone_serves() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for group in [
        NamedGroup::X25519MLKEM768,
        NamedGroup::X25519,
        NamedGroup::secp256r1,
        NamedGroup::secp384r1,
    ] {
        let session = offering(
            &setup,
            &Offer {
                groups: vec![group],
                ..Offer::default()
            },
        )
        .unwrap_or_else(|error| panic!("{group:?}: {error}"));
        assert_eq!(session.group(), Some(group));
        assert_stapled(&session, &issued);
    }
    clinch.stop();
}

#[test]
fn openssl_negotiates_each_group_it_knows() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for (group, shown) in [
        ("X25519", "X25519"),
        ("P-256", "ECDH, prime256v1"),
        ("P-384", "ECDH, secp384r1"),
    ] {
        openssl_client(
            setup.address,
            "a.example",
            &setup.root_path(),
            &["-groups", group],
        )
        .has(&format!("Server Temp Key: {shown}"))
        .has("Verify return code: 0 (ok)");
    }
    clinch.stop();
}

#[test]
fn each_suite_alone_serves() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("a.example", echo.written(), "");
    let mut spec = setup.leaf("rsa.example");
    spec.key = KeyAlgorithm::Rsa2048;
    setup.site_with(&spec, echo.written(), "");
    let clinch = setup.start();
    for (name, suite) in [
        ("a.example", CipherSuite::TLS13_AES_128_GCM_SHA256),
        ("a.example", CipherSuite::TLS13_AES_256_GCM_SHA384),
        ("a.example", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (
            "a.example",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
        (
            "a.example",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ),
        (
            "a.example",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        (
            "rsa.example",
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ),
        (
            "rsa.example",
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ),
        (
            "rsa.example",
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let tls13 = format!("{suite:?}").starts_with("TLS13");
        let versions = vec![if tls13 {
            &rustls::version::TLS13
        } else {
            &rustls::version::TLS12
        }];
        let offer = Offer {
            versions,
            suites: vec![suite],
            ..Offer::default()
        };
        let mut session = Client::offering(setup.authority.root(), &offer)
            .connect(setup.address, name)
            .unwrap_or_else(|error| panic!("{suite:?}: {error}"));
        assert_eq!(session.suite(), suite);
        session.echo(b"some bytes under this suite");
    }
    clinch.stop();
}

#[test]
fn a_session_is_resumed_by_any_worker_in_both_versions() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for (client, kind) in [
        (setup.client(), "tls13_resumed"),
        (Client::tls12(setup.authority.root()), "tls12_resumed"),
    ] {
        let mut resumed = 0;
        for _ in 0..24 {
            let mut session = client
                .connect(setup.address, "a.example")
                .expect("a handshake");
            // Tickets of TLS 1.3 come with the first data.
            session.echo(b"so that tickets arrive");
            resumed += u32::from(session.resumed());
        }
        // All but the first: with two workers, a ticket that only its own worker knows would fail
        // in about half of them.
        assert_eq!(resumed, 23, "{kind}");
        clinch.wait_for_count(HANDSHAKES, &[&format!("kind=\"{kind}\"")], 23.0);
    }
    clinch.stop();
}

#[test]
fn openssl_resumes() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    // -reconnect makes five further connections with the session of the first (TLS 1.2).
    openssl_client(
        setup.address,
        "a.example",
        &setup.root_path(),
        &["-tls1_2", "-reconnect"],
    )
    .has("Reused, TLSv1.2");
    clinch.stop();
}

#[test]
fn a_listener_without_tickets_resumes_nothing() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("a.example", echo.written(), "");
    setup.listen = "tickets = 0\n".to_owned();
    let clinch = setup.start();
    for client in [setup.client(), Client::tls12(setup.authority.root())] {
        for _ in 0..3 {
            let mut session = client
                .connect(setup.address, "a.example")
                .expect("a handshake");
            session.echo(b"no ticket comes");
            assert!(!session.resumed());
        }
    }
    clinch.stop();
}

#[test]
fn alpn_is_chosen_per_site_in_the_sites_order() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("a.example", echo.written(), "alpn = [\"h2\", \"http/1.1\"]");
    setup.site("b.example", echo.written(), "alpn = [\"http/1.1\"]");
    setup.site("none.example", echo.written(), "");
    let clinch = setup.start();
    let alpn = vec!["http/1.1", "h2"];
    let client = Client::offering(
        setup.authority.root(),
        &Offer {
            alpn,
            ..Offer::default()
        },
    );
    let chosen = |name: &str| {
        let session = client.connect(setup.address, name).expect("a handshake");
        session
            .alpn()
            .map(|p| String::from_utf8_lossy(p).into_owned())
    };
    assert_eq!(chosen("a.example").as_deref(), Some("h2"));
    assert_eq!(chosen("b.example").as_deref(), Some("http/1.1"));
    assert_eq!(chosen("none.example"), None);

    let offer = Offer {
        alpn: vec!["imap"],
        ..Offer::default()
    };
    offering(&setup, &offer)
        .err()
        .expect("no protocol in common (RFC 7301 section 3.2)");
    clinch.wait_for_count(FAILURES, &["reason=\"no_application_protocol\""], 1.0);
    clinch.stop();
}

#[test]
fn an_unknown_name_and_no_name_are_refused_with_unrecognized_name() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let unknown = Hello::tls12("b.example").record();
    let said = hello::send(setup.address, &unknown).expect("an answer");
    assert_eq!(said, Answer::Alert(UNRECOGNIZED_NAME));
    clinch.wait_for_count(FAILURES, &["reason=\"unknown_server_name\""], 1.0);
    let unnamed = Hello {
        name: None,
        ..Hello::tls12("")
    }
    .record();
    let said = hello::send(setup.address, &unnamed).expect("an answer");
    assert_eq!(said, Answer::Alert(UNRECOGNIZED_NAME));
    clinch.wait_for_count(FAILURES, &["reason=\"no_server_name\""], 1.0);
    setup.connect("a.example").echo(b"it still serves");
    clinch.stop();
}

#[test]
fn a_default_site_serves_unknown_names_and_none() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let issued = setup.site("a.example", echo.written(), "");
    setup.listen = "default_site = \"a.example\"\n".to_owned();
    let clinch = setup.start();
    let said = hello::send(setup.address, &Hello::tls12("b.example").record());
    assert_eq!(said.expect("an answer"), Answer::Handshake(2));
    let client = setup.client().without_sni();
    let session = client
        .connect(setup.address, "a.example")
        .expect("a handshake without SNI");
    assert_stapled(&session, &issued);
    clinch.stop();
}

#[test]
fn a_wildcard_stands_for_one_label_and_an_exact_name_goes_before_it() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let wild = setup.site("*.w.example", echo.written(), "");
    let exact = setup.site("exact.w.example", echo.written(), "");
    let clinch = setup.start();
    assert_stapled(&setup.connect("any.w.example"), &wild);
    assert_stapled(&setup.connect("exact.w.example"), &exact);
    for name in ["w.example", "two.labels.w.example"] {
        let said = hello::send(setup.address, &Hello::tls12(name).record());
        assert_eq!(
            said.expect("an answer"),
            Answer::Alert(UNRECOGNIZED_NAME),
            "{name}"
        );
    }
    clinch.stop();
}

#[test]
fn names_are_taken_in_any_case_and_idn_as_a_labels() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("a.example", echo.written(), "");
    let spec = LeafSpec {
        names: vec!["xn--bcher-kva.example".into()],
        ..setup.leaf("")
    };
    let issued = setup.authority.issue(&spec).expect("a sound specification");
    let files = setup.write(&issued);
    setup.site_of(&["Bücher.example"], &files, &[echo.written()], "");
    let clinch = setup.start();
    for name in ["A.eXaMpLe", "a.example"] {
        let said = hello::send(setup.address, &Hello::tls12(name).record());
        assert_eq!(said.expect("an answer"), Answer::Handshake(2), "{name}");
    }
    assert_stapled(&setup.connect("xn--bcher-kva.example"), &issued);
    clinch.stop();
}

#[test]
fn of_an_ecdsa_and_an_rsa_certificate_the_client_gets_the_one_it_can_verify() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let ecdsa = setup
        .authority
        .issue(&setup.leaf("a.example"))
        .expect("sound");
    let rsa_spec = LeafSpec {
        key: KeyAlgorithm::Rsa2048,
        ..setup.leaf("a.example")
    };
    let rsa = setup.authority.issue(&rsa_spec).expect("sound");
    let (first, second) = (setup.write(&ecdsa), setup.write(&rsa));
    let more = format!(
        "certificates = [{{ cert = {:?}, key = {:?} }}, {{ cert = {:?}, key = {:?} }}]",
        first.cert, first.key, second.cert, second.key
    );
    setup.site_of_certificates(&["a.example"], &more, &[echo.written()]);
    let clinch = setup.start();
    // The chain is signed with ECDSA, so a client that verifies it offers both; what the leaf's
    // own key signs with is what RSA-first or ECDSA-only changes.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let with = |schemes: &[SignatureScheme]| {
            let offer = Offer {
                versions: vec![version],
                schemes: schemes.to_vec(),
                ..Offer::default()
            };
            offering(&setup, &offer).unwrap_or_else(|error| panic!("{schemes:?}: {error}"))
        };
        let modern = with(&[]);
        assert_stapled(&modern, &ecdsa);
        let old = with(&[
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]);
        assert_stapled(&old, &rsa);
        let ecdsa_only = with(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        assert_stapled(&ecdsa_only, &ecdsa);
    }
    clinch.stop();
}

#[test]
fn a_client_without_a_fitting_signature_scheme_or_suite_is_told() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    let no_scheme = Hello {
        schemes: vec![0x0401],
        ..Hello::tls12("a.example")
    };
    // TLS_RSA_WITH_AES_128_CBC_SHA, which clinch never does.
    let no_suite = Hello {
        suites: vec![0x002f],
        ..Hello::tls12("a.example")
    };
    for (count, hello) in [(1.0, no_scheme), (2.0, no_suite)] {
        let said = hello::send(setup.address, &hello.record()).expect("an answer");
        assert_eq!(said, Answer::Alert(HANDSHAKE_FAILURE), "{hello:?}");
        clinch.wait_for_count(FAILURES, &["reason=\"nothing_in_common\""], count);
    }
    setup.connect("a.example").echo(b"it still serves");
    clinch.stop();
}

#[test]
fn a_listener_for_tls_1_3_alone_refuses_1_2_with_protocol_version() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("a.example", echo.written(), "");
    setup.listen = "min_version = \"1.3\"\n".to_owned();
    let clinch = setup.start();
    let said = hello::send(setup.address, &Hello::tls12("a.example").record());
    assert_eq!(said.expect("an answer"), Answer::Alert(PROTOCOL_VERSION));
    assert_eq!(
        setup.connect("a.example").version(),
        ProtocolVersion::TLSv1_3
    );
    clinch.stop();
}

#[test]
fn several_listeners_serve_their_own_sites_over_ipv4_and_ipv6() {
    let Ok(v6) = place::fresh_v6() else {
        skip!("the machine has no IPv6 loopback");
    };
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let public = setup.site("a.example", echo.written(), "listen = [\"public\"]");
    let inner = setup.site("b.example", echo.written(), "listen = [\"inner\"]");
    let inner_address = place::fresh();
    setup.tables = format!("[listen.inner]\naddress = [\"{inner_address}\", \"{v6}\"]\n");
    let clinch = setup.start();
    assert_stapled(&setup.connect("a.example"), &public);
    for address in [inner_address, v6] {
        let session = setup
            .client()
            .connect(address, "b.example")
            .expect("a handshake");
        assert_stapled(&session, &inner);
        setup
            .client()
            .connect(address, "a.example")
            .err()
            .expect("not on this listener");
    }
    setup
        .client()
        .connect(setup.address, "b.example")
        .err()
        .expect("not on this listener");
    clinch.stop();
}

#[test]
fn the_listeners_policy_of_suites_and_groups_is_kept() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    setup.site("a.example", echo.written(), "");
    setup.listen =
        "ciphers = [\"TLS13_CHACHA20_POLY1305_SHA256\"]\ngroups = [\"P-384\"]\n".to_owned();
    let clinch = setup.start();
    let session = setup.connect("a.example");
    assert_eq!(session.suite(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    assert_eq!(session.group(), Some(NamedGroup::secp384r1));
    let offer = Offer {
        groups: vec![NamedGroup::X25519],
        ..Offer::default()
    };
    offering(&setup, &offer).err().expect("no group in common");
    clinch.wait_for_count(FAILURES, &["reason=\"nothing_in_common\""], 1.0);
    clinch.stop();
}

#[test]
fn a_handshake_that_needs_a_second_hello_succeeds() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    // rustls sends a key share for its first group alone; clinch prefers another of them or
    // answers with HelloRetryRequest.
    let groups = vec![NamedGroup::secp384r1, NamedGroup::X25519];
    let mut session = offering(
        &setup,
        &Offer {
            groups,
            ..Offer::default()
        },
    )
    .expect("a handshake");
    assert_stapled(&session, &issued);
    session.echo(b"through");
    clinch.stop();
}

#[test]
fn data_that_comes_with_the_last_flight_of_the_handshake_is_relayed() {
    let echo = Backend::echo();
    let (setup, _) = Setup::with_site("a.example", echo.written());
    let clinch = setup.start();
    for client in [setup.client(), Client::tls12(setup.authority.root())] {
        let mut tcp = hello::connect(setup.address).expect("a connection");
        let mut tls = client.start("a.example");
        // Buffered by rustls until it may be sent, then written together with Finished.
        tls.writer().write_all(b"early bird").expect("buffered");
        let mut back = [0; 10];
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        stream.read_exact(&mut back).expect("it comes back");
        assert_eq!(&back, b"early bird");
    }
    clinch.stop();
}
