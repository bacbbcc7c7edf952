//! The feed misses nothing, whatever commits late, rolls back or is killed: on PostgreSQL, through two gateways.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use diesel::{
    Connection, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Text},
};
use proto::v1::{UpdateStatusRequest, WatchStatusChangesRequest, storage_service_client::StorageServiceClient};
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

use crate::{
    faults::Random,
    grpc::feed::with,
    support::{Backend, Database, Gateway, Ground},
};

/// How many changes are made.
const CHANGES: i64 = 30_000;

/// Of every so many changes, one is made in a transaction of the test's own, which stays open for a while.
const SLOW_ONE_OF: i64 = 20;

/// The longest that such a transaction stays open, in milliseconds.
const OPEN: u64 = 120;

const SLOW_THREADS: u64 = 6;
const WRITERS: usize = 12;
const CUSTOMERS_OF_A_WRITER: usize = 50;

const CREDENTIALS: &str = "shop:secret";

/// A row of the history, as a consumer is told of it, or as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
pub struct Row {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    customer: String,
    #[diesel(sql_type = BigInt)]
    version: i64,
}

/// What a consumer has seen, each stream apart.
pub type Seen = Vec<Vec<Row>>;

/// Whether a consumer has seen every row that is stored, none that is not, each twice only where it has resumed, and those
/// of a customer in their order.
pub fn verify(stored: &BTreeSet<Row>, seen: &Seen) -> Result<(), String> {
    let mut known: BTreeSet<&Row> = BTreeSet::new();
    let mut versions: HashMap<&str, i64> = HashMap::new();
    for stream in seen {
        let mut only_again = true;
        let mut here: BTreeMap<&str, i64> = BTreeMap::new();
        for row in stream {
            if !stored.contains(row) {
                return Err(format!("{row:?} was never committed"));
            }
            if here
                .insert(&row.customer, row.version)
                .is_some_and(|before| before >= row.version)
            {
                return Err(format!("{row:?} comes late in its stream"));
            }
            if !known.insert(row) {
                if !only_again {
                    return Err(format!("{row:?} comes again, and not after a resume"));
                }
                continue;
            }
            only_again = false;
            let version = versions.entry(&row.customer).or_default();
            *version += 1;
            if *version != row.version {
                return Err(format!("{row:?} comes where {version} was due"));
            }
        }
    }
    match stored.iter().find(|row| !known.contains(row)) {
        Some(row) => Err(format!("{row:?} was missed")),
        None => Ok(()),
    }
}

/// How many changes there are, and how many of slow transactions.
#[derive(Debug, QueryableByName)]
struct Made {
    #[diesel(sql_type = BigInt)]
    all: i64,
    #[diesel(sql_type = BigInt)]
    late: i64,
}

impl Made {
    const QUERY: &str =
        "SELECT count(*) AS all, count(*) FILTER (WHERE request_id = 'slow') AS late FROM status_changes";
}

/// What all tasks and threads share.
struct Run {
    /// The database.
    url: String,
    seed: u64,
    /// The writers have made enough, and so have the slow transactions.
    enough: AtomicBool,
    enough_slow: AtomicBool,
    /// Whoever reads by number has seen what it will.
    over: AtomicBool,
    consumers: [Consumer; 2],
}

/// Who follows the feed of `shop` on a gateway.
pub struct Consumer {
    gateway: SocketAddr,
    random: Mutex<Random>,
    pub seen: Mutex<Seen>,
    /// All that is stored was seen, or never will be.
    over: AtomicBool,
    /// How often it was left by its gateway: its stream broke, or did not begin.
    pub left: AtomicUsize,
}

impl Run {
    fn random(&self, of: u64) -> Random {
        Random(self.seed ^ of.wrapping_mul(0x9e37_79b9))
    }
}

fn client(gateway: SocketAddr) -> StorageServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{gateway}")).unwrap();
    StorageServiceClient::new(endpoint.connect_lazy())
}

