//! Which HTTP a client speaks, found out once a connection by its first bytes, and a stream that gives those bytes out again.
//!
//! hyper-util's `auto` builder does the same; it keeps every connection in an enum that is matched at each poll and cannot be told from a plain
//! one by its limits. Here the choice is made before hyper is asked, so that an HTTP/1 request costs what it did: one check whether anything
//! is left to give out again, at each read.

use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How an HTTP/2 connection begins (RFC 9113 §3.4): no HTTP/1 request has the method `PRI`.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The room for the first read: most requests fit whole.
const FIRST_READ: usize = 2048;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// Reads until it is known what the client speaks. `None`: it left before.
pub(super) async fn sniff<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Option<(Spoken, Rewound<S>)>> {
    let mut read = BytesMut::with_capacity(FIRST_READ);
    loop {
        let ended = stream.read_buf(&mut read).await? == 0;
        if ended && read.is_empty() {
            return Ok(None);
        }
        let seen = read.len().min(PREFACE.len());
        let spoken = match read[..seen] == PREFACE[..seen] {
            true if seen == PREFACE.len() => Spoken::Http2,
            // Nothing more comes: hyper answers what there is.
            true if ended => Spoken::Http1,
            true => continue,
            false => Spoken::Http1,
        };
        return Ok(Some((spoken, Rewound::new(stream, read.freeze()))));
    }
}

/// A stream of which some bytes were read already: they come first.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    first: Bytes,
    stream: S,
}

impl<S> Rewound<S> {
    pub(super) fn new(stream: S, first: Bytes) -> Self {
        Rewound { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.advance(count);
        if self.first.is_empty() {
            // Lets go of the memory: the connection may live long.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn check(parts: &[&[u8]], expected: Option<Spoken>) {
        let (mut client, server) = tokio::io::duplex(4096);
        let whole = parts.concat();
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let writing = tokio::spawn(async move {
            for part in parts {
                client.write_all(&part).await.expect("written");
                tokio::task::yield_now().await;
            }
        });
        let found = sniff(server).await.expect("read");
        writing.await.expect("written");
        assert_eq!(found.as_ref().map(|(spoken, _)| *spoken), expected);
        if let Some((_, mut stream)) = found {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.expect("read");
            assert_eq!(all, whole, "not a byte is lost");
        }
    }

    #[tokio::test]
    async fn a_client_is_known_by_its_first_bytes_in_whatever_parts_they_come() {
        check(&[PREFACE, b"\0\0\0\x04\0\0\0\0\0"], Some(Spoken::Http2)).await;
        check(&[b"P", b"RI * HTTP", b"/2.0\r\n\r\nSM\r\n\r\n", b"\0"], Some(Spoken::Http2)).await;
        check(&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Some(Spoken::Http1)).await;
        check(&[b"PRI * HTTP/2.0\r\n\r\nXX"], Some(Spoken::Http1)).await;
        check(&[b"GET / HTTP/1.0\r\n\r\n"], Some(Spoken::Http1)).await;
        check(&[], None).await;
    }
}
