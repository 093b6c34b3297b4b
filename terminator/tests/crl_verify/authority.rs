//! A CA for tests that signs any list it is told to, wrong ones included. It writes the DER itself,
//! because no library makes lists that break the rules.

use std::slice::from_ref;
use std::time::{Duration, SystemTime};

use clinch::certificate::Fingerprint;
use clinch::clock;
use clinch::crl::{NotRevoked, Policy, Refusal, verify};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber, SigningKey as _,
};
use rustls_pki_types::CertificateDer;

/// A CA with one leaf certificate.
pub(crate) struct Ca {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) leaf: CertificateDer<'static>,
}

/// What a CertificateList says. The parts are DER, so that they can be wrong.
#[derive(Clone)]
pub(crate) struct List {
    /// Content of the version; none for version 1.
    pub(crate) version: Option<u8>,
    /// AlgorithmIdentifier inside the signed part.
    pub(crate) algorithm: Vec<u8>,
    /// The issuer's common name.
    pub(crate) issuer: &'static str,
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: Option<SystemTime>,
    /// None: revokedCertificates is left out.
    pub(crate) entries: Option<Vec<Vec<u8>>>,
    pub(crate) extensions: Vec<Vec<u8>>,
    /// After the last field of the signed part.
    pub(crate) rest: Vec<u8>,
}

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Serial number of [`Ca::leaf`].
pub(crate) const SERIAL: &[u8] = &[0x4a, 0x01];
/// Distribution point of [`Ca::leaf`].
pub(crate) const POINT: &str = "http://crl.test/1.crl";

pub(crate) fn now() -> SystemTime {
    clock::parse_rfc3339("2026-05-01T12:00:00Z").expect("valid")
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign])
    }

    /// A CA whose own certificate is changed before it is made.
    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = named("ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA");
        let points = sequence(&[&point(&full_name(&[uri(POINT)]))]);
        let leaf = issue(&issuer, |params| {
            params.custom_extensions = vec![distribution_points(points)];
        });
        Self { issuer, leaf }
    }

    /// Another certificate with the leaf's serial number.
    pub(crate) fn issue(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        issue(&self.issuer, change)
    }

    pub(crate) fn sign(&self, list: &List) -> Vec<u8> {
        let tbs = list.encode();
        let signature = self.issuer.key().sign(&tbs).expect("signed");
        let bits = tlv(0x03, &[&[0], &signature]);
        sequence(&[&tbs, &ECDSA_SHA256, &bits])
    }

    pub(crate) fn judge(&self, crl: &[u8]) -> Result<NotRevoked, Refusal> {
        self.judge_by(crl, &Policy::default(), now())
    }

    pub(crate) fn judge_by(
        &self,
        crl: &[u8],
        policy: &Policy,
        at: SystemTime,
    ) -> Result<NotRevoked, Refusal> {
        verify(crl, &self.leaf, from_ref(self.issuer.der()), policy, at)
    }

    /// The verdict on a list that would pass but for a change.
    pub(crate) fn verdict(&self, change: impl FnOnce(&mut List)) -> Result<NotRevoked, Refusal> {
        let mut list = List::new();
        change(&mut list);
        let verdict = self.judge(&self.sign(&list));
        if let Ok(proof) = &verdict {
            assert_eq!(proof.certificate(), Fingerprint::of(&self.leaf));
        }
        verdict
    }

    pub(crate) fn refusal(&self, change: impl FnOnce(&mut List)) -> Refusal {
        self.verdict(change).expect_err("it must be refused")
    }
}

impl List {
    /// A list with one entry, for another certificate, and the number 7.
    pub(crate) fn new() -> Self {
        Self {
            version: Some(1),
            algorithm: ECDSA_SHA256.to_vec(),
            issuer: "ca",
            this_update: now() - DAY,
            next_update: Some(now() + DAY),
            entries: Some(vec![entry(&[0x55], &[])]),
            extensions: vec![number(7)],
            rest: Vec::new(),
        }
    }

    /// Adds the leaf with what its entry says besides.
    pub(crate) fn revoke(&mut self, extensions: &[Vec<u8>]) {
        let entry = entry(SERIAL, extensions);
        self.entries.get_or_insert_default().push(entry);
    }

