//! Stores with many customers, and what changes them without a gateway.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use store::{Authority, Change, Email, Face, Migrate, Origin, Principal, Settings, Status, Store};

use crate::{
    load::{PASSWORD, Round, USER, csv, processor_time},
    runtime,
    support::{Backend, Cluster, Database, dcams},
};

/// Fills an empty database with an account and so many customers, as [`csv`] has them, each with the row of its registration.
/// All but the first are copies that SQL makes: an import of millions takes many minutes. The history of all counts as sealed, so
/// that no gateway seals it while others are measured.
pub(crate) fn filled(database: Database, customers: usize) -> Database {
    dcams(&database, &["account", "create", USER, "--password-stdin"], PASSWORD).ok();
    let first = database.file("customers.csv", csv(1));
    dcams(
        &database,
        &["customer", "import", first.to_str().unwrap(), "--account", USER],
        "",
    )
    .ok();
    let last = customers - 1;
    // What the two databases say in different words.
    let (begin, numbers, id, profile, end) = match database.backend {
        Backend::Sqlite => (
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; BEGIN",
            format!(
                "(WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {last}) SELECT n FROM n)"
            ),
            "lower(hex(randomblob(16)))",
            "CAST(replace(CAST(c.profile AS TEXT), 'customer0@', 'customer' || n.n || '@') AS BLOB)",
            "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
        ),
        Backend::Postgres => (
            // Triggers have nothing to do here: each customer has one row.
            "SET session_replication_role = replica; SET synchronous_commit = off; BEGIN",
            format!("generate_series(1, {last})"),
            "replace(gen_random_uuid()::text, '-', '')",
            "convert_to(replace(convert_from(c.profile, 'UTF8'), 'customer0@', 'customer' || n.n || '@'), 'UTF8')",
            "COMMIT; VACUUM (ANALYZE); CHECKPOINT",
        ),
    };
    let mut session = database.session();
    session.execute(begin);
    session.execute(&format!(
        "INSERT INTO customers (account_id, email_key, public_id, reference, profile, status, status_version, revision,
                                create_time, update_time)
         SELECT c.account_id, 'customer' || n.n || '@example.com', {id}, CAST(n.n AS TEXT), {profile}, c.status,
                c.status_version, c.revision, c.create_time, c.update_time
         FROM customers c CROSS JOIN {numbers} AS n"
    ));
    session.execute(
        "INSERT INTO status_changes (account_id, customer_id, version, to_status, actor, face, request_id, change_time)
         SELECT h.account_id, c.id, h.version, h.to_status, h.actor, h.face, h.request_id, h.change_time
         FROM status_changes h CROSS JOIN customers c WHERE c.id <> h.customer_id",
    );
    let empty = database.backend.bytes(&[]);
    session.execute(&format!(
        "INSERT INTO audit_blocks (account_id, number, epoch, xid, position, entries, hash, seal_time)
         SELECT account_id, 1, epoch, xid, position, {empty}, {empty}, 0 FROM status_changes
         ORDER BY epoch DESC, xid DESC, position DESC LIMIT 1"
    ));
    for statement in end.split("; ") {
        session.execute(statement);
    }
    database
}

/// Changes statuses in the store itself, without a gateway, each in a transaction of its own.
pub(crate) struct Alone {
    store: Store,
    runtime: tokio::runtime::Runtime,
    customers: Vec<Email>,
    changes: Arc<AtomicUsize>,
}

impl Alone {
    /// On so many connections.
    pub(crate) fn open(database: &Database, connections: usize, customers: usize) -> Self {
        let settings = Settings {
            batch: NonZeroUsize::MIN,
            writers: NonZeroUsize::new(connections),
            // Nothing is refused, however long it waits.
            queue_wait: Duration::from_secs(60),
            write_queue: 65_536,
            ..Settings::default()
        };
        let location = database.url.parse().unwrap();
        let email = |customer| Email::parse(&format!("customer{customer}@example.com")).unwrap();
        Self {
            store: Store::open(&location, Migrate::Check, &settings, None).unwrap(),
            runtime: runtime(),
            customers: (0..customers).map(email).collect(),
            changes: Arc::default(),
        }
    }

