//! How much is done in a second, and how soon, by 1 to 256 clients: changes, reads and both, over each face, on each store; and
//! beside the changes the same work by pgbench, by the same gateway with a transaction each, and by the store alone.

use std::{fmt::Write as _, ops::Range, time::Duration};

use crate::{
    ROUNDS, Scale,
    load::{Asks, Client, Face, Round, Rounds, Target},
    stores::{Alone, filled, pgbench},
    support::{Backend, Cluster, Database, Gateway},
};

/// A transaction for each change is so slow that changes would be refused: nothing is, however long it waits.
const EACH: &[&str] = &[
    "--write-batch=1",
    "--queue-wait=1m",
    "--lag-limit=1m",
    "--write-queue=65536",
];
const ON_EIGHT: &[&str] = &["--writers", "8"];

/// All clients of a test share an address.
const MANY: &[&str] = &["--connections-per-address", "20000"];

/// How many customers are changed by the clients of one test, so that each knows what their statuses are.
const SHARE: usize = 4_000;

/// All customers: those that are only read, and a share for each face, number of clients and kind of test.
const CUSTOMERS: usize = SHARE * 17;

type Run<'a> = Box<dyn FnMut(usize, Duration) -> Round + 'a>;

/// What is measured: a name, and a round of it by the clients of a place in [`Scale::clients`].
struct Subject<'a> {
    name: &'static str,
    run: Run<'a>,
    /// By number of clients.
    rounds: Vec<Rounds>,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, scale: &Scale, run: Run<'a>) -> Self {
        let rounds = scale.clients.iter().map(|_| Rounds::default()).collect();
        Self { name, run, rounds }
    }
}

/// What a table says.
struct Table {
    title: &'static str,
    rows: Vec<(&'static str, Vec<Rounds>)>,
}

pub(crate) struct Throughput {
    clients: &'static [usize],
    tables: Vec<Table>,
}

const REST_SQLITE: &str = "REST, SQLite";
const REST_POSTGRES: &str = "REST, PostgreSQL";
const EACH_SQLITE: &str = "REST, SQLite, a transaction each, 1 connection";
const EACH_ON_EIGHT_SQLITE: &str = "REST, SQLite, a transaction each, 8 connections";
const EACH_POSTGRES: &str = "REST, PostgreSQL, a transaction each, 8 connections";
const ALONE: &str = "SQLite, a transaction each, 1 connection, no gateway";
const ALONE_ON_EIGHT: &str = "SQLite, a transaction each, 8 connections, no gateway";
const PGBENCH: &str = "pgbench";

/// The customers of a test.
fn share(face: Face, asks: Asks, place: usize) -> Range<usize> {
    let kind = match asks {
        Asks::Reads => return 0..SHARE,
        Asks::Changes => 0,
        Asks::Mixed => 1,
    };
    let number = 1 + (usize::from(face == Face::Grpc) * 4 + place) * 2 + kind;
    number * SHARE..(number + 1) * SHARE
}

/// A round of a face, its clients going on from round to round.
fn face<'a>(target: &'a Target, face: Face, asks: Asks, scale: &Scale) -> Run<'a> {
    let groups = scale.clients.iter().enumerate();
    let mut groups: Vec<_> = groups
        .map(|(place, clients)| Client::group(face, asks, share(face, asks, place), *clients))
        .collect();
    Box::new(move |place, time| target.load(&mut groups[place], time))
}

