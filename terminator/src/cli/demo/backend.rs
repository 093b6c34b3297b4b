//! The demo's web server: one page that says how the request came.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Listens on a free port; runs on the tokio runtime's own thread and ends with it.
pub(super) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                // An error here is a client that left.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(page))
                    .await;
            });
        }
    });
    Ok(address)
}

/// What the page for a host says.
pub(super) fn greeting(host: &str) -> String {
    format!("Hello from the backend. You asked {host}; clinch ended TLS in front of me.\n")
}

async fn page(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let mut response = Response::new(Full::from(greeting(host.unwrap_or("nobody"))));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
