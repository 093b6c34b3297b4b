//! For how long an HTTP server calls its answer fresh (RFC 9111 section 4.2). Pure.
//!
//! Only the schedule looks at it: it may bring a refresh forward. How long a response may be stapled
//! is for its signed content alone to say.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::egress::Head;

/// How long from its arrival an answer is fresh; `None` where the server does not say. `no-store` and
/// `no-cache` are about copies, not about when there will be something newer, and say nothing here.
pub(super) fn fresh_for(head: &Head) -> Option<Duration> {
    let directives = head.cache_control.as_deref().unwrap_or_default();
    let mut max_age = None;
    for directive in directives.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return None,
            "max-age" => max_age = value.trim().trim_matches('"').parse().ok(),
            _ => {}
        }
    }
    // RFC 9111 section 5.3: where there is max-age, Expires is ignored.
    let lifetime = match max_age {
        Some(seconds) => Duration::from_secs(seconds),
        None => {
            let expires = http_date(head.expires.as_deref()?)?;
            let date = http_date(head.date.as_deref()?)?;
            expires.duration_since(date).unwrap_or_default()
        }
    };
    Some(lifetime.min(LONGEST).saturating_sub(age(head)))
}

/// What the server that made the answer believes the time to be at its arrival.
pub(super) fn dated(head: &Head) -> Option<SystemTime> {
    http_date(head.date.as_deref()?)?.checked_add(age(head))
}

/// How long caches on the way kept the answer (RFC 9111 section 5.1).
fn age(head: &Head) -> Duration {
    let seconds = head.age.as_deref().and_then(|age| age.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST)
}

/// The one form of dates that is still written (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text.trim(), &Rfc2822)
        .map(SystemTime::from)
        .ok()
}

/// No figure of a header is taken for more, so that sums cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn head(cache_control: Option<&str>, expires: Option<&str>, age: Option<&str>) -> Head {
        Head {
            cache_control: cache_control.map(str::to_owned),
            expires: expires.map(str::to_owned),
            age: age.map(str::to_owned),
            date: Some("Sat, 21 Nov 2026 07:00:00 GMT".to_owned()),
            ..Head::default()
        }
    }

    #[test]
    fn max_age_counts_from_when_the_answer_was_made_and_outweighs_expires() {
        let later = Some("Sat, 21 Nov 2026 08:00:00 GMT");
        let seconds = |head| fresh_for(&head).map(|fresh| fresh.as_secs());
        assert_eq!(
            seconds(head(Some("public, max-age=600"), later, None)),
            Some(600)
        );
        assert_eq!(
            seconds(head(Some("Max-Age=\"600\""), None, Some("100"))),
            Some(500)
        );
        assert_eq!(
            seconds(head(Some("max-age=600"), None, Some("9999"))),
            Some(0)
        );
        assert_eq!(seconds(head(None, later, None)), Some(3600));
        assert_eq!(
            seconds(head(Some("no-cache, max-age=600"), later, None)),
            None
        );
        assert_eq!(seconds(head(Some("public"), None, None)), None);
        assert_eq!(seconds(head(None, Some("0"), None)), None);
    }

    #[test]
    fn an_answer_from_a_cache_is_dated_by_its_age() {
        let at = clock::parse_rfc3339("2026-11-21T07:01:40Z").expect("valid");
        assert_eq!(dated(&head(None, None, Some("100"))), Some(at));
        assert_eq!(dated(&Head::default()), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_left(text in ".{0,60}", number in any::<u64>()) {
            let number = number.to_string();
            let maximum = format!("max-age={number}");
            for control in [text.as_str(), &maximum] {
                let mut head = head(Some(control), Some(&text), Some(&number));
                head.date = Some(text.clone());
                let _ = dated(&head);
                prop_assert!(fresh_for(&head).is_none_or(|fresh| fresh <= LONGEST));
            }
        }
    }
}
