//! The demo's web server: one page that says how the request came, and for load generators as many
//! bytes as are asked for, and a place for bodies.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
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
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(async move {
                // An error here is a client that left.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
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

/// `/bytes/N`: N bytes. Anything else: the page, once the whole body of the request is read.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Content>, Infallible> {
    let bytes = request.uri().path().strip_prefix("/bytes/");
    let content = match bytes.and_then(|bytes| bytes.parse().ok()) {
        Some(left) => Content {
            left,
            part: Bytes::from_static(&PART),
        },
        None => {
            let body = request.body_mut();
            while let Some(Ok(_)) =
                std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
            {
            }
            let host = request.headers().get(HOST);
            let host = host.and_then(|host| host.to_str().ok());
            let page = Bytes::from(greeting(host.unwrap_or("nobody")));
            Content {
                left: page.len() as u64,
                part: page,
            }
        }
    };
    let mut response = Response::new(content);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// A body of `left` bytes, made of the same part over and over.
struct Content {
    left: u64,
    part: Bytes,
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(self.part.len() as u64);
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(self.part.slice(..length as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What `/bytes/N` consists of; large, since each part is a write.
static PART: [u8; 256 * 1024] = [b'x'; 256 * 1024];
