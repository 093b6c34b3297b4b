//! Extensions of a list and of its entries (RFC 5280 sections 5.2 and 5.3): those that are acted on,
//! and the refusal of critical ones that are not.

use std::borrow::Cow;

use x509_parser::oid_registry::Oid;

use super::der::{BOOLEAN, DerError, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE};
use super::number::CrlNumber;
use super::refusal::{Place, Refusal, malformed};
use super::scope::Scope;

/// One extension as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extension<'a> {
    /// Content bytes of the OBJECT IDENTIFIER.
    pub(super) id: &'a [u8],
    pub(super) critical: bool,
    pub(super) value: &'a [u8],
}

/// Takes the next extension off what is inside a SEQUENCE of them.
pub(super) fn next_extension<'a>(
    extensions: &mut Reader<'a>,
) -> Result<Option<Extension<'a>>, DerError> {
    if extensions.is_empty() {
        return Ok(None);
    }
    let mut parts = extensions.expect(SEQUENCE)?.reader();
    let id = parts.expect(OBJECT_IDENTIFIER)?.content;
    let critical = match parts.optional(&[BOOLEAN])? {
        Some(critical) => critical.boolean()?,
        None => false,
    };
    let value = parts.expect(OCTET_STRING)?.content;
    parts.end()?;
    Ok(Some(Extension {
        id,
        critical,
        value,
    }))
}

impl Extension<'_> {
    /// The refusal of an extension that is not acted on, if it is critical.
    pub(super) fn pass(&self, place: Place) -> Result<(), Refusal> {
        match self.critical {
            true => Err(Refusal::CriticalExtension {
                oid: Oid::new(Cow::Borrowed(self.id)).to_string(),
                place,
            }),
            false => Ok(()),
        }
    }
}

/// What the extensions of a list say.
#[derive(Debug, Default)]
pub(super) struct ListExtensions<'a> {
    pub(super) number: Option<CrlNumber>,
    pub(super) scope: Option<Scope<'a>>,
}

impl<'a> ListExtensions<'a> {
    /// Reads what is inside crlExtensions.
    pub(super) fn parse(mut extensions: Reader<'a>) -> Result<Self, Refusal> {
        let mut found = Self::default();
        while let Some(extension) =
            next_extension(&mut extensions).map_err(malformed("crlExtensions"))?
        {
            match extension.id {
                CRL_NUMBER => {
                    once(found.number.is_some()).map_err(malformed("cRLNumber"))?;
                    // RFC 5280 section 5.2.3: "MUST mark this extension as non-critical".
                    if extension.critical {
                        let error = DerError::Value("it is marked critical, which it must not be");
                        return Err(malformed("cRLNumber")(error));
                    }
                    let number = CrlNumber::parse(extension.value);
                    found.number = Some(number.map_err(malformed("cRLNumber"))?);
                }
                ISSUING_DISTRIBUTION_POINT => {
                    once(found.scope.is_some()).map_err(malformed("issuingDistributionPoint"))?;
                    let scope = Scope::parse(extension.value);
                    found.scope = Some(scope.map_err(malformed("issuingDistributionPoint"))?);
                }
                DELTA_CRL_INDICATOR => {
                    let base = CrlNumber::parse(extension.value);
                    let base = base.map_err(malformed("deltaCRLIndicator"))?;
                    return Err(Refusal::Delta { base });
                }
                _ => extension.pass(Place::List)?,
            }
        }
        Ok(found)
    }
}

/// RFC 5280 section 4.2: no extension is there twice.
fn once(seen: bool) -> Result<(), DerError> {
    match seen {
        true => Err(DerError::Value("it is there twice")),
        false => Ok(()),
    }
}

/// 2.5.29.20, content bytes.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// 2.5.29.27, content bytes.
const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
/// 2.5.29.28, content bytes.
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
