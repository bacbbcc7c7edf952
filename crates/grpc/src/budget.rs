//! What large messages take of the budget of memory, on their way in and out, and for how long.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use proto::{Budget, Hold, Reason};
use tokio::task::AbortHandle;
use tonic::{Status, body::Body};

/// What a request has taken of the budget: an extension of the request that its body adds to while it arrives. Taken until
/// this, and every clone of it, is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken(Arc<Mutex<Vec<Hold>>>);

impl Taken {
    /// That of a request which was counted before it came here.
    pub(crate) fn before(hold: Hold) -> Self {
        Self(Arc::new(Mutex::new(vec![hold])))
    }

    fn add(&self, hold: Hold) {
        lock(&self.0).push(hold);
    }

    /// What a write holds as long as it takes; nothing for a small request.
    pub(crate) fn hold(&self) -> Option<Box<dyn Send + Sync>> {
        let nothing = lock(&self.0).is_empty();
        (!nothing).then(|| Box::new(self.clone()) as Box<dyn Send + Sync>)
    }
}

/// How large the messages of a call may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The largest message that is not counted.
    pub(crate) free: usize,
    /// The largest message.
    pub(crate) most: usize,
}

/// The body of a request that takes from the budget as it arrives, once it is no small one.
pub(crate) struct Counted {
    body: Body,
    budget: Budget,
    sizes: Sizes,
    taken: Taken,
    /// How many bytes were taken.
    counted: usize,
    /// How many bytes have arrived.
    arrived: usize,
    compressed: bool,
}

impl Counted {
    /// gRPC's head of a message: whether it is compressed, and its length.
    const HEAD: usize = 5;

    /// How much is taken at once: a large message comes in a thousand frames.
    const STEP: usize = 256 * 1024;

    /// The most that deflate makes of a byte.
    const INFLATION: usize = 1_032;

    pub(crate) fn new(body: Body, budget: Budget, sizes: Sizes, taken: Taken) -> Self {
        Self {
            body,
            budget,
            sizes,
            taken,
            counted: 0,
            arrived: 0,
            compressed: false,
        }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), Reason> {
        if self.arrived == 0 {
            self.compressed = data.first() == Some(&1);
        }
        self.arrived = self.arrived.saturating_add(data.len());
        // The call has one message. More would be thrown away, but counted until the end.
        if self.arrived > self.sizes.most.saturating_add(Self::HEAD) {
            return Err(Reason::BodyTooLarge);
        }
        let message = if self.compressed {
            // Nobody knows before what it comes to, so the worst is taken.
            self.arrived.saturating_mul(Self::INFLATION).min(self.sizes.most)
        } else {
            self.arrived.saturating_sub(Self::HEAD)
        };
        if message > self.sizes.free && message > self.counted {
            let bytes = (message - self.counted).next_multiple_of(Self::STEP);
            // The last step is no larger than the largest message.
            let bytes = bytes.min(self.sizes.most - self.counted);
            self.taken.add(self.budget.take(bytes)?);
            self.counted += bytes;
        }
        Ok(())
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(reason) = self.count(data)
        {
            return Poll::Ready(Some(Err(reason.into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response that was counted. It holds what was taken until it has been sent, or until its client has left it
/// unread for too long: then it gives up, and what it has not sent is gone.
pub(crate) struct Held {
    reply: Arc<Mutex<Reply>>,
    patience: AbortHandle,
}

struct Reply {
    body: Body,
    /// What has come of the body, and is not sent.
    waiting: Bytes,
    /// When the client last took something.
    taken: Instant,
    /// None once it was given up.
    hold: Option<Hold>,
}

impl Held {
    /// How much is handed on at once, as a copy: a part of the whole would keep all of it in memory.
    const PART: usize = 64 * 1024;

    /// Gives up when the client leaves it unread for so long. What waits for the window of a stream, the timeout of the
    /// connection does not see.
    pub(crate) fn new(body: Body, hold: Hold, unread: Duration) -> Self {
        let reply = Arc::new(Mutex::new(Reply {
            body,
            waiting: Bytes::new(),
            taken: Instant::now(),
            hold: Some(hold),
        }));
        let patience = tokio::spawn(give_up(Arc::downgrade(&reply), unread)).abort_handle();
        Self { reply, patience }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.patience.abort();
    }
}

/// Gives a reply up that nobody takes. The body itself is not asked while the client has no room for more.
async fn give_up(reply: Weak<Mutex<Reply>>, unread: Duration) {
    let mut wait = unread;
    while !wait.is_zero() {
        tokio::time::sleep(wait).await;
        let Some(reply) = reply.upgrade() else {
            return;
        };
        let mut reply = lock(&reply);
        wait = unread.saturating_sub(reply.taken.elapsed());
        if wait.is_zero() {
            reply.body = Body::empty();
            reply.waiting = Bytes::new();
            reply.hold = None;
        }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut reply = lock(&self.reply);
        if reply.hold.is_none() {
            return Poll::Ready(Some(Err(Reason::DeadlineExceeded.into())));
        }
        reply.taken = Instant::now();
        while reply.waiting.is_empty() {
            let frame = ready!(Pin::new(&mut reply.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => reply.waiting = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
        let most = reply.waiting.len().min(Self::PART);
        let part = Bytes::copy_from_slice(&reply.waiting[..most]);
        reply.waiting.advance(most);
        if reply.waiting.is_empty() {
            // Empty, it would still keep the whole.
            reply.waiting = Bytes::new();
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        let reply = lock(&self.reply);
        reply.hold.is_some() && reply.waiting.is_empty() && reply.body.is_end_stream()
    }
}

/// A lock is held for no more than a few lines, none of which panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
