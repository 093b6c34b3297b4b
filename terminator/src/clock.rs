//! The wall clock, read in one place, and instants written for people.
//!
//! Pure modules take a [`SystemTime`] as an argument and never read it themselves.

use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The present instant.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Writes an instant as RFC 3339 in UTC with second precision.
pub fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    at.replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "an unrepresentable time".to_owned())
}

/// Reads an RFC 3339 instant.
pub fn parse_rfc3339(text: &str) -> Result<SystemTime, time::error::Parse> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let at = parse_rfc3339("2026-11-20T22:54:00Z").expect("valid");
        assert_eq!(rfc3339(at), "2026-11-20T22:54:00Z");
    }
}
