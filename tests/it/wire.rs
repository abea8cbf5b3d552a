//! Clients: a hyper one for ordinary calls, and a raw one for tests that count bytes.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take before a test says that it hangs. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub type Body = BoxBody<Bytes, std::io::Error>;

pub fn empty() -> Body {
    whole(Bytes::new())
}

pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Fails the test when `work` takes too long.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}

/// Polls a condition until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// The one value of a header; empty when it is absent.
    pub fn header(&self, name: &str) -> String {
        let values: Vec<_> =
            self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        values.join(", ")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {} {}", self.status, self.text()))
    }

    /// Asserts that this is an error of Attaché's own, whole and by contract §5.
    #[track_caller]
    pub fn is_problem(&self, name: &str, status: u16, proxy_error: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("proxy-status"), format!("attache; error={proxy_error}"));
        assert!(self.header("vary").contains("x-end-user"), "Vary: {}", self.header("vary"));
        let body = self.json();
        assert_eq!(body["type"], format!("urn:attache:{name}"));
        assert_eq!(body["status"], status);
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert_eq!(body["instance"], self.header("x-request-id"));
        assert!(body.get("attache").is_none(), "RFC 9209's member is a header's, not a body's");
        match status {
            401 => assert_eq!(self.header("www-authenticate"), "Attache"),
            405 => assert!(!self.header("allow").is_empty()),
            429 | 503 => assert!(!self.header("retry-after").is_empty()),
            _ => {}
        }
    }

    #[track_caller]
    pub fn is_ok(&self) -> &Self {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }
}

/// One keep-alive connection.
pub struct Connection(SendRequest<Body>);

impl Connection {
    pub async fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("handshake");
        tokio::spawn(connection);
        Connection(sender)
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    pub async fn call(&mut self, request: Request<Body>) -> Answer {
        let answer = async { Answer::read(self.send(request).await.expect("an answer")).await.expect("a whole answer") };
        within("a call", answer).await
    }
}

/// A request builder with the `Host` that a client of localhost sends.
pub fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path).header("host", "localhost:7070")
}

/// One call on a connection of its own.
pub async fn call(address: SocketAddr, request: Request<Body>) -> Answer {
    Connection::open(address).await.call(request).await
}

/// A client that writes exact bytes.
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer as it stood on the wire.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    /// Lower case, from the status line to the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| line.split_once(':').filter(|(found, _)| found == &name).map(|(_, value)| value.trim()))
    }
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Raw { stream, buffer: Vec::new() }
    }

    /// Writes; a peer that has closed already is no fault of the test's.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// More bytes into the buffer; false at the end.
    async fn more(&mut self) -> bool {
        let mut part = [0; 16 * 1024];
        match within("reading", self.stream.read(&mut part)).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&part[..count]);
                true
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The next head; `None` when the connection ends first.
    pub async fn head(&mut self) -> Option<String> {
        let mut head = self.line().await?.to_ascii_lowercase();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(head);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            head.push_str(&format!("\n{}:{value}", name.to_ascii_lowercase()));
        }
    }

    /// The next whole answer to a request that was no HEAD; `None` when the connection ends before that.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        let mut answer = self.answer_to_head().await?;
        if answer.status == 204 || answer.status == 304 || answer.status < 200 {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Some(answer);
                }
                answer.body.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            }
        }
        match answer.header("content-length").map(|length| length.parse().expect("a length")) {
            Some(length) => answer.body = self.exactly(length).await?,
            None => answer.body = self.rest().await,
        }
        Some(answer)
    }

    /// The next answer to a HEAD request.
    pub async fn answer_to_head(&mut self) -> Option<RawAnswer> {
        let head = self.head().await?;
        let status = head.split(' ').nth(1)?.parse().expect("a status");
        Some(RawAnswer { status, head, body: Vec::new() })
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Everything until the last chunk of an answer, or until the peer closes.
    pub async fn until_last_chunk(&mut self) -> Vec<u8> {
        while !self.buffer.ends_with(b"0\r\n\r\n") && self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Some more bytes, as soon as any come; empty at the end.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.more().await;
        }
        std::mem::take(&mut self.buffer)
    }
}
