//! Which certificates a list speaks about: its issuing distribution point against what the
//! certificate says (RFC 5280 sections 4.2.1.13, 5.2.5 and 6.3.3).
//!
//! Names are compared byte by byte. Two spellings of one name therefore differ, and a list that fits
//! is refused; one that does not fit is never taken.

use std::fmt;
use std::iter;

use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
use x509_parser::x509::X509Version;

use super::der::{DerError, Element, Reader, SEQUENCE, SET, context};
use super::name::readable;
use super::refusal::{Kind, Refusal};
use crate::certificate::printable;

/// An issuing distribution point.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    point: Option<Point<'a>>,
    only: Option<Kind>,
    reasons: Option<Reasons>,
    indirect: bool,
}

impl<'a> Scope<'a> {
    /// Reads the value of the issuingDistributionPoint extension.
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, DerError> {
        let mut fields = Reader::new(Reader::only(value, SEQUENCE)?);
        if fields.is_empty() {
            return Err(DerError::Value("it is empty, which it must not be"));
        }
        let point = fields.optional(&[context(0, true)])?;
        let user = flag(&mut fields, 1)?;
        let ca = flag(&mut fields, 2)?;
        let reasons = fields.optional(&[context(3, false)])?;
        let indirect = flag(&mut fields, 4)?;
        let attribute = flag(&mut fields, 5)?;
        fields.end()?;
        let only = match (user, ca, attribute) {
            (false, false, false) => None,
            (true, false, false) => Some(Kind::User),
            (false, true, false) => Some(Kind::Ca),
            (false, false, true) => Some(Kind::Attribute),
            _ => return Err(DerError::Value("it contains only two kinds at once")),
        };
        Ok(Self {
            point: point.map(|point| Point::parse(&point)).transpose()?,
            only,
            reasons: reasons.map(|bits| Reasons::parse(&bits)).transpose()?,
            indirect,
        })
    }

    /// Refuses a list that does not speak about certificates like this one.
    fn check_kind(&self, certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
        let ca = certificate.basic_constraints();
        let ca = ca.map_err(|_| unusable("its basicConstraints do not parse"))?;
        let kind = match ca.is_some_and(|ca| ca.value.ca) {
            true => Some(Kind::Ca),
            // An older certificate cannot say what it is.
            false => (certificate.version() == X509Version::V3).then_some(Kind::User),
        };
        match self.only.filter(|only| Some(*only) != kind) {
            Some(only) => Err(Refusal::WrongKind { only }),
            None => Ok(()),
        }
    }
}

/// Refuses a list that does not speak about the certificate (RFC 5280 section 6.3.3 (b)); else the
/// reasons for revocation that the list covers (d). A list without a scope is about everything that
/// its issuer has issued.
pub(super) fn covered(
    scope: Option<&Scope<'_>>,
    certificate: &X509Certificate<'_>,
) -> Result<Reasons, Refusal> {
    let own = OwnPoints::of(certificate)?;
    let Some(scope) = scope else {
        return Ok(Reasons::ALL);
    };
    if scope.indirect {
        return Err(Refusal::Indirect);
    }
    scope.check_kind(certificate)?;
    let reasons = scope.reasons.unwrap_or(Reasons::ALL);
    match &scope.point {
        Some(point) => Ok(reasons.and(own.reasons_for(point)?)),
        None => Ok(reasons),
    }
}

fn flag(fields: &mut Reader<'_>, number: u8) -> Result<bool, DerError> {
    let flag = fields.optional(&[context(number, false)])?;
    flag.map_or(Ok(false), |flag| flag.boolean())
}

/// The distribution points of a certificate at which its own issuer speaks.
struct OwnPoints<'a> {
    /// Name of the issuer, DER.
    issuer: &'a [u8],
    points: Vec<OwnPoint<'a>>,
}

