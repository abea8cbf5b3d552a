//! A thread that writes log lines, a bounded queue before it, and a count of what did not fit in.
//!
//! Not `tracing-appender`, whose queue takes a message a line and counts messages: here many lines are one message, and lines are what is counted.

use super::line::Stamp;
use crate::base::clock::{Clock, SystemClock};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// What may wait to be written: of bytes, and of messages.
const BYTES_MAX: usize = 4 * 1024 * 1024;
const MESSAGES_MAX: usize = 16 * 1024;
/// What goes out with one write at most.
const WRITE_MOST: usize = 64 * 1024;
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

enum Message {
    Lines {
        bytes: Vec<u8>,
        count: u64,
    },
    /// Answered once all that came before is written.
    Flush(SyncSender<()>),
}

/// The queue's front.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Arc<Writer>> {
        let (queue, messages) = sync_channel(MESSAGES_MAX);
        let (waiting, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let back = Back { out, waiting: Arc::clone(&waiting), dropped: Arc::clone(&dropped), told: 0 };
        std::thread::Builder::new().name("attache-log".to_owned()).spawn(move || back.run(&messages))?;
        Ok(Arc::new(Writer { queue, waiting, dropped }))
    }

    /// Never waits: what does not fit is counted as dropped.
    pub(super) fn push(&self, bytes: Vec<u8>, count: u64) {
        let size = bytes.len();
        if self.waiting.load(Relaxed) + size > BYTES_MAX {
            self.dropped.fetch_add(count, Relaxed);
            return;
        }
        self.waiting.fetch_add(size, Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(Message::Lines { bytes, count }) {
            self.waiting.fetch_sub(size, Relaxed);
            self.dropped.fetch_add(count, Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until all that was pushed before is written, but not for ever: its reader may stand still.
    pub(super) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_WITHIN);
        }
    }
}

struct Back<O> {
    out: O,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    /// How many of the dropped have been told.
    told: u64,
}

impl<O: Write> Back<O> {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut buffer = Vec::new();
        while let Ok(first) = messages.recv() {
            let (mut next, mut done, mut count) = (Some(first), None, 0);
            while let Some(message) = next {
                match message {
                    Message::Lines { bytes, count: more } => {
                        // Mostly the only one, which is not copied then.
                        if buffer.is_empty() {
                            buffer = bytes
                        } else {
                            buffer.extend_from_slice(&bytes)
                        }
                        count += more;
                    }
                    Message::Flush(answer) => {
                        done = Some(answer);
                        break;
                    }
                }
                next = if buffer.len() < WRITE_MOST { messages.try_recv().ok() } else { None };
            }
            self.write(&mut buffer, count);
            if let Some(done) = done {
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, buffer: &mut Vec<u8>, count: u64) {
        let size = buffer.len();
        let dropped = self.dropped.load(Relaxed);
        if dropped > self.told {
            let (stamp, lines) = (Stamp::of(SystemClock.now()), dropped - self.told);
            // As text in either format's log: what was lost is of both.
            let _ = writeln!(
                buffer,
                "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"message\":\"log lines were dropped: what reads the log is too slow\",\"log.dropped\":{lines}}}",
                stamp.text()
            );
            self.told = dropped;
        }
        if self.out.write_all(buffer).and_then(|()| self.out.flush()).is_err() {
            // Nobody reads it any more: there is no other place to say so.
            self.dropped.fetch_add(count, Relaxed);
            self.told += count;
        }
        self.waiting.fetch_sub(size, Relaxed);
        buffer.clear();
    }
}

/// What `tracing` writes one event to.
pub(super) struct Event(Arc<Writer>);

impl Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec(), 1);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `tracing` have the queue: a type of its own, for `Arc<Writer>` is a stranger's to both.
#[derive(Clone)]
pub(super) struct Queue(pub(super) Arc<Writer>);

impl<'w> MakeWriter<'w> for Queue {
    type Writer = Event;

    fn make_writer(&'w self) -> Event {
        Event(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    #[derive(Default)]
    struct Read {
        is_open: bool,
        bytes: Vec<u8>,
    }

    /// A reader that stands still until it is let go.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Read>, Condvar)>);

    impl Gate {
        fn open(&self) {
            self.0.0.lock().expect("lock").is_open = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().expect("lock").bytes.clone()).expect("text")
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.1.wait_while(self.0.0.lock().expect("lock"), |state| !state.is_open).expect("lock");
            state.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_and_in_their_order() {
        let gate = Gate::default();
        gate.open();
        let writer = Writer::start(gate.clone()).expect("a thread");
        for number in 0..1000 {
            writer.push(format!("line {number}\n").into_bytes(), 1);
        }
        writer.flush();
        let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        assert_eq!((gate.text(), writer.dropped()), (expected, 0));
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_what_was_dropped_is_told() {
        let gate = Gate::default();
        let writer = Writer::start(gate.clone()).expect("a thread");
        for _ in 0..10 {
            writer.push([vec![b'x'; BYTES_MAX / 8 - 1], vec![b'\n']].concat(), 100);
        }
        // One may have been taken out of the queue by the thread, but counts as waiting until it is written.
        assert_eq!(writer.dropped(), 200);
        gate.open();
        writer.flush();
        writer.push(b"after\n".to_vec(), 1);
        writer.flush();
        let text = gate.text();
        // Told with the first write after it was known, so perhaps in two parts.
        let told = text.split("\"log.dropped\":").skip(1).filter_map(|rest| rest.split('}').next()?.parse::<u64>().ok());
        assert_eq!(told.sum::<u64>(), 200);
        assert!(text.ends_with("after\n"));
    }
}
