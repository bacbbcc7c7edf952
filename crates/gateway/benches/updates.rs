//! What group commit is worth, and what encryption costs: `updateStatus` over REST, many changes in a transaction against
//! one transaction for each, in clear text and encrypted, by the same program, in turn, on both stores; then imports of a
//! small and a large file, and what a stream of the feed costs and how late it is. Prints tables; `--write` puts them into
//! BENCHMARKS.md as well, between its marks; `--feed` measures the feed alone; `--against PROGRAM` only group commit, by
//! this program and by another build of it, in turn: what a change to it has cost.
//!
//! Every reply is checked, and every request changes a status, so that each one writes two rows and waits for the disk.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../../../tests/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod support;

#[allow(dead_code, unused_imports)]
mod load;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use load::{Asks, Client, Face, Round, Rounds, Target, csv, median, memory_mib, write_between};
use support::{
    Backend, Cluster, Database, Durability, Gateway, dcams,
    gateway::{BUILT, dcams_of, program_at},
    program,
};

const CONNECTIONS: usize = 64;
const CUSTOMERS: usize = 10_000;
const ROUNDS: usize = 3;

/// A transaction for each change, on one connection and on eight: so slow that a change may wait for longer than a queue
/// usually may.
const EACH: &[&str] = &["--write-batch", "1", "--queue-wait", "1m"];
const EACH_ON_EIGHT: &[&str] = &["--write-batch", "1", "--queue-wait", "1m", "--writers", "8"];

/// What is measured: a name, how a store of its own is made, and how the program writes to it.
struct Subject<'a> {
    name: &'static str,
    /// The path of the program.
    program: &'a str,
    make: Make<'a>,
    arguments: &'static [&'static str],
    rounds: Rounds,
}

type Make<'a> = &'a dyn Fn() -> Database;

/// A subject that runs, on a store that is new: on one that it has written to before, the faster it is, the longer would be the history
/// that it has to go on with.
struct Running {
    gateway: Gateway,
    target: Target,
    /// They go on where they have stopped, so that every request changes something.
    clients: Vec<Client>,
    _database: Database,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let seconds = if has("--quick") { 2 } else { 8 };

    let cluster = Cluster::start(Durability::Full);
    if let Some(at) = arguments.iter().position(|argument| argument == "--against") {
        let other = arguments.get(at + 1).expect("--against needs the path of a program");
        return against(&cluster, other, seconds);
    }
    let sqlite: Make<'_> = &|| Backend::Sqlite.database();
    let sqlite_encrypted: Make<'_> = &|| Backend::Sqlite.database().encrypted();
    let postgres: Make<'_> = &|| Database::on(&cluster);
    let postgres_encrypted: Make<'_> = &|| Database::on(&cluster).encrypted();
    let mut subjects = [
        ("SQLite, group commit", sqlite, &[][..]),
        ("SQLite, group commit, encrypted", sqlite_encrypted, &[]),
        ("SQLite, a transaction each, 8 connections", sqlite, EACH_ON_EIGHT),
        ("SQLite, a transaction each, 1 connection", sqlite, EACH),
        ("PostgreSQL, group commit", postgres, &[]),
        ("PostgreSQL, group commit, encrypted", postgres_encrypted, &[]),
        ("PostgreSQL, a transaction each, 8 connections", postgres, EACH_ON_EIGHT),
    ]
    .map(|(name, make, arguments)| Subject::new(name, BUILT, make, arguments));
    if has("--feed") {
        let followed = [followed(&subjects[0], seconds), followed(&subjects[4], seconds)];
        return println!("{}", feed(&followed));
    }
    in_turn(&mut subjects, seconds);
    // Each part is shown when it is there: all of them together take ten minutes.
    let mut report = report(&subjects, seconds);
    println!("{report}");
    let followed = [followed(&subjects[0], seconds), followed(&subjects[4], seconds)];
    let feed = feed(&followed);
    println!("{feed}");
    let million = if has("--quick") { 100_000 } else { 1_000_000 };
    let imports = imports(&[million / 20, million]);
    println!("{imports}");
    report += &(feed + &imports);
    if has("--write") {
        write_between("updates", &report);
    }
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, program: &'a str, make: Make<'a>, arguments: &'static [&'static str]) -> Self {
        Self {
            name,
            program,
            make,
            arguments,
            rounds: Rounds::default(),
        }
    }

    /// Begins on a store with an account and its customers, made by the program that is measured on it.
    fn begin(&self) -> Running {
        let database = (self.make)();
        let run = |arguments: &[&str], input: &str| {
            dcams_of(program_at(self.program), &database, arguments, input).ok();
        };
        run(&["account", "create", "bench", "--password-stdin"], "bench password");
        let file = database.file("customers.csv", csv(CUSTOMERS));
        run(
            &["customer", "import", file.to_str().unwrap(), "--account", "bench"],
            "",
        );
        let any = ([127, 0, 0, 1], 0).into();
        let gateway = Gateway::start_of(program_at(self.program), &database, any, self.arguments);
        Running {
            target: Target::of(&gateway),
            gateway,
            clients: Client::group(Face::Rest, Asks::Changes, 0..CUSTOMERS, CONNECTIONS),
            _database: database,
        }
    }
}