#[test]
fn two_consumers_miss_nothing_and_one_that_reads_by_number_does() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(CHANGES));
    println!("SEED={seed}");
    let mut random = Random(seed);

    let (ground, database) = Ground::new(Backend::Postgres);
    database.create_account("shop", "secret");
    let customers = WRITERS * CUSTOMERS_OF_A_WRITER;
    let csv = (0..customers).fold(String::from("email\n"), |mut csv, number| {
        writeln!(csv, "{}", email(number)).unwrap();
        csv
    });
    database.import("shop", &csv);

    let start = |address: Option<SocketAddr>| {
        let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        Gateway::start_at(&database, address, &["--heartbeat", "1s", "--log", "error"])
    };
    let kept = start(None);
    let mut killed = start(None);
    let consumer = |gateway: &Gateway, number: u64| Consumer::new(gateway.grpc.unwrap(), Random(seed ^ number));
    let run = Run {
        consumers: [consumer(&kept, 1), consumer(&killed, 2)],
        url: database.url.clone(),
        seed,
        enough: AtomicBool::new(false),
        enough_slow: AtomicBool::new(false),
        over: AtomicBool::new(false),
    };
    let runtime = Runtime::new().unwrap();
    // Each thing happens once, at some time of its own.
    let mut at = |part: i64| part * CHANGES / 5 + i64::try_from(random.next() % 3_000).unwrap();
    let (outage, kill, second_outage) = (at(1), at(2), at(3));

    let by_number = thread::scope(|scope| {
        let run = &run;
        for consumer in &run.consumers {
            let handle = runtime.handle();
            scope.spawn(move || handle.block_on(consumer.consume()));
        }
        let by_number = scope.spawn(move || consume_by_number(run));
        let slow: Vec<_> = (0..SLOW_THREADS)
            .map(|number| scope.spawn(move || write_slowly(run, number)))
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let handle = runtime.handle();
                scope.spawn(move || handle.block_on(write(run, writer)))
            })
            .collect();

        let began = Instant::now();
        let mut watching = None;
        let mut reached = |is_reached: &dyn Fn(&Made) -> bool| loop {
            let made = on(run, &mut watching, |connection| {
                sql_query(Made::QUERY).get_result(connection)
            });
            if made.as_ref().is_some_and(is_reached) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(300), "only {made:?}");
            thread::sleep(Duration::from_millis(50));
        };
        let fall = || ground.take_away().bring_back();
        reached(&|made| made.all >= outage);
        fall();
        reached(&|made| made.all >= kill);
        killed.signal("KILL");
        killed.end();
        killed = start(killed.grpc);
        reached(&|made| made.all >= second_outage);
        fall();
        reached(&|made| made.all >= CHANGES);
        run.enough.store(true, Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        reached(&|made| made.late * SLOW_ONE_OF >= made.all);
        run.enough_slow.store(true, Relaxed);
        for thread in slow {
            thread.join().unwrap();
        }

        let stored = stored(&database).len();
        println!("{stored} changes in {:?}", began.elapsed());
        for consumer in &run.consumers {
            consumer.finish(stored);
        }
        run.over.store(true, Relaxed);
        by_number.join().unwrap()
    });

    let stored = stored(&database);
    assert!(stored.len() as i64 >= CHANGES);
    for (consumer, gateway) in run.consumers.iter().zip(["kept", "killed"]) {
        let seen = consumer.seen.lock().unwrap();
        assert!(seen.len() > 2, "the consumer on the {gateway} gateway never resumed");
        let again = seen.iter().map(Vec::len).sum::<usize>() as i64 - stored.len() as i64;
        println!(
            "on the {gateway} gateway: {} streams, {again} changes again",
            seen.len()
        );
        verify(&stored, &seen).unwrap_or_else(|fault| panic!("SEED={seed}, on the {gateway} gateway: {fault}"));
    }
    let [_, of_the_killed] = &run.consumers;
    assert!(
        of_the_killed.left.load(Relaxed) > 0,
        "the consumer did not notice that its gateway was killed"
    );
    // And what is tested is there to be missed.
    let missed = stored.iter().filter(|row| !by_number.contains(&row.position)).count();
    println!("by number {missed} changes were missed");
    assert!(missed > 0, "SEED={seed}: whoever reads by number misses nothing either");
}

