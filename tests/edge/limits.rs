//! What a connection and a call may take, each a setting.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use proto::v1::{GetStatusRequest, UpdateStatusRequest};
use tokio::net::TcpSocket;
use tonic::Code;

use super::http2::{GOAWAY, Raw, SETTINGS};
use crate::{
    grpc::{
        client::Client,
        feed::{Watching, generated, set, with},
    },
    support::{Backend, Connection, Database, Gateway, Reply, eventually, post, until},
};

const CREDENTIALS: &str = "USERNAME:PASSWORD";
const EMAIL: &str = "test@veratad.com";
const READ: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#;
const UPDATE: &str = r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"FAIL"}}"#;

fn started(database: &Database, arguments: &[&str]) -> Gateway {
    Gateway::start(database, &[&["--demo"], arguments].concat())
}

/// A request with so many headers besides `Host`, each of so many bytes.
fn with_headers(count: usize, size: usize) -> Vec<u8> {
    let mut head = "GET / HTTP/1.1\r\nHost: dcams\r\n".to_owned();
    for number in 0..count {
        let name = format!("X-{number:03}: ");
        head += &format!("{name}{}\r\n", "a".repeat(size - name.len() - 2));
    }
    (head + "\r\n").into_bytes()
}

/// A request for a path of so many bytes.
fn with_path(length: usize) -> Vec<u8> {
    format!("GET /{} HTTP/1.1\r\nHost: dcams\r\n\r\n", "a".repeat(length - 1)).into_bytes()
}

#[test]
fn a_head_may_be_so_large_and_what_is_larger_is_refused_and_closed() {
    let database = Backend::Sqlite.database();
    let by_default = started(&database, &[]);
    let other = Backend::Sqlite.database();
    let lowered = started(
        &other,
        &["--max-headers", "8", "--head-limit", "1KiB", "--uri-limit", "100"],
    );
    for (gateway, headers, bytes, uri) in [(&by_default, 64, 16 * 1024, 2_048), (&lowered, 8, 1_024, 100)] {
        let served = |request: Vec<u8>| Connection::open(gateway.rest).exchange(&request).status;
        let refused = |request: Vec<u8>, status: u16| {
            let mut connection = Connection::open(gateway.rest);
            let reply = connection.exchange(&request);
            assert_eq!((reply.status, reply.text()), (status, ""), "{}", reply.head);
            assert!(connection.is_closed());
        };
        // Host is one of them.
        assert_eq!(served(with_headers(headers - 1, 20)), 404);
        refused(with_headers(headers, 20), 431);
        let around = with_headers(0, 0).len();
        assert_eq!(served(with_headers(1, bytes - around)), 404);
        refused(with_headers(1, bytes - around + 1), 431);
        assert_eq!(served(with_path(uri)), 404);
        refused(with_path(uri + 1), 414);
        refused(b"GET / HTTP/3.1\r\nHost: dcams\r\n\r\n".to_vec(), 400);
        // Nothing else tells of them.
        for (kind, count) in [("too_large", 2), ("uri_too_long", 1), ("malformed", 1)] {
            let counted = format!(r#"dcams_heads_refused_total{{listener="rest",kind="{kind}"}} {count}"#);
            eventually(&counted, || {
                gateway.get("/metrics").text().lines().any(|line| line == counted)
            });
        }
    }
}

#[test]
fn a_body_may_be_as_large_on_one_face_as_on_the_other() {
    let database = Backend::Sqlite.database();
    let gateway = started(&database, &["--body-limit", "1KiB"]);
    let padded = |length: usize| gateway.post(READ.to_owned() + &" ".repeat(length - READ.len()));
    assert_eq!(padded(1_024).status, 200);
    assert_eq!(padded(1_025).status, 413);

    let client = Client::bare(gateway.grpc.unwrap());
    let ask = |length: usize| {
        // The field's tag, and its length in two bytes.
        let email = " ".repeat(length - 3 - EMAIL.len()) + EMAIL;
        let call = generated(&client).get_status_with(email);
        client.block_on(call)
    };
    assert_eq!(ask(1_024), Ok(()));
    assert_eq!(ask(1_025), Err(Code::ResourceExhausted));
}

/// The one call that is made here with nothing but an address.
trait Ask {
    async fn get_status_with(self, email: String) -> Result<(), Code>;
}

impl Ask for proto::v1::storage_service_client::StorageServiceClient<crate::grpc::client::Connection> {
    async fn get_status_with(mut self, email: String) -> Result<(), Code> {
        let answer = self.get_status(with(CREDENTIALS, GetStatusRequest { email })).await;
        answer.map(|_| ()).map_err(|status| status.code())
    }
}

#[test]
fn a_call_has_a_deadline_that_it_does_not_name_and_none_that_is_longer_than_may_be() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let short = started(&database, &["--deadline", "500ms"]);
        let limited = started(&database, &["--deadline", "60s", "--deadline-limit", "500ms"]);
        let mut session = database.session();
        session.hold_customers();
        for (gateway, timeout) in [(&short, None), (&limited, Some(Duration::from_secs(600)))] {
            let reply = gateway.post(UPDATE);
            assert_eq!((reply.status, reply.header("x-error-reason")), (504, Some("TIMEOUT")));
            let client = Client::bare(gateway.grpc.unwrap());
            let message = UpdateStatusRequest {
                email: EMAIL.to_owned(),
                status: proto::v1::Status::Fail.into(),
                ..UpdateStatusRequest::default()
            };
            let mut request = with(CREDENTIALS, message);
            if let Some(timeout) = timeout {
                request.set_timeout(timeout);
            }
            let status = client
                .block_on(generated(&client).update_status(request))
                .map(drop)
                .unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        }
        session.release();
    }
}

