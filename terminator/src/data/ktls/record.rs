//! What records other than data mean on a connection whose records the kernel opens, and how many
//! records one key may seal.

use rustls::AlertDescription;

/// What a record that is no data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The client will send no more (RFC 8446 section 6.1).
    Close,
    /// An alert that ends the connection at once.
    Fatal,
    /// Nothing that matters.
    Nothing,
    /// The client's next records are sealed with new keys; `answer`: it wants ours changed too.
    KeyUpdate {
        /// `update_requested`.
        answer: bool,
    },
}

/// Reads what the kernel gave of one or more records of one type. An error is the alert to end with.
pub(super) fn read(kind: u8, bytes: &[u8]) -> Result<Word, AlertDescription> {
    match (kind, bytes) {
        (ALERT, _) => alerts(bytes),
        // A key update ends its record, as keys change behind it (RFC 8446 section 5.1).
        (HANDSHAKE, [KEY_UPDATE, 0, 0, 1, request]) => match request {
            0 => Ok(Word::KeyUpdate { answer: false }),
            1 => Ok(Word::KeyUpdate { answer: true }),
            // RFC 8446 section 4.6.3.
            _ => Err(AlertDescription::IllegalParameter),
        },
        _ => Err(AlertDescription::UnexpectedMessage),
    }
}

/// Alerts, of which the kernel may give several at once. Their level says nothing (RFC 8446 section 6).
fn alerts(bytes: &[u8]) -> Result<Word, AlertDescription> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(AlertDescription::DecodeError);
    }
    let words = pairs
        .iter()
        .map(|[_, alert]| match AlertDescription::from(*alert) {
            AlertDescription::CloseNotify => Word::Close,
            // Followed by a close_notify (RFC 8446 section 6.1).
            AlertDescription::UserCanceled => Word::Nothing,
            _ => Word::Fatal,
        });
    Ok(words
        .into_iter()
        .find(|word| *word != Word::Nothing)
        .unwrap_or(Word::Nothing))
}

/// How many records the present keys may seal yet (RFC 8446 section 5.5). The kernel does not count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    /// A budget of `limit` records, of which some are used.
    pub(super) fn new(limit: u64, used: u64) -> Self {
        Self {
            limit,
            left: limit.saturating_sub(used),
        }
    }

    /// Takes what `len` bytes may need; `false` if that is more than there is.
    pub(super) fn take(&mut self, len: usize) -> bool {
        // Where the send buffer fills, a record may end early and another begin.
        let records = 2 * len.div_ceil(RECORD) as u64 + 1;
        let enough = self.left > records + RESERVE;
        if enough {
            self.left -= records;
        }
        enough
    }

    /// New keys are in force.
    pub(super) fn renew(&mut self) {
        self.left = self.limit;
    }
}

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

/// `update_not_requested` (RFC 8446 section 4.6.3).
pub(super) const OUR_KEY_UPDATE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

const KEY_UPDATE: u8 = 24;

/// Plaintext of a full record.
const RECORD: usize = 16 * 1024;

/// Records kept for key updates and alerts.
const RESERVE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_end_one_direction_or_both_or_nothing() {
        assert_eq!(read(ALERT, &[1, 0]), Ok(Word::Close));
        assert_eq!(read(ALERT, &[1, 90]), Ok(Word::Nothing));
        assert_eq!(read(ALERT, &[1, 90, 1, 0]), Ok(Word::Close));
        // A level does not make an alert harmless.
        assert_eq!(read(ALERT, &[1, 20]), Ok(Word::Fatal));
        assert_eq!(read(ALERT, &[2, 20, 1, 0]), Ok(Word::Fatal));
        for bad in [&[][..], &[1], &[1, 0, 1]] {
            assert_eq!(read(ALERT, bad), Err(AlertDescription::DecodeError));
        }
    }

    #[test]
    fn of_the_handshake_only_a_key_update_by_itself_may_come() {
        let update = |answer| Ok(Word::KeyUpdate { answer });
        assert_eq!(read(HANDSHAKE, &[24, 0, 0, 1, 0]), update(false));
        assert_eq!(read(HANDSHAKE, &[24, 0, 0, 1, 1]), update(true));
        assert_eq!(
            read(HANDSHAKE, &[24, 0, 0, 1, 2]),
            Err(AlertDescription::IllegalParameter)
        );
        for bad in [
            &[24, 0, 0, 1][..],
            &[24, 0, 0, 1, 0, 24],
            &[1, 0, 0, 0],
            &[],
        ] {
            assert_eq!(
                read(HANDSHAKE, bad),
                Err(AlertDescription::UnexpectedMessage)
            );
        }
        assert_eq!(read(20, &[1]), Err(AlertDescription::UnexpectedMessage));
    }

    #[test]
    fn a_key_seals_no_more_records_than_it_may() {
        let mut budget = Budget::new(1000, 10);
        let mut records = 10;
        while budget.take(40_000) {
            records += 3;
        }
        assert!(records < 1000 - RESERVE, "{records}");
        budget.renew();
        assert!(budget.take(40_000));
        assert!(!Budget::new(10, 11).take(1));
    }
}
