//! A client of the admin interface of a running clinch, for the commands that ask it something.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{AdminAddress, Config};
use crate::limits;

/// Which process to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// Configuration file of the running process, which says where its admin interface is
    #[arg(short, long, value_name = "FILE", default_value = super::CONFIG_PATH)]
    config: PathBuf,

    /// Admin interface to ask instead: unix:/PATH or ADDRESS:PORT
    #[arg(long, value_name = "WHERE", conflicts_with = "config")]
    admin: Option<Where>,
}

/// An admin interface as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Where(pub(super) AdminAddress);

impl FromStr for Where {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text
            .strip_prefix("unix:")
            .or_else(|| text.starts_with('/').then_some(text));
        match (path, text.parse::<SocketAddr>()) {
            (Some(path), _) => Ok(Self(AdminAddress::Unix(path.into()))),
            (None, Ok(address)) => Ok(Self(AdminAddress::Tcp(address))),
            (None, Err(_)) => Err("expected unix:/PATH or ADDRESS:PORT"),
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AdminAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            AdminAddress::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// Reads the JSON of the body.
    pub(super) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body)
            .context("the answer is not that of this version of clinch")
    }
}

impl Target {
    /// Makes one request.
    pub(super) fn ask(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let address = self.address()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, request(&address, method, path))
                .await
                .with_context(|| format!("{address} did not answer within {PATIENCE:?}"))?
        })
    }

    /// Asks for something that is there whenever a process runs.
    pub(super) fn ask_for(&self, path: &str) -> anyhow::Result<Answer> {
        let answer = self.ask(Method::GET, path)?;
        if answer.status != StatusCode::OK {
            bail!("the admin interface answered {}", answer.status);
        }
        Ok(answer)
    }

    fn address(&self) -> anyhow::Result<Where> {
        if let Some(address) = &self.admin {
            return Ok(address.clone());
        }
        let file = self.config.display();
        let text = std::fs::read_to_string(&self.config).with_context(|| {
            format!("{file} (name the file with -c, or the socket with --admin)")
        })?;
        let config = match Config::parse(&text) {
            Ok(config) => config,
            // The process may well run, on what the file said before it was broken.
            Err(error) if Path::new(USUAL_SOCKET).exists() => {
                eprintln!(
                    "clinch: {file} cannot be used, so the usual {USUAL_SOCKET} is asked: {error}"
                );
                return Ok(Where(AdminAddress::Unix(USUAL_SOCKET.into())));
            }
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("{file} (--admin names the socket without it)")));
            }
        };
        match config.admin.listen {
            Some(address) => Ok(Where(address)),
            None => bail!("{file} switches the admin interface off; set `admin.listen`"),
        }
    }
}

/// Makes one request on the caller's runtime, without a limit on time.
pub(super) async fn request(address: &Where, method: Method, path: &str) -> anyhow::Result<Answer> {
    let unreachable = || {
        format!(
            "nobody answers at {address}; clinch does not run, has another admin.listen, or runs as a user whose socket this one may not open"
        )
    };
    match &address.0 {
        AdminAddress::Unix(path_to_socket) => {
            let stream = tokio::net::UnixStream::connect(path_to_socket)
                .await
                .with_context(unreachable)?;
            exchange(stream, method, path).await
        }
        AdminAddress::Tcp(address) => {
            let stream = tokio::net::TcpStream::connect(address)
                .await
                .with_context(unreachable)?;
            exchange(stream, method, path).await
        }
    }
}

async fn exchange<S>(stream: S, method: Method, path: &str) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "clinch")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES)
        .collect()
        .await;
    match body {
        Ok(body) => Ok(Answer {
            status,
            body: body.to_bytes(),
        }),
        Err(error) => bail!("the answer broke off: {error}"),
    }
}

/// Where the admin interface is if the configuration says nothing else.
const USUAL_SOCKET: &str = "/run/clinch/admin.sock";

/// A little more than the process takes at most, so that its own answer is seen.
const PATIENCE: Duration = limits::ADMIN_REQUEST_TIME.saturating_add(Duration::from_secs(5));

/// Largest answer taken: the status of a hundred thousand sites.
const MOST_BYTES: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_by_path_or_by_address() {
        for (text, shown) in [
            ("unix:/run/clinch/admin.sock", "unix:/run/clinch/admin.sock"),
            ("/run/clinch/admin.sock", "unix:/run/clinch/admin.sock"),
            ("127.0.0.1:9090", "127.0.0.1:9090"),
            ("[::1]:9090", "[::1]:9090"),
        ] {
            assert_eq!(text.parse::<Where>().expect(text).to_string(), shown);
        }
        assert!("localhost".parse::<Where>().is_err());
    }
}
