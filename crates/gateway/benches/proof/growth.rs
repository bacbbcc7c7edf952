//! What becomes of all that with more customers and more connections, and what a gateway takes that has nothing to do.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use crate::{
    ROUNDS, Scale,
    load::{Asks, Client, Face, Rounds, Target, median, memory_mib, processor_time},
    stores::filled,
    support::{Backend, Cluster, Database, Gateway, gateway::BUILT},
};

const CLIENTS: usize = 64;

/// How many requests are under way at most, however many connections there are.
const UNDER_WAY: usize = 64;

/// How many times a gateway is started.
const STARTS: usize = 10;

/// All connections are from one address, and open before the first of them asks.
const MANY: &[&str] = &[
    "--connections-per-address=20000",
    "--max-connections=20000",
    "--head-timeout=1m",
];

/// The share of the rate that is compared with: what a store of so many customers reaches.
const COMPARED: usize = 100_000;

/// A number of customers on a store.
struct Size {
    backend: Backend,
    customers: usize,
    /// Its size on the disk before it is changed.
    mib: u64,
    rounds: Rounds,
    /// Microseconds of the database server's processor time for a change, by round.
    server: Vec<f64>,
    /// The changes of a transaction, and how many milliseconds one took: means.
    commit: (f64, f64),
}

pub(crate) struct Sizes(Vec<Size>);

pub(crate) fn customers(cluster: &Cluster, scale: &Scale) -> Sizes {
    let mut sizes = Vec::new();
    let mut served = Vec::new();
    for backend in Backend::BOTH {
        for customers in scale.customers.iter().copied() {
            let database = match backend {
                Backend::Sqlite => filled(backend.database(), customers),
                Backend::Postgres => filled(Database::on(cluster), customers),
            };
            let bytes = match backend {
                Backend::Sqlite => fs::metadata(database.path(Database::FILE)).unwrap().len(),
                Backend::Postgres => database
                    .session()
                    .number("pg_database_size(current_database())")
                    .unsigned_abs(),
            };
            let gateway = Gateway::start(&database, &[]);
            let clients = Client::group(Face::Rest, Asks::Changes, 0..customers, CLIENTS);
            served.push((gateway, clients, database));
            sizes.push(Size {
                backend,
                customers,
                mib: bytes >> 20,
                rounds: Rounds::default(),
                server: Vec::new(),
                commit: (0.0, 0.0),
            });
        }
    }
    for round in 0..ROUNDS {
        for ((gateway, clients, _), size) in served.iter_mut().zip(&mut sizes) {
            let target = Target::of(gateway);
            if round == 0 {
                target.load(clients, scale.warm_up);
            }
            let before = server_time(cluster);
            let round = target.load(clients, scale.round);
            let server = server_time(cluster).saturating_sub(before);
            size.server
                .push(server.as_secs_f64() * 1e6 / round.latencies.len() as f64);
            size.rounds.0.push(round);
        }
    }
    for ((gateway, ..), size) in served.iter().zip(&mut sizes) {
        let [changes, commits] = ["sum", "count"].map(|of| metric(gateway, &format!("dcams_write_batch_size_{of}")));
        let seconds = metric(gateway, "dcams_write_commit_seconds_sum");
        size.commit = (changes / commits, seconds * 1e3 / commits);
    }
    Sizes(sizes)
}

/// The processor time that the database server has used.
fn server_time(cluster: &Cluster) -> Duration {
    cluster
        .pids()
        .iter()
        .map(|pid| processor_time(pid.parse().unwrap()))
        .sum()
}

/// The value of a metric that has no labels.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let reply = gateway.get("/metrics");
    let value = reply
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name}"))
}

