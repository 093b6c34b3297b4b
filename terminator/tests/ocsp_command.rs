//! `clinch ocsp verify` as a command, on responses that a real `openssl ocsp` responder signed for
//! requests that clinch built. What openssl cannot be made to sign comes from the demo authority.

use std::path::PathBuf;
use std::process::Command;

use clinch::certificate::certificates_from_pem;
use clinch::cli::demo::authority::{
    Authority, HashAlgorithm, Issued, LeafSpec, OcspAnswer, Status, Unsuccessful, unsuccessful,
};
use clinch::clock;
use clinch::ocsp::Request;

#[test]
fn openssl_understands_the_request_and_would_have_sent_the_same() {
    let pki = Pki::new("ec -pkeyopt ec_paramgen_curve:P-256");
    let request = pki.request("leaf");
    pki.openssl("ocsp -issuer ca.pem -cert leaf.pem -no_nonce -reqout theirs.der");
    assert_eq!(request, pki.read("theirs.der"));
}

#[test]
fn agrees_with_openssl_on_good_revoked_and_unknown() {
    for key in ["ec -pkeyopt ec_paramgen_curve:P-256", "rsa"] {
        let pki = Pki::new(key);
        for signer in ["ca", "responder"] {
            for (leaf, code, word) in [
                ("leaf", 0, "good"),
                ("revoked", 3, "keyCompromise"),
                ("unlisted", 4, "does not know"),
            ] {
                pki.respond(leaf, signer, "sha256");
                let (exit, text) = pki.verify(leaf, &[]);
                assert_eq!(exit, code, "{leaf} signed by {signer}: {text}");
                assert!(text.contains(word), "{text}");
            }
        }
    }
}

#[test]
fn refuses_a_sha1_signature_unless_allowed() {
    let pki = Pki::new("rsa");
    pki.respond("leaf", "responder", "sha1");
    let (exit, text) = pki.verify("leaf", &[]);
    assert_eq!(exit, 6, "{text}");
    assert!(text.contains("SHA-1"), "{text}");
    assert_eq!(pki.verify("leaf", &["--allow-sha1"]).0, 0);
}

#[test]
fn takes_a_pss_signature() {
    let pki = Pki::new("rsa");
    let pss = "-rsigopt rsa_padding_mode:pss -rsigopt rsa_pss_saltlen:digest";
    pki.respond("leaf", "responder", &format!("sha256 {pss}"));
    let (exit, text) = pki.verify("leaf", &[]);
    assert_eq!(exit, 0, "{text}");
}

#[test]
fn certificates_that_nobody_needs_beside_the_response_change_nothing() {
    let pki = Pki::new("ec -pkeyopt ec_paramgen_curve:P-256");
    let others = ["stranger", "ca", "unlisted"].map(|name| pki.read(&format!("{name}.pem")));
    pki.write("others.pem", &others.concat());
    pki.respond("leaf", "responder", "sha256 -rother others.pem");
    let (exit, text) = pki.verify("leaf", &[]);
    assert_eq!(exit, 0, "{text}");
    // Nor does the right one beside the response of a wrong signer.
    pki.write("others.pem", &pki.read("responder.pem"));
    pki.respond("leaf", "stranger", "sha256 -rother others.pem");
    assert_eq!(pki.verify("leaf", &[]).0, 6);
}

#[test]
fn refuses_a_signer_without_the_right_to_sign() {
    let pki = Pki::new("ec -pkeyopt ec_paramgen_curve:P-256");
    pki.respond("leaf", "leaf", "sha256");
    let (exit, text) = pki.verify("leaf", &[]);
    assert_eq!(exit, 6, "{text}");
    assert!(text.contains("OCSPSigning"), "{text}");
    pki.respond("leaf", "stranger", "sha256");
    assert_eq!(pki.verify("leaf", &[]).0, 6);
}

#[test]
fn judges_at_the_time_given_and_for_the_certificate_given() {
    let pki = Pki::new("ec -pkeyopt ec_paramgen_curve:P-256");
    pki.respond("leaf", "responder", "sha256");
    // By then the responder's certificate, too, is out of date; the response's own time counts first.
    let (exit, text) = pki.verify("leaf", &["--at", "2099-01-01T00:00:00Z"]);
    assert_eq!(exit, 5, "{text}");
    let (exit, text) = pki.verify("revoked", &[]);
    assert_eq!(exit, 8, "{text}");
    pki.respond("leaf", "ca", "sha256");
    let (exit, text) = pki.verify("leaf", &["--at", "2001-01-01T00:00:00Z"]);
    assert_eq!(exit, 5, "{text}");
}

