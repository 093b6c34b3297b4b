//! Updates: a line of text, an Ed25519 signature over it, and the bytes whose SHA-256 it names.
//!
//! `clinch-update 1 VERSION SIZE SHA256` — [`receive`] checks the signature and the version before
//! it touches the boot partition, and the bytes before it gives them a name that boots.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::machine::{from_hex, to_hex};
use crate::slots::{Slot, Slots, Version};

/// Why an update is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The first line is no update's.
    #[error("this is no update: {0}")]
    Malformed(&'static str),
    /// Somebody else signed it, or the line was changed.
    #[error("the signature is not of the key that this machine trusts")]
    Signature,
    /// Older than what runs or ran.
    #[error("version {offered} is not newer than {floor}; a machine does not go back")]
    Floor {
        /// Version of the update.
        offered: Version,
        /// Lowest that is not taken any more.
        floor: Version,
    },
    /// More than fits.
    #[error("{0} bytes are more than an update may have ({LARGEST})")]
    TooLarge(u64),
    /// The bytes are not those that were signed.
    #[error("the update was changed or cut off on the way; send it again")]
    Digest,
    /// The boot partition cannot be written, or the sender went away.
    #[error("the update could not be written: {0}")]
    Io(#[from] io::Error),
}

/// The signed line of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Version that the update brings.
    pub version: Version,
    size: u64,
    digest: Vec<u8>,
}

impl Head {
    /// Reads line and signature, and checks both. Holding one proves that the key signed it.
    pub fn read(from: &mut impl BufRead, key: &VerifyingKey) -> Result<Self, UpdateError> {
        let line = line(from)?;
        let signature = from_hex(line_text(&self::line(from)?)?.trim_end());
        let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
        let signature =
            signature.ok_or(UpdateError::Malformed("the second line is no signature"))?;
        key.verify_strict(&line, &signature)
            .map_err(|_| UpdateError::Signature)?;
        let fields: Vec<&str> = line_text(&line)?.split_whitespace().collect();
        let ["clinch-update", "1", version, size, digest] = fields[..] else {
            return Err(UpdateError::Malformed("the first line is of another kind"));
        };
        let version = Version::parse(version).ok_or(UpdateError::Malformed("the version"))?;
        let size = size
            .parse()
            .map_err(|_| UpdateError::Malformed("the size"))?;
        let digest = from_hex(digest).ok_or(UpdateError::Malformed("the digest"))?;
        if size > LARGEST {
            return Err(UpdateError::TooLarge(size));
        }
        Ok(Self {
            version,
            size,
            digest,
        })
    }
}

/// Takes an update to the slot that does not run. It is booted next, and counted.
pub fn receive(
    from: &mut impl BufRead,
    key: &VerifyingKey,
    floor: &Version,
    running: &Slot,
    slots: &Slots,
) -> Result<Slot, UpdateError> {
    let head = Head::read(from, key)?;
    let floor = floor.max(&running.version);
    if head.version <= *floor {
        return Err(UpdateError::Floor {
            offered: head.version,
            floor: floor.clone(),
        });
    }
    let path = slots.make_room(running)?;
    let mut file = File::create(&path)?;
    let mut hash = Sha256::new();
    let mut rest = from.take(head.size);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = rest.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        file.write_all(&buffer[..length])?;
    }
    if to_hex(&hash.finalize()) != to_hex(&head.digest) {
        let _ = std::fs::remove_file(&path);
        return Err(UpdateError::Digest);
    }
    file.sync_all()?;
    Ok(slots.install(running, head.version)?)
}

fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    const LONGEST: u64 = 256;
    let mut line = Vec::new();
    from.take(LONGEST).read_until(b'\n', &mut line)?;
    Ok(line)
}

fn line_text(line: &[u8]) -> Result<&str, UpdateError> {
    std::str::from_utf8(line).map_err(|_| UpdateError::Malformed("it is no text"))
}

const LARGEST: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn update(key: &SigningKey, version: &str, body: &[u8]) -> Vec<u8> {
        let digest = to_hex(&Sha256::digest(body));
        let line = format!("clinch-update 1 {version} {} {digest}\n", body.len());
        let signature = to_hex(&key.sign(line.as_bytes()).to_bytes());
        [line.as_bytes(), signature.as_bytes(), b"\n", body].concat()
    }

    struct Place {
        dir: tempfile::TempDir,
        key: SigningKey,
        running: Slot,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("EFI/Linux")).unwrap();
            let running = Slot::parse("clinch-a_1.0.0.efi").unwrap();
            std::fs::write(dir.path().join("EFI/Linux/clinch-a_1.0.0.efi"), "old").unwrap();
            Self {
                dir,
                key: SigningKey::from_bytes(&[7; 32]),
                running,
            }
        }

        fn receive(&self, bytes: &[u8]) -> Result<Slot, UpdateError> {
            let floor = Version::parse("0.5").unwrap();
            let slots = Slots::on(self.dir.path());
            receive(
                &mut &bytes[..],
                &self.key.verifying_key(),
                &floor,
                &self.running,
                &slots,
            )
        }
    }

    #[test]
    fn a_signed_newer_update_goes_to_the_other_slot() {
        let place = Place::new();
        let slot = place
            .receive(&update(&place.key, "1.0.1", b"new system"))
            .unwrap();
        let path = place.dir.path().join("EFI/Linux").join(slot.name());
        assert_eq!(std::fs::read(path).unwrap(), b"new system");
    }

    #[test]
    fn what_is_older_foreign_changed_or_cut_off_is_refused() {
        let place = Place::new();
        let good = update(&place.key, "1.0.1", b"new system");
        let old = update(&place.key, "1.0.0", b"new system");
        let foreign = update(&SigningKey::from_bytes(&[8; 32]), "1.0.1", b"new system");
        let mut changed = good.clone();
        *changed.last_mut().unwrap() ^= 1;
        let cut = &good[..good.len() - 1];
        let mut relabelled = good.clone();
        relabelled[20] = b'9';
        for (bytes, part) in [
            (&old[..], "not newer"),
            (&foreign, "signature"),
            (&changed, "changed or cut off"),
            (cut, "changed or cut off"),
            (&relabelled, "signature"),
            (b"", "no update"),
            (b"hello\nworld\n", "no update"),
        ] {
            let error = place.receive(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(Slots::on(place.dir.path()).all(), [place.running]);
    }
}
