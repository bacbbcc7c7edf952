//! Clients that are slow, on purpose or not: each is closed within its bound, however it dawdles.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, Raw, WINDOW_UPDATE, call, frame, question, settings_frame,
};
use crate::support::{Backend, Connection, Database, Gateway, eventually, post};

/// The timers of these tests. What is late by more than [`LATE`] was not closed by them.
const TIMER: Duration = Duration::from_millis(1_000);
const LATE: Duration = Duration::from_secs(8);

/// A gateway where all but one of the timers is out of the way, and its database.
fn gateway_with(timers: &[(&str, &str)]) -> (Gateway, Database) {
    let database = Backend::Sqlite.database();
    let mut arguments = vec!["--demo"];
    for (flag, far) in [
        ("--head-timeout", "1h"),
        ("--idle-timeout", "1h"),
        ("--body-timeout", "1h"),
        ("--write-timeout", "1h"),
        ("--keepalive", "1h"),
        ("--keepalive-timeout", "1h"),
        ("--deadline", "1h"),
        ("--deadline-limit", "1h"),
        ("--connection-age", "24h"),
    ] {
        let value = timers
            .iter()
            .find(|(name, _)| *name == flag)
            .map_or(far, |(_, value)| *value);
        arguments.extend([flag, value]);
    }
    (Gateway::start(&database, &arguments), database)
}

/// Reads to the end of a connection, and gives what came, and when it ended.
#[track_caller]
fn closed(stream: &mut TcpStream, since: Instant) -> (Vec<u8>, Duration) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert!(
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "it is still open"
        );
    }
    (all, since.elapsed())
}

#[track_caller]
fn within_the_bound(took: Duration) {
    assert!(
        took >= TIMER - Duration::from_millis(20),
        "after {took:?}, which is too early"
    );
    assert!(took < TIMER + LATE, "after {took:?}, which is too late");
}

/// Sends the bytes one by one, with less than any timer between two, until the connection is closed.
#[track_caller]
fn trickle(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(TIMER / 20)).unwrap();
    for byte in bytes {
        if stream.write_all(&[byte]).is_err() {
            return began.elapsed();
        }
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return began.elapsed(),
            // What comes before the end, such as a refusal.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return began.elapsed(),
        }
        assert!(began.elapsed() < TIMER + LATE, "it is still open");
    }
    panic!("everything was sent before the connection was closed");
}

const HALF_A_HEAD: &[u8] = b"POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nX-Slow: ";
const READ: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#;

#[test]
fn a_legacy_client_that_sends_no_head_in_time_is_closed() {
    let (gateway, _database) = gateway_with(&[("--head-timeout", "1s")]);
    for address in [gateway.rest, gateway.ops] {
        // Nothing, and half of it.
        for sent in [b"".as_slice(), HALF_A_HEAD] {
            let began = Instant::now();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(sent).unwrap();
            let (answer, took) = closed(&mut stream, began);
            assert_eq!(String::from_utf8_lossy(&answer), "");
            within_the_bound(took);
        }
        // A byte now and then is not enough: the head as a whole has to be there.
        let mut stream = TcpStream::connect(address).unwrap();
        let endless = HALF_A_HEAD.iter().copied().chain(std::iter::repeat_n(b'a', 10_000));
        within_the_bound(trickle(&mut stream, endless));
        // Nor for a head behind an answered request.
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: dcams\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        within_the_bound(trickle(&mut stream, HALF_A_HEAD.iter().copied().cycle()));
    }
}

#[test]
fn a_legacy_client_may_be_silent_between_two_requests_for_longer_than_within_one() {
    let (gateway, _database) = gateway_with(&[("--head-timeout", "500ms"), ("--idle-timeout", "1s")]);
    let mut stream = TcpStream::connect(gateway.rest).unwrap();
    stream.write_all(&post(READ.as_bytes())).unwrap();
    let mut reply = [0; 4096];
    let read = stream.read(&mut reply).unwrap();
    assert!(reply[..read].starts_with(b"HTTP/1.1 200 "));
    let (more, took) = closed(&mut stream, Instant::now());
    assert_eq!(more, b"");
    within_the_bound(took);
}

#[test]
fn a_legacy_client_that_sends_no_body_in_time_is_told_so_and_closed() {
    let (gateway, _database) = gateway_with(&[("--body-timeout", "1s")]);
    let request = post(&[b' '; 60_000]);
    let half = &request[..request.len() / 2];
    let began = Instant::now();
    let mut stream = TcpStream::connect(gateway.rest).unwrap();
    stream.write_all(half).unwrap();
    let (answer, took) = closed(&mut stream, began);
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    within_the_bound(took);

    let mut stream = TcpStream::connect(gateway.rest).unwrap();
    stream.write_all(half).unwrap();
    within_the_bound(trickle(&mut stream, request[half.len()..].iter().copied()));
}

/// Stores images that are more than the buffers of a connection hold.
fn store_images(gateway: &Gateway) {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(6 * 1024 * 1024, 0x5a);
    let image = BASE64_STANDARD.encode(image);
    let body = format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"test@veratad.com","documents":{{"front":"{image}","back":"{image}"}}}}}}"#
    );
    // On a busy machine the first check of a password may take longer than one waits for it.
    eventually("the password is known", || gateway.post(READ).status == 200);
    let reply = gateway.post(&body);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Waits until a connection that nobody reads is closed at its other end.
