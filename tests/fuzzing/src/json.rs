//! Bodies: what is accepted is JSON by the rules of the contract, what is refused is none, and what is made of it for the
//! service holds the values of the body.

use std::{
    future::ready,
    sync::{LazyLock, Mutex},
};

use axum::{Router, body::Body};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use prost::Message;
use proto::{
    Reason,
    v1::{CreateOrUpdateCustomerRequest, GetDocumentImagesRequest, GetStatusRequest, Status, UpdateStatusRequest},
};
use tokio::runtime::Runtime;
use tower::{ServiceExt, service_fn};

use crate::tree::{Tree, Verdict};

/// A call that reached the service: its operation, its credentials and its message.
struct Seen {
    operation: String,
    headers: HeaderMap,
    message: Vec<u8>,
}

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

/// The facade in front of what only writes down.
static FACADE: LazyLock<(Runtime, Router)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let transport = service_fn(|request: Request<tonic::body::Body>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // Behind the head of a gRPC message.
        let message = body[5..].to_vec();
        let nobody = message.is_empty();
        SEEN.lock().unwrap().push(Seen {
            operation: head.uri.path().rsplit('/').next().unwrap_or_default().to_owned(),
            headers: head.headers,
            message,
        });
        let reason = if nobody {
            Reason::MissingInput
        } else {
            Reason::CustomerNotFound
        };
        ready(Ok::<_, tonic::Status>(tonic::Status::from(reason).into_http())).await
    });
    let router = rest::router(
        proto::client(transport),
        proto::Gate::default(),
        rest::Settings::default(),
        proto::Budget::default(),
        proto::Telemetry::default(),
    );
    (runtime, router)
});

pub(crate) fn check(body: &[u8]) {
    // A larger one is refused for its size, unless it may hold images.
    if body.len() > rest::Settings::default().body_limit {
        return;
    }
    let (runtime, router) = &*FACADE;
    SEEN.lock().unwrap().clear();
    let request = Request::post(rest::PATHS[0]).body(Body::from(body.to_vec())).unwrap();
    let response: Response<Body> = runtime.block_on(async { router.clone().oneshot(request).await.unwrap() });
    let reason = response
        .headers()
        .get("x-error-reason")
        .map(|reason| reason.to_str().unwrap().to_owned());
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    let reason = reason.expect("nobody is found, so that every answer has a reason");
    let is_malformed = reason == Reason::MalformedBody.name();
    let tree = match Verdict::of(body) {
        Verdict::Either => return,
        Verdict::Bad => return assert!(is_malformed && seen.is_empty(), "it is accepted, and then {reason}"),
        Verdict::Good(tree) => tree,
    };
    assert!(!is_malformed, "it is refused");
    assert!(seen.len() <= 1, "one request is one call");
    if let Some(seen) = seen.first() {
        compare(&tree, seen, &reason);
    }
}

/// The text under a key of the target, or where it says nothing beside it.
fn nested_or_flat<'t>(tree: &'t Tree, key: &str) -> Option<&'t Tree> {
    let is_blank = |value: &&Tree| value.text().is_none_or(|text| !text.trim().is_empty());
    let nested = tree.get("target").and_then(|target| target.get(key)).filter(is_blank);
    nested.or_else(|| tree.get(key).filter(is_blank))
}

fn compare(tree: &Tree, seen: &Seen, reason: &str) {
    let text = |key: &str| tree.get(key).and_then(Tree::text).unwrap_or_default();
    let header = seen.headers["authorization"].to_str().unwrap();
    let login = BASE64_STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
    let expected = format!("{}:{}", text("user").trim(), text("pass"));
    assert_eq!(String::from_utf8(login).unwrap(), expected, "who asks");

    let email = nested_or_flat(tree, "email")
        .and_then(Tree::text)
        .unwrap_or_default()
        .trim();
    if seen.message.is_empty() {
        // The service was asked whether the credentials hold, since something is wrong with the rest.
        return assert_ne!(reason, Reason::CustomerNotFound.name());
    }
    let service = text("service").trim();
    let mut name = service.to_owned();
    name[..1].make_ascii_uppercase();
    assert_eq!(seen.operation, name);
    let got = match service {
        "updateStatus" => {
            let message = UpdateStatusRequest::decode(&seen.message[..]).unwrap();
            let status = nested_or_flat(tree, "status")
                .and_then(Tree::text)
                .unwrap_or_default()
                .trim();
            let known = Status::from_str_name(&format!("STATUS_{}", status.to_ascii_uppercase()));
            let known = known.filter(|status| *status != Status::Unspecified);
            assert_eq!(
                Status::try_from(message.status)
                    .ok()
                    .filter(|status| *status != Status::Unspecified),
                known
            );
            message.email
        }
        "getStatus" => GetStatusRequest::decode(&seen.message[..]).unwrap().email,
        "getDocumentImages" => GetDocumentImagesRequest::decode(&seen.message[..]).unwrap().email,
        "createOrUpdateCustomer" => {
            let message = CreateOrUpdateCustomerRequest::decode(&seen.message[..]).unwrap();
            let target = tree.get("target");
            for (key, got) in [
                ("fn", &message.first_name),
                ("ln", &message.last_name),
                ("addr", &message.address),
                ("city", &message.city),
                ("state", &message.state),
                ("zip", &message.zip),
                ("dob", &message.date_of_birth),
                ("phone", &message.phone),
            ] {
                compare_text(key, target.and_then(|target| target.get(key)), got);
            }
            compare_text("reference", tree.get("reference"), &message.reference);
            message.email
        }
        other => panic!("there is no service {other:?}"),
    };
    assert_eq!(got, email, "whom it is about");
}

fn compare_text(key: &str, value: Option<&Tree>, got: &str) {
    match value {
        None => assert_eq!(got, "", "{key} was not there"),
        Some(Tree::Text(text)) => assert_eq!(got, text.trim(), "{key}"),
        // A number, kept as it was written.
        Some(Tree::Scalar) => assert!(got.parse::<f64>().is_ok(), "{key} is {got:?}"),
        Some(other) => panic!("{key} was taken of {other:?}"),
    }
}
