//! HTTP/2 clients that mean harm: each is cut off before it costs much, and nobody else is.

use std::{
    io::Write,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use super::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, Raw, SETTINGS, WINDOW_UPDATE, call,
    cancelled, frame, header, settings_frame,
};
use crate::{
    grpc::{
        client::Client,
        feed::{generated, with},
    },
    support::{Backend, Gateway, memory},
};

/// What a flood may take of memory.
const MOST_MIB: u64 = 20;

/// More than any limit lets pass, and than fits into the buffers of a connection.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Sends a flood from several connections at once: what comes first, and then frames without end, again and again if they
/// are fewer. Each has to be closed before it has sent all.
#[track_caller]
fn flood(name: &str, first: &[u8], frames: u32, next: impl Fn(u32) -> Vec<u8>) {
    const FLOODS: usize = 4;

    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &["--demo"]);
    let address = gateway.grpc.unwrap();
    // What it takes when it is served.
    ask(address);
    let before = memory::reset_peak(gateway.pid());
    // Made beforehand: it comes as fast as it can.
    let frames: Vec<u8> = (0..frames).flat_map(next).collect();
    let times = MOST_BYTES.div_ceil(frames.len());
    thread::scope(|scope| {
        for _ in 0..FLOODS {
            scope.spawn(|| {
                let mut raw = Raw::greet(address, &[]);
                let mut writer = raw.0.try_clone().unwrap();
                scope.spawn({
                    let frames = &frames;
                    move || {
                        // It has to fail: the connection is closed before all was sent.
                        let sent = writer
                            .write_all(first)
                            .and_then(|()| (0..times).try_for_each(|_| writer.write_all(frames)));
                        assert!(sent.is_err(), "{name}: everything was taken");
                    }
                });
                // Answers are read, so that it is not for them that it is closed.
                raw.until_closed();
            });
        }
    });
    let growth = memory::peak(gateway.pid()).saturating_sub(before);
    eprintln!("{name}: {growth} KiB");
    assert!(growth <= MOST_MIB * 1024, "{name}: it took {growth} KiB");
    ask(address);
    assert_eq!(gateway.stop().code, 0);
}

/// How many frames are sent again and again.
const MANY: u32 = 10_000;

/// How many calls are begun: those of a connection have rising numbers, and cannot be sent again.
const ONCE: u32 = 400_000;

/// Whether somebody else is served.
fn ask(address: SocketAddr) {
    let client = Client::bare(address);
    let message = proto::v1::GetStatusRequest {
        email: "test@veratad.com".to_owned(),
    };
    client
        .block_on(generated(&client).get_status(with("USERNAME:PASSWORD", message)))
        .unwrap();
}

/// The id of a client's stream.
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

#[test]
fn calls_that_are_cancelled_at_once_are_too_many() {
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    flood("rapid reset", &[], ONCE, move |number| {
        cancelled(stream(number), &headers)
    });
}

#[test]
fn headers_without_an_end_are_too_long() {
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    let more = header("x-more", &"a".repeat(100));
    flood("CONTINUATION", &frame(HEADERS, 0, 1, &headers), MANY, move |_| {
        frame(CONTINUATION, 0, 1, &more)
    });
    // Empty ones do not grow, and do not end either.
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    flood("empty CONTINUATION", &frame(HEADERS, 0, 1, &headers), MANY, |_| {
        frame(CONTINUATION, 0, 1, &[])
    });
}

#[test]
fn pings_and_settings_without_end_are_too_many() {
    flood("PING", &[], MANY, |number| {
        frame(PING, 0, 0, &u64::from(number).to_be_bytes())
    });
    flood("PING answers", &[], MANY, |number| {
        frame(PING, ACK, 0, &u64::from(number).to_be_bytes())
    });
    flood("SETTINGS", &[], MANY, |number| {
        settings_frame(&[(4, 65_535 + number % 2)])
    });
    flood("empty SETTINGS", &[], MANY, |_| frame(SETTINGS, 0, 0, &[]));
}

