//! Large bodies: whose they may be, what they take of the budget, and for how long.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{Channel, channel::Sender};
use proto::Budget;

use super::support::{Answer, Face, Message, SAMPLE, john, left, logged, post};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const BUSY: &str = "503 UNAVAILABLE The service is unavailable";
const TOO_LARGE: &str = "413 BODY_TOO_LARGE The request body is too large";

/// A body with an image, `length` bytes in all.
fn large(length: usize) -> String {
    let with = |image: &str| {
        format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"a@b.c","documents":{{"front":"{image}"}}}}}}"#
        )
    };
    let digits = (length - with("").len()) / 4 * 4;
    let body = with(&"////".repeat(digits / 4));
    let spaces = " ".repeat(length - body.len());
    body + &spaces
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn within(budget: &Budget) -> Face {
    Face::within(budget.clone(), Answer::Customer(john().into()))
}

async fn post_gzip(face: &Face, body: &[u8]) -> super::support::Reply {
    let request = post().header("content-encoding", "gzip");
    face.send(request.body(gzip(body).into()).unwrap()).await
}

#[tokio::test]
async fn two_images_of_ten_mebibytes_arrive_with_line_breaks_and_escapes() {
    let image: Vec<u8> = (0..10 * MIB).map(|at| (at % 251) as u8).collect();
    let text = STANDARD.encode(&image);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let front = lines.join(r"\r\n").replace('/', r"\/");
    let body = format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"a@b.c","documents":{{"front":"{front}","back":"{text}"}}}}}}"#
    );
    let face = Face::new();
    assert_eq!(face.post(body).await.summary(), "200");
    let [Message::CreateOrUpdateCustomer(put)] = &*face.messages() else {
        panic!("no such call");
    };
    assert!(put.front == image && put.back == image);
}

#[tokio::test]
async fn a_body_that_is_not_large_takes_nothing() {
    let budget = Budget::new(0);
    for length in [KIB, 64 * KIB] {
        let face = within(&budget);
        assert_eq!(face.post(large(length)).await.summary(), "200");
        assert_eq!(post_gzip(&face, large(length).as_bytes()).await.summary(), "200");
        assert!(face.seen().iter().all(|seen| !seen.is_held));
    }
}

#[tokio::test]
async fn a_large_body_holds_its_size_until_its_reply_is_made() {
    let budget = Budget::new(16 * 64 * KIB);
    let face = within(&budget);
    assert_eq!(face.post(large(64 * KIB + 1)).await.summary(), "200");
    assert_eq!(face.post(large(10 * 64 * KIB)).await.summary(), "200");
    assert_eq!(face.post(large(16 * 64 * KIB)).await.summary(), "200");
    let seen = face.seen();
    assert!(seen.iter().all(|seen| seen.is_held));
    assert_eq!(seen.iter().map(|seen| seen.left).collect::<Vec<_>>(), [14, 6, 0]);
    assert_eq!(left(&budget), 16);
}

#[tokio::test]
async fn a_refusal_gives_back_what_it_has_taken() {
    let budget = Budget::new(16 * 64 * KIB);
    let face = within(&budget);
    for (from, to) in [
        ("PASSWORD", "GUESS"),
        ("a@b.c", " "),
        ("////", "?"),
        ("user", "_"),
        ("}}}", "}}"),
        ("createOr", "createAnd"),
    ] {
        let reply = face.post(large(10 * 64 * KIB).replacen(from, to, 1)).await;
        assert!(reply.status.is_client_error(), "{from}: {}", reply.summary());
        assert_eq!(left(&budget), 16, "{from}");
    }
}

