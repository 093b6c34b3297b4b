//! Whatever the bytes: no panic, and no verdict that the CA did not sign.

use clinch::crl::{RefusalKind, decode};
use proptest::prelude::*;
use rcgen::SigningKey as _;

use super::CA;
use super::authority::{ECDSA_SHA256, List, now, reason, sequence, tlv};

/// A list with everything in it that is read.
fn list() -> List {
    let mut list = List::new();
    list.revoke(&[reason(1)]);
    list.scope(&[tlv(0x81, &[&[0xff]])]);
    list
}

#[test]
fn no_changed_bit_of_a_list_goes_unnoticed() {
    let crl = CA.sign(&list());
    let revoked = CA.judge(&crl).expect_err("listed");
    assert_eq!(revoked.kind(), RefusalKind::Revoked);
    for at in 0..crl.len() {
        for bit in 0..8 {
            let mut changed = crl.clone();
            changed[at] ^= 1 << bit;
            let refusal = CA.judge(&changed).expect_err("changed");
            let noticed = [RefusalKind::Malformed, RefusalKind::Authority];
            assert!(noticed.contains(&refusal.kind()), "byte {at}: {refusal}");
        }
    }
}

#[test]
fn no_shortened_or_lengthened_list_goes_unnoticed() {
    let crl = CA.sign(&List::new());
    CA.judge(&crl).expect("not listed");
    let longer = [&crl[..], &[0]].concat();
    let shorter = (0..crl.len()).map(|end| crl[..end].to_vec());
    for changed in shorter.chain([longer]) {
        let refusal = CA.judge(&changed).expect_err("changed");
        assert_eq!(refusal.kind(), RefusalKind::Malformed, "{refusal}");
    }
}

proptest! {
    #[test]
    fn no_changed_byte_of_a_list_goes_unnoticed(at: prop::sample::Index, flip in 1_u8..) {
        let mut crl = CA.sign(&List::new());
        let at = at.index(crl.len());
        crl[at] ^= flip;
        let refusal = CA.judge(&crl).expect_err("changed");
        let noticed = [RefusalKind::Malformed, RefusalKind::Authority];
        prop_assert!(noticed.contains(&refusal.kind()), "byte {}: {}", at, refusal);
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        prop_assert!(CA.judge(&bytes).is_err());
        prop_assert!(decode(&bytes).and_then(|der| CA.judge(&der)).is_err());
    }

    /// Past the signature, too: the CA itself may sign nonsense.
    #[test]
    fn any_bytes_that_the_ca_signs_are_judged_without_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut tbs = list().encode();
        for (at, byte) in changes {
            let at = at.index(tbs.len());
            tbs[at] = byte;
        }
        let signature = CA.issuer.key().sign(&tbs).expect("signed");
        let crl = sequence(&[&tbs, &ECDSA_SHA256, &tlv(0x03, &[&[0], &signature])]);
        if let Ok(proof) = CA.judge(&crl) {
            prop_assert!(proof.not_after() > now());
        }
    }
}
