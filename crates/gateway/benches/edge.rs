//! What clients that are slow, or mean harm, cost one that is neither: its latency with and without them, in turn, on the
//! same gateway. Prints a table; `--quick` measures for a shorter time.
//!
//! The first table has 200 slow clients of the JSON endpoint, 40 of each kind, which come back whenever they are closed. The
//! second has a flood over HTTP/2 after the other, each from one client that comes back at once. All of them share the cores
//! with the gateway, so that a part of what they cost is their own work.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../../../tests/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod support;

#[path = "../../../tests/edge/http2.rs"]
#[allow(dead_code, unreachable_pub)]
mod http2;

use std::{
    io::{Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http2::{CONTINUATION, HEADERS, PING, Raw, call, cancelled, frame, header, settings_frame};
use support::{Backend, Connection, Gateway, post};

/// How many slow clients there are, as many of each kind.
const SLOW: usize = 200;

/// How long they are there before it is measured what they cost.
const SETTLE: Duration = Duration::from_secs(2);

/// What the latencies are compared at.
const MEDIAN: f64 = 0.5;
const TAIL: f64 = 0.99;

const READ: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#;
const IMAGES: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getDocumentImages","target":{"email":"test@veratad.com"}}"#;

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, time) = if is_quick {
        (3, Duration::from_secs(1))
    } else {
        (9, Duration::from_secs(4))
    };

    println!("| beside | calls/s without | with | | p50 ms without | with | | p99 ms without | with | |");
    println!("|---|---|---|---|---|---|---|---|---|---|");

    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &["--demo"]);
    store_image(&gateway);
    let legacy = || legacy_latencies(gateway.rest, time);
    compare(&format!("{SLOW} slow clients (REST)"), rounds, legacy, |stop| {
        slow_clients(gateway.rest, stop)
    });

    // What a neighbour costs that is busy and sends nothing: the client of a flood is that too.
    let calls = || grpc_latencies(gateway.grpc.unwrap(), time);
    compare("a busy core, and no flood (gRPC)", rounds, calls, |stop| {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    // Nor has the gateway a part in this one: it is what such a client, and the loopback, take of the machine.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let closing = elsewhere.local_addr().unwrap();
    thread::spawn(move || elsewhere.incoming().for_each(drop));
    let [.., (_, first, frames)] = floods();
    compare("a flood of another server (gRPC)", rounds, calls, |stop| {
        flood(closing, &first, &frames, stop)
    });

    for (name, first, frames) in floods() {
        let database = Backend::Sqlite.database();
        let gateway = Gateway::start(&database, &["--demo"]);
        let address = gateway.grpc.unwrap();
        let calls = || grpc_latencies(address, time);
        compare(&format!("{name} (gRPC)"), rounds, calls, |stop| {
            flood(address, &first, &frames, stop)
        });
    }
}

/// Measures latencies with and without something, in turn, and prints the medians of the rounds.
fn compare(name: &str, rounds: usize, measure: impl Fn() -> Vec<Duration>, beside: impl Fn(&AtomicBool) + Sync) {
    measure();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        without.push(measure());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| beside(&stop));
            // What their beginning costs is not what is measured.
            thread::sleep(SETTLE);
            with.push(measure());
            stop.store(true, Ordering::Relaxed);
        });
    }
    let median = |rounds: &[Vec<Duration>], of: &dyn Fn(&[Duration]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(|round| of(round)).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    // One call after the other: the rate says how fast all of them were.
    let rate = |round: &[Duration]| round.len() as f64 / round.iter().sum::<Duration>().as_secs_f64();
    let (fast, slow) = (median(&without, &rate), median(&with, &rate));
    let mut columns = vec![format!("{fast:.0} | {slow:.0} | {:.2} times slower", fast / slow)];
    for share in [MEDIAN, TAIL] {
        let at = |round: &[Duration]| round[((round.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let (without, with) = (median(&without, &at), median(&with, &at));
        columns.push(format!("{without:.2} | {with:.2} | {:.2} times", with / without));
    }
    println!("| {name} | {} |", columns.join(" | "));
}

/// The sorted latencies of a client that keeps its connection, unless that is old.
fn legacy_latencies(address: SocketAddr, time: Duration) -> Vec<Duration> {
    let mut connection = Connection::open(address);
    let (request, end) = (post(READ.as_bytes()), Instant::now() + time);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let reply = connection.exchange(&request);
        latencies.push(began.elapsed());
        assert_eq!(reply.status, 200, "{}", reply.text());
        if reply.header("connection") == Some("close") {
            connection = Connection::open(address);
        }
    }
    latencies.sort_unstable();
    latencies
}

/// The same over gRPC.
fn grpc_latencies(address: SocketAddr, time: Duration) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let authorization = format!("Basic {}", BASE64_STANDARD.encode("USERNAME:PASSWORD"));
    let mut latencies = runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let client = proto::client(endpoint.connect().await.unwrap());
        let end = Instant::now() + time;
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let mut request = tonic::Request::new(proto::v1::GetStatusRequest {
                email: "test@veratad.com".to_owned(),
            });
            request
                .metadata_mut()
                .insert("authorization", authorization.parse().unwrap());
            let began = Instant::now();
            client.get_status(request).await.unwrap();
            latencies.push(began.elapsed());
        }
        latencies
    });
    latencies.sort_unstable();
    latencies
}

