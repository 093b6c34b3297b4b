//! The number of a CRL, by which an older list is told from a newer one (RFC 5280 section 5.2.3).

use std::fmt;

use super::der::{DerError, INTEGER, Reader, shortest};

/// A CRL number: not negative, at most 20 bytes. Of two lists of one CA and scope the one with the
/// higher number is the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrlNumber([u8; BYTES]);

/// RFC 5280 section 5.2.3 has no longer ones.
const BYTES: usize = 20;

impl CrlNumber {
    /// Reads the value of the cRLNumber extension.
    pub(super) fn parse(value: &[u8]) -> Result<Self, DerError> {
        let content = shortest(Reader::only(value, INTEGER)?);
        if content.first().is_none_or(|first| *first >= 0x80) {
            return Err(DerError::Value("it is negative or empty"));
        }
        // One byte more may be there for the sign.
        let content = content.strip_prefix(&[0]).unwrap_or(content);
        let Some(at) = BYTES.checked_sub(content.len()) else {
            return Err(DerError::Value("it is longer than 20 bytes"));
        };
        let mut number = [0; BYTES];
        number[at..].copy_from_slice(content);
        Ok(Self(number))
    }
}

impl From<u64> for CrlNumber {
    fn from(number: u64) -> Self {
        let mut bytes = [0; BYTES];
        bytes[BYTES - 8..].copy_from_slice(&number.to_be_bytes());
        Self(bytes)
    }
}

/// Hexadecimal, as openssl prints it.
impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        let start = self.0.iter().position(|byte| *byte != 0);
        let bytes = &self.0[start.unwrap_or(BYTES - 1)..];
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let parse = |value: &[u8]| CrlNumber::parse(value);
        assert_eq!(parse(&[2, 1, 0]), Ok(CrlNumber::from(0)));
        assert_eq!(parse(&[2, 2, 0, 0x80]), Ok(CrlNumber::from(0x80)));
        assert!(CrlNumber::from(0x100) > CrlNumber::from(0xff));
        assert_eq!(CrlNumber::from(0x1000).to_string(), "0x1000");
        assert_eq!(CrlNumber::from(0).to_string(), "0x00");
        let longest = [&[2, 20][..], &[0x7f; 20]].concat();
        assert!(parse(&longest).expect("20 bytes") > CrlNumber::from(u64::MAX));
        for value in [&[2, 1, 0x80][..], &[2, 0], &[2, 21], &[4, 1, 1], &[]] {
            assert!(parse(value).is_err(), "{value:x?}");
        }
        let too_long = [&[2, 21][..], &[0x7f; 21]].concat();
        assert!(parse(&too_long).is_err());
    }
}
