//! A refused request, and its two-way translation to the status that travels between the faces.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::Reason;

/// What the cursor is called in the metadata of `ErrorInfo`.
const CURSOR: &str = "cursor";

/// A refused request: why, which fields are at fault, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The fields at fault, by their names in the contract; empty where no field is.
    pub fields: Vec<String>,
    /// How long to wait before the next try; present wherever the reason is retryable.
    pub retry_after: Option<Duration>,
    /// Where a stream that has ended can be resumed from.
    pub cursor: Option<String>,
}

impl Refusal {
    /// How long to wait where nothing better is known.
    const DEFAULT_RETRY: Duration = Duration::from_secs(1);

    /// A refusal that is the fault of `fields`.
    pub fn fields<'a>(reason: Reason, fields: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            fields: fields.into_iter().map(str::to_owned).collect(),
            ..reason.into()
        }
    }

    /// A refusal that says when to come back.
    pub fn retry_after(reason: Reason, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..reason.into()
        }
    }

    /// The refusal of a consumer that was too slow, with the cursor behind what it has been given.
    pub fn too_slow(cursor: String) -> Self {
        Self {
            cursor: Some(cursor),
            ..Reason::TooSlow.into()
        }
    }

    /// The message for people, with the first field at fault in its place.
    pub fn message(&self) -> String {
        match self.fields.first() {
            Some(field) => self.reason.message().replace("FIELD", field),
            None => self.reason.message().to_owned(),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            fields: Vec::new(),
            retry_after: reason.retryable().then_some(Self::DEFAULT_RETRY),
            cursor: None,
        }
    }
}

impl From<Reason> for Status {
    fn from(reason: Reason) -> Self {
        Refusal::from(reason).into()
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.message();
        refusal.into_status(message)
    }
}

impl Refusal {
    /// The status of this refusal with another message for people, where the table's would be odd over gRPC.
    pub fn into_status(self, message: String) -> Status {
        let Self {
            reason,
            fields,
            retry_after,
            cursor,
        } = self;
        let metadata = cursor.map(|cursor| (CURSOR.to_owned(), cursor));
        let metadata: HashMap<String, String> = metadata.into_iter().collect();
        let mut details = ErrorDetails::with_error_info(reason.name(), Reason::DOMAIN, metadata);
        for field in fields {
            details.add_bad_request_violation(field, message.clone());
        }
        if reason == Reason::CustomerNotFound {
            // Without the name: an email address never stands in an error.
            details.set_resource_info("dcams.storage.v1.Customer", "", "", message.clone());
        }
        if let Some(wait) = retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(reason.code(), message, details)
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == Reason::DOMAIN);
        let reason = Reason::from_wire(status.code(), ours.map(|info| info.reason.as_str()));
        let fields = details.bad_request().map(|bad| {
            bad.field_violations
                .iter()
                .map(|violation| violation.field.clone())
                .collect()
        });
        Self {
            fields: fields.unwrap_or_default(),
            retry_after: details
                .retry_info()
                .and_then(|info| info.retry_delay)
                .or(Self::from(reason).retry_after),
            cursor: ours.and_then(|info| info.metadata.get(CURSOR).cloned()),
            reason,
        }
    }
}