impl Running {
    fn load(&mut self, seconds: u64) -> Round {
        self.target.load(&mut self.clients, Duration::from_secs(seconds))
    }
}

/// Measures each, a round after the other.
fn in_turn(subjects: &mut [Subject<'_>], seconds: u64) {
    for _ in 0..ROUNDS {
        for subject in &mut *subjects {
            let mut running = subject.begin();
            running.load(1);
            subject.rounds.0.push(running.load(seconds));
            running.gateway.stop();
        }
    }
}

/// Measures this program and another build of it.
fn against(cluster: &Cluster, other: &str, seconds: u64) {
    let sqlite: Make<'_> = &|| Backend::Sqlite.database();
    let postgres: Make<'_> = &|| Database::on(cluster);
    let mut subjects = [
        ("SQLite, this program", BUILT, sqlite),
        ("SQLite, the other", other, sqlite),
        ("PostgreSQL, this program", BUILT, postgres),
        ("PostgreSQL, the other", other, postgres),
    ]
    .map(|(name, program, make)| Subject::new(name, program, make, &[]));
    in_turn(&mut subjects, seconds);
    println!("{}", table(&subjects));
    for pair in subjects.chunks(2) {
        println!("- {}", share(&pair[0], &pair[1]));
    }
}

/// What a stream of the feed came to, and cost, under the whole load.
struct Followed {
    name: &'static str,
    /// Requests a second, round by round.
    alone: Vec<f64>,
    with_stream: Vec<f64>,
    /// Sorted: the time from a change to its arrival at the consumer.
    lags: Vec<Duration>,
}

/// Loads a gateway with and without a stream of the feed, in turn.
fn followed(subject: &Subject<'_>, seconds: u64) -> Followed {
    let mut followed = Followed {
        name: subject.name,
        alone: Vec::new(),
        with_stream: Vec::new(),
        lags: Vec::new(),
    };
    for _ in 0..ROUNDS {
        let mut running = subject.begin();
        running.load(1);
        followed.alone.push(running.load(seconds).rate);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let begun = runtime.block_on(follow(&running.gateway));
        let consumer = runtime.spawn(lags(begun));
        let round = running.load(seconds);
        followed.with_stream.push(round.rate);
        let changes = round.latencies.len();
        // The stream ends with the gateway.
        support::eventually("the stream has sent every change", || {
            let metrics = running.gateway.get("/metrics");
            metrics
                .text()
                .contains(&format!("dcams_feed_changes_sent_total {changes}\n"))
        });
        running.gateway.stop();
        let mut lags = runtime.block_on(consumer).unwrap();
        assert_eq!(lags.len(), changes, "each change comes once");
        followed.lags.append(&mut lags);
    }
    followed.lags.sort_unstable();
    followed
}

type Feed = tonic::Streaming<proto::v1::WatchStatusChangesResponse>;

/// Begins a stream of what is new, and waits until it has begun.
async fn follow(gateway: &Gateway) -> Feed {
    let address = format!("http://{}", gateway.grpc.unwrap());
    let channel = tonic::transport::Endpoint::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut request = tonic::Request::new(proto::v1::WatchStatusChangesRequest {
        cursor: String::new(),
        only_new: true,
    });
    let credentials = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "bench:bench password");
    let authorization = format!("Basic {credentials}").parse().unwrap();
    request.metadata_mut().insert("authorization", authorization);
    let response = proto::v1::storage_service_client::StorageServiceClient::new(channel)
        .watch_status_changes(request)
        .await
        .unwrap();
    let mut feed = response.into_inner();
    feed.message().await.unwrap();
    feed
}

/// How old each change is when it comes, until the gateway stops.
async fn lags(mut feed: Feed) -> Vec<Duration> {
    let mut lags = Vec::new();
    while let Ok(Some(answer)) = feed.message().await {
        let now = std::time::SystemTime::now();
        for change in answer.changes {
            let time = std::time::SystemTime::try_from(change.change_time.unwrap()).unwrap();
            lags.push(now.duration_since(time).unwrap_or_default());
        }
    }
    lags
}

