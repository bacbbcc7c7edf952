//! The errors of the endpoint, by their HTTP status: all that the one table of errors has for this face.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use http::StatusCode;
use proto::{Reason, Refusal};
use serde_json::json;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, Ref, Response, ResponseBuilder, Type, example::ExampleBuilder, schema::ObjectBuilder,
};

use super::{JSON, schemas::one_of_words, with_common_headers, words};
use crate::{Settings, json::MAX_LEVELS};

/// When a request gets this error; none for what does not occur on this face.
fn when(reason: Reason, settings: &Settings) -> Option<Cow<'static, str>> {
    let text = match reason {
        Reason::MissingInput => {
            "`user`, `pass`, `service`, `target.email`, or for `updateStatus` `target.status`, is absent, `null` or empty"
        }
        Reason::InvalidEmail => "the email is there, but is no address",
        Reason::InvalidStatus => "the status is none of the three",
        Reason::InvalidField => {
            "the field has the wrong type, is too long, has a control character, is no date, or is no image in Base64; or the \
             header of that name cannot be read"
        }
        Reason::MalformedBody => {
            return Some(
                format!(
                    "the body is not JSON, no object, not UTF-8, nested deeper than {MAX_LEVELS}, or has a key twice"
                )
                .into(),
            );
        }
        Reason::UnknownService => "there is no such service",
        Reason::KeyReused => "the `Idempotency-Key` came with other content before",
        Reason::BadCredentials => {
            "the user is unknown, the password is wrong, or the account is disabled; which of them is not said"
        }
        Reason::CustomerNotFound => "the account has no customer with that address",
        Reason::UnknownPath => "the path is another one",
        Reason::MethodNotAllowed => "the method is not `POST`",
        Reason::Conflict => "the customer does not have the etag that `If-Match` demands; nothing was changed",
        Reason::BodyTimeout => {
            let time = words::time(settings.body_timeout);
            return Some(format!("the body did not arrive within {time}; the connection is closed").into());
        }
        Reason::DeadlineExceeded => {
            let time = words::time(settings.handler_timeout);
            return Some(format!("there was no answer within {time}; a change may have been made nevertheless").into());
        }
        Reason::BodyTooLarge => "the body is over the limit, as it was sent or inflated; the connection is closed",
        Reason::UnsupportedEncoding => "`Content-Encoding` is neither `gzip` nor `identity`",
        Reason::Throttled => "there were too many requests, or too many failed logins",
        Reason::Overloaded => "there is more to do than can be done",
        Reason::Unavailable => "the store is down, or the gateway is stopping",
        Reason::Internal => "a defect; more is in the log, under the `X-Request-Id`",
        // There are no streams here, and no tokens: a body has a user and a password.
        Reason::TooSlow | Reason::PermissionDenied => return None,
    };
    Some(text.into())
}

/// The HTTP statuses that errors have.
pub(super) fn statuses() -> BTreeSet<StatusCode> {
    // Which errors there are depends on no setting.
    let settings = Settings::default();
    let reasons = Reason::ALL
        .into_iter()
        .filter(|reason| when(*reason, &settings).is_some());
    reasons.map(Reason::http_status).collect()
}

/// The response with that status: each error that has it, as an example under the name of its reason.
pub(super) fn response(status: StatusCode, settings: &Settings) -> Response {
    let reasons = Reason::ALL
        .into_iter()
        .filter(|reason| reason.http_status() == status)
        .filter_map(|reason| Some((reason, when(reason, settings)?)));
    let mut description = String::new();
    let mut names = Vec::new();
    let mut examples = BTreeMap::new();
    let mut retry_after = None;
    for (reason, when) in reasons {
        let refusal = sample(reason);
        let name = reason.name();
        description.push_str(&format!("- `{name}`: {when}\n"));
        let mut headers = format!("With `X-Error-Reason: {name}`");
        if let Some(wait) = refusal.retry_after {
            headers.push_str(&format!(" and `Retry-After: {}`", wait.as_secs()));
            retry_after = retry_after.or(Some(wait.as_secs()));
        }
        let example = ExampleBuilder::new()
            .summary(refusal.message())
            .description(headers)
            .value(Some(json!({ "result": "Error", "message": refusal.message() })));
        // Two reasons may have one name: only their gRPC codes differ.
        if examples.insert(name, example).is_none() {
            names.push(name);
        }
    }

    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Error")))
        .examples_from_iter(examples);
    let reason = HeaderBuilder::new()
        .description(Some("The reason, for programs"))
        .schema(Some(one_of_words(names)));
    let mut response = with_common_headers(ResponseBuilder::new().description(description.trim_end()))
        .header("X-Error-Reason", reason.build())
        .content(JSON, content);
    if let Some(seconds) = retry_after {
        let seconds_to_wait = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let header = HeaderBuilder::new()
            .description(Some("How many seconds to wait before the next try"))
            .schema(Some(seconds_to_wait))
            .example(Some(json!(seconds)));
        response = response.header("Retry-After", header.build());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let header = HeaderBuilder::new().schema(Some(one_of_words(["POST"])));
        response = response.header("Allow", header.build());
    }
    response.build()
}

/// A refusal for that reason; where the message names a field, a field that can be at fault.
fn sample(reason: Reason) -> Refusal {
    match reason {
        Reason::InvalidField => Refusal::fields(reason, ["dob"]),
        _ => reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;
    use crate::rejection::Rejection;

    #[tokio::test]
    async fn every_error_is_documented_as_it_is_sent() {
        let settings = Settings::default();
        for reason in Reason::ALL {
            if when(reason, &settings).is_none() {
                continue;
            }
            let documented = serde_json::to_value(response(reason.http_status(), &settings)).unwrap();
            let sent = Rejection::from(sample(reason)).into_response();
            let (head, body) = sent.into_parts();
            assert_eq!(head.status, reason.http_status());
            let body = body.collect().await.unwrap().to_bytes();
            let example = &documented["content"][JSON]["examples"][reason.name()];
            assert_eq!(example["value"].to_string().as_bytes(), body, "{reason:?}");

            for (name, value) in &head.headers {
                // Connection is the connection's own matter.
                if name == "connection" {
                    continue;
                }
                let headers = documented["headers"].as_object().unwrap();
                let header = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_str()));
                let (_, header) = header.unwrap_or_else(|| panic!("{reason:?} has {name}"));
                let value = value.to_str().unwrap();
                let allowed = match &header["schema"]["enum"] {
                    Value::Array(words) => words.iter().any(|word| word == value),
                    _ => header["example"].as_u64() == value.parse().ok(),
                };
                assert!(allowed, "{reason:?}: {name}: {value}");
            }
        }
    }
}
