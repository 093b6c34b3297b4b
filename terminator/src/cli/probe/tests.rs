//! `clinch probe` against real TLS servers on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use clap::Parser;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::cli::demo::authority::{Authority, HashAlgorithm, Issued, LeafSpec, OcspAnswer, Status};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

struct Fixture {
    authority: Authority,
    issued: Issued,
    at: SystemTime,
}

impl Fixture {
    fn new() -> Self {
        let at = clock::now();
        let authority = Authority::new(at).expect("an authority");
        let spec = LeafSpec {
            names: vec!["probe.test".to_owned()],
            must_staple: true,
            ..LeafSpec::default()
        };
        let issued = authority.issue(&spec).expect("a leaf");
        Self {
            authority,
            issued,
            at,
        }
    }

    fn response(&self, answer: &OcspAnswer) -> Vec<u8> {
        self.authority
            .respond_about(answer, &self.issued.serial, HashAlgorithm::Sha1)
            .expect("a response")
    }

    /// Serves one connection with this chain and staple, and probes it.
    fn probe(
        &self,
        chain: &[CertificateDer<'static>],
        staple: Vec<u8>,
        ca: Option<&str>,
    ) -> (Report, Seen) {
        let (address, server) = serve(chain.to_vec(), &self.issued.key_pem, staple);
        let anchors = ca.map_or(Vec::new(), |pem| {
            certificates_from_pem(pem.as_bytes()).expect("PEM")
        });
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(anchors.iter().cloned());
        let name = server_name("probe.test").expect("a name");
        let seen = handshake(&address, name, roots, DEADLINE).expect("a handshake");
        server.join().expect("the server ended");
        let report = Report::new(&seen, "probe.test", &anchors, self.at).expect("a report");
        (report, seen)
    }

    fn chain(&self) -> [CertificateDer<'static>; 2] {
        [self.issued.leaf.clone(), self.issued.issuer.clone()]
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn serve(
    chain: Vec<CertificateDer<'static>>,
    key: &str,
    staple: Vec<u8>,
) -> (String, JoinHandle<()>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let mut certified = CertifiedKey::from_der(chain, key, &provider).expect("they match");
    certified.ocsp = (!staple.is_empty()).then_some(staple);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Fixed(Arc::new(certified))));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut session = rustls::ServerConnection::new(Arc::new(config)).expect("a session");
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        // Ends with the client's close_notify.
        let _ = tls.read_to_end(&mut Vec::new());
    });
    (address, server)
}

#[test]
fn a_good_staple_is_reported_with_its_validity() {
    let f = Fixture::new();
    let staple = f.response(&OcspAnswer::good(f.at));
    let (report, seen) = f.probe(&f.chain(), staple.clone(), Some(&f.authority.root_pem()));
    assert!(matches!(report.staple, Staple::Good { seconds_left, .. } if seconds_left > 3600));
    assert_eq!(report.distrust, None);
    assert_eq!(report.certificate.names, ["probe.test"]);
    assert_eq!(seen.staple, staple);
    assert_eq!(
        (seen.version.as_str(), seen.group.as_str()),
        ("TLSv1_3", "X25519MLKEM768")
    );
    let text = report.text(f.at);
    assert!(text.contains("staple       good, "), "{text}");
    assert!(
        text.contains("chain        2 certificates, trusted"),
        "{text}"
    );
}

#[test]
fn a_missing_staple_is_reported_and_what_must_staple_makes_of_it() {
    let f = Fixture::new();
    let (report, _) = f.probe(&f.chain(), Vec::new(), None);
    assert!(matches!(report.staple, Staple::None));
    assert!(report.distrust.is_some(), "no root was given");
    assert!(report.text(f.at).contains("clients will refuse it"));
}

#[test]
fn a_staple_that_does_not_verify_is_reported_with_the_reason() {
    let f = Fixture::new();
    let revoked = OcspAnswer {
        status: Status::Revoked(f.at - Duration::from_secs(60), None),
        ..OcspAnswer::good(f.at)
    };
    let (report, _) = f.probe(&f.chain(), f.response(&revoked), None);
    assert!(matches!(
        report.staple,
        Staple::Refused {
            kind: "revoked",
            ..
        }
    ));
    let (report, _) = f.probe(&f.chain(), b"<html>".to_vec(), None);
    assert!(matches!(
        report.staple,
        Staple::Refused {
            kind: "unusable",
            ..
        }
    ));
}

#[test]
fn without_the_issuer_a_staple_is_not_judged_unless_ca_gives_it() {
    let f = Fixture::new();
    let staple = f.response(&OcspAnswer::good(f.at));
    let alone = &f.chain()[..1];
    let (report, _) = f.probe(alone, staple.clone(), None);
    assert!(matches!(report.staple, Staple::Unjudged { .. }));
    let both = f.authority.root_pem() + &f.authority.intermediate_pem();
    let (report, _) = f.probe(alone, staple, Some(&both));
    assert!(matches!(report.staple, Staple::Good { .. }), "{report:?}");
}

#[test]
fn who_does_not_speak_tls_is_told_in_words() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut hello = [0; 16];
        stream.read_exact(&mut hello).expect("a hello");
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("sent");
    });
    let name = server_name("probe.test").expect("a name");
    let error = handshake(&address, name, RootCertStore::empty(), DEADLINE).expect_err("no TLS");
    server.join().expect("the server ended");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[test]
fn a_silent_server_does_not_hold_the_probe() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("bound").to_string();
    let name = server_name("probe.test").expect("a name");
    let error = handshake(
        &address,
        name,
        RootCertStore::empty(),
        Duration::from_millis(50),
    );
    let error = error.expect_err("nobody answers").to_string();
    assert!(
        error.contains("in time") || error.contains("within"),
        "{error}"
    );
}

#[test]
fn targets_are_read_in_every_form() {
    for (written, host, meant) in [
        ("example.com:8443", "example.com", "example.com:8443"),
        ("example.com", "example.com", "example.com:443"),
        ("127.0.0.1:1", "127.0.0.1", "127.0.0.1:1"),
        ("[::1]:8443", "::1", "[::1]:8443"),
        ("::1", "::1", "[::1]:443"),
    ] {
        let line = Line::try_parse_from(["probe", written]).expect(written);
        let target = line.args.target;
        assert_eq!((target.host.as_str(), target.text.as_str()), (host, meant));
    }
    for wrong in ["", ":443", "a:0", "a:x", "a:70000", "a:1:2"] {
        assert!(Line::try_parse_from(["probe", wrong]).is_err(), "{wrong}");
    }
}

const DEADLINE: Duration = Duration::from_secs(20);
