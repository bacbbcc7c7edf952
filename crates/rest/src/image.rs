//! An image on its way in: from the Base64 of a JSON literal to bytes, with no copy of the text in between.

use std::slice;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;

/// An image, and how it strayed from the contract.
#[derive(Default)]
pub(crate) struct Image {
    /// Empty where the text holds nothing but white space.
    pub(crate) bytes: Bytes,
    /// There was white space in the text.
    pub(crate) has_white_space: bool,
    /// The padding at the end was left out.
    pub(crate) lacks_padding: bool,
}

impl Image {
    /// The image in what stands between the quotes of a JSON string; none when that is no Base64.
    pub(crate) fn in_literal(literal: &str) -> Option<Self> {
        let mut decoder = Decoder::with_room_for(literal.len());
        let mut has_white_space = false;
        let mut padding = 0_usize;
        for character in (Characters {
            rest: literal.as_bytes().iter(),
        }) {
            match character {
                b'=' => padding += 1,
                // PHP's chunk_split and .NET's line breaks.
                white if white.is_ascii_whitespace() => has_white_space = true,
                _ if padding > 0 => return None,
                digit => decoder.push(digit)?,
            }
        }
        let over = decoder.digits % 4;
        let (bytes, missing) = (decoder.end()?, (4 - over) % 4);
        (padding == 0 || padding == missing).then(|| Self {
            bytes: bytes.into(),
            has_white_space,
            lacks_padding: padding < missing,
        })
    }
}

/// The characters of a literal, its escapes resolved: some clients escape each `/`, others each `+`.
struct Characters<'a> {
    rest: slice::Iter<'a, u8>,
}

impl Characters<'_> {
    /// Stands for every character that is neither Base64 nor white space.
    const OTHER: u8 = b'\\';

    fn escaped(&mut self) -> u8 {
        match self.rest.next() {
            Some(b'/') => b'/',
            Some(b'n' | b'r' | b't' | b'f') => b' ',
            Some(b'u') => {
                let digits = self.rest.as_slice().get(..4).unwrap_or_default();
                self.rest = self.rest.as_slice().get(4..).unwrap_or_default().iter();
                let code = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                code.filter(u8::is_ascii).unwrap_or(Self::OTHER)
            }
            _ => Self::OTHER,
        }
    }
}

impl Iterator for Characters<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        match *self.rest.next()? {
            b'\\' => Some(self.escaped()),
            character => Some(character),
        }
    }
}

/// Decodes digits block by block.
struct Decoder {
    block: [u8; Self::BLOCK],
    filled: usize,
    /// How many digits there were.
    digits: usize,
    bytes: Vec<u8>,
}

impl Decoder {
    /// A whole number of groups of four digits.
    const BLOCK: usize = 4 * 1024;

    fn with_room_for(digits: usize) -> Self {
        Self {
            block: [0; Self::BLOCK],
            filled: 0,
            digits: 0,
            bytes: Vec::with_capacity(digits.div_ceil(4) * 3),
        }
    }

    fn push(&mut self, digit: u8) -> Option<()> {
        if self.filled == Self::BLOCK {
            self.flush()?;
        }
        *self.block.get_mut(self.filled)? = digit;
        self.filled += 1;
        self.digits += 1;
        Some(())
    }

    fn flush(&mut self) -> Option<()> {
        let digits = self.block.get(..self.filled)?;
        STANDARD_NO_PAD.decode_vec(digits, &mut self.bytes).ok()?;
        self.filled = 0;
        Some(())
    }

    fn end(mut self) -> Option<Vec<u8>> {
        self.flush()?;
        Some(self.bytes)
    }
}