impl Sizes {
    /// The rate of the most customers, as a share of that of [`COMPARED`], on each store.
    pub(crate) fn kept(&self, backend: Backend) -> f64 {
        let mut of = self.0.iter().filter(|size| size.backend == backend);
        let compared = of.clone().find(|size| size.customers == COMPARED).unwrap();
        of.next_back().unwrap().rounds.rate() / compared.rounds.rate()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "`updateStatus` over REST by {CLIENTS} clients, who come to all customers in an order that jumps about.\n\n\
             | store | customers | MiB | requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request | the load's | PostgreSQL's | \
             changes a commit | ms |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for Size {
            backend,
            customers,
            mib,
            rounds,
            server,
            commit: (changes, milliseconds),
        } in &self.0
        {
            let server = match backend {
                Backend::Sqlite => String::new(),
                Backend::Postgres => format!("{:.0}", median(server.clone())),
            };
            let (rates, latencies, times) = (rounds.rates(), rounds.latencies(), rounds.processor_times());
            let _ = writeln!(
                text,
                "| {backend} | {customers} | {mib} | {rates} | {latencies} | {times} | {server} | {changes:.0} | \
                 {milliseconds:.2} |"
            );
        }
        let share = |backend| self.kept(backend) * 100.0;
        let _ = writeln!(
            text,
            "\nThe most customers have **{:.0} %** of the rate of {COMPARED} on SQLite, and **{:.0} %** on PostgreSQL.",
            share(Backend::Sqlite),
            share(Backend::Postgres)
        );
        text
    }
}

/// A number of connections over a face.
struct Connections {
    face: Face,
    count: usize,
    rounds: Rounds,
}

pub(crate) fn connections(scale: &Scale) -> String {
    const EACH: usize = 4;
    let most = scale.connections.iter().max().unwrap() * EACH;
    let mut all = Vec::new();
    let mut groups = Vec::new();
    for face in [Face::Rest, Face::Grpc] {
        for count in scale.connections {
            let begin = groups.len() * most;
            groups.push(Client::group(face, Asks::Changes, begin..begin + count * EACH, *count));
            all.push(Connections {
                face,
                count: *count,
                rounds: Rounds::default(),
            });
        }
    }
    let database = filled(Backend::Sqlite.database(), groups.len() * most);
    for _ in 0..ROUNDS {
        for (group, connections) in groups.iter_mut().zip(&mut all) {
            // What those before have left in its memory is not counted.
            let gateway = Gateway::start(&database, MANY);
            let target = Target::of(&gateway);
            // By a few: connections that close would count beside those that are measured.
            let few = group.len().min(UNDER_WAY);
            target.load(&mut group[..few], scale.warm_up);
            let round = target.load_in_turn(group, UNDER_WAY, scale.round);
            connections.rounds.0.push(round);
            gateway.stop();
        }
    }
    let mut text = format!(
        "`updateStatus` on SQLite, over so many connections that take turns, with at most {UNDER_WAY} requests under way. The \
         memory is the gateway's at the end.\n\n\
         | face | connections | requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request | the load's | MiB |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for Connections { face, count, rounds } in &all {
        let (rates, latencies, times) = (rounds.rates(), rounds.latencies(), rounds.processor_times());
        let memory = rounds.median(|round| round.memory as f64);
        let _ = writeln!(
            text,
            "| {face:?} | {count} | {rates} | {latencies} | {times} | {memory:.0} |"
        );
    }
    text
}

/// A gateway that starts, and does nothing then.
pub(crate) fn start(cluster: &Cluster) -> String {
    let mut text = String::from("| store | from start to ready, ms | memory when idle, MiB |\n|---|---|---|\n");
    for database in [Backend::Sqlite.database(), Database::on(cluster)] {
        // It has its schema already, as at any start but the first.
        let database = filled(database, 1_000);
        let (mut times, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let began = Instant::now();
            let gateway = Gateway::start(&database, &[]);
            times.push(began.elapsed());
            memory.push(memory_mib(gateway.pid(), "VmRSS").unwrap() as f64);
            gateway.stop();
        }
        let times = times
            .iter()
            .map(Duration::as_secs_f64)
            .map(|seconds| seconds * 1e3)
            .collect();
        let (time, memory) = (median(times), median(memory));
        let _ = writeln!(text, "| {} | {time:.0} | {memory:.0} |", database.backend);
    }
    let bytes = fs::metadata(BUILT).unwrap().len();
    let _ = writeln!(text, "\nThe program has {:.1} MiB.", bytes as f64 / f64::from(1 << 20));
    text
}
