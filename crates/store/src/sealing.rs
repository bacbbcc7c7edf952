//! Encryption at rest: how the personal data of a customer is written, in clear or sealed, and how it is found.
//!
//! A customer has a key of its own, which seals the record of its attributes and each of its documents. A master key
//! wraps it: to rotate the master key is to wrap the customers' keys anew, and to forget a customer's key is to forget the
//! customer. The cipher is AES-256-GCM-SIV (RFC 8452), whose nonces may be drawn at random: one that is drawn twice tells no
//! more than that two values are the same. Every sealed value is bound to its place by associated data: account, customer,
//! what it is, and for a wrapped key the number of the master key; moved to another place, it does not open.
//!
//! The email address is found by a keyed hash of it, the same address in two accounts by two. The key of the hash is
//! the store's own; it lives in the database, wrapped, and does not change when master keys do.

use std::fmt;

use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce, Tag, aead::AeadInOut};
use zeroize::Zeroizing;

use crate::{
    Documents, EmailKey, Error, Result,
    keys::{KEY, Key, Keys, random_key},
};

/// How many hexadecimal digits a blind index has.
const INDEX_LENGTH: usize = 32;

/// How long a nonce is.
const NONCE: usize = 12;

/// How long the tag behind a sealed value is.
const TAG: usize = 16;

/// The first byte of what is sealed: how the rest is to be read.
const FORMAT: u8 = 1;

/// How personal data is written in a store.
#[derive(Clone)]
pub(crate) enum Sealing {
    /// As it is.
    Clear,
    /// Sealed.
    Sealed(Sealer),
}

/// What seals.
#[derive(Clone)]
pub(crate) struct Sealer {
    keys: Keys,
    index: Key,
    /// What seals the secrets of webhooks. It is made of the index key, and so does not change when master keys do.
    webhooks: Key,
}

/// A key is never printed.
impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "Clear",
            Self::Sealed(_) => "Sealed(..)",
        })
    }
}

/// Whose data it is: what a sealed value is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) account: i64,
    pub(crate) public_id: &'a str,
    /// What the customer is found by, as it is stored.
    pub(crate) email_key: &'a str,
}

/// What a sealed value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A customer's key, wrapped by the master key of that number.
    DataKey = 1,
    /// The record of the attributes.
    Profile = 2,
    /// An image of the front side.
    Front = 3,
    /// An image of the back side.
    Back = 4,
    /// The key of the index, wrapped.
    IndexKey = 5,
    /// The secret of a webhook.
    WebhookSecret = 6,
}

impl Kind {
    /// The number of an image in the database.
    pub(crate) const fn document(self) -> i16 {
        match self {
            Self::Back => Documents::BACK,
            _ => Documents::FRONT,
        }
    }
}

/// A customer's key: what opens and seals the customer's values. None where the store is not encrypted.
pub(crate) struct CustomerKey(Option<Key>);

impl Sealing {
    /// What the customer with this email is found by in the table.
    pub(crate) fn index(&self, account: i64, email: &EmailKey) -> String {
        match self {
            Self::Clear => email.as_str().to_owned(),
            Self::Sealed(sealer) => {
                let mut hasher = blake3::Hasher::new_keyed(&sealer.index);
                hasher.update(&account.to_le_bytes()).update(email.as_str().as_bytes());
                // 128 bits of it: two addresses of an account never meet in that, and the index stays small.
                let mut index = hasher.finalize().to_hex().to_string();
                index.truncate(INDEX_LENGTH);
                index
            }
        }
    }

    /// What hashes requests, to be compared with later ones. In an encrypted store nobody can try out what was asked for.
    pub(crate) fn content_hasher(&self) -> blake3::Hasher {
        const CONTEXT: &str = "dcams 2026-11-24 content of requests with idempotency keys";
        match self {
            Self::Clear => blake3::Hasher::new_derive_key(CONTEXT),
            Self::Sealed(sealer) => blake3::Hasher::new_keyed(&blake3::derive_key(CONTEXT, sealer.index.as_slice())),
        }
    }

