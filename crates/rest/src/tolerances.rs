//! Counts what is only taken for the sake of old clients, by account, so that whoever still needs a tolerance can be asked
//! to change, and one that nobody uses any more can be seen.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU16, Ordering},
    },
};

use metrics::{Counter, counter, describe_counter};

/// The name of the metric; its label `kind` names the tolerance, and `account` who needed it.
const METRIC: &str = "dcams_tolerated_total";

/// What a client does that the contract does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// A status came with `getStatus`.
    StatusOnGet,
    /// The email stood beside `target`.
    FlatEmail,
    /// The status stood beside `target`.
    FlatStatus,
    /// The body was not declared as `application/json`.
    ContentType,
    /// The body began with a byte order mark.
    Bom,
    /// The status was not in upper case.
    StatusCase,
    /// The path ended in a slash.
    TrailingSlash,
    /// `target` was PHP's empty array.
    EmptyTargetArray,
    /// `documents` was PHP's empty array.
    EmptyDocumentsArray,
    /// A number stood for a text.
    NumberAsText,
    /// There was white space in the Base64 of an image.
    ImageWhiteSpace,
    /// The Base64 of an image had no padding.
    ImagePadding,
}

impl Tolerance {
    pub(crate) const ALL: [Self; 12] = [
        Self::StatusOnGet,
        Self::FlatEmail,
        Self::FlatStatus,
        Self::ContentType,
        Self::Bom,
        Self::StatusCase,
        Self::TrailingSlash,
        Self::EmptyTargetArray,
        Self::EmptyDocumentsArray,
        Self::NumberAsText,
        Self::ImageWhiteSpace,
        Self::ImagePadding,
    ];

    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::StatusOnGet => "status_on_get",
            Self::FlatEmail => "flat_email",
            Self::FlatStatus => "flat_status",
            Self::ContentType => "content_type",
            Self::Bom => "bom",
            Self::StatusCase => "status_case",
            Self::TrailingSlash => "trailing_slash",
            Self::EmptyTargetArray => "empty_target_array",
            Self::EmptyDocumentsArray => "empty_documents_array",
            Self::NumberAsText => "number_as_text",
            Self::ImageWhiteSpace => "image_white_space",
            Self::ImagePadding => "image_padding",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The tolerances that one request needed.
#[derive(Debug, Default)]
pub(crate) struct Needed(AtomicU16);

impl Needed {
    pub(crate) fn note(&self, tolerance: Tolerance) {
        self.0.fetch_or(tolerance.bit(), Ordering::Relaxed);
    }

    /// What was noted, in the order of the table.
    pub(crate) fn all(&self) -> impl Iterator<Item = Tolerance> + use<> {
        let noted = self.0.load(Ordering::Relaxed);
        Tolerance::ALL
            .into_iter()
            .filter(move |tolerance| noted & tolerance.bit() != 0)
    }
}

/// The counters, by account. A handle costs an atomic addition; the macro would look the name up each time.
#[derive(Default)]
pub(crate) struct Tolerances {
    accounts: RwLock<HashMap<Box<str>, Arc<Kinds>>>,
    other: Kinds,
    unknown: Kinds,
}

/// The counters of an account, each made when it is needed first.
type Kinds = [OnceLock<Counter>; Tolerance::ALL.len()];

/// How many accounts have series of their own: the first that need a tolerance.
pub(crate) const ACCOUNTS: usize = 1_000;

/// What stands for the accounts after these, and for requests whose credentials did not hold. No account is named like that:
/// a name has no colon.
pub(crate) const OTHER: &str = ":other";
pub(crate) const UNKNOWN: &str = ":unknown";

impl Tolerances {
    /// With the recorder that is installed.
    pub(crate) fn register() -> Self {
        describe_counter!(
            METRIC,
            "Requests that strayed from the contract and were understood all the same, by kind and account"
        );
        let tolerances = Self::default();
        // So that a kind is there before anybody needs it.
        for tolerance in Tolerance::ALL {
            of(&tolerances.unknown, UNKNOWN, tolerance);
        }
        tolerances
    }

    /// Counts what a request of that account needed; of none, when its credentials did not hold.
    pub(crate) fn count(&self, needed: &Needed, account: Option<&str>) {
        let mut needed = needed.all().peekable();
        if needed.peek().is_none() {
            return;
        }
        let Some(account) = account else {
            return count(needed, &self.unknown, UNKNOWN);
        };
        let kinds = self
            .accounts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(account)
            .cloned();
        match kinds.or_else(|| self.enter(account)) {
            Some(kinds) => count(needed, &kinds, account),
            None => count(needed, &self.other, OTHER),
        }
    }

    /// Gives an account series of its own, while there is room.
    fn enter(&self, account: &str) -> Option<Arc<Kinds>> {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= ACCOUNTS && !accounts.contains_key(account) {
            return None;
        }
        Some(Arc::clone(accounts.entry(account.into()).or_default()))
    }
}

fn count(needed: impl Iterator<Item = Tolerance>, kinds: &Kinds, account: &str) {
    for tolerance in needed {
        if let Some(counter) = of(kinds, account, tolerance) {
            counter.increment(1);
        }
    }
}

fn of<'a>(kinds: &'a Kinds, account: &str, tolerance: Tolerance) -> Option<&'a Counter> {
    let counter = kinds.get(tolerance as usize)?;
    Some(counter.get_or_init(|| counter!(METRIC, "kind" => tolerance.kind(), "account" => account.to_owned())))
}
