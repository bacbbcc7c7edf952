//! Passwords: made, hashed, and compared with a stored hash.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{ARGON2ID_IDENT, Argon2, MIN_SALT_LEN, Params, Version};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

/// The most that a stored hash may ask for: 64 MiB, 10 passes, 4 lanes. Our own asks for 19 MiB, 2 and 1.
const LARGEST: (u32, u32, u32) = (64 * 1024, 10, 4);

/// Letters and digits without those that are taken for one another: 0 and O, 1 and l and I, and i and o with them.
const ALPHABET: &[u8; 55] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz";

/// 24 characters of 55 are 138 bits.
const GENERATED_LENGTH: usize = 24;

/// A password could not be hashed: there is no memory or no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password could not be hashed")]
pub struct HashError(#[source] password_hash::Error);

/// Hashes a password with argon2id (19 MiB, 2 passes, 1 lane) and a random salt, as a PHC string to store.
///
/// Blocks for about 15 ms.
pub fn hash(password: &SecretString) -> Result<String, HashError> {
    let hash = Argon2::default()
        .hash_password(password.expose_secret().as_bytes())
        .map_err(HashError)?;
    Ok(hash.to_string())
}

/// Makes a random password, for accounts that are created without one: 138 bits, in letters and digits that cannot be
/// mistaken for one another and mean nothing to a shell.
pub fn generate() -> SecretString {
    let mut random = rand::rng();
    // The capacity is what will be used: growing would leave parts of the password behind in memory.
    let mut password = String::with_capacity(GENERATED_LENGTH);
    password.extend((0..GENERATED_LENGTH).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])));
    password.into()
}

/// A stored hash that can be compared at a bounded cost.
pub(crate) struct StoredHash(PasswordHash);

impl StoredHash {
    /// Reads a PHC string. Nothing is left to fail when passwords are compared, since failing early would take less
    /// time and so tell something about the account.
    pub(crate) fn read(phc: &str) -> Option<Self> {
        let hash = PasswordHash::new(phc).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let (memory, passes, lanes) = LARGEST;
        let affordable = params.m_cost() <= memory && params.t_cost() <= passes && params.p_cost() <= lanes;
        let complete = hash.hash.is_some() && hash.salt.as_ref().is_some_and(|salt| salt.len() >= MIN_SALT_LEN);
        let supported = hash.algorithm == ARGON2ID_IDENT && hash.version.is_none_or(|v| Version::try_from(v).is_ok());
        (affordable && complete && supported).then_some(Self(hash))
    }

    /// What stands in for the hash of a login that has none, so that it takes as long as any other: to read one takes time as
    /// well.
    #[allow(clippy::expect_used)] // It is a constant, and a test reads it.
    pub(crate) fn nobodys() -> Self {
        Self::read(NOBODYS).expect("a hash in the form of ours")
    }

    /// Blocks for as long as hashing does.
    pub(crate) fn matches(&self, password: &SecretString) -> Result<bool, HashError> {
        match Argon2::default().verify_password(password.expose_secret().as_bytes(), &self.0) {
            Ok(()) => Ok(true),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(HashError(error)),
        }
    }
}

/// A hash in the form of those that are stored, which no password is known to have.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn stored(phc: &str) -> Option<StoredHash> {
        StoredHash::read(phc)
    }

    #[test]
    fn a_hash_matches_its_password_and_no_other() {
        let phc = hash(&"correct".into()).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(stored(&phc).unwrap().matches(&"correct".into()), Ok(true));
        assert_eq!(stored(&phc).unwrap().matches(&"Correct".into()), Ok(false));
        assert_eq!(stored(&phc).unwrap().matches(&"".into()), Ok(false));
    }

    #[test]
    fn the_same_password_is_hashed_with_another_salt() {
        assert_ne!(hash(&"same".into()), hash(&"same".into()));
    }

    #[test]
    fn hashes_of_other_makers_match() {
        // From the reference implementation: `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1`.
        let phc = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert_eq!(stored(phc).unwrap().matches(&"password".into()), Ok(true));
    }

    #[test]
    fn what_would_cost_too_much_or_is_no_argon2id_hash_is_not_read() {
        let tail = "$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let read = |head: &str| stored(&format!("{head}{tail}")).is_some();
        assert!(read("$argon2id$v=19$m=65536,t=10,p=4"));
        for head in [
            "$argon2id$v=19$m=65537,t=10,p=4",
            "$argon2id$v=19$m=65536,t=11,p=4",
            "$argon2id$v=19$m=65536,t=10,p=5",
            "$argon2id$v=19$m=4,t=1,p=1",
            "$argon2id$v=20$m=65536,t=1,p=1",
            "$argon2i$v=19$m=65536,t=1,p=1",
            "$scrypt$ln=16,r=8,p=1",
        ] {
            assert!(!read(head), "{head}");
        }
        for phc in [
            "",
            "secret",
            "$",
            "$argon2id",
            "$argon2id$v=19$m=65536,t=1,p=1$c29tZXNhbHRzb21lc2FsdA",
        ] {
            assert!(stored(phc).is_none(), "{phc}");
        }
        assert!(stored("$argon2id$v=19$m=65536,t=2,p=1$c2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc").is_none());
    }

    #[test]
    fn nobodys_hash_costs_what_ours_does_and_matches_nothing() {
        let (nobodys, ours) = (StoredHash::nobodys(), stored(&hash(&"any".into()).unwrap()).unwrap());
        let cost = |hash: &StoredHash| {
            let params = Params::try_from(&hash.0).unwrap();
            (
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                hash.0.salt.as_ref().map(|salt| salt.len()),
            )
        };
        assert_eq!(cost(&nobodys), cost(&ours));
        assert_eq!(nobodys.matches(&"any".into()), Ok(false));
    }

    #[test]
    fn generated_passwords_are_long_plain_and_all_different() {
        let made: HashSet<String> = (0..1000).map(|_| generate().expose_secret().to_owned()).collect();
        assert_eq!(made.len(), 1000);
        let bits = (ALPHABET.len() as f64).log2() * GENERATED_LENGTH as f64;
        assert!(bits >= 128.0, "{bits}");
        for password in &made {
            assert_eq!(password.len(), GENERATED_LENGTH);
            assert!(
                password
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() && !"0O1lIio".contains(c)),
                "{password}"
            );
        }
        let used: HashSet<char> = made.iter().flat_map(|password| password.chars()).collect();
        assert_eq!(used.len(), ALPHABET.len());
    }
}
