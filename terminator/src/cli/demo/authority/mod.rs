//! A certificate authority in memory: root, intermediate, OCSP responder, and the leaf certificates
//! and OCSP responses they sign. `clinch demo` and the tests stand on it.
//!
//! It does as it is told, wrong things included: responses for another serial, from signers without
//! the right to sign, out of date. It serves no HTTP and writes no file; the caller does both.

mod answer;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CrlDistributionPoint, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;

pub use answer::{
    AskedFor, HashAlgorithm, IssuerHash, OcspAnswer, Place, ResponderIdBy, Signer, Single, Status,
    Unsuccessful, unsuccessful,
};

/// Root, intermediate and responder with their keys.
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    /// Has the intermediate's name and another key, as a forger would.
    impostor: CertifiedIssuer<'static, KeyPair>,
    responder: Arc<Responder>,
    at: SystemTime,
}

/// A kind of key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256, signing with SHA-256.
    #[default]
    P256,
    /// ECDSA on P-384, signing with SHA-384.
    P384,
    /// ECDSA on P-521, signing with SHA-512.
    P521,
    /// RSA with 2048 bits, signing PKCS#1 with SHA-256.
    Rsa2048,
    /// Ed25519.
    Ed25519,
}

/// What a leaf certificate says.
#[derive(Clone, Debug, Default)]
pub struct LeafSpec {
    /// DNS names or IP addresses; the first is the common name too.
    pub names: Vec<String>,
    /// Kind of key.
    pub key: KeyAlgorithm,
    /// Adds the TLS feature extension with status_request (RFC 7633).
    pub must_staple: bool,
    /// OCSP responders in the authority information access extension.
    pub ocsp_urls: Vec<String>,
    /// CRL distribution points.
    pub crl_urls: Vec<String>,
    /// First and last instant; `None`: from a day before the authority's instant for 90 days.
    pub validity: Option<(SystemTime, SystemTime)>,
    /// Big-endian, positive; `None`: random.
    pub serial: Option<Vec<u8>>,
}

/// A leaf certificate with its key and chain.
pub struct Issued {
    /// Leaf, then intermediate.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: String,
    /// The leaf.
    pub leaf: CertificateDer<'static>,
    /// The intermediate.
    pub issuer: CertificateDer<'static>,
    /// Serial number of the leaf, big-endian.
    pub serial: Vec<u8>,
}

/// What the certificate of a delegated responder says.
#[derive(Clone, Debug)]
pub struct ResponderSpec {
    /// Has the extended key usage id-kp-OCSPSigning.
    pub ocsp_signing: bool,
    /// Is issued by the impostor instead of the intermediate.
    pub by_impostor: bool,
    /// Kind of key.
    pub key: KeyAlgorithm,
    /// First and last instant; `None`: from a day before the authority's instant for 30 days.
    pub validity: Option<(SystemTime, SystemTime)>,
}

impl Default for ResponderSpec {
    fn default() -> Self {
        Self {
            ocsp_signing: true,
            by_impostor: false,
            key: KeyAlgorithm::default(),
            validity: None,
        }
    }
}

/// A delegated OCSP responder.
pub struct Responder {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Responder {
    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

/// Why the authority could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key or certificate could not be made; the specification is at fault.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The request is not an OCSP request for one certificate.
    #[error("not an OCSP request for one certificate: {0}")]
    Request(String),
    /// A value of the answer cannot be encoded.
    #[error("cannot encode the OCSP response: {0}")]
    Encode(String),
}

impl Authority {
    /// Makes an authority with ECDSA keys whose certificates are valid from a day before `at`.
    pub fn new(at: SystemTime) -> Result<Self, AuthorityError> {
        Self::with_key(at, KeyAlgorithm::P256)
    }

    /// Makes an authority whose intermediate and responder have keys of a given kind.
    pub fn with_key(at: SystemTime, key: KeyAlgorithm) -> Result<Self, AuthorityError> {
        let root = CertifiedIssuer::self_signed(
            ca_params("Clinch Demo Root", at, YEAR * 10, None),
            KeyPair::generate()?,
        )?;
        let params = ca_params("Clinch Demo Intermediate", at, YEAR * 5, Some(0));
        let intermediate = CertifiedIssuer::signed_by(params.clone(), key.generate()?, &root)?;
        let impostor = CertifiedIssuer::self_signed(params, key.generate()?)?;
        let spec = ResponderSpec {
            key,
            ..ResponderSpec::default()
        };
        let responder = Arc::new(issue_responder(&intermediate, &spec, at)?);
        Ok(Self {
            root,
            intermediate,
            impostor,
            responder,
            at,
        })
    }

    /// The root as PEM, what clients trust.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The intermediate as PEM.
    pub fn intermediate_pem(&self) -> String {
        self.intermediate.pem()
    }

