//! What becomes of a gateway that is asked for five times of what it can do: how much of that it still does, how soon those
//! whom it serves and those whom it refuses are answered, how soon all is well again, and how its memory grows.
//!
//! On each face, with group commit (where the processor is the bound) and with a transaction for each change (where the disk
//! is): first the capacity, from callers that wait for their answers; then five times as much, on a timetable that does not
//! wait. This load shares the machine with the gateway: where the processor is the bound, it can offer no more than it leaves,
//! which the table says. `--quick` is shorter, and `--disk` measures only where the disk is the bound.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../../../tests/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod support;

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proto::v1::UpdateStatusRequest;
use support::{Backend, Cluster, Database, Durability, Gateway, dcams};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// How many callers find out the capacity.
const CALLERS: usize = 64;

/// How many callers overload where the disk is the bound. A change that is served takes half a second, in which its caller asks
/// for nothing else: fewer could not offer that much.
const CROWD: usize = 6_000;

/// How many where the processor is. They share it, and cannot offer that much however many they are: more of them would only wait
/// longer for each other.
const FEW: usize = 500;

/// How many times the capacity is offered.
const TIMES: f64 = 5.0;

/// How many callers share a gRPC connection.
const SHARED: usize = 50;

/// How many callers have the same address, below what a listener takes of one.
const NEIGHBOURS: usize = 200;

/// While it overloads, this load looks for answers and sends what is due once in this time, all at once. Asleep in between it takes
/// less of the cores that it shares with the gateway: woken for each answer, it alone kept one of them busy.
const TICK: Duration = Duration::from_millis(1);
static IS_TICKING: AtomicBool = AtomicBool::new(false);

/// How many answers in a row, each as soon as this, mean that all is well.
const WELL: usize = 20;
const SOON: Duration = Duration::from_millis(50);

/// How long a caller waits for an answer before it counts as lost: longer than any call may take.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Rest,
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    Refused,
    /// A deadline that passed, or anything else that is neither.
    Failed,
}

/// One that calls, about a customer of its own.
struct Caller {
    number: usize,
    line: Line,
    passes: bool,
}

enum Line {
    /// With what it sends, made once: what the load does for a call, its caller waits for as well.
    Rest(TcpStream, Vec<u8>, [Vec<u8>; 2]),
    Grpc(SendRequest<Full<Bytes>>, SocketAddr, String),
}

