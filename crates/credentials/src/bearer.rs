//! Checks API tokens.
//!
//! A token that is remembered, and has not expired, passes in less than a microsecond, whatever else is going on. All others
//! cost a look into the caller's store. Those that do not count are failures of the address that they come from: too many
//! block the address, for strange tokens alone. One that was ever good at this address is looked up all the same, so that
//! nobody there is locked out. The same wrong token counts once in the window.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Credentials, Error, Token};

/// What the store knows of a token.
#[derive(Clone)]
pub struct TokenRecord {
    /// Whose customers are to be seen.
    pub account: i64,
    /// The name of that account.
    pub account_name: String,
    /// The version of the account's credentials.
    pub version: i64,
    /// What [`Token::hash`] gave when it was made.
    pub hash: [u8; 32],
    /// Whether it counts: the account is enabled, and the token not revoked.
    pub valid: bool,
    /// How long it has left before it expires, if it does. Nothing is left of one that has.
    pub expires_in: Option<Duration>,
    /// What it may do, as the caller reads it. It is not looked at here.
    pub scopes: u8,
}

/// Without the hash, as of an account.
impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord")
            .field("account", &self.account)
            .field("version", &self.version)
            .field("valid", &self.valid)
            .finish_non_exhaustive()
    }
}

/// What a token that was verified gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What the token is called.
    pub token: String,
    /// The account that it acts for.
    pub account: i64,
    /// The name of that account.
    pub account_name: String,
    /// The version of the account's credentials when it was verified.
    pub version: i64,
    /// What it may do, as the record said.
    pub scopes: u8,
    /// When it expires, if it does.
    pub expires: Option<Instant>,
}

