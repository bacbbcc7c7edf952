//! Remembers for a while which logins and tokens were verified, so that only the first costs a hash or a look into the store.

use std::time::{Duration, Instant};

use crate::digest::Digest;

/// What was verified, bounded in number and age; failures are never kept.
pub(crate) struct Cache<T> {
    logins: quick_cache::sync::Cache<Digest, Login<T>>,
    ttl: Duration,
}

#[derive(Clone, Copy)]
struct Login<T> {
    verified: T,
    since: Instant,
}

impl<T: Clone> Cache<T> {
    pub(crate) fn new(entries: usize, ttl: Duration) -> Self {
        Self {
            logins: quick_cache::sync::Cache::new(entries),
            ttl,
        }
    }

    pub(crate) fn get(&self, login: &Digest, now: Instant) -> Option<T> {
        let found = self.logins.get(login)?;
        if self.expired(&found, now) {
            self.logins.remove_if(login, |found| self.expired(found, now));
            return None;
        }
        Some(found.verified)
    }

    pub(crate) fn insert(&self, login: Digest, verified: T, now: Instant) {
        self.logins.insert(login, Login { verified, since: now });
    }

    pub(crate) fn remove(&self, login: &Digest) {
        self.logins.remove(login);
    }

    fn expired(&self, login: &Login<T>, now: Instant) -> bool {
        now.saturating_duration_since(login.since) >= self.ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verified;

    const VERIFIED: Verified = Verified { account: 1, version: 2 };
    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn a_login_is_remembered_until_its_time_is_over() {
        let (cache, start) = (Cache::new(100, TTL), Instant::now());
        cache.insert([1; 32], VERIFIED, start);
        assert_eq!(
            cache.get(&[1; 32], start + TTL - Duration::from_nanos(1)),
            Some(VERIFIED)
        );
        assert_eq!(cache.get(&[2; 32], start), None);
        assert_eq!(cache.get(&[1; 32], start + TTL), None);
        assert_eq!(cache.logins.len(), 0);
    }

    #[test]
    fn being_asked_for_does_not_prolong_a_login() {
        let (cache, start) = (Cache::new(100, TTL), Instant::now());
        cache.insert([1; 32], VERIFIED, start);
        assert!(cache.get(&[1; 32], start + TTL / 2).is_some());
        assert!(cache.get(&[1; 32], start + TTL).is_none());
    }

    #[test]
    fn the_number_of_logins_is_bounded() {
        let (cache, now) = (Cache::new(64, TTL), Instant::now());
        (0..=255).for_each(|byte| cache.insert([byte; 32], VERIFIED, now));
        assert!(cache.logins.len() <= 64);
    }

    #[test]
    fn a_cache_of_no_entries_remembers_nothing() {
        let (cache, now) = (Cache::new(0, TTL), Instant::now());
        cache.insert([1; 32], VERIFIED, now);
        assert_eq!(cache.get(&[1; 32], now), None);
    }
}
