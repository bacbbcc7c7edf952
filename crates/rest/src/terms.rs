//! The terms on which a change is to be made, from the headers `Idempotency-Key` and `If-Match`. A read has none.

use http::{
    HeaderMap, HeaderName,
    header::{GetAll, IF_MATCH},
};
use proto::{Reason, Refusal};

/// Names a change, so that the same again is not made twice.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The names of what is read here, in the contract.
const KEY: &str = "idempotency_key";
const ETAG: &str = "etag";

/// What the headers of a request say. Whether that can be is said only once the service asks, and so after the credentials.
#[derive(Default)]
pub(crate) struct Terms {
    key: Given,
    if_match: Given,
}

/// A header that stands for one value.
#[derive(Default)]
enum Given {
    #[default]
    Absent,
    Once(String),
    /// More than once, or in no characters that can be read.
    Unclear,
}

/// What `If-Match` allows a change to find.
#[derive(Debug, PartialEq, Eq)]
enum Match {
    /// The header was not sent.
    Whatever,
    /// `*`: the customer, as it may be.
    Any,
    /// The customer with that etag.
    Etag(String),
}

impl Terms {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self {
            key: Given::once(headers.get_all(IDEMPOTENCY_KEY)),
            if_match: Given::once(headers.get_all(IF_MATCH)),
        }
    }

    /// The key; empty where there is none. Its form is for the service to judge, which takes an empty one for none.
    pub(crate) fn idempotency_key(&self) -> Result<String, Refusal> {
        match &self.key {
            Given::Absent => Ok(String::new()),
            Given::Once(key) if !key.is_empty() => Ok(key.clone()),
            Given::Once(_) | Given::Unclear => Err(invalid(KEY)),
        }
    }

    /// The etag that a customer must have; empty where it may have any.
    pub(crate) fn etag(&self) -> Result<String, Refusal> {
        match self.matches()? {
            Match::Whatever | Match::Any => Ok(String::new()),
            Match::Etag(etag) => Ok(etag),
        }
    }

    /// The same for a service that makes a customer where there is none: `*` would ask it not to, which cannot be said in
    /// the contract, and must not be passed over.
    pub(crate) fn etag_or_new(&self) -> Result<String, Refusal> {
        match self.matches()? {
            Match::Any => Err(invalid(ETAG)),
            Match::Whatever => Ok(String::new()),
            Match::Etag(etag) => Ok(etag),
        }
    }

    fn matches(&self) -> Result<Match, Refusal> {
        match &self.if_match {
            Given::Absent => Ok(Match::Whatever),
            Given::Once(text) => Match::read(text).ok_or_else(|| invalid(ETAG)),
            Given::Unclear => Err(invalid(ETAG)),
        }
    }
}

impl Given {
    fn once(values: GetAll<'_, http::HeaderValue>) -> Self {
        let mut values = values.iter();
        match (values.next().map(|value| value.to_str()), values.next()) {
            (None, _) => Self::Absent,
            (Some(Ok(text)), None) => Self::Once(text.trim().to_owned()),
            _ => Self::Unclear,
        }
    }
}

impl Match {
    /// Reads one entity tag of RFC 9110, or `*`.
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let strong = text.strip_prefix("W/").unwrap_or(text);
        let tag = strong.strip_prefix('"')?.strip_suffix('"')?;
        if !tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return None;
        }
        // A weak tag never matches, nor does one of nothing: as they stand here, with their quotes, no customer has them.
        let is_ours = strong == text && !tag.is_empty();
        Some(Self::Etag(if is_ours { tag } else { text }.to_owned()))
    }
}

fn invalid(field: &str) -> Refusal {
    Refusal::fields(Reason::InvalidField, [field])
}