impl Granted {
    /// Whether it has expired at this time.
    pub fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Credentials {
    /// The earlier verification of this very token, if it is remembered and the token has not expired; takes less than a
    /// microsecond.
    ///
    /// Fails with [`Error::Throttled`], and no other error, for a token that was never good at an address from which too many
    /// came that do not count.
    pub fn remembered_token(&self, token: &Token, from: IpAddr) -> Result<Option<Arc<Granted>>, Error> {
        let inner = &*self.inner;
        let now = (inner.clock)();
        let digest = inner.digester.token(token);
        let remembered = inner.tokens.get(&digest, now);
        if let Some(granted) = remembered.filter(|granted| !granted.expired(now)) {
            inner.counters.cache_hit.increment(1);
            return Ok(Some(granted));
        }
        inner.counters.cache_miss.increment(1);
        if !inner.throttle.knows(&inner.digester.token_at(digest, from)) {
            inner.admit(&inner.digester.token_source(from))?;
        }
        Ok(None)
    }

    /// Judges a token by what the store has under its id, `None` if it has nothing, and remembers one that counts. Fails with
    /// [`Error::Wrong`], and no other error.
    pub fn verify_token(
        &self,
        token: &Token,
        from: IpAddr,
        record: Option<TokenRecord>,
    ) -> Result<Arc<Granted>, Error> {
        let inner = &*self.inner;
        let now = (inner.clock)();
        let digest = inner.digester.token(token);
        // blake3 compares its hashes in constant time.
        let is_it = |record: &TokenRecord| blake3::Hash::from(token.hash()) == blake3::Hash::from(record.hash);
        let counts = |record: &TokenRecord| record.valid && record.expires_in.is_none_or(|left| !left.is_zero());
        let record = record.filter(is_it).filter(counts);
        inner.counters.token(record.is_some()).increment(1);
        let Some(record) = record else {
            inner.throttle.fail(&inner.digester.token_source(from), digest, now);
            return Err(Error::Wrong);
        };
        let granted = Arc::new(Granted {
            token: token.id().to_owned(),
            account: record.account,
            account_name: record.account_name,
            version: record.version,
            scopes: record.scopes,
            // What is too far away to be told does not come.
            expires: record.expires_in.and_then(|left| now.checked_add(left)),
        });
        inner.tokens.insert(digest, Arc::clone(&granted), now);
        inner.throttle.recognize(&inner.digester.token_at(digest, from));
        Ok(granted)
    }

    /// Drops what is remembered of this token: the store said that the account, or one of its tokens, has changed.
    pub fn forget_token(&self, token: &Token) {
        self.inner.tokens.remove(&self.inner.digester.token(token));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use super::*;
    use crate::Settings;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const MINUTE: Duration = Duration::from_secs(60);

    /// Credentials under a clock that only moves when told.
    struct Bench {
        credentials: Credentials,
        now: Arc<Mutex<Instant>>,
    }

    impl Bench {
        fn new() -> Self {
            let now = Arc::new(Mutex::new(Instant::now()));
            let clock = Arc::clone(&now);
            Self {
                credentials: Credentials::with_clock(Settings::default(), Box::new(move || *clock.lock().unwrap())),
                now,
            }
        }

        fn pass(&self, time: Duration) {
            *self.now.lock().unwrap() += time;
        }

        fn remembered(&self, token: &Token) -> Option<Arc<Granted>> {
            self.credentials.remembered_token(token, HOME).unwrap()
        }

        /// What becomes of a token that is presented at an address, from the first step to the last.
        fn present(&self, token: &Token, from: IpAddr, record: Option<TokenRecord>) -> Result<Arc<Granted>, Error> {
            match self.credentials.remembered_token(token, from)? {
                Some(granted) => Ok(granted),
                None => self.credentials.verify_token(token, from, record),
            }
        }

        fn fail(&self, times: usize, from: IpAddr) {
            for _ in 0..times {
                assert_eq!(self.present(&Token::generate(), from, None), Err(Error::Wrong));
            }
        }
    }

    fn record(token: &Token) -> TokenRecord {
        TokenRecord {
            account: 7,
            account_name: "shop".to_owned(),
            version: 3,
            hash: token.hash(),
            valid: true,
            expires_in: None,
            scopes: 5,
        }
    }

    #[test]
    fn a_token_that_counts_is_remembered_until_it_is_forgotten_or_too_old() {
        let (bench, token) = (Bench::new(), Token::generate());
        assert_eq!(bench.remembered(&token), None);
        let granted = bench.present(&token, HOME, Some(record(&token))).unwrap();
        assert_eq!(
            *granted,
            Granted {
                token: token.id().to_owned(),
                account: 7,
                account_name: "shop".to_owned(),
                version: 3,
                scopes: 5,
                expires: None,
            }
        );
        assert_eq!(bench.remembered(&token), Some(granted));
        bench.credentials.forget_token(&token);
        assert_eq!(bench.remembered(&token), None);
        bench.present(&token, HOME, Some(record(&token))).unwrap();
        bench.pass(10 * MINUTE);
        assert_eq!(bench.remembered(&token), None);
    }

    #[test]
    fn a_token_that_is_unknown_or_another_or_does_not_count_is_wrong() {
        let (bench, token) = (Bench::new(), Token::generate());
        let good = record(&token);
        let bad = [
            None,
            Some(record(&Token::generate())),
            Some(TokenRecord {
                valid: false,
                ..good.clone()
            }),
            Some(TokenRecord {
                expires_in: Some(Duration::ZERO),
                ..good.clone()
            }),
        ];
        for record in bad {
            assert_eq!(bench.present(&token, HOME, record), Err(Error::Wrong));
        }
        assert!(bench.present(&token, HOME, Some(good)).is_ok());
    }

    #[test]
    fn a_token_expires_also_while_it_is_remembered() {
        let (bench, token) = (Bench::new(), Token::generate());
        let with = |left| {
            Some(TokenRecord {
                expires_in: Some(left),
                ..record(&token)
            })
        };
        assert!(bench.present(&token, HOME, with(MINUTE)).is_ok());
        bench.pass(MINUTE - Duration::from_nanos(1));
        assert!(bench.remembered(&token).is_some());
        bench.pass(Duration::from_nanos(1));
        assert!(bench.remembered(&token).is_none());
        assert_eq!(bench.present(&token, HOME, with(Duration::ZERO)), Err(Error::Wrong));
        assert!(bench.present(&token, HOME, with(Duration::MAX)).is_ok());
    }

    #[test]
    fn strange_tokens_block_their_address_for_strange_tokens_alone() {
        let bench = Bench::new();
        let (mine, new) = (Token::generate(), Token::generate());
        bench.present(&mine, HOME, Some(record(&mine))).unwrap();
        bench.fail(10, HOME);
        let blocked = Err(Error::Throttled(MINUTE));
        assert_eq!(bench.present(&Token::generate(), HOME, None), blocked);
        assert_eq!(bench.present(&new, HOME, Some(record(&new))), blocked);
        // One that is in use there is not held up, nor when it has to be looked up again.
        assert!(bench.present(&mine, HOME, None).is_ok());
        bench.credentials.forget_token(&mine);
        assert!(bench.present(&mine, HOME, Some(record(&mine))).is_ok());
        assert!(bench.present(&new, AWAY, Some(record(&new))).is_ok());
        // Nor are passwords.
        assert_eq!(bench.credentials.remembered("user", &"right".into(), HOME), Ok(None));
        bench.pass(MINUTE);
        assert!(bench.present(&new, HOME, Some(record(&new))).is_ok());
    }

    #[test]
    fn the_same_wrong_token_counts_once() {
        let (bench, old) = (Bench::new(), Token::generate());
        for _ in 0..100 {
            assert_eq!(bench.present(&old, HOME, None), Err(Error::Wrong));
        }
        bench.fail(9, HOME);
        assert!(matches!(
            bench.present(&Token::generate(), HOME, None),
            Err(Error::Throttled(_))
        ));
    }

    #[test]
    fn many_tokens_may_be_looked_up_at_once() {
        let bench = Bench::new();
        let tokens: Vec<_> = (0..64).map(|_| Token::generate()).collect();
        for token in &tokens {
            assert_eq!(bench.remembered(token), None);
        }
        for token in &tokens {
            assert!(bench.credentials.verify_token(token, HOME, Some(record(token))).is_ok());
        }
    }
}