    /// The intermediate, which issues leaves and responders.
    pub fn intermediate(&self) -> &CertificateDer<'static> {
        self.intermediate.der()
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.root.der()
    }

    /// Issues a leaf certificate.
    pub fn issue(&self, spec: &LeafSpec) -> Result<Issued, AuthorityError> {
        let key = spec.key.generate()?;
        let serial = spec.serial.clone().unwrap_or_else(random_serial);
        let params = leaf_params(spec, &serial, self.at)?;
        let leaf = params.signed_by(&key, &self.intermediate)?;
        Ok(Issued {
            chain_pem: leaf.pem() + &self.intermediate.pem(),
            key_pem: key.serialize_pem(),
            leaf: leaf.into(),
            issuer: self.intermediate.der().clone(),
            serial,
        })
    }

    /// Makes a certificate that signs itself; its chain is the leaf alone, and so is its issuer.
    pub fn self_signed(&self, spec: &LeafSpec) -> Result<Issued, AuthorityError> {
        let key = spec.key.generate()?;
        let serial = spec.serial.clone().unwrap_or_else(random_serial);
        let leaf = leaf_params(spec, &serial, self.at)?.self_signed(&key)?;
        Ok(Issued {
            chain_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
            issuer: leaf.der().clone(),
            leaf: leaf.into(),
            serial,
        })
    }

    /// Issues a certificate to another delegated responder, for [`Signer::Delegated`].
    pub fn issue_responder(&self, spec: &ResponderSpec) -> Result<Arc<Responder>, AuthorityError> {
        let issuer = if spec.by_impostor {
            &self.impostor
        } else {
            &self.intermediate
        };
        issue_responder(issuer, spec, self.at).map(Arc::new)
    }
}

impl KeyAlgorithm {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        KeyPair::generate_for(match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
            Self::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        })
    }
}

fn issue_responder(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    spec: &ResponderSpec,
    at: SystemTime,
) -> Result<Responder, AuthorityError> {
    let key = spec.key.generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Clinch Demo OCSP Responder");
    (params.not_before, params.not_after) = validity(spec.validity, at, DAY * 30);
    params.serial_number = Some(SerialNumber::from(random_serial()));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![if spec.ocsp_signing {
        ExtendedKeyUsagePurpose::OcspSigning
    } else {
        ExtendedKeyUsagePurpose::ServerAuth
    }];
    // id-pkix-ocsp-nocheck (RFC 6960 section 4.2.2.2.1): nobody need ask about the responder.
    params.custom_extensions = vec![CustomExtension::from_oid_content(OCSP_NOCHECK, NULL.into())];
    let certificate = params.signed_by(&key, issuer)?.into();
    Ok(Responder { key, certificate })
}

fn ca_params(
    common_name: &str,
    at: SystemTime,
    lifetime: Duration,
    path_length: Option<u8>,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    (params.not_before, params.not_after) = validity(None, at, lifetime);
    params.serial_number = Some(SerialNumber::from(random_serial()));
    params.is_ca = IsCa::Ca(match path_length {
        Some(length) => BasicConstraints::Constrained(length),
        None => BasicConstraints::Unconstrained,
    });
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(
    spec: &LeafSpec,
    serial: &[u8],
    at: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(spec.names.clone())?;
    params.distinguished_name = name(spec.names.first().map_or("unnamed", String::as_str));
    (params.not_before, params.not_after) = validity(spec.validity, at, DAY * 90);
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if spec.must_staple {
        let extension = CustomExtension::from_oid_content(TLS_FEATURE, STATUS_REQUEST.into());
        params.custom_extensions.push(extension);
    }
    if !spec.ocsp_urls.is_empty() {
        let content = answer::access_description(&spec.ocsp_urls)?;
        let extension = CustomExtension::from_oid_content(AUTHORITY_INFORMATION_ACCESS, content);
        params.custom_extensions.push(extension);
    }
    if !spec.crl_urls.is_empty() {
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: spec.crl_urls.clone(),
        }];
    }
    Ok(params)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(
    given: Option<(SystemTime, SystemTime)>,
    at: SystemTime,
    lifetime: Duration,
) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let (from, to) = given.unwrap_or((at - DAY, at - DAY + lifetime));
    (from.into(), to.into())
}

/// Sixteen bytes, positive and without a leading zero, as RFC 5280 section 4.1.2.2 wants them.
fn random_serial() -> Vec<u8> {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial.to_vec()
}

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const OCSP_NOCHECK: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 5];
const NULL: [u8; 2] = [0x05, 0x00];
const TLS_FEATURE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
/// SEQUENCE of one INTEGER, 5: status_request.
const STATUS_REQUEST: [u8; 5] = [0x30, 0x03, 0x02, 0x01, 0x05];
const AUTHORITY_INFORMATION_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
