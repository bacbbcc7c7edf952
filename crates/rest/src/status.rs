//! The words for a verification status, in both directions.

use proto::v1::Status;

use crate::{
    json::Field,
    tolerances::{Needed, Tolerance},
};

/// The word for `status`; none for what is no status.
pub(crate) fn word(status: Status) -> Option<&'static str> {
    match status {
        Status::Unspecified => None,
        Status::Pass => Some("PASS"),
        Status::Pending => Some("PENDING"),
        Status::Fail => Some("FAIL"),
    }
}

/// The number of no status: the service refuses it when its turn comes, after a bad email.
const INVALID: i32 = -1;

/// The number of the status that `field` names, in any letter case.
pub(crate) fn number(field: &Field<'_>, needed: &Needed) -> i32 {
    let given = field.trimmed().unwrap_or_default();
    for status in [Status::Pass, Status::Pending, Status::Fail] {
        let Some(word) = word(status).filter(|word| given.eq_ignore_ascii_case(word)) else {
            continue;
        };
        if given != word {
            needed.note(Tolerance::StatusCase);
        }
        return status.into();
    }
    INVALID
}
