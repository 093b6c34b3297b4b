//! Why a connection counts as failed. The text of a failure is the name under which it is counted, so
//! it has few forms: no addresses, no lengths, no times in it.

use std::io;

use clinch::ocsp::RefusalKind;
use rustls::{AlertDescription, CertificateError};

/// What went wrong with one connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No TCP connection. `AddrNotAvailable`: this machine is out of local ports, see `--source`.
    #[error("connect: {0}")]
    Connect(io::ErrorKind),
    /// The connection broke; where, and how.
    #[error("{0}: {1}")]
    Broken(Stage, io::ErrorKind),
    /// The server ended the connection before it was due.
    #[error("{0}: the server closed")]
    Closed(Stage),
    /// The deadline of a connection passed.
    #[error("deadline: {0}")]
    Deadline(Stage),
    /// The server refused with an alert.
    #[error("handshake: alert {0:?}")]
    Alert(AlertDescription),
    /// The server broke the protocol.
    #[error("{0}: not TLS, or broken TLS")]
    Tls(Stage),
    /// The chain is not trusted or not for this name.
    #[error("certificate: {0}")]
    Certificate(&'static str),
    /// No staple came where one is demanded.
    #[error("staple: none")]
    NoStaple,
    /// What came does not verify.
    #[error("staple: {0}")]
    BadStaple(&'static str),
    /// Client-side OCSP: the certificate names no responder, or its issuer was not sent.
    #[error("responder: the chain names none")]
    NoResponder,
    /// Client-side OCSP: the responder's name could not be resolved.
    #[error("responder: name not resolved")]
    Resolve,
    /// Client-side OCSP: the responder could not be asked.
    #[error("responder: {0}")]
    Responder(&'static str),
    /// A full handshake where a resumed one was asked for.
    #[error("handshake: not resumed")]
    NotResumed,
    /// The answer was not `200`, or could not be read as HTTP.
    #[error("answer: {0}")]
    Answer(String),
    /// Open loop: due, but it could not start before the run was over.
    #[error("never started: too many connections were open")]
    NeverStarted,
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not yet connected.
    Connect,
    /// In the handshake.
    Handshake,
    /// Asking the responder.
    Responder,
    /// Request and answer.
    Request,
    /// Nothing to do but be there.
    Idle,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Responder => "responder",
            Self::Request => "request",
            Self::Idle => "idle",
        })
    }
}

impl Failure {
    /// What rustls made of what the server sent. A verdict of our own verifier comes back as it was.
    pub(crate) fn of_tls(error: &rustls::Error, stage: Stage) -> Self {
        match error {
            rustls::Error::Other(other) => other
                .0
                .downcast_ref::<Self>()
                .cloned()
                .unwrap_or(Self::Tls(stage)),
            rustls::Error::AlertReceived(alert) => Self::Alert(*alert),
            rustls::Error::InvalidCertificate(error) => Self::Certificate(distrust(error)),
            _ => Self::Tls(stage),
        }
    }

    /// As an error that passes through rustls unharmed.
    pub(crate) fn into_tls(self) -> rustls::Error {
        rustls::Error::Other(rustls::OtherError(std::sync::Arc::new(self)))
    }
}

pub(crate) fn refused(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::Revoked => "revoked",
        RefusalKind::Unknown => "unknown to the responder",
        RefusalKind::Time => "not valid at this time",
        RefusalKind::Authority => "signature or signer not authorised",
        RefusalKind::Malformed => "not a successful response",
        RefusalKind::NoAnswer => "about another certificate",
        RefusalKind::Input => "the chain has no issuer to verify it with",
    }
}

fn distrust(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not yet valid"
        }
        CertificateError::UnknownIssuer => "unknown issuer",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "not for this name"
        }
        CertificateError::BadSignature => "bad signature",
        _ => "not trusted",
    }
}
