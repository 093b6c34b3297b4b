//! A secret kept by the machine's TPM 2.0, over the kernel's resource manager.
//!
//! A secret is sealed below a storage key that the TPM derives from its own seed, under the policy
//! that PCR 7 is as it is now. PCR 7 is the firmware's record of Secure Boot: that it is on, its keys,
//! and which of them signed what was started. So the secret comes out on this machine, started by a
//! system that was signed with the same key: an update of ours keeps it, another system does not get
//! it. The PCRs that record programs themselves (4, 9, 11) are left out, since every update would
//! change them.
//!
//! What it does not do: hide the secret on the wires between a discrete TPM and the processor, or
//! survive a TPM that is cleared. Numbers and structures are those of the TPM 2.0 Library
//! Specification, parts 2 and 3; [`wire`] writes and reads them. Answers are judged as bytes from
//! outside.

mod wire;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use wire::{Answer, Command, Reader};

/// Bytes of a secret.
pub const SECRET: usize = 32;

/// An open TPM. Whatever was loaded is taken out again when this is dropped.
#[derive(Debug)]
pub struct Tpm {
    device: File,
}

/// A sealed object, as the TPM gave it away: of use to that TPM alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    private: Vec<u8>,
    public: Vec<u8>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// No device file.
    #[error("this machine has no TPM 2.0, or the firmware hides it: {0}")]
    Missing(io::Error),
    /// The device does not answer.
    #[error("the TPM does not answer: {0}")]
    Io(#[from] io::Error),
    /// Sealed by another TPM, or before this one was cleared.
    #[error(
        "it was sealed by another TPM, or this one was cleared since: bring the configuration again on a volume"
    )]
    Foreign,
    /// PCR 7 differs.
    #[error(
        "this machine was not started as when it was sealed: Secure Boot was switched or its keys were changed"
    )]
    NotAsSealed,
    /// Some other refusal.
    #[error("the TPM refuses {command}: code {code:#x}")]
    Refused {
        /// What it was asked.
        command: &'static str,
        /// TPM_RC.
        code: u32,
    },
    /// An answer that no TPM gives.
    #[error("the TPM's answer to {0} makes no sense")]
    Malformed(&'static str),
}

impl Blob {
    /// Both parts, each after its size.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::sized(&mut out, &self.private);
        wire::sized(&mut out, &self.public);
        out
    }

    /// The reverse; `None` where the bytes are no blob.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let blob = Self {
            private: reader.sized()?.to_vec(),
            public: reader.sized()?.to_vec(),
        };
        reader.is_empty().then_some(blob)
    }
}

impl Tpm {
    /// Opens the machine's.
    pub fn open() -> Result<Self, TpmError> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE);
        let device = device.map_err(TpmError::Missing)?;
        Ok(Self { device })
    }

    /// Seals [`SECRET`] bytes to this TPM and to PCR 7 as it is.
    pub fn seal(&mut self, secret: &[u8]) -> Result<Blob, TpmError> {
        let policy = policy(&self.pcr()?);
        let parent = self.storage_key()?;
        let mut command = Command::new("TPM2_Create", CREATE)
            .handle(parent)
            .password();
        let mut sensitive = Vec::new();
        wire::sized(&mut sensitive, &[]);
        wire::sized(&mut sensitive, secret);
        command.sized(&sensitive);
        command.sized(&sealed_template(&policy));
        // Neither outside information nor creation PCRs.
        command.sized(&[]).u32(0);
        let answer = self.ask(command)?;
        let mut reader = answer.parameters().ok_or(answer.malformed())?;
        let parts = reader.sized().zip(reader.sized());
        let (private, public) = parts.ok_or(answer.malformed())?;
        Ok(Blob {
            private: private.to_vec(),
            public: public.to_vec(),
        })
    }

    /// Gives the secret of a blob back, if this is the TPM and PCR 7 is as it was.
    pub fn unseal(&mut self, blob: &Blob) -> Result<Vec<u8>, TpmError> {
        let parent = self.storage_key()?;
        let mut command = Command::new("TPM2_Load", LOAD).handle(parent).password();
        command.sized(&blob.private).sized(&blob.public);
        let answer = self.ask(command)?;
        let object = answer.handle().ok_or(answer.malformed())?;
        let session = self.policy_session()?;
        let unseal = Command::new("TPM2_Unseal", UNSEAL)
            .handle(object)
            .session(session);
        let answer = self.ask(unseal)?;
        let secret = answer.parameters().and_then(|mut reader| {
            let bytes = reader.sized()?;
            Some(bytes.to_vec())
        });
        secret.ok_or(answer.malformed())
    }

    /// The storage key of the owner hierarchy. The template is fixed, so it is the same key each time
    /// and needs to be kept nowhere.
    fn storage_key(&mut self) -> Result<u32, TpmError> {
        let mut command = Command::new("TPM2_CreatePrimary", CREATE_PRIMARY)
            .handle(OWNER)
            .password();
        let mut sensitive = Vec::new();
        wire::sized(&mut sensitive, &[]);
        wire::sized(&mut sensitive, &[]);
        command.sized(&sensitive).sized(&storage_template());
        command.sized(&[]).u32(0);
        let answer = self.ask(command)?;
        answer.handle().ok_or(answer.malformed())
    }

    /// A session in which PCR 7 has been shown.
    fn policy_session(&mut self) -> Result<u32, TpmError> {
        let mut nonce = [0; 32];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)?;
        let mut command = Command::new("TPM2_StartAuthSession", START_AUTH_SESSION)
            .handle(NULL)
            .handle(NULL);
        // No salt; a policy session without encryption of parameters.
        command.sized(&nonce).sized(&[]).u8(POLICY_SESSION);
        command.u16(ALG_NULL).u16(ALG_SHA256);
        let answer = self.ask(command)?;
        let session = answer.handle().ok_or(answer.malformed())?;
        let mut command = Command::new("TPM2_PolicyPCR", POLICY_PCR).handle(session);
        command.sized(&[]).bytes(&SELECTION);
        self.ask(command)?;
        Ok(session)
    }

    /// The value of PCR 7 in the SHA-256 bank.
    fn pcr(&mut self) -> Result<Vec<u8>, TpmError> {
        let mut command = Command::new("TPM2_PCR_Read", PCR_READ);
        command.bytes(&SELECTION);
        let answer = self.ask(command)?;
        let value = answer.parameters().and_then(|mut reader| {
            let _counter = reader.u32()?;
            // A TPM without that bank selects nothing.
            let selected = reader.take(SELECTION.len())? == SELECTION;
            let one = reader.u32()? == 1;
            let value = reader.sized()?;
            (selected && one && value.len() == 32).then(|| value.to_vec())
        });
        value.ok_or(answer.malformed())
    }

    fn ask(&mut self, command: Command) -> Result<Answer, TpmError> {
        let (name, bytes) = command.finish();
        self.device.write_all(&bytes)?;
        let mut buffer = vec![0; LONGEST];
        let length = self.device.read(&mut buffer)?;
        buffer.truncate(length);
        let answer = Answer::read(name, buffer).ok_or(TpmError::Malformed(name))?;
        match answer.code() {
            0 => Ok(answer),
            // The policy's digest differs, or a PCR moved since the policy was shown.
            code if name == "TPM2_Unseal" && (code & 0xbf == 0x9d || code == 0x128) => {
                Err(TpmError::NotAsSealed)
            }
            // TPM_RC_INTEGRITY, or a public part under another name, of a parameter.
            code if name == "TPM2_Load" && matches!(code & 0xbf, 0x9f | 0x8b) => {
                Err(TpmError::Foreign)
            }
            code => Err(TpmError::Refused {
                command: name,
                code,
            }),
        }
    }
}