/// The answers of a time.
#[derive(Default)]
struct Answers {
    served: Vec<Duration>,
    refused: Vec<Duration>,
    failed: usize,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let only_disk = std::env::args().any(|argument| argument == "--disk");
    let seconds = if quick { 10 } else { 60 };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(|| {
            if IS_TICKING.load(Ordering::Relaxed) {
                thread::sleep(TICK);
            }
        })
        .build()
        .unwrap();
    let mut table = String::from(
        "| face, store | capacity/s | offered/s | served/s | goodput | served p99 ms | refused p99 ms | failed | well again s | \
         memory MiB, before, most |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let cluster = Cluster::start(Durability::Full);
    type Make<'a> = &'a dyn Fn() -> Database;
    let sqlite: Make<'_> = &|| Backend::Sqlite.database();
    let postgres: Make<'_> = &|| Database::on(&cluster);
    for (name, make, arguments, crowd) in [
        ("SQLite, a transaction each", sqlite, &["--write-batch", "1"][..], CROWD),
        (
            "PostgreSQL, a transaction each",
            postgres,
            &["--write-batch", "1"],
            CROWD,
        ),
        ("SQLite, group commit", sqlite, &[], FEW),
        ("PostgreSQL, group commit", postgres, &[], FEW),
    ] {
        if only_disk && crowd == FEW {
            continue;
        }
        for face in [Face::Rest, Face::Grpc] {
            let database = filled(make());
            let gateway = Gateway::start(&database, arguments);
            let row = runtime.block_on(measure(&gateway, face, Duration::from_secs(seconds), crowd));
            let _ = writeln!(table, "| {face:?}, {name} | {row} |");
            println!("{face:?}, {name}: {row}");
            gateway.stop();
        }
    }
    println!("\n{table}");
}

/// A store with a customer for each caller.
fn filled(database: Database) -> Database {
    dcams(
        &database,
        &["account", "create", "bench", "--password-stdin"],
        "bench password",
    )
    .ok();
    let mut rows = String::from("email\n");
    for number in 0..CROWD {
        let _ = writeln!(rows, "customer{number}@example.com");
    }
    let file = database.file("customers.csv", rows);
    dcams(
        &database,
        &["customer", "import", file.to_str().unwrap(), "--account", "bench"],
        "",
    )
    .ok();
    database
}

/// Finds out the capacity, offers more, and looks how soon that is over.
async fn measure(gateway: &Gateway, face: Face, time: Duration, callers: usize) -> String {
    let mut few = crowd(gateway, face, CALLERS).await;
    // The password is hashed once, which on a busy machine may have to be tried again.
    let began = Instant::now();
    while few[0].as_mut().unwrap().call().await != Outcome::Served {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is served");
    }
    // A second for all else that is made once.
    run(&mut few, Duration::from_secs(1), None).await;
    let found = Duration::from_secs(4);
    let capacity = run(&mut few, found, None).await;
    assert_eq!(capacity.failed, 0, "below its capacity nobody waits in vain");
    let capacity = capacity.served.len() as f64 / found.as_secs_f64();

    drop(few);

    let before = memory(gateway, "VmRSS:");
    let every = Duration::from_secs_f64(callers as f64 / (capacity * TIMES));
    let mut crowd = crowd(gateway, face, callers).await;
    IS_TICKING.store(true, Ordering::Relaxed);
    let mut under = run(&mut crowd, time, Some(every)).await;
    IS_TICKING.store(false, Ordering::Relaxed);
    let ended = Instant::now();
    let mut well = 0;
    let caller = crowd[0].as_mut().unwrap();
    while well < WELL {
        assert!(ended.elapsed() < Duration::from_secs(60), "it does not recover");
        let began = Instant::now();
        let served = caller.call().await == Outcome::Served;
        well = if served && began.elapsed() <= SOON { well + 1 } else { 0 };
    }
    let well = ended.elapsed();

    let answered = under.served.len() + under.refused.len() + under.failed;
    let seconds = time.as_secs_f64();
    let served = under.served.len() as f64 / seconds;
    format!(
        "{capacity:.0} | {:.0} | {served:.0} | {:.0} % | {:.0} | {:.0} | {} | {:.1} | {before:.0}, {:.0}",
        answered as f64 / seconds,
        served / capacity * 100.0,
        p99(&mut under.served),
        p99(&mut under.refused),
        under.failed,
        well.as_secs_f64(),
        memory(gateway, "VmHWM:"),
    )
}

/// Connects callers to a face, from many addresses.
async fn crowd(gateway: &Gateway, face: Face, callers: usize) -> Vec<Option<Caller>> {
    let address = match face {
        Face::Rest => gateway.rest,
        Face::Grpc => gateway.grpc.unwrap(),
    };
    let mut shared: Option<SendRequest<Full<Bytes>>> = None;
    let mut crowd = Vec::with_capacity(callers);
    for number in 0..callers {
        let connect = async || {
            let socket = TcpSocket::new_v4().unwrap();
            let neighbours = u8::try_from(2 + number / NEIGHBOURS).unwrap();
            socket.bind((Ipv4Addr::new(127, 0, 0, neighbours), 0).into()).unwrap();
            let stream = socket.connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        let line = match face {
            Face::Rest => Line::Rest(
                connect().await,
                Vec::new(),
                ["PASS", "FAIL"].map(|to| request(number, to)),
            ),
            Face::Grpc => {
                if number % SHARED == 0 {
                    let stream = TokioIo::new(connect().await);
                    let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                        .await
                        .unwrap();
                    tokio::spawn(driver);
                    shared = Some(sender);
                }
                let credentials = BASE64_STANDARD.encode("bench:bench password");
                Line::Grpc(shared.clone().unwrap(), address, format!("Basic {credentials}"))
            }
        };
        crowd.push(Some(Caller {
            number,
            line,
            passes: false,
        }));
    }
    crowd
}

/// Lets callers call for a time: one call after the other, or each by a timetable, on which a call that is late is made at
/// once.
async fn run(callers: &mut [Option<Caller>], time: Duration, every: Option<Duration>) -> Answers {
    let began = Instant::now();
    let count = u32::try_from(callers.len()).unwrap();
    let tasks: Vec<_> = (0..count)
        .zip(callers.iter_mut())
        .map(|(number, caller)| {
            let mut caller = caller.take().unwrap();
            tokio::spawn(async move {
                let mut answers = Answers::default();
                let mut next = began + every.map_or(Duration::ZERO, |every| every * number / count);
                loop {
                    if let Some(every) = every {
                        tokio::time::sleep_until(next.into()).await;
                        // What was missed is not made up for: it would come all at once.
                        next = (next + every).max(Instant::now());
                    }
                    let sent = Instant::now();
                    if sent >= began + time {
                        return (caller, answers);
                    }
                    match caller.call().await {
                        Outcome::Served => answers.served.push(sent.elapsed()),
                        Outcome::Refused => answers.refused.push(sent.elapsed()),
                        Outcome::Failed => answers.failed += 1,
                    }
                }
            })
        })
        .collect();
    let mut all = Answers::default();
    for (task, place) in tasks.into_iter().zip(callers) {
        let (caller, answers) = task.await.unwrap();
        *place = Some(caller);
        all.served.extend(answers.served);
        all.refused.extend(answers.refused);
        all.failed += answers.failed;
    }
    all
}

impl Caller {
    /// Changes the status of the customer. Every call that is served writes.
    async fn call(&mut self) -> Outcome {
        let call = async {
            match &mut self.line {
                Line::Rest(stream, buffer, requests) => post(stream, buffer, &requests[usize::from(self.passes)]).await,
                Line::Grpc(sender, address, credentials) => {
                    update(sender, *address, credentials, self.number, self.passes).await
                }
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, call).await.expect("an answer");
        if outcome == Outcome::Served {
            self.passes = !self.passes;
        }
        outcome
    }
}

/// The request that sets the status of the customer with this number.
fn request(number: usize, status: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"user":"bench","pass":"bench password","service":"updateStatus","target":{{"email":"customer{number}@example.com","status":"{status}"}}}}"#
    );
    support::post(body.as_bytes())
}

