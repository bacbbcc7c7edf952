//! The limits of password checking.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

/// How much is hashed at once, what is remembered, and when guessing is slowed down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Hashes that are computed at the same time; each takes a core and 19 MiB for 15 ms. Default: the available cores.
    pub hashes_at_once: NonZeroUsize,
    /// Hashes that may wait for their turn; one more is refused as busy. Default: 32.
    pub hash_queue: usize,
    /// How long a hash waits for its turn before it is refused as busy. Default: 500 ms.
    pub hash_wait: Duration,
    /// Verified logins that are remembered at most; 0 remembers none. Default: 10,000.
    pub cache_entries: usize,
    /// How long a verified login is remembered. Default: 10 minutes.
    pub cache_ttl: Duration,
    /// Failures within the window that block a user at one address; 0 sets no limit. The same wrong login counts once
    /// in the window: its repeats are refused without a hash and are no failures. Default: 10.
    pub failures_per_address: u32,
    /// Failures within the window, over all addresses that are strange to the user, that block the user at every
    /// strange address; 0 sets no limit. The same wrong login counts once here too, wherever it comes from.
    /// Default: 30.
    pub failures_per_user: u32,
    /// The time over which failures are counted, each from when it was first made. Default: 1 minute.
    pub failure_window: Duration,
    /// How long the first block lasts; each further one lasts twice as long. Default: 1 minute.
    pub first_block: Duration,
    /// How long a block lasts at most. Default: 15 minutes.
    pub longest_block: Duration,
    /// The quiet time, without failure or block, after which earlier blocks are forgiven. Default: 15 minutes.
    pub forgive_after: Duration,
    /// Users, and users at an address, whose failures are counted, and addresses that are known as good; at the bound
    /// the one that was longest out of use is forgotten, at least 32 are kept. Default: 65,536 of each.
    pub tracked: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hashes_at_once: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            hash_queue: 32,
            hash_wait: Duration::from_millis(500),
            cache_entries: 10_000,
            cache_ttl: Duration::from_secs(10 * 60),
            failures_per_address: 10,
            failures_per_user: 30,
            failure_window: Duration::from_secs(60),
            first_block: Duration::from_secs(60),
            longest_block: Duration::from_secs(15 * 60),
            forgive_after: Duration::from_secs(15 * 60),
            tracked: 65_536,
        }
    }
}
