//! OCSP from the authority's side: requests read, responses put together and signed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rasn::types::{Any, BitString, GeneralizedTime, Integer, ObjectIdentifier, OctetString, Oid};
use rasn_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus,
    ResponderId, ResponseBytes, ResponseData, RevokedInfo, SingleResponse,
};
use rasn_pkix::{
    AccessDescription, AlgorithmIdentifier, Certificate, CrlReason, Extension, Extensions,
    GeneralName,
};
use rcgen::SigningKey as _;
use rustls_pki_types::CertificateDer;

use super::{Authority, AuthorityError, Responder};
use crate::clock;

/// What an OCSP request asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedFor {
    /// Serial number, big-endian content bytes of the INTEGER.
    pub serial: Vec<u8>,
    /// The algorithm that the CertID was made with.
    pub hash: HashAlgorithm,
    /// The CertID names this authority's intermediate as the issuer.
    pub our_issuer: bool,
    /// Value of the nonce extension (RFC 9654), DER.
    pub nonce: Option<Vec<u8>>,
}

/// Digest of a CertID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// What RFC 9919 prescribes for requests.
    Sha1,
    /// Seen from newer responders.
    Sha256,
}

/// A response to be signed. [`OcspAnswer::good`] is right in every way; change a field to go wrong.
#[derive(Clone)]
pub struct OcspAnswer {
    /// Status of the certificate asked about.
    pub status: Status,
    /// When the status was known to be right.
    pub this_update: SystemTime,
    /// When newer information will be there.
    pub next_update: Option<SystemTime>,
    /// When the response was signed.
    pub produced_at: SystemTime,
    /// Who signs.
    pub signer: Signer,
    /// How the signer is named.
    pub responder_id: ResponderIdBy,
    /// Includes the certificate of a delegated signer, which has to be there.
    pub with_certificate: bool,
    /// Digest of the CertID; `None`: the one of the request.
    pub hash: Option<HashAlgorithm>,
    /// Serial number answered for; `None`: the one of the request.
    pub serial: Option<Vec<u8>>,
    /// Spoils this part of the CertID.
    pub wrong_hash: Option<IssuerHash>,
    /// Single responses put before the one asked for.
    pub before: Vec<Single>,
    /// Puts an unknown critical extension into the response.
    pub critical_extension: Option<Place>,
    /// Value of a nonce extension in the response, DER.
    pub nonce: Option<Vec<u8>>,
}

/// A part of a CertID that names the issuer (RFC 6960 section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerHash {
    /// issuerNameHash.
    Name,
    /// issuerKeyHash.
    Key,
}

/// A further single response.
#[derive(Clone, Debug)]
pub struct Single {
    /// Serial number; `None`: the same as the main one.
    pub serial: Option<Vec<u8>>,
    /// Its status.
    pub status: Status,
}

/// Status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not revoked.
    Good,
    /// Revoked at an instant, with a CRLReason code if one is given.
    Revoked(SystemTime, Option<CrlReason>),
    /// The responder knows nothing of it.
    Unknown,
}

/// Who signs a response.
#[derive(Clone)]
pub enum Signer {
    /// The intermediate itself.
    Issuer,
    /// The authority's delegated responder.
    Responder,
    /// Another delegated responder, see [`Authority::issue_responder`].
    Delegated(Arc<Responder>),
    /// A key that is not the intermediate's, under the intermediate's name.
    Impostor,
}

/// How the signer is named in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponderIdBy {
    /// Subject name.
    Name,
    /// SHA-1 of the public key.
    Key,
}

/// Where an extension goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// responseExtensions.
    Response,
    /// singleExtensions of the main single response.
    Single,
}

/// Response statuses without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuccessful {
    /// The request did not parse.
    MalformedRequest,
    /// The responder is broken.
    InternalError,
    /// The responder is busy.
    TryLater,
    /// The request must be signed.
    SigRequired,
    /// The responder does not answer for this certificate.
    Unauthorized,
}

