//! Properties of the walk over arbitrary bytes.

mod hellos;

use clinch_hello::{Reading, is_address, normalise_name, read, walk};
use hellos::{Hand, by_rustls, list16, name, records};
use proptest::prelude::*;

fn hand() -> impl Strategy<Value = Hand> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let extension = (
        prop_oneof![Just(13u16), Just(16), Just(43), Just(5), 50..60u16],
        bytes(12),
    );
    (
        any::<u16>(),
        bytes(33),
        proptest::collection::vec(any::<u16>(), 0..20),
        proptest::collection::vec(extension, 0..6),
        proptest::collection::vec(b'a'..=b'z', 1..60),
    )
        .prop_map(|(version, session_id, suites, mut extensions, host)| {
            extensions.push((0, name(&host)));
            extensions.push((51, list16(&host)));
            Hand {
                version,
                session_id,
                suites: suites.into_iter().flat_map(u16::to_be_bytes).collect(),
                compression: vec![0],
                extensions: Some(extensions),
            }
        })
}

/// Uses everything that a reading offers, which must not panic.
fn exhaust(reading: &Reading<'_>) {
    if let Reading::Complete(hello) = reading {
        let _ = hello.cipher_suites().count() + hello.signature_schemes().count();
        let _ = hello.alpn().count() + hello.consumed();
        if let Some(raw) = hello.server_name() {
            let _ = normalise_name(raw, &mut [0; 255]);
            let _ = is_address(raw);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        exhaust(&read(&bytes, &mut [0; 256]));
        let _ = walk::<[u8], 32>(&bytes);
        let _ = normalise_name(&bytes, &mut [0; 255]);
    }

    #[test]
    fn no_message_makes_it_panic(hand in hand(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut message = hand.message();
        for (at, value) in flips {
            let at = at.index(message.len());
            message[at] = value;
        }
        exhaust(&read(&records(&message, 1 << 14), &mut [0; 1 << 12]));
        exhaust(&read(&records(&message, 17), &mut [0; 1 << 12]));
    }

    #[test]
    fn how_it_is_cut_into_records_changes_nothing(hand in hand(), size in 1usize..300) {
        let message = hand.message();
        let (mut one, mut two) = ([0; 1 << 12], [0; 1 << 12]);
        let (in_one, in_many) = (records(&message, 1 << 14), records(&message, size));
        let whole = read(&in_one, &mut one);
        let cut = read(&in_many, &mut two);
        match (whole, cut) {
            (Reading::Complete(whole), Reading::Complete(cut)) => {
                prop_assert_eq!(whole.outline(), cut.outline());
                prop_assert_eq!(whole.message(), cut.message());
            }
            (whole, cut) => prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}")),
        }
    }

    #[test]
    fn every_prefix_is_incomplete(host in "[a-z]{1,20}\\.example", size in 1usize..2000) {
        let sent = by_rustls(&host, &["h2"], rustls::ALL_VERSIONS);
        let message = [&sent[5..]].concat();
        let sent = records(&message, size);
        let mut scratch = [0; 1 << 13];
        for end in 0..sent.len() {
            let reading = read(&sent[..end], &mut scratch);
            prop_assert!(matches!(reading, Reading::Incomplete), "at {}: {:?}", end, reading);
        }
        prop_assert!(matches!(read(&sent, &mut [0; 1 << 13]), Reading::Complete(_)));
    }

    #[test]
    fn a_normal_name_stays_as_it_is(raw in "[A-Za-z0-9_.-]{1,260}") {
        let mut first = [0; 255];
        if let Some(name) = normalise_name(raw.as_bytes(), &mut first) {
            let mut second = [0; 255];
            prop_assert_eq!(normalise_name(name.as_bytes(), &mut second), Some(name));
        }
    }
}
