//! A configuration that only this machine can open: all its files in one, encrypted under a key that
//! the TPM gives back only after a boot like the one in which it was sealed.
//!
//! ```text
//! clinch-sealed 1\n  SIZE (2 bytes, big-endian) BLOB  NONCE (12)  CIPHERTEXT AND TAG
//! ```
//! The blob is the TPM's ([`crate::tpm`]) and holds 32 random bytes; with those ChaCha20-Poly1305
//! (RFC 8439) encrypts the files. Each sealing draws a key of its own, so a nonce is never used twice
//! under one. Everything before the ciphertext is authenticated with it: a file that was changed is
//! opened not at all.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};

use crate::tpm::{Blob, SECRET, Tpm, TpmError};

/// Files by their path within the configuration.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why a configuration is not sealed, or not opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The TPM is missing or refuses.
    #[error("{0}")]
    Tpm(#[from] TpmError),
    /// No file of ours.
    #[error("what was sealed is damaged: bring the configuration again on a volume")]
    Damaged,
    /// The kernel has no randomness.
    #[error("no random numbers: {0}")]
    Randomness(rustix::io::Errno),
}

/// Seals files to this machine's TPM.
pub fn seal(files: &Files) -> Result<Vec<u8>, SealError> {
    let mut random = [0; SECRET + NONCE];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(SealError::Randomness)?;
    let (secret, nonce) = random.split_at(SECRET);
    let blob = Tpm::open()?.seal(secret)?;
    encrypt(files, secret, nonce, &blob)
}

/// Opens what [`seal`] made on this machine.
pub fn open(bytes: &[u8]) -> Result<Files, SealError> {
    let parts = Parts::of(bytes).ok_or(SealError::Damaged)?;
    let secret = Tpm::open()?.unseal(&parts.blob)?;
    decrypt(&parts, &secret)
}

/// A sealed file taken apart.
struct Parts<'a> {
    blob: Blob,
    /// Everything before the nonce.
    head: &'a [u8],
    nonce: &'a [u8],
    ciphertext: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (size, rest) = rest.split_first_chunk::<2>()?;
        let (blob, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE)?;
        Some(Self {
            blob: Blob::from_bytes(blob)?,
            head: &bytes[..MAGIC.len() + 2 + blob.len()],
            nonce,
            ciphertext,
        })
    }
}

fn encrypt(files: &Files, secret: &[u8], nonce: &[u8], blob: &Blob) -> Result<Vec<u8>, SealError> {
    let encoded: BTreeMap<&str, String> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), STANDARD.encode(bytes)))
        .collect();
    let plain = serde_json::to_vec(&encoded).map_err(|_| SealError::Damaged)?;
    let blob = blob.to_bytes();
    let size = u16::try_from(blob.len()).map_err(|_| SealError::Damaged)?;
    let mut out = [MAGIC, &size.to_be_bytes(), &blob].concat();
    let payload = Payload {
        msg: &plain,
        aad: &out,
    };
    let ciphertext = cipher(secret)?
        .encrypt(Nonce::from_slice(nonce), payload)
        .map_err(|_| SealError::Damaged)?;
    out.extend_from_slice(nonce);
    out.extend_from_slice(&ciphertext);
    Ok(out)
}

fn decrypt(parts: &Parts<'_>, secret: &[u8]) -> Result<Files, SealError> {
    let payload = Payload {
        msg: parts.ciphertext,
        aad: parts.head,
    };
    let plain = cipher(secret)?
        .decrypt(Nonce::from_slice(parts.nonce), payload)
        .map_err(|_| SealError::Damaged)?;
    let encoded: BTreeMap<String, String> =
        serde_json::from_slice(&plain).map_err(|_| SealError::Damaged)?;
    let decoded = encoded.into_iter().map(|(name, text)| {
        let bytes = STANDARD.decode(text).map_err(|_| SealError::Damaged)?;
        Ok((name, bytes))
    });
    decoded.collect()
}

fn cipher(secret: &[u8]) -> Result<ChaCha20Poly1305, SealError> {
    if secret.len() != SECRET {
        return Err(SealError::Damaged);
    }
    Ok(ChaCha20Poly1305::new(Key::from_slice(secret)))
}

const MAGIC: &[u8] = b"clinch-sealed 1\n";
const NONCE: usize = 12;
/// Bytes of the files of a sealed configuration: it is in memory several times while it is opened.
pub const LARGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        Files::from([
            ("clinch.toml".to_owned(), b"text".to_vec()),
            ("keys/a.key".to_owned(), vec![0, 255, 10]),
        ])
    }

    fn blob() -> Blob {
        Blob::from_bytes(&[0, 2, 1, 2, 0, 3, 4, 5, 6]).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_with_the_same_secret_alone() {
        let bytes = encrypt(&files(), &[1; 32], &[2; 12], &blob()).unwrap();
        let parts = Parts::of(&bytes).unwrap();
        assert_eq!(decrypt(&parts, &[1; 32]).unwrap(), files());
        assert!(decrypt(&parts, &[3; 32]).is_err());
        assert!(decrypt(&parts, &[1; 31]).is_err());
    }

    #[test]
    fn a_file_that_was_changed_or_cut_off_anywhere_is_not_opened() {
        let bytes = encrypt(&files(), &[1; 32], &[2; 12], &blob()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            for bad in [&changed[..], &bytes[..at]] {
                let opened = Parts::of(bad).map(|parts| decrypt(&parts, &[1; 32]));
                assert!(!matches!(opened, Some(Ok(_))), "at {at}");
            }
        }
    }
}
