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

/// Writes an instant as RFC 3339 in UTC with second precision. What RFC 3339 cannot write, which is
/// anything outside the years 0 to 9999, is called that.
pub fn rfc3339(at: SystemTime) -> String {
    let since = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|s| -s),
    };
    since
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| "an unrepresentable time".to_owned())
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

    #[test]
    fn an_instant_beyond_the_year_9999_is_written_without_panic() {
        let last = parse_rfc3339("9999-12-31T23:59:59Z").expect("valid");
        assert_eq!(rfc3339(last), "9999-12-31T23:59:59Z");
        let beyond = last + std::time::Duration::from_secs(1);
        assert_eq!(rfc3339(beyond), "an unrepresentable time");
    }
}
