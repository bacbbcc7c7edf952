//! Decides which queries run on the thread of whoever asks.
//!
//! To look up a row whose pages are in memory takes SQLite a few microseconds; to hand that to another thread, and the answer
//! back, takes longer. But the thread that asks serves other clients too, and must not wait for a disk. So only so many may do
//! it at once that there is always a thread that does not, whatever the disk does; and while they turn out to wait, all
//! are handed over.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Who may, and whether it is worth it at the moment.
pub(super) struct Inline {
    /// How many may at once.
    most: usize,
    running: AtomicUsize,
    /// What the slow ones of late add up to, in [`WEIGHT`]s; see [`Inline::took`].
    slowness: AtomicU32,
    began: Instant,
    /// Until when all are handed over, in microseconds from the beginning.
    until: AtomicU64,
}

/// The right to run one query. It is over when this is dropped.
pub(super) struct Turn<'a> {
    inline: &'a Inline,
    from: Instant,
}

/// What takes so long has waited for a disk, or for the processor.
const SLOW: Duration = Duration::from_millis(1);

/// So many quick queries make up for a slow one; for one that took n times as long, n times as many. Where threads share a
/// processor one in a thousand loses it meanwhile; where pages are on the disk most are slow.
const WEIGHT: u32 = 32;

/// So many slow ones in a row are too many, and so is one that took so many times as long.
const TOO_MANY: u32 = 8;

/// How long all are handed over then, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// And for so many times as long as the last one took: a thread waits for a tenth of the time that a file is locked, at most.
const PAUSE_TIMES: u32 = 10;

impl Inline {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            running: AtomicUsize::new(0),
            slowness: AtomicU32::new(0),
            began: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    /// The right to run one now, unless it is to be handed over.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        if self.most == 0 {
            return None;
        }
        let from = Instant::now();
        if self.pauses(from) {
            return None;
        }
        let may = |running: usize| (running < self.most).then_some(running + 1);
        self.running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, may)
            .ok()?;
        Some(Turn { inline: self, from })
    }

    fn pauses(&self, now: Instant) -> bool {
        self.micros(now) < self.until.load(Ordering::Relaxed)
    }

    fn micros(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Judges by the time that one took which ended now. Two that end at once may count as one: it is an estimate.
    fn took(&self, time: Duration, now: Instant) {
        let before = self.slowness.load(Ordering::Relaxed);
        let times = u32::try_from(time.as_nanos() / SLOW.as_nanos()).unwrap_or(u32::MAX);
        let mut after = match times {
            0 => before.saturating_sub(1),
            _ => before.saturating_add(WEIGHT.saturating_mul(times)),
        };
        if after >= TOO_MANY * WEIGHT {
            after = 0;
            let pause = PAUSE.max(time * PAUSE_TIMES);
            self.until.store(self.micros(now + pause), Ordering::Relaxed);
        }
        // What all threads read stays as it is while all are quick.
        if after != before {
            self.slowness.store(after, Ordering::Relaxed);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.inline.running.fetch_sub(1, Ordering::Relaxed);
        let now = Instant::now();
        self.inline.took(now.saturating_duration_since(self.from), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(5);

    fn waited(inline: &Inline, times: u32, now: Instant) {
        for _ in 0..times {
            inline.took(SLOW, now);
        }
    }

    #[test]
    fn no_more_run_at_once_than_may() {
        let inline = Inline::new(2);
        let first = inline.turn();
        let second = inline.turn();
        assert!(first.is_some() && second.is_some());
        assert!(inline.turn().is_none());
        drop(first);
        assert!(inline.turn().is_some());
        assert!(Inline::new(0).turn().is_none());
    }

    #[test]
    fn while_they_wait_all_are_handed_over() {
        let inline = Inline::new(1);
        let now = Instant::now();
        waited(&inline, TOO_MANY - 1, now);
        assert!(!inline.pauses(now));
        waited(&inline, 1, now);
        assert!(inline.pauses(now) && inline.turn().is_none());
        // It is tried again after a pause, and as many must be slow anew.
        let later = now + PAUSE;
        assert!(!inline.pauses(later));
        waited(&inline, TOO_MANY - 1, later);
        assert!(!inline.pauses(later));
        waited(&inline, 1, later);
        assert!(inline.pauses(later));
    }

    #[test]
    fn one_that_waits_for_long_is_enough_and_is_not_tried_again_soon() {
        let inline = Inline::new(1);
        let now = Instant::now();
        inline.took(SLOW * TOO_MANY - Duration::from_nanos(1), now);
        assert!(!inline.pauses(now));
        let hung = 10 * PAUSE;
        inline.took(hung, now);
        assert!(inline.pauses(now + hung * PAUSE_TIMES - PAUSE));
        assert!(!inline.pauses(now + hung * PAUSE_TIMES));
    }

    #[test]
    fn a_slow_one_now_and_then_changes_nothing() {
        let inline = Inline::new(1);
        let now = Instant::now();
        for _ in 0..10 * TOO_MANY {
            waited(&inline, 1, now);
            for _ in 0..WEIGHT {
                inline.took(QUICK, now);
            }
        }
        assert!(!inline.pauses(now));
    }

    #[test]
    fn who_is_slow_is_noticed() {
        let inline = Inline::new(1);
        let mut turn = inline.turn().unwrap();
        turn.from = turn.from.checked_sub(2 * SLOW).unwrap();
        drop(turn);
        // The machine may have added to it.
        let (slowness, until) = (
            inline.slowness.load(Ordering::Relaxed),
            inline.until.load(Ordering::Relaxed),
        );
        assert!(slowness >= 2 * WEIGHT || until > 0);
    }
}