/// Numbered so that a writer knows its own.
fn email(number: usize) -> String {
    format!("c{number:04}@example.com")
}

/// Sets the status of a writer's own customers, all at once, again and again.
async fn write(run: &Run, writer: usize) {
    let client = client(run.consumers[writer % 2].gateway);
    let mut round = writer;
    while !run.enough.load(Relaxed) {
        let mut calls = JoinSet::new();
        round += 1;
        for number in 0..CUSTOMERS_OF_A_WRITER {
            // Another one than in the round before.
            let status = (round + number) % 3 + 1;
            let message = UpdateStatusRequest {
                email: email(writer * CUSTOMERS_OF_A_WRITER + number),
                status: i32::try_from(status).unwrap(),
                ..UpdateStatusRequest::default()
            };
            let mut client = client.clone();
            calls.spawn(async move { client.update_status(with(CREDENTIALS, message)).await });
        }
        let mut failed = false;
        while let Some(answer) = calls.join_next().await {
            failed |= answer.unwrap().is_err();
        }
        if failed {
            // As a client does that is told to come back later.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Changes customers past the gateways, in transactions that stay open for a while and are then committed or not.
fn write_slowly(run: &Run, number: u64) {
    let mut random = run.random(1_000 + number);
    let mut connection = None;
    while !run.enough_slow.load(Relaxed) {
        let email = email(usize::try_from(random.next()).unwrap() % (WRITERS * CUSTOMERS_OF_A_WRITER));
        let open = Duration::from_millis(random.next() % OPEN);
        let commits = !random.next().is_multiple_of(5);
        let change = format!(
            "BEGIN;
             WITH changed AS (
                 UPDATE customers SET status = status % 3 + 1, status_version = status_version + 1, revision = revision + 1
                 WHERE email_key = '{email}' RETURNING *
             )
             INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face, request_id,
                                         change_time)
             SELECT account_id, id, status_version, (status + 1) % 3 + 1, status, 'operator', 3, 'slow', update_time
             FROM changed;"
        );
        let end = if commits { "COMMIT" } else { "ROLLBACK" };
        on(run, &mut connection, |connection| {
            connection.batch_execute(&change)?;
            thread::sleep(open);
            connection.batch_execute(end)
        });
    }
}

/// Does something on a connection that may break, as whenever the server is killed; it is then made anew the next time.
fn on<T>(
    run: &Run,
    connection: &mut Option<PgConnection>,
    work: impl FnOnce(&mut PgConnection) -> QueryResult<T>,
) -> Option<T> {
    if connection.is_none() {
        *connection = PgConnection::establish(&run.url).ok();
    }
    let done = connection.as_mut().and_then(|connection| work(connection).ok());
    if done.is_none() {
        *connection = None;
        thread::sleep(Duration::from_millis(20));
    }
    done
}

impl Consumer {
    pub fn new(gateway: SocketAddr, random: Random) -> Self {
        Self {
            gateway,
            random: Mutex::new(random),
            seen: Mutex::default(),
            over: AtomicBool::new(false),
            left: AtomicUsize::new(0),
        }
    }

    /// How many different changes it was told of.
    pub fn distinct(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .flatten()
            .map(|row| row.position)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Lets it go, once it has seen so many different changes or has had half a minute for it.
    pub fn finish(&self, stored: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && self.distinct() < stored {
            thread::sleep(Duration::from_millis(100));
        }
        self.over.store(true, Relaxed);
    }

    fn random(&self, of: u64) -> u64 {
        self.random.lock().unwrap().next() % of
    }

    /// Follows the feed, and resumes whenever the stream ends.
    pub async fn consume(&self) {
        let mut client = client(self.gateway);
        // What it resumes from: where it is, or where it was before the last answer.
        let mut cursors = [String::new(), String::new()];
        while !self.over.load(Relaxed) {
            // It does not always know what it has done last.
            let cursor = cursors[usize::try_from(self.random(2)).unwrap()].clone();
            cursors = [cursor.clone(), cursor.clone()];
            let message = WatchStatusChangesRequest {
                cursor,
                only_new: false,
            };
            let Ok(stream) = client.watch_status_changes(with(CREDENTIALS, message)).await else {
                self.left.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let mut stream = stream.into_inner();
            self.seen.lock().unwrap().push(Vec::new());
            // And now and then it leaves by itself.
            for _ in 0..5 + self.random(30) {
                let Ok(Some(answer)) = stream.message().await else {
                    self.left.fetch_add(1, Relaxed);
                    break;
                };
                let rows = answer.changes.into_iter().map(|change| Row {
                    position: change.sequence,
                    customer: change.customer_id,
                    version: change.version,
                });
                let mut seen = self.seen.lock().unwrap();
                seen.last_mut().unwrap().extend(rows);
                cursors = [answer.cursor, std::mem::take(&mut cursors[0])];
                if self.over.load(Relaxed) {
                    return;
                }
            }
        }
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    position: i64,
}

/// Follows the history by the numbers of its rows, as one would who does not know better.
fn consume_by_number(run: &Run) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    let mut connection = None;
    while !run.over.load(Relaxed) {
        let last = seen.last().copied().unwrap_or_default();
        let query = format!("SELECT position FROM status_changes WHERE position > {last} ORDER BY position LIMIT 1000");
        let rows: Option<Vec<Number>> = on(run, &mut connection, |connection| sql_query(query).load(connection));
        seen.extend(rows.into_iter().flatten().map(|row| row.position));
        thread::sleep(Duration::from_millis(10));
    }
    seen
}

/// All that was committed.
pub fn stored(database: &Database) -> BTreeSet<Row> {
    let rows: Vec<Row> = database.session().rows(
        "SELECT h.position, c.public_id AS customer, h.version
         FROM status_changes h JOIN customers c ON c.id = h.customer_id",
    );
    rows.into_iter().collect()
}

/// What the check says of two streams that were sound before something was done to them.
fn verdict(spoil: impl FnOnce(&mut BTreeSet<Row>, &mut Seen)) -> Result<(), String> {
    let row = |position, customer: &str, version| Row {
        position,
        customer: customer.to_owned(),
        version,
    };
    let rows = [row(1, "a", 1), row(3, "b", 1), row(2, "a", 2), row(4, "b", 2)];
    let mut stored = rows.iter().cloned().collect();
    let mut seen = vec![rows[..3].to_vec(), rows[1..].to_vec()];
    spoil(&mut stored, &mut seen);
    verify(&stored, &seen)
}

#[test]
fn the_check_accepts_what_comes_again_after_a_resume() {
    assert_eq!(verdict(|_, _| {}), Ok(()));
}

#[test]
fn the_check_finds_every_fault() {
    type Spoil = fn(&mut BTreeSet<Row>, &mut Seen);
    let cases: [(&str, Spoil); 5] = [
        ("missed", |_, seen| {
            seen[1].pop();
        }),
        ("never committed", |stored, _| {
            stored.pop_last();
        }),
        ("late in its stream", |_, seen| {
            let first = seen[0][0].clone();
            seen[1].insert(2, first);
        }),
        ("not after a resume", |_, seen| seen[1].swap(0, 2)),
        ("was due", |_, seen| {
            seen[0].remove(0);
        }),
    ];
    for (fault, spoil) in cases {
        let verdict = verdict(spoil).unwrap_err();
        assert!(verdict.contains(fault), "{fault}: {verdict}");
    }
}
