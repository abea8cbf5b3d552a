//! Cutting HTTP/2 calls whose client takes nothing of the answer: its flow control stays shut while PINGs are answered.
//!
//! Over HTTP/1 the kernel knows (`server/listen.rs`), here it does not: other streams go on. A call waits for its client when its body gave a
//! part last and was not asked for more since; an upstream that is silent is none of this.

use crate::proxy::ProxyBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// How long a client may take nothing of one answer. With the size of a part it lets the slowest of clients through.
pub(super) const STILL_MAX: Duration = Duration::from_secs(300);
/// The longest part given to HTTP/2 at once, in bytes: a larger one would be under way for long with a slow client, with no sign of it.
const PART_MAX: usize = 16 * 1024;

/// What a body did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Gave a part: what comes next is the client's to allow.
    Gave,
    /// Had none yet: the upstream is awaited.
    Waits,
}

thread_local! {
    /// What the body of the call that is polled now did. A connection's calls are polled by the thread that they belong to, one at a time.
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

/// A body that tells what it does to the call around it.
#[derive(Debug)]
pub(super) struct Watched {
    body: ProxyBody,
    /// The rest of a part.
    rest: Bytes,
}

impl Watched {
    pub(super) fn new(body: ProxyBody) -> Self {
        Watched { body, rest: Bytes::new() }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = <ProxyBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut part = std::mem::take(&mut self.rest);
        if part.is_empty() {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            LAST.set(Some(if polled.is_pending() { Last::Waits } else { Last::Gave }));
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => part = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
        LAST.set(Some(Last::Gave));
        if part.len() > PART_MAX {
            self.rest = part.split_off(PART_MAX);
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        // The upper bound first: the lower one may not pass it.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

pin_project_lite::pin_project! {
    /// A call that ends, and so resets its stream, when its client stands still.
    pub(super) struct Watch<F> {
        #[pin]
        call: F,
        still_max: Duration,
        // While the client is waited for.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> Watch<F> {
    pub(super) fn new(call: F, still_max: Duration) -> Self {
        Watch { call, still_max, timer: None }
    }
}

impl<F: Future> Future for Watch<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        LAST.set(None);
        if this.call.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match LAST.take() {
            Some(Last::Waits) => *this.timer = None,
            Some(Last::Gave) => *this.timer = Some(Box::pin(tokio::time::sleep(*this.still_max))),
            None => {}
        }
        match this.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;

    /// A call whose polls do these, one after another, and then nothing more.
    fn call(did: &[Option<Last>]) -> impl Future<Output = ()> {
        let mut did: Vec<_> = did.iter().rev().copied().collect();
        poll_fn(move |cx| {
            if let Some(step) = did.pop() {
                LAST.set(step.or(LAST.get()));
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
    }

    /// Fails without the stall limit on an answer that waits for its client.
    #[tokio::test]
    async fn threat_17_a_call_whose_client_takes_nothing_is_cut() {
        // It ends at all: nothing else would end it.
        Watch::new(call(&[Some(Last::Waits), Some(Last::Gave)]), Duration::from_millis(1)).await;
        Watch::new(call(&[Some(Last::Gave), None]), Duration::from_millis(1)).await;
    }

    /// Fails when the limit counts from the call's start, or counts the upstream's silence.
    #[tokio::test]
    async fn threat_17_a_client_that_takes_something_and_a_silent_upstream_are_left_alone() {
        for did in
            [&[][..], &[None], &[Some(Last::Waits)], &[Some(Last::Gave), Some(Last::Waits)], &[Some(Last::Gave), None, Some(Last::Waits)]]
        {
            let mut watch = pin!(Watch::new(call(did), STILL_MAX));
            for _ in did {
                assert!(futures_util::poll!(watch.as_mut()).is_pending());
            }
            assert!(watch.timer.is_none(), "nothing is counted after {did:?}");
        }
        // Each part that it takes begins the count anew.
        let mut watch = pin!(Watch::new(call(&[Some(Last::Gave), Some(Last::Gave)]), STILL_MAX));
        assert!(futures_util::poll!(watch.as_mut()).is_pending());
        let first = watch.timer.as_ref().map(|timer| timer.deadline());
        assert!(futures_util::poll!(watch.as_mut()).is_pending());
        assert!(watch.timer.as_ref().map(|timer| timer.deadline()) >= first && first.is_some());
    }

    #[test]
    fn a_large_part_is_given_in_pieces_and_none_is_lost() {
        let whole = Bytes::from((0..100_000_u32).map(|number| number as u8).collect::<Vec<_>>());
        let mut body = Watched::new(ProxyBody::Own(Some(whole.clone())));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((whole.len() - all.len()) as u64));
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) else { panic!("a part was left") };
            let part = frame.into_data().expect("data");
            assert!(part.len() <= PART_MAX);
            all.extend_from_slice(&part);
        }
        assert_eq!(all, whole);
        assert_eq!(LAST.take(), Some(Last::Gave));
    }
}
