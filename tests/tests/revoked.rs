//! A certificate that its CA revokes while it is served: what clients get under each
//! `ocsp.on_revoked`, that its sessions end with it, and that a restart does not forget.

use std::path::Path;
use std::time::Duration;

use clinch_tests::backend::Backend;
use clinch_tests::peers::{Said, openssl_client, present};
use clinch_tests::process::Clinch;
use clinch_tests::responder::{Answer, Mode};
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, eventually, skip};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];
const SITES: [&str; 3] = ["refuse", "unstapled", "fallback"];

/// One site for each `on_revoked`, and a default site with a certificate that covers the one that
/// falls back on it.
struct World {
    setup: Setup,
    _echo: Backend,
}

impl World {
    fn new() -> Self {
        let echo = Backend::echo();
        let mut setup = Setup::new();
        for (site, on_revoked) in [
            ("refuse", "refuse"),
            ("unstapled", "serve-unstapled"),
            ("fallback", "fallback"),
        ] {
            let more = format!("ocsp = {{ on_revoked = {on_revoked:?} }}");
            setup.site(&format!("{site}.example"), echo.written(), &more);
        }
        let mut spec = setup.leaf("default.example");
        spec.names.push("fallback.example".to_owned());
        let issued = setup.authority.issue(&spec).expect("issued");
        let files = setup.write(&issued);
        let backend = echo.written();
        setup.site_of(&["default.example"], &files, &[backend], "ocsp = false");
        setup.listen = "default_site = \"default.example\"\n".to_owned();
        Self { setup, _echo: echo }
    }

    /// `openssl s_client` with or without a session of before; says what it saw.
    fn visit(&self, site: &str, version: &str, session: &[&str]) -> Said {
        let name = format!("{site}.example");
        let mut arguments = vec![version, "-status"];
        arguments.extend(session);
        let root = self.setup.root_path();
        openssl_client(self.setup.address, &name, &root, &arguments)
    }

    /// Keeps the session of a visit in a file.
    fn keep_session(&self, site: &str, version: &str) -> String {
        let path = self.setup.dir().join(format!("{site}{version}.session"));
        let file = path.display().to_string();
        // TLS 1.3 sends its tickets after the handshake: a client that leaves at once may miss them.
        eventually("a session to resume", PROMPT, || {
            self.visit(site, version, &["-sess_out", &file]);
            is_written(&path).then_some(())
        });
        file
    }

    fn revoke_all(&self, clinch: &Clinch) {
        self.setup.responder.says(Answer::Revoked);
        clinch.wait_for_count("clinch_certificates_by_staple", &["state=\"revoked\""], 3.0);
        // Every worker serves from the snapshot that says so.
        eventually("the workers follow", PROMPT, || {
            let metrics = clinch.metrics();
            let wanted = 2.0 * metrics.sum("clinch_snapshot_generation", &[]);
            (metrics.sum("clinch_worker_generation", &[]) >= wanted).then_some(())
        });
    }
}

fn is_written(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

#[test]
fn sessions_end_with_their_certificate_under_every_policy_and_in_both_versions() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let world = World::new();
    let short = Answer::GoodFor(Duration::from_secs(12));
    world.setup.responder.says(short);
    let clinch = world.setup.start();
    let mut kept = Vec::new();
    for site in SITES {
        for version in VERSIONS {
            let session = world.keep_session(site, version);
            let resumed = world.visit(site, version, &["-sess_in", &session]);
            resumed.has("Reused, TLS").lacks("New, TLS");
            kept.push((site, version, session));
        }
    }
    world.revoke_all(&clinch);
    for (site, version, session) in kept {
        let said = world.visit(site, version, &["-sess_in", &session]);
        said.lacks("Reused, TLS");
        match site {
            "refuse" => said.has("certificate revoked"),
            "unstapled" => said
                .has("subject=CN = unstapled.example")
                .has("OCSP response: no response sent"),
            _ => said.has("subject=CN = default.example"),
        };
        // A new session of the revoked certificate is not resumed either.
        if site == "unstapled" {
            let file = format!("{session}.later");
            world.visit(site, version, &["-sess_out", &file]);
            if is_written(Path::new(&file)) {
                let again = world.visit(site, version, &["-sess_in", &file]);
                again.lacks("Reused, TLS");
            }
        }
    }
    let failures = "clinch_handshake_failures_total";
    clinch.wait_for_count(failures, &["reason=\"revoked\""], 2.0);
    let staplings = "clinch_staplings_total";
    clinch.wait_for_count(staplings, &["result=\"revoked\""], 2.0);
    clinch.wait_for_log("ocsp_revoked");
    clinch.stop();
}

#[test]
fn a_restart_with_the_responder_down_knows_what_was_revoked() {
    let world = World::new();
    world.setup.responder.says(Answer::Revoked);
    let clinch = world.setup.start();
    world.revoke_all(&clinch);
    clinch.stop();

    world.setup.responder.set(Mode::Refused);
    let clinch = world.setup.start();
    let refused = world
        .setup
        .client()
        .connect(world.setup.address, "refuse.example");
    let error = refused.err().expect("a revoked certificate was served");
    assert!(error.to_string().contains("CertificateRevoked"), "{error}");
    let fallen_back = world.setup.connect("fallback.example");
    let subject = clinch::certificate::Leaf::parse(&fallen_back.chain[0]).expect("a certificate");
    assert!(subject.names.contains(&"default.example".to_owned()));
    let count = clinch.count("clinch_certificates_by_staple", &["state=\"revoked\""]);
    assert_eq!(count, 3.0);
    clinch.stop();
}

#[test]
fn a_site_goes_on_with_its_other_certificate() {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let first = setup.authority.issue(&setup.leaf("a.example"));
    let first = first.expect("issued");
    let second = setup.authority.issue(&setup.leaf("a.example"));
    let second = second.expect("issued");
    let (one, two) = (setup.write(&first), setup.write(&second));
    let certificates = format!(
        "certificates = [{{ cert = {:?}, key = {:?} }}, {{ cert = {:?}, key = {:?} }}]",
        one.cert, one.key, two.cert, two.key
    );
    setup.site_of_certificates(&["a.example"], &certificates, &[echo.written()]);
    // What the CA said of the first before the start lies in the cache.
    let request = clinch::ocsp::Request::new(&first.leaf, &first.issuer).expect("built");
    let revoked = Answer::Revoked.bytes(&setup.authority, &request.der);
    let fingerprint = clinch::certificate::Fingerprint::of(&first.leaf);
    let kept = setup.cache().join(format!("{fingerprint}.ocsp"));
    std::fs::write(kept, revoked).expect("in our own directory");
    setup.responder.set(Mode::Refused);
    let clinch = setup.start();
    let session = setup.connect("a.example");
    assert_eq!(session.chain[0], second.leaf);
    clinch.stop();
}
