//! DER read in place, element by element, nothing copied and nothing kept (X.690 section 10).
//!
//! Tags have one byte and lengths their shortest form; what is not so is refused.

use std::time::SystemTime;

use time::{Date, Month, PrimitiveDateTime, Time};

/// Elements one after another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader<'a>(&'a [u8]);

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// Tag, length and content.
    pub(super) whole: &'a [u8],
    pub(super) content: &'a [u8],
}

/// How bytes fail to be the DER that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// There are fewer bytes than announced.
    #[error("it ends too early")]
    Truncated,
    /// A tag of several bytes.
    #[error("it has a tag of several bytes, and nothing that belongs there has one")]
    LongTag,
    /// A length that is indefinite, padded or beyond four bytes.
    #[error("it has a length that is not DER")]
    Length,
    /// Another element than the one that belongs there.
    #[error("it has the tag 0x{found:02x} where 0x{wanted:02x} belongs")]
    Unexpected {
        /// The tag that belongs there.
        wanted: u8,
        /// The tag that is there.
        found: u8,
    },
    /// More than belongs there.
    #[error("{bytes} bytes follow its end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A value that may not be there.
    #[error("{0}")]
    Value(&'static str),
}

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// A context-specific tag.
pub(super) const fn context(number: u8, constructed: bool) -> u8 {
    0x80 | number | if constructed { 0x20 } else { 0 }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the one element with this tag that fills `bytes`.
    pub(super) fn only(bytes: &'a [u8], tag: u8) -> Result<&'a [u8], DerError> {
        let mut reader = Self(bytes);
        let element = reader.expect(tag)?;
        reader.end()?;
        Ok(element.content)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Result<(), DerError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(DerError::Trailing { bytes }),
        }
    }

    pub(super) fn next(&mut self) -> Result<Element<'a>, DerError> {
        let [tag, first, after @ ..] = self.0 else {
            return Err(DerError::Truncated);
        };
        if tag & 0x1f == 0x1f {
            return Err(DerError::LongTag);
        }
        let (length, rest) = length(*first, after)?;
        let content = rest.get(..length).ok_or(DerError::Truncated)?;
        let end = self.0.len() - rest.len() + length;
        let (whole, left) = self.0.split_at(end);
        self.0 = left;
        Ok(Element {
            tag: *tag,
            whole,
            content,
        })
    }

    pub(super) fn expect(&mut self, wanted: u8) -> Result<Element<'a>, DerError> {
        let element = self.next()?;
        match element.tag {
            found if found != wanted => Err(DerError::Unexpected { wanted, found }),
            _ => Ok(element),
        }
    }

    /// The next element if it has one of these tags.
    pub(super) fn optional(&mut self, tags: &[u8]) -> Result<Option<Element<'a>>, DerError> {
        match self.0.first() {
            Some(tag) if tags.contains(tag) => self.next().map(Some),
            _ => Ok(None),
        }
    }
}

impl<'a> Element<'a> {
    pub(super) fn reader(&self) -> Reader<'a> {
        Reader(self.content)
    }

    /// TRUE has all bits set; FALSE written out is not DER, but common and without harm.
    pub(super) fn boolean(&self) -> Result<bool, DerError> {
        match self.content {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(DerError::Value("it has a BOOLEAN that is neither value")),
        }
    }

    /// A BIT STRING of whole bytes.
    pub(super) fn whole_bytes(&self) -> Result<&'a [u8], DerError> {
        match self.content {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(DerError::Value("its bits are not whole bytes")),
        }
    }

    /// UTCTime or GeneralizedTime as RFC 5280 sections 4.1.2.5.1 and 4.1.2.5.2 narrow them: with
    /// seconds, in UTC, without a fraction.
    pub(super) fn time(&self) -> Result<SystemTime, DerError> {
        let wrong = DerError::Value("it has a time that is not of the form of RFC 5280");
        let (century, digits) = match (self.tag, self.content) {
            (UTC_TIME, [digits @ .., b'Z']) if digits.len() == 12 => (None, digits),
            (GENERALIZED_TIME, [a, b, digits @ .., b'Z']) if digits.len() == 12 => {
                (Some(two_digits(&[*a, *b]).ok_or(wrong)?), digits)
            }
            _ => return Err(wrong),
        };
        let mut parts = [0_u8; 6];
        for (part, pair) in parts.iter_mut().zip(digits.chunks_exact(2)) {
            *part = two_digits(pair).ok_or(wrong)?;
        }
        let [year, month, day, hour, minute, second] = parts;
        let century = century.unwrap_or(if year >= 50 { 19 } else { 20 });
        let year = i32::from(century) * 100 + i32::from(year);
        let month = Month::try_from(month).map_err(|_| wrong)?;
        let date = Date::from_calendar_date(year, month, day).map_err(|_| wrong)?;
        let time = Time::from_hms(hour, minute, second).map_err(|_| wrong)?;
        Ok(PrimitiveDateTime::new(date, time).assume_utc().into())
    }
}

