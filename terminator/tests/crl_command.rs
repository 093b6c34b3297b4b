//! `clinch crl verify` as a command, on CRLs that a real `openssl ca` signed. What openssl cannot be
//! made to sign is in `crl_verify`.

use std::path::Path;
use std::process::{Command, Output};

use clinch::certificate::{SignatureError, SignedParts, Tolerance};
use tempfile::TempDir;

#[test]
fn agrees_with_openssl_on_listed_and_unlisted_certificates() {
    for key in [P256, RSA] {
        let pki = Pki::new(key);
        pki.list("-crldays 7");
        for (leaf, code, word, openssl) in [
            ("leaf", 0, "not_revoked", true),
            ("revoked", 3, "keyCompromise", false),
            ("held", 3, "certificateHold", false),
        ] {
            let (exit, text) = pki.verify(leaf, &[]);
            assert_eq!(exit, code, "{leaf}: {text}");
            assert!(text.contains(word), "{text}");
            let check = format!("verify -crl_check -CAfile ca.pem -CRLfile crl.pem {leaf}.pem");
            assert_eq!(pki.openssl(&check).status.success(), openssl, "{leaf}");
        }
    }
}

#[test]
fn takes_der_and_pem_and_finds_the_issuer_behind_the_leaf() {
    let pki = Pki::new(P256);
    pki.list("-crldays 7");
    pki.must("crl -in crl.pem -outform der -out crl.der");
    pki.must("x509 -in leaf.pem -outform der -out leaf.der");
    pki.must("x509 -in ca.pem -outform der -out ca.der");
    let chain = [pki.read("leaf.pem"), pki.read("ca.pem")].concat();
    pki.write("chain.pem", &chain);
    for arguments in [
        "--cert leaf.der --issuer ca.der --crl crl.der",
        "--cert chain.pem --crl crl.pem",
    ] {
        let (exit, text) = pki.clinch(&format!("crl verify {arguments}"));
        assert_eq!(exit, 0, "{arguments}: {text}");
        assert!(text.contains("2 entries"), "{text}");
        assert!(text.contains("number 0x1000"), "{text}");
    }
}

#[test]
fn takes_every_key_and_digest_that_openssl_signs_lists_with() {
    for (key, digests) in [
        (RSA, &["sha256", "sha384", "sha512"][..]),
        (
            RSA,
            &["sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"],
        ),
        (P256, &["sha256", "sha384", "sha512"]),
        ("ec -pkeyopt ec_paramgen_curve:P-384", &["sha384"]),
        ("ec -pkeyopt ec_paramgen_curve:P-521", &["sha512"]),
        ("ed25519", &["null"]),
    ] {
        let pki = Pki::new(key);
        for digest in digests {
            pki.list(&format!("-crldays 7 -md {digest}"));
            let (exit, text) = pki.verify("leaf", &[]);
            assert_eq!(exit, 0, "{key} {digest}: {text}");
        }
    }
}

#[test]
fn refuses_a_sha1_signature_unless_allowed() {
    for key in [P256, RSA] {
        let pki = Pki::new(key);
        pki.list("-crldays 7 -md sha1");
        let (exit, text) = pki.verify("leaf", &[]);
        assert_eq!(exit, 6, "{text}");
        assert!(text.contains("SHA-1"), "{text}");
        assert_eq!(pki.verify("leaf", &["--allow-sha1"]).0, 0);
        assert_eq!(pki.verify("revoked", &["--allow-sha1"]).0, 3);
    }
}

#[test]
fn takes_an_rsa_algorithm_with_its_null_left_out() {
    let pki = Pki::new(RSA);
    pki.list("-crldays 7 -md sha1");
    pki.must("crl -in crl.pem -outform der -out crl.der");
    pki.must("x509 -in ca.pem -noout -pubkey -out ca.pub");
    pki.must("pkey -pubin -in ca.pub -outform der -out ca.spki");
    let (crl, key) = (pki.read("crl.der"), pki.read("ca.spki"));
    // From the end: 256 bytes of signature behind the 5 of its BIT STRING, then
    // sha1WithRSAEncryption in 15; from the start the 4 of the outer SEQUENCE.
    let (rest, signature) = crl.split_at(crl.len() - 256);
    let (rest, whole) = rest[..rest.len() - 5].split_at(rest.len() - 20);
    let parts = |algorithm| SignedParts {
        tbs: &rest[4..],
        algorithm,
        signature,
    };
    let short = [&[0x30, 0x0b], &whole[2..13]].concat();
    for algorithm in [whole, &short] {
        let verify = |sha1| {
            let short_rsa = false;
            parts(algorithm).verify(&key, Tolerance { sha1, short_rsa })
        };
        verify(true).expect("valid");
        assert_eq!(verify(false), Err(SignatureError::Sha1));
    }
}