#[test]
fn tells_every_kind_of_verdict_by_its_exit_code_and_in_json() {
    let at = clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("valid");
    let files = Files::new(at);
    let good = OcspAnswer::good(at);
    let sign = |change: &dyn Fn(&mut OcspAnswer)| {
        let mut answer = good.clone();
        change(&mut answer);
        let serial = &files.issued.serial;
        let signed = files
            .authority
            .respond_about(&answer, serial, HashAlgorithm::Sha1);
        signed.expect("signed")
    };
    let ageless = sign(&|a| a.next_update = None);
    let cases = [
        (sign(&|_| ()), &[][..], 0, "good"),
        (
            sign(&|a| a.status = Status::Revoked(at, None)),
            &[],
            3,
            "revoked",
        ),
        (sign(&|a| a.status = Status::Unknown), &[], 4, "unknown"),
        (sign(&|a| a.next_update = Some(at)), &[], 5, "wrong_time"),
        (ageless.clone(), &["--max-age", "2h"], 0, "good"),
        (ageless, &["--max-age", "30m"], 5, "wrong_time"),
        (
            sign(&|a| a.with_certificate = false),
            &[],
            6,
            "not_authorised",
        ),
        (unsuccessful(Unsuccessful::TryLater), &[], 7, "unusable"),
        (b"<html>".to_vec(), &[], 7, "unusable"),
        (sign(&|a| a.serial = Some(vec![1])), &[], 8, "no_answer"),
    ];
    for (response, extra, code, verdict) in cases {
        let (exit, text) = files.verify(&response, extra);
        assert_eq!(exit, code, "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["verdict"], verdict, "{text}");
        assert!(
            json["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
    }
}

#[test]
fn files_that_cannot_be_used_are_wrong_usage() {
    let at = clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("valid");
    let files = Files::new(at);
    for arguments in [
        "ocsp verify --cert missing.pem --issuer ca.pem --response response.der",
        "ocsp verify --cert ca.pem --response response.der",
        "ocsp verify --cert response.der --issuer ca.pem --response response.der",
        "ocsp verify --cert leaf.pem --response response.der --at yesterday",
        "ocsp verify --cert leaf.pem",
    ] {
        std::fs::write(files.path("response.der"), b"\x30\x00").expect("written");
        let (exit, text) = clinch(&files.directory, arguments);
        assert_eq!(exit, 2, "{arguments}: {text}");
    }
}

/// A leaf, its chain and a response of the demo authority as files.
struct Files {
    directory: tempfile::TempDir,
    authority: Authority,
    issued: Issued,
}

impl Files {
    fn new(at: std::time::SystemTime) -> Self {
        let authority = Authority::new(at).expect("an authority");
        let spec = LeafSpec {
            names: vec!["a.test".into()],
            ..LeafSpec::default()
        };
        let issued = authority.issue(&spec).expect("a leaf");
        let directory = tempfile::tempdir().expect("a directory");
        let files = Self {
            directory,
            authority,
            issued,
        };
        std::fs::write(files.path("leaf.pem"), &files.issued.chain_pem).expect("written");
        let issuer = files.authority.intermediate_pem();
        std::fs::write(files.path("ca.pem"), issuer).expect("written");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn verify(&self, response: &[u8], extra: &[&str]) -> (i32, String) {
        std::fs::write(self.path("response.der"), response).expect("written");
        let arguments = "ocsp verify --cert leaf.pem --response response.der --json \
                         --at 2026-05-01T12:00:00Z";
        clinch(&self.directory, &format!("{arguments} {}", extra.join(" ")))
    }
}

/// A CA that openssl made: certificates `leaf` and `revoked` in its index, `unlisted` not, a delegated
/// `responder`, and a `stranger` who is nobody's.
struct Pki {
    directory: tempfile::TempDir,
}

impl Pki {
    fn new(key: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Self { directory };
        let usage = "extendedKeyUsage=OCSPSigning\nnoCheck=ignored\n";
        pki.write("responder.cnf", usage.as_bytes());
        pki.write("plain.cnf", b"basicConstraints=CA:FALSE\n");
        for name in ["ca", "stranger", "leaf", "revoked", "unlisted", "responder"] {
            let kind = key.split(' ').next().expect("a word");
            let options = key.strip_prefix(kind).expect("its own start");
            pki.openssl(&format!(
                "genpkey -algorithm {kind}{options} -out {name}.key"
            ));
        }
        for ca in ["ca", "stranger"] {
            pki.openssl(&format!(
                "req -x509 -new -key {ca}.key -subj /CN={ca} -days 30 -out {ca}.pem"
            ));
        }
        let named = [
            ("leaf", 1),
            ("revoked", 2),
            ("unlisted", 3),
            ("responder", 4),
        ];
        for (name, serial) in named {
            let extensions = if name == "responder" {
                "responder"
            } else {
                "plain"
            };
            pki.openssl(&format!(
                "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
            ));
            pki.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial {serial} -days 20 \
                 -extfile {extensions}.cnf -out {name}.pem"
            ));
        }
        let index = "V\t490101000000Z\t\t01\tunknown\t/CN=leaf\n\
                     R\t490101000000Z\t250101000000Z,keyCompromise\t02\tunknown\t/CN=revoked\n";
        pki.write("index.txt", index.as_bytes());
        pki
    }

    /// Has openssl answer clinch's request about a leaf into `response.der`.
    fn respond(&self, leaf: &str, signer: &str, digest: &str) {
        self.write("request.der", &self.request(leaf));
        self.openssl(&format!(
            "ocsp -index index.txt -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key \
             -rmd {digest} -reqin request.der -respout response.der -ndays 7"
        ));
    }

    fn request(&self, leaf: &str) -> Vec<u8> {
        let read = |name: String| {
            certificates_from_pem(&self.read(&name))
                .expect("PEM")
                .remove(0)
        };
        let (leaf, issuer) = (read(format!("{leaf}.pem")), read("ca.pem".to_owned()));
        Request::new(&leaf, &issuer).expect("built").der
    }

    fn verify(&self, leaf: &str, extra: &[&str]) -> (i32, String) {
        let arguments = format!(
            "ocsp verify --cert {leaf}.pem --issuer ca.pem --response response.der {}",
            extra.join(" ")
        );
        clinch(&self.directory, &arguments)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.directory.path().join(name), bytes).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path().join(name)).expect("written before")
    }
}

/// Runs the real binary and returns its exit code and what it printed.
fn clinch(directory: &tempfile::TempDir, arguments: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_clinch"))
        .args(arguments.split_whitespace())
        .current_dir(directory.path())
        .output()
        .expect("the binary was built");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("no signal"), text)
}
