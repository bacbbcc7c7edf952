//! Checks user names and passwords, and API tokens, quickly when they were checked before, and slows down guessing.
//!
//! A login goes through here in two steps. [`Credentials::remembered`] answers in less than a microsecond if this very
//! user and password were verified lately (`cache`). Otherwise the caller reads the account from its store and hands
//! it to [`Credentials::verify`], which shares one check among all who ask the same (`flight`), lets a bounded number
//! of them hash (`hashing`, `password`) and remembers a success. Both refuse who has failed too often; to repeat what
//! has just failed is no further failure, and costs no further hash (`throttle`).
//!
//! An API token goes the same way (`bearer`): it is remembered, or its caller reads what its store knows of it. It costs no
//! slow hash (`token` says why), and locks nobody out.
//!
//! There is no I/O and no state outside this process. What is remembered carries the version of the credentials it was
//! verified against: the caller's store compares it in the transaction that it protects, and calls
//! [`Credentials::forget`] and [`Credentials::verify`] if the account has changed.

mod bearer;
mod cache;
mod digest;
mod flight;
mod hashing;
mod password;
mod settings;
mod telemetry;
mod throttle;
mod token;

use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;

use crate::cache::Cache;
use crate::digest::{Digest, Digester, Source};
use crate::flight::{Flights, Outcome};
use crate::hashing::{Busy, Hashing, Ticket};
use crate::password::StoredHash;
use crate::telemetry::Counters;
use crate::throttle::{Attempt, Refusal, Throttle};

pub use crate::bearer::{Granted, TokenRecord};
pub use crate::password::{HashError, generate, hash};
pub use crate::settings::Settings;
pub use crate::token::Token;

/// What the store knows of an account that logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose customers are to be seen.
    pub id: i64,
    /// The version of the credentials: another one each time the password or `enabled` changes.
    pub version: i64,
    /// The argon2id hash of the password, as a PHC string.
    pub hash: String,
    /// Whether the account may log in at all.
    pub enabled: bool,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the hash: it can be guessed against.
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A user whose password was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The account that the user is.
    pub account: i64,
    /// The version of the credentials that the password was verified against.
    pub version: i64,
}

/// Why a login was not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such user, or the password is another, or the account is disabled: nobody learns which.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// There were too many failures; the next attempt is welcome after this time.
    #[error("too many failed logins, the next is welcome in {0:?}")]
    Throttled(Duration),
    /// Too many passwords are being hashed just now.
    #[error("too many logins at once")]
    Busy,
}

/// Checks logins. A cheap handle: clones share everything.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    digester: Digester,
    cache: Cache<Verified>,
    tokens: Cache<Arc<Granted>>,
    throttle: Arc<Throttle>,
    hashing: Hashing,
    flights: Arc<Flights>,
    counters: Counters,
}

type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