impl OcspAnswer {
    /// *Good*, from an hour before `at` for a week, by the delegated responder.
    pub fn good(at: SystemTime) -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            status: Status::Good,
            this_update: at - hour,
            next_update: Some(at + hour * 24 * 7),
            produced_at: at - hour,
            signer: Signer::Responder,
            responder_id: ResponderIdBy::Key,
            with_certificate: true,
            hash: None,
            serial: None,
            wrong_hash: None,
            before: Vec::new(),
            critical_extension: None,
            nonce: None,
        }
    }
}

impl OcspAnswer {
    fn response_extensions(&self) -> Option<Extensions> {
        if self.critical_extension == Some(Place::Response) {
            return Some(unknown_critical_extension());
        }
        let nonce = self.nonce.as_ref()?;
        Some(Extensions::from(vec![Extension {
            extn_id: oid(NONCE),
            critical: false,
            extn_value: OctetString::from(nonce.clone()),
        }]))
    }
}

/// The DER of a response that says only why there is none.
pub fn unsuccessful(status: Unsuccessful) -> Vec<u8> {
    let status = match status {
        Unsuccessful::MalformedRequest => OcspResponseStatus::MalformedRequest,
        Unsuccessful::InternalError => OcspResponseStatus::InternalError,
        Unsuccessful::TryLater => OcspResponseStatus::TryLater,
        Unsuccessful::SigRequired => OcspResponseStatus::SigRequired,
        Unsuccessful::Unauthorized => OcspResponseStatus::Unauthorized,
    };
    rasn::der::encode(&OcspResponse {
        status,
        bytes: None,
    })
    .expect("an enumerated value always encodes")
}

impl Authority {
    /// Reads the DER of an OCSP request that asks about one certificate.
    pub fn asked_for(&self, request: &[u8]) -> Result<AskedFor, AuthorityError> {
        let bad = |why: &dyn std::fmt::Display| AuthorityError::Request(why.to_string());
        let request: OcspRequest = rasn::der::decode(request).map_err(|e| bad(&e))?;
        let [asked] = request.tbs_request.request_list.as_slice() else {
            return Err(bad(&"it does not ask about exactly one certificate"));
        };
        let id = &asked.req_cert;
        let hash = HashAlgorithm::ALL
            .into_iter()
            .find(|hash| hash.oid() == id.hash_algorithm.algorithm)
            .ok_or_else(|| bad(&"its hash algorithm is neither SHA-1 nor SHA-256"))?;
        let ours = cert_id(self.intermediate(), hash, id.serial_number.clone())?;
        let extensions = request.tbs_request.request_extensions.iter();
        let nonce = extensions
            .flat_map(|all| all.iter())
            .find(|extension| extension.extn_id == oid(NONCE))
            .map(|extension| extension.extn_value.to_vec());
        Ok(AskedFor {
            nonce,
            serial: integer_content(&id.serial_number)?,
            hash,
            our_issuer: ours == *id,
        })
    }

    /// Signs an answer to a request.
    pub fn respond(&self, answer: &OcspAnswer, request: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let asked = self.asked_for(request)?;
        self.respond_about(answer, &asked.serial, asked.hash)
    }

    /// Signs an answer about a serial number that nobody asked for.
    pub fn respond_about(
        &self,
        answer: &OcspAnswer,
        serial: &[u8],
        hash: HashAlgorithm,
    ) -> Result<Vec<u8>, AuthorityError> {
        let hash = answer.hash.unwrap_or(hash);
        let main = answer.serial.as_deref().unwrap_or(serial);
        let mut responses = Vec::with_capacity(answer.before.len() + 1);
        for other in &answer.before {
            let serial = other.serial.as_deref().unwrap_or(main);
            responses.push(self.single(answer, other.status, serial, hash)?);
        }
        let mut single = self.single(answer, answer.status, main, hash)?;
        if answer.critical_extension == Some(Place::Single) {
            single.single_extensions = Some(unknown_critical_extension());
        }
        responses.push(single);
        let (key, certificate) = self.signer(&answer.signer);
        let data = ResponseData {
            version: Integer::ZERO,
            responder_id: responder_id(certificate, answer.responder_id)?,
            produced_at: generalized_time(answer.produced_at)?,
            responses,
            response_extensions: answer.response_extensions(),
        };
        let delegated = matches!(answer.signer, Signer::Responder | Signer::Delegated(_));
        let certs = (delegated && answer.with_certificate)
            .then(|| certificate_of(certificate))
            .transpose()?;
        seal(data, key, certs)
    }