    /// A key for a new customer, and how it is stored.
    pub(crate) fn new_key(&self, owner: Owner<'_>) -> Result<(CustomerKey, Option<Vec<u8>>)> {
        match self {
            Self::Clear => Ok((CustomerKey(None), None)),
            Self::Sealed(sealer) => {
                let key = random_key();
                let wrapped = wrap(&sealer.keys, &key, &owner.bytes())?;
                Ok((CustomerKey(Some(key)), Some(wrapped)))
            }
        }
    }

    /// The customer's key that is stored as `wrapped`.
    pub(crate) fn key(&self, owner: Owner<'_>, wrapped: Option<&[u8]>) -> Result<CustomerKey> {
        match (self, wrapped) {
            (Self::Clear, None) => Ok(CustomerKey(None)),
            (Self::Sealed(sealer), Some(wrapped)) => {
                Ok(CustomerKey(Some(unwrap(&sealer.keys, wrapped, &owner.bytes())?.1)))
            }
            (Self::Clear, Some(_)) => Err(mixed("is encrypted, and the store is not")),
            (Self::Sealed(_), None) => Err(mixed("is in clear text, and the store is encrypted")),
        }
    }

    /// Wraps a stored key by the newest master key; none if it is so already.
    pub(crate) fn rewrap(&self, owner: Owner<'_>, wrapped: &[u8]) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Clear => Ok(None),
            Self::Sealed(sealer) => rewrap(&sealer.keys, wrapped, &owner.bytes()),
        }
    }

    /// How the secret of the webhook with this public id is stored.
    pub(crate) fn seal_secret(&self, webhook: &str, secret: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Clear => Ok(secret.to_vec()),
            Self::Sealed(sealer) => {
                let mut sealed = vec![FORMAT];
                let bound = bound(webhook.as_bytes(), Kind::WebhookSecret, 0);
                seal(&sealer.webhooks, secret, &bound, &mut sealed)?;
                Ok(sealed)
            }
        }
    }

    /// The secret of a webhook that is stored as `stored`.
    pub(crate) fn open_secret(&self, webhook: &str, stored: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Clear => Ok(Zeroizing::new(stored.to_vec())),
            Self::Sealed(sealer) => {
                let bound = bound(webhook.as_bytes(), Kind::WebhookSecret, 0);
                stored
                    .strip_prefix(&[FORMAT])
                    .and_then(|sealed| open(&sealer.webhooks, sealed, &bound))
                    .map(Zeroizing::new)
                    .ok_or_else(|| damaged(Kind::WebhookSecret))
            }
        }
    }
}

fn mixed(what: &str) -> Error {
    Error::Internal(format!("a customer {what}"))
}

impl CustomerKey {
    /// How `value` is stored.
    pub(crate) fn seal(&self, owner: Owner<'_>, kind: Kind, value: &[u8]) -> Result<Vec<u8>> {
        match &self.0 {
            None => Ok(value.to_vec()),
            Some(key) => {
                let mut sealed = Vec::with_capacity(1 + NONCE + value.len() + TAG);
                sealed.push(FORMAT);
                seal(key, value, &bound(&owner.bytes(), kind, 0), &mut sealed)?;
                Ok(sealed)
            }
        }
    }

    /// The value that is stored as `stored`.
    pub(crate) fn open(&self, owner: Owner<'_>, kind: Kind, stored: Vec<u8>) -> Result<Vec<u8>> {
        match &self.0 {
            None => Ok(stored),
            Some(key) => {
                let sealed = stored.strip_prefix(&[FORMAT]).ok_or_else(|| damaged(kind))?;
                open(key, sealed, &bound(&owner.bytes(), kind, 0)).ok_or_else(|| damaged(kind))
            }
        }
    }
}

impl Owner<'_> {
    /// Lengths go in before the parts, so that no two owners read the same.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.account.to_le_bytes());
        for part in [self.public_id, self.email_key] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

impl Sealer {
    /// What seals a store that has this index key, stored wrapped.
    pub(crate) fn open(keys: &Keys, index_key: &[u8]) -> Result<Self> {
        let index = match unwrap(keys, index_key, INDEX) {
            Ok((_, index)) => index,
            Err(Error::Internal(_)) => {
                return Err(Error::Keys(
                    "the master keys are not those that the store was encrypted with".to_owned(),
                ));
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            keys: keys.clone(),
            webhooks: Zeroizing::new(blake3::derive_key(WEBHOOKS, index.as_slice())),
            index,
        })
    }

