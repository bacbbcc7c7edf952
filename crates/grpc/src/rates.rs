//! How many requests an account may make, over both faces together.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use proto::{Reason, Refusal};

/// How often an account may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run.
    pub per_second: NonZeroU32,
    /// Requests that may come at once, after a time of quiet.
    pub burst: NonZeroU32,
}

/// After how many requests the accounts are forgotten that have made none of late: so many are held at most besides those
/// that have.
const FORGET_EVERY: u32 = 65_536;

/// Counts the requests of each account.
pub(crate) struct Rates(Option<Limited>);

struct Limited {
    limiter: DefaultKeyedRateLimiter<i64>,
    clock: DefaultClock,
    asked: AtomicU32,
}

impl Rates {
    /// Without a rate there is no limit.
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(|rate| Limited {
            limiter: RateLimiter::keyed(Quota::per_second(rate.per_second).allow_burst(rate.burst)),
            clock: DefaultClock::default(),
            asked: AtomicU32::new(0),
        }))
    }

    /// Counts a request, or refuses it and says when the next is welcome.
    pub(crate) fn admit(&self, account: i64) -> Result<(), Refusal> {
        let Some(limited) = &self.0 else {
            return Ok(());
        };
        if limited.asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            limited.limiter.retain_recent();
            limited.limiter.shrink_to_fit();
        }
        limited.limiter.check_key(&account).map_err(|not_before| {
            Refusal::retry_after(Reason::Throttled, not_before.wait_time_from(limited.clock.now()))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn rates(per_second: u32, burst: u32) -> Rates {
        Rates::new(Some(Rate {
            per_second: per_second.try_into().unwrap(),
            burst: burst.try_into().unwrap(),
        }))
    }

    #[test]
    fn an_account_has_its_burst_and_is_then_told_when_to_come_again() {
        let rates = rates(1, 3);
        for _ in 0..3 {
            rates.admit(1).unwrap();
        }
        let refusal = rates.admit(1).unwrap_err();
        assert_eq!(refusal.reason, Reason::Throttled);
        let wait = refusal.retry_after.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        rates.admit(2).unwrap();
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let rates = Rates::new(None);
        assert!((0..10_000).all(|_| rates.admit(1).is_ok()));
    }

    #[test]
    fn accounts_that_have_gone_quiet_are_forgotten() {
        let rates = rates(1_000_000, 1_000_000);
        for account in 0..i64::from(2 * FORGET_EVERY) {
            rates.admit(account).unwrap();
        }
        let held = rates.0.unwrap().limiter.len();
        assert!(held <= FORGET_EVERY as usize, "{held}");
    }
}