#[test]
fn other_frames_that_ask_for_nothing_are_too_many() {
    const PRIORITY: u8 = 2;

    flood("WINDOW_UPDATE", &[], MANY, |_| {
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())
    });
    flood("PRIORITY", &[], MANY, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]));
    flood("unknown frames", &[], MANY, |_| frame(0xfa, 0, 0, b"whatever"));
    let begin = frame(HEADERS, END_HEADERS, 1, &call("GetStatus", "USERNAME:PASSWORD"));
    flood("empty DATA", &begin, MANY, |_| frame(DATA, 0, 1, &[]));
}

#[test]
fn calls_over_the_limit_that_are_sent_all_the_same_are_too_many() {
    // They never send their message, so that all stay open.
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    flood("streams", &[], ONCE, move |number| {
        frame(HEADERS, END_HEADERS, stream(number), &headers)
    });
}

#[test]
fn who_was_cut_off_has_a_connection_less_for_a_while() {
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    let resets = |number| cancelled(stream(number), &headers);
    let more = frame(CONTINUATION, 0, 1, &header("x-more", &"a".repeat(100)));
    let abuses = [
        ("no HTTP/2", frame(DATA, 0, 0, b"no stream")),
        ("rapid reset", (0..10_000).flat_map(resets).collect()),
        (
            "CONTINUATION",
            [frame(HEADERS, 0, 1, &headers), more.repeat(10_000)].concat(),
        ),
        ("PING", frame(PING, 0, 0, &[7; 8]).repeat(100_000)),
        ("SETTINGS", settings_frame(&[(4, 65_535)]).repeat(100_000)),
    ];
    for (name, abuse) in abuses {
        let database = Backend::Sqlite.database();
        let gateway = Gateway::start(&database, &["--demo", "--connections-per-address", "2"]);
        let address = gateway.grpc.unwrap();
        let mut raw = Raw::open(address);
        let mut writer = raw.0.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || drop(writer.write_all(&[PREFACE, &settings_frame(&[]), &abuse].concat())));
            raw.until_closed();
        });
        // Of two, one is left, and that one is served.
        let mut last = Raw::greet(address, &[]);
        assert!(last.next().is_some());
        // It would come back at once, and is let go after a second.
        let began = Instant::now();
        let mut refused = Raw::greet(address, &[]);
        assert!(refused.next().is_none(), "{name} costs nothing");
        assert!(began.elapsed() >= Duration::from_secs(1), "{name}");
        last.0.write_all(&frame(PING, 0, 0, b"are you?")).unwrap();
        let pong = std::iter::from_fn(|| last.next()).find(|frame| frame.kind == PING);
        assert_eq!(pong.unwrap().payload, b"are you?");
    }
}

/// What a lively client does is none of that.
#[test]
fn a_client_that_pings_and_cancels_as_clients_do_is_served() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &["--demo", "--control-frames", "20"]);
    let mut raw = Raw::greet(gateway.grpc.unwrap(), &[]);
    let mut answered = 0;
    for number in 0..200 {
        let id = stream(number);
        let mut sent = frame(HEADERS, END_HEADERS, id, &call("GetStatus", "USERNAME:PASSWORD"));
        sent.extend(frame(DATA, END_STREAM, id, &super::http2::question("test@veratad.com")));
        raw.0.write_all(&sent).unwrap();
        // To the trailers.
        while let Some(got) = raw.next() {
            if got.kind == SETTINGS && got.flags & ACK == 0 {
                raw.0.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
            }
            if got.kind == DATA {
                // What is read is given back, and the round trip measured.
                let length = u32::try_from(got.payload.len()).unwrap();
                let mut back = frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes());
                back.extend(frame(WINDOW_UPDATE, 0, id, &length.to_be_bytes()));
                back.extend(frame(PING, 0, 0, &[7; 8]));
                raw.0.write_all(&back).unwrap();
            }
            if got.kind == HEADERS && got.flags & END_STREAM != 0 {
                answered += 1;
                break;
            }
        }
    }
    assert_eq!(answered, 200);
}
