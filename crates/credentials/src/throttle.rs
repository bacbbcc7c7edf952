//! Slows down guessing: who fails too often is blocked for a while, and for longer each time.
//!
//! Failures are counted per user and address, and per user over all strange addresses. The first count holds for
//! everybody, even with the right password: otherwise guessing on would be free. The second holds for strangers only:
//! an address from which the user has logged in before neither counts there nor is blocked by it, so that nobody can
//! lock out the owner. An attempt counts as a failure from its start until its end is known, so that guessing in
//! parallel gains nothing.
//!
//! Only different logins count, each once in the window: to repeat a wrong login is no guessing. So a worker that was
//! left with an old password does not hold up those beside it that have the new one. A login is known again by its
//! guess: the digest of user, password and state of the account, so that a changed account makes the same password a
//! new guess.
//!
//! Everything is bounded. Guesses lie with the failures that they were, and there are always fewer of these than block.
//! At the bound the entry that was longest out of use is forgotten: an attacker can wipe out his own failures only by
//! failing as many other logins as are tracked, each at the price of a hash.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::{sync, unsync};

use crate::Settings;
use crate::digest::{Digest, Source};

/// The least number of entries that is tracked: quick_cache keeps nothing at all when it is very small.
const LEAST_TRACKED: usize = 32;

/// When to come again if the limit is not reached, but would be if the attempts under way failed.
const SOON: Duration = Duration::from_secs(1);

/// Counts failures and says who is blocked.
pub(crate) struct Throttle {
    ledgers: Mutex<Ledgers>,
    /// Addresses from which a user has logged in.
    known: sync::Cache<Source, ()>,
    /// When the last of all blocks ends, in nanoseconds after `start`: while nobody is blocked, nobody needs the lock.
    calm: AtomicU64,
    start: Instant,
}

struct Ledgers {
    addresses: Ledger<Source>,
    users: Ledger<Digest>,
}

/// Why nothing may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) scope: Scope,
    pub(crate) wait: Duration,
}

/// Whose failures were too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of this user at this address.
    Address,
    /// Those of this user at all strange addresses.
    User,
}

/// An attempt under way: a failure until it ends otherwise. Dropped, it leaves no trace.
pub(crate) struct Attempt {
    throttle: Arc<Throttle>,
    source: Source,
    guess: Digest,
    stranger: bool,
}

impl Throttle {
    pub(crate) fn new(settings: &Settings, now: Instant) -> Self {
        let tracked = settings.tracked.max(LEAST_TRACKED);
        Self {
            ledgers: Mutex::new(Ledgers {
                addresses: Ledger::new(tracked, settings.failures_per_address, settings),
                users: Ledger::new(tracked, settings.failures_per_user, settings),
            }),
            known: sync::Cache::new(tracked),
            calm: AtomicU64::new(0),
            start: now,
        }
    }

    /// Refuses who is blocked.
    pub(crate) fn check(&self, source: &Source, now: Instant) -> Result<(), Refusal> {
        if self.nanos(now) >= self.calm.load(Ordering::Acquire) {
            return Ok(());
        }
        let ledgers = self.ledgers();
        if let Some(wait) = ledgers.addresses.blocked(source, now) {
            return Err(Refusal {
                scope: Scope::Address,
                wait,
            });
        }
        match ledgers.users.blocked(&source.user, now) {
            Some(wait) if !self.knows(source) => Err(Refusal {
                scope: Scope::User,
                wait,
            }),
            _ => Ok(()),
        }
    }

    /// Whether this guess is among the failures that count for this user at this address, and so is wrong still. To
    /// ask changes nothing: a failure counts for no longer because it is repeated. What other addresses guessed stays
    /// out of it, or the quick reply would tell about them.
    pub(crate) fn repeats(&self, source: &Source, guess: &Digest, now: Instant) -> bool {
        self.ledgers().addresses.holds(source, guess, now)
    }

    /// Begins an attempt, which counts as a failure until it has ended.
    pub(crate) fn begin(self: &Arc<Self>, source: Source, guess: Digest, now: Instant) -> Result<Attempt, Refusal> {
        let stranger = !self.knows(&source);
        let mut ledgers = self.ledgers();
        ledgers.addresses.reserve(&source, now).map_err(|wait| Refusal {
            scope: Scope::Address,
            wait,
        })?;
        if stranger && let Err(wait) = ledgers.users.reserve(&source.user, now) {
            ledgers.addresses.release(&source);
            return Err(Refusal {
                scope: Scope::User,
                wait,
            });
        }
        Ok(Attempt {
            throttle: self.clone(),
            source,
            guess,
            stranger,
        })
    }

