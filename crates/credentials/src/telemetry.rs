//! The counters of this crate, looked up once, since looking them up by name costs more than a remembered login.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::throttle::Scope;

/// Counts what happens to logins; no label names a user.
pub(crate) struct Counters {
    pub(crate) cache_hit: Counter,
    pub(crate) cache_miss: Counter,
    hash_match: Counter,
    hash_mismatch: Counter,
    pub(crate) unreadable_hash: Counter,
    pub(crate) busy: Counter,
    throttled_address: Counter,
    throttled_user: Counter,
    hashes_running: Gauge,
    hashes_waiting: Gauge,
    token_accepted: Counter,
    token_refused: Counter,
}

impl Counters {
    pub(crate) fn new() -> Self {
        describe_counter!(
            "dcams_credentials_cache_total",
            "Logins looked up among the remembered ones"
        );
        describe_counter!("dcams_credentials_hashes_total", "Passwords hashed to check a login");
        describe_counter!(
            "dcams_credentials_unreadable_hashes_total",
            "Stored hashes that are broken or too costly"
        );
        describe_counter!(
            "dcams_credentials_busy_total",
            "Logins refused since too many passwords were being hashed"
        );
        describe_counter!(
            "dcams_credentials_throttled_total",
            "Logins refused after too many failures"
        );
        describe_gauge!(
            "dcams_credentials_hashes_running",
            "Passwords that are being hashed, when this was asked for"
        );
        describe_gauge!(
            "dcams_credentials_hashes_waiting",
            "Passwords that wait to be hashed, when this was asked for"
        );
        describe_counter!(
            "dcams_credentials_tokens_total",
            "API tokens looked up in the store, since they were not remembered"
        );
        Self {
            cache_hit: counter!("dcams_credentials_cache_total", "outcome" => "hit"),
            cache_miss: counter!("dcams_credentials_cache_total", "outcome" => "miss"),
            hash_match: counter!("dcams_credentials_hashes_total", "outcome" => "match"),
            hash_mismatch: counter!("dcams_credentials_hashes_total", "outcome" => "mismatch"),
            unreadable_hash: counter!("dcams_credentials_unreadable_hashes_total"),
            busy: counter!("dcams_credentials_busy_total"),
            throttled_address: counter!("dcams_credentials_throttled_total", "scope" => "address"),
            throttled_user: counter!("dcams_credentials_throttled_total", "scope" => "user"),
            hashes_running: gauge!("dcams_credentials_hashes_running"),
            hashes_waiting: gauge!("dcams_credentials_hashes_waiting"),
            token_accepted: counter!("dcams_credentials_tokens_total", "outcome" => "accepted"),
            token_refused: counter!("dcams_credentials_tokens_total", "outcome" => "refused"),
        }
    }

    pub(crate) fn hashed(&self, matches: bool) -> &Counter {
        if matches { &self.hash_match } else { &self.hash_mismatch }
    }

    pub(crate) fn load(&self, (running, waiting): (usize, usize)) {
        self.hashes_running.set(running as f64);
        self.hashes_waiting.set(waiting as f64);
    }

    pub(crate) fn token(&self, is_accepted: bool) -> &Counter {
        if is_accepted {
            &self.token_accepted
        } else {
            &self.token_refused
        }
    }

    pub(crate) fn throttled(&self, scope: Scope) -> &Counter {
        match scope {
            Scope::Address => &self.throttled_address,
            Scope::User => &self.throttled_user,
        }
    }
}
