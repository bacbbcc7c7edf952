//! Counts what is only taken for the sake of old clients, so that a tolerance nobody uses any more can be seen.

use metrics::{Counter, counter, describe_counter};

/// The name of the metric; its label `kind` names the tolerance.
const METRIC: &str = "dcams_tolerated_total";

/// A counter for each tolerance. A handle costs an atomic addition; the macro would look the name up each time.
pub(crate) struct Tolerances {
    /// A status came with `getStatus`.
    pub(crate) status_on_get: Counter,
    /// The email stood beside `target`.
    pub(crate) flat_email: Counter,
    /// The status stood beside `target`.
    pub(crate) flat_status: Counter,
    /// The body was not declared as `application/json`.
    pub(crate) content_type: Counter,
    /// The body began with a byte order mark.
    pub(crate) bom: Counter,
    /// The status was not in upper case.
    pub(crate) status_case: Counter,
    /// The path ended in a slash.
    pub(crate) trailing_slash: Counter,
    /// `target` was PHP's empty array.
    pub(crate) empty_target_array: Counter,
    /// `documents` was PHP's empty array.
    pub(crate) empty_documents_array: Counter,
    /// A number stood for a text.
    pub(crate) number_as_text: Counter,
    /// There was white space in the Base64 of an image.
    pub(crate) image_white_space: Counter,
    /// The Base64 of an image had no padding.
    pub(crate) image_padding: Counter,
}

impl Tolerances {
    /// Registers the counters with the recorder that is installed.
    pub(crate) fn register() -> Self {
        describe_counter!(
            METRIC,
            "Requests that were served although they strayed from the contract, by kind"
        );
        Self::of(|kind| counter!(METRIC, "kind" => kind))
    }

    /// The counters, each made by `counter` from its kind.
    pub(crate) fn of(counter: impl Fn(&'static str) -> Counter) -> Self {
        Self {
            status_on_get: counter("status_on_get"),
            flat_email: counter("flat_email"),
            flat_status: counter("flat_status"),
            content_type: counter("content_type"),
            bom: counter("bom"),
            status_case: counter("status_case"),
            trailing_slash: counter("trailing_slash"),
            empty_target_array: counter("empty_target_array"),
            empty_documents_array: counter("empty_documents_array"),
            number_as_text: counter("number_as_text"),
            image_white_space: counter("image_white_space"),
            image_padding: counter("image_padding"),
        }
    }
}