impl<'a> OwnPoints<'a> {
    /// Refuses certificates of which somebody else keeps the lists (a cRLIssuer in every point, RFC
    /// 5280 section 4.2.1.13): that they are on none of their issuer's says nothing.
    fn of(certificate: &'a X509Certificate<'_>) -> Result<Self, Refusal> {
        let extensions = certificate.extensions().iter();
        let mut extensions = extensions.filter(|e| e.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS);
        let value = extensions.next().map(|extension| extension.value);
        let points = value.map_or(Ok(Vec::new()), own_points);
        let mut points = points.map_err(|_| unusable("its cRLDistributionPoints do not parse"))?;
        let none = points.is_empty();
        points.retain(|point| !point.elsewhere);
        if points.is_empty() && !none {
            return Err(Refusal::KeptElsewhere);
        }
        let issuer = certificate.issuer().as_raw();
        Ok(Self { issuer, points })
    }

    /// The reasons for which the certificate sends its readers to a list's point; if it never does,
    /// the list is of another place. The issuer's own name counts as a point of every certificate
    /// (section 6.3.3, last paragraph).
    fn reasons_for(&self, point: &Point<'_>) -> Result<Reasons, Refusal> {
        let named = self
            .points
            .iter()
            .filter_map(|own| Some((own.point?, own.reasons)));
        let whole = (Point::Directory(self.issuer), Reasons::ALL);
        let met = named.clone().chain([whole]);
        let met = met.filter(|(own, _)| point.meets(own, self.issuer));
        let reasons = met.map(|(_, reasons)| reasons).reduce(Reasons::or);
        reasons.ok_or_else(|| Refusal::OtherPoint {
            list: point.to_string(),
            certificate: named.take(4).map(|(own, _)| own.to_string()).collect(),
        })
    }
}

fn own_points(value: &[u8]) -> Result<Vec<OwnPoint<'_>>, DerError> {
    let mut rest = Reader::new(Reader::only(value, SEQUENCE)?);
    let mut points = Vec::new();
    while !rest.is_empty() {
        points.push(OwnPoint::parse(&rest.expect(SEQUENCE)?)?);
    }
    Ok(points)
}

/// A DistributionPoint of a certificate.
struct OwnPoint<'a> {
    point: Option<Point<'a>>,
    reasons: Reasons,
    /// It has a cRLIssuer.
    elsewhere: bool,
}

impl<'a> OwnPoint<'a> {
    fn parse(element: &Element<'a>) -> Result<Self, DerError> {
        let mut fields = element.reader();
        let point = fields.optional(&[context(0, true)])?;
        let reasons = fields.optional(&[context(1, false)])?;
        let elsewhere = fields.optional(&[context(2, true)])?.is_some();
        fields.end()?;
        Ok(Self {
            point: point.map(|point| Point::parse(&point)).transpose()?,
            reasons: reasons.map_or(Ok(Reasons::ALL), |bits| Reasons::parse(&bits))?,
            elsewhere,
        })
    }
}

/// A DistributionPointName.
#[derive(Clone, Copy, Debug)]
enum Point<'a> {
    /// What is inside GeneralNames.
    Full(&'a [u8]),
    /// Name, DER.
    Directory(&'a [u8]),
    /// What follows the tag of a RelativeDistinguishedName: one more step below the issuer's name.
    Relative(&'a [u8]),
}

impl<'a> Point<'a> {
    /// `element` is the tag that stands around the choice.
    fn parse(element: &Element<'a>) -> Result<Self, DerError> {
        let mut choice = element.reader();
        let name = choice.next()?;
        choice.end()?;
        if name.tag == context(1, true) {
            return Ok(Self::Relative(&name.whole[1..]));
        }
        if name.tag != context(0, true) {
            let (wanted, found) = (context(0, true), name.tag);
            return Err(DerError::Unexpected { wanted, found });
        }
        let mut names = name.reader();
        while !names.is_empty() {
            names.next()?;
        }
        Ok(Self::Full(name.content))
    }

    /// Whether a name of one is a name of the other. `issuer` is the Name of the CA that signed both.
    fn meets(&self, other: &Point<'_>, issuer: &[u8]) -> bool {
        self.names(issuer)
            .any(|name| other.names(issuer).any(|other| name == other))
    }

    fn names(self, issuer: &'a [u8]) -> impl Iterator<Item = OneName<'a>> {
        let (mut full, single) = match self {
            Self::Full(names) => (Reader::new(names), None),
            Self::Directory(name) => (Reader::default(), Some(OneName::directory(name, &[]))),
            Self::Relative(last) => (Reader::default(), Some(OneName::directory(issuer, last))),
        };
        let full = iter::from_fn(move || full.next().ok().map(|name| OneName::general(&name)));
        full.chain(single)
    }
}

/// For people: the URIs and directory names.
impl fmt::Display for Point<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(_) => f.write_str("a name below that of the issuer"),
            _ => {
                let mut separator = "";
                self.names(&[]).take(4).try_for_each(|name| {
                    write!(f, "{separator}{name}")?;
                    separator = ", ";
                    Ok(())
                })
            }
        }
    }
}

