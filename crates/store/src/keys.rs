//! The master keys: they wrap the keys of customers, and are never in the database.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// The bytes of a key.
pub(crate) const KEY: usize = 32;

/// A key, which is wiped when it is dropped.
pub(crate) type Key = Zeroizing<[u8; KEY]>;

/// How long a ring that lacked a key is not read again.
const REREAD: Duration = Duration::from_secs(1);

/// A ring of master keys, each with a number; new keys are wrapped by the one with the largest number.
///
/// As text, each line is `NUMBER:KEY`, a number from 1 to 4294967295 and 32 bytes in Base64; blank lines and those that
/// begin with `#` are passed over. The text is read again, in vain at most once a second, when a key is asked for whose
/// number is not known: whoever has added a key to it need not restart what is running.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn Fn() -> std::result::Result<SecretString, String> + Send + Sync>,
    ring: Mutex<Ring>,
    /// When the text was read again last and did not have what was asked for. Held while it is read, and the ring is not:
    /// a source that is slow keeps nobody from the keys that are there.
    missed: Mutex<Option<Instant>>,
}

type Ring = BTreeMap<u32, Key>;

/// A key is never printed.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Reads the ring that `source` gives. What is wrong with it is said without quoting it.
    ///
    /// # Errors
    /// [`Error::Keys`] when the source fails, or gives no ring.
    pub fn load(
        source: impl Fn() -> std::result::Result<SecretString, String> + Send + Sync + 'static,
    ) -> Result<Self> {
        let ring = parse(&source().map_err(Error::Keys)?)?;
        Ok(Self {
            inner: Arc::new(Inner {
                source: Box::new(source),
                ring: Mutex::new(ring),
                missed: Mutex::new(None),
            }),
        })
    }

    /// A line of a ring: a new key under `number`.
    pub fn generate(number: u32) -> SecretString {
        let key = random_key();
        SecretString::from(format!("{number}:{}", BASE64_STANDARD.encode(*key)))
    }

    /// The number of the key that wraps what is new.
    pub fn current(&self) -> u32 {
        self.ring().last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The key that wraps what is new, and its number.
    pub(crate) fn newest(&self) -> Result<(u32, Key)> {
        let ring = self.ring();
        let newest = ring.last_key_value();
        newest
            .map(|(number, key)| (*number, key.clone()))
            .ok_or_else(|| Error::Keys("the ring has no key".to_owned()))
    }

    /// The key of that number.
    pub(crate) fn numbered(&self, number: u32) -> Result<Key> {
        let look = || self.ring().get(&number).cloned();
        look().or_else(|| self.read_again(look)).ok_or_else(|| {
            Error::Keys(format!(
                "the master key {number} is needed, and the ring that was given does not have it"
            ))
        })
    }

    /// Looks for a key after the text was read again, unless that was done in vain lately.
    fn read_again(&self, look: impl Fn() -> Option<Key>) -> Option<Key> {
        let mut missed = self.inner.missed.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have read it while this waited.
        if let Some(key) = look() {
            return Some(key);
        }
        if missed.is_some_and(|missed| missed.elapsed() < REREAD) {
            return None;
        }
        match (self.inner.source)().map_err(Error::Keys).and_then(|text| parse(&text)) {
            Ok(ring) => *self.ring() = ring,
            Err(error) => tracing::warn!(%error, "the master keys cannot be read again"),
        }
        let found = look();
        *missed = found.is_none().then(Instant::now);
        found
    }

    /// A panic leaves the ring as it was before or after it was read: either is good.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(text: &SecretString) -> Result<BTreeMap<u32, Key>> {
    let mut keys = BTreeMap::new();
    for (line, text) in (1..).zip(text.expose_secret().lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let wrong = |what| Error::Keys(format!("line {line} of the master keys {what}"));
        let (number, key) = text.split_once(':').ok_or_else(|| wrong("is not NUMBER:KEY"))?;
        let number: u32 = number
            .trim()
            .parse()
            .map_err(|_| wrong("does not begin with a number"))?;
        let key = Zeroizing::new(BASE64_STANDARD.decode(key.trim()).map_err(|_| wrong("is not Base64"))?);
        let key: [u8; KEY] = key
            .as_slice()
            .try_into()
            .map_err(|_| wrong("is not a key of 32 bytes"))?;
        if number == 0 || keys.insert(number, Zeroizing::new(key)).is_some() {
            return Err(wrong("has a number that is 0 or stands twice"));
        }
    }
    if keys.is_empty() {
        return Err(Error::Keys(
            "the master keys are empty: `dcams-gateway keys generate` makes one".to_owned(),
        ));
    }
    Ok(keys)
}

pub(crate) fn random_key() -> Key {
    Zeroizing::new(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str) -> Result<Keys> {
        let text = text.to_owned();
        Keys::load(move || Ok(SecretString::from(text.clone())))
    }

    fn line(number: u32) -> String {
        Keys::generate(number).expose_secret().to_owned()
    }

    #[test]
    fn the_largest_number_is_current() {
        let keys = ring(&format!("# old\n{}\n\n {}\n", line(3), line(2))).unwrap();
        assert_eq!(keys.current(), 3);
        assert!(keys.numbered(2).is_ok());
    }

    #[test]
    fn what_is_no_ring_is_refused_and_not_quoted() {
        let twice = format!("{}\n{}", line(1), line(1));
        for text in [
            "",
            "# nothing",
            "canary",
            "x:canary",
            "1:canary",
            "1:Y2FuYXJ5",
            "0:AAAA",
            &twice,
        ] {
            let error = ring(text).unwrap_err().to_string();
            assert!(!error.contains("canary") && !error.contains("Y2FuYXJ5"), "{error}");
        }
    }

    #[test]
    fn a_key_that_was_added_is_found() {
        let text = Arc::new(Mutex::new(line(1)));
        let shared = Arc::clone(&text);
        let keys = Keys::load(move || Ok(SecretString::from(shared.lock().unwrap().clone()))).unwrap();
        assert!(keys.numbered(2).is_err());
        *text.lock().unwrap() += &format!("\n{}", line(2));
        assert!(keys.numbered(2).is_err(), "it was read again too soon");
        *keys.inner.missed.lock().unwrap() = None;
        assert!(keys.numbered(2).is_ok());
        assert_eq!(keys.current(), 2);
    }

    #[test]
    fn a_source_that_is_slow_keeps_nobody_from_the_keys_that_are_there() {
        let (line, ask) = (line(1), Arc::new(Mutex::new(())));
        let source = Arc::clone(&ask);
        let keys = Keys::load(move || {
            drop(source.lock().unwrap());
            Ok(SecretString::from(line.clone()))
        })
        .unwrap();
        let (asked, asks) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let held = ask.lock().unwrap();
            let reading = scope.spawn(|| {
                asked.send(()).unwrap();
                keys.numbered(2).is_err()
            });
            asks.recv().unwrap();
            for _ in 0..1_000 {
                assert!(keys.numbered(1).is_ok() && keys.newest().is_ok());
                std::thread::yield_now();
            }
            drop(held);
            assert!(reading.join().unwrap());
        });
    }

    #[test]
    fn a_ring_is_not_printed() {
        let line = line(1);
        let keys = ring(&line).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }
}
