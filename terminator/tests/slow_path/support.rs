//! Servers for the tests of egress and control: a real HTTP server on loopback whose answers a test
//! decides, and looking at the processes that a test started.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clinch"))
}

/// What the server was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What it answers.
pub(crate) enum Reply {
    /// Status, headers, body.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Takes the request and says nothing.
    Hang,
}

/// Serves on a free port of 127.0.0.1 until the runtime ends.
pub(crate) async fn serve(answer: impl Fn(Asked) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            let service = service_fn(move |request| reply(request, Arc::clone(&answer)));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // Clients that break off are part of the tests.
            tokio::spawn(async move { connection.await.ok() });
        }
    });
    address
}

async fn reply<A: Fn(Asked) -> Reply>(
    request: hyper::Request<Incoming>,
    answer: Arc<A>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a whole request").to_bytes();
    let reply = answer(Asked {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.to_vec(),
    });
    let Reply::Http(status, headers, body) = reply else {
        return std::future::pending().await;
    };
    let mut response = hyper::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body)).expect("a valid response"))
}

/// Serves connections with `script`, byte for byte.
pub(crate) async fn serve_raw<F, S>(script: S) -> SocketAddr
where
    S: Fn(tokio::net::TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    address
}

/// Looks until `condition` gives something, and fails the test when it does not within twenty seconds.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Children that a thread of a process started.
pub(crate) fn children(process: &str, thread: &str) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{process}/task/{thread}/children"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Monitor and worker of the egress process that this thread started.
pub(crate) async fn egress_processes() -> (u32, u32) {
    eventually("egress has a monitor and a worker", async || {
        let thread = fs::read_link("/proc/thread-self").ok()?;
        let thread = thread.file_name()?.to_str()?.to_owned();
        let monitor = *children("self", &thread).first()?;
        let worker = *children(&monitor.to_string(), &monitor.to_string()).first()?;
        Some((monitor, worker))
    })
    .await
}

/// A line of /proc/PID/status.
pub(crate) fn status_line(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// True when the process is no more, or only waits to be taken note of.
pub(crate) fn is_gone(pid: u32) -> bool {
    status_line(pid, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Ends a process that this test started.
pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
    kill_process(pid, Signal::KILL).expect("ours to end");
}
