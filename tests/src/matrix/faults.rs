//! The rows of the matrix: the responder's own misbehaviours, and those of the way to it.

use crate::responder::{Answer, Mode, ODD, STUCK, WRONG};

/// A row.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Name in the table.
    pub name: String,
    /// What kind of fault it is.
    pub kind: Kind,
    /// How the responder treats requests.
    pub mode: Mode,
    /// How it is reached.
    pub way: Way,
}

/// What may be stapled under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing may.
    Wrong,
    /// Nothing can; waiting ends at a deadline only.
    Stuck,
    /// The answer is right and should be.
    Odd,
    /// The way to the responder is at fault.
    Way,
}

/// How a responder is found and reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By its address.
    Address,
    /// By a name that does not exist.
    NoSuchName,
    /// By a name whose server fails.
    LookupFails,
    /// By a name whose server does not answer.
    LookupSilent,
    /// By a name whose server fails two thirds of the time.
    LookupFlaps,
    /// By a name with an IPv6 address that leads nowhere and a good IPv4 one.
    BlackHole6,
    /// By a name whose only address leads nowhere.
    BlackHole,
}

impl Fault {
    /// Every row.
    pub fn all() -> Vec<Self> {
        let own = |kind, (name, mode): (&str, &Mode)| Self {
            name: name.to_owned(),
            kind,
            mode: mode.clone(),
            way: Way::Address,
        };
        let wrong = WRONG.iter().map(|(name, mode, _)| (*name, mode));
        let rest = |rows: &'static [(&str, Mode)]| rows.iter().map(|(name, mode)| (*name, mode));
        let ways = [
            ("DNS: no such name", Way::NoSuchName),
            ("DNS: server failure", Way::LookupFails),
            ("DNS: no answer", Way::LookupSilent),
            ("DNS flapping", Way::LookupFlaps),
            (
                "IPv6 black hole beside a good IPv4 address",
                Way::BlackHole6,
            ),
            ("black hole", Way::BlackHole),
        ];
        let ways = ways.map(|(name, way)| Self {
            name: name.to_owned(),
            kind: Kind::Way,
            mode: Mode::Says(Answer::Good),
            way,
        });
        wrong
            .map(|row| own(Kind::Wrong, row))
            .chain(rest(STUCK).map(|row| own(Kind::Stuck, row)))
            .chain(ways)
            .chain(rest(ODD).map(|row| own(Kind::Odd, row)))
            .collect()
    }

    /// The responder's mode; a redirect leads to `url`, where it comes from.
    pub(super) fn mode_for(&self, url: &str) -> Mode {
        match &self.mode {
            Mode::Redirects(_) => Mode::Redirects(url.to_owned()),
            other => other.clone(),
        }
    }
}
