//! Session tickets that every core of the process can open.
//!
//! The keys come with the snapshot, so a session resumes on whichever core its client reaches. A
//! ticket is sealed with AES-256-GCM and bound to the certificate that the session was made under: when
//! that certificate is replaced or refused, its tickets open no more. Layout (after RFC 5077 section 4):
//! key name 16 bytes, nonce 12 bytes, sealed state.

use std::cell::RefCell;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use super::driven::ticket_certificate;
use crate::limits::TICKET_KEY_PERIOD;
use crate::snapshot::{TicketKey, TicketKeys};

/// Seals and opens tickets with the keys of this core's snapshot.
#[derive(Debug)]
pub(super) struct Tickets;

struct Opened {
    name: [u8; NAME],
    key: LessSafeKey,
}

struct Keys {
    source: Arc<TicketKeys>,
    current: Opened,
    previous: Option<Opened>,
}

thread_local! {
    static KEYS: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// Uses these keys on this core from now on.
pub(super) fn adopt(keys: &Arc<TicketKeys>) {
    KEYS.with_borrow_mut(|present| {
        if present
            .as_ref()
            .is_some_and(|p| Arc::ptr_eq(&p.source, keys))
        {
            return;
        }
        *present = Opened::new(&keys.current).map(|current| Keys {
            source: Arc::clone(keys),
            current,
            previous: keys.previous.as_ref().and_then(Opened::new),
        });
    });
}

impl Opened {
    fn new(key: &TicketKey) -> Option<Self> {
        let unbound = UnboundKey::new(&AES_256_GCM, key.key.as_ref()).ok()?;
        Some(Self {
            name: key.name,
            key: LessSafeKey::new(unbound),
        })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_KEY_PERIOD.as_secs().try_into().unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let certificate = ticket_certificate()?;
        KEYS.with_borrow(|keys| {
            let key = &keys.as_ref()?.current;
            let mut nonce = [0; NONCE_LEN];
            aws_lc_rs::rand::fill(&mut nonce).ok()?;
            let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + TAG);
            ticket.extend_from_slice(&key.name);
            ticket.extend_from_slice(&nonce);
            ticket.extend_from_slice(plain);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let state = &mut ticket[NAME + NONCE_LEN..];
            let tag = key
                .key
                .seal_in_place_separate_tag(nonce, Aad::from(certificate.0), state)
                .ok()?;
            ticket.extend_from_slice(tag.as_ref());
            Some(ticket)
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let certificate = ticket_certificate()?;
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        KEYS.with_borrow(|keys| {
            let keys = keys.as_ref()?;
            let key = std::iter::once(&keys.current)
                .chain(&keys.previous)
                .find(|key| key.name == name)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut state = sealed.to_vec();
            let len = key
                .key
                .open_in_place(nonce, Aad::from(certificate.0), &mut state)
                .ok()?
                .len();
            state.truncate(len);
            Some(state)
        })
    }
}

/// Length of a key's name.
const NAME: usize = 16;

/// Length of the GCM tag.
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Fingerprint;
    use crate::data::driven::Driven;
    use crate::observability::counters::Stapling;

    fn keys(current: u8, previous: Option<u8>) -> Arc<TicketKeys> {
        let key = |n: u8| TicketKey {
            name: [n; 16],
            key: [n; 32].into(),
        };
        Arc::new(TicketKeys {
            current: key(current),
            previous: previous.map(key),
        })
    }

    fn under<R>(certificate: u8, call: impl FnOnce() -> R) -> R {
        let mut driven = Driven {
            served: Some((Fingerprint([certificate; 32]), Stapling::Stapled)),
            ..Driven::default()
        };
        driven.during(call)
    }

    #[test]
    fn a_ticket_opens_until_its_key_was_replaced_twice() {
        adopt(&keys(1, None));
        let ticket = under(9, || Tickets.encrypt(b"state")).expect("sealed");
        assert_eq!(
            under(9, || Tickets.decrypt(&ticket)).as_deref(),
            Some(&b"state"[..])
        );
        adopt(&keys(2, Some(1)));
        assert_eq!(
            under(9, || Tickets.decrypt(&ticket)).as_deref(),
            Some(&b"state"[..])
        );
        adopt(&keys(3, Some(2)));
        assert_eq!(under(9, || Tickets.decrypt(&ticket)), None);
    }

    #[test]
    fn a_ticket_does_not_open_under_another_certificate() {
        adopt(&keys(1, None));
        let ticket = under(9, || Tickets.encrypt(b"state")).expect("sealed");
        assert_eq!(under(8, || Tickets.decrypt(&ticket)), None);
    }

    #[test]
    fn a_damaged_or_short_ticket_does_not_open() {
        adopt(&keys(1, None));
        let ticket = under(9, || Tickets.encrypt(b"state")).expect("sealed");
        for len in 0..ticket.len() {
            assert_eq!(under(9, || Tickets.decrypt(&ticket[..len])), None);
        }
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(under(9, || Tickets.decrypt(&damaged)), None, "byte {at}");
        }
    }
}