#[test]
fn takes_lists_of_a_ca_with_a_short_rsa_key() {
    let pki = Pki::new("rsa -pkeyopt rsa_keygen_bits:1024");
    for digest in ["sha256", "sha512"] {
        pki.list(&format!("-crldays 7 -md {digest}"));
        assert_eq!(pki.verify("leaf", &[]).0, 0);
        assert_eq!(pki.verify("revoked", &[]).0, 3);
    }
    pki.list("-crldays 7 -cert namesake.pem -keyfile namesake.key");
    assert_eq!(pki.verify("leaf", &[]).0, 6);
}

#[test]
fn finds_the_key_of_the_ca_that_signed_among_those_in_the_issuer_file() {
    let pki = Pki::new(P256);
    pki.list("-crldays 7 -cert namesake.pem -keyfile namesake.key");
    let names = ["ca.pem", "stranger.pem", "namesake.pem"];
    pki.write("all.pem", &names.map(|name| pki.read(name)).concat());
    let (exit, text) = pki.clinch("crl verify --cert leaf.pem --issuer all.pem --crl crl.pem");
    assert_eq!(exit, 0, "{text}");
}

#[test]
fn judges_at_the_time_given() {
    let pki = Pki::new(P256);
    pki.list("-crl_lastupdate 260501000000Z -crl_nextupdate 260508000000Z");
    for (arguments, code) in [
        (&["--at", "2026-05-02T00:00:00Z"][..], 0),
        (&["--at", "2026-05-07T23:59:59Z"], 0),
        (&["--at", "2026-05-08T00:00:00Z"], 5),
        (&["--at", "2026-04-30T00:00:00Z"], 5),
        (&["--at", "2026-05-03T00:00:00Z", "--max-age", "2days"], 5),
        (&["--at", "2026-05-02T23:59:59Z", "--max-age", "2days"], 0),
    ] {
        let (exit, text) = pki.verify("leaf", arguments);
        assert_eq!(exit, code, "{arguments:?}: {text}");
    }
}

#[test]
fn tells_every_kind_of_verdict_by_its_exit_code_and_in_json() {
    let pki = Pki::new(P256);
    let usual = "-crldays 7";
    for (leaf, how, code, verdict) in [
        ("leaf", usual, 0, "not_revoked"),
        ("revoked", usual, 3, "revoked"),
        (
            "leaf",
            "-crl_lastupdate 240501000000Z -crl_nextupdate 240508000000Z",
            5,
            "wrong_time",
        ),
        (
            "leaf",
            "-crldays 7 -cert stranger.pem -keyfile stranger.key",
            6,
            "not_authorised",
        ),
        (
            "leaf",
            "-crldays 7 -cert namesake.pem -keyfile namesake.key",
            6,
            "not_authorised",
        ),
        ("leaf", "-crldays 7 -crlexts only_ca", 8, "no_answer"),
        ("revoked", "-crldays 7 -crlexts elsewhere", 8, "no_answer"),
        ("leaf", "-crldays 7 -crlexts delta", 8, "no_answer"),
        ("leaf", "-crldays 7 -crlexts unknown", 6, "not_authorised"),
    ] {
        pki.list(how);
        pki.expect_json(leaf, code, verdict);
    }
    for garbage in [
        &b"<html>"[..],
        b"",
        b"\x30\x00",
        b"-----BEGIN X509 CRL-----\n",
    ] {
        pki.write("crl.pem", garbage);
        pki.expect_json("leaf", 7, "unusable");
    }
}

