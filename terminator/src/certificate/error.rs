//! Why a chain and a key cannot be used, in words for the operator.

use super::SignatureError;

/// Why a chain and a key cannot be used, in words for the operator. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate file has no certificate in it.
    #[error("there is no certificate in the certificate file: it needs PEM, with the leaf first{}", hint(*.binary))]
    NoCertificate {
        /// The file looks like DER.
        binary: bool,
    },
    /// The PEM armour is broken.
    #[error("the PEM text is broken ({0}): was the file cut off or edited?")]
    Pem(String),
    /// A certificate does not parse.
    #[error("certificate {position} of the file is broken: {reason}")]
    BrokenCertificate {
        /// Counted from 1, the leaf.
        position: usize,
        /// What does not parse.
        reason: String,
    },
    /// The certificate does not parse.
    #[error("the certificate is broken: {0}")]
    Malformed(String),
    /// The leaf has a key that TLS servers cannot use.
    #[error(
        "the certificate has a key that is not supported ({0}): use ECDSA on P-256, P-384 or P-521, RSA with 2048 bits or more, or Ed25519"
    )]
    UnsupportedKey(String),
    /// All certificates are there, in another order.
    #[error("the certificates are in the wrong order: write them as {}", quoted(.right))]
    WrongOrder {
        /// Subjects in the right order.
        right: Vec<String>,
    },
    /// A certificate is there twice.
    #[error("certificates {first} and {second} of the file are the same: remove one")]
    Duplicate {
        /// Counted from 1.
        first: usize,
        /// Counted from 1.
        second: usize,
    },
    /// A certificate did not issue the one before it, and reordering does not help.
    #[error(
        "certificate {position} of the file ({subject}) is not the issuer of the one before it, which was issued by {wanted}: remove it, or put {wanted} in front of it"
    )]
    Unrelated {
        /// Counted from 1, the leaf.
        position: usize,
        /// Its subject.
        subject: String,
        /// The issuer that the certificate before it names.
        wanted: String,
    },
    /// The names fit, the signature does not.
    #[error(
        "certificate {position} of the file ({subject}) has the right name to be the issuer of the one before it, but did not sign it: {reason}. It is probably an older or newer certificate of that CA"
    )]
    NotSigned {
        /// Of the issuer, counted from 1, the leaf.
        position: usize,
        /// Its subject.
        subject: String,
        /// What is wrong with the signature.
        reason: SignatureError,
    },
    /// The key file has no key in it.
    #[error("there is no private key in the key file: it needs PEM (PKCS#8, PKCS#1 or SEC1){}", swapped(*.certificate))]
    NoKey {
        /// There is a certificate in it.
        certificate: bool,
    },
    /// The key needs a passphrase.
    #[error(
        "the private key is encrypted, and there is nobody to ask for its passphrase: decrypt it once with `openssl pkey -in KEY -out PLAIN.key` and `chmod 600 PLAIN.key`"
    )]
    EncryptedKey,
    /// The key does not parse or is of a kind that TLS servers cannot use.
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate for {subject}: was only one of the two files renewed?"
    )]
    KeyMismatch {
        /// Subject of the leaf.
        subject: String,
    },
}

fn hint(binary: bool) -> &'static str {
    match binary {
        true => {
            "; this looks like DER, which `openssl x509 -inform der -in CERT -out CERT.pem` turns into PEM"
        }
        false => "",
    }
}

fn swapped(certificate: bool) -> &'static str {
    match certificate {
        true => "; there is a certificate in it, so perhaps `cert` and `key` are swapped",
        false => "",
    }
}

fn quoted(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects.iter().map(|s| format!("“{s}”")).collect();
    quoted.join(", then ")
}
