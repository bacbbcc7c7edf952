//! Takes a body off the wire: in time, within the limit and the budget, and inflated.

use std::io::Read;

use axum::body::{Body, HttpBody};
use flate2::bufread::MultiGzDecoder;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, EXPECT},
};
use http_body_util::BodyExt;
use proto::{Budget, Hold, Reason};
use tokio::time::{Instant, timeout_at};

use crate::Settings;

/// How a body is encoded.
#[derive(Clone, Copy)]
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Reason> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let encoding = match values.next().map(|value| value.as_bytes().trim_ascii()) {
            None | Some(b"") => Self::Identity,
            Some(value) if value.eq_ignore_ascii_case(b"identity") => Self::Identity,
            Some(value) if value.eq_ignore_ascii_case(b"gzip") => Self::Gzip,
            Some(_) => return Err(Reason::UnsupportedEncoding),
        };
        // A second encoding lies over the first.
        match values.next() {
            None => Ok(encoding),
            Some(_) => Err(Reason::UnsupportedEncoding),
        }
    }
}

/// Bytes that take from a budget while they grow, once they are more than a body usually has.
struct Growing {
    bytes: Vec<u8>,
    free: usize,
    most: usize,
    budget: Budget,
    hold: Option<Hold>,
    held: usize,
}

impl Growing {
    /// How much is taken from the budget at once: a large body comes in a thousand frames.
    const STEP: usize = 64 * 1024;

    fn new(settings: &Settings, budget: &Budget) -> Self {
        Self {
            bytes: Vec::new(),
            free: settings.body_limit,
            most: settings.document_body_limit.max(settings.body_limit),
            budget: budget.clone(),
            hold: None,
            held: 0,
        }
    }

    /// Lets the whole come to that many bytes.
    fn admit(&mut self, length: usize) -> Result<(), Reason> {
        if length > self.most {
            return Err(Reason::BodyTooLarge);
        }
        if length > self.free && length > self.held {
            let held = length.checked_next_multiple_of(Self::STEP).unwrap_or(length);
            let more = self.budget.take(held - self.held)?;
            match &mut self.hold {
                Some(hold) => hold.add(more),
                none => *none = Some(more),
            }
            self.held = held;
        }
        Ok(())
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Reason> {
        self.admit(self.bytes.len().saturating_add(more.len()))?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Whether this is more than the body of an ordinary request may have.
    fn is_large(&self) -> bool {
        self.bytes.len() > self.free
    }
}

/// A body as it was sent.
pub(crate) struct Sent {
    bytes: Growing,
    encoding: Encoding,
    settings: Settings,
}

/// A body that is there as a whole.
pub(crate) struct Whole {
    /// Its bytes, inflated.
    pub(crate) bytes: Vec<u8>,
    /// What it has taken from the budget.
    pub(crate) hold: Option<Hold>,
    /// Whether it is, or was when it was sent, over the limit of ordinary requests.
    pub(crate) is_large: bool,
}

/// Reads the body that belongs to `headers`.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    settings: &Settings,
    budget: &Budget,
) -> Result<Sent, Reason> {
    let encoding = Encoding::of(headers)?;
    let deadline = Instant::now() + settings.body_timeout;
    let mut bytes = Growing::new(settings, budget);
    let arrival = collect(&mut body, &mut bytes);
    match timeout_at(deadline, arrival).await.unwrap_or(Err(Reason::BodyTimeout)) {
        Ok(()) => Ok(Sent {
            bytes,
            encoding,
            settings: *settings,
        }),
        Err(reason) => {
            // One that waits to be told to go on will send nothing.
            if matches!(reason, Reason::BodyTooLarge | Reason::Overloaded) && !headers.contains_key(EXPECT) {
                tokio::spawn(timeout_at(deadline, discard(body)));
            }
            Err(reason)
        }
    }
}

async fn collect(body: &mut Body, bytes: &mut Growing) -> Result<(), Reason> {
    // The size that Content-Length declares: it is refused, or taken from the budget, before a byte of it is read.
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    bytes.admit(declared)?;
    bytes.bytes.reserve_exact(declared);
    while let Some(frame) = body.frame().await {
        // The client went away in the middle, or broke the framing.
        let frame = frame.map_err(|_| Reason::MalformedBody)?;
        if let Some(data) = frame.data_ref() {
            bytes.push(data)?;
        }
    }
    Ok(())
}

/// Reads what is still on its way and keeps nothing of it. Were the connection closed before, a client that sends all
/// before it reads would be told that it was reset, and not why.
async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

impl Sent {
    /// The bytes as they were sent.
    pub(crate) fn as_sent(&self) -> &[u8] {
        &self.bytes.bytes
    }

    /// Whether to take the body apart is work that other requests should not wait for.
    pub(crate) fn is_heavy(&self) -> bool {
        self.bytes.is_large() || matches!(self.encoding, Encoding::Gzip)
    }

    /// Inflates what needs to be.
    pub(crate) fn open(self) -> Result<Whole, Reason> {
        let was_large = self.bytes.is_large();
        let whole = match self.encoding {
            Encoding::Identity => self.bytes,
            Encoding::Gzip => self.inflate()?,
        };
        Ok(Whole {
            is_large: was_large || whole.is_large(),
            bytes: whole.bytes,
            hold: whole.hold,
        })
    }

    /// What was sent is there until its end, and is counted beside what it comes to.
    fn inflate(self) -> Result<Growing, Reason> {
        let mut inflated = Growing::new(&self.settings, &self.bytes.budget);
        let mut decoder = MultiGzDecoder::new(&*self.bytes.bytes);
        let mut piece = [0; 8 * 1024];
        loop {
            match decoder.read(&mut piece).map_err(|_| Reason::MalformedBody)? {
                0 => return Ok(inflated),
                length => inflated.push(piece.get(..length).unwrap_or_default())?,
            }
        }
    }
}
