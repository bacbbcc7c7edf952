//! The body of a reply with images: their Base64 is made piece by piece while it is sent, and never there as a whole.

use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use proto::Hold;

/// A text with images in it. It holds what was taken for them until it has been sent.
pub(crate) struct DocumentBody {
    /// What is to be sent; none of it is empty.
    parts: VecDeque<Part>,
    /// How many bytes that comes to.
    left: u64,
    _hold: Hold,
}

enum Part {
    Text(Bytes),
    Image(Bytes),
}

impl Part {
    /// How much of an image goes into a frame: whole groups of three bytes, so that nothing is padded but the end.
    const PIECE: usize = 48 * 1024;

    fn is_empty(&self) -> bool {
        let (Self::Text(bytes) | Self::Image(bytes)) = self;
        bytes.is_empty()
    }

    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Image(image) => (image.len() as u64).div_ceil(3) * 4,
        }
    }

    /// Takes off what goes into the next frame.
    fn next(&mut self) -> Bytes {
        match self {
            Self::Text(text) => mem::take(text),
            Self::Image(image) => STANDARD.encode(image.split_to(image.len().min(Self::PIECE))).into(),
        }
    }
}

impl DocumentBody {
    /// `before`, then each image with the text that follows it.
    pub(crate) fn new<const N: usize>(before: Bytes, images: [(Bytes, Bytes); N], hold: Hold) -> Self {
        let mut parts = VecDeque::from([Part::Text(before)]);
        for (image, after) in images {
            parts.extend([Part::Image(image), Part::Text(after)]);
        }
        parts.retain(|part| !part.is_empty());
        Self {
            left: parts.iter().map(Part::length).sum(),
            parts,
            _hold: hold,
        }
    }
}

impl Body for DocumentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.parts.front_mut() else {
            return Poll::Ready(None);
        };
        let data = part.next();
        if part.is_empty() {
            self.parts.pop_front();
        }
        self.left = self.left.saturating_sub(data.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
