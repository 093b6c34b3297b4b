//! The CertificateList taken apart where it lies (RFC 5280 section 5.1). Nothing here is verified: a
//! [`List`] is what somebody sent.

use std::borrow::Cow;
use std::time::SystemTime;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::{Error as PemError, PemObject as _};

use super::der::{
    BIT_STRING, DerError, GENERALIZED_TIME, INTEGER, Reader, SEQUENCE, UTC_TIME, context,
};
use super::refusal::{Refusal, malformed};
use crate::certificate::{SignatureError, SignedParts};
use crate::limits::CRL_BYTES;

/// A list whose frame was read; its entries and extensions were not.
pub(super) struct List<'a> {
    pub(super) signed: SignedParts<'a>,
    pub(super) version: Version,
    /// Name, DER.
    pub(super) issuer: &'a [u8],
    pub(super) this_update: SystemTime,
    pub(super) next_update: Option<SystemTime>,
    /// What is inside revokedCertificates.
    pub(super) entries: Reader<'a>,
    /// What is inside crlExtensions.
    pub(super) extensions: Reader<'a>,
}

/// The two versions there are (RFC 5280 section 5.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Has no extensions, and so no number.
    V1,
    V2,
}

/// The DER of a CRL that came as DER or as PEM; of several in one PEM text the first.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(Cow::Borrowed(bytes));
    }
    match CertificateRevocationListDer::from_pem_slice(bytes) {
        Ok(der) => Ok(Cow::Owned(der.to_vec())),
        Err(PemError::NoItemsFound) => Err(Refusal::NotACrl),
        Err(error) => Err(Refusal::Pem(error.to_string())),
    }
}

impl<'a> List<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Refusal> {
        if der.len() > CRL_BYTES {
            return Err(Refusal::TooLarge { bytes: der.len() });
        }
        let mut parts =
            Reader::new(Reader::only(der, SEQUENCE).map_err(malformed("CertificateList"))?);
        let tbs = parts.expect(SEQUENCE).map_err(malformed("tbsCertList"))?;
        let algorithm = parts
            .expect(SEQUENCE)
            .map_err(malformed("signatureAlgorithm"))?;
        let signature = parts
            .expect(BIT_STRING)
            .map_err(malformed("signatureValue"))?;
        let signature = signature.whole_bytes();
        let signature = signature.map_err(|_| Refusal::Signature(SignatureError::Malformed))?;
        parts.end().map_err(malformed("CertificateList"))?;

        let mut fields = tbs.reader();
        let version = version(&mut fields).map_err(malformed("version"))?;
        let inner = fields.expect(SEQUENCE).map_err(malformed("signature"))?;
        // RFC 5280 section 5.1.1.2: only the inner one is signed.
        if inner.whole != algorithm.whole {
            return Err(malformed("signatureAlgorithm")(DerError::Value(
                "it is not the algorithm that is named inside the signed part",
            )));
        }
        let issuer = fields.expect(SEQUENCE).map_err(malformed("issuer"))?;
        let this_update = fields.next().and_then(|element| element.time());
        let next_update = fields
            .optional(&[UTC_TIME, GENERALIZED_TIME])
            .and_then(|element| element.map(|element| element.time()).transpose());
        let entries = entries(&mut fields);
        let extensions = extensions(&mut fields, version).map_err(malformed("crlExtensions"))?;
        Ok(Self {
            signed: SignedParts {
                tbs: tbs.whole,
                algorithm: algorithm.whole,
                signature,
            },
            version,
            issuer: issuer.whole,
            this_update: this_update.map_err(malformed("thisUpdate"))?,
            next_update: next_update.map_err(malformed("nextUpdate"))?,
            entries: entries.map_err(malformed("revokedCertificates"))?,
            extensions,
        })
    }
}

/// Version 1 is the one that is not written.
fn version(fields: &mut Reader<'_>) -> Result<Version, DerError> {
    match fields.optional(&[INTEGER])?.map(|element| element.content) {
        None => Ok(Version::V1),
        Some([1]) => Ok(Version::V2),
        Some(_) => Err(DerError::Value("it is neither 1 nor 2")),
    }
}

fn extensions<'a>(fields: &mut Reader<'a>, version: Version) -> Result<Reader<'a>, DerError> {
    let Some(tagged) = fields.optional(&[context(0, true)])? else {
        fields.end()?;
        return Ok(Reader::default());
    };
    fields.end()?;
    if version == Version::V1 {
        return Err(DerError::Value("version 1 has no extensions"));
    }
    Reader::only(tagged.content, SEQUENCE).map(Reader::new)
}

/// RFC 5280 section 5.1.2.6: "When there are no revoked certificates, the revoked certificates list
/// MUST be absent".
fn entries<'a>(fields: &mut Reader<'a>) -> Result<Reader<'a>, DerError> {
    match fields.optional(&[SEQUENCE])? {
        None => Ok(Reader::default()),
        Some(list) if list.content.is_empty() => {
            Err(DerError::Value("it is empty, where it must be left out"))
        }
        Some(list) => Ok(list.reader()),
    }
}