async fn post(stream: &mut TcpStream, buffer: &mut Vec<u8>, request: &[u8]) -> Outcome {
    stream.write_all(request).await.unwrap();
    buffer.clear();
    loop {
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the connection was closed");
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = str::from_utf8(&buffer[..head]).unwrap();
        let (_, length) = text.split_once("content-length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        if buffer.len() >= head + 4 + length {
            return match &text[9..12] {
                "200" => Outcome::Served,
                "429" | "503" => Outcome::Refused,
                _ => Outcome::Failed,
            };
        }
    }
}

async fn update(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    credentials: &str,
    number: usize,
    passes: bool,
) -> Outcome {
    let message = UpdateStatusRequest {
        email: format!("customer{number}@example.com"),
        status: if passes {
            proto::v1::Status::Fail
        } else {
            proto::v1::Status::Pass
        }
        .into(),
        ..UpdateStatusRequest::default()
    };
    let mut body = vec![0];
    body.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    message.encode(&mut body).unwrap();
    let request = Request::post(format!("http://{address}/dcams.storage.v1.StorageService/UpdateStatus"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", credentials)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    // A refusal has no body: its status is in the headers.
    let status = match response.headers().get("grpc-status") {
        Some(status) => status.clone(),
        None => {
            let body = response.into_body().collect().await.unwrap();
            body.trailers().unwrap()["grpc-status"].clone()
        }
    };
    match status.as_bytes() {
        b"0" => Outcome::Served,
        b"8" | b"14" => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// In milliseconds; 0 of none.
fn p99(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// A line of the gateway's status, in MiB.
fn memory(gateway: &Gateway, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let kib = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