/// Stores an image that a connection has no room for while nobody reads.
fn store_image(gateway: &Gateway) {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(3 * 1024 * 1024, 0x5a);
    let image = BASE64_STANDARD.encode(image);
    let body = format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"test@veratad.com","documents":{{"front":"{image}"}}}}}}"#
    );
    support::eventually("the password is known", || gateway.post(READ).status == 200);
    assert_eq!(gateway.post(&body).status, 200);
}

/// What a slow client does until it is closed.
#[derive(Clone, Copy)]
enum Slow {
    /// Sends nothing.
    Silent,
    /// Sends so many bytes of a request, and no more.
    Part(usize),
    /// Sends a byte a second.
    Trickle,
    /// Sends a request, and does not read the reply.
    Unread,
}

/// Slow clients, until they are to stop.
fn slow_clients(address: SocketAddr, stop: &AtomicBool) {
    let request = post(READ.as_bytes());
    let kinds = [
        Slow::Silent,
        Slow::Part(40),
        Slow::Part(request.len() - 20),
        Slow::Trickle,
        Slow::Unread,
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let clients: Vec<_> = (0..SLOW)
            .map(|number| tokio::spawn(slow_client(address, kinds[number % kinds.len()], request.clone())))
            .collect();
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        clients.into_iter().for_each(|client| client.abort());
    });
}

async fn slow_client(address: SocketAddr, kind: Slow, request: Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    loop {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // A connection that is closed meanwhile is what is waited for.
        match kind {
            Slow::Silent => {}
            Slow::Part(length) => {
                let _ = stream.write_all(&request[..length]).await;
            }
            Slow::Trickle => {
                for byte in request.iter().cycle() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Slow::Unread => {
                let _ = stream.write_all(&post(IMAGES.as_bytes())).await;
                tokio::time::sleep(Duration::from_secs(12)).await;
            }
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

/// Floods: a name, what comes first, and what comes again and again.
fn floods() -> [(&'static str, Vec<u8>, Vec<u8>); 4] {
    let headers = call("GetStatus", "USERNAME:PASSWORD");
    let many = |next: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> { (0..20_000).flat_map(next).collect() };
    [
        (
            "rapid reset",
            Vec::new(),
            many(&|number| cancelled(number * 2 + 1, &headers)),
        ),
        (
            "CONTINUATION flood",
            frame(HEADERS, 0, 1, &headers),
            many(&|_| frame(CONTINUATION, 0, 1, &header("x-more", &"a".repeat(100)))),
        ),
        (
            "PING flood",
            Vec::new(),
            many(&|number| frame(PING, 0, 0, &u64::from(number).to_be_bytes())),
        ),
        (
            "SETTINGS flood",
            Vec::new(),
            many(&|number| settings_frame(&[(4, 65_535 + number % 2)])),
        ),
    ]
}

/// Floods from one client, which comes back as soon as it is closed.
fn flood(address: SocketAddr, first: &[u8], frames: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut raw = Raw(from_elsewhere(address));
        let mut reader = raw.0.try_clone().unwrap();
        thread::scope(|scope| {
            // What comes back is read, or the gateway would wait for that.
            scope.spawn(move || drain(&mut reader));
            let all = [http2::PREFACE, &settings_frame(&[]), first, frames];
            let _ = all.iter().try_for_each(|bytes| raw.0.write_all(bytes));
            let _ = raw.0.shutdown(std::net::Shutdown::Both);
        });
    }
}

/// Connects from an address of its own: after a while, the gateway has no more connections for that.
fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 64 * 1024];
    while matches!(stream.read(&mut bytes), Ok(1..)) {}
}
