//! Strict JSON: reads the known keys of an object, and guards all the rest without building it.
//!
//! serde's derive takes an array for a struct, and lets duplicate keys pass inside of what it ignores. Here every
//! value, known or not, is held to the same rules: no key twice in an object, at most 32 levels.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most levels of objects and arrays; the root object is the first.
pub(crate) const MAX_LEVELS: u8 = 32;

/// The most bytes of a text that is kept. No text of a request comes near it but an image, which is left where it stands.
const MAX_TEXT: usize = 64 * 1024;

/// The most bytes that the keys of one object may come to, each with its quotes, its colon and a value of one byte. An
/// object of a body that is not large cannot have more; in a large one they would fill the memory.
const MAX_KEYS: usize = 64 * 1024;

/// What a key comes to beside its name.
const AROUND_A_KEY: usize = 4;

/// Reads `text`, which must be one object and nothing else.
pub(crate) fn parse<'de, T: Object<'de>>(text: &'de str) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let root = Reader::<Nested<T>>::new(Level(0)).deserialize(&mut deserializer)?;
    deserializer.end()?;
    match root {
        Nested::Object(object) => Ok(object),
        _ => Err(Error::custom("not an object")),
    }
}

/// An object of which some keys are known.
pub(crate) trait Object<'de>: Default {
    /// Reads `value` into the place of `key`, or skips it when the key is unknown.
    fn take<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error>;
}

/// The value of a key, not read yet: it is to be read or skipped.
pub(crate) struct Value<'m, A> {
    map: &'m mut A,
    level: Level,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    /// What the place of a known key takes.
    pub(crate) fn read<T: Read<'de>>(self) -> Result<T, A::Error> {
        self.map.next_value_seed(Reader::new(self.level))
    }

    /// The same for a text that may be a number, which is kept as it was written.
    pub(crate) fn read_text_or_number(self) -> Result<Field<'de>, A::Error> {
        let level = self.level;
        match self.raw()? {
            number if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                Ok(Field::number(number))
            }
            other => read_again(other, level),
        }
    }

    /// The same for a text that is megabytes long: it is left where it stands.
    pub(crate) fn read_literal(self) -> Result<Literal<'de>, A::Error> {
        let level = self.level;
        let raw = self.raw()?;
        let Some(text) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return match read_again(raw, level)? {
                Field::Absent => Ok(Literal::Absent),
                _ => Ok(Literal::Other),
            };
        };
        // What was skipped has sound escapes, but half of a surrogate pair passes. In Base64 there is no reason for one.
        if text.contains("\\ud") || text.contains("\\uD") {
            read_again::<(), A::Error>(raw, level)?;
        }
        Ok(Literal::Text(text))
    }

    /// The value as it stands in the body: only its grammar is checked.
    fn raw(self) -> Result<&'de str, A::Error> {
        self.map.next_value::<&RawValue>().map(RawValue::get)
    }

    /// Guards the value and drops it.
    pub(crate) fn skip(self) -> Result<(), A::Error> {
        self.read::<()>()
    }
}

/// What a place makes of each kind of value.
pub(crate) trait Read<'de>: Sized {
    /// Of `null`.
    fn null() -> Self;
    /// Of a string, unescaped.
    fn text(text: &str) -> Self;
    /// The same of one that can be borrowed from the body.
    fn borrowed_text(text: &'de str) -> Self {
        Self::text(text)
    }
    /// Of a number or a boolean.
    fn scalar() -> Self;
    /// Of an array of `length` values, which were skipped.
    fn array(length: usize) -> Self;
    /// Of an object, whose values stand at `level`.
    fn object<A: MapAccess<'de>>(map: A, level: Level) -> Result<Self, A::Error>;
}

/// The place of a text.
#[derive(Default)]
pub(crate) enum Field<'de> {
    /// The key is absent, or its value is `null`.
    #[default]
    Absent,
    /// A string, borrowed from the body unless it was escaped.
    Text(Cow<'de, str>),
    /// A number as it was written; only where one is taken for a text.
    Number(&'de str),
    /// Any other kind of value, and what is longer than any text.
    Other,
}

impl<'de> Field<'de> {
    fn number(written: &'de str) -> Self {
        match written.len() {
            0..=MAX_TEXT => Self::Number(written),
            _ => Self::Other,
        }
    }

    /// Whether it is absent, or holds nothing but white space.
    pub(crate) fn is_blank(&self) -> bool {
        self.trimmed().is_some_and(str::is_empty)
    }

    /// Whether it holds a number.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }

    /// The text without white space around it, empty when absent; none for any other kind of value.
    pub(crate) fn trimmed(&self) -> Option<&str> {
        match self {
            Self::Absent => Some(""),
            Self::Text(text) => Some(text.trim()),
            Self::Number(_) | Self::Other => None,
        }
    }

    /// The same, with a whole number as a text as well.
    pub(crate) fn written(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Number(number) => whole(number),
            other => other.trimmed().map(Cow::Borrowed),
        }
    }
}

