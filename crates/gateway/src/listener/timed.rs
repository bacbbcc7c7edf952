//! A connection with timers: for what a client has to send before it is answered, and for what it has to take.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// How much a client has to take within each write timeout. Without it, one that takes a byte a second would be served for
/// days.
const LEAST: usize = 16 * 1024;

/// Whether it is the server's turn: while it is, nothing is expected of the client. Its body has a timer of its own.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// The client has sent all that it had to.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The server has answered, and waits for more.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it is the server's turn.
    pub(super) fn is_ours(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a client has to send next.
#[derive(PartialEq)]
enum Due {
    Nothing,
    /// The first byte of a head.
    Request,
    /// The rest of one.
    Head,
}

/// The timers of a connection.
pub(super) struct Times {
    /// For a head, from its first byte on, however it trickles in.
    pub(super) head: Duration,
    /// For the first byte of each head but the first.
    pub(super) idle: Duration,
    /// For each [`LEAST`] bytes of what is written.
    pub(super) write: Duration,
}

/// A stream that fails with [`ErrorKind::TimedOut`] when its client is too slow. The timers are looked at while nothing
/// comes or goes, and cost a busy connection next to nothing.
pub(super) struct Timed<T> {
    stream: T,
    times: Times,
    turn: Turn,
    due: Due,
    /// When it is due.
    deadline: Instant,
    read: Timer,
    /// What waits to be taken.
    unread: Option<Unread>,
    write: Timer,
}

/// Bytes that the client has not taken.
struct Unread {
    /// When it has to have taken [`LEAST`] bytes.
    deadline: Instant,
    /// How many it has taken.
    taken: usize,
}

/// A timer that takes no memory before it is needed.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready at the deadline.
    fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context)
    }
}

impl<T> Timed<T> {
    /// A connection that began at `opened`, and has to bring a head now.
    pub(super) fn new(stream: T, times: Times, turn: Turn, opened: Instant) -> Self {
        Self {
            stream,
            deadline: opened + times.head,
            times,
            turn,
            due: Due::Head,
            read: Timer::default(),
            unread: None,
            write: Timer::default(),
        }
    }

    fn expect(&mut self, due: Due) {
        self.deadline = Instant::now()
            + match due {
                Due::Head => self.times.head,
                Due::Nothing | Due::Request => self.times.idle,
            };
        self.due = due;
    }

    /// Ready when the client is late.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.read.poll(context, self.deadline));
            if self.unread.is_none() {
                return Poll::Ready(());
            }
            // It has not got all of the last reply yet, and need not send before.
            self.expect(Due::Request);
        }
    }

    /// What came of a write: how many of the bytes `offered` were taken.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let time = self.times.write;
        let unread = || Unread {
            deadline: Instant::now() + time,
            taken: 0,
        };
        match &written {
            Poll::Ready(Ok(count)) if *count == offered => self.unread = None,
            Poll::Ready(Ok(count)) => {
                if let Some(before) = &mut self.unread {
                    before.taken += count;
                    if before.taken >= LEAST {
                        *before = unread();
                    }
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let deadline = self.unread.get_or_insert_with(unread).deadline;
                ready!(self.write.poll(context, deadline));
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.turn.is_ours() {
            self.due = Due::Nothing;
            return read;
        }
        if read.is_pending() {
            if self.due == Due::Nothing {
                self.expect(Due::Request);
            }
            ready!(self.poll_late(context));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        if buffer.filled().len() > before && self.due != Due::Head {
            self.expect(Due::Head);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, 0, flushed.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, 0, shut.map_ok(|()| 0)).map_ok(|_| ())
    }
}
