//! A scripted upstream: strict about what it reads, a recorder of every byte, and free in what it answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One whole request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As which request of its connection it came.
    pub nth: usize,
    pub method: String,
    pub target: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a header; empty when it is absent.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is there more than once: {all:?}");
        all.first().copied().unwrap_or_default()
    }

    pub fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }
}

pub enum Reply {
    /// These bytes, and the connection stays open.
    Keep(Vec<u8>),
    /// These bytes, then a close.
    Close(Vec<u8>),
    /// Nothing at all, with the connection held.
    Hang,
}

impl Reply {
    /// A plain 200 with these further header lines, each ended by `\r\n`.
    pub fn ok(headers: &str, body: &str) -> Reply {
        Reply::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes())
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Default)]
struct Log {
    requests: Vec<Seen>,
    /// All bytes of each connection.
    bytes: Vec<Vec<u8>>,
}

/// A running scripted upstream; dropping it ends it.
pub struct Upstream {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// Answers each request by `script`.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (log, script): (Arc<Mutex<Log>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let kept = Arc::clone(&log);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut log = log.lock().expect("unpoisoned");
                    log.bytes.push(Vec::new());
                    log.bytes.len() - 1
                };
                tokio::spawn(serve(stream, number, Arc::clone(&log), Arc::clone(&script)));
            }
        });
        Upstream { address, log: kept, serving }
    }

    /// Answers everything with a short 200.
    pub async fn plain() -> Upstream {
        Upstream::start(|_| Reply::ok("", "ok")).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().expect("unpoisoned").requests.clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request came")
    }

    pub fn connections(&self) -> usize {
        self.log.lock().expect("unpoisoned").bytes.len()
    }

    /// Everything that came, all connections after another.
    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().expect("unpoisoned").bytes.concat()).into_owned()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, connection: usize, log: Arc<Mutex<Log>>, script: Arc<Script>) {
    let mut reader = Reader { stream, buffer: Vec::new(), connection, log: Arc::clone(&log) };
    for nth in 0.. {
        let Some(seen) = reader.request(nth).await else { return };
        log.lock().expect("unpoisoned").requests.push(seen.clone());
        let (bytes, stays) = match script(&seen) {
            Reply::Keep(bytes) => (bytes, true),
            Reply::Close(bytes) => (bytes, false),
            Reply::Hang => return std::future::pending().await,
        };
        if reader.stream.write_all(&bytes).await.is_err() || !stays {
            return;
        }
    }
}

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    connection: usize,
    log: Arc<Mutex<Log>>,
}

impl Reader {
    async fn more(&mut self) -> Option<()> {
        let mut part = [0; 16 * 1024];
        let count = self.stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        self.buffer.extend_from_slice(&part[..count]);
        self.log.lock().expect("unpoisoned").bytes[self.connection].extend_from_slice(&part[..count]);
        Some(())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The next whole request; `None` when the connection ends before that.
    async fn request(&mut self, nth: usize) -> Option<Seen> {
        let first = self.line().await?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut seen = Seen { nth, method, target, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            seen.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if seen.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            loop {
                let size = usize::from_str_radix(self.line().await?.split(';').next()?, 16).ok()?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                seen.body.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            }
        } else if let Ok(length) = seen.header("content-length").parse() {
            seen.body = self.exactly(length).await?;
        }
        Some(seen)
    }
}
