//! kTLS: a TCP socket whose TLS 1.3 records the kernel seals and opens (since Linux 5.1; seen
//! on 6.12, what is said here of other versions is what is known of their sources).
//!
//! [`attach`] makes a socket ready, [`install`] gives it the keys of one direction: what is sent or
//! received from then on is plaintext, and [`receive`] and [`send_control`] carry the type of a record
//! beside its bytes. Nothing here waits, and nothing here knows what alerts and handshake messages
//! mean. The caller asks [`offer`] first whether this kernel has the cipher, hands over a direction only
//! between two records, and does not send and install at once.

mod offer;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustls::{CipherSuite, ConnectionTrafficSecrets};
use zeroize::Zeroizing;

pub use offer::{Lack, Offer, known, offer};

/// A cipher that the kernel may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (since Linux 5.11).
    Chacha20Poly1305,
}

/// Keys of one direction as the kernel reads them (`struct tls12_crypto_info_*` of linux/tls.h):
/// version, cipher, nonce, key, salt, number of the next record.
pub struct Keys(Zeroizing<Vec<u8>>);

/// Which records keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Those that are sent.
    Out,
    /// Those that are received.
    In,
}

/// What one call received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, of records of this type (RFC 8446 section 5.1).
    Bytes(usize, u8),
    /// The stream has ended.
    End,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    /// The suite that TLS 1.3 calls so.
    pub fn of(suite: CipherSuite) -> Option<Self> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Self::Aes128Gcm),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Self::Aes256Gcm),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(Self::Chacha20Poly1305),
            _ => None,
        }
    }

    /// Its usual name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Chacha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}

impl Keys {
    /// Keys as rustls tells them, and the number of the next record. `None`: for a suite that no kernel
    /// has.
    pub fn of((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (suite, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Suite::Chacha20Poly1305, key, iv)
            }
            _ => return None,
        };
        Some(Self::new(suite, *sequence, key.as_ref(), iv.as_ref()))
    }

    fn new(suite: Suite, sequence: u64, key: &[u8], iv: &[u8]) -> Self {
        let (cipher, salted) = match suite {
            Suite::Aes128Gcm => (TLS_CIPHER_AES_GCM_128, 4),
            Suite::Aes256Gcm => (TLS_CIPHER_AES_GCM_256, 4),
            Suite::Chacha20Poly1305 => (TLS_CIPHER_CHACHA20_POLY1305, 0),
        };
        // What TLS 1.3 calls the IV is salt and nonce to the kernel.
        let (salt, nonce) = iv.split_at(salted);
        let mut info = Zeroizing::new(Vec::with_capacity(LONGEST));
        info.extend(TLS_1_3.to_ne_bytes());
        info.extend(cipher.to_ne_bytes());
        info.extend(nonce);
        info.extend(key);
        info.extend(salt);
        info.extend(sequence.to_be_bytes());
        Self(info)
    }
}

/// Makes a connected TCP socket ready for keys. Until it has some it goes on as before.
///
/// `ENOENT`: the kernel has no kTLS, or may not load the module for this process. `ENOTCONN`: the peer
/// has begun to leave.
pub fn attach(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, TCP_ULP, b"tls")
}

/// Gives the kernel the keys of one direction.
///
/// `ENOENT`: a cipher is missing. `EBUSY`: it has keys already and cannot change them (before 6.14).
pub fn install(socket: &impl AsFd, way: Way, keys: &Keys) -> io::Result<()> {
    let option = match way {
        Way::Out => TLS_TX,
        Way::In => TLS_RX,
    };
    set(socket, SOL_TLS, option, &keys.0)
}