/// Connects from an address of this machine.
fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn an_address_has_so_many_connections_and_leaves_the_others_theirs() {
    let arguments = ["--connections-per-address", "2", "--trusted-proxy", "127.0.0.9"];
    let database = Backend::Sqlite.database();
    let gateway = started(&database, &arguments);
    let open = |host: u8| Connection::over(from(Ipv4Addr::new(127, 0, 0, host), gateway.rest));
    let mut kept = [open(1), open(1)];
    for connection in &mut kept {
        assert_eq!(connection.post(READ).status, 200);
    }
    assert!(open(1).is_closed());
    assert_eq!(open(2).post(READ).status, 200);
    // A proxy stands for many.
    let mut proxied = [open(9), open(9), open(9)];
    for connection in &mut proxied {
        assert_eq!(connection.post(READ).status, 200);
    }
    // Each listener counts for itself.
    let metrics = Connection::over(from(Ipv4Addr::new(127, 0, 0, 2), gateway.ops))
        .exchange(b"GET /metrics HTTP/1.1\r\nHost: ops\r\n\r\n");
    let counted = r#"dcams_connections_refused_total{listener="rest",limit="address"} 1"#;
    assert!(metrics.text().lines().any(|line| line == counted), "{}", metrics.text());
    // One that ends makes room.
    drop(kept);
    let reply = until("there is room", || open(1).try_exchange(&post(READ.as_bytes())).ok());
    assert_eq!(reply.status, 200);
    // And the same over gRPC.
    let grpc = gateway.grpc.unwrap();
    let [mut first, mut second] = [Raw::greet(grpc, &[]), Raw::greet(grpc, &[])];
    assert!(first.next().is_some() && second.next().is_some());
    assert!(Raw::greet(grpc, &[]).next().is_none());
}

fn says_close(reply: &Reply) -> bool {
    reply.header("connection").is_some_and(|value| value == "close")
}

