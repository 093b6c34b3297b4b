//! Figures read from clinch's `/metrics`, in the Prometheus text format.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// One reading of all figures.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Value by name and labels as written, e.g. `clinch_x_total{reason="y"}`.
    samples: BTreeMap<String, f64>,
}

/// The answer to a request on the admin socket.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// Asks the admin socket for a path.
pub fn ask(admin: &Path, path: &str) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(admin)?;
    stream.set_read_timeout(Some(crate::PROMPT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: clinch\r\nconnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let invalid = || std::io::Error::other(format!("not an HTTP answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(invalid)?;
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        dechunk(body)
    } else {
        body.to_owned()
    };
    Ok(Answer { status, body })
}

fn dechunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else {
            break;
        };
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

impl Metrics {
    /// Reads the text format.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect();
        Self { samples }
    }

    /// Sum over all samples of a family whose labels contain each of `labels`, e.g. `reason="x"`.
    ///
    /// # Panics
    /// When no sample matches: a figure that does not exist is a mistake in the test or in clinch.
    #[track_caller]
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let matching: Vec<f64> = self
            .samples
            .iter()
            .filter(|(name, _)| {
                let (base, rest) = name.split_once('{').unwrap_or((name, ""));
                base == family && labels.iter().all(|label| rest.contains(label))
            })
            .map(|(_, value)| *value)
            .collect();
        assert!(
            !matching.is_empty(),
            "no sample {family} with {labels:?} among:\n{}",
            self.samples
                .keys()
                .map(|k| format!("{k}\n"))
                .collect::<String>()
        );
        matching.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_not_named() {
        let metrics = Metrics::parse(
            "# HELP a_total x\na_total{worker=\"0\",reason=\"x\"} 1\na_total{worker=\"1\",reason=\"x\"} 2\na_total{worker=\"1\",reason=\"y\"} 4\nb 0.5\n",
        );
        assert_eq!(metrics.sum("a_total", &["reason=\"x\""]), 3.0);
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.sum("b", &[]), 0.5);
    }
}
