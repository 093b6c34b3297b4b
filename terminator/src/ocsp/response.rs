//! The layers of an OCSP response taken apart (RFC 6960 section 4.2.1). Nothing here is verified: a
//! [`Basic`] is what somebody sent.

use std::time::{Duration, SystemTime};

use rasn::types::{Any, BitString, GeneralizedTime, Integer, SequenceOf};
use rasn::{AsnType, Decode, Decoder, Encode, Encoder};
use rasn_ocsp::{OcspResponse, OcspResponseStatus, ResponseData};
use rasn_pkix::Extensions;

use super::refusal::{Place, Refusal, Unsuccessful};
use crate::certificate::Signed;
use crate::limits::OCSP_RESPONSE_BYTES;

/// A basic response: the signed data, parsed and as bytes, and the certificates beside it.
pub(super) struct Basic {
    pub(super) signed: Signed,
    pub(super) data: ResponseData,
    /// DER of each certificate; any of them may be garbage.
    pub(super) certificates: Vec<Any>,
}

/// BasicOCSPResponse with its parts as they came, so that the signature is checked over the very bytes.
#[derive(AsnType, Decode, Encode)]
struct BasicParts {
    tbs: Any,
    algorithm: Any,
    signature: BitString,
    #[rasn(tag(explicit(0)))]
    certificates: Option<SequenceOf<Any>>,
}

impl Basic {
    pub(super) fn parse(response: &[u8]) -> Result<Self, Refusal> {
        if response.len() > OCSP_RESPONSE_BYTES {
            return Err(Refusal::TooLarge {
                bytes: response.len(),
            });
        }
        let outer: OcspResponse = strict(response, "OCSPResponse")?;
        let bytes = match (outer.status, outer.bytes) {
            (OcspResponseStatus::Successful, Some(bytes)) => bytes,
            (OcspResponseStatus::Successful, None) => {
                return Err(malformed("OCSPResponse", "it is successful and empty"));
            }
            (status, _) => return Err(Refusal::Unsuccessful(unsuccessful(status))),
        };
        let arcs: &[u32] = &bytes.r#type;
        if arcs != ID_PKIX_OCSP_BASIC {
            let dotted: Vec<String> = arcs.iter().map(u32::to_string).collect();
            return Err(Refusal::NotBasic {
                oid: dotted.join("."),
            });
        }
        let parts: BasicParts = strict(&bytes.response, "BasicOCSPResponse")?;
        let data: ResponseData = rasn::der::decode(parts.tbs.as_bytes())
            .map_err(|error| malformed("ResponseData", &error.to_string()))?;
        if data.version != Integer::ZERO {
            return Err(malformed("ResponseData", "its version is not 1"));
        }
        Ok(Self {
            signed: Signed::from_parts(parts.tbs, parts.algorithm, parts.signature),
            data,
            certificates: parts.certificates.unwrap_or_default(),
        })
    }
}

/// Refuses extensions that are critical and that we do not know (RFC 6960 section 4.4).
pub(super) fn check_extensions(
    extensions: Option<&Extensions>,
    place: Place,
) -> Result<(), Refusal> {
    let Some(extensions) = extensions else {
        return Ok(());
    };
    for extension in extensions.iter().filter(|extension| extension.critical) {
        let arcs: &[u32] = &extension.extn_id;
        if !KNOWN_EXTENSIONS.contains(&arcs) {
            let dotted: Vec<String> = arcs.iter().map(u32::to_string).collect();
            return Err(Refusal::CriticalExtension {
                oid: dotted.join("."),
                place,
            });
        }
    }
    Ok(())
}

/// Second precision; a fraction, which DER allows, is cut off.
pub(super) fn system_time(time: &GeneralizedTime) -> SystemTime {
    let seconds = time.timestamp();
    let since = Duration::from_secs(seconds.unsigned_abs());
    let at = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(since),
        _ => SystemTime::UNIX_EPOCH.checked_sub(since),
    };
    at.expect("four digits of year fit")
}

/// Decodes `T` from DER, and takes only the one encoding that DER has: the wrappers are not signed,
/// so nothing may vary in them unnoticed.
fn strict<T: Decode + Encode>(der: &[u8], layer: &'static str) -> Result<T, Refusal> {
    let value: T = rasn::der::decode(der).map_err(|error| malformed(layer, &error.to_string()))?;
    match rasn::der::encode(&value) {
        Ok(again) if again == der => Ok(value),
        _ => Err(malformed(layer, "it is BER, but not DER")),
    }
}

fn malformed(layer: &'static str, reason: &str) -> Refusal {
    Refusal::Malformed {
        layer,
        reason: reason.to_owned(),
    }
}

fn unsuccessful(status: OcspResponseStatus) -> Unsuccessful {
    match status {
        OcspResponseStatus::TryLater => Unsuccessful::TryLater,
        OcspResponseStatus::Unauthorized => Unsuccessful::Unauthorized,
        OcspResponseStatus::MalformedRequest => Unsuccessful::MalformedRequest,
        OcspResponseStatus::SigRequired => Unsuccessful::SigRequired,
        OcspResponseStatus::InternalError | OcspResponseStatus::Successful => {
            Unsuccessful::InternalError
        }
    }
}

const ID_PKIX_OCSP_BASIC: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 1];

/// Extensions that change nothing about whether the response may be stapled: nonce, CRL reference,
/// archive cutoff, extended revoke (RFC 6960 section 4.4), the CRL entry extensions reason code and
/// invalidity date (RFC 5280 section 5.3), and timestamps of Certificate Transparency (RFC 6962
/// section 3.3).
const KNOWN_EXTENSIONS: &[&[u32]] = &[
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2],
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 3],
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 6],
    &[1, 3, 6, 1, 5, 5, 7, 48, 1, 9],
    &[2, 5, 29, 21],
    &[2, 5, 29, 24],
    &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 5],
];

#[cfg(test)]
mod tests {
    use rasn::types::{ObjectIdentifier, OctetString, Oid};
    use rasn_pkix::Extension;

    use super::*;

    #[test]
    fn timestamps_of_certificate_transparency_may_be_critical() {
        let check = |arcs: &'static [u32]| {
            let extensions = Extensions::from(vec![Extension {
                extn_id: ObjectIdentifier::from(Oid::new(arcs).expect("valid arcs")),
                critical: true,
                extn_value: OctetString::from_static(&[0x04, 0x00]),
            }]);
            check_extensions(Some(&extensions), Place::Single)
        };
        assert_eq!(check(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 5]), Ok(()));
        assert!(check(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2]).is_err());
    }
}
