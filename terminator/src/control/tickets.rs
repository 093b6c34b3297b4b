//! The keys that session tickets are sealed with: made from the system's random numbers, replaced
//! in good time, never written anywhere.

use std::sync::Arc;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::snapshot::{TicketKey, TicketKeys};

/// The first keys of a process. Tickets of an earlier process are not taken: their keys are gone
/// with it, which is what makes them worth little (RFC 8446 section 8.1).
pub(super) fn first() -> Arc<TicketKeys> {
    Arc::new(TicketKeys {
        current: new_key(),
        previous: None,
    })
}

/// Replaces the keys after [`crate::limits::TICKET_KEY_PERIOD`]: tickets of the present key are
/// taken for one more period.
pub(super) fn rotated(keys: &TicketKeys) -> Arc<TicketKeys> {
    Arc::new(TicketKeys {
        current: new_key(),
        previous: Some(TicketKey {
            name: keys.current.name,
            key: keys.current.key.clone(),
        }),
    })
}

fn new_key() -> TicketKey {
    let mut name = [0; 16];
    let mut key = Zeroizing::new([0; 32]);
    // AWS-LC aborts the process itself where the kernel gives no random numbers.
    rand::fill(&mut name).expect("random numbers");
    rand::fill(key.as_mut()).expect("random numbers");
    TicketKey { name, key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_rotation_the_old_key_still_opens_and_a_new_one_seals() {
        let old = first();
        let new = rotated(&old);
        let previous = new.previous.as_ref().expect("kept");
        assert_eq!(previous.name, old.current.name);
        assert_eq!(*previous.key, *old.current.key);
        assert_ne!(new.current.name, old.current.name);
        assert_ne!(*new.current.key, *old.current.key);
        let newest = rotated(&new);
        assert_eq!(
            newest.previous.as_ref().expect("kept").name,
            new.current.name
        );
    }
}
