//! The entries of a list, one after another, none kept (RFC 5280 sections 5.1.2.6 and 5.3).

use std::time::SystemTime;

use super::der::{DerError, ENUMERATED, INTEGER, Reader, SEQUENCE, shortest};
use super::extensions::next_extension;
use super::list::Version;
use super::refusal::{Place, Refusal, malformed};
use crate::certificate::RevocationReason;

/// Walks the entries of a list from the first to the last.
pub(super) struct Entries<'a> {
    rest: Reader<'a>,
    version: Version,
}

/// One revoked certificate.
pub(super) struct Entry<'a> {
    /// Content bytes, shortest form.
    pub(super) serial: &'a [u8],
    /// Since when it is revoked.
    pub(super) date: SystemTime,
    /// The value of the extension reasonCode, not read yet.
    reason: Option<&'a [u8]>,
}

impl<'a> Entries<'a> {
    /// `rest` is what is inside revokedCertificates.
    pub(super) fn new(rest: Reader<'a>, version: Version) -> Self {
        Self { rest, version }
    }

    /// The next entry, with its extensions looked through for critical ones.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, Refusal> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut parts = self
            .rest
            .expect(SEQUENCE)
            .map_err(malformed(FIELD))?
            .reader();
        let serial = parts.expect(INTEGER).map_err(malformed(FIELD))?.content;
        let date = parts.next().and_then(|date| date.time());
        let date = date.map_err(malformed(FIELD))?;
        let extensions = parts.optional(&[SEQUENCE]).map_err(malformed(FIELD))?;
        parts.end().map_err(malformed(FIELD))?;
        let reason = match extensions {
            Some(_) if self.version == Version::V1 => {
                let error = DerError::Value("it has extensions, which version 1 does not have");
                return Err(malformed(FIELD)(error));
            }
            Some(extensions) => reason(extensions.reader())?,
            None => None,
        };
        Ok(Some(Entry {
            serial: shortest(serial),
            date,
            reason,
        }))
    }
}

impl Entry<'_> {
    /// Why it is revoked. A reason that cannot be read makes nothing less revoked.
    pub(super) fn reason(&self) -> Option<RevocationReason> {
        match Reader::only(self.reason?, ENUMERATED) {
            Ok([code]) => RevocationReason::from_code(*code),
            _ => None,
        }
    }
}

/// Finds the reason among an entry's extensions, and refuses what must be understood and is not.
fn reason(mut extensions: Reader<'_>) -> Result<Option<&[u8]>, Refusal> {
    let mut reason = None;
    while let Some(extension) = next_extension(&mut extensions).map_err(malformed(FIELD))? {
        match extension.id {
            REASON_CODE => reason = Some(extension.value),
            // It says nothing about whether the certificate is revoked.
            INVALIDITY_DATE => {}
            CERTIFICATE_ISSUER => return Err(Refusal::Indirect),
            _ => extension.pass(Place::Entry)?,
        }
    }
    Ok(reason)
}

const FIELD: &str = "revokedCertificates";
/// 2.5.29.21, content bytes.
const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
/// 2.5.29.24, content bytes.
const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 0x18];
/// 2.5.29.29, content bytes.
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 0x1d];
