//! Connections on which nothing happens: many of them cost little.

use std::{io::Write, net::TcpStream, time::Duration};

use super::http2::{ACK, PING, Raw, SETTINGS, frame};
use crate::support::{Backend, Connection, Gateway, memory, post};

/// How many there are on each face.
const CONNECTIONS: usize = 10_000;

/// What all of them may take of memory on a face. Without optimization, the state of a connection is larger.
const MOST_MIB: u64 = if cfg!(debug_assertions) { 165 } else { 150 };

const READ: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#;

#[test]
fn ten_thousand_idle_connections_on_each_face_take_little_memory() {
    // Both ends of a face at a time are in this process and in the gateway's, and other tests have some as well.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();

    let arguments = [
        "--demo",
        "--connections-per-address",
        "100000",
        "--idle-timeout",
        "1h",
        "--head-timeout",
        "1h",
        "--keepalive",
        "1h",
        "--connection-age",
        "24h",
    ];
    let start = || {
        let database = Backend::Sqlite.database();
        let gateway = Gateway::start(&database, &arguments);
        // What it takes when it is served.
        assert_eq!(gateway.post(READ).status, 200);
        (gateway, database)
    };

    // Each has been used, and is kept for the next request.
    let (gateway, _database) = start();
    let before = memory::now(gateway.pid());
    let mut kept: Vec<Connection> = (0..CONNECTIONS)
        .map(|_| {
            let mut connection = Connection::open(gateway.rest);
            assert_eq!(connection.post(READ).status, 200);
            connection
        })
        .collect();
    assert_little("REST", memory::now(gateway.pid()).saturating_sub(before));
    // And still served.
    for connection in kept.iter_mut().step_by(CONNECTIONS / 10) {
        assert_eq!(connection.exchange(&post(READ.as_bytes())).status, 200);
    }
    drop(kept);

    // Another one, so that nothing is taken which the first has left.
    let (gateway, _database) = start();
    let before = memory::now(gateway.pid());
    let mut kept: Vec<Raw> = (0..CONNECTIONS)
        .map(|_| {
            let mut raw = Raw::greet(gateway.grpc.unwrap(), &[]);
            answer_settings(&mut raw);
            raw
        })
        .collect();
    assert_little("gRPC", memory::now(gateway.pid()).saturating_sub(before));
    for raw in kept.iter_mut().step_by(CONNECTIONS / 10) {
        raw.0.write_all(&frame(PING, 0, 0, b"are you?")).unwrap();
        let answer = std::iter::from_fn(|| raw.next()).find(|frame| frame.kind == PING);
        assert_eq!(answer.unwrap().payload, b"are you?");
    }
}

/// Goes through the whole of the hello: both have sent their settings, and acknowledged the other's.
fn answer_settings(raw: &mut Raw) {
    let (mut theirs, mut ours) = (false, false);
    while !(theirs && ours) {
        let got = raw.next().unwrap();
        if got.kind == SETTINGS && got.flags & ACK == 0 {
            raw.0.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
            theirs = true;
        } else if got.kind == SETTINGS {
            ours = true;
        }
    }
}

fn assert_little(face: &str, growth: u64) {
    eprintln!("{face}: {CONNECTIONS} connections take {} MiB", growth / 1024);
    assert!(growth <= MOST_MIB * 1024, "{face}: {growth} KiB");
}

#[test]
fn a_thousand_who_come_at_once_need_not_try_again() {
    let gateway = Gateway::start(&Backend::Sqlite.database(), &["--demo"]);
    // It takes none of them meanwhile: they wait where the system keeps them.
    gateway.signal("STOP");
    // One that is not kept would try again and again until then.
    let patience = Duration::from_secs(5);
    let connections: Result<Vec<_>, _> = (0..1_000)
        .map(|_| TcpStream::connect_timeout(&gateway.rest, patience))
        .collect();
    gateway.signal("CONT");
    assert_eq!(connections.unwrap().len(), 1_000);
}
