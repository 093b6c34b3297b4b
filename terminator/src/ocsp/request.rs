//! OCSP requests: what to ask, and how to carry it over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rasn::types::{Integer, ObjectIdentifier, OctetString, Oid};
use rasn_ocsp::{OcspRequest, TbsRequest};
use rasn_pkix::{Extension, Extensions};
use rustls_pki_types::CertificateDer;

use super::Refusal;
use super::cert_id::Subject;
use super::nonce::{NONCE, Nonce};
use crate::config::CertIdHash;
use crate::limits::OCSP_GET_BYTES;

/// An OCSP request for one certificate.
#[derive(Clone, Debug)]
pub struct Request {
    /// DER of the OCSPRequest.
    pub der: Vec<u8>,
}

impl Request {
    /// Builds the request as most responders expect it: one CertID, SHA-1 as the field does (RFC 9919
    /// section 3.1.1), no nonce, so that responders may answer with what they signed in advance.
    pub fn new(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> Result<Self, Refusal> {
        Self::with(leaf, issuer, CertIdHash::Sha1, None)
    }

    /// As [`Request::new`], with the digest of the CertID and a nonce (RFC 9654). That the nonce comes
    /// back is for [`super::Policy::nonce`] to demand.
    pub fn with(
        leaf: &CertificateDer<'_>,
        issuer: &CertificateDer<'_>,
        hash: CertIdHash,
        nonce: Option<&Nonce>,
    ) -> Result<Self, Refusal> {
        let extension = |nonce: &Nonce| Extension {
            extn_id: ObjectIdentifier::from(Oid::new(NONCE).expect("arcs of RFC 9654")),
            critical: false,
            extn_value: OctetString::from(nonce.encoded()),
        };
        let request = OcspRequest {
            tbs_request: TbsRequest {
                version: Integer::ZERO,
                requestor_name: None,
                request_list: vec![rasn_ocsp::Request {
                    req_cert: Subject::parse(leaf, issuer)?.cert_id(hash),
                    single_request_extensions: None,
                }],
                request_extensions: nonce.map(|nonce| Extensions::from(vec![extension(nonce)])),
            },
            optional_signature: None,
        };
        let der = rasn::der::encode(&request).expect("digests and an INTEGER always encode");
        Ok(Self { der })
    }

    /// The URL for a GET where it fits in [`OCSP_GET_BYTES`] (RFC 6960 appendix A.1, RFC 9919
    /// section 5), else `None`: POST. A responder with a query in its URL gets a POST too, because
    /// a path cannot be appended to it.
    pub fn get_url(&self, responder: &str) -> Option<String> {
        let url = self.long_get_url(responder)?;
        (url.len() <= OCSP_GET_BYTES).then_some(url)
    }

    /// As [`Request::get_url`], however long it comes to.
    pub fn long_get_url(&self, responder: &str) -> Option<String> {
        if responder.contains(['?', '#']) {
            return None;
        }
        let mut url = responder.trim_end_matches('/').to_owned();
        url.push('/');
        for byte in STANDARD.encode(&self.der).chars() {
            match byte {
                '+' => url.push_str("%2B"),
                '/' => url.push_str("%2F"),
                '=' => url.push_str("%3D"),
                other => url.push(other),
            }
        }
        Some(url)
    }
}