    /// A new index key, as it is stored.
    pub(crate) fn new_index_key(keys: &Keys) -> Result<Vec<u8>> {
        wrap(keys, &random_key(), INDEX)
    }

    /// Makes sure that what is new is not wrapped by an older master key than the stored index key is: the keys that
    /// are older may be gone from the ring at any moment.
    pub(crate) fn keep_up(&self, index_key: &[u8]) -> Result<()> {
        let (number, _) = header(index_key).ok_or_else(|| damaged(Kind::IndexKey))?;
        if number > self.keys.current() {
            self.keys.numbered(number)?;
        }
        Ok(())
    }

    /// Wraps a stored index key by the newest master key; none if it is so already.
    pub(crate) fn rewrap_index_key(&self, wrapped: &[u8]) -> Result<Option<Vec<u8>>> {
        rewrap(&self.keys, wrapped, INDEX)
    }
}

/// Whose the index key is: the store's.
const INDEX: &[u8] = b"dcams index key";

/// What the key of the webhooks' secrets is made for.
const WEBHOOKS: &str = "dcams-gateway 2026-11-24 secrets of webhooks";

/// What a value is sealed with beside its key: whose it is, what it is, and the number of the master key where one does it.
fn bound(owner: &[u8], kind: Kind, number: u32) -> Vec<u8> {
    let mut bound = owner.to_vec();
    bound.push(kind as u8);
    bound.extend_from_slice(&number.to_le_bytes());
    bound
}

/// What is a key wrapped as: the store's index key or a customer's.
fn kind_of(owner: &[u8]) -> Kind {
    if owner == INDEX { Kind::IndexKey } else { Kind::DataKey }
}

fn wrap(keys: &Keys, key: &Key, owner: &[u8]) -> Result<Vec<u8>> {
    let (number, master) = keys.newest()?;
    let mut wrapped = vec![FORMAT];
    wrapped.extend_from_slice(&number.to_le_bytes());
    seal(
        &master,
        key.as_slice(),
        &bound(owner, kind_of(owner), number),
        &mut wrapped,
    )?;
    Ok(wrapped)
}

/// The number of the master key that wrapped a key, and the key.
fn unwrap(keys: &Keys, wrapped: &[u8], owner: &[u8]) -> Result<(u32, Key)> {
    let kind = kind_of(owner);
    let (number, sealed) = header(wrapped).ok_or_else(|| damaged(kind))?;
    let key = open(&*keys.numbered(number)?, sealed, &bound(owner, kind, number)).map(Zeroizing::new);
    let key = key.and_then(|key| <[u8; KEY]>::try_from(key.as_slice()).ok());
    Ok((number, Zeroizing::new(key.ok_or_else(|| damaged(kind))?)))
}

/// The number of the master key that wrapped a key, and what follows it.
fn header(wrapped: &[u8]) -> Option<(u32, &[u8])> {
    let (number, sealed) = wrapped.strip_prefix(&[FORMAT])?.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), sealed))
}

fn rewrap(keys: &Keys, wrapped: &[u8], owner: &[u8]) -> Result<Option<Vec<u8>>> {
    let (number, key) = unwrap(keys, wrapped, owner)?;
    if number >= keys.current() {
        return Ok(None);
    }
    wrap(keys, &key, owner).map(Some)
}

/// Puts a new nonce and the sealed value behind what is there already.
fn seal(key: &[u8; KEY], value: &[u8], bound: &[u8], into: &mut Vec<u8>) -> Result<()> {
    let nonce: [u8; NONCE] = rand::random();
    into.extend_from_slice(&nonce);
    let begin = into.len();
    into.extend_from_slice(value);
    let tag = Aes256GcmSiv::new(key.into())
        .encrypt_inout_detached(&Nonce::from(nonce), bound, (&mut into[begin..]).into())
        .map_err(|_| Error::Internal("a value is too long to seal".to_owned()))?;
    into.extend_from_slice(&tag);
    Ok(())
}