/// An INTEGER's content without the bytes that only repeat its sign: equal numbers become equal bytes.
pub(super) fn shortest(mut content: &[u8]) -> &[u8] {
    while let [first, second, ..] = content
        && ((*first == 0x00 && *second < 0x80) || (*first == 0xff && *second >= 0x80))
    {
        content = &content[1..];
    }
    content
}

/// The length, and what follows it. Four bytes of length are more than any list has.
fn length(first: u8, after: &[u8]) -> Result<(usize, &[u8]), DerError> {
    if first < 0x80 {
        return Ok((usize::from(first), after));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return Err(DerError::Length);
    }
    let (bytes, rest) = after.split_at_checked(count).ok_or(DerError::Truncated)?;
    let length = bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if bytes[0] == 0 || length < 0x80 {
        return Err(DerError::Length);
    }
    Ok((length, rest))
}

fn two_digits(pair: &[u8]) -> Option<u8> {
    match pair {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some((a - b'0') * 10 + (b - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::rfc3339;

    #[test]
    fn reads_each_form_of_length_and_refuses_those_that_are_not_the_shortest() {
        let long: Vec<u8> = [&[0x04, 0x81, 0x80][..], &[7; 0x80]].concat();
        let content = Reader::only(&long, OCTET_STRING).expect("DER");
        assert_eq!(content, &[7; 0x80]);
        for (bytes, error) in [
            (&[0x04, 0x81, 0x01, 7][..], DerError::Length),
            (&[0x04, 0x82, 0x00, 0x80], DerError::Length),
            (&[0x04, 0x80, 7, 0, 0], DerError::Length),
            (&[0x04, 0x85, 1, 0, 0, 0, 0], DerError::Length),
            (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], DerError::Truncated),
            (&[0x04, 0x02, 7], DerError::Truncated),
            (&[0x04], DerError::Truncated),
            (&[0x1f, 0x01, 0x00], DerError::LongTag),
            (&[0x04, 0x01, 7, 0], DerError::Trailing { bytes: 1 }),
        ] {
            assert_eq!(Reader::only(bytes, OCTET_STRING), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn reads_times_of_both_kinds_and_no_others() {
        let read = |tag, text: &str| {
            let content = text.as_bytes();
            let element = Element {
                tag,
                whole: content,
                content,
            };
            element.time().map(rfc3339).ok()
        };
        for (tag, text, time) in [
            (UTC_TIME, "491231235959Z", "2049-12-31T23:59:59Z"),
            (UTC_TIME, "500101000000Z", "1950-01-01T00:00:00Z"),
            (GENERALIZED_TIME, "20500101000000Z", "2050-01-01T00:00:00Z"),
            (GENERALIZED_TIME, "00000101000000Z", "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(tag, text).as_deref(), Some(time));
        }
        for (tag, text) in [
            (UTC_TIME, "4912312359Z"),
            (UTC_TIME, "491231235959"),
            (UTC_TIME, "491231235959+0100"),
            (UTC_TIME, "490230000000Z"),
            (UTC_TIME, "4912312359-1Z"),
            (GENERALIZED_TIME, "20500101000000.5Z"),
            (GENERALIZED_TIME, "500101000000Z"),
            (INTEGER, "491231235959Z"),
        ] {
            assert_eq!(read(tag, text), None, "{text}");
        }
    }

    #[test]
    fn equal_numbers_have_equal_shortest_bytes() {
        assert_eq!(shortest(&[0, 0, 0x7f]), &[0x7f]);
        assert_eq!(shortest(&[0, 0x80]), &[0, 0x80]);
        assert_eq!(shortest(&[0xff, 0xff, 0x80]), &[0x80]);
        assert_eq!(shortest(&[0]), &[0]);
        assert_eq!(shortest(&[]), &[] as &[u8]);
    }
}