    /// Notes that the user is at home at this address. Cheap when that is known.
    pub(crate) fn recognize(&self, source: &Source) {
        if !self.knows(source) {
            self.known.insert(*source, ());
        }
    }

    /// Notes that a right password came from this address, and clears its failures.
    pub(crate) fn welcome(&self, source: &Source) {
        self.recognize(source);
        self.ledgers().addresses.clear(source);
    }

    /// Counts a failure at an address, of whoever is not told apart there. Nothing was reserved for it, so that many may be
    /// tried at once: it is nothing that could be guessed.
    pub(crate) fn fail(&self, source: &Source, guess: Digest, now: Instant) {
        let block = self.ledgers().addresses.count(source, guess, now);
        self.note(block, now);
    }

    pub(crate) fn knows(&self, source: &Source) -> bool {
        self.known.get(source).is_some()
    }

    fn count_failure(&self, attempt: &Attempt, now: Instant) {
        let mut ledgers = self.ledgers();
        let by_address = ledgers.addresses.count(&attempt.source, attempt.guess, now);
        let by_user = if attempt.stranger {
            ledgers.users.count(&attempt.source.user, attempt.guess, now)
        } else {
            None
        };
        drop(ledgers);
        self.note(by_address.max(by_user), now);
    }

    /// Notes that somebody is blocked from now on, for so long.
    fn note(&self, block: Option<Duration>, now: Instant) {
        if let Some(block) = block {
            self.calm
                .fetch_max(self.nanos(now).saturating_add(nanos(block)), Ordering::Release);
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }

    fn ledgers(&self) -> MutexGuard<'_, Ledgers> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    pub(crate) fn failed(self, now: Instant) {
        self.throttle.count_failure(&self, now);
    }

    pub(crate) fn succeeded(self) {
        self.throttle.welcome(&self.source);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut ledgers = self.throttle.ledgers();
        ledgers.addresses.release(&self.source);
        if self.stranger {
            ledgers.users.release(&self.source.user);
        }
    }
}

/// The tallies of one kind, under one limit.
struct Ledger<K> {
    tallies: unsync::Cache<K, Tally>,
    limit: usize,
    pace: Pace,
}

/// How failures turn into blocks, and how both are forgotten.
#[derive(Clone, Copy)]
struct Pace {
    window: Duration,
    first_block: Duration,
    longest_block: Duration,
    forgive_after: Duration,
}

impl<K: Copy + Eq + Hash> Ledger<K> {
    fn new(tracked: usize, limit: u32, settings: &Settings) -> Self {
        let pace = Pace {
            window: settings.failure_window,
            first_block: settings.first_block,
            longest_block: settings.longest_block,
            forgive_after: settings.forgive_after,
        };
        Self {
            tallies: unsync::Cache::new(tracked),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            pace,
        }
    }

    fn blocked(&self, key: &K, now: Instant) -> Option<Duration> {
        self.tallies.peek(key)?.blocked(now)
    }

    fn holds(&self, key: &K, guess: &Digest, now: Instant) -> bool {
        self.tallies
            .peek(key)
            .is_some_and(|tally| tally.holds(guess, now, &self.pace))
    }

