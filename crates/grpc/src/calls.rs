//! How many calls may be under way at once, over both faces together. One more is refused at once: to let it wait would make
//! all of them late.
//!
//! A fixed number cannot know how many the processor gets done. So while the tasks of this process wait too long for their
//! turn, which a task that only sleeps tells by being late, no more than a few calls are taken. Those few are taken at any
//! time: a machine that is busy with something else is no reason to refuse them.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Gauge;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// How many calls may be under way however late everything is.
const AT_ANY_TIME: usize = 128;

/// How long the task that tells the lag sleeps.
const NAP: Duration = Duration::from_millis(20);

/// Counts the calls.
#[derive(Clone)]
pub(crate) struct Calls {
    most: usize,
    places: Arc<Semaphore>,
    /// None where nobody tells it.
    lag: Option<Arc<Lag>>,
    lag_limit: Duration,
    under_way: Gauge,
}

/// There is no place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// A call that is under way, as long as it is held.
pub(crate) struct Place {
    under_way: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Calls {
    /// Inside a tokio runtime, its lag counts.
    pub(crate) fn new(most: usize, lag_limit: Duration) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            most,
            places: Arc::new(Semaphore::new(most)),
            lag: Handle::try_current().ok().map(|runtime| Lag::watch(&runtime)),
            lag_limit,
            under_way: metrics::gauge!("dcams_calls_under_way"),
        }
    }

    /// Whether there is no place for one more now.
    pub(crate) fn are_too_many(&self) -> bool {
        let under_way = self.most - self.places.available_permits();
        let is_late = || self.lag.as_ref().is_some_and(|lag| lag.now() > self.lag_limit);
        under_way == self.most || (under_way >= AT_ANY_TIME && is_late())
    }

    pub(crate) fn enter(&self) -> Result<Place, TooMany> {
        if self.are_too_many() {
            return Err(TooMany);
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| TooMany)?;
        self.under_way.increment(1);
        Ok(Place {
            under_way: self.under_way.clone(),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.decrement(1);
    }
}

/// How long the tasks of a runtime wait for their turn.
struct Lag {
    start: Instant,
    /// When the task last began to sleep, in nanoseconds after `start`.
    slept: AtomicU64,
}

impl Lag {
    fn watch(runtime: &Handle) -> Arc<Self> {
        let lag = Arc::new(Self {
            start: Instant::now(),
            slept: AtomicU64::new(0),
        });
        runtime.spawn(Self::sleep(Arc::downgrade(&lag)));
        lag
    }

    /// Sleeps again and again, until nobody wants to know.
    async fn sleep(lag: Weak<Self>) {
        while let Some(lag) = lag.upgrade() {
            lag.slept.store(nanos(lag.start.elapsed()), Ordering::Relaxed);
            drop(lag);
            tokio::time::sleep(NAP).await;
        }
    }

    /// How much longer than it was to the task sleeps already: so it is known before the task has its turn.
    fn now(&self) -> Duration {
        let slept = Duration::from_nanos(self.slept.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(slept).saturating_sub(NAP)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NEVER: Duration = Duration::MAX;

    #[test]
    fn there_are_so_many_places_and_each_is_given_back() {
        let calls = Calls::new(2, NEVER);
        let (one, _other) = (calls.enter(), calls.enter());
        assert!(one.is_ok() && calls.enter().is_err());
        drop(one);
        assert!(calls.enter().is_ok());
        assert!(Calls::new(usize::MAX, NEVER).enter().is_ok());
    }

    #[tokio::test]
    async fn a_process_that_is_late_takes_a_few_calls_and_one_that_is_not_takes_all() {
        let mut calls = Calls::new(1_000, Duration::ZERO);
        // Its task has not slept for a second.
        let lag = Lag {
            start: Instant::now().checked_sub(Duration::from_secs(1)).unwrap(),
            slept: AtomicU64::new(0),
        };
        calls.lag = Some(Arc::new(lag));
        let taken: Vec<_> = std::iter::repeat_with(|| calls.enter()).map_while(Result::ok).collect();
        assert_eq!(taken.len(), AT_ANY_TIME);
        calls.lag_limit = NEVER;
        assert!(calls.enter().is_ok());
        drop(taken);
        calls.lag_limit = Duration::ZERO;
        assert!(calls.enter().is_ok());
    }

    #[tokio::test]
    async fn the_lag_is_that_of_the_runtime() {
        let lag = Lag::watch(&Handle::current());
        // Whoever holds the only thread up.
        let began = Instant::now();
        while began.elapsed() < NAP * 3 {}
        assert!(lag.now() >= NAP, "{:?}", lag.now());
        let weak = Arc::downgrade(&lag);
        drop(lag);
        assert!(weak.upgrade().is_none());
    }
}