    fn single(
        &self,
        answer: &OcspAnswer,
        status: Status,
        serial: &[u8],
        hash: HashAlgorithm,
    ) -> Result<SingleResponse, AuthorityError> {
        let mut cert_id = cert_id(self.intermediate(), hash, integer(serial)?)?;
        match answer.wrong_hash {
            None => {}
            Some(IssuerHash::Name) => cert_id.issuer_name_hash = hash.digest(b"another issuer"),
            Some(IssuerHash::Key) => cert_id.issuer_key_hash = hash.digest(b"another key"),
        }
        Ok(SingleResponse {
            cert_id,
            cert_status: status.encode()?,
            this_update: generalized_time(answer.this_update)?,
            next_update: answer.next_update.map(generalized_time).transpose()?,
            single_extensions: None,
        })
    }

    fn signer<'a>(
        &'a self,
        signer: &'a Signer,
    ) -> (&'a rcgen::KeyPair, &'a CertificateDer<'static>) {
        match signer {
            Signer::Issuer => (self.intermediate.key(), self.intermediate.der()),
            Signer::Responder => (&self.responder.key, &self.responder.certificate),
            Signer::Delegated(other) => (&other.key, &other.certificate),
            Signer::Impostor => (self.impostor.key(), self.impostor.der()),
        }
    }
}

impl Status {
    fn encode(self) -> Result<CertStatus, AuthorityError> {
        Ok(match self {
            Self::Good => CertStatus::Good,
            Self::Revoked(at, reason) => CertStatus::Revoked(RevokedInfo {
                revocation_time: generalized_time(at)?,
                revocation_reason: reason,
            }),
            Self::Unknown => CertStatus::Unknown(()),
        })
    }
}

impl HashAlgorithm {
    const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    fn oid(self) -> ObjectIdentifier {
        oid(match self {
            Self::Sha1 => &[1, 3, 14, 3, 2, 26],
            Self::Sha256 => &[2, 16, 840, 1, 101, 3, 4, 2, 1],
        })
    }

    fn digest(self, bytes: &[u8]) -> OctetString {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        OctetString::from(digest::digest(algorithm, bytes).as_ref().to_vec())
    }
}

/// The content of an authority information access extension that names OCSP responders.
pub(super) fn access_description(urls: &[String]) -> Result<Vec<u8>, AuthorityError> {
    let descriptions = urls
        .iter()
        .map(|url| {
            let uri = rasn::types::Ia5String::try_from(url.as_str()).map_err(encode_error)?;
            Ok(AccessDescription {
                access_method: oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1]),
                access_location: GeneralName::Uri(uri),
            })
        })
        .collect::<Result<Vec<_>, AuthorityError>>()?;
    rasn::der::encode(&descriptions).map_err(encode_error)
}

fn seal(
    data: ResponseData,
    key: &rcgen::KeyPair,
    certificate: Option<Certificate>,
) -> Result<Vec<u8>, AuthorityError> {
    let signed = rasn::der::encode(&data).map_err(encode_error)?;
    let basic = BasicOcspResponse {
        signature_algorithm: signature_algorithm(key),
        signature: BitString::from_vec(key.sign(&signed)?),
        certs: certificate.map(|certificate| vec![certificate]),
        tbs_response_data: data,
    };
    let basic = rasn::der::encode(&basic).map_err(encode_error)?;
    rasn::der::encode(&OcspResponse {
        status: OcspResponseStatus::Successful,
        bytes: Some(ResponseBytes {
            r#type: oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 1]),
            response: OctetString::from(basic),
        }),
    })
    .map_err(encode_error)
}

