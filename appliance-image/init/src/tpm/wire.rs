//! Commands and answers of a TPM 2.0 as bytes (TPM 2.0 Library Specification, part 1, *command and
//! response structure*). Big-endian throughout. Reading never panics, whatever the TPM says.

use super::TpmError;

/// A command that is being written.
#[derive(Debug)]
pub(super) struct Command {
    name: &'static str,
    code: u32,
    handles: Vec<u8>,
    /// The one authorisation, where the command needs one.
    authorisation: Option<u32>,
    parameters: Vec<u8>,
}

impl Command {
    /// An empty one; the name is for errors.
    pub(super) fn new(name: &'static str, code: u32) -> Self {
        Self {
            name,
            code,
            handles: Vec::new(),
            authorisation: None,
            parameters: Vec::new(),
        }
    }

    /// Adds a handle.
    pub(super) fn handle(mut self, handle: u32) -> Self {
        u32(&mut self.handles, handle);
        self
    }

    /// Authorised by the empty password.
    pub(super) fn password(self) -> Self {
        const PASSWORD: u32 = 0x4000_0009;
        self.session(PASSWORD)
    }

    /// Authorised by a session, which ends with the command.
    pub(super) fn session(mut self, session: u32) -> Self {
        self.authorisation = Some(session);
        self
    }

    /// Adds a parameter with its size before it.
    pub(super) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        sized(&mut self.parameters, bytes);
        self
    }

    /// Adds bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.parameters.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Name and bytes.
    pub(super) fn finish(self) -> (&'static str, Vec<u8>) {
        let mut body = self.handles;
        if let Some(session) = self.authorisation {
            // Session, empty nonce, no attributes, empty HMAC.
            u32(&mut body, 9);
            u32(&mut body, session);
            body.extend_from_slice(&[0; 5]);
        }
        body.extend_from_slice(&self.parameters);
        let tag = match self.authorisation {
            Some(_) => SESSIONS,
            None => NO_SESSIONS,
        };
        let mut out = Vec::with_capacity(HEADER + body.len());
        u16(&mut out, tag);
        // Commands here have some hundred bytes.
        u32(&mut out, (HEADER + body.len()) as u32);
        u32(&mut out, self.code);
        out.extend_from_slice(&body);
        (self.name, out)
    }
}

/// An answer whose header is right.
#[derive(Debug)]
pub(super) struct Answer {
    command: &'static str,
    code: u32,
    /// Whether the answer's parameters stand behind their size.
    sessions: bool,
    body: Vec<u8>,
}

impl Answer {
    /// Checks the header; `None` where it is none.
    pub(super) fn read(command: &'static str, bytes: Vec<u8>) -> Option<Self> {
        let mut reader = Reader::new(&bytes);
        let (tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
        if usize::try_from(size).ok()? != bytes.len() || ![SESSIONS, NO_SESSIONS].contains(&tag) {
            return None;
        }
        Some(Self {
            command,
            code,
            sessions: tag == SESSIONS,
            body: bytes.get(HEADER..)?.to_vec(),
        })
    }

    /// TPM_RC.
    pub(super) fn code(&self) -> u32 {
        self.code
    }

    /// The handle of an answer that begins with one.
    pub(super) fn handle(&self) -> Option<u32> {
        Reader::new(&self.body).u32()
    }

    /// The parameters of an answer that has no handle.
    pub(super) fn parameters(&self) -> Option<Reader<'_>> {
        let mut reader = Reader::new(&self.body);
        if self.sessions {
            let size = reader.u32()?;
            return Some(Reader::new(reader.take(usize::try_from(size).ok()?)?));
        }
        Some(reader)
    }

    /// The error of an answer whose body makes no sense.
    pub(super) fn malformed(&self) -> TpmError {
        TpmError::Malformed(self.command)
    }
}

/// Bytes that are read from the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Bytes behind their size.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(super) fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Adds bytes behind their size.
pub(super) fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    // What is sized here are templates and parts of blobs, which came with sizes of 16 bits.
    u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

const HEADER: usize = 10;
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_size_handles_authorisation_and_parameters() {
        let mut command = Command::new("x", 0x153).handle(7).password();
        command.sized(b"ab");
        let (_, bytes) = command.finish();
        let expected = [
            &[0x80, 2, 0, 0, 0, 31, 0, 0, 1, 0x53][..],
            &[0, 0, 0, 7, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0],
            &[0, 2, b'a', b'b'],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn answers_of_the_wrong_size_or_kind_are_none() {
        let good = [0x80, 1, 0, 0, 0, 14, 0, 0, 0, 0, 0x80, 0, 0, 1];
        let answer = Answer::read("x", good.to_vec()).unwrap();
        assert_eq!((answer.code(), answer.handle()), (0, Some(0x8000_0001)));
        for length in 0..good.len() {
            assert!(Answer::read("x", good[..length].to_vec()).is_none());
        }
        let mut other = good;
        other[1] = 9;
        assert!(Answer::read("x", other.to_vec()).is_none());
    }

    #[test]
    fn parameters_that_promise_more_than_there_is_are_none() {
        let bytes = [0x80, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1];
        let answer = Answer::read("x", bytes.to_vec()).unwrap();
        assert!(answer.parameters().is_none());
        assert_eq!(Reader::new(&[0, 9, 1]).sized(), None);
    }
}