#[track_caller]
fn closed_unread(stream: &TcpStream) {
    let (ours, theirs) = (stream.local_addr().unwrap().port(), stream.peer_addr().unwrap().port());
    let began = Instant::now();
    eventually("the connection is closed", || {
        // Columns: number, local address, remote address, state; 01 is established.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        !table.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let is = |column: usize, port: u16| columns[column].ends_with(&format!(":{port:04X}"));
            is(1, theirs) && is(2, ours) && columns[3] == "01"
        })
    });
    within_the_bound(began.elapsed());
}

#[test]
fn a_legacy_client_that_does_not_read_is_closed() {
    let (gateway, _database) = gateway_with(&[("--write-timeout", "1s")]);
    store_images(&gateway);
    let mut stream = TcpStream::connect(gateway.rest).unwrap();
    let request = post(READ.replace("getStatus", "getDocumentImages").as_bytes());
    stream.write_all(&request).unwrap();
    closed_unread(&stream);
    // One that reads gets all of it.
    assert_eq!(Connection::open(gateway.rest).exchange(&request).status, 200);
}

#[test]
fn a_grpc_client_that_does_not_say_hello_in_time_is_closed() {
    let (gateway, _database) = gateway_with(&[("--head-timeout", "1s")]);
    let address = gateway.grpc.unwrap();
    let hello = [PREFACE, &settings_frame(&[(4, 65_535), (3, 100)])].concat();
    let mut greeted = Raw::greet(address, &[]);
    // Nothing, half the preface, the preface alone, and all but the last byte of the settings.
    for length in [0, 12, PREFACE.len(), hello.len() - 1] {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&hello[..length]).unwrap();
        within_the_bound(closed(&mut stream, began).1);
    }
    let mut stream = TcpStream::connect(address).unwrap();
    let slow = PREFACE.iter().copied().chain(settings_frame(&[(4, 65_535); 100]));
    within_the_bound(trickle(&mut stream, slow));
    // One that has said it, longer ago than that, is served.
    greeted.0.write_all(&frame(PING, 0, 0, b"are you?")).unwrap();
    let pong = std::iter::from_fn(|| greeted.next()).find(|frame| frame.kind == PING);
    assert_eq!(pong.unwrap().payload, b"are you?");
}

#[test]
fn a_grpc_client_that_begins_and_does_not_end_what_it_sends_is_closed() {
    let (gateway, _database) = gateway_with(&[("--keepalive", "500ms"), ("--keepalive-timeout", "500ms")]);
    let address = gateway.grpc.unwrap();
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    let half_a_frame = {
        let whole = frame(HEADERS, END_HEADERS, 1, &headers);
        whole[..whole.len() / 2].to_vec()
    };
    // Half a frame of headers; and half the headers, without the frame that would end them.
    for sent in [half_a_frame, frame(HEADERS, 0, 1, &headers[..30])] {
        let began = Instant::now();
        let mut raw = Raw::greet(address, &[]);
        raw.0.write_all(&sent).unwrap();
        within_the_bound(closed(&mut raw.0, began).1);
    }
    // A byte now and then is no sign of life.
    let mut raw = Raw::greet(address, &[]);
    within_the_bound(trickle(
        &mut raw.0,
        frame(HEADERS, END_HEADERS, 1, &headers.repeat(20)).into_iter(),
    ));
}

#[test]
fn a_grpc_message_that_does_not_arrive_in_time_is_answered() {
    let (gateway, _database) = gateway_with(&[("--deadline", "1s")]);
    let body = question(&"a".repeat(100));
    let (half, rest) = body.split_at(body.len() / 2);
    for slowly in [false, true] {
        let began = Instant::now();
        let mut raw = Raw::greet(gateway.grpc.unwrap(), &[]);
        raw.0
            .write_all(&frame(HEADERS, END_HEADERS, 1, &call("GetStatus", "USERNAME:PASSWORD")))
            .unwrap();
        raw.0.write_all(&frame(DATA, 0, 1, half)).unwrap();
        let mut writer = raw.0.try_clone().unwrap();
        std::thread::scope(|scope| {
            if slowly {
                // A frame for each byte, and the last one never.
                scope.spawn(move || {
                    for byte in &rest[..rest.len() - 1] {
                        if writer.write_all(&frame(DATA, 0, 1, &[*byte])).is_err() {
                            return;
                        }
                        std::thread::sleep(TIMER / 20);
                    }
                });
            }
            let end = std::iter::from_fn(|| raw.next()).find(|frame| frame.stream == 1 && frame.kind == HEADERS);
            assert_ne!(end.unwrap().flags & END_STREAM, 0, "a status without a message");
            within_the_bound(began.elapsed());
        });
    }
}

#[test]
fn a_grpc_client_that_does_not_read_is_closed() {
    let (gateway, _database) = gateway_with(&[("--write-timeout", "1s")]);
    store_images(&gateway);
    let most = u32::MAX >> 1;
    let mut raw = Raw::greet(gateway.grpc.unwrap(), &[(4, most)]);
    let mut ask = frame(WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes());
    ask.extend(frame(
        HEADERS,
        END_HEADERS,
        1,
        &call("GetDocumentImages", "USERNAME:PASSWORD"),
    ));
    ask.extend(frame(DATA, END_STREAM, 1, &question("test@veratad.com")));
    raw.0.write_all(&ask).unwrap();
    closed_unread(&raw.0);
}
