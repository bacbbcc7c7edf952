//! An HTTP/2 connection whose client may send only so many frames that ask for nothing.
//!
//! h2 answers each PING and each SETTINGS before it reads on, so that a flood of them takes no memory; but it answers them
//! for ever, and takes WINDOW_UPDATE, PRIORITY and frames of unknown types for ever. Whoever sends them without a pause has
//! a core to itself. So they are counted here, where the bytes come in, and read a little at a time when there are many. What else a client may flood with, h2 closes the
//! connection for: CONTINUATION, empty and tiny DATA, calls that are cancelled before they begin or are over the limit.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::timed::Turn;

/// How many frames come back with each second.
const PER_SECOND: u32 = 50;

/// How many bytes that are sent to the client give a frame back. A client may acknowledge what it gets: with a
/// WINDOW_UPDATE or two, and a PING to measure the round trip. The answer to a PING is half as long as this.
const PER_FRAME: usize = 32;

/// How many of them at once are many, as no call needs them.
const MANY: usize = 16;

/// How many bytes are read at a time from a client that sent many: 30 PINGs.
const SLICE: usize = 512;

/// What every client sends first.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// The length of a frame's head, which says how long the rest is, and of what type.
const HEAD: usize = 9;

/// The types of frames that are not counted: they are calls.
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The type of a frame that costs twice as much as others.
const PING: u8 = 6;

/// A stream that fails when there are too many frames.
pub(super) struct Metered<T> {
    stream: T,
    frames: Frames,
    allowance: Allowance,
    /// Whether the last read brought many frames that are counted.
    is_crowded: bool,
    /// Whether others come first, before the next read.
    is_to_wait: bool,
    /// It is ours once the client has said hello.
    turn: Turn,
}

impl<T> Metered<T> {
    /// Allows `most` frames at once.
    pub(super) fn new(stream: T, most: usize, turn: Turn) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            allowance: Allowance {
                most,
                left: most,
                since: Instant::now(),
                sent: 0,
            },
            // Not known yet.
            is_crowded: true,
            is_to_wait: false,
            turn,
        }
    }

    /// What came of a write.
    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.allowance.sent += count;
        }
        written
    }
}

/// What such a stream fails with. h2 makes another error of it, of which this and the text are left.
const TOO_MANY: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// Whether a stream failed for its frames.
pub(super) fn is_too_many(error: &io::Error) -> bool {
    error.kind() == TOO_MANY
}

/// Where in the client's bytes the frames begin.
#[derive(Default)]
struct Frames {
    /// How many bytes of the preface, or of the frame that has begun, are still to come.
    rest: usize,
    /// The head of the frame that begins next, as far as it has come.
    head: [u8; HEAD],
    have: usize,
    /// How many frames have begun, the preface counted as one.
    begun: usize,
}

impl Frames {
    /// Takes bytes up to and with the next head of a frame, and gives its type. None when there are no more bytes.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<u8> {
        if self.begun == 0 {
            self.begun = 1;
            self.rest = PREFACE;
        }
        let (_, after) = bytes.split_at(self.rest.min(bytes.len()));
        self.rest -= bytes.len() - after.len();
        *bytes = after;
        while let Some((first, after)) = bytes.split_first() {
            *bytes = after;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            if self.have == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.have = 0;
                self.begun += 1;
                self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
                return Some(kind);
            }
        }
        None
    }

    /// Whether the preface and the first frame, the client's settings, are there as a whole.
    fn is_greeted(&self) -> bool {
        self.begun > 2 || (self.begun == 2 && self.rest == 0)
    }
}

/// How many frames may come.
struct Allowance {
    most: usize,
    left: usize,
    /// When the last ones came back with time.
    since: Instant,
    /// How many bytes were sent to the client and not counted yet.
    sent: usize,
}

