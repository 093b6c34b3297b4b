//! The admin interface of the machine: signed commands over TCP, for `clinch-appliance`.
//!
//! The machine speaks first, with a random number; the command, the digest of what follows it and
//! that number are signed with an operator's key. So a command can be neither forged nor repeated.
//! Nothing is secret here: keys and certificates come by volume, never this way.
//!
//! ```text
//! machine:  clinch-appliance 1 NONCE
//! operator: COMMAND SIZE SHA256
//! operator: SIGNATURE over "NONCE COMMAND SIZE SHA256"
//! operator: SIZE bytes
//! machine:  ok|refused WORDS
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::machine::{from_hex, to_hex};

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// What the machine is and does.
    Status,
    /// What clinch measures, for Prometheus.
    Metrics,
    /// Take an update and boot it.
    Update,
    /// Take a configuration and try it; it is undone unless confirmed.
    Apply,
    /// Keep the configuration on trial.
    Confirm,
    /// Drain and start again.
    Reboot,
    /// Drain and switch off.
    PowerOff,
}

impl Command {
    /// All, with their words.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Status, "status"),
        (Self::Metrics, "metrics"),
        (Self::Update, "update"),
        (Self::Apply, "apply"),
        (Self::Confirm, "confirm"),
        (Self::Reboot, "reboot"),
        (Self::PowerOff, "poweroff"),
    ];

    /// The word of the command.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(command, _)| *command == self)
            .map_or("", |(_, word)| word)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(command, _)| *command)
    }
}

/// Serves one operator at a time, for ever. `act` does the work and answers in words.
pub fn serve(
    listener: &TcpListener,
    keys: &[VerifyingKey],
    mut act: impl FnMut(Command, &mut dyn BufRead) -> Result<String, String>,
) {
    for stream in listener.incoming().flatten() {
        let answered = answer(&stream, keys, &mut act);
        if let Err(error) = answered {
            crate::say!("admin interface: {error}");
        }
    }
}

fn answer(
    stream: &TcpStream,
    keys: &[VerifyingKey],
    act: &mut impl FnMut(Command, &mut dyn BufRead) -> Result<String, String>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut nonce = [0; 16];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
    let nonce = to_hex(&nonce);
    let mut writer = stream;
    writeln!(writer, "clinch-appliance 1 {nonce}")?;
    let mut reader = BufReader::new(stream);
    let line = line(&mut reader)?;
    let signature = self::line(&mut reader)?;
    let said = match check(&nonce, &line, &signature, keys) {
        Ok((command, size)) => act(command, &mut (&mut reader).take(size)),
        Err(reason) => Err(reason.to_owned()),
    };
    let answer = match said {
        Ok(words) => format!("ok {words}\n"),
        Err(words) => format!("refused {words}\n"),
    };
    writer.write_all(answer.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    discard(&mut reader);
    Ok(())
}

/// Reads what is still on its way, until the operator closes: to close before that resets the connection,
/// and may cost the answer.
fn discard(from: &mut impl Read) {
    let until = Instant::now() + PATIENCE;
    let mut rest = vec![0; 64 << 10];
    while Instant::now() < until && matches!(from.read(&mut rest), Ok(1..)) {}
}

fn check(
    nonce: &str,
    line: &str,
    signature: &str,
    keys: &[VerifyingKey],
) -> Result<(Command, u64), &'static str> {
    let signature = from_hex(signature).and_then(|bytes| Signature::from_slice(&bytes).ok());
    let signature = signature.ok_or("the second line is no signature")?;
    let signed = format!("{nonce} {line}");
    if !keys
        .iter()
        .any(|key| key.verify_strict(signed.as_bytes(), &signature).is_ok())
    {
        return Err("the signature is of no key in machine.toml");
    }
    let fields: Vec<&str> = line.split(' ').collect();
    let [word, size, _] = fields[..] else {
        return Err("a command has a word, a size and a digest");
    };
    let command = Command::parse(word).ok_or("there is no such command")?;
    let size = size
        .parse()
        .ok()
        .filter(|size| *size <= LARGEST)
        .ok_or("the size")?;
    Ok((command, size))
}

/// Sends a command to a machine and returns what it answers.
pub fn send(to: SocketAddr, key: &SigningKey, command: Command, body: &[u8]) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(&stream);
    let greeting = line(&mut reader)?;
    let Some(nonce) = greeting.strip_prefix("clinch-appliance 1 ") else {
        return Err(io::Error::other(format!(
            "this is no Clinch appliance: {greeting:?}"
        )));
    };
    let command = format!(
        "{} {} {}",
        command.word(),
        body.len(),
        to_hex(&Sha256::digest(body))
    );
    let signature = to_hex(&key.sign(format!("{nonce} {command}").as_bytes()).to_bytes());
    let mut writer = &stream;
    writeln!(writer, "{command}\n{signature}")?;
    // A machine that is going down may have closed; what it said counts.
    let _ = writer.write_all(body);
    let mut answer = String::new();
    reader.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    const LONGEST: u64 = 512;
    let mut line = String::new();
    from.take(LONGEST).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

const PATIENCE: Duration = Duration::from_secs(60);
const LARGEST: u64 = 33 << 20;
const LONGEST_ANSWER: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(keys: Vec<VerifyingKey>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            serve(&listener, &keys, |command, body| {
                let mut text = String::new();
                body.read_to_string(&mut text)
                    .map_err(|error| error.to_string())?;
                Ok(format!("{command:?} {text}"))
            });
        });
        address
    }

    #[test]
    fn a_command_of_a_known_key_is_done() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let address = place(vec![key.verifying_key()]);
        let said = send(address, &key, Command::Apply, b"text").unwrap();
        assert_eq!(said, "ok Apply text\n");
    }

    #[test]
    fn who_is_refused_before_all_was_read_learns_why() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keys = [key.verifying_key()];
        std::thread::spawn(move || serve(&listener, &keys, |_, _| Err("it is too old".to_owned())));
        for _ in 0..20 {
            let said = send(address, &key, Command::Update, &vec![0; 4 << 20]).unwrap();
            assert_eq!(said, "refused it is too old\n");
        }
    }

    #[test]
    fn a_foreign_key_and_a_repeated_signature_are_refused() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let address = place(vec![key.verifying_key()]);
        let said = send(
            address,
            &SigningKey::from_bytes(&[4; 32]),
            Command::Reboot,
            b"",
        )
        .unwrap();
        assert!(said.starts_with("refused"), "{said}");
        let (line, nonce) = ("reboot 0 -", "00");
        let signature = to_hex(&key.sign(format!("{nonce} {line}").as_bytes()).to_bytes());
        assert!(check(nonce, line, &signature, &[key.verifying_key()]).is_ok());
        assert!(check("01", line, &signature, &[key.verifying_key()]).is_err());
    }
}