#[test]
fn a_connection_of_a_legacy_client_ends_behind_a_reply_when_it_is_old() {
    let database = Backend::Sqlite.database();
    let gateway = started(&database, &["--connection-age", "300ms"]);
    let mut connection = Connection::open(gateway.rest);
    // Every request is answered, and the last one says that it is the last.
    eventually("the connection is old", || {
        let reply = connection.post(READ);
        assert_eq!(reply.status, 200);
        says_close(&reply)
    });
    assert!(connection.is_closed());
}

#[test]
fn a_stream_ends_in_order_when_its_connection_is_old_and_goes_on_over_another() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = started(&database, &["--connection-age", "2s", "--connection-grace", "1h"]);
        let client = Client::bare(gateway.grpc.unwrap());
        let mut watching = Watching::begin_as(&client, CREDENTIALS, "", true).unwrap();
        watching.next().unwrap();
        let end = loop {
            if let Err(status) = watching.next() {
                break status;
            }
        };
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
        assert!(
            tonic_types::StatusExt::get_details_retry_info(&end).is_some(),
            "a status of ours: {end:?}"
        );

        let client = Client::bare(gateway.grpc.unwrap());
        set(&client, proto::v1::Status::Fail);
        let mut again = Watching::begin_as(&client, CREDENTIALS, &watching.cursor, false).unwrap();
        let changes = again.next().unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to_status(), proto::v1::Status::Fail);
    }
}

#[test]
fn an_old_connection_is_told_to_go_away_and_cut_off_after_its_grace() {
    let database = Backend::Sqlite.database();
    let gateway = started(
        &database,
        &[
            "--connection-age",
            "200ms",
            "--connection-grace",
            "200ms",
            "--deadline",
            "1h",
            "--deadline-limit",
            "1h",
        ],
    );
    // One that has nothing under way, and answers no PING.
    let mut raw = Raw::greet(gateway.grpc.unwrap(), &[]);
    let mut told = false;
    while let Some(frame) = raw.next() {
        told |= frame.kind == GOAWAY;
    }
    assert!(told);
    // One with a call that would take an hour.
    let client = Client::bare(gateway.grpc.unwrap());
    let mut session = database.session();
    session.hold_customers();
    let message = UpdateStatusRequest {
        email: EMAIL.to_owned(),
        status: proto::v1::Status::Fail.into(),
        ..UpdateStatusRequest::default()
    };
    client
        .block_on(generated(&client).update_status(with(CREDENTIALS, message)))
        .map(drop)
        .unwrap_err();
    session.release();
}

#[test]
fn a_client_is_told_what_an_http_2_connection_allows() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_HEADER_LIST_SIZE: u16 = 6;

    let told = |arguments: &[&str]| -> Vec<(u16, u32)> {
        let database = Backend::Sqlite.database();
        let gateway = started(&database, arguments);
        let first = Raw::greet(gateway.grpc.unwrap(), &[]).next().unwrap();
        assert_eq!(first.kind, SETTINGS);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let settings = first.payload.chunks(6);
        settings
            .map(|setting| (number(&setting[..2]) as u16, number(&setting[2..])))
            .collect()
    };
    let by_default = told(&[]);
    assert!(by_default.contains(&(MAX_CONCURRENT_STREAMS, 100)), "{by_default:?}");
    assert!(
        by_default.contains(&(INITIAL_WINDOW_SIZE, 256 * 1024)),
        "{by_default:?}"
    );
    assert!(
        by_default.contains(&(MAX_HEADER_LIST_SIZE, 16 * 1024)),
        "{by_default:?}"
    );
    let lowered = told(&[
        "--calls-per-connection",
        "7",
        "--stream-window",
        "70000",
        "--head-limit",
        "9KiB",
    ]);
    assert!(lowered.contains(&(MAX_CONCURRENT_STREAMS, 7)), "{lowered:?}");
    assert!(lowered.contains(&(INITIAL_WINDOW_SIZE, 70_000)), "{lowered:?}");
    assert!(lowered.contains(&(MAX_HEADER_LIST_SIZE, 9 * 1024)), "{lowered:?}");
}
