//! What a leaf certificate says, as far as clinch acts on it.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rasn::types::Integer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::oid_registry::{self, Oid};
use x509_parser::public_key::PublicKey;

use super::{Fingerprint, IdentityError, Signed, Tolerance};
use crate::clock;

/// The facts of a leaf certificate that clinch acts on.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Identity of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 over the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Subject for people: the CN, else the first name, else the fingerprint.
    pub subject: String,
    /// Issuer distinguished name for people.
    pub issuer: String,
    /// Serial number, big-endian DER content bytes.
    pub serial: Vec<u8>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// DNS names of the subjectAltName, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// Kind of the public key.
    pub key_kind: KeyKind,
    /// RFC 7633: the TLS feature extension asks for status_request.
    pub must_staple: bool,
    /// OCSP responders of the AIA extension (http and https), in order.
    pub ocsp_urls: Vec<String>,
    /// CRL distribution points (http and https), in order.
    pub crl_urls: Vec<String>,
    /// Subject equals issuer and the certificate signs itself.
    pub self_signed: bool,
}

/// What kind of key a certificate carries, as far as the choice between certificates cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256, P-384 or P-521.
    Ecdsa,
    /// RSA, 2048 bits or more.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// Where news about the certificate's revocation comes from. Only the first two have anything to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It names an OCSP responder.
    Ocsp,
    /// It names no OCSP responder, but a CRL.
    CrlOnly,
    /// It names neither, because it ends before a revocation would spread.
    ShortLived,
    /// It names neither.
    None,
}

/// The certificate is not valid at the instant in question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// Its time has not come.
    #[error(
        "the certificate for {subject} is valid only from {}, and it is {}: check the clock of this machine",
        clock::rfc3339(*.not_before), clock::rfc3339(*.at)
    )]
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// Start of validity.
        not_before: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
    /// Its time is over.
    #[error(
        "the certificate for {subject} expired at {}, and it is {}: renew it",
        clock::rfc3339(*.not_after), clock::rfc3339(*.at)
    )]
    Expired {
        /// Whose certificate.
        subject: String,
        /// End of validity.
        not_after: SystemTime,
        /// The instant in question.
        at: SystemTime,
    },
}

impl Leaf {
    /// Reads the facts of a leaf certificate from its DER.
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse_certificate(der)?;
        let fingerprint = Fingerprint::of(der);
        let names = dns_names(&certificate)?;
        let subject = certificate.subject().iter_common_name().next();
        let subject = subject.and_then(|name| name.as_str().ok()).map(printable);
        let subject = subject
            .filter(|subject| !subject.is_empty())
            .or_else(|| names.first().cloned())
            .unwrap_or_else(|| fingerprint.to_string());
        let validity = certificate.validity();
        let public_key = certificate.public_key().raw;
        Ok(Self {
            fingerprint,
            spki_sha256: sha256(public_key),
            subject,
            issuer: printable(&certificate.issuer().to_string()),
            serial: certificate.raw_serial().to_vec(),
            not_before: validity.not_before.to_datetime().into(),
            not_after: validity.not_after.to_datetime().into(),
            names,
            key_kind: key_kind(&certificate)?,
            must_staple: must_staple(&certificate)?,
            ocsp_urls: ocsp_urls(&certificate)?,
            crl_urls: crl_urls(&certificate)?,
            self_signed: certificate.subject().as_raw() == certificate.issuer().as_raw()
                && Signed::parse(der)
                    .is_ok_and(|signed| signed.verify(public_key, Tolerance::ALL).is_ok()),
        })
    }

    /// Where news about its revocation comes from.
    pub fn class(&self) -> Class {
        if !self.ocsp_urls.is_empty() {
            Class::Ocsp
        } else if !self.crl_urls.is_empty() {
            Class::CrlOnly
        } else if self.is_short_lived() {
            Class::ShortLived
        } else {
            Class::None
        }
    }

    /// Judges whether the certificate is valid at an instant; both ends belong to the validity.
    pub fn validity_at(&self, at: SystemTime) -> Result<(), ValidityError> {
        let subject = || self.subject.clone();
        if at < self.not_before {
            return Err(ValidityError::NotYetValid {
                subject: subject(),
                not_before: self.not_before,
                at,
            });
        }
        if at > self.not_after {
            return Err(ValidityError::Expired {
                subject: subject(),
                not_after: self.not_after,
                at,
            });
        }
        Ok(())
    }

    /// CA/Browser Forum Baseline Requirements, section 1.6.1, "Short-lived Subscriber Certificate":
    /// 10 days, and 7 days for those issued from 15 March 2026. The last second counts.
    fn is_short_lived(&self) -> bool {
        let lifetime = self.not_after.duration_since(self.not_before);
        let bound = if self.not_before < SystemTime::UNIX_EPOCH + SEVEN_DAYS_FROM {
            DAY * 10
        } else {
            DAY * 7
        };
        lifetime.is_ok_and(|lifetime| lifetime < bound)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ecdsa => "ECDSA",
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ocsp => "ocsp",
            Self::CrlOnly => "crl-only",
            Self::ShortLived => "short-lived",
            Self::None => "none",
        })
    }
}

