//! What large messages take of the budget of memory, on their way in and out, and for how long.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use proto::{Budget, Hold, Reason};
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
    }

    /// What a write holds as long as it takes; nothing for a small request.
    pub(crate) fn hold(&self) -> Option<Box<dyn Send + Sync>> {
        let nothing = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
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

/// The body of a response that is counted: every byte of it holds what was taken until it has been sent, also when it waits
/// for a slow client after the body has ended.
pub(crate) struct Held {
    pub(crate) body: Body,
    pub(crate) hold: Hold,
}

/// A part of such a body.
struct Part {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let held = |bytes| {
            Bytes::from_owner(Part {
                bytes,
                _hold: self.hold.clone(),
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