/// A whole number as a text. One that was written as an integer stays as it is, however long; one that was not, as some
/// clients send what they have calculated, is taken while a float tells it from its neighbours.
fn whole(number: &str) -> Option<Cow<'_, str>> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if !number.contains(['.', 'e', 'E']) {
        return Some(Cow::Borrowed(number));
    }
    let value: f64 = number.parse().ok()?;
    // It fits: the fraction is none, and the magnitude is below 2^53.
    (value.fract() == 0.0 && value.abs() < EXACT).then(|| Cow::Owned((value as i64).to_string()))
}

impl<'de> Read<'de> for Field<'de> {
    fn null() -> Self {
        Self::Absent
    }

    fn text(text: &str) -> Self {
        match text.len() {
            0..=MAX_TEXT => Self::Text(Cow::Owned(text.to_owned())),
            _ => Self::Other,
        }
    }

    fn borrowed_text(text: &'de str) -> Self {
        match text.len() {
            0..=MAX_TEXT => Self::Text(Cow::Borrowed(text)),
            _ => Self::Other,
        }
    }

    fn scalar() -> Self {
        Self::Other
    }

    fn array(_: usize) -> Self {
        Self::Other
    }

    fn object<A: MapAccess<'de>>(map: A, level: Level) -> Result<Self, A::Error> {
        read_object::<(), A>(map, level)?;
        Ok(Self::Other)
    }
}

/// The place of a text that is megabytes long: to unescape it would be to copy it, more than once.
#[derive(Clone, Copy, Default)]
pub(crate) enum Literal<'de> {
    /// The key is absent, or its value is `null`.
    #[default]
    Absent,
    /// What stands between the quotes, its escapes sound but not resolved.
    Text(&'de str),
    /// Any other kind of value.
    Other,
}

/// The place of an object inside an object.
#[derive(Default)]
pub(crate) enum Nested<T> {
    /// The key is absent, or its value is `null`.
    #[default]
    Absent,
    /// The object.
    Object(T),
    /// An array of no values: how PHP writes an object of no keys.
    EmptyArray,
    /// Any other kind of value.
    Other,
}

impl<'de, T: Object<'de>> Read<'de> for Nested<T> {
    fn null() -> Self {
        Self::Absent
    }

    fn text(_: &str) -> Self {
        Self::Other
    }

    fn scalar() -> Self {
        Self::Other
    }

    fn array(length: usize) -> Self {
        match length {
            0 => Self::EmptyArray,
            _ => Self::Other,
        }
    }

    fn object<A: MapAccess<'de>>(map: A, level: Level) -> Result<Self, A::Error> {
        read_object(map, level).map(Self::Object)
    }
}

/// The place of what nobody asked for.
impl<'de> Read<'de> for () {
    fn null() {}

    fn text(_: &str) {}

    fn scalar() {}

    fn array(_: usize) {}

    fn object<A: MapAccess<'de>>(map: A, level: Level) -> Result<(), A::Error> {
        read_object(map, level)
    }
}

/// The object of which no key is known.
impl<'de> Object<'de> for () {
    fn take<A: MapAccess<'de>>(&mut self, _: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        value.skip()
    }
}

fn read_object<'de, T: Object<'de>, A: MapAccess<'de>>(mut map: A, level: Level) -> Result<T, A::Error> {
    let mut object = T::default();
    let mut keys = Vec::with_capacity(8);
    let mut room = MAX_KEYS;
    while let Some(Key(key)) = map.next_key()? {
        room = room
            .checked_sub(key.len() + AROUND_A_KEY)
            .ok_or_else(|| Error::custom("an object of too many keys"))?;
        object.take(&key, Value { map: &mut map, level })?;
        keys.push(key);
    }
    // Sorted at the end rather than searched at each key: a body of ten thousand keys stays cheap.
    keys.sort_unstable();
    if keys.is_sorted_by(|before, after| before < after) {
        Ok(object)
    } else {
        Err(Error::custom("a key stands twice"))
    }
}

/// Reads a value that was skipped over, as strictly as if it had been met for the first time.
fn read_again<'de, T: Read<'de>, E: Error>(raw: &'de str, level: Level) -> Result<T, E> {
    Reader::new(level)
        .deserialize(&mut serde_json::Deserializer::from_str(raw))
        .map_err(E::custom)
}

/// How many objects and arrays are open around a value.
#[derive(Clone, Copy)]
pub(crate) struct Level(u8);

impl Level {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.0 {
            MAX_LEVELS => Err(E::custom("nested too deeply")),
            level => Ok(Self(level + 1)),
        }
    }
}

/// Reads one value of any kind into a `T`.
struct Reader<T> {
    level: Level,
    place: PhantomData<T>,
}

impl<T> Reader<T> {
    fn new(level: Level) -> Self {
        Self {
            level,
            place: PhantomData,
        }
    }
}

impl<'de, T: Read<'de>> DeserializeSeed<'de> for Reader<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Read<'de>> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::null())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::scalar())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<T, E> {
        Ok(T::borrowed_text(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<T, A::Error> {
        let level = self.level.deeper()?;
        let mut length = 0;
        while values.next_element_seed(Reader::<()>::new(level))?.is_some() {
            length += 1;
        }
        Ok(T::array(length))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::object(map, self.level.deeper()?)
    }
}

/// A key, borrowed from the body unless it was escaped: serde's own `Cow` is always a copy.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}
