//! ClientHellos byte by byte, for what no proper client sends, and the reading of what comes back.
//!
//! Nothing here completes a handshake: a test sends a hello and looks at the first record of the answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A ClientHello in parts (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
#[derive(Clone, Debug)]
pub struct Hello {
    /// Version of the record that carries it.
    pub record_version: u16,
    /// `legacy_version`.
    pub version: u16,
    /// Cipher suites.
    pub suites: Vec<u16>,
    /// The host name of the server_name extension, any bytes; `None`: no extension.
    pub name: Option<Vec<u8>>,
    /// Groups offered.
    pub groups: Vec<u16>,
    /// Signature schemes offered.
    pub schemes: Vec<u16>,
    /// Further extensions: type and content.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// What a server said first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A fatal alert with this description.
    Alert(u8),
    /// A handshake message of this type, 2 being ServerHello.
    Handshake(u8),
    /// The connection ended without a byte.
    Closed,
    /// The connection was reset.
    Reset,
    /// Bytes that are no TLS record.
    Bytes(Vec<u8>),
}

impl Hello {
    /// A plain TLS 1.2 hello for a name: ECDHE with AES-GCM, P-256, ECDSA and RSA.
    pub fn tls12(name: &str) -> Self {
        Self {
            record_version: 0x0301,
            version: 0x0303,
            suites: vec![0xc02b, 0xc02f, 0xc02c, 0xc030],
            name: Some(name.as_bytes().to_vec()),
            groups: vec![0x0017, 0x0018],
            schemes: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501],
            extensions: Vec::new(),
        }
    }

    /// The handshake message without a record around it.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(vec16(&shorts(&self.suites)));
        body.extend([1, 0]);
        body.extend(vec16(&self.extension_bytes()));
        let mut message = vec![1];
        message.extend(&u32::try_from(body.len()).expect("small").to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    /// The hello in one record.
    pub fn record(&self) -> Vec<u8> {
        record(self.record_version, &self.message())
    }

    /// The hello in records of at most `size` bytes each.
    pub fn records(&self, size: usize) -> Vec<u8> {
        self.message()
            .chunks(size)
            .flat_map(|part| record(self.record_version, part))
            .collect()
    }

    fn extension_bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Some(name) = &self.name {
            let entry: Vec<u8> = [&[0][..], &vec16(name)].concat();
            all.extend(extension(0, &vec16(&entry)));
        }
        all.extend(extension(10, &vec16(&shorts(&self.groups))));
        all.extend(extension(11, &[1, 0]));
        all.extend(extension(13, &vec16(&shorts(&self.schemes))));
        all.extend(extension(23, &[]));
        for (kind, content) in &self.extensions {
            all.extend(extension(*kind, content));
        }
        all
    }
}

/// A handshake record with this payload.
pub fn record(version: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![22];
    bytes.extend(version.to_be_bytes());
    bytes.extend(vec16(payload));
    bytes
}

/// Sends bytes on a fresh connection and reads what the server says first.
pub fn send(address: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(address)?;
    match stream.write_all(bytes) {
        Ok(()) => answer(&mut stream),
        // The server may have answered and gone before it took everything.
        Err(error) if is_gone(&error) => answer(&mut stream),
        Err(error) => Err(error),
    }
}

/// A connection with time-outs, so that a server that hangs fails the test.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(crate::PROMPT))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads the first record of an answer.
pub fn answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut head = [0; 6];
    let mut filled = 0;
    while filled < head.len() {
        match stream.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if is_gone(&error) && filled == 0 => return Ok(Answer::Reset),
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(error),
        }
    }
    match head[..filled] {
        [] => Ok(Answer::Closed),
        [21, 3, _, 0, 2, level] => {
            let mut description = [0];
            stream.read_exact(&mut description)?;
            assert_eq!(level, 2, "an alert in answer to a hello is fatal");
            Ok(Answer::Alert(description[0]))
        }
        [22, 3, _, _, _, kind] => Ok(Answer::Handshake(kind)),
        _ => {
            let mut bytes = head[..filled].to_vec();
            let rest = stream.read_to_end(&mut bytes);
            rest.or_else(|e| if is_gone(&e) { Ok(0) } else { Err(e) })?;
            Ok(Answer::Bytes(bytes))
        }
    }
}

/// Waits until the peer's kernel has taken, and acknowledged, all that was written.
pub fn wait_until_read(stream: &TcpStream) {
    crate::eventually("all bytes are acknowledged", crate::PROMPT, || {
        (unsent(stream) == 0).then_some(())
    });
}

/// Bytes in the send queue that are not acknowledged yet, from the column `tx_queue` of
/// /proc/net/tcp or tcp6.
fn unsent(stream: &TcpStream) -> u64 {
    let local = stream.local_addr().expect("connected");
    let file = if local.is_ipv4() { "tcp" } else { "tcp6" };
    let local = local.port();
    // The thread may be in another network than the process.
    let path = format!("/proc/thread-self/net/{file}");
    let table = std::fs::read_to_string(path).expect("procfs");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(columns.get(1)?.split_once(':')?.1, 16).ok()?;
            let queued = u64::from_str_radix(columns.get(4)?.split_once(':')?.0, 16).ok()?;
            (port == local).then_some(queued)
        })
        .sum()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(content)].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("at most 65535 bytes");
    [&length.to_be_bytes()[..], content].concat()
}

fn shorts(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}
