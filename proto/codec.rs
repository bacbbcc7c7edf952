//! How messages become bytes and come out of them: as prost does both, with what is taken for each call made to the measure of
//! a message about one customer. A request of a facade that is a process of its own passes this four times: its call and the
//! answer, at both ends.

use std::marker::PhantomData;

use prost::{Message, bytes::Buf};
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Room for a message about one customer; it grows for a larger one. tonic's own is 8 KiB, twice at each end of a call.
const ROOM: usize = 512;

/// How much of a stream is put together before it is sent on: tonic's own.
const YIELD_AT: usize = 32 * 1024;

/// A message of at most that many bytes is read from one slice, which is faster. A larger one may have images, of which prost
/// then makes no copy.
const SMALL: usize = 4 * 1024;

/// What the generated client and server speak: `T` is sent, and `U` received.
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(room())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(ProstDecoder::new(room()))
    }
}

fn room() -> BufferSettings {
    BufferSettings::new(ROOM, YIELD_AT)
}

/// Reads messages.
pub(crate) struct Reader<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let length = bytes.remaining();
        if length <= SMALL
            && bytes.chunk().len() == length
            && let Ok(message) = U::decode(bytes.chunk())
        {
            bytes.advance(length);
            return Ok(Some(message));
        }
        // This one says as well what is wrong with it.
        self.0.decode(bytes)
    }

    fn buffer_settings(&self) -> BufferSettings {
        room()
    }
}
