//! What surrounds a body: path, method, headers, size, encoding, time; and what is passed on with a call.

use std::{
    io::Write,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{Method, Request};
use http_body_util::Channel;
use proto::{Budget, Call, ClientAddress, Gate, v1::Status};
use tokio::time::Instant;
use uuid::Uuid;

use super::support::{Answer, Face, Reply, SAMPLE, john, post, update};
use crate::{
    Settings,
    endpoint::{PATH, PATH_WITH_SLASH},
};

const LIMIT: usize = 64 * 1024;
const TOO_LARGE: &str = "413 BODY_TOO_LARGE The request body is too large";
const MALFORMED: &str = "400 MALFORMED_BODY The request body is not valid JSON";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The sample with white space after it, `length` bytes in all.
fn padded(length: usize) -> String {
    SAMPLE.to_owned() + &" ".repeat(length - SAMPLE.len())
}

async fn post_encoded(face: &Face, encoding: &str, body: Vec<u8>) -> Reply {
    face.send(post().header("content-encoding", encoding).body(body.into()).unwrap())
        .await
}

#[test]
fn the_default_settings_are_those_of_the_design() {
    assert_eq!(
        Settings::default(),
        Settings {
            body_limit: LIMIT,
            document_body_limit: 28 * 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            handler_timeout: Duration::from_secs(5),
        }
    );
}

#[tokio::test]
async fn behind_a_shut_gate_a_request_is_refused_and_not_taken_apart() {
    let is_shut = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&is_shut);
    let gate = Gate::new(move |_| told.load(Relaxed));
    let face = Face::behind(gate, Budget::default(), Answer::Customer(john().into()));
    for body in [SAMPLE, "{"] {
        let refused = face.post(body).await;
        assert_eq!(refused.summary(), "503 UNAVAILABLE The service is unavailable");
        assert!(refused.header("retry-after").is_some() && refused.header("connection").is_none());
    }
    assert!(face.seen().is_empty());
    is_shut.store(false, Relaxed);
    assert_eq!(face.post(SAMPLE).await.status, 200);
    assert_eq!(face.seen().len(), 1);
}

#[tokio::test]
async fn a_gate_that_is_shut_to_changes_lets_reads_pass() {
    let gate = Gate::new(|call| call == Call::Change);
    let face = Face::behind(gate, Budget::default(), Answer::Customer(john().into()));
    // Named plainly it is refused before it is taken apart, and with an escape in the name behind that.
    for body in [
        SAMPLE.to_owned(),
        SAMPLE.replace("updateStatus", "createOrUpdateCustomer"),
        r#"{"service":"updateStatus""#.to_owned(),
        SAMPLE.replace("updateStatus", r"update\u0053tatus"),
    ] {
        let refused = face.post(body).await;
        assert_eq!(refused.summary(), "503 UNAVAILABLE The service is unavailable");
    }
    assert!(face.seen().is_empty());
    assert_eq!(face.post(SAMPLE.replace("updateStatus", "getStatus")).await.status, 200);
}

#[tokio::test]
async fn another_path_is_unknown_whatever_the_method() {
    for path in [
        "/",
        "/v3/stable/api",
        "/v3/stable/api/storage//",
        "/v3/stable/api/storage/x",
        "/V3/stable/api/storage",
        "/v3/stable/api/%73torage",
        "//v3/stable/api/storage",
    ] {
        for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
            let request = Request::builder().method(method).uri(path);
            let reply = Face::new().send(request.body(SAMPLE.into()).unwrap()).await;
            assert_eq!(reply.summary(), "404 UNKNOWN_PATH The resource was not found", "{path}");
        }
    }
}

#[tokio::test]
async fn another_method_is_not_allowed() {
    for path in [PATH, PATH_WITH_SLASH] {
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "post"] {
            let face = Face::new();
            let request = Request::builder().method(method).uri(path);
            let reply = face.send(request.body(SAMPLE.into()).unwrap()).await;
            assert_eq!(reply.summary(), "405 METHOD_NOT_ALLOWED The method is not allowed");
            assert_eq!(reply.header("allow"), Some("POST"));
            assert!(face.messages().is_empty());
        }
        let head = Request::head(path).body(Body::empty()).unwrap();
        let reply = Face::new().send(head).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("POST")));
    }
}