#[tokio::test]
async fn a_large_body_is_refused_while_the_budget_is_spent() {
    let budget = Budget::new(16 * 64 * KIB);
    let face = within(&budget);
    let hold = budget.take(7 * 64 * KIB).unwrap();
    let chunked = async |face: &Face| {
        let (mut sender, channel) = Channel::<Bytes>::new(100);
        for chunk in large(10 * 64 * KIB).as_bytes().chunks(10 * KIB) {
            sender.send_data(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        drop(sender);
        face.post(Body::new(channel)).await
    };
    for reply in [
        face.post(large(10 * 64 * KIB)).await,
        chunked(&face).await,
        post_gzip(&face, large(10 * 64 * KIB).as_bytes()).await,
    ] {
        assert_eq!(reply.summary(), BUSY);
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(left(&budget), 9);
    }
    assert!(face.seen().is_empty());

    drop(hold);
    assert_eq!(face.post(large(10 * 64 * KIB)).await.summary(), "200");
    assert_eq!(chunked(&face).await.summary(), "200");
    assert_eq!(post_gzip(&face, large(10 * 64 * KIB).as_bytes()).await.summary(), "200");
    assert!(face.seen().iter().all(|seen| seen.is_held && seen.left == 6));
}

/// A body that is on its way: how far it was read can be seen at the sender.
fn on_its_way() -> (Sender<Bytes>, Body) {
    let (sender, channel) = Channel::<Bytes>::new(1);
    (sender, Body::new(channel))
}

#[tokio::test]
async fn a_body_of_unknown_length_takes_what_has_arrived() {
    let budget = Budget::new(16 * 64 * KIB);
    let face = Arc::new(within(&budget));
    let (mut sender, body) = on_its_way();
    let answer = tokio::spawn({
        let face = Arc::clone(&face);
        async move { face.post(body).await.summary() }
    });
    let text = Bytes::from(large(4 * 64 * KIB));
    for (from, to, taken) in [(0, 64, 0), (64, 65, 2), (65, 128, 2), (128, 129, 3), (129, 256, 4)] {
        sender.send_data(text.slice(from * KIB..to * KIB)).await.unwrap();
        // Until the face has read it.
        while left(&budget) != 16 - taken {
            tokio::task::yield_now().await;
        }
    }
    drop(sender);
    assert_eq!(answer.await.unwrap(), "200");
    assert_eq!(left(&budget), 16);
}

#[tokio::test]
async fn the_rest_of_a_refused_body_is_read_and_thrown_away() {
    let face = within(&Budget::new(0));
    let (mut sender, body) = on_its_way();
    sender.send_data(vec![b' '; 65 * KIB].into()).await.unwrap();
    assert_eq!(face.post(body).await.summary(), BUSY);
    // The reply is there, and still the sender does not wait.
    for _ in 0..100 {
        sender.send_data(vec![b' '; 65 * KIB].into()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_refused_body_is_not_waited_for_longer_than_for_a_body() {
    let face = within(&Budget::new(0));
    let (mut sender, body) = on_its_way();
    sender.send_data(vec![b' '; 65 * KIB].into()).await.unwrap();
    assert_eq!(face.post(body).await.summary(), BUSY);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(sender.send_data(Bytes::from_static(b" ")).await.is_err());
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_not_told_to_go_on() {
    /// A body that counts how often it was asked for more.
    struct Asked(Arc<AtomicUsize>);

    impl http_body::Body for Asked {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::task::Poll::Ready(None)
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(MIB as u64)
        }
    }

    let asked = Arc::new(AtomicUsize::new(0));
    let request = post().header("expect", "100-continue");
    let body = Body::new(Asked(Arc::clone(&asked)));
    let reply = within(&Budget::new(0)).send(request.body(body).unwrap()).await;
    assert_eq!(reply.summary(), BUSY);
    tokio::task::yield_now().await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn another_service_takes_no_large_body() {
    for service in ["updateStatus", "getStatus", "getDocumentImages", "noSuchService", ""] {
        for pass in ["PASSWORD", "GUESS"] {
            let body = large(65 * KIB)
                .replace("createOrUpdateCustomer", service)
                .replace("PASSWORD", pass);
            let face = Face::new();
            let reply = face.post(body.clone()).await;
            assert_eq!(reply.summary(), TOO_LARGE, "{service}");
            assert_eq!(reply.header("connection"), Some("close"), "{service}");
            assert_eq!(
                post_gzip(&face, body.as_bytes()).await.summary(),
                TOO_LARGE,
                "{service}"
            );
            assert!(face.seen().is_empty(), "{service}");
        }
    }
}

#[tokio::test]
async fn twenty_eight_mebibytes_are_the_most() {
    let full = large(28 * MIB);
    assert_eq!(Face::new().post(full.clone()).await.summary(), "200");
    for face in [Face::new(), within(&Budget::new(0))] {
        let reply = face.post(full.clone() + " ").await;
        assert_eq!(reply.summary(), TOO_LARGE);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert_eq!(
        post_gzip(&Face::new(), (full + " ").as_bytes()).await.summary(),
        TOO_LARGE
    );
}

#[tokio::test]
async fn a_large_body_that_does_not_arrive_in_time_gives_back_what_it_has_taken() {
    tokio::time::pause();
    let budget = Budget::new(MIB);
    let face = within(&budget);
    let (mut sender, body) = on_its_way();
    sender.send_data(vec![b' '; 65 * KIB].into()).await.unwrap();
    assert_eq!(face.post(body).await.summary(), "408 TIMEOUT The request timed out");
    assert_eq!(left(&budget), 16);
}

#[tokio::test]
async fn a_text_that_is_longer_than_any_is_invalid_and_not_sent_on() {
    let long = "x".repeat(65 * KIB);
    for (key, summary) in [
        ("fn", "400 INVALID_FIELD The fn is invalid"),
        ("email", "400 INVALID_EMAIL The email address is invalid"),
    ] {
        for text in [long.clone(), format!("{long}\\n")] {
            let target = format!(r#"{{"email":"a@b.c","{key}":"{text}"}}"#).replacen(
                r#""email":"a@b.c","email""#,
                r#""email""#,
                1,
            );
            let body = SAMPLE.replace("updateStatus", "createOrUpdateCustomer");
            let (head, _) = body.split_once(r#""target":"#).unwrap();
            let face = Face::new();
            assert_eq!(
                face.post(format!(r#"{head}"target":{target}}}"#)).await.summary(),
                summary
            );
            assert_eq!(face.messages().len(), 1);
        }
    }
}

#[tokio::test]
async fn nothing_of_a_customer_is_logged() {
    let face = Face::refusing(tonic::Status::internal("secret detail"));
    let body = large(65 * KIB).replace(r#""email":"#, r#""fn":"Jane","email":"#);
    let request = post().header("x-request-id", "a-customer").body(body.into());
    assert_eq!(face.send(request.unwrap()).await.status.as_u16(), 500);
    let lines = logged("a-customer");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for secret in ["secret", "USERNAME", "PASSWORD", "Jane", "a@b.c", "////"] {
        assert!(!lines[0].contains(secret), "{lines:?}");
    }
}