impl Allowance {
    /// Takes so many, if they are there.
    fn take(&mut self, price: usize) -> bool {
        // Who may send one frame may send one PING.
        let price = price.min(self.most);
        if self.left < price {
            let time = self.since.elapsed();
            self.since = Instant::now();
            let back = (time.as_secs_f64() * f64::from(PER_SECOND)) as usize + self.sent / PER_FRAME;
            self.sent = 0;
            self.left = (self.left + back).min(self.most);
        }
        let is_there = self.left >= price;
        self.left = self.left.saturating_sub(price);
        is_there
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // h2 goes on as long as there is something to read, and answers all of it at once. Who sends many frames that ask for
        // nothing is read a little at a time, and others have their turn in between.
        if mem::take(&mut self.is_to_wait) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let this = &mut *self;
        if this.is_crowded {
            let mut slice = [0; SLICE];
            let length = SLICE.min(buffer.remaining());
            let mut part = ReadBuf::new(&mut slice[..length]);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
            buffer.put_slice(part.filled());
        } else {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        }
        let mut bytes = buffer.filled().get(before..).unwrap_or_default();
        let mut counted = 0;
        while let Some(kind) = this.frames.next(&mut bytes) {
            if matches!(kind, DATA | HEADERS) {
                continue;
            }
            // A PING is answered, with a write of its own.
            let price = if kind == PING { 2 } else { 1 };
            if !this.allowance.take(price) {
                return Poll::Ready(Err(io::Error::new(TOO_MANY, "too many frames that are no calls")));
            }
            counted += 1;
        }
        this.is_crowded = counted >= MANY;
        this.is_to_wait = this.is_crowded;
        if this.frames.is_greeted() {
            this.turn.begin();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn frames_are_found_however_their_bytes_come() {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, length) in [(4, 18), (4, 0), (1, 200), (0, 0), (0, 255), (6, 8), (99, 3)] {
            sent.extend(frame(kind, length));
        }
        for size in 1..sent.len() {
            let mut frames = Frames::default();
            let mut kinds = Vec::new();
            for mut bytes in sent.chunks(size) {
                while let Some(kind) = frames.next(&mut bytes) {
                    kinds.push(kind);
                }
            }
            assert_eq!(kinds, [4, 4, 1, 0, 0, 6, 99], "{size} bytes at a time");
        }
    }

    /// What a client sends is the same for h2, however it is read.
    #[track_caller]
    fn sizes_of_reads(sent: &[u8]) -> Vec<usize> {
        let mut metered = Metered::new(sent, usize::MAX, Turn::default());
        let mut context = Context::from_waker(Waker::noop());
        let (mut sizes, mut got) = (Vec::new(), Vec::new());
        while got.len() < sent.len() {
            let mut space = [0; 4 * SLICE];
            let mut buffer = ReadBuf::new(&mut space);
            if let Poll::Ready(read) = Pin::new(&mut metered).poll_read(&mut context, &mut buffer) {
                read.unwrap();
            }
            sizes.push(buffer.filled().len());
            got.extend_from_slice(buffer.filled());
        }
        assert_eq!(got, sent);
        sizes
    }

    #[test]
    fn who_floods_is_read_a_little_at_a_time_and_others_come_in_between() {
        let pings = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(6, 8).repeat(100)].concat();
        let sizes = sizes_of_reads(&pings);
        let rest = pings.len() % SLICE;
        assert_eq!(sizes, [SLICE, 0, SLICE, 0, SLICE, 0, rest]);
        // A message goes through as it comes.
        let message = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(0, 200).repeat(20)].concat();
        let sizes = sizes_of_reads(&message);
        assert_eq!(sizes, [SLICE, 4 * SLICE, message.len() - 5 * SLICE]);
    }

    #[test]
    fn the_greeting_is_the_preface_and_the_whole_of_the_first_frame() {
        let mut greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        greeting.extend(frame(4, 18));
        let mut frames = Frames::default();
        let (last, before) = greeting.split_last().unwrap();
        for byte in before {
            let mut byte = std::slice::from_ref(byte);
            while frames.next(&mut byte).is_some() {}
            assert!(!frames.is_greeted());
        }
        assert_eq!(frames.next(&mut &[*last][..]), None);
        assert!(frames.is_greeted());
    }

    #[test]
    fn what_is_sent_to_a_client_and_time_give_frames_back() {
        let mut allowance = Allowance {
            most: 2,
            left: 2,
            since: Instant::now(),
            sent: 0,
        };
        assert!(allowance.take(1) && allowance.take(1));
        assert!(!allowance.take(1));
        allowance.sent = PER_FRAME;
        assert!(allowance.take(1));
        assert!(!allowance.take(1));
        allowance.since -= std::time::Duration::from_secs(60);
        assert!(allowance.take(1) && allowance.take(1), "after a minute");
        assert!(!allowance.take(1), "and never more than at first");
        allowance.sent = PER_FRAME;
        assert!(!allowance.take(2), "one is not enough for a PING");
        allowance.sent = 3 * PER_FRAME;
        assert!(allowance.take(2));
        let mut one = Allowance {
            most: 1,
            left: 1,
            ..allowance
        };
        assert!(one.take(2) && !one.take(2), "but it is if there is never more");
    }
}