/// The table of the feed.
fn feed(followed: &[Followed]) -> String {
    let mut text = String::from(
        "\n## Feed\n\nThe same load, with and without a client that follows `WatchStatusChanges`, in turn, on the same \
         gateway. The lag is from the time of a change, which is before its commit, to its arrival at the client. No change \
         was missed.\n\n\
         | store and writer | requests/s without a stream | with one | | changes | lag p50 ms | p99 ms | most ms |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for of in followed {
        let lag = |share: f64| of.lags[((of.lags.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let (alone, with_stream) = (median(of.alone.clone()), median(of.with_stream.clone()));
        let _ = writeln!(
            text,
            "| {} | {alone:.0} | {with_stream:.0} | {:.0} % | {} | {:.1} | {:.1} | {:.1} |",
            of.name,
            with_stream / alone * 100.0,
            of.lags.len(),
            lag(0.5),
            lag(0.99),
            lag(1.0),
        );
    }
    text
}

fn report(subjects: &[Subject<'_>], seconds: u64) -> String {
    let cores = std::thread::available_parallelism().unwrap();
    let mut text = format!(
        "`updateStatus` over REST, every request a change with its history row, {CONNECTIONS} keep-alive connections, \
         {CUSTOMERS} customers, {cores} cores with the load generator and PostgreSQL on the same ones, SQLite with \
         `synchronous=FULL`, PostgreSQL with `fsync` and `synchronous_commit` on. Medians of {ROUNDS} rounds of \
         {seconds} s in turn, each on a new store (lowest to highest). Made by:\n\n\
         ```\ncargo bench -p dcams-gateway --bench updates -- --write\n```\n\n"
    );
    text += &table(subjects);
    text.push('\n');
    for (group, alone) in [(0, 2), (0, 3), (4, 6)] {
        let _ = writeln!(
            text,
            "- {} reaches **{:.1} times** {}.",
            subjects[group].name,
            subjects[group].rounds.rate() / subjects[alone].rounds.rate(),
            subjects[alone].name,
        );
    }
    for (clear, encrypted) in [(0, 1), (4, 5)] {
        let _ = writeln!(text, "- {}", share(&subjects[encrypted], &subjects[clear]));
    }
    text
}

/// How much of another's rate one reaches.
fn share(one: &Subject<'_>, other: &Subject<'_>) -> String {
    let share = one.rounds.rate() / other.rounds.rate() * 100.0;
    format!("{} reaches **{share:.0} %** of {}.", one.name, other.name)
}

/// What each came to.
fn table(subjects: &[Subject<'_>]) -> String {
    let mut text = String::from(
        "| store and writer | requests/s | p50 ms | p99 ms | p99.9 ms | gateway CPU µs/request | the load's |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for Subject { name, rounds, .. } in subjects {
        let (rates, latencies, times) = (rounds.rates(), rounds.latencies(), rounds.processor_times());
        let _ = writeln!(text, "| {name} | {rates} | {latencies} | {times} |");
    }
    text
}

/// How fast files of so many rows are imported into SQLite, and how much memory that takes.
fn imports(sizes: &[usize]) -> String {
    let mut text = String::from(
        "\n## Import\n\n`customer import` of CSV into an empty SQLite store.\n\n\
         | rows | store | rows/s | peak RSS MiB |\n|---|---|---|---|\n",
    );
    for encrypted in [false, true] {
        for rows in sizes {
            let database = Backend::Sqlite.database();
            let (database, store) = match encrypted {
                true => (database.encrypted(), "encrypted"),
                false => (database, "in clear text"),
            };
            dcams(&database, &["account", "create", "bench"], "").ok();
            let file = database.file("customers.csv", csv(*rows));
            let mut import = program();
            import
                .args(database.arguments())
                .args(["customer", "import", file.to_str().unwrap(), "--account", "bench"])
                .stdout(std::process::Stdio::null());
            let began = Instant::now();
            let mut child = import.spawn().unwrap();
            let mut peak = 0;
            // What it had at most is known only while it lives.
            while child.try_wait().unwrap().is_none() {
                peak = memory_mib(child.id(), "VmHWM").unwrap_or(peak);
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(child.wait().unwrap().success());
            let rate = *rows as f64 / began.elapsed().as_secs_f64();
            let _ = writeln!(text, "| {rows} | {store} | {rate:.0} | {peak} |");
        }
    }
    text
}