#[test]
fn files_that_cannot_be_used_are_wrong_usage() {
    let pki = Pki::new(P256);
    pki.list("-crldays 7");
    for arguments in [
        "crl verify --cert missing.pem --issuer ca.pem --crl crl.pem",
        "crl verify --cert leaf.pem --issuer ca.pem --crl missing.pem",
        "crl verify --cert leaf.pem --crl crl.pem",
        "crl verify --cert crl.pem --issuer ca.pem --crl crl.pem",
        "crl verify --cert leaf.pem --issuer ca.pem --crl crl.pem --at yesterday",
        "crl verify --cert leaf.pem --issuer ca.pem",
    ] {
        let (exit, text) = pki.clinch(arguments);
        assert_eq!(exit, 2, "{arguments}: {text}");
    }
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "rsa";

/// A CA that openssl made: certificates `leaf`, and `revoked` and `held` in its index; a `stranger`
/// who is nobody's, and a `namesake` with the CA's name and another key.
struct Pki {
    directory: TempDir,
}

impl Pki {
    fn new(key: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Self { directory };
        pki.write("ca.cnf", CONFIG.as_bytes());
        pki.write("plain.cnf", b"basicConstraints=CA:FALSE\n");
        pki.write("crlnumber", b"1000\n");
        for (name, subject) in [("ca", "ca"), ("stranger", "stranger"), ("namesake", "ca")] {
            pki.must(&format!("genpkey -algorithm {key} -out {name}.key"));
            pki.must(&format!(
                "req -x509 -new -key {name}.key -subj /CN={subject} -days 30 -out {name}.pem"
            ));
        }
        pki.must(&format!("genpkey -algorithm {P256} -out leaf.key"));
        for (name, serial) in [("leaf", 1), ("revoked", 2), ("held", 3)] {
            pki.must(&format!(
                "req -new -key leaf.key -subj /CN={name} -out {name}.csr"
            ));
            pki.must(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial {serial} -days 20 \
                 -extfile plain.cnf -out {name}.pem"
            ));
        }
        let index = "V\t490101000000Z\t\t01\tunknown\t/CN=leaf\n\
                     R\t490101000000Z\t250101000000Z,keyCompromise\t02\tunknown\t/CN=revoked\n\
                     R\t490101000000Z\t250101000000Z,certificateHold\t03\tunknown\t/CN=held\n";
        pki.write("index.txt", index.as_bytes());
        pki
    }

    /// Has openssl sign a list into `crl.pem`.
    fn list(&self, how: &str) {
        self.must(&format!("ca -config ca.cnf -gencrl -out crl.pem {how}"));
    }

    fn verify(&self, leaf: &str, extra: &[&str]) -> (i32, String) {
        self.clinch(&format!(
            "crl verify --cert {leaf}.pem --issuer ca.pem --crl crl.pem {}",
            extra.join(" ")
        ))
    }

    fn expect_json(&self, leaf: &str, code: i32, verdict: &str) {
        let (exit, text) = self.verify(leaf, &["--json"]);
        assert_eq!(exit, code, "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["verdict"], verdict, "{text}");
        let reason = json["reason"].as_str().expect("a sentence");
        assert!(!reason.is_empty());
    }

    fn clinch(&self, arguments: &str) -> (i32, String) {
        let output = self.run(Path::new(env!("CARGO_BIN_EXE_clinch")), arguments);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code().expect("no signal"), text)
    }

    fn must(&self, arguments: &str) {
        let output = self.openssl(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
    }

    fn openssl(&self, arguments: &str) -> Output {
        self.run(Path::new("openssl"), arguments)
    }

    fn run(&self, program: &Path, arguments: &str) -> Output {
        Command::new(program)
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("openssl is installed, and the binary was built")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.directory.path().join(name), bytes).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path().join(name)).expect("written before")
    }
}

const CONFIG: &str = "\
[ca]
default_ca = here
[here]
database = index.txt
crlnumber = crlnumber
certificate = ca.pem
private_key = ca.key
default_md = default
[only_ca]
issuingDistributionPoint = critical, onlyCA:TRUE
[elsewhere]
issuingDistributionPoint = critical, fullname:URI:http://elsewhere.test/crl
[delta]
2.5.29.27 = critical, DER:02:01:01
[unknown]
1.2.3 = critical, DER:05:00
";