/// The policy *PCR 7 has this value* (part 3, TPM2_PolicyPCR): what a trial session would say.
fn policy(pcr: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0; 32]);
    hash.update(POLICY_PCR.to_be_bytes());
    hash.update(SELECTION);
    hash.update(Sha256::digest(pcr));
    hash.finalize().into()
}

/// A restricted decryption key, P-256 and AES-128-CFB, as platforms must have it.
fn storage_template() -> Vec<u8> {
    let mut out = Vec::new();
    for half in [ALG_ECC, ALG_SHA256] {
        wire::u16(&mut out, half);
    }
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
    wire::u32(&mut out, 0x0003_0472);
    wire::sized(&mut out, &[]);
    for half in [ALG_AES, 128, ALG_CFB, ALG_NULL, CURVE_P256, ALG_NULL] {
        wire::u16(&mut out, half);
    }
    // The point is the TPM's to choose.
    wire::sized(&mut out, &[]);
    wire::sized(&mut out, &[]);
    out
}

/// Data that come out by policy alone.
fn sealed_template(policy: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::new();
    for half in [ALG_KEYEDHASH, ALG_SHA256] {
        wire::u16(&mut out, half);
    }
    // fixedTPM, fixedParent, noDA; not userWithAuth.
    wire::u32(&mut out, 0x0000_0412);
    wire::sized(&mut out, policy);
    wire::u16(&mut out, ALG_NULL);
    wire::sized(&mut out, &[]);
    out
}

const DEVICE: &str = "/dev/tpmrm0";
/// Bytes of an answer.
const LONGEST: usize = 4096;
/// One bank, SHA-256, of which three bytes of flags select PCR 7.
const SELECTION: [u8; 10] = [0, 0, 0, 1, 0x00, 0x0b, 3, 0x80, 0, 0];

const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;
const START_AUTH_SESSION: u32 = 0x176;
const PCR_READ: u32 = 0x17e;
const POLICY_PCR: u32 = 0x17f;
const OWNER: u32 = 0x4000_0001;
const NULL: u32 = 0x4000_0007;
const POLICY_SESSION: u8 = 1;
const ALG_AES: u16 = 0x0006;
const ALG_KEYEDHASH: u16 = 0x0008;
const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_read_back_and_nothing_else_is_one() {
        let blob = Blob {
            private: vec![1, 2],
            public: vec![3],
        };
        let bytes = blob.to_bytes();
        assert_eq!(Blob::from_bytes(&bytes), Some(blob));
        for length in 0..bytes.len() {
            assert_eq!(Blob::from_bytes(&bytes[..length]), None);
        }
        assert_eq!(Blob::from_bytes(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn the_policy_names_the_value_of_the_pcr() {
        assert_ne!(policy(&[0; 32]), policy(&[1; 32]));
    }
}
