//! Whole requests, through the facade and the service to a store: whatever is asked, the answer is one of the contract's.
//!
//! An input is the head of a request, an empty line, and its body.

use std::io::Write;

use axum::body::Body;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use proto::Reason;
use serde_json::{Map, Value};

use crate::server::SERVER;

/// The keys of a reply's target.
const NINE: [&str; 9] = ["fn", "ln", "addr", "city", "state", "zip", "dob", "email", "phone"];

pub(crate) fn check(data: &[u8]) {
    let Some(request) = request(data) else { return };
    SERVER.runtime.block_on(async {
        let response = SERVER.send(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a reply is whole").to_bytes();
        judge(&Response::from_parts(head, ()), &body);
    });
}

/// The request that an input stands for; none where it can be none.
fn request(data: &[u8]) -> Option<Request<Body>> {
    let end = data.windows(2).position(|two| two == b"\n\n")?;
    let (head, body) = (str::from_utf8(&data[..end]).ok()?, &data[end + 2..]);
    let mut lines = head.lines();
    let (method, uri) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).ok()?)
        .uri(uri);
    let mut zipped = false;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        zipped |= name == "x-gzip";
        request = request.header(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value).ok()?);
    }
    let mut body = body.to_vec();
    if zipped {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).unwrap();
        body = encoder.finish().unwrap();
        request = request.header("content-encoding", "gzip");
    }
    request.body(Body::from(body)).ok()
}

fn judge(response: &Response<()>, body: &[u8]) {
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(headers.contains_key("x-request-id"));
    let body: Value = serde_json::from_slice(body).expect("a reply is JSON");
    let body = body.as_object().expect("a reply is an object");
    if response.status() == StatusCode::OK {
        assert!(!headers.contains_key("x-error-reason"));
        return judge_success(body);
    }
    let name = headers["x-error-reason"].to_str().unwrap();
    let reason = Reason::ALL
        .into_iter()
        .find(|reason| reason.name() == name)
        .expect("a reason of the table");
    assert_ne!(reason, Reason::Internal, "{body:?}");
    assert_eq!(response.status(), reason.http_status());
    assert_eq!(headers.contains_key("allow"), reason == Reason::MethodNotAllowed);
    assert_eq!(body.keys().collect::<Vec<_>>(), ["result", "message"]);
    assert_eq!(body["result"], "Error");
    let message = body["message"].as_str().unwrap();
    match reason {
        Reason::InvalidField => {
            let field = message
                .strip_prefix("The ")
                .and_then(|rest| rest.strip_suffix(" is invalid"));
            let field = field.expect(message);
            assert!(
                field.chars().all(|c| c.is_ascii_alphabetic() || "_.-".contains(c)) && field.len() < 20,
                "{message}"
            );
        }
        reason => assert_eq!(message, reason.message()),
    }
}

fn judge_success(body: &Map<String, Value>) {
    assert_eq!(body["result"], "Success");
    let keys: Vec<_> = body.keys().map(String::as_str).collect();
    let target: Vec<_> = body["target"].as_object().unwrap().keys().map(String::as_str).collect();
    match keys[..] {
        ["result", "reference", "target"] => assert_eq!(target, [&NINE[..], &["status"]].concat()),
        ["result", "reference", "customer_link", "status", "type", "target"] => {
            assert!(["createCustomer", "updateCustomer"].contains(&body["type"].as_str().unwrap()));
            assert_eq!(target, NINE);
        }
        ["result", "reference", "status", "target"] => match target[..] {
            [.., "documents"] => assert_eq!(target, [&NINE[..], &["documents"]].concat()),
            _ => assert_eq!(target, NINE),
        },
        _ => panic!("no reply has {keys:?}"),
    }
    let status = body.get("status").unwrap_or(&body["target"]["status"]);
    assert!(["PASS", "PENDING", "FAIL"].contains(&status.as_str().unwrap()));
}
