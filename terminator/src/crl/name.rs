//! Names of issuers: compared as RFC 5280 section 7.1 wants it, and written for people.

use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::der::{DerError, Element, OBJECT_IDENTIFIER, Reader, SEQUENCE, SET};
use crate::certificate::printable;

/// Whether two Names (DER) are the same: step by step the same attributes, whose text may differ in
/// the kind of string, in case and in spaces.
///
/// Of RFC 4518, which RFC 5280 refers to, this leaves out what needs tables of characters; names that
/// only those would equate are taken for different ones.
pub(super) fn same_name(one: &[u8], other: &[u8]) -> bool {
    one == other || steps_match(one, other).unwrap_or(false)
}

/// A Name, DER, for people.
pub(super) fn readable(name: &[u8]) -> String {
    match X509Name::from_der(name) {
        Ok((_, name)) => printable(&name.to_string()),
        Err(_) => "an unreadable name".to_owned(),
    }
}

fn steps_match(one: &[u8], other: &[u8]) -> Result<bool, DerError> {
    let mut one = Reader::new(Reader::only(one, SEQUENCE)?);
    let mut other = Reader::new(Reader::only(other, SEQUENCE)?);
    while !one.is_empty() && !other.is_empty() {
        let (one, other) = (one.expect(SET)?.reader(), other.expect(SET)?.reader());
        if !step_matches(one, other)? {
            return Ok(false);
        }
    }
    Ok(one.is_empty() && other.is_empty())
}

/// The order of a SET depends on the bytes of its members, so each is looked for among all.
fn step_matches(mut one: Reader<'_>, other: Reader<'_>) -> Result<bool, DerError> {
    let mut count = 0;
    while !one.is_empty() {
        let attribute = Attribute::parse(&one.next()?)?;
        let mut all = other;
        let mut found = false;
        while !all.is_empty() && !found {
            found = Attribute::parse(&all.next()?)?.is(&attribute);
        }
        if !found {
            return Ok(false);
        }
        count += 1;
    }
    let mut rest = other;
    (0..count).try_for_each(|_| rest.next().map(drop))?;
    Ok(rest.is_empty())
}

/// An AttributeTypeAndValue.
struct Attribute<'a> {
    kind: &'a [u8],
    value: Element<'a>,
}

impl<'a> Attribute<'a> {
    fn parse(element: &Element<'a>) -> Result<Self, DerError> {
        let mut parts = element.reader();
        let kind = parts.expect(OBJECT_IDENTIFIER)?.content;
        let value = parts.next()?;
        parts.end()?;
        Ok(Self { kind, value })
    }

    fn is(&self, other: &Self) -> bool {
        if self.kind != other.kind {
            return false;
        }
        match (self.words(), other.words()) {
            (Some(one), Some(other)) => one.eq(other),
            _ => self.value.whole == other.value.whole,
        }
    }

    /// The words of a text in lower case.
    fn words(&self) -> Option<impl Iterator<Item = String>> {
        let text = TEXTS.contains(&self.value.tag);
        let text = text.then(|| str::from_utf8(self.value.content).ok())??;
        Some(text.split_whitespace().map(str::to_lowercase))
    }
}

/// UTF8String, PrintableString, IA5String.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_in_their_words_and_not_in_how_they_are_spelled() {
        let utf8 = name(&[&[(3, 0x0c, "Some CA")], &[(10, 0x0c, "Org")]]);
        for (same, steps) in [
            (
                true,
                &[&[(3, 0x13, "sOME  ca ")][..], &[(10, 0x16, "ORG")]][..],
            ),
            (false, &[&[(3, 0x0c, "SomeCA")], &[(10, 0x0c, "Org")]]),
            (false, &[&[(10, 0x0c, "Org")], &[(3, 0x0c, "Some CA")]]),
            (false, &[&[(3, 0x0c, "Some CA")]]),
            (false, &[&[(3, 0x0c, "Some CA"), (10, 0x0c, "Org")]]),
            (false, &[&[(3, 0x14, "some CA")], &[(10, 0x0c, "Org")]]),
        ] {
            let other = name(steps);
            assert_eq!(same_name(&utf8, &other), same, "{steps:?}");
            assert_eq!(same_name(&other, &utf8), same, "{steps:?}");
        }
        assert!(!same_name(&utf8, &[]) && !same_name(&[0x30], &utf8));
    }

    #[test]
    fn the_attributes_of_one_step_have_no_order() {
        let one = name(&[&[(3, 0x0c, "a"), (10, 0x0c, "b")]]);
        assert!(same_name(
            &one,
            &name(&[&[(10, 0x13, "B"), (3, 0x0c, "a")]])
        ));
        assert!(!same_name(&one, &name(&[&[(3, 0x0c, "a")]])));
    }

    /// Steps of attributes: last arc of the type, tag, text; each shorter than 128 bytes.
    fn name(steps: &[&[(u8, u8, &str)]]) -> Vec<u8> {
        let tlv = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).expect("short");
            [&[tag, length], content].concat()
        };
        let attribute = |(arc, tag, text): &(u8, u8, &str)| {
            let id = tlv(OBJECT_IDENTIFIER, &[0x55, 0x04, *arc]);
            tlv(SEQUENCE, &[id, tlv(*tag, text.as_bytes())].concat())
        };
        let step = |all: &&[(u8, u8, &str)]| {
            let all: Vec<Vec<u8>> = all.iter().map(attribute).collect();
            tlv(SET, &all.concat())
        };
        let steps: Vec<Vec<u8>> = steps.iter().map(step).collect();
        tlv(SEQUENCE, &steps.concat())
    }
}
