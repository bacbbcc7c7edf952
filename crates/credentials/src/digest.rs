//! Keyed digests: what every map of this crate is keyed by, so that neither names nor passwords lie in them.

use std::net::{IpAddr, Ipv6Addr};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{Account, Token};

/// A BLAKE3 digest under the key of this process: nobody outside can make or recognize one.
pub(crate) type Digest = [u8; blake3::OUT_LEN];

/// How many bytes the length of a part has.
const LENGTH: usize = size_of::<u64>();

/// A user at an address: whose logins are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) user: Digest,
    network: IpAddr,
}

/// Makes digests under a random key that lives as long as the process.
pub(crate) struct Digester {
    key: [u8; blake3::KEY_LEN],
}

impl Digester {
    pub(crate) fn new() -> Self {
        Self { key: rand::random() }
    }

    /// The key of a login in the cache.
    pub(crate) fn login(&self, user: &str, password: &SecretString) -> Digest {
        self.digest(b'l', &[user.as_bytes(), password.expose_secret().as_bytes()])
    }

    /// The key of a check: equal for logins that are checked against the same state of the same account.
    pub(crate) fn check(&self, login: &Digest, account: Option<&Account>) -> Digest {
        match account {
            None => self.digest(b'u', &[login]),
            Some(Account {
                id,
                version,
                hash,
                enabled,
            }) => self.digest(
                b'a',
                &[
                    login,
                    &id.to_le_bytes(),
                    &version.to_le_bytes(),
                    &[u8::from(*enabled)],
                    hash.as_bytes(),
                ],
            ),
        }
    }

    pub(crate) fn source(&self, user: &str, from: IpAddr) -> Source {
        Source {
            user: self.digest(b's', &[user.as_bytes()]),
            network: network(from),
        }
    }

    /// The key of a token among the remembered ones.
    pub(crate) fn token(&self, token: &Token) -> Digest {
        self.digest(b't', &[token.reveal().expose_secret().as_bytes()])
    }

    /// An address at which tokens that do not count are counted together.
    pub(crate) fn token_source(&self, from: IpAddr) -> Source {
        Source {
            user: self.digest(b'n', &[]),
            network: network(from),
        }
    }

    /// A token at an address.
    pub(crate) fn token_at(&self, token: Digest, from: IpAddr) -> Source {
        Source {
            user: token,
            network: network(from),
        }
    }

    /// Lengths go in before the parts, and the purpose before everything, so that no two inputs read the same.
    fn digest(&self, purpose: u8, parts: &[&[u8]]) -> Digest {
        let length = parts.iter().map(|part| LENGTH + part.len()).sum::<usize>();
        // In one piece, which is hashed faster than many small ones. A password may be in it.
        let mut input = Zeroizing::new(Vec::with_capacity(1 + length));
        input.push(purpose);
        for part in parts {
            input.extend_from_slice(&(part.len() as u64).to_le_bytes());
            input.extend_from_slice(part);
        }
        blake3::keyed_hash(&self.key, &input).into()
    }
}

/// Who has one IPv6 address has all of its /64, so that is what counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_between_name_and_password_counts() {
        let digester = Digester::new();
        assert_ne!(digester.login("ab", &"c".into()), digester.login("a", &"bc".into()));
        assert_eq!(digester.login("ab", &"c".into()), digester.login("ab", &"c".into()));
    }

    #[test]
    fn another_process_makes_other_digests() {
        assert_ne!(
            Digester::new().login("a", &"b".into()),
            Digester::new().login("a", &"b".into())
        );
    }

    #[test]
    fn every_field_of_an_account_tells_checks_apart() {
        let digester = Digester::new();
        let login = digester.login("a", &"b".into());
        let account = Account {
            id: 1,
            version: 2,
            hash: "h".into(),
            enabled: true,
        };
        let mut digests = vec![
            digester.check(&login, None),
            digester.check(&login, Some(&account)),
            digester.check(
                &login,
                Some(&Account {
                    id: 2,
                    ..account.clone()
                }),
            ),
            digester.check(
                &login,
                Some(&Account {
                    version: 3,
                    ..account.clone()
                }),
            ),
            digester.check(
                &login,
                Some(&Account {
                    hash: "i".into(),
                    ..account.clone()
                }),
            ),
            digester.check(
                &login,
                Some(&Account {
                    enabled: false,
                    ..account
                }),
            ),
        ];
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 6);
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_ipv4_address_count_as_one_address() {
        let digester = Digester::new();
        let source = |address: &str| digester.source("a", address.parse().unwrap());
        assert!(source("2001:db8::1") == source("2001:db8::ffff:1"));
        assert!(source("2001:db8::1") != source("2001:db8:0:1::1"));
        assert!(source("::ffff:192.0.2.1") == source("192.0.2.1"));
        assert!(source("192.0.2.2") != source("192.0.2.1"));
    }
}