fn signature_algorithm(key: &rcgen::KeyPair) -> AlgorithmIdentifier {
    let null = Some(Any::new(super::NULL.into()));
    let algorithm = key.algorithm();
    let (arcs, parameters): (&[u32], _) = if algorithm == &rcgen::PKCS_RSA_SHA256 {
        (&[1, 2, 840, 113_549, 1, 1, 11], null)
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        (&[1, 2, 840, 10_045, 4, 3, 3], None)
    } else if algorithm == &rcgen::PKCS_ECDSA_P521_SHA512 {
        (&[1, 2, 840, 10_045, 4, 3, 4], None)
    } else if algorithm == &rcgen::PKCS_ED25519 {
        (&[1, 3, 101, 112], None)
    } else {
        (&[1, 2, 840, 10_045, 4, 3, 2], None)
    };
    AlgorithmIdentifier {
        algorithm: oid(arcs),
        parameters,
    }
}

fn cert_id(
    issuer: &CertificateDer<'_>,
    hash: HashAlgorithm,
    serial_number: Integer,
) -> Result<CertId, AuthorityError> {
    let issuer = certificate_of(issuer)?.tbs_certificate;
    let name = rasn::der::encode(&issuer.subject).map_err(encode_error)?;
    let key = issuer.subject_public_key_info.subject_public_key;
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifier {
            algorithm: hash.oid(),
            parameters: Some(Any::new(super::NULL.into())),
        },
        issuer_name_hash: hash.digest(&name),
        issuer_key_hash: hash.digest(key.as_raw_slice()),
        serial_number,
    })
}

fn responder_id(
    certificate: &CertificateDer<'_>,
    by: ResponderIdBy,
) -> Result<ResponderId, AuthorityError> {
    let certificate = certificate_of(certificate)?.tbs_certificate;
    Ok(match by {
        ResponderIdBy::Name => ResponderId::ByName(certificate.subject),
        ResponderIdBy::Key => {
            let key = certificate.subject_public_key_info.subject_public_key;
            ResponderId::ByKey(HashAlgorithm::Sha1.digest(key.as_raw_slice()))
        }
    })
}

fn certificate_of(der: &CertificateDer<'_>) -> Result<Certificate, AuthorityError> {
    rasn::der::decode(der).map_err(encode_error)
}

fn unknown_critical_extension() -> Extensions {
    Extensions::from(vec![Extension {
        extn_id: oid(&[1, 3, 6, 1, 4, 1, 99_999, 1]),
        critical: true,
        extn_value: OctetString::from(super::NULL.to_vec()),
    }])
}

/// An INTEGER with these big-endian content bytes; a leading zero is put where the sign needs it.
fn integer(bytes: &[u8]) -> Result<Integer, AuthorityError> {
    let sign = bytes.first().is_none_or(|first| first & 0x80 != 0);
    let length = u8::try_from(bytes.len() + usize::from(sign)).ok();
    let length = length.filter(|length| *length < 0x80);
    let length = length.ok_or_else(|| encode_error("a serial number of more than 126 bytes"))?;
    let mut der = vec![0x02, length];
    der.extend(sign.then_some(0));
    der.extend_from_slice(bytes);
    rasn::der::decode(&der).map_err(encode_error)
}

fn integer_content(integer: &Integer) -> Result<Vec<u8>, AuthorityError> {
    let der = rasn::der::encode(integer).map_err(encode_error)?;
    let content = der.get(2..).unwrap_or_default();
    Ok(match content {
        [0, rest @ ..] if !rest.is_empty() => rest.to_vec(),
        all => all.to_vec(),
    })
}

fn generalized_time(at: SystemTime) -> Result<GeneralizedTime, AuthorityError> {
    GeneralizedTime::parse_from_rfc3339(&clock::rfc3339(at)).map_err(encode_error)
}

fn oid(arcs: &[u32]) -> ObjectIdentifier {
    ObjectIdentifier::from(Oid::new(arcs).expect("arcs written in this file are valid"))
}

fn encode_error(why: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Encode(why.to_string())
}

/// id-pkix-ocsp-nonce.
const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];