impl Credentials {
    /// Starts with nothing remembered. The metrics recorder must be installed before.
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, Box::new(Instant::now))
    }

    fn with_clock(settings: Settings, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                digester: Digester::new(),
                cache: Cache::new(settings.cache_entries, settings.cache_ttl),
                tokens: Cache::new(settings.cache_entries, settings.cache_ttl),
                throttle: Arc::new(Throttle::new(&settings, clock())),
                hashing: Hashing::new(&settings),
                flights: Arc::default(),
                counters: Counters::new(),
                clock,
            }),
        }
    }

    /// The earlier verification of this very user and password, if it is remembered; takes less than a microsecond.
    ///
    /// Fails with [`Error::Throttled`], and no other error, if the user is blocked at this address, even when the
    /// password is remembered.
    pub fn remembered(&self, user: &str, password: &SecretString, from: IpAddr) -> Result<Option<Verified>, Error> {
        let inner = &*self.inner;
        let source = inner.digester.source(user, from);
        let now = inner.admit(&source)?;
        let remembered = inner.cache.get(&inner.digester.login(user, password), now);
        if remembered.is_some() {
            inner.throttle.recognize(&source);
            inner.counters.cache_hit.increment(1);
        } else {
            inner.counters.cache_miss.increment(1);
        }
        Ok(remembered)
    }

    /// Checks the password against the account's hash and remembers a success. Costs one hash whatever is wrong, and
    /// none if the same was wrong just before; those who ask the same at the same time share it. Needs a tokio runtime
    /// with time enabled.
    ///
    /// `account` is what the store has under the name `user`; `None` if there is no such account.
    pub async fn verify(
        &self,
        user: &str,
        password: &SecretString,
        from: IpAddr,
        account: Option<Account>,
    ) -> Result<Verified, Error> {
        let inner = &self.inner;
        let source = inner.digester.source(user, from);
        inner.admit(&source)?;
        let login = inner.digester.login(user, password);
        let check = inner.digester.check(&login, account.as_ref());
        let start = || inner.start(source, login, check, password, account);
        let outcome = inner.flights.share(check, start).await;
        match outcome {
            Ok(_) => inner.throttle.welcome(&source),
            Err(Error::Busy) => inner.counters.busy.increment(1),
            Err(Error::Wrong | Error::Throttled(_)) => {}
        }
        outcome
    }

    /// Sets the gauges, which nothing sets by itself: to be called before the metrics are shown.
    pub fn observe(&self) {
        self.inner.counters.load(self.inner.hashing.load());
    }

    /// Drops what is remembered of this user and password: the store said that the account has changed.
    pub fn forget(&self, user: &str, password: &SecretString) {
        self.inner.cache.remove(&self.inner.digester.login(user, password));
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Inner {
    /// Refuses who is blocked; otherwise says what time it is.
    fn admit(&self, source: &Source) -> Result<Instant, Error> {
        let now = (self.clock)();
        self.throttle
            .check(source, now)
            .map_err(|refusal| self.refuse(refusal))?;
        Ok(now)
    }

    /// Begins the check that all who ask the same will share, and that counts as one attempt, of the first who asks.
    fn start(
        self: &Arc<Self>,
        source: Source,
        login: Digest,
        check: Digest,
        password: &SecretString,
        account: Option<Account>,
    ) -> ControlFlow<Outcome, impl Future<Output = Outcome> + Send + use<>> {
        let allowed = account
            .as_ref()
            .filter(|account| account.enabled)
            .map(|account| Verified {
                account: account.id,
                version: account.version,
            });
        // Another check of the same may have ended since the caller looked: many start at once, but not all in step.
        if let Some(verified) = allowed.filter(|allowed| self.cache.get(&login, (self.clock)()) == Some(*allowed)) {
            return ControlFlow::Break(Ok(verified));
        }
        // Here, where no check of the same is under way: what that one counts is seen. And before a hash is asked for,
        // so that a repeat is never busy.
        if self.throttle.repeats(&source, &check, (self.clock)()) {
            return ControlFlow::Break(Err(Error::Wrong));
        }
        let (ticket, attempt) = match self.reserve(source, check) {
            Ok(reserved) => reserved,
            Err(error) => return ControlFlow::Break(Err(error)),
        };
        let (inner, password) = (self.clone(), password.clone());
        ControlFlow::Continue(async move {
            let stored = account.and_then(|account| inner.read(&account));
            let hash = stored.unwrap_or_else(StoredHash::nobodys);
            let matches = ticket.matches(password, hash).await.map_err(|Busy| Error::Busy)?;
            inner.counters.hashed(matches).increment(1);
            match allowed {
                Some(verified) if matches => {
                    inner.cache.insert(login, verified, (inner.clock)());
                    attempt.succeeded();
                    Ok(verified)
                }
                _ => {
                    attempt.failed((inner.clock)());
                    Err(Error::Wrong)
                }
            }
        })
    }

    fn reserve(&self, source: Source, check: Digest) -> Result<(Ticket, Attempt), Error> {
        let ticket = self.hashing.enter().map_err(|Busy| Error::Busy)?;
        let attempt = self
            .throttle
            .begin(source, check, (self.clock)())
            .map_err(|refusal| self.refuse(refusal))?;
        Ok((ticket, attempt))
    }

    fn read(&self, account: &Account) -> Option<StoredHash> {
        let hash = StoredHash::read(&account.hash);
        if hash.is_none() {
            self.counters.unreadable_hash.increment(1);
        }
        hash
    }

    fn refuse(&self, refusal: Refusal) -> Error {
        self.counters.throttled(refusal.scope).increment(1);
        Error::Throttled(refusal.wait)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::future::poll_fn;
    use std::num::NonZeroUsize;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Poll;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use tokio::task::JoinSet;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const VERIFIED: Verified = Verified { account: 7, version: 1 };
    const MINUTE: Duration = Duration::from_secs(60);

    /// Credentials under a clock that only moves when told, with their counters.
    struct Bench {
        credentials: Credentials,
        now: Arc<Mutex<Instant>>,
        counters: Recorded,
    }

    impl Bench {
        fn new() -> Self {
            // Long enough for any test on any machine; no test waits for it.
            Self::with(Settings {
                hash_wait: 10 * MINUTE,
                ..Settings::default()
            })
        }

        fn with(settings: Settings) -> Self {
            let (counters, now) = (Recorded::default(), Arc::new(Mutex::new(Instant::now())));
            let clock = now.clone();
            let credentials = metrics::with_local_recorder(&counters, || {
                Credentials::with_clock(settings, Box::new(move || *clock.lock().unwrap()))
            });
            Self {
                credentials,
                now,
                counters,
            }
        }

        fn pass(&self, time: Duration) {
            *self.now.lock().unwrap() += time;
        }

        fn remembered(&self, password: &str) -> Result<Option<Verified>, Error> {
            self.credentials.remembered("user", &password.into(), HOME)
        }

        async fn verify(&self, password: &str, account: Option<Account>) -> Result<Verified, Error> {
            self.credentials.verify("user", &password.into(), HOME, account).await
        }

        /// Puts failures, all different, on record without hashing for them.
        fn fail(&self, times: usize, from: IpAddr) {
            let inner = &self.credentials.inner;
            let source = inner.digester.source("user", from);
            for _ in 0..times {
                inner
                    .throttle
                    .begin(source, rand::random(), (inner.clock)())
                    .unwrap()
                    .failed((inner.clock)());
            }
        }

        fn count(&self, counter: &str) -> u64 {
            self.counters
                .0
                .lock()
                .unwrap()
                .get(counter)
                .unwrap()
                .load(Ordering::Relaxed)
        }

        fn hashes(&self) -> u64 {
            self.count("dcams_credentials_hashes_total match") + self.count("dcams_credentials_hashes_total mismatch")
        }
    }

    #[derive(Default)]
    struct Recorded(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let name = key
                .labels()
                .fold(key.name().to_owned(), |name, label| name + " " + label.value());
            Counter::from_arc(self.0.lock().unwrap().entry(name).or_default().clone())
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn account() -> Account {
        Account {
            id: 7,
            version: 1,
            hash: hash(&"right".into()).unwrap(),
            enabled: true,
        }
    }

    fn disabled() -> Account {
        Account {
            enabled: false,
            ..account()
        }
    }

    #[tokio::test]
    async fn a_right_password_is_verified_once_and_then_remembered() {
        let bench = Bench::new();
        assert_eq!(bench.remembered("right"), Ok(None));
        assert_eq!(bench.verify("right", Some(account())).await, Ok(VERIFIED));
        assert_eq!(bench.remembered("right"), Ok(Some(VERIFIED)));
        assert_eq!(bench.remembered("wrong"), Ok(None));
        assert_eq!(bench.credentials.remembered("other", &"right".into(), HOME), Ok(None));
        assert_eq!(bench.hashes(), 1);
        assert_eq!(bench.count("dcams_credentials_cache_total hit"), 1);
        assert_eq!(bench.count("dcams_credentials_cache_total miss"), 3);
    }

    #[tokio::test]
    async fn whatever_is_wrong_costs_one_hash_counts_as_a_failure_and_looks_the_same() {
        let costly = "$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for (password, account) in [
            ("wrong", Some(account())),
            ("right", None),
            ("right", Some(disabled())),
            (
                "right",
                Some(Account {
                    hash: "right".into(),
                    ..account()
                }),
            ),
            (
                "right",
                Some(Account {
                    hash: costly.into(),
                    ..account()
                }),
            ),
        ] {
            let bench = Bench::new();
            bench.fail(9, HOME);
            assert_eq!(bench.verify(password, account).await, Err(Error::Wrong));
            assert_eq!(bench.hashes(), 1);
            assert_eq!(bench.remembered(password), Err(Error::Throttled(MINUTE)));
        }
    }

    #[tokio::test]
    async fn unreadable_hashes_are_counted() {
        let bench = Bench::new();
        let _ = bench
            .verify(
                "right",
                Some(Account {
                    hash: "right".into(),
                    ..account()
                }),
            )
            .await;
        let _ = bench.verify("right", None).await;
        assert_eq!(bench.count("dcams_credentials_unreadable_hashes_total"), 1);
    }

    #[tokio::test]
    async fn a_repeat_of_whatever_was_wrong_costs_no_hash_and_no_failure_and_looks_the_same() {
        for (password, account) in [("wrong", Some(account())), ("right", None), ("right", Some(disabled()))] {
            let bench = Bench::new();
            bench.fail(8, HOME);
            for _ in 0..100 {
                assert_eq!(bench.remembered(password), Ok(None));
                assert_eq!(bench.verify(password, account.clone()).await, Err(Error::Wrong));
            }
            assert_eq!(bench.hashes(), 1);
            bench.fail(1, HOME);
            assert_eq!(
                bench.verify(password, account).await,
                Err(Error::Throttled(MINUTE)),
                "a block holds for repeats too"
            );
        }
    }

    #[tokio::test]
    async fn a_repeat_is_wrong_at_once_even_when_everybody_else_is_busy() {
        let bench = Bench::with(Settings {
            hashes_at_once: NonZeroUsize::MIN,
            hash_queue: 0,
            ..Settings::default()
        });
        for (password, account) in [("wrong", Some(account())), ("right", None), ("right", Some(disabled()))] {
            assert_eq!(bench.verify(password, account.clone()).await, Err(Error::Wrong));
            let _taken = bench.credentials.inner.hashing.enter().unwrap();
            assert_eq!(bench.verify(password, account).await, Err(Error::Wrong));
        }
        assert_eq!(bench.count("dcams_credentials_busy_total"), 0);
    }

    #[tokio::test]
    async fn a_worker_with_the_old_password_does_not_hold_up_those_with_the_new_one() {
        let bench = Bench::new();
        let old = Account {
            hash: hash(&"old".into()).unwrap(),
            ..account()
        };
        bench.verify("old", Some(old)).await.unwrap();
        bench.credentials.forget("user", &"old".into());
        let (new, verified) = (
            Account {
                version: 2,
                ..account()
            },
            Verified { version: 2, ..VERIFIED },
        );
        for round in 0..20 {
            for _ in 0..100 {
                assert_eq!(bench.remembered("old"), Ok(None));
                assert_eq!(bench.verify("old", Some(new.clone())).await, Err(Error::Wrong));
            }
            let remembered = (round > 0).then_some(verified);
            assert_eq!(bench.remembered("right"), Ok(remembered));
            assert_eq!(bench.verify("right", Some(new.clone())).await, Ok(verified));
            bench.pass(MINUTE / 4);
        }
    }

    #[tokio::test]
    async fn a_worker_of_a_disabled_account_does_not_hold_it_up_when_it_is_enabled_again() {
        let (bench, disabled) = (Bench::new(), disabled());
        for _ in 0..100 {
            assert_eq!(bench.verify("right", Some(disabled.clone())).await, Err(Error::Wrong));
        }
        let enabled = Account {
            version: 2,
            enabled: true,
            ..disabled
        };
        assert_eq!(
            bench.verify("right", Some(enabled)).await,
            Ok(Verified { version: 2, ..VERIFIED })
        );
    }

    #[tokio::test]
    async fn a_wrong_password_that_has_become_the_right_one_works_at_once() {
        let (bench, account) = (Bench::new(), account());
        for _ in 0..20 {
            assert_eq!(bench.verify("new", Some(account.clone())).await, Err(Error::Wrong));
        }
        let changed = Account {
            version: 2,
            hash: hash(&"new".into()).unwrap(),
            ..account
        };
        let verified = Verified { version: 2, ..VERIFIED };
        assert_eq!(bench.verify("new", Some(changed)).await, Ok(verified));
        assert_eq!(bench.remembered("new"), Ok(Some(verified)));
    }

    #[tokio::test]
    async fn ten_different_wrong_passwords_block_however_often_each_is_repeated() {
        let (bench, account) = (Bench::new(), account());
        for guess in 0..10 {
            for earlier in 0..=guess {
                let outcome = bench.verify(&earlier.to_string(), Some(account.clone())).await;
                assert_eq!(outcome, Err(Error::Wrong));
            }
        }
        assert_eq!(bench.hashes(), 10);
        assert_eq!(bench.remembered("right"), Err(Error::Throttled(MINUTE)));
        assert_eq!(
            bench.verify("0", Some(account)).await,
            Err(Error::Throttled(MINUTE)),
            "a block holds for repeats too"
        );
    }

    #[tokio::test]
    async fn after_the_window_the_same_wrong_password_is_hashed_and_counted_again() {
        let (bench, account) = (Bench::new(), account());
        for hashes in 1..=3 {
            // The repeat in the middle of the window does not prolong it.
            for _ in 0..2 {
                assert_eq!(bench.verify("wrong", Some(account.clone())).await, Err(Error::Wrong));
                assert_eq!(bench.hashes(), hashes);
                bench.pass(MINUTE / 2);
            }
        }
        bench.fail(9, HOME);
        assert_eq!(bench.verify("wrong", Some(account)).await, Err(Error::Wrong));
        assert_eq!(bench.remembered("right"), Err(Error::Throttled(MINUTE)));
    }

    #[tokio::test]
    async fn another_address_pays_for_its_own_failure() {
        let (bench, account) = (Bench::new(), account());
        assert_eq!(bench.verify("wrong", Some(account.clone())).await, Err(Error::Wrong));
        for _ in 0..2 {
            let outcome = bench
                .credentials
                .verify("user", &"wrong".into(), AWAY, Some(account.clone()))
                .await;
            assert_eq!(outcome, Err(Error::Wrong));
            assert_eq!(bench.hashes(), 2);
        }
    }

    #[tokio::test]
    async fn a_login_is_forgotten_on_demand_and_after_its_time() {
        let bench = Bench::new();
        bench.verify("right", Some(account())).await.unwrap();
        bench.credentials.forget("user", &"right".into());
        assert_eq!(bench.remembered("right"), Ok(None));

        bench.verify("right", Some(account())).await.unwrap();
        bench.pass(10 * MINUTE);
        assert_eq!(bench.remembered("right"), Ok(None));
    }

    #[tokio::test]
    async fn an_account_that_has_changed_is_hashed_for_again() {
        let bench = Bench::new();
        let account = account();
        bench.verify("right", Some(account.clone())).await.unwrap();
        assert_eq!(bench.verify("right", Some(account.clone())).await, Ok(VERIFIED));
        assert_eq!(bench.hashes(), 1);
        let changed = Account {
            version: 2,
            ..account.clone()
        };
        assert_eq!(
            bench.verify("right", Some(changed)).await,
            Ok(Verified { version: 2, ..VERIFIED })
        );
        assert_eq!(
            bench
                .verify(
                    "right",
                    Some(Account {
                        enabled: false,
                        ..account
                    })
                )
                .await,
            Err(Error::Wrong)
        );
        assert_eq!(bench.hashes(), 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn sixty_four_connections_with_the_right_password_cost_one_hash() {
        let (bench, account) = (Bench::new(), account());
        let mut callers = JoinSet::new();
        for from in [HOME, AWAY].repeat(32) {
            let (credentials, account) = (bench.credentials.clone(), Some(account.clone()));
            callers.spawn(async move { credentials.verify("user", &"right".into(), from, account).await });
        }
        assert_eq!(callers.join_all().await, vec![Ok(VERIFIED); 64]);
        assert_eq!(bench.hashes(), 1);
        assert_eq!(
            bench.credentials.remembered("user", &"right".into(), AWAY),
            Ok(Some(VERIFIED))
        );
    }

    /// Polls each future once: on a runtime of one thread, no check can end before all have asked.
    async fn ask<F: Future<Output = Outcome>>(callers: &mut [Pin<Box<F>>]) {
        poll_fn(|context| {
            assert!(
                callers
                    .iter_mut()
                    .all(|caller| caller.as_mut().poll(context).is_pending())
            );
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn sixty_four_connections_with_the_same_wrong_password_cost_one_hash_and_one_failure() {
        let (bench, account) = (Bench::new(), account());
        let mut callers: Vec<_> = (0..64)
            .map(|_| Box::pin(bench.verify("wrong", Some(account.clone()))))
            .collect();
        ask(&mut callers).await;
        for caller in callers {
            assert_eq!(caller.await, Err(Error::Wrong));
        }
        assert_eq!(bench.hashes(), 1);
        bench.fail(8, HOME);
        assert_eq!(bench.verify("right", Some(account)).await, Ok(VERIFIED));
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_strands_nobody_and_its_check_is_remembered() {
        let bench = Bench::new();
        let account = account();
        let mut callers: Vec<_> = (0..2)
            .map(|_| Box::pin(bench.verify("right", Some(account.clone()))))
            .collect();
        ask(&mut callers).await;
        let waiter = callers.pop().unwrap();
        drop(callers);
        assert_eq!(waiter.await, Ok(VERIFIED));
        assert_eq!(bench.hashes(), 1);
        assert_eq!(bench.remembered("right"), Ok(Some(VERIFIED)));
    }

    #[tokio::test]
    async fn beyond_the_queue_everybody_is_busy_at_once() {
        let hashes_at_once = NonZeroUsize::MIN;
        let bench = Bench::with(Settings {
            hashes_at_once,
            hash_queue: 2,
            hash_wait: MINUTE,
            ..Settings::default()
        });
        let taken: Vec<Ticket> = (0..3)
            .map(|_| bench.credentials.inner.hashing.enter().unwrap())
            .collect();
        for _ in 0..20 {
            assert_eq!(bench.verify("right", Some(account())).await, Err(Error::Busy));
        }
        drop(taken);
        assert_eq!(bench.verify("right", Some(account())).await, Ok(VERIFIED));
        assert_eq!((bench.hashes(), bench.count("dcams_credentials_busy_total")), (1, 20));
    }

    #[tokio::test]
    async fn guessing_in_parallel_gets_no_more_guesses() {
        let bench = Bench::with(Settings {
            hash_queue: 100,
            hash_wait: 10 * MINUTE,
            ..Settings::default()
        });
        let mut guesses = JoinSet::new();
        for guess in 0..40 {
            let credentials = bench.credentials.clone();
            guesses.spawn(async move { credentials.verify("user", &guess.to_string().into(), HOME, None).await });
        }
        let outcomes = guesses.join_all().await;
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == Err(Error::Wrong)).count(),
            10
        );
        assert_eq!(bench.hashes(), 10);
    }

    #[tokio::test]
    async fn a_block_holds_for_right_and_remembered_passwords_too() {
        let bench = Bench::new();
        bench.verify("right", Some(account())).await.unwrap();
        bench.fail(10, HOME);
        assert_eq!(bench.remembered("right"), Err(Error::Throttled(MINUTE)));
        assert_eq!(
            bench.verify("right", Some(account())).await,
            Err(Error::Throttled(MINUTE))
        );
        assert_eq!(bench.count("dcams_credentials_throttled_total address"), 2);
        bench.pass(MINUTE);
        assert_eq!(bench.remembered("right"), Ok(Some(VERIFIED)));
        assert_eq!(bench.hashes(), 1);
    }

    #[tokio::test]
    async fn strangers_cannot_lock_the_owner_out() {
        let bench = Bench::new();
        bench.verify("right", Some(account())).await.unwrap();
        for stranger in 10..40 {
            bench.fail(1, IpAddr::from([198, 51, 100, stranger]));
        }
        // Not even a remembered password gets a stranger in: guessing would be free.
        assert_eq!(
            bench.credentials.remembered("user", &"right".into(), AWAY),
            Err(Error::Throttled(MINUTE))
        );
        assert_eq!(bench.count("dcams_credentials_throttled_total user"), 1);
        assert_eq!(bench.remembered("right"), Ok(Some(VERIFIED)));
        bench.credentials.forget("user", &"right".into());
        assert_eq!(bench.verify("right", Some(account())).await, Ok(VERIFIED));
    }

    #[tokio::test]
    async fn a_remembered_login_makes_an_address_known() {
        let bench = Bench::new();
        bench.verify("right", Some(account())).await.unwrap();
        bench.credentials.remembered("user", &"right".into(), AWAY).unwrap();
        for stranger in 10..40 {
            bench.fail(1, IpAddr::from([198, 51, 100, stranger]));
        }
        assert_eq!(
            bench.credentials.remembered("user", &"right".into(), AWAY),
            Ok(Some(VERIFIED))
        );
    }

    #[test]
    fn nothing_printed_tells_a_secret() {
        let account = Account {
            hash: "secret".into(),
            ..account()
        };
        let printed = format!(
            "{account:?} {:?} {:?}",
            generate(),
            Credentials::new(Settings::default())
        );
        assert!(!printed.contains("secret"), "{printed}");
        assert!(printed.contains("REDACTED"), "{printed}");
    }
}