    /// Adds an issuing distribution point with these fields.
    pub(crate) fn scope(&mut self, fields: &[Vec<u8>]) {
        let value = sequence(&refs(fields));
        self.extensions
            .push(extension(&[0x55, 0x1d, 0x1c], true, &value));
    }

    /// The signed part.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let version = self.version.map(|version| tlv(0x02, &[&[version]]));
        let next_update = self.next_update.map(time);
        let entries = self.entries.as_ref().map(|all| sequence(&refs(all)));
        let extensions =
            (!self.extensions.is_empty()).then(|| tlv(0xa0, &[&sequence(&refs(&self.extensions))]));
        sequence(&[
            &version.unwrap_or_default(),
            &self.algorithm,
            &name(self.issuer),
            &time(self.this_update),
            &next_update.unwrap_or_default(),
            &entries.unwrap_or_default(),
            &extensions.unwrap_or_default(),
            &self.rest,
        ])
    }
}

/// An entry with the revocation date 2026-04-30.
pub(crate) fn entry(serial: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = match extensions {
        [] => Vec::new(),
        all => sequence(&refs(all)),
    };
    sequence(&[&tlv(0x02, &[serial]), &time(now() - DAY), &extensions])
}

/// The entry extension reasonCode.
pub(crate) fn reason(code: u8) -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x15], false, &tlv(0x0a, &[&[code]]))
}

/// The extension cRLNumber.
pub(crate) fn number(number: u8) -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x14], false, &tlv(0x02, &[&[number]]))
}

pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = match critical {
        true => tlv(0x01, &[&[0xff]]),
        false => Vec::new(),
    };
    sequence(&[&tlv(0x06, &[id]), &critical, &tlv(0x04, &[value])])
}

/// The certificate extension cRLDistributionPoints.
pub(crate) fn distribution_points(points: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 31], points)
}

/// A DistributionPoint, or the first field of an issuing one, around a name.
pub(crate) fn point(name: &[u8]) -> Vec<u8> {
    sequence(&[&tlv(0xa0, &[name])])
}

pub(crate) fn full_name(names: &[Vec<u8>]) -> Vec<u8> {
    tlv(0xa0, &refs(names))
}

/// One step below the issuer's name.
pub(crate) fn relative_name(common_name: &str) -> Vec<u8> {
    tlv(0xa1, &[&attribute(common_name)])
}

pub(crate) fn uri(uri: &str) -> Vec<u8> {
    tlv(0x86, &[uri.as_bytes()])
}

pub(crate) fn directory(name: &[u8]) -> Vec<u8> {
    tlv(0xa4, &[name])
}

/// A Name of common names.
pub(crate) fn name_of(common_names: &[&str]) -> Vec<u8> {
    let steps: Vec<Vec<u8>> = common_names
        .iter()
        .map(|name| tlv(0x31, &[&attribute(name)]))
        .collect();
    sequence(&refs(&steps))
}

pub(crate) fn name(common_name: &str) -> Vec<u8> {
    name_of(&[common_name])
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let start = length.iter().position(|byte| *byte != 0);
    let length = &length[start.unwrap_or(length.len() - 1)..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | u8::try_from(length.len()).expect("at most eight"));
    }
    der.extend_from_slice(length);
    der.extend_from_slice(&content);
    der
}

fn issue(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let mut params = named("leaf");
    params.serial_number = Some(SerialNumber::from(SERIAL.to_vec()));
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, issuer).expect("a leaf").into()
}

/// What a certificate with this subject begins with.
pub(crate) fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn attribute(common_name: &str) -> Vec<u8> {
    let id = tlv(0x06, &[&[0x55, 0x04, 0x03]]);
    sequence(&[&id, &tlv(0x0c, &[common_name.as_bytes()])])
}

/// A UTCTime.
fn time(at: SystemTime) -> Vec<u8> {
    let digits = |c: &char| c.is_ascii_digit();
    let text: String = clock::rfc3339(at).chars().filter(digits).collect();
    tlv(0x17, &[&text.as_bytes()[2..], b"Z"])
}

fn refs(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

/// AlgorithmIdentifier of ECDSA with SHA-256.
pub(crate) const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