/// Receives what is there without waiting: bytes of one or more records of one type.
///
/// `WouldBlock`: no whole record is there. `EBADMSG`, `EMSGSIZE`, `EINVAL`: what came is no record, or
/// not one of these keys.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = Control([0; CONTROL]);
    let mut message = message(&mut slice, &mut control);
    // SAFETY: the message points to a buffer borrowed for the whole call, and to `control`, which lives
    // as long; both lengths are theirs.
    let n = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, WITHOUT_WAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg has set the length of the control messages, which begin at the start of `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    match header {
        Some(header) if (header.cmsg_level, header.cmsg_type) == (SOL_TLS, TLS_GET_RECORD_TYPE) => {
            // SAFETY: a control message of this type carries one byte (net/tls), which lies in `control`.
            let kind = unsafe { *libc::CMSG_DATA(header) };
            Ok(Received::Bytes(n, kind))
        }
        _ if n == 0 => Ok(Received::End),
        // A record that the kernel tells no type of is data.
        _ => Ok(Received::Bytes(n, DATA)),
    }
}

/// Sends one record that is not data, whole or not at all, without waiting.
pub fn send_control(socket: &impl AsFd, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut slice = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control([0; CONTROL]);
    let message = message(&mut slice, &mut control);
    // SAFETY: `control` has room for one control message of one byte and is aligned as its header;
    // CMSG_FIRSTHDR gives its start.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = SOL_TLS;
        (*header).cmsg_type = TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(1) as usize;
        *libc::CMSG_DATA(header) = kind;
    }
    let flags = WITHOUT_WAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message points to bytes and control data that live for the whole call; the kernel only
    // reads them.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent)
        .map(drop)
        .map_err(|_| io::Error::last_os_error())
}

fn set(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a slice borrowed for the whole call.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A message of one slice and one control message.
fn message(slice: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: msghdr is plain data, for which zeros are a value: no name, no slices, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slice;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}

/// Room for one control message of one byte.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: CMSG_SPACE only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(1) } as usize;

/// Bytes of the longest keys: no reallocation leaves a copy of them behind.
const LONGEST: usize = 56;

/// The type of records that carry data.
pub const DATA: u8 = 23;

const WITHOUT_WAIT: i32 = libc::MSG_DONTWAIT;

// linux/tcp.h, linux/socket.h, linux/tls.h
const TCP_ULP: i32 = 31;
const SOL_TLS: i32 = 282;
const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;
const TLS_SET_RECORD_TYPE: i32 = 1;
const TLS_GET_RECORD_TYPE: i32 = 2;
const TLS_1_3: u16 = 0x0304;
const TLS_CIPHER_AES_GCM_128: u16 = 51;
const TLS_CIPHER_AES_GCM_256: u16 = 52;
const TLS_CIPHER_CHACHA20_POLY1305: u16 = 54;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_the_kernel_reads_them() {
        let iv: Vec<u8> = (1..=12).collect();
        for (suite, key, size) in [
            (Suite::Aes128Gcm, &[9; 16][..], 40),
            (Suite::Aes256Gcm, &[9; 32], 56),
            (Suite::Chacha20Poly1305, &[9; 32], 56),
        ] {
            let Keys(info) = Keys::new(suite, 7, key, &iv);
            let (head, tail) = (&info[..4], &info[size - 8..]);
            assert_eq!(info.len(), size, "{suite:?}");
            assert_eq!(head[..2], TLS_1_3.to_ne_bytes());
            assert_eq!(tail, 7u64.to_be_bytes());
            let middle = match suite {
                Suite::Chacha20Poly1305 => [&iv[..], key].concat(),
                _ => [&iv[4..], key, &iv[..4]].concat(),
            };
            assert_eq!(info[4..size - 8], middle, "{suite:?}");
        }
    }

    #[test]
    fn a_kernel_without_ktls_says_so_and_the_socket_goes_on() {
        use std::io::{Read, Write};
        let (mut here, mut there) = offer::pair().expect("a loopback connection");
        let attached = attach(&here).is_ok();
        assert_eq!(attached, !matches!(offer().lack, Some(Lack::Kernel(_))));
        here.write_all(b"plain").expect("open");
        let mut got = [0; 5];
        there.read_exact(&mut got).expect("sent");
        assert_eq!(&got, b"plain");
    }
}