    pub(crate) fn round(&self, callers: usize, time: Duration) -> Round {
        let used = || processor_time(std::process::id());
        let (before, began) = (used(), Instant::now());
        let until = began + time;
        let work = |_| {
            let (store, customers, changes) = (self.store.clone(), self.customers.clone(), Arc::clone(&self.changes));
            self.runtime.spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    // Each sweep over the customers sets another status than the last.
                    let number = changes.fetch_add(1, Ordering::Relaxed);
                    let status = [Status::Pass, Status::Pending, Status::Fail][number / customers.len() % 3];
                    let origin = Origin {
                        actor: USER.to_owned(),
                        face: Face::Rest,
                        request_id: proto::request_id(None),
                    };
                    let principal = Principal {
                        account: 1,
                        authority: Authority::Credentials { version: 1 },
                    };
                    let email = customers[number % customers.len()].key().clone();
                    let sent = Instant::now();
                    let change = Change::new(principal, email, status, origin);
                    let customer = store.set_status(change, sent + Duration::from_secs(60)).await.unwrap();
                    latencies.push(sent.elapsed());
                    assert_eq!(customer.status, status);
                }
                latencies
            })
        };
        let callers: Vec<_> = (0..callers).map(work).collect();
        let all = callers
            .into_iter()
            .flat_map(|caller| self.runtime.block_on(caller).unwrap());
        let mut latencies: Vec<Duration> = all.collect();
        let took = began.elapsed();
        latencies.sort_unstable();
        let requests = latencies.len() as f64;
        Round {
            rate: requests / took.as_secs_f64(),
            cpus: vec![(used() - before).as_secs_f64() * 1e6 / requests],
            own_cpu: None,
            memory: 0,
            latencies,
        }
    }
}

/// What pgbench does: the same change and the same row of the history, in one statement that is a transaction.
const STATEMENT: &str = "\\set customer random(0, CUSTOMERS - 1)
WITH locked AS (
    SELECT * FROM customers WHERE account_id = 1 AND email_key = 'customer' || :customer || '@example.com' FOR UPDATE
), changed AS (
    UPDATE customers c SET status = l.status % 3 + 1, status_version = l.status_version + 1, revision = l.revision + 1,
                           update_time = (extract(epoch FROM now()) * 1000000)::bigint
    FROM locked l WHERE c.id = l.id
)
INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face, request_id, change_time)
SELECT account_id, id, status_version + 1, status, status % 3 + 1, 'bench', 1, gen_random_uuid()::text,
       (extract(epoch FROM now()) * 1000000)::bigint
FROM locked;
";

/// Lets pgbench change the customers of a database.
pub(crate) fn pgbench(
    cluster: &Cluster,
    database: &Database,
    customers: usize,
    clients: usize,
    time: Duration,
) -> Round {
    let script = database.file("pgbench.sql", STATEMENT.replace("CUSTOMERS", &customers.to_string()));
    let log = database.path("pgbench-log");
    let threads = clients.min(2).to_string();
    let seconds = time.as_secs().max(1).to_string();
    let output = cluster
        .program("pgbench")
        .args([
            "-n",
            "-M",
            "prepared",
            "-c",
            &clients.to_string(),
            "-j",
            &threads,
            "-T",
            &seconds,
            "-l",
        ])
        .arg(format!("--log-prefix={}", log.display()))
        .arg("-f")
        .arg(script)
        .arg(&database.url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(log.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("pgbench-log") {
            continue;
        }
        // Client, number, microseconds and more, a transaction a line.
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let time = line.split(' ').nth(2).unwrap().parse().unwrap();
            latencies.push(Duration::from_micros(time));
        }
        std::fs::remove_file(path).unwrap();
    }
    latencies.sort_unstable();
    Round {
        rate: rate.expect("how many transactions a second"),
        latencies,
        cpus: Vec::new(),
        own_cpu: None,
        memory: 0,
    }
}