    /// Makes room for a failure, or says how long there is none.
    fn reserve(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let (limit, pace) = (self.limit, self.pace);
        self.change(key, |tally| {
            tally.forget(now, &pace);
            if let Some(wait) = tally.blocked(now) {
                return Err(wait);
            }
            if tally.failures.len() + tally.pending >= limit {
                return Err(SOON);
            }
            tally.pending += 1;
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Counts a failure and says how long it blocks, if it does.
    fn count(&mut self, key: &K, guess: Digest, now: Instant) -> Option<Duration> {
        let (limit, pace) = (self.limit, self.pace);
        self.change(key, |tally| {
            tally.forget(now, &pace);
            tally.fail(guess, now, limit, &pace)
        })
        .flatten()
    }

    fn release(&mut self, key: &K) {
        if let Some(mut tally) = self.tallies.get_mut(key) {
            tally.pending = tally.pending.saturating_sub(1);
        }
        self.tallies.remove_if(key, Tally::is_blank);
    }

    fn clear(&mut self, key: &K) {
        if let Some(mut tally) = self.tallies.get_mut(key) {
            *tally = Tally {
                pending: tally.pending,
                ..Tally::default()
            };
        }
        self.tallies.remove_if(key, Tally::is_blank);
    }

    /// Changes a tally, which is made if there is none; nothing is tallied without a limit.
    fn change<T>(&mut self, key: &K, change: impl FnOnce(&mut Tally) -> T) -> Option<T> {
        if self.limit == 0 {
            return None;
        }
        let blank = || Ok::<_, Infallible>(Tally::default());
        let Ok(Some(mut tally)) = self.tallies.get_mut_or_insert_with(key, blank) else {
            return None;
        };
        Some(change(&mut tally))
    }
}

/// What is known of one user, or of one user at one address.
#[derive(Default)]
struct Tally {
    /// The failures within the window, since the last block; no two of the same guess.
    failures: VecDeque<Failure>,
    /// Attempts under way.
    pending: usize,
    last_failure: Option<Instant>,
    block: Option<Block>,
    /// The blocks so far.
    strikes: u32,
}

struct Failure {
    at: Instant,
    guess: Digest,
}

impl Failure {
    fn counts(&self, now: Instant, pace: &Pace) -> bool {
        now.saturating_duration_since(self.at) < pace.window
    }
}

#[derive(Clone, Copy)]
struct Block {
    since: Instant,
    length: Duration,
}

impl Tally {
    fn blocked(&self, now: Instant) -> Option<Duration> {
        let block = self.block?;
        block
            .length
            .checked_sub(now.saturating_duration_since(block.since))
            .filter(|wait| !wait.is_zero())
    }

    /// Lets go of what time has settled.
    fn forget(&mut self, now: Instant, pace: &Pace) {
        let age = |event: Instant| now.saturating_duration_since(event);
        while self.failures.front().is_some_and(|failure| !failure.counts(now, pace)) {
            self.failures.pop_front();
        }
        let no_failures = self
            .last_failure
            .is_none_or(|failure| age(failure) >= pace.forgive_after);
        let no_block = self
            .block
            .is_none_or(|block| age(block.since) >= block.length.saturating_add(pace.forgive_after));
        if no_failures && no_block {
            self.strikes = 0;
            self.block = None;
        }
    }

    fn holds(&self, guess: &Digest, now: Instant, pace: &Pace) -> bool {
        self.failures
            .iter()
            .any(|failure| failure.guess == *guess && failure.counts(now, pace))
    }

    fn fail(&mut self, guess: Digest, now: Instant, limit: usize, pace: &Pace) -> Option<Duration> {
        // A repeat at the same address does not come so far, but the user may have failed with this at another one.
        if self.holds(&guess, now, pace) {
            return None;
        }
        self.failures.push_back(Failure { at: now, guess });
        self.last_failure = Some(now);
        if self.failures.len() < limit {
            return None;
        }
        let length = pace
            .first_block
            .saturating_mul(2u32.saturating_pow(self.strikes))
            .min(pace.longest_block);
        // Clearing would keep the memory for as long as the block is not forgiven.
        self.failures = VecDeque::new();
        self.strikes = self.strikes.saturating_add(1);
        self.block = Some(Block { since: now, length });
        Some(length)
    }

    fn is_blank(&self) -> bool {
        self.pending == 0 && self.failures.is_empty() && self.strikes == 0
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digester;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const GUESS: Digest = [1; 32];

    /// A throttle, a clock that only moves when told, and users at addresses.
    struct Bench {
        throttle: Arc<Throttle>,
        digester: Digester,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self::with(&Settings::default())
        }

        fn with(settings: &Settings) -> Self {
            let now = Instant::now();
            Self {
                throttle: Arc::new(Throttle::new(settings, now)),
                digester: Digester::new(),
                now,
            }
        }

        fn source(&self, user: &str, address: u32) -> Source {
            self.digester.source(user, IpAddr::V4(Ipv4Addr::from_bits(address)))
        }

        /// What the outside sees: the check first, then the attempt, with something never tried before.
        fn begin(&self, user: &str, address: u32) -> Result<Attempt, Refusal> {
            self.begin_with(rand::random(), user, address)
        }

        fn begin_with(&self, guess: Digest, user: &str, address: u32) -> Result<Attempt, Refusal> {
            let source = self.source(user, address);
            self.throttle.check(&source, self.now)?;
            self.throttle.begin(source, guess, self.now)
        }

        fn fail_with(&self, guess: Digest, user: &str, address: u32) -> Result<(), Refusal> {
            self.begin_with(guess, user, address)
                .map(|attempt| attempt.failed(self.now))
        }

        fn repeats(&self, guess: Digest, user: &str, address: u32) -> bool {
            self.throttle.repeats(&self.source(user, address), &guess, self.now)
        }

        fn fail(&self, user: &str, address: u32) -> Result<(), Refusal> {
            self.begin(user, address).map(|attempt| attempt.failed(self.now))
        }

        fn succeed(&self, user: &str, address: u32) -> Result<(), Refusal> {
            self.begin(user, address).map(Attempt::succeeded)
        }

        fn fail_times(&self, times: u32, user: &str, address: u32) {
            (0..times).for_each(|_| self.fail(user, address).unwrap());
        }

        fn tallies(&self) -> (usize, usize) {
            let ledgers = self.throttle.ledgers();
            (ledgers.addresses.tallies.len(), ledgers.users.tallies.len())
        }
    }

    fn refusal(scope: Scope, wait: Duration) -> Refusal {
        Refusal { scope, wait }
    }

    #[test]
    fn ten_failures_block_the_user_at_that_address_for_a_minute() {
        let mut bench = Bench::new();
        bench.fail_times(10, "u", 1);
        assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, MINUTE)));
        bench.fail("u", 2).unwrap();
        bench.fail("v", 1).unwrap();
        bench.now += MINUTE - SECOND;
        assert_eq!(bench.succeed("u", 1), Err(refusal(Scope::Address, SECOND)));
        bench.now += SECOND;
        bench.fail("u", 1).unwrap();
    }

