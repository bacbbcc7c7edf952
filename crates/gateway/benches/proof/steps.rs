//! What each step of the facade costs, with no store behind it: from a server that answers with bytes which it has, to the
//! facade with the generated server and remembered credentials in one process.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{Json, Router, routing::post, serve::ListenerExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proto::v1::{Customer, Status, storage_service_server::StorageServiceServer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

use crate::{
    ROUNDS, Scale,
    load::{Client, Exchange, PASSWORD, Rounds, Target, USER, grpc_update, legacy_reply, rest_update},
    runtime,
    service::{Service, john},
};

/// The argument with which this program becomes the server of a step.
pub(crate) const ARGUMENT: &str = "--step";

const CLIENTS: usize = 64;

/// The customer of every request and answer.
const CUSTOMER: usize = 4_711;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hyper,
    Axum,
    Json,
    Grpc,
    Credentials,
    Tonic,
    TonicCredentials,
}

impl Step {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Hyper, "hyper: bytes"),
        (Self::Axum, "axum: bytes"),
        (Self::Json, "axum: JSON read and written"),
        (Self::Grpc, "the facade, its call as a message in the same process"),
        (Self::Credentials, "the same, and credentials looked at"),
        (Self::Tonic, "tonic (gRPC)"),
        (Self::TonicCredentials, "the same, and credentials looked at"),
    ];

    fn exchange(self) -> Exchange {
        match self {
            Self::Tonic | Self::TonicCredentials => grpc_update(CUSTOMER, Status::Pass),
            _ => rest_update(CUSTOMER, "PASS"),
        }
    }
}

/// A process that serves a step until this is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([ARGUMENT, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            address: line.trim().parse().unwrap(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its input ends, and with that it ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What the steps came to.
pub(crate) struct Steps(Vec<(&'static str, Rounds)>);

pub(crate) fn measure(scale: &Scale) -> Steps {
    let servers: Vec<_> = Step::ALL
        .iter()
        .map(|(step, _)| Server::start(&format!("{step:?}")))
        .collect();
    let mut steps: Vec<_> = Step::ALL.iter().map(|(_, name)| (*name, Rounds::default())).collect();
    for _ in 0..ROUNDS {
        for ((server, (step, _)), (_, rounds)) in servers.iter().zip(Step::ALL).zip(&mut steps) {
            let target = Target {
                rest: server.address,
                grpc: server.address,
                pids: vec![server.child.id()],
            };
            let mut clients = Client::repeating(&[step.exchange()], CLIENTS);
            target.load(&mut clients, scale.warm_up);
            rounds.0.push(target.load(&mut clients, scale.round));
        }
    }
    Steps(steps)
}

impl Steps {
    fn cpu(&self, step: Step) -> f64 {
        let place = Step::ALL.iter().position(|(of, _)| *of == step).unwrap();
        self.0[place].1.cpu().unwrap()
    }

    /// How much more processor time the facade takes than axum with JSON.
    pub(crate) fn facade(&self) -> f64 {
        self.cpu(Step::Credentials) / self.cpu(Step::Json)
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "`updateStatus` by {CLIENTS} clients of a server that stores nothing, a process of its own that always has the same \
             answer.\n\n\
             | step | requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request | the load's |\n|---|---|---|---|---|---|---|\n"
        );
        for (name, rounds) in &self.0 {
            let (rates, latencies, times) = (rounds.rates(), rounds.latencies(), rounds.processor_times());
            let _ = writeln!(text, "| {name} | {rates} | {latencies} | {times} |");
        }
        text
    }
}

/// Serves a step until the standard input ends.
pub(crate) fn serve(name: &str) {
    let step = Step::ALL
        .iter()
        .map(|(step, _)| *step)
        .find(|step| format!("{step:?}") == name);
    let step = step.expect("a step");
    let runtime = runtime();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        tokio::spawn(answer(step, listener));
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
            .await
            .unwrap()
            .unwrap();
    });
    // What still serves is not waited for.
    runtime.shutdown_timeout(Duration::ZERO);
}

async fn answer(step: Step, listener: TcpListener) {
    let bytes = Bytes::from(legacy_reply(CUSTOMER, "PASS"));
    let path = rest::PATHS[0];
    let router = match step {
        Step::Hyper => return answer_bytes(listener, bytes).await,
        Step::Axum => Router::new().route(
            path,
            post(move |_: Bytes| async { ([("content-type", "application/json")], bytes) }),
        ),
        Step::Json => Router::new().route(path, post(answer_json)),
        Step::Grpc => facade(Service::open(customer())),
        Step::Credentials => facade(Service::guarded(customer(), USER, PASSWORD).await),
        Step::Tonic => return answer_grpc(listener, Service::open(customer())).await,
        Step::TonicCredentials => {
            let service = Service::guarded(customer(), USER, PASSWORD).await;
            return answer_grpc(listener, service).await;
        }
    };
    axum::serve(listener.tap_io(|stream| stream.set_nodelay(true).unwrap()), router)
        .await
        .unwrap();
}

async fn answer_bytes(listener: TcpListener, bytes: Bytes) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let bytes = bytes.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let bytes = bytes.clone();
            async move {
                request.into_body().collect().await.unwrap();
                let response = Response::builder().header("content-type", "application/json");
                Ok::<_, Infallible>(response.body(Full::new(bytes)).unwrap())
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer_grpc(listener: TcpListener, service: Service) {
    let streams = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .add_service(StorageServiceServer::new(service))
        .serve_with_incoming(streams)
        .await
        .unwrap();
}

fn facade(service: Service) -> Router {
    let service = Arc::new(service);
    let server = StorageServiceServer::from_arc(Arc::clone(&service));
    rest::router(
        proto::client(server).near(service),
        proto::Gate::default(),
        rest::Settings::default(),
        proto::Budget::default(),
        proto::Telemetry::default(),
    )
}

fn customer() -> Customer {
    john(&format!("customer{CUSTOMER}@example.com"), &CUSTOMER.to_string())
}

#[derive(Deserialize)]
struct LegacyRequest {
    user: String,
    pass: String,
    service: String,
    target: LegacyUpdate,
}

#[derive(Deserialize)]
struct LegacyUpdate {
    email: String,
    status: String,
}

#[derive(Serialize)]
struct LegacyReply {
    result: &'static str,
    reference: String,
    target: LegacyCustomer,
}

#[derive(Serialize)]
struct LegacyCustomer {
    #[serde(rename = "fn")]
    first_name: String,
    #[serde(rename = "ln")]
    last_name: String,
    addr: String,
    city: String,
    state: String,
    zip: String,
    dob: String,
    email: String,
    phone: String,
    status: String,
}

/// The least that a handler of axum's can do: JSON in, JSON out.
async fn answer_json(Json(request): Json<LegacyRequest>) -> Json<LegacyReply> {
    assert_eq!(
        (&*request.user, &*request.pass, &*request.service),
        (USER, PASSWORD, "updateStatus")
    );
    let customer = customer();
    Json(LegacyReply {
        result: "Success",
        reference: customer.reference,
        target: LegacyCustomer {
            first_name: customer.first_name,
            last_name: customer.last_name,
            addr: customer.address,
            city: customer.city,
            state: customer.state,
            zip: customer.zip,
            dob: customer.date_of_birth,
            email: request.target.email,
            phone: customer.phone,
            status: request.target.status,
        },
    })
}
