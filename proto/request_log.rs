//! The log line of a request: one form for both faces, and a bound on how many there are of what was refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tonic::Code;

use crate::Reason;

/// Which requests have a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logged {
    /// None.
    #[default]
    None,
    /// Those that were refused or failed, at most [`RequestLog::REFUSALS`] a second: whoever sends rubbish, or more than
    /// can be served, must not decide how much is written.
    Errors,
    /// All.
    All,
}

/// Writes the lines of requests. A cheap handle: clones share the bound.
#[derive(Clone, Debug, Default)]
pub struct RequestLog {
    logged: Logged,
    flood: Arc<Flood>,
}

/// How many refusals were logged in this second.
#[derive(Debug)]
struct Flood {
    since: Instant,
    /// The second in the upper half, and how many in the lower one.
    now: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Flood {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            now: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

/// A request that has ended. Nothing in it may be personal data.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    /// Its name.
    pub request_id: &'a str,
    /// The account, once its credentials were found to hold: what a caller says before that may be anything, also a password
    /// that was typed into the wrong field.
    pub account: Option<&'a str>,
    /// The face that it came in over.
    pub face: &'static str,
    /// What was asked for; none where that is not among what there is.
    pub service: Option<&'static str>,
    /// The status of the reply, where that was one of HTTP.
    pub status: Option<u16>,
    /// The gRPC code; `Cancelled` when the caller went away first.
    pub code: Code,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// How long it took, from its head to its reply, or to the end of its stream.
    pub duration: Duration,
    /// The trace that it is part of, if it is recorded.
    pub trace_id: Option<String>,
}

impl RequestLog {
    /// The most lines of refused requests a second with [`Logged::Errors`].
    pub const REFUSALS: u32 = 1_000;

    /// The lines of those requests.
    pub fn new(logged: Logged) -> Self {
        Self {
            logged,
            flood: Arc::default(),
        }
    }

    /// Whether a request that ended with this code is to be written. Asked once for each, since it counts.
    pub fn wants(&self, code: Code) -> bool {
        let wanted = match self.logged {
            Logged::None => return false,
            Logged::Errors => code != Code::Ok,
            Logged::All => true,
        };
        wanted
            && tracing::enabled!(target: "dcams::request", tracing::Level::INFO)
            && (self.logged == Logged::All || self.flood.admits(Self::REFUSALS))
    }

    /// Writes the line of a request.
    pub fn write(&self, ended: &Ended<'_>) {
        // To a thousandth: what is finer is noise.
        let duration_ms = (ended.duration.as_secs_f64() * 1e6).round() / 1e3;
        tracing::info!(
            target: "dcams::request",
            request_id = ended.request_id,
            account = ended.account,
            face = ended.face,
            service = ended.service,
            status = ended.status,
            code = ?ended.code,
            reason = ended.reason.map(Reason::name),
            duration_ms,
            trace_id = ended.trace_id,
            "request"
        );
    }

    /// How many lines were left out since there were too many in their second.
    pub fn dropped(&self) -> u64 {
        self.flood.dropped.load(Ordering::Relaxed)
    }
}

impl Flood {
    fn admits(&self, most: u32) -> bool {
        self.admits_in(self.since.elapsed().as_secs(), most)
    }

    /// Counts one more in that second. Two that begin a second at once may count from its beginning twice: it is a bound
    /// on what is written and not a quota.
    fn admits_in(&self, second: u64, most: u32) -> bool {
        let then = self.now.load(Ordering::Relaxed);
        let count = if then >> 32 == second & u64::from(u32::MAX) {
            self.now.fetch_add(1, Ordering::Relaxed) & u64::from(u32::MAX)
        } else {
            self.now.store((second << 32) + 1, Ordering::Relaxed);
            0
        };
        let admitted = count < u64::from(most);
        if !admitted {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}
