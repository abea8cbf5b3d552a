//! One upstream's connections in a worker's pool: those that idle, the count of all, and who waits in line for one.
//!
//! First come, first served: a connection that is given back goes to who waits longest, not to who asks next.

use super::Sender;
use crate::upstream::bounds::Bounds;
use hyper::client::conn::{http1, http2};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Idle connections kept per upstream and worker: more than the busiest moment needs is no use.
const IDLE_MAX: usize = 128;

pub(super) struct Place<B> {
    idle: RefCell<Vec<Idle<B>>>,
    h2: RefCell<Option<http2::SendRequest<B>>>,
    /// Connections that stand or are being made.
    open: Cell<usize>,
    line: RefCell<VecDeque<oneshot::Sender<Turn<B>>>>,
}

/// A connection that no call uses.
pub(super) struct Idle<B> {
    pub(super) sender: http1::SendRequest<B>,
    pub(super) until: Instant,
    pub(super) permit: Permit<B>,
}

/// One connection's place in the count; dropping it makes room for another.
pub(super) struct Permit<B> {
    place: Weak<Place<B>>,
}

/// What a call that found no idle connection does.
pub(super) enum Turn<B> {
    Open(Permit<B>),
    Take(Idle<B>),
    /// There is an HTTP/2 connection now.
    Look,
}

impl<B> Default for Place<B> {
    fn default() -> Self {
        Place { idle: RefCell::default(), h2: RefCell::default(), open: Cell::default(), line: RefCell::default() }
    }
}

impl<B: 'static> Place<B> {
    /// The shared HTTP/2 connection, or the freshest idle one, that is not known to be closed.
    pub(super) fn checkout(&self) -> Option<Sender<B>> {
        if let Some(h2) = self.h2() {
            return Some(Sender::H2(h2));
        }
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if !idle.sender.is_closed() && Instant::now() < idle.until {
                return Some(Sender::H1(idle));
            }
        }
    }

    pub(super) fn h2(&self) -> Option<http2::SendRequest<B>> {
        let mut h2 = self.h2.borrow_mut();
        h2.take_if(|sender| sender.is_closed());
        h2.clone()
    }

    /// Makes an HTTP/2 connection everybody's, those in line first.
    pub(super) fn share(&self, sender: http2::SendRequest<B>) {
        *self.h2.borrow_mut() = Some(sender);
        for waiting in self.line.take() {
            let _ = waiting.send(Turn::Look);
        }
    }

    /// A permit to open a connection, at once or in line. `None`: the line is full, or the wait was too long.
    pub(super) async fn turn(self: &Rc<Self>, bounds: &Bounds) -> Option<Turn<B>> {
        if self.open.get() < bounds.connections_max {
            self.open.set(self.open.get() + 1);
            return Some(Turn::Open(Permit { place: Rc::downgrade(self) }));
        }
        let turn = {
            let mut line = self.line.borrow_mut();
            if line.len() >= bounds.waiting_max {
                // Who gave up is in nobody's way.
                line.retain(|waiting| !waiting.is_closed());
            }
            if line.len() >= bounds.waiting_max {
                return None;
            }
            let (tell, turn) = oneshot::channel();
            line.push_back(tell);
            turn
        };
        tokio::time::timeout(bounds.wait, turn).await.ok()?.ok()
    }

    pub(super) fn distrust(&self) {
        // Taken out first: each one that goes tells this place.
        drop(self.idle.take());
        self.h2.borrow_mut().take_if(|sender| sender.is_closed());
    }

    /// Closes what has idled too long; whether anything is left.
    pub(super) fn sweep(&self) -> bool {
        let now = Instant::now();
        let (kept, gone) = self.idle.take().into_iter().partition(|idle| !idle.sender.is_closed() && now < idle.until);
        *self.idle.borrow_mut() = kept;
        drop::<Vec<_>>(gone);
        self.h2.borrow_mut().take_if(|sender| sender.is_closed());
        self.open.get() > 0 || !self.line.borrow().is_empty()
    }

    /// Hands something to who waits longest and is still there; gives it back where nobody is.
    fn hand_on(&self, mut turn: Turn<B>) -> Option<Turn<B>> {
        loop {
            let Some(waiting) = self.line.borrow_mut().pop_front() else { return Some(turn) };
            match waiting.send(turn) {
                Ok(()) => return None,
                Err(back) => turn = back,
            }
        }
    }
}

impl<B: 'static> Permit<B> {
    /// Keeps a connection for the next call.
    pub(super) fn keep(self, idle: impl FnOnce(Permit<B>) -> Idle<B>) {
        let Some(place) = self.place.upgrade() else { return };
        let idle = idle(self);
        let Some(Turn::Take(idle)) = place.hand_on(Turn::Take(idle)) else { return };
        let has_room = place.idle.borrow().len() < IDLE_MAX;
        if has_room {
            place.idle.borrow_mut().push(idle);
        }
    }
}

impl<B> Drop for Permit<B> {
    fn drop(&mut self) {
        let Some(place) = self.place.upgrade() else { return };
        // The permit goes to the next in line; one that nobody takes is struck off.
        loop {
            let Some(waiting) = place.line.borrow_mut().pop_front() else { break };
            let permit = Permit { place: std::mem::take(&mut self.place) };
            match waiting.send(Turn::Open(permit)) {
                Ok(()) => return,
                // Taken apart here, so that it does not come by this way again.
                Err(Turn::Open(mut permit)) => self.place = std::mem::take(&mut permit.place),
                Err(Turn::Take(_) | Turn::Look) => {}
            }
        }
        place.open.set(place.open.get().saturating_sub(1));
    }
}
