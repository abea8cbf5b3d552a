//! Upgrades (RFC 9110 §7.8): what a client may ask for, whether the upstream agreed to it, and the tunnel that comes of it.

use super::context::Account;
use crate::config::Route;
use http::header::{CONNECTION, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Method, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

const UPGRADE_WORD: HeaderValue = HeaderValue::from_static("upgrade");

/// An upgrade that a client asks for on a route that takes them.
#[derive(Debug)]
pub(super) struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wish {
    /// `None` where nothing is asked for that may be passed on: the request is then an ordinary one (RFC 9110 §7.8 lets a server ignore it).
    pub(super) fn of(route: &Route, head: &Parts, incoming: &Incoming) -> Option<Self> {
        // RFC 6455 §4.1 has it begin by GET; another method's meaning would be lost in the tunnel.
        if !route.websocket || head.version != Version::HTTP_11 || head.method != Method::GET {
            return None;
        }
        // With a body nobody could say where the tunnel begins.
        if !incoming.is_end_stream() || head.headers.contains_key(TRANSFER_ENCODING) {
            return None;
        }
        let protocol = asked(&head.headers)?.clone();
        let client = head.extensions.get::<OnUpgrade>()?.clone();
        Some(Wish { protocol, client })
    }

    /// Puts the wish on the upstream's request, whose own hop-by-hop headers it has none of any more.
    pub(super) fn say(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, UPGRADE_WORD);
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// Whether an answer with status 101 agrees to this and nothing else.
    pub(super) fn is_granted(&self, answer: &HeaderMap) -> bool {
        let mut lines = answer.get_all(UPGRADE).iter();
        let (Some(said), None) = (lines.next(), lines.next()) else { return false };
        has_word(answer, b"upgrade") && said.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes())
    }
}

/// The one protocol of `Upgrade`, where `Connection` names it too. Never HTTP or TLS themselves: through such a tunnel calls would go that
/// nobody judges.
fn asked(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (lines.next(), lines.next()) else { return None };
    let text = protocol.to_str().ok()?;
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
    let fits = is_word(name) && version.is_none_or(is_word);
    let refused = ["h2", "h2c", "h3", "http", "https", "tls", "ssl", "connect-udp", "connect-ip"];
    (fits && !refused.iter().any(|other| name.eq_ignore_ascii_case(other)) && has_word(headers, b"upgrade")).then_some(protocol)
}

fn has_word(headers: &HeaderMap, word: &[u8]) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|found| found.trim_ascii().eq_ignore_ascii_case(word))
}

/// One worker's tunnels: they outlive their client's HTTP connection, which ends with the 101.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: Cell<usize>,
    ended: Notify,
}

impl Tunnels {
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Waits for a tunnel to end.
    pub async fn one_ended(&self) {
        self.ended.notified().await;
    }

    /// Waits until none is open.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.open.get() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Opens the tunnel that both sides agreed on, and makes the answer's head the client's: it ends when both sides have, or one broke, or at
    /// `deadline`.
    pub(super) fn begin(
        self: &Rc<Self>,
        wish: Wish,
        response: Response<Incoming>,
        account: Option<Account>,
        deadline: Option<Instant>,
        holds: impl Sized + 'static,
    ) {
        self.open.set(self.open.get() + 1);
        let open = Open { tunnels: Rc::clone(self), account, down: Rc::default(), up: Rc::default(), whole: false, late: false };
        let upstream = hyper::upgrade::on(response);
        tokio::task::spawn_local(async move {
            let work = async {
                let (client, upstream) = tokio::try_join!(wish.client, upstream).map_err(io::Error::other)?;
                let mut client = Counted { inner: TokioIo::new(client), written: Rc::clone(&open.down) };
                let mut upstream = Counted { inner: TokioIo::new(upstream), written: Rc::clone(&open.up) };
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await
            };
            let ended = match deadline {
                None => Some(work.await),
                Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
            };
            open.ended(matches!(ended, Some(Ok(_))), ended.is_none());
            drop(holds);
        });
    }
}

/// An open tunnel, told of at its end, also when its runtime ends first.
struct Open {
    tunnels: Rc<Tunnels>,
    account: Option<Account>,
    down: Rc<Cell<u64>>,
    up: Rc<Cell<u64>>,
    whole: bool,
    late: bool,
}

impl Open {
    fn ended(mut self, whole: bool, late: bool) {
        (self.whole, self.late) = (whole, late);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tunnels.open.set(self.tunnels.open.get() - 1);
        self.tunnels.ended.notify_waiters();
        if let Some(account) = self.account.take() {
            let error = self.late.then_some("upstream-timeout");
            account.tell_tunnel((self.down.get(), self.up.get()), self.whole, error);
        }
    }
}

/// One side of a tunnel, with what was written to it.
struct Counted {
    inner: TokioIo<Upgraded>,
    written: Rc<Cell<u64>>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.written.set(self.written.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_asked(connection: &'static str, upgrade: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static(connection));
        for line in upgrade {
            headers.append(UPGRADE, HeaderValue::from_static(line));
        }
        asked(&headers).is_some()
    }

    #[test]
    fn one_protocol_may_be_asked_for_and_never_http_itself() {
        assert!(is_asked("keep-alive, Upgrade", &["websocket"]) && is_asked("upgrade", &["SPDY/3.1"]));
        for refused in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "tls", "websocket, h2c", "h2c, websocket", "web socket", "", "a/b/c"] {
            assert!(!is_asked("upgrade", &[refused]), "{refused}");
        }
        assert!(!is_asked("upgrade", &["websocket", "h2c"]) && !is_asked("upgrade", &[]));
        assert!(!is_asked("keep-alive", &["websocket"]), "not named in Connection");
    }
}