/// Reads a certificate that fills `der` exactly.
pub(crate) fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(IdentityError::Malformed(format!(
            "{} bytes follow its end",
            rest.len()
        ))),
        Err(error) => Err(IdentityError::Malformed(error.to_string())),
    }
}

/// Whether the issuer really issued a certificate, given as DER and parsed: the name fits and the
/// signature holds. Its strength is the clients' business.
pub(crate) fn is_issued(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && Signed::parse(der).is_ok_and(|signed| {
            signed
                .verify(issuer.public_key().raw, Tolerance::ALL)
                .is_ok()
        })
}

/// The text without what would move a terminal's cursor or break a log line.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn key_kind(certificate: &X509Certificate<'_>) -> Result<KeyKind, IdentityError> {
    let key = certificate.public_key();
    let unsupported = |what: String| Err(IdentityError::UnsupportedKey(what));
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => {
            unsupported(format!("RSA with {} bits", rsa.key_size()))
        }
        Ok(PublicKey::RSA(_)) => Ok(KeyKind::Rsa),
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|any| any.as_oid().ok());
            let taken = [
                oid_registry::OID_EC_P256,
                oid_registry::OID_NIST_EC_P384,
                oid_registry::OID_NIST_EC_P521,
            ];
            match curve {
                Some(curve) if taken.contains(&curve) => Ok(KeyKind::Ecdsa),
                Some(curve) => unsupported(format!("ECDSA on the curve {curve}")),
                None => unsupported("ECDSA on an unnamed curve".to_owned()),
            }
        }
        _ if key.algorithm.algorithm == oid_registry::OID_SIG_ED25519 => Ok(KeyKind::Ed25519),
        _ => unsupported(format!("algorithm {}", key.algorithm.algorithm)),
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let mut names = Vec::new();
    for extension in extensions(certificate, &oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME) {
        let ParsedExtension::SubjectAlternativeName(value) = extension else {
            return Err(malformed("subjectAltName"));
        };
        names.extend(value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) if name.is_ascii() => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
    }
    Ok(names)
}

fn ocsp_urls(certificate: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let mut urls = Vec::new();
    for extension in extensions(certificate, &oid_registry::OID_PKIX_AUTHORITY_INFO_ACCESS) {
        let ParsedExtension::AuthorityInfoAccess(value) = extension else {
            return Err(malformed("authorityInfoAccess"));
        };
        let responders = value.accessdescs.iter();
        let responders = responders
            .filter(|access| access.access_method == oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP);
        urls.extend(responders.filter_map(|access| http_url(&access.access_location)));
    }
    Ok(urls)
}

fn crl_urls(certificate: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let mut urls = Vec::new();
    let oid = &oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
    for extension in extensions(certificate, oid) {
        let ParsedExtension::CRLDistributionPoints(value) = extension else {
            return Err(malformed("cRLDistributionPoints"));
        };
        for point in &value.points {
            if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                urls.extend(names.iter().filter_map(http_url));
            }
        }
    }
    Ok(urls)
}

/// RFC 7633 section 4.1: a sequence of TLS extension numbers, 5 is status_request.
fn must_staple(certificate: &X509Certificate<'_>) -> Result<bool, IdentityError> {
    let mut found = certificate.extensions().iter();
    let Some(extension) = found.find(|extension| extension.oid.as_bytes() == TLS_FEATURE) else {
        return Ok(false);
    };
    let features: Vec<Integer> =
        rasn::der::decode(extension.value).map_err(|_| malformed("TLS feature"))?;
    Ok(features.contains(&Integer::from(STATUS_REQUEST)))
}

fn extensions<'a>(
    certificate: &'a X509Certificate<'a>,
    oid: &'a Oid<'_>,
) -> impl Iterator<Item = &'a ParsedExtension<'a>> {
    let all = certificate.extensions().iter();
    all.filter(move |extension| extension.oid == *oid)
        .map(|extension| extension.parsed_extension())
}

fn http_url(name: &GeneralName<'_>) -> Option<String> {
    let GeneralName::URI(url) = name else {
        return None;
    };
    let (scheme, _) = url.split_once("://")?;
    let http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    http.then(|| printable(url))
}

fn malformed(extension: &str) -> IdentityError {
    IdentityError::Malformed(format!("its {extension} extension does not parse"))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

const DAY: Duration = Duration::from_secs(86_400);
/// 2026-03-15T00:00:00Z, from the Unix epoch.
const SEVEN_DAYS_FROM: Duration = Duration::from_secs(1_773_532_800);
/// 1.3.6.1.5.5.7.1.24, content bytes.
const TLS_FEATURE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18];
const STATUS_REQUEST: u8 = 5;
