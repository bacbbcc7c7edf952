//! What bounds the work that callers make: of all together, and of each account.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use clap::{Args, value_parser};
use credentials::Settings as Logins;
use grpc::Rate;

use super::values::{age, time, to};

/// Bounds of what is done at once.
#[derive(Args)]
pub(crate) struct OverloadOptions {
    /// The most calls at once, over both faces; one more is refused. Streams count for themselves
    #[arg(long, env = "DCAMS_MAX_CALLS", value_name = "N", default_value = "2048", value_parser = to::<1_000_000>)]
    pub(crate) max_calls: NonZeroUsize,
    /// How late the gateway's own tasks may have their turn: while they have it later, a call is refused unless fewer than 128 are under way; a number with ms, s, m, h or d
    #[arg(long, env = "DCAMS_LAG_LIMIT", value_name = "TIME", default_value = "50ms", value_parser = time)]
    pub(crate) lag_limit: Duration,
    /// How long a change or a read may wait for its turn: while those that are begun have waited longer, what comes is refused; a number with ms, s, m, h or d
    #[arg(long, env = "DCAMS_QUEUE_WAIT", value_name = "TIME", default_value = "500ms", value_parser = time)]
    pub(crate) queue_wait: Duration,
    #[command(flatten)]
    accounts: AccountLimits,
    #[command(flatten)]
    logins: LoginLimits,
}

/// Bounds of what an account may ask for.
#[derive(Args)]
struct AccountLimits {
    /// The requests per second of an account, over both faces; more are refused. 0 sets no limit
    #[arg(long, env = "DCAMS_ACCOUNT_RATE", value_name = "N", default_value = "0", value_parser = value_parser!(u32).range(..=1_000_000))]
    account_rate: u32,
    /// How many requests of an account may come at once after a time of quiet; by default as many as in a second
    #[arg(long, env = "DCAMS_ACCOUNT_BURST", value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    account_burst: Option<u32>,
    /// The most streams of WatchStatusChanges that an account has; one more is refused
    #[arg(long, env = "DCAMS_STREAMS_PER_ACCOUNT", value_name = "N", default_value = "64", value_parser = to::<10_000>)]
    streams_per_account: NonZeroUsize,
}

/// When failed logins slow down guessing.
#[derive(Args)]
struct LoginLimits {
    /// The failed logins of a user at an address, within a minute, that block the user there; also the unknown tokens of an address. 0 sets no limit
    #[arg(long, env = "DCAMS_LOGIN_FAILURES_PER_ADDRESS", value_name = "N", default_value = "10", value_parser = value_parser!(u32).range(..=1_000_000))]
    login_failures_per_address: u32,
    /// The failed logins of a user, within a minute and over all addresses that are strange to the user, that block the user at these. 0 sets no limit
    #[arg(long, env = "DCAMS_LOGIN_FAILURES_PER_USER", value_name = "N", default_value = "30", value_parser = value_parser!(u32).range(..=1_000_000))]
    login_failures_per_user: u32,
    /// How long the first block lasts; each further one lasts twice as long
    #[arg(long, env = "DCAMS_LOGIN_BLOCK", value_name = "TIME", default_value = "1m", value_parser = age)]
    login_block: Duration,
    /// How long a block lasts at most
    #[arg(long, env = "DCAMS_LOGIN_BLOCK_LIMIT", value_name = "TIME", default_value = "15m", value_parser = age)]
    login_block_limit: Duration,
}

impl OverloadOptions {
    pub(crate) fn account_rate(&self) -> Option<Rate> {
        let per_second = NonZeroU32::new(self.accounts.account_rate)?;
        let burst = self.accounts.account_burst.and_then(NonZeroU32::new);
        Some(Rate {
            per_second,
            burst: burst.unwrap_or(per_second),
        })
    }

    pub(crate) fn streams_per_account(&self) -> usize {
        self.accounts.streams_per_account.get()
    }

    pub(crate) fn logins(&self) -> Logins {
        Logins {
            failures_per_address: self.logins.login_failures_per_address,
            failures_per_user: self.logins.login_failures_per_user,
            first_block: self.logins.login_block,
            longest_block: self.logins.login_block_limit,
            ..Logins::default()
        }
    }
}
