//! Images, in and out: Base64 as clients write it, and replies that are made while they are sent.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use proptest::{collection, prelude::*};
use proto::Budget;

use super::support::{Answer, Face, SAMPLE, left, post};
use crate::image::Image;

const MIB: usize = 1024 * 1024;

fn decoded(literal: &str) -> Option<Vec<u8>> {
    Image::in_literal(literal).map(|image| image.bytes.to_vec())
}

fn images_sample() -> String {
    SAMPLE.replace("updateStatus", "getDocumentImages")
}

#[test]
fn base64_is_taken_as_clients_write_it() {
    for (literal, bytes) in [
        ("", &b""[..]),
        ("YQ==", b"a"),
        ("YQ", b"a"),
        ("YWI=", b"ab"),
        ("YWI", b"ab"),
        ("YWJj", b"abc"),
        (r"\/\/\/\/", b"\xff\xff\xff"),
        (r"\u002B\u002b\u0038\u003d", b"\xfb\xef"),
        (r"YW\r\nJj\r\n", b"abc"),
        (r"\tY W\fJ\u000aj", b"abc"),
        (r"YQ\n=\n=\n", b"a"),
    ] {
        assert_eq!(decoded(literal).as_deref(), Some(bytes), "{literal}");
    }
}

#[test]
fn what_is_no_base64_is_refused() {
    for literal in [
        "?",
        "=",
        "==",
        "====",
        "Y",
        "Y===",
        "YQ=",
        "YQ===",
        "YWI==",
        "YWJj=",
        "YWJj====",
        "YQ==YQ==",
        "YR==", // a bit is set that belongs to no byte
        "YWJjZ",
        "a-b_",
        "data:image/png;base64,YQ==",
        "ä",
        r"\u00e4",
        r"\ud83d\ude00",
        r#"\""#,
        r"\\",
        r"\b",
        r"\u0000",
        r"YWJj\u003f",
    ] {
        assert_eq!(decoded(literal), None, "{literal}");
    }
}

proptest! {
    #[test]
    fn an_image_of_any_size_comes_through(
        bytes in collection::vec(any::<u8>(), 0..20_000),
        line in 1_usize..200,
        is_padded: bool,
    ) {
        let mut text = STANDARD.encode(&bytes);
        if !is_padded {
            text.truncate(text.trim_end_matches('=').len());
        }
        prop_assert_eq!(decoded(&text), Some(bytes.clone()));
        prop_assert_eq!(decoded(&text.replace('/', r"\/").replace('+', r"\u002B")), Some(bytes.clone()));
        let lines: Vec<_> = text.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).unwrap()).collect();
        prop_assert_eq!(decoded(&lines.join(r"\r\n")), Some(bytes));
    }

    #[test]
    fn no_literal_makes_the_decoder_panic(literal in r#"[A-Z=+/ \\untr0-9é]{0,60}"#) {
        let _ = decoded(&literal);
    }
}

#[tokio::test]
async fn a_reply_with_images_is_sent_in_pieces_and_tells_its_length() {
    for (front, back) in [(0, 0), (1, 2), (48 * 1024, 48 * 1024 + 1), (10 * MIB, 10 * MIB)] {
        let (front, back) = (Bytes::from(vec![0xff; front]), Bytes::from(vec![0x3e; back]));
        let face = Face::answering(Answer::Images(front.clone(), back.clone()));
        let response = face.respond(post().body(images_sample().into()).unwrap()).await;
        assert_eq!(response.status().as_u16(), 200);
        let told = response.body().size_hint().exact();
        let (mut body, mut text) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!((1..=64 * 1024).contains(&data.len()));
            text.extend_from_slice(&data);
        }
        assert_eq!(told, Some(text.len() as u64));
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let documents = &value["target"]["documents"];
        assert!(documents["front"] == STANDARD.encode(front) && documents["back"] == STANDARD.encode(back));
    }
}

#[tokio::test]
async fn the_images_of_a_service_elsewhere_are_counted_until_they_are_sent() {
    let budget = Budget::new(MIB);
    let images = Answer::Images(vec![1; MIB / 2].into(), vec![2; MIB / 4].into());
    let face = Face::within(budget.clone(), images);
    let response = face.respond(post().body(images_sample().into()).unwrap()).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(left(&budget), 4);

    let refused = face.post(images_sample()).await;
    assert_eq!(refused.summary(), "503 UNAVAILABLE The service is unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Nothing of its body is left unread.
    assert_eq!(refused.header("connection"), None);

    let (mut body, mut frames) = (response.into_body(), 0);
    while !body.is_end_stream() {
        assert_eq!(left(&budget), 4);
        body.frame().await.unwrap().unwrap();
        frames += 1;
    }
    assert!(frames > 10);
    drop(body);
    assert_eq!(left(&budget), 16);
    assert_eq!(face.post(images_sample()).await.summary(), "200");
}

#[tokio::test]
async fn a_client_that_goes_away_gives_back_what_its_reply_has_taken() {
    let budget = Budget::new(MIB);
    let face = Face::within(budget.clone(), Answer::Images(vec![1; MIB / 2].into(), Bytes::new()));
    let mut response = face.respond(post().body(images_sample().into()).unwrap()).await;
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(left(&budget), 8);
    drop(response);
    assert_eq!(left(&budget), 16);
}

#[tokio::test]
async fn images_that_the_service_has_counted_are_not_counted_again() {
    let (budget, service) = (Budget::new(MIB), Budget::new(MIB));
    let hold = service.take(MIB).unwrap();
    // More than this face could take.
    let answer = Answer::HeldImages(vec![1; MIB].into(), vec![2; MIB].into(), hold);
    let face = Face::within(budget.clone(), answer);
    let response = face.respond(post().body(images_sample().into()).unwrap()).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!((left(&budget), left(&service)), (16, 0));
    // The answer of the service holds on to it in this test, so it is the last to let go.
    drop(face);
    assert_eq!(left(&service), 0);
    drop(response);
    assert_eq!(left(&service), 16);
}