#[tokio::test]
async fn a_query_does_not_change_the_path() {
    let request = post().uri(format!("{PATH}?debug=1")).body(SAMPLE.into()).unwrap();
    assert_eq!(Face::new().send(request).await.summary(), "200");
}

#[tokio::test]
async fn every_reply_is_json_that_is_not_stored_and_has_a_name() {
    let face = Face::new();
    for request in [
        post().body(SAMPLE.into()),
        post().body("{".into()),
        Request::get(PATH).body(Body::empty()),
        Request::get("/").body(Body::empty()),
    ] {
        let reply = face.send(request.unwrap()).await;
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let name = reply.header("x-request-id").unwrap();
        assert_eq!(Uuid::parse_str(name).unwrap().get_version_num(), 7);
        assert_eq!(reply.header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn a_sound_request_id_is_kept_and_any_other_is_replaced() {
    let longest = "x".repeat(64);
    for id in ["a", "Order-7_b.2", &longest] {
        let face = Face::new();
        let reply = face
            .send(post().header("x-request-id", id).body(SAMPLE.into()).unwrap())
            .await;
        assert_eq!(reply.header("x-request-id"), Some(id));
        assert_eq!(face.seen()[0].headers["x-request-id"], id);
    }
    let too_long = "x".repeat(65);
    for id in ["", "a b", "a/b", "a\"b", "ä", &too_long] {
        let face = Face::new();
        let reply = face
            .send(
                post()
                    .header("x-request-id", id.as_bytes())
                    .body(SAMPLE.into())
                    .unwrap(),
            )
            .await;
        let made = reply.header("x-request-id").unwrap();
        assert_ne!(made, id);
        assert!(Uuid::parse_str(made).is_ok());
        assert_eq!(face.seen()[0].headers["x-request-id"], made);
    }
}

#[tokio::test]
async fn a_call_carries_credentials_name_face_address_and_deadline() {
    let address = ClientAddress(IpAddr::from([203, 0, 113, 7]));
    let face = Face::new();
    let request = post()
        .extension(address)
        // None of these are the client's to set.
        .header("authorization", "Basic Zm9yZ2Vk")
        .header("x-dcams-face", "grpc")
        .header("x-forwarded-for", "127.0.0.1")
        .header("grpc-timeout", "1H")
        .body(SAMPLE.into())
        .unwrap();
    assert_eq!(face.send(request).await.summary(), "200");

    let seen = &face.seen()[0];
    assert_eq!(seen.headers["authorization"], "Basic VVNFUk5BTUU6UEFTU1dPUkQ=");
    assert!(seen.headers["authorization"].is_sensitive());
    assert_eq!(seen.headers["x-dcams-face"], "rest");
    assert_eq!(seen.headers["x-forwarded-for"], "203.0.113.7");
    assert_eq!(seen.headers["grpc-timeout"], "5000000u");
    assert_eq!(seen.address, Some(address));
}

#[tokio::test]
async fn an_unknown_address_is_not_made_up() {
    let face = Face::new();
    let request = post().header("x-forwarded-for", "127.0.0.1");
    face.send(request.body(SAMPLE.into()).unwrap()).await;
    let seen = &face.seen()[0];
    assert!(!seen.headers.contains_key("x-forwarded-for"));
    assert_eq!(seen.address, None);
}

#[tokio::test]
async fn a_body_may_fill_the_limit_and_no_more() {
    assert_eq!(Face::new().post(padded(LIMIT)).await.summary(), "200");

    let reply = Face::new().post(padded(LIMIT + 1)).await;
    assert_eq!(reply.summary(), TOO_LARGE);
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_no_further_than_the_limit() {
    let (mut sender, channel) = Channel::<Bytes>::new(29);
    for _ in 0..29 {
        sender.send_data(vec![b' '; 1024 * 1024].into()).await.unwrap();
    }
    // The sender lives on: were the body read on, there would be no reply.
    let reply = Face::new().post(Body::new(channel)).await;
    assert_eq!(reply.summary(), TOO_LARGE);
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_may_come_in_pieces() {
    let face = Face::new();
    let (mut sender, channel) = Channel::<Bytes>::new(2);
    let (first, second) = SAMPLE.split_at(50);
    sender.send_data(first.into()).await.unwrap();
    sender.send_data(second.into()).await.unwrap();
    drop(sender);
    assert_eq!(face.post(Body::new(channel)).await.summary(), "200");
    assert_eq!(face.messages(), [update(Status::Pass)]);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let (mut sender, channel) = Channel::<Bytes, std::io::Error>::new(2);
    sender.send_data(SAMPLE.into()).await.unwrap();
    sender.abort(std::io::ErrorKind::ConnectionReset.into());
    assert_eq!(Face::new().post(Body::new(channel)).await.summary(), MALFORMED);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_in_time_is_not_waited_for() {
    let (mut sender, channel) = Channel::<Bytes>::new(2);
    sender
        .send_data(Bytes::from_static(&SAMPLE.as_bytes()[..50]))
        .await
        .unwrap();
    let begin = Instant::now();
    let reply = Face::new().post(Body::new(channel)).await;
    assert_eq!(reply.summary(), "408 TIMEOUT The request timed out");
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(begin.elapsed().as_secs(), 10);
    drop(sender);
}

#[tokio::test]
async fn identity_and_gzip_are_understood_in_any_letter_case() {
    for encoding in ["gzip", "GZip"] {
        let face = Face::new();
        let reply = post_encoded(&face, encoding, gzip(SAMPLE.as_bytes())).await;
        assert_eq!(reply.summary(), "200");
        assert_eq!(face.messages(), [update(Status::Pass)]);
    }
    for encoding in ["identity", "Identity", ""] {
        let reply = post_encoded(&Face::new(), encoding, SAMPLE.into()).await;
        assert_eq!(reply.summary(), "200");
    }
}

#[tokio::test]
async fn another_encoding_is_not_supported() {
    const UNSUPPORTED: &str = "415 UNSUPPORTED_ENCODING The content encoding is not supported";
    for encoding in ["br", "deflate", "zstd", "gzip, gzip", "gzip;q=1", "utf-8"] {
        let reply = post_encoded(&Face::new(), encoding, SAMPLE.into()).await;
        assert_eq!(reply.summary(), UNSUPPORTED, "{encoding}");
    }
    let twice = post()
        .header("content-encoding", "gzip")
        .header("content-encoding", "gzip");
    let reply = Face::new().send(twice.body(SAMPLE.into()).unwrap()).await;
    assert_eq!(reply.summary(), UNSUPPORTED);
}

#[tokio::test]
async fn the_limit_holds_for_what_is_inflated() {
    let face = Face::new();
    let reply = post_encoded(&face, "gzip", gzip(padded(LIMIT).as_bytes())).await;
    assert_eq!(reply.summary(), "200");
    for length in [LIMIT + 1, 100 * LIMIT] {
        let reply = post_encoded(&face, "gzip", gzip(padded(length).as_bytes())).await;
        assert_eq!(reply.summary(), TOO_LARGE);
    }
}

#[tokio::test]
async fn gzip_in_several_members_is_one_body() {
    let (first, second) = SAMPLE.split_at(50);
    let members = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    assert_eq!(post_encoded(&Face::new(), "gzip", members).await.summary(), "200");
}

#[tokio::test]
async fn broken_gzip_is_malformed() {
    let whole = gzip(SAMPLE.as_bytes());
    let cut_off = whole[..whole.len() - 5].to_vec();
    let mut wrong_checksum = whole.clone();
    wrong_checksum[whole.len() - 6] ^= 1;
    let trailing_garbage = [&whole[..], b"garbage"].concat();
    for body in [cut_off, wrong_checksum, trailing_garbage, SAMPLE.into(), Vec::new()] {
        assert_eq!(post_encoded(&Face::new(), "gzip", body).await.summary(), MALFORMED);
    }
}
