//! The words for a verification status, in both directions.

use proto::{Reason, Refusal, v1::Status};

use crate::{json::Field, tolerances::Tolerances};

/// The word for `status`; none for what is no status.
pub(crate) fn word(status: Status) -> Option<&'static str> {
    match status {
        Status::Unspecified => None,
        Status::Pass => Some("PASS"),
        Status::Pending => Some("PENDING"),
        Status::Fail => Some("FAIL"),
    }
}

/// The status that `field` names, in any letter case.
pub(crate) fn parse(field: &Field<'_>, tolerances: &Tolerances) -> Result<Status, Refusal> {
    let given = field.trimmed().ok_or(Reason::InvalidStatus)?;
    for status in [Status::Pass, Status::Pending, Status::Fail] {
        let Some(word) = word(status).filter(|word| given.eq_ignore_ascii_case(word)) else {
            continue;
        };
        if given != word {
            tolerances.status_case.increment(1);
        }
        return Ok(status);
    }
    Err(Reason::InvalidStatus.into())
}