/// One name of a distribution point.
enum OneName<'a> {
    /// A Name, DER, and the step below it, of which the tag is left out; or nothing.
    Directory { name: &'a [u8], below: &'a [u8] },
    /// Any other GeneralName, DER.
    Other(&'a [u8]),
}

impl<'a> OneName<'a> {
    fn directory(name: &'a [u8], below: &'a [u8]) -> Self {
        Self::Directory { name, below }
    }

    fn general(name: &Element<'a>) -> Self {
        match name.tag == context(4, true) {
            true => Self::directory(name.content, &[]),
            false => Self::Other(name.whole),
        }
    }

    /// The steps of a directory name, one after another, DER.
    fn steps(name: &'a [u8], below: &'a [u8]) -> impl Iterator<Item = u8> {
        let above = Reader::only(name, SEQUENCE).unwrap_or(name).iter();
        let tag = (!below.is_empty()).then_some(SET);
        above.copied().chain(tag).chain(below.iter().copied())
    }
}

impl PartialEq for OneName<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Other(a), Self::Other(b)) => a == b,
            (
                Self::Directory { name, below },
                Self::Directory {
                    name: other_name,
                    below: other_below,
                },
            ) => Self::steps(name, below).eq(Self::steps(other_name, other_below)),
            _ => false,
        }
    }
}

impl fmt::Display for OneName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { name, .. } => f.write_str(&readable(name)),
            Self::Other(der) => {
                let mut reader = Reader::new(der);
                match reader.expect(context(6, false)) {
                    Ok(uri) => f.write_str(&printable(&String::from_utf8_lossy(uri.content))),
                    Err(_) => f.write_str("a name that is no URI"),
                }
            }
        }
    }
}

/// Reasons for revocation, a bit for each (ReasonFlags, RFC 5280 section 4.2.1.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reasons(u16);

impl Reasons {
    /// keyCompromise (1) to aACompromise (8).
    pub(super) const ALL: Self = Self(0b1_1111_1110);

    fn parse(bits: &Element<'_>) -> Result<Self, DerError> {
        let (unused, bytes) = match bits.content {
            [unused @ 0..=7, bytes @ ..] => (*unused, bytes),
            _ => return Err(DerError::Value("its reasons are no BIT STRING")),
        };
        let count = (bytes.len() * 8).saturating_sub(usize::from(unused));
        let set = (1..=8_usize).filter(|bit| {
            let byte = bytes.get(bit / 8).copied().unwrap_or(0);
            *bit < count && byte & (0x80 >> (bit % 8)) != 0
        });
        Ok(Self(set.fold(0, |flags, bit| flags | 1 << bit)))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().enumerate();
        let mut names = names.filter(|(bit, _)| self.0 & (1 << (bit + 1)) != 0);
        match names.next() {
            None => return f.write_str("no reason at all"),
            Some((_, name)) => f.write_str(name)?,
        }
        names.try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

fn unusable(reason: &str) -> Refusal {
    Refusal::Certificate {
        whose: "in question",
        reason: reason.to_owned(),
    }
}

const NAMES: [&str; 8] = [
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
];