pub(crate) fn measure(cluster: &Cluster, scale: &Scale) -> Throughput {
    let sqlite = || filled(Backend::Sqlite.database(), CUSTOMERS);
    let postgres = || filled(Database::on(cluster), CUSTOMERS);
    let databases = [
        sqlite(),
        postgres(),
        sqlite(),
        sqlite(),
        postgres(),
        sqlite(),
        sqlite(),
        postgres(),
    ];
    let [
        on_sqlite,
        on_postgres,
        each_sqlite,
        each_on_eight_sqlite,
        each_postgres,
        alone,
        alone_on_eight,
        for_pgbench,
    ] = &databases;
    let each_on_eight = [EACH, ON_EIGHT].concat();
    let serve = |database, arguments: &[&str]| Gateway::start(database, &[arguments, MANY].concat());
    let gateways = [
        serve(on_sqlite, &[]),
        serve(on_postgres, &[]),
        serve(each_sqlite, EACH),
        serve(each_on_eight_sqlite, &each_on_eight),
        serve(each_postgres, &each_on_eight),
    ];
    let [sqlite, postgres, each_sqlite, each_on_eight_sqlite, each_postgres] = gateways.each_ref().map(Target::of);
    let (alone, alone_on_eight) = (Alone::open(alone, 1, SHARE), Alone::open(alone_on_eight, 8, SHARE));

    let mut tables = Vec::new();
    for (title, asks) in [
        (
            "`updateStatus`, each a change with its row of the history",
            Asks::Changes,
        ),
        ("`getStatus`", Asks::Reads),
        ("Nine `getStatus` and one `updateStatus`", Asks::Mixed),
    ] {
        let subject = |name, target, over| Subject::new(name, scale, face(target, over, asks, scale));
        let mut subjects = vec![
            subject(REST_SQLITE, &sqlite, Face::Rest),
            subject("gRPC, SQLite", &sqlite, Face::Grpc),
            subject(REST_POSTGRES, &postgres, Face::Rest),
            subject("gRPC, PostgreSQL", &postgres, Face::Grpc),
        ];
        if asks == Asks::Changes {
            let bench = |place: usize, time| pgbench(cluster, for_pgbench, CUSTOMERS, scale.clients[place], time);
            let alone = |place: usize, time| alone.round(scale.clients[place], time);
            let alone_on_eight = |place: usize, time| alone_on_eight.round(scale.clients[place], time);
            subjects.extend([
                Subject::new(PGBENCH, scale, Box::new(bench)),
                subject(EACH_POSTGRES, &each_postgres, Face::Rest),
                subject(EACH_ON_EIGHT_SQLITE, &each_on_eight_sqlite, Face::Rest),
                subject(EACH_SQLITE, &each_sqlite, Face::Rest),
                Subject::new(ALONE_ON_EIGHT, scale, Box::new(alone_on_eight)),
                Subject::new(ALONE, scale, Box::new(alone)),
            ]);
        }
        for _ in 0..ROUNDS {
            for place in 0..scale.clients.len() {
                for subject in &mut subjects {
                    if subject.rounds[place].0.is_empty() && subject.name != PGBENCH {
                        (subject.run)(place, scale.warm_up);
                    }
                    let round = (subject.run)(place, scale.round);
                    subject.rounds[place].0.push(round);
                }
            }
        }
        let rows = subjects
            .into_iter()
            .map(|subject| (subject.name, subject.rounds))
            .collect();
        tables.push(Table { title, rows });
    }
    Throughput {
        clients: scale.clients,
        tables,
    }
}

impl Table {
    fn text(&self, clients: &[usize]) -> String {
        let mut text = format!(
            "### {}\n\n| what | clients | requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request | the load's |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.title
        );
        for (place, clients) in clients.iter().enumerate() {
            for (name, rounds) in &self.rows {
                let rounds = &rounds[place];
                let (rates, latencies, times) = (rounds.rates(), rounds.latencies(), rounds.processor_times());
                let _ = writeln!(text, "| {name} | {clients} | {rates} | {latencies} | {times} |");
            }
        }
        text
    }
}

impl Throughput {
    pub(crate) fn text(&self) -> String {
        let tables = self.tables.iter().map(|table| table.text(self.clients) + "\n");
        let lines = [
            (REST_POSTGRES, PGBENCH),
            (REST_POSTGRES, EACH_POSTGRES),
            (REST_SQLITE, EACH_ON_EIGHT_SQLITE),
            (REST_SQLITE, EACH_SQLITE),
            (REST_SQLITE, ALONE_ON_EIGHT),
            (REST_SQLITE, ALONE),
        ];
        let lines = lines.map(|(one, other)| {
            let times = self.ratio(one, other);
            format!("- {one} reaches **{times:.1} times** {other}.\n")
        });
        let ratios = format!("Changes by 64 clients:\n\n{}", lines.concat());
        tables.collect::<String>() + &ratios
    }

    /// How many times one's changes are another's, with 64 clients.
    fn ratio(&self, one: &str, other: &str) -> f64 {
        let place = self.clients.iter().position(|clients| *clients == 64).unwrap();
        let rate = |name| {
            let row = self.tables[0].rows.iter().find(|(of, _)| *of == name).unwrap();
            row.1[place].rate()
        };
        rate(one) / rate(other)
    }

    pub(crate) fn to_pgbench(&self) -> f64 {
        self.ratio(REST_POSTGRES, PGBENCH)
    }

    /// On a pool of eight connections, and on one.
    pub(crate) fn to_a_transaction_each(&self) -> [f64; 2] {
        [ALONE_ON_EIGHT, ALONE].map(|alone| self.ratio(REST_SQLITE, alone))
    }
}