/// The value in what [`seal`] put there; none if it is not what was sealed with this.
fn open(key: &[u8; KEY], sealed: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let (sealed, tag) = sealed.split_last_chunk::<TAG>()?;
    let mut value = sealed.to_vec();
    Aes256GcmSiv::new(key.into())
        .decrypt_inout_detached(
            &Nonce::from(*nonce),
            bound,
            value.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .ok()?;
    Some(value)
}

/// What was stored does not open: it was changed, moved, or sealed by other keys.
fn damaged(kind: Kind) -> Error {
    Error::Internal(format!(
        "a sealed value ({kind:?}) does not open: it was changed, moved from another place, or sealed with other keys"
    ))
}

#[cfg(test)]
mod tests {
    use secrecy::{ExposeSecret, SecretString};

    use super::*;
    use crate::Email;

    const OWNER: Owner<'_> = Owner {
        account: 7,
        public_id: "public",
        email_key: "index",
    };

    /// Every owner that differs from it in one thing, and two that would read the same without the lengths.
    fn others() -> [Owner<'static>; 5] {
        [
            Owner { account: 8, ..OWNER },
            Owner {
                public_id: "other",
                ..OWNER
            },
            Owner {
                email_key: "other",
                ..OWNER
            },
            Owner {
                public_id: "publici",
                email_key: "ndex",
                ..OWNER
            },
            Owner {
                public_id: "",
                email_key: "publicindex",
                ..OWNER
            },
        ]
    }

    fn keys(numbers: &[u32]) -> Keys {
        let lines: Vec<_> = numbers
            .iter()
            .map(|number| Keys::generate(*number).expose_secret().to_owned())
            .collect();
        Keys::load(move || Ok(SecretString::from(lines.join("\n")))).unwrap()
    }

    fn sealing(keys: &Keys) -> Sealing {
        Sealing::Sealed(Sealer::open(keys, &Sealer::new_index_key(keys).unwrap()).unwrap())
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let sealing = sealing(&keys(&[1]));
        let (key, wrapped) = sealing.new_key(OWNER).unwrap();
        for value in [&b""[..], b"x", &[7; 100_000]] {
            let sealed = key.seal(OWNER, Kind::Profile, value).unwrap();
            assert_ne!(sealed, key.seal(OWNER, Kind::Profile, value).unwrap(), "never the same");
            let again = sealing.key(OWNER, wrapped.as_deref()).unwrap();
            assert_eq!(again.open(OWNER, Kind::Profile, sealed).unwrap(), value);
        }
    }

    #[test]
    fn in_clear_text_a_value_is_stored_as_it_is() {
        let (key, wrapped) = Sealing::Clear.new_key(OWNER).unwrap();
        assert_eq!(wrapped, None);
        assert_eq!(key.seal(OWNER, Kind::Profile, b"value").unwrap(), b"value");
        assert_eq!(key.open(OWNER, Kind::Profile, b"value".to_vec()).unwrap(), b"value");
        let email = Email::parse("A@example.com").unwrap();
        assert_eq!(Sealing::Clear.index(7, email.key()), "a@example.com");
    }

    #[test]
    fn clear_text_and_sealed_values_are_not_taken_for_each_other() {
        let sealing = sealing(&keys(&[1]));
        let (_, wrapped) = sealing.new_key(OWNER).unwrap();
        assert!(sealing.key(OWNER, None).is_err());
        assert!(Sealing::Clear.key(OWNER, wrapped.as_deref()).is_err());
    }

    #[test]
    fn a_wrapped_key_of_which_any_bit_was_changed_is_refused() {
        // There are many numbers that a changed one could be.
        let sealing = sealing(&keys(&[1, 2, 3, 5, 9]));
        let (_, wrapped) = sealing.new_key(OWNER).unwrap();
        let wrapped = wrapped.unwrap();
        for at in 0..wrapped.len() {
            for bit in 0..8 {
                let mut changed = wrapped.clone();
                changed[at] ^= 1 << bit;
                assert!(sealing.key(OWNER, Some(&changed)).is_err(), "byte {at}, bit {bit}");
            }
            assert!(sealing.key(OWNER, Some(&wrapped[..at])).is_err(), "{at} bytes");
        }
        let longer = [&wrapped[..], &[0]].concat();
        assert!(sealing.key(OWNER, Some(&longer)).is_err());
    }

    #[test]
    fn a_record_of_which_any_bit_was_changed_is_refused() {
        let (key, _) = sealing(&keys(&[1])).new_key(OWNER).unwrap();
        let sealed = key.seal(OWNER, Kind::Profile, b"a record").unwrap();
        let open = |sealed: &[u8]| key.open(OWNER, Kind::Profile, sealed.to_vec());
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(open(&sealed[..at]).is_err(), "{at} bytes");
        }
        assert!(open(&[&sealed[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_was_moved_is_refused() {
        let sealing = sealing(&keys(&[1]));
        let (key, wrapped) = sealing.new_key(OWNER).unwrap();
        let sealed = key.seal(OWNER, Kind::Front, b"an image").unwrap();
        for other in others() {
            assert!(sealing.key(other, wrapped.as_deref()).is_err());
            assert!(key.open(other, Kind::Front, sealed.clone()).is_err());
        }
        for kind in [Kind::DataKey, Kind::Profile, Kind::Back, Kind::IndexKey] {
            assert!(key.open(OWNER, kind, sealed.clone()).is_err(), "{kind:?}");
        }
        let (other, _) = sealing.new_key(OWNER).unwrap();
        assert!(
            other.open(OWNER, Kind::Front, sealed).is_err(),
            "another key of the same customer"
        );
    }

    #[test]
    fn a_wrapped_key_holds_for_its_purpose_and_its_store() {
        let one = keys(&[1]);
        let index_key = Sealer::new_index_key(&one).unwrap();
        let (_, data_key) = sealing(&one).new_key(OWNER).unwrap();
        assert!(Sealer::open(&one, &data_key.clone().unwrap()).is_err());
        assert!(sealing(&one).key(OWNER, Some(&index_key)).is_err());
        let other = keys(&[1]);
        assert!(matches!(Sealer::open(&other, &index_key), Err(Error::Keys(_))));
        assert!(sealing(&other).key(OWNER, data_key.as_deref()).is_err());
    }

    #[test]
    fn a_key_that_is_wrapped_anew_is_the_same_under_the_newest_number() {
        let line = |number| Keys::generate(number).expose_secret().to_owned();
        let (old, new) = (line(1), line(9));
        let ring = |text: String| Keys::load(move || Ok(SecretString::from(text.clone()))).unwrap();
        let index_key = Sealer::new_index_key(&ring(old.clone())).unwrap();
        let of = |text: &str| Sealing::Sealed(Sealer::open(&ring(text.to_owned()), &index_key).unwrap());
        let (before, after) = (of(&old), of(&format!("{old}\n{new}")));

        let (key, wrapped) = before.new_key(OWNER).unwrap();
        let wrapped = wrapped.unwrap();
        assert_eq!(
            before.rewrap(OWNER, &wrapped).unwrap(),
            None,
            "it is by the newest already"
        );
        let anew = after.rewrap(OWNER, &wrapped).unwrap().unwrap();
        assert_eq!(after.rewrap(OWNER, &anew).unwrap(), None);
        assert_eq!(header(&anew).unwrap().0, 9);
        assert!(matches!(before.key(OWNER, Some(&anew)), Err(Error::Keys(_))));
        assert!(after.rewrap(others()[0], &wrapped).is_err());

        let sealed = key.seal(OWNER, Kind::Profile, b"a record").unwrap();
        let again = after.key(OWNER, Some(&anew)).unwrap();
        assert_eq!(again.open(OWNER, Kind::Profile, sealed).unwrap(), b"a record");
        let email = Email::parse("a@example.com").unwrap();
        assert_eq!(before.index(7, email.key()), after.index(7, email.key()));
    }

    #[test]
    fn an_address_is_found_by_another_index_in_every_account_and_store() {
        let keys = keys(&[1]);
        let (one, other) = (sealing(&keys), sealing(&keys));
        let [a, b] = ["a@example.com", "b@example.com"].map(|email| Email::parse(email).unwrap());
        let index = one.index(7, a.key());
        assert_eq!(index.len(), INDEX_LENGTH);
        assert_eq!(index, one.index(7, Email::parse("A@EXAMPLE.com").unwrap().key()));
        for another in [one.index(8, a.key()), one.index(7, b.key()), other.index(7, a.key())] {
            assert_ne!(another, index);
        }
        assert!(!index.contains("example"));
    }

    #[test]
    fn a_key_is_not_printed() {
        let sealing = sealing(&keys(&[1]));
        assert_eq!(format!("{sealing:?}"), "Sealed(..)");
        assert_eq!(format!("{:?}", Sealing::Clear), "Clear");
    }
}
