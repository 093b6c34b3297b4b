//! Chains, keys and leaf facts, on certificates of the demo authority and keys that openssl wrote.

use std::process::Command;
use std::time::{Duration, SystemTime};

use clinch::certificate::{
    ChainNote, Class, Fingerprint, Identity, IdentityError, KeyKind, Leaf, ValidityError,
    certificates_from_pem,
};
use clinch::cli::demo::authority::{Authority, Issued, KeyAlgorithm, LeafSpec};
use clinch::clock;
use proptest::prelude::*;

#[test]
fn reads_the_facts_of_a_leaf() {
    let (authority, at) = authority();
    let spec = LeafSpec {
        names: vec!["WWW.Example.test".into(), "*.example.test".into()],
        must_staple: true,
        ocsp_urls: vec!["http://a.test/".into(), "ldap://b.test/".into()],
        crl_urls: vec!["http://c.test/crl".into()],
        validity: Some((at, at + DAY)),
        serial: Some(vec![0x01, 0x80]),
        ..LeafSpec::default()
    };
    let issued = authority.issue(&spec).expect("a leaf");
    let leaf = Leaf::parse(&issued.leaf).expect("a valid leaf");
    assert_eq!(leaf.names, ["www.example.test", "*.example.test"]);
    assert!(leaf.must_staple);
    assert_eq!(leaf.ocsp_urls, ["http://a.test/"]);
    assert_eq!(leaf.crl_urls, ["http://c.test/crl"]);
    assert_eq!((leaf.not_before, leaf.not_after), (at, at + DAY));
    assert_eq!(leaf.serial, [0x01, 0x80]);
    assert_eq!(leaf.subject, "WWW.Example.test");
    assert_eq!(leaf.issuer, "CN=Clinch Demo Intermediate");
    assert_eq!(leaf.key_kind, KeyKind::Ecdsa);
    assert_eq!(leaf.fingerprint, Fingerprint::of(&issued.leaf));
    assert!(!leaf.self_signed);
}

#[test]
fn a_certificate_without_the_tls_feature_is_not_must_staple() {
    let (authority, _) = authority();
    let issued = authority.issue(&named("a.test")).expect("a leaf");
    assert!(!Leaf::parse(&issued.leaf).expect("valid").must_staple);
}

#[test]
fn certificates_fall_into_four_classes() {
    let (authority, at) = authority();
    let class = |change: &dyn Fn(&mut LeafSpec)| {
        let mut spec = named("a.test");
        change(&mut spec);
        let issued = authority.issue(&spec).expect("a leaf");
        Leaf::parse(&issued.leaf).expect("valid").class()
    };
    let url = || vec!["http://ca.test/".to_owned()];
    let second = Duration::from_secs(1);
    assert_eq!(class(&|s| s.ocsp_urls = url()), Class::Ocsp);
    assert_eq!(class(&|s| s.crl_urls = url()), Class::CrlOnly);
    assert_eq!(class(&|_| ()), Class::None);
    let week = |s: &mut LeafSpec| s.validity = Some((at, at + DAY * 7 - second));
    assert_eq!(class(&week), Class::ShortLived);
    let over = |s: &mut LeafSpec| s.validity = Some((at, at + DAY * 7));
    assert_eq!(class(&over), Class::None);
    let before = clock::parse_rfc3339("2026-03-14T23:59:59Z").expect("valid");
    let ten = |s: &mut LeafSpec| s.validity = Some((before, before + DAY * 10 - second));
    assert_eq!(class(&ten), Class::ShortLived);
    let pointed = |s: &mut LeafSpec| {
        s.crl_urls = url();
        s.validity = Some((at, at + DAY));
    };
    assert_eq!(class(&pointed), Class::CrlOnly);
}

#[test]
fn a_leaf_is_valid_from_its_first_to_its_last_second() {
    let (authority, at) = authority();
    let mut spec = named("a.test");
    spec.validity = Some((at, at + DAY));
    let issued = authority.issue(&spec).expect("a leaf");
    let leaf = Leaf::parse(&issued.leaf).expect("valid");
    let second = Duration::from_secs(1);
    assert!(matches!(
        leaf.validity_at(at - second),
        Err(ValidityError::NotYetValid { .. })
    ));
    assert_eq!(leaf.validity_at(at), Ok(()));
    assert_eq!(leaf.validity_at(at + DAY), Ok(()));
    let expired = leaf.validity_at(at + DAY + second);
    assert!(matches!(expired, Err(ValidityError::Expired { .. })));
    let text = expired.expect_err("expired").to_string();
    assert!(text.contains("a.test expired at 2026-05-02"), "{text}");
}

