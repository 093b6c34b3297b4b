//! The demo authority's certificates and responses, judged by `openssl`, which shares no code with it.

use std::path::Path;
use std::process::Command;

use clinch::cli::demo::authority::{
    Authority, HashAlgorithm, KeyAlgorithm, LeafSpec, OcspAnswer, Signer, Status,
};
use clinch::clock;

#[test]
fn openssl_verifies_the_chain_and_sees_the_extensions() {
    for key in [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048] {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new(clock::now()).expect("an authority");
        let issued = authority.issue(&leaf(key)).expect("a leaf");
        std::fs::write(directory.path().join("root.pem"), authority.root_pem()).expect("written");
        std::fs::write(directory.path().join("chain.pem"), &issued.chain_pem).expect("written");
        let verify = "verify -CAfile root.pem -untrusted chain.pem chain.pem";
        let (good, text) = openssl(directory.path(), verify);
        assert!(good, "{text}");
        let (_, text) = openssl(directory.path(), "x509 -in chain.pem -noout -text");
        for expected in [
            "status_request",
            "OCSP - URI:http://127.0.0.1:1/ocsp",
            "DNS:*.example.test",
            "URI:http://127.0.0.1:1/crl",
        ] {
            assert!(text.contains(expected), "no {expected:?} in {text}");
        }
    }
}

#[test]
fn openssl_verifies_a_response_of_every_kind_of_key_and_signer() {
    let at = clock::now();
    for key in [
        KeyAlgorithm::P256,
        KeyAlgorithm::P384,
        KeyAlgorithm::Rsa2048,
    ] {
        let authority = Authority::with_key(at, key).expect("an authority");
        let issued = authority.issue(&leaf(key)).expect("a leaf");
        for (signer, hash, status) in [
            (Signer::Issuer, HashAlgorithm::Sha1, Status::Good),
            (Signer::Responder, HashAlgorithm::Sha1, Status::Good),
            (Signer::Responder, HashAlgorithm::Sha256, Status::Good),
            (
                Signer::Responder,
                HashAlgorithm::Sha1,
                Status::Revoked(at, None),
            ),
            (Signer::Issuer, HashAlgorithm::Sha256, Status::Unknown),
        ] {
            let answer = OcspAnswer {
                signer,
                status,
                ..OcspAnswer::good(at)
            };
            let response = authority.respond_about(&answer, &issued.serial, hash);
            let response = response.expect("a response");
            assert_openssl_agrees(&authority, &issued.chain_pem, &response, status, hash);
        }
    }
}

fn assert_openssl_agrees(
    authority: &Authority,
    chain: &str,
    response: &[u8],
    status: Status,
    hash: HashAlgorithm,
) {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).expect("written");
    };
    write("root.pem", authority.root_pem().as_bytes());
    write("issuer.pem", authority.intermediate_pem().as_bytes());
    write("leaf.pem", chain.as_bytes());
    write("response.der", response);
    let digest = match hash {
        HashAlgorithm::Sha1 => "-sha1",
        HashAlgorithm::Sha256 => "-sha256",
    };
    let command = format!(
        "ocsp {digest} -issuer issuer.pem -cert leaf.pem -respin response.der \
         -CAfile root.pem -verify_other issuer.pem -no_nonce"
    );
    let (_, text) = openssl(directory.path(), &command);
    let said = match status {
        Status::Good => "leaf.pem: good",
        Status::Revoked(..) => "leaf.pem: revoked",
        Status::Unknown => "leaf.pem: unknown",
    };
    assert!(text.contains("Response verify OK"), "{text}");
    assert!(text.contains(said), "{text}");
}

fn leaf(key: KeyAlgorithm) -> LeafSpec {
    LeafSpec {
        names: vec!["www.example.test".into(), "*.example.test".into()],
        key,
        must_staple: true,
        ocsp_urls: vec!["http://127.0.0.1:1/ocsp".into()],
        crl_urls: vec!["http://127.0.0.1:1/crl".into()],
        ..LeafSpec::default()
    }
}

/// Runs openssl in a directory and returns whether it succeeded and what it printed on both streams.
fn openssl(directory: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}