    #[test]
    fn a_block_is_seen_by_the_check_and_by_an_attempt_that_had_passed_it_before() {
        let bench = Bench::new();
        let source = bench.source("u", 1);
        bench.fail_times(10, "u", 1);
        let blocked = Some(refusal(Scope::Address, MINUTE));
        assert_eq!(bench.throttle.check(&source, bench.now).err(), blocked);
        assert_eq!(bench.throttle.begin(source, GUESS, bench.now).err(), blocked);
    }

    #[test]
    fn failures_count_for_a_minute_each() {
        let mut bench = Bench::new();
        bench.fail_times(5, "u", 1);
        bench.now += MINUTE / 2;
        bench.fail_times(4, "u", 1);
        bench.now += MINUTE / 2;
        bench.fail_times(5, "u", 1);
        assert!(bench.begin("u", 1).is_ok());
        bench.fail("u", 1).unwrap();
        assert!(bench.begin("u", 1).is_err());
    }

    #[test]
    fn a_guess_is_repeated_by_its_user_at_its_address_within_the_window_only() {
        let mut bench = Bench::new();
        assert!(!bench.repeats(GUESS, "u", 1));
        bench.fail_with(GUESS, "u", 1).unwrap();
        assert!(bench.repeats(GUESS, "u", 1));
        assert!(!bench.repeats([2; 32], "u", 1));
        assert!(!bench.repeats(GUESS, "u", 2));
        assert!(!bench.repeats(GUESS, "v", 1));
        bench.now += MINUTE - SECOND;
        assert!(bench.repeats(GUESS, "u", 1));
        bench.now += SECOND;
        assert!(!bench.repeats(GUESS, "u", 1));
    }

    #[test]
    fn an_attempt_is_repeated_only_once_it_has_failed() {
        let bench = Bench::new();
        let attempt = bench.begin_with(GUESS, "u", 1).unwrap();
        assert!(!bench.repeats(GUESS, "u", 1));
        drop(attempt);
        assert!(!bench.repeats(GUESS, "u", 1));
    }

    #[test]
    fn a_success_and_a_block_let_go_of_the_guesses() {
        let bench = Bench::new();
        bench.fail_with(GUESS, "u", 1).unwrap();
        bench.succeed("u", 1).unwrap();
        assert!(!bench.repeats(GUESS, "u", 1));
        bench.fail_with(GUESS, "u", 1).unwrap();
        bench.fail_times(9, "u", 1);
        assert!(!bench.repeats(GUESS, "u", 1));
    }