#[test]
fn every_supported_key_matches_its_certificate() {
    let (authority, _) = authority();
    for (key, kind) in [
        (KeyAlgorithm::P256, KeyKind::Ecdsa),
        (KeyAlgorithm::P384, KeyKind::Ecdsa),
        (KeyAlgorithm::Rsa2048, KeyKind::Rsa),
        (KeyAlgorithm::Ed25519, KeyKind::Ed25519),
    ] {
        let mut spec = named("a.test");
        spec.key = key;
        let issued = authority.issue(&spec).expect("a leaf");
        let identity = read(&issued).expect("they belong together");
        assert_eq!(identity.leaf.key_kind, kind);
        assert_eq!(identity.issuer(), Some(&issued.issuer));
        assert_eq!(identity.note(), None);
    }
}

#[test]
fn keys_written_by_openssl_in_older_formats_are_read() {
    for key in [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048] {
        let issued = issue_with(key);
        let traditional = openssl_key(&issued.key_pem, &["-traditional"]);
        assert!(!traditional.contains("BEGIN PRIVATE KEY"), "{traditional}");
        Identity::from_pem(issued.chain_pem.as_bytes(), traditional.as_bytes()).expect("read");
    }
}

#[test]
fn an_encrypted_key_is_named_as_such_in_both_formats() {
    let issued = issue_with(KeyAlgorithm::Rsa2048);
    for extra in [&[][..], &["-traditional"][..]] {
        let mut arguments = vec!["-aes128", "-passout", "pass:secret"];
        arguments.extend(extra);
        let encrypted = openssl_key(&issued.key_pem, &arguments);
        let error = failure(&issued.chain_pem, &encrypted);
        assert!(matches!(error, IdentityError::EncryptedKey), "{error}");
        assert!(error.to_string().contains("openssl pkey"));
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (one, other) = (
        issue_with(KeyAlgorithm::P256),
        issue_with(KeyAlgorithm::P256),
    );
    let error = failure(&one.chain_pem, &other.key_pem);
    assert!(
        matches!(error, IdentityError::KeyMismatch { .. }),
        "{error}"
    );
}

#[test]
fn a_chain_in_the_wrong_order_is_told_the_right_one() {
    let (authority, _) = authority();
    let issued = authority.issue(&named("a.test")).expect("a leaf");
    let (root, intermediate) = (authority.root_pem(), authority.intermediate_pem());
    let leaf = issued.chain_pem.replace(&intermediate, "");
    let right = [
        "CN=a.test",
        "CN=Clinch Demo Intermediate",
        "CN=Clinch Demo Root",
    ];
    for wrong in [
        format!("{intermediate}{leaf}{root}"),
        format!("{leaf}{root}{intermediate}"),
        format!("{root}{intermediate}{leaf}"),
    ] {
        match failure(&wrong, &issued.key_pem) {
            IdentityError::WrongOrder { right: told } => assert_eq!(told, right),
            other => panic!("{other}"),
        }
    }
    let all = format!("{leaf}{intermediate}{root}");
    Identity::from_pem(all.as_bytes(), issued.key_pem.as_bytes()).expect("the right order");
}

#[test]
fn a_stranger_in_the_chain_and_a_certificate_twice_are_pointed_at() {
    let (authority, at) = authority();
    let issued = authority.issue(&named("a.test")).expect("a leaf");
    let leaf = issued.chain_pem.replace(&authority.intermediate_pem(), "");
    let stranger = format!("{leaf}{}", authority.root_pem());
    let error = failure(&stranger, &issued.key_pem);
    assert!(
        matches!(&error, IdentityError::Unrelated { position: 2, wanted, .. }
            if wanted == "CN=Clinch Demo Intermediate"),
        "{error}"
    );
    let twice = format!("{leaf}{}", issued.chain_pem);
    let error = failure(&twice, &issued.key_pem);
    assert!(
        matches!(
            error,
            IdentityError::Duplicate {
                first: 1,
                second: 2
            }
        ),
        "{error}"
    );
    let renewed = Authority::new(at).expect("another CA of the same name");
    let other = format!("{leaf}{}", renewed.intermediate_pem());
    let error = failure(&other, &issued.key_pem);
    assert!(
        matches!(error, IdentityError::NotSigned { position: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_leaf_alone_is_served_and_explained() {
    let (authority, _) = authority();
    let issued = authority.issue(&named("a.test")).expect("a leaf");
    let leaf = issued.chain_pem.replace(&authority.intermediate_pem(), "");
    let identity =
        Identity::from_pem(leaf.as_bytes(), issued.key_pem.as_bytes()).expect("it can be served");
    assert_eq!(identity.issuer(), None);
    let issuer = "CN=Clinch Demo Intermediate".to_owned();
    assert_eq!(identity.note(), Some(ChainNote::IssuerMissing { issuer }));
}

#[test]
fn a_self_signed_certificate_is_recognised() {
    let (authority, _) = authority();
    let issued = authority.self_signed(&named("a.test")).expect("made");
    let identity = read(&issued).expect("it can be served");
    assert!(identity.leaf.self_signed);
    assert_eq!(identity.note(), Some(ChainNote::SelfSigned));
}

#[test]
fn files_without_what_they_should_hold_say_what_is_wrong() {
    let issued = issue_with(KeyAlgorithm::P256);
    let (chain, key) = (&issued.chain_pem, &issued.key_pem);
    let text = failure("", key).to_string();
    assert!(text.contains("no certificate"), "{text}");
    let text = failure(chain, chain).to_string();
    assert!(text.contains("swapped"), "{text}");
    let text = failure(chain, "").to_string();
    assert!(text.contains("no private key"), "{text}");
    let text = failure(&chain[..chain.len() - 20], key).to_string();
    assert!(text.contains("no END line"), "{text}");
    let der = Identity::from_pem(&issued.leaf, key.as_bytes());
    let text = der.err().expect("refused").to_string();
    assert!(text.contains("-inform der"), "{text}");
}

proptest! {
    #[test]
    fn a_mutated_certificate_never_panics(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut der = SAMPLE.with(|issued| issued.leaf.to_vec());
        let position = at.index(der.len());
        der[position] = byte;
        let _ = Leaf::parse(&der);
        let _ = Leaf::parse(&der[..cut.index(der.len())]);
    }

    #[test]
    fn mutated_pem_files_never_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        in_key in any::<bool>(),
    ) {
        SAMPLE.with(|issued| {
            let mut chain = issued.chain_pem.clone().into_bytes();
            let mut key = issued.key_pem.clone().into_bytes();
            let changed = if in_key { &mut key } else { &mut chain };
            let position = at.index(changed.len());
            changed[position] = byte;
            let _ = Identity::from_pem(&chain, &key);
        });
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Leaf::parse(&bytes);
        let _ = certificates_from_pem(&bytes);
        let _ = Identity::from_pem(&bytes, &bytes);
    }
}

thread_local! {
    static SAMPLE: Issued = issue_with(KeyAlgorithm::P256);
}

const DAY: Duration = Duration::from_secs(86_400);

fn authority() -> (Authority, SystemTime) {
    let at = clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("valid");
    (Authority::new(at).expect("an authority"), at)
}

fn named(name: &str) -> LeafSpec {
    LeafSpec {
        names: vec![name.to_owned()],
        ..LeafSpec::default()
    }
}

fn issue_with(key: KeyAlgorithm) -> Issued {
    let (authority, _) = authority();
    let mut spec = named("a.test");
    spec.key = key;
    spec.ocsp_urls = vec!["http://ca.test/ocsp".into()];
    spec.must_staple = true;
    authority.issue(&spec).expect("a leaf")
}

fn read(issued: &Issued) -> Result<Identity, IdentityError> {
    Identity::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes())
}

fn failure(chain: &str, key: &str) -> IdentityError {
    match Identity::from_pem(chain.as_bytes(), key.as_bytes()) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error,
    }
}

/// The key as `openssl pkey` writes it with these arguments.
fn openssl_key(key: &str, arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key.pem");
    std::fs::write(&path, key).expect("written");
    let output = Command::new("openssl")
        .args(["pkey", "-in"])
        .arg(&path)
        .args(arguments)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("PEM is text")
}
