//! An origin made of hyper, for the matrix in tests/ingress: tells each request that it got as a JSON line
//! on standard output, and answers 200 `ok`. The first line is its port. Runs until it is killed.

use std::convert::Infallible;

use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// Each byte as one character: what is not UTF-8 stays what it is.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn pairs(fields: &HeaderMap) -> Value {
    fields.iter().map(|(name, value)| json!([name.as_str(), latin1(value.as_bytes())])).collect()
}

/// The body and the trailers.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, HeaderMap), hyper::Error> {
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(piece) => data.extend_from_slice(&piece),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((data, trailers))
}

#[expect(clippy::print_stdout, reason = "a program for scripts")]
async fn tell(request: Request<Incoming>) -> Result<Response<String>, hyper::Error> {
    let (head, body) = request.into_parts();
    let (data, trailers) = read(body).await?;
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    let seen = json!({
        "method": head.method.as_str(),
        "target": latin1(head.uri.to_string().as_bytes()),
        "fields": pairs(&head.headers),
        "body": hex,
        "trailers": pairs(&trailers),
    });
    println!("{seen}");
    Ok(Response::new("ok".to_owned()))
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "a program for scripts")]
async fn main() -> Result<Infallible, Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({ "ready": listener.local_addr()?.port() }));
    loop {
        let (stream, _) = listener.accept().await?;
        let mut server = http1::Builder::new();
        server.max_buf_size(256 * 1024).max_headers(256);
        // A client that breaks off has been refused, or has gone: no request, nothing to tell.
        tokio::spawn(async move { server.serve_connection(TokioIo::new(stream), service_fn(tell)).await });
    }
}
