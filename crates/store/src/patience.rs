//! How long what is asked of the store waits: a queue that has become slow takes no more.
//!
//! A bound on their number says how many wait, not for how long: a thousand changes are a third of a second on a quick disk
//! and many on a slow one. So a queue is also judged by what is taken from it, as CoDel does (RFC 8289): while that has waited
//! for longer than it may, what comes is refused at once, rather than served when nobody waits for it any more. What is in the
//! queue stays, and is done. A queue that was emptied is not slow, whatever it was: a disk that stalls once refuses nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Watches one queue. A cheap handle: clones watch the same.
#[derive(Clone)]
pub(crate) struct Patience {
    limit: Duration,
    /// How long the last one that was taken had waited, in nanoseconds.
    waited: Arc<AtomicU64>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Arc::default(),
        }
    }

    /// Whether one more may wait, behind so many.
    pub(crate) fn admits(&self, waiting: usize) -> bool {
        if waiting == 0 {
            self.waited.store(0, Ordering::Relaxed);
        }
        Duration::from_nanos(self.waited.load(Ordering::Relaxed)) <= self.limit
    }

    /// Notes that one was taken that came at this time.
    pub(crate) fn took(&self, came: Instant) {
        let waited = u64::try_from(came.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.store(waited, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_queue_is_slow_while_what_is_taken_has_waited_too_long() {
        let patience = Patience::new(LIMIT);
        assert!(patience.admits(0) && patience.admits(1));
        patience.took(Instant::now().checked_sub(2 * LIMIT).unwrap());
        assert!(!patience.admits(1));
        patience.took(Instant::now());
        assert!(patience.admits(1));
    }

    #[test]
    fn an_empty_queue_is_never_slow() {
        let patience = Patience::new(LIMIT);
        patience.took(Instant::now().checked_sub(2 * LIMIT).unwrap());
        assert!(!patience.admits(1));
        assert!(patience.admits(0));
        // Nor is what was held against who comes next.
        assert!(patience.admits(1));
    }
}
