//! Nonces (RFC 9654): a number that a response made for this request repeats, so that no old one can be
//! played back. Where the number comes from is the caller's business; it must be drawn anew for each
//! request.

use rasn::types::OctetString;
use rasn_pkix::Extensions;

use super::Refusal;

/// The number in one request. RFC 9654 section 2.1 has clients send 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

/// What a response must say about a nonce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NonceRule {
    /// Nothing: it was not made for one request, or comes from a cache.
    #[default]
    Any,
    /// Nothing, or this one.
    Same(Nonce),
    /// This one.
    Present(Nonce),
}

impl Nonce {
    /// As the extension's value holds it: an OCTET STRING, DER.
    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut der = vec![0x04, 32];
        der.extend_from_slice(&self.0);
        der
    }
}

impl NonceRule {
    /// Compares with the nonce in a response's extensions.
    pub(super) fn check(&self, extensions: Option<&Extensions>) -> Result<(), Refusal> {
        let (sent, required) = match self {
            Self::Any => return Ok(()),
            Self::Same(nonce) => (nonce, false),
            Self::Present(nonce) => (nonce, true),
        };
        let mut nonces = extensions.into_iter().flat_map(|all| all.iter());
        let found = nonces.find(|extension| {
            let arcs: &[u32] = &extension.extn_id;
            arcs == NONCE
        });
        match found {
            None if required => Err(Refusal::NoNonce),
            None => Ok(()),
            Some(extension) if extension.extn_value.as_ref() == sent.encoded() => Ok(()),
            Some(extension) => Err(Refusal::WrongNonce {
                sent: hex(&sent.0),
                received: content(&extension.extn_value),
            }),
        }
    }
}

/// The bytes of a received nonce in hexadecimal, as far as a person wants to see them.
fn content(value: &OctetString) -> String {
    let bytes = match value.as_ref() {
        [0x04, length, content @ ..] if usize::from(*length) == content.len() => content,
        all => all,
    };
    match bytes.split_at_checked(SHOWN) {
        Some((first, [_, ..])) => format!("{}…", hex(first)),
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// id-pkix-ocsp-nonce.
pub(super) const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];

/// Bytes of a foreign nonce that a sentence shows.
const SHOWN: usize = 32;