    #[test]
    fn the_same_guess_from_many_addresses_counts_once_for_the_user_and_once_for_each_address() {
        let mut bench = Bench::new();
        (0..100).for_each(|address| bench.fail_with(GUESS, "u", address).unwrap());
        bench.fail_times(9, "u", 1);
        assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, MINUTE)));
        (200..219).for_each(|address| bench.fail("u", address).unwrap());
        bench.fail("u", 300).unwrap();
        assert_eq!(bench.fail("u", 301), Err(refusal(Scope::User, MINUTE)));
        // The repeats have not prolonged the first.
        bench.now += MINUTE;
        bench.fail_with(GUESS, "u", 400).unwrap();
    }

    #[test]
    fn the_number_of_guesses_that_are_held_is_bounded() {
        let mut bench = Bench::new();
        for _ in 0..1000 {
            if let Err(Refusal { wait, .. }) = bench.fail("u", 1) {
                bench.now += wait;
            }
            let (here, user) = (bench.source("u", 1), bench.source("u", 1).user);
            let ledgers = bench.throttle.ledgers();
            let held = |tally: Option<&Tally>| tally.map_or(0, |tally| tally.failures.len());
            assert!(held(ledgers.addresses.tallies.peek(&here)) < 10);
            assert!(held(ledgers.users.tallies.peek(&user)) < 30);
        }
    }

    #[test]
    fn each_block_lasts_twice_as_long_up_to_fifteen_minutes() {
        let mut bench = Bench::new();
        for minutes in [1, 2, 4, 8, 15, 15] {
            bench.fail_times(10, "u", 1);
            assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, minutes * MINUTE)));
            bench.now += minutes * MINUTE;
        }
    }

    #[test]
    fn fifteen_quiet_minutes_after_a_block_forgive_it() {
        let mut bench = Bench::new();
        for quiet in [15 * MINUTE, 15 * MINUTE - SECOND] {
            bench.fail_times(10, "u", 1);
            assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, MINUTE)));
            bench.now += MINUTE + quiet;
        }
        bench.fail_times(10, "u", 1);
        assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, 2 * MINUTE)));
    }

    #[test]
    fn a_success_clears_the_failures_at_that_address() {
        let bench = Bench::new();
        bench.fail_times(9, "u", 1);
        bench.succeed("u", 1).unwrap();
        bench.fail_times(10, "u", 1);
        assert!(bench.fail("u", 1).is_err());
    }

    #[test]
    fn thirty_failures_over_all_addresses_block_the_user_for_strangers() {
        let bench = Bench::new();
        (0..30).for_each(|address| bench.fail("u", address).unwrap());
        assert_eq!(bench.fail("u", 99), Err(refusal(Scope::User, MINUTE)));
        bench.fail("v", 99).unwrap();
    }

    #[test]
    fn a_known_good_address_is_neither_blocked_nor_counted_with_the_strangers() {
        let bench = Bench::new();
        bench.succeed("u", 1).unwrap();
        bench.fail_times(9, "u", 1);
        (100..130).for_each(|address| bench.fail("u", address).unwrap());
        assert!(bench.fail("u", 99).is_err());
        bench.succeed("u", 1).unwrap();
        bench.fail_times(10, "u", 1);
        assert_eq!(bench.succeed("u", 1), Err(refusal(Scope::Address, MINUTE)));
    }

    #[test]
    fn attempts_under_way_count_until_they_end() {
        let bench = Bench::new();
        let mut attempts: Vec<Attempt> = (0..10).map(|_| bench.begin("u", 1).unwrap()).collect();
        assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, SOON)));
        attempts.pop();
        bench.fail("u", 1).unwrap();
        assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, SOON)));
        attempts.into_iter().for_each(|attempt| attempt.failed(bench.now));
        assert_eq!(bench.fail("u", 1), Err(refusal(Scope::Address, MINUTE)));
    }

    #[test]
    fn an_attempt_that_the_user_limit_refuses_costs_the_address_nothing() {
        let bench = Bench::new();
        let attempts: Vec<Attempt> = (0..30).map(|address| bench.begin("u", address).unwrap()).collect();
        (0..20).for_each(|_| assert_eq!(bench.fail("u", 99), Err(refusal(Scope::User, SOON))));
        drop(attempts);
        bench.fail_times(10, "u", 99);
    }

    #[test]
    fn what_ended_well_or_not_at_all_leaves_no_trace() {
        let bench = Bench::new();
        drop(bench.begin("u", 1));
        bench.succeed("u", 1).unwrap();
        bench.succeed("u", 2).unwrap();
        bench.fail_times(3, "u", 2);
        bench.succeed("u", 2).unwrap();
        assert_eq!(bench.tallies(), (0, 0));
    }

    #[test]
    fn the_number_of_tallies_is_bounded() {
        let bench = Bench::with(&Settings {
            tracked: 0,
            failures_per_user: 1,
            ..Settings::default()
        });
        for n in 0..1000 {
            bench.fail(&n.to_string(), n).unwrap();
            bench.throttle.recognize(&bench.source("u", n));
        }
        let (addresses, users) = bench.tallies();
        assert!(addresses <= LEAST_TRACKED && users <= LEAST_TRACKED && bench.throttle.known.len() <= LEAST_TRACKED);
        assert!(bench.fail("999", 999).is_err());
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        let bench = Bench::with(&Settings {
            failures_per_address: 0,
            failures_per_user: 0,
            ..Settings::default()
        });
        bench.fail_times(1000, "u", 1);
        assert_eq!(bench.tallies(), (0, 0));
    }

    #[test]
    fn the_longest_times_do_no_harm() {
        let (failure_window, first_block, longest_block, forgive_after) =
            (Duration::MAX, Duration::MAX, Duration::MAX, Duration::MAX);
        let mut bench = Bench::with(&Settings {
            failure_window,
            first_block,
            longest_block,
            forgive_after,
            ..Settings::default()
        });
        bench.fail_times(10, "u", 1);
        bench.now += MINUTE;
        assert!(bench.fail("u", 1).is_err());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(Duration),
        Begin(u32),
        Fail(usize),
        Abandon(usize),
        OwnerFails,
        OwnerSucceeds,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u64..20_000).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
            12 => (1u32..6).prop_map(Step::Begin),
            12 => any::<usize>().prop_map(Step::Fail),
            1 => any::<usize>().prop_map(Step::Abandon),
            1 => Just(Step::OwnerFails),
            1 => Just(Step::OwnerSucceeds),
        ];
        prop::collection::vec(step, 0..300)
    }

    fn most_in_a_window(failures: &[Instant], window: Duration) -> usize {
        let within = |first: Instant| {
            failures
                .iter()
                .filter(|at| (first..first + window).contains(at))
                .count()
        };
        failures.iter().map(|first| within(*first)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn guessing_stays_within_the_limits_and_the_owner_gets_in(steps in steps()) {
            const OWNER: u32 = 99;
            let settings = Settings { failures_per_address: 4, failures_per_user: 9, ..Settings::default() };
            let mut bench = Bench::with(&settings);
            bench.succeed("u", OWNER).unwrap();
            let mut under_way: Vec<(u32, Attempt)> = Vec::new();
            let mut failures: Vec<(u32, Instant)> = Vec::new();
            let mut owner_failures = 0;

            for step in steps {
                match step {
                    Step::Wait(time) => bench.now += time,
                    Step::Begin(address) => match bench.begin("u", address) {
                        Ok(attempt) => under_way.push((address, attempt)),
                        // Nobody is held up for longer than was said.
                        Err(Refusal { wait, .. }) if under_way.is_empty() => {
                            prop_assert!(wait > Duration::ZERO && wait <= settings.longest_block);
                            let source = bench.source("u", address);
                            if let Err(next) = bench.throttle.check(&source, bench.now + wait) {
                                // The address was blocked, and so is the user, for longer.
                                prop_assert_eq!(next.scope, Scope::User);
                                prop_assert!(bench.throttle.check(&source, bench.now + wait + next.wait).is_ok());
                            }
                        }
                        Err(_) => {}
                    },
                    Step::Fail(_) | Step::Abandon(_) if under_way.is_empty() => {}
                    Step::Fail(which) => {
                        let (address, attempt) = under_way.swap_remove(which % under_way.len());
                        attempt.failed(bench.now);
                        failures.push((address, bench.now));
                    }
                    Step::Abandon(which) => drop(under_way.swap_remove(which % under_way.len())),
                    Step::OwnerFails if owner_failures == 3 => {}
                    Step::OwnerFails => {
                        bench.fail("u", OWNER).unwrap();
                        owner_failures += 1;
                    }
                    Step::OwnerSucceeds => {
                        bench.succeed("u", OWNER).unwrap();
                        owner_failures = 0;
                    }
                }
            }

            let all: Vec<Instant> = failures.iter().map(|(_, at)| *at).collect();
            prop_assert!(most_in_a_window(&all, settings.failure_window) <= 9);
            for address in 1..6 {
                let here: Vec<Instant> = failures.iter().filter(|(at, _)| *at == address).map(|(_, at)| *at).collect();
                prop_assert!(most_in_a_window(&here, settings.failure_window) <= 4);
            }
        }
    }
}
