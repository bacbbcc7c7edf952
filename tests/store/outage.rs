//! A PostgreSQL that goes away: what is answered meanwhile, and that everything works when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use store::{Error, Status};
use tokio::task::JoinSet;

use super::{Bench, STATUSES, begin, block_on, key, new_customer, origin, recovered, soon};
use crate::support::{Backend, Cluster, Database, Durability, eventually};

/// The longest that an answer may take while the server is away.
const BOUND: Duration = Duration::from_secs(10);

/// Waits for an answer that must be an outage, and must come in time.
async fn unavailable<T: std::fmt::Debug>(call: impl Future<Output = store::Result<T>>) {
    let answer = tokio::time::timeout(BOUND, call)
        .await
        .expect("no answer during an outage");
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
}

/// Uses as many connections at once as there are.
async fn use_every_connection(bench: &Bench) {
    let mut tasks = JoinSet::new();
    for _ in 0..8 * crate::store::patient().readers.get() {
        let (store, principal) = (bench.store.clone(), bench.shop);
        tasks.spawn(async move { store.confirm(principal, soon()).await.unwrap() });
    }
    tasks.join_all().await;
    // Customers of both writers.
    for number in 0..10 {
        bench.set(&format!("{number}@example.com"), Status::Pass).await.unwrap();
    }
}

async fn register_ten(bench: &Bench) {
    let emails: Vec<_> = (0..10).map(|number| format!("{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
}

#[test]
fn a_server_that_stops_is_unavailable_and_serves_again_when_it_is_back() {
    block_on(async {
        let cluster = Cluster::start(Durability::Full);
        let bench = Bench::on(Database::on(&cluster)).await;
        register_ten(&bench).await;
        use_every_connection(&bench).await;

        let outage = cluster.stop();
        let (store, shop) = (&bench.store, bench.shop);
        // More than once: the first finds the connections dead, the next has none.
        for _ in 0..3 {
            for number in 0..10 {
                unavailable(bench.set(&format!("{number}@example.com"), Status::Fail)).await;
            }
            unavailable(store.customer(shop, key("0@example.com"), soon())).await;
            unavailable(store.history(shop, key("0@example.com"), 1, soon())).await;
            unavailable(store.account("shop", soon())).await;
            unavailable(store.ping(soon())).await;
        }
        outage.end();

        recovered(store).await;
        for number in 0..10 {
            let email = format!("{number}@example.com");
            let history = bench.whole_history(&email).await;
            assert_eq!(
                history.last().unwrap().to,
                Status::Pass,
                "what was acknowledged is there"
            );
            assert_eq!(bench.set(&email, Status::Fail).await.unwrap().status, Status::Fail);
            assert_eq!(bench.whole_history(&email).await.len(), history.len() + 1);
        }
    });
}

#[test]
fn what_is_acknowledged_while_the_server_stops_is_there_when_it_is_back() {
    block_on(async {
        let cluster = Cluster::start(Durability::Full);
        let bench = Bench::on(Database::on(&cluster)).await;
        register_ten(&bench).await;

        // Each task has a customer of its own, and tells how far it was acknowledged when it was refused.
        let stopping = Arc::new(AtomicBool::new(false));
        let (report, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for task in 0..10 {
            let email = format!("{task}@example.com");
            let (store, change, report) = (bench.store.clone(), bench.change(&email, Status::Pass), report.clone());
            let stopping = Arc::clone(&stopping);
            tasks.spawn(async move {
                let mut number = 0;
                while !stopping.load(Ordering::Relaxed) {
                    let change = store::Change {
                        status: STATUSES[number % 3],
                        origin: origin(&number.to_string()),
                        ..change.clone()
                    };
                    match store.set_status(change, soon()).await {
                        Ok(_) => report.send(()).unwrap(),
                        Err(Error::Unavailable(_)) => break,
                        Err(error) => panic!("{error:?}"),
                    }
                    number += 1;
                }
                (email, number)
            });
        }
        for _ in 0..200 {
            acknowledged.recv().await.unwrap();
        }
        let outage = tokio::task::block_in_place(|| cluster.stop());
        stopping.store(true, Ordering::Relaxed);
        outage.end();
        let reached = tasks.join_all().await;

        recovered(&bench.store).await;
        for (email, number) in reached {
            let history = bench.whole_history(&email).await;
            let made: Vec<_> = history[1..]
                .iter()
                .map(|change| change.origin.request_id.as_str())
                .collect();
            let acknowledged: Vec<_> = (0..number).map(|number| number.to_string()).collect();
            // Also of the one that was under way it is known whether it was made.
            assert_eq!(made, acknowledged, "{email}");
        }
    });
}

#[test]
fn connections_that_the_server_ends_are_replaced() {
    block_on(async {
        let bench = Bench::on(Backend::Postgres.database()).await;
        register_ten(&bench).await;
        let mut sql = bench.database.session();
        for round in 0..5 {
            use_every_connection(&bench).await;
            let ended = sql.number(
                "(SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid())",
            );
            assert!(ended >= 3, "{ended} connections");

            let status = bench.customer("0@example.com").await.status;
            assert_eq!(status, Status::Pass, "the first read finds a new connection");

            for number in 0..10 {
                let email = format!("{number}@example.com");
                let answer = bench.set(&email, Status::Fail).await;
                assert_eq!(answer.unwrap().status, Status::Fail, "round {round}");
            }
            recovered(&bench.store).await;
        }
    });
}

#[test]
fn what_the_server_ends_before_its_commit_is_written_all_the_same() {
    block_on(async {
        let bench = Bench::on(Backend::Postgres.database()).await;
        bench.register(&["0@example.com"]).await;
        let mut holder = bench.database.session().holding_customers();
        let mut sql = bench.database.session();
        let waits = "FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'dcams-gateway' AND wait_event_type = 'Lock'";
        let put = begin(bench.put(new_customer("1@example.com"))).await;
        let (put, ()) = tokio::join!(put, async {
            tokio::task::block_in_place(|| {
                eventually("the write waits", || {
                    sql.number(&format!("(SELECT count(*) {waits})")) == 1
                });
                let end = format!("(SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) {waits})");
                assert_eq!(sql.number(&end), 1);
                holder.release();
            });
        });
        assert!(put.unwrap().created);
        assert_eq!(bench.whole_history("1@example.com").await.len(), 1);
    });
}

#[test]
fn a_customer_that_another_transaction_holds_holds_up_no_other() {
    block_on(async {
        let bench = Bench::on(Backend::Postgres.database()).await;
        register_ten(&bench).await;
        let mut session = bench.database.session();
        session.execute("BEGIN; SELECT FROM customers WHERE email_key = '0@example.com' FOR UPDATE");
        let held = begin(bench.set("0@example.com", Status::Pass)).await;
        // With a deadline that a wait for the lock would miss.
        for round in 0..20 {
            for number in 1..10 {
                bench
                    .set(&format!("{number}@example.com"), STATUSES[round % 3])
                    .await
                    .unwrap();
            }
        }
        session.release();
        assert_eq!(held.await.unwrap().status, Status::Pass);
    });
}

#[test]
fn a_change_of_a_customer_that_stays_held_expires() {
    block_on(async {
        let bench = Bench::on(Backend::Postgres.database()).await;
        register_ten(&bench).await;
        let mut session = bench.database.session();
        session.execute("BEGIN; SELECT FROM customers WHERE email_key = '0@example.com' FOR UPDATE");
        let change = bench.change("0@example.com", Status::Pass);
        let answer = bench
            .store
            .set_status(change, Instant::now() + Duration::from_millis(50))
            .await;
        assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
        session.release();
        bench.set("1@example.com", Status::Pass).await.unwrap();
        assert_eq!(bench.whole_history("0@example.com").await.len(), 1);
    });
}

#[test]
fn a_server_that_is_not_there_is_known_when_a_store_is_opened() {
    let cluster = Cluster::start(Durability::None);
    let database = Database::on(&cluster);
    let outage = cluster.stop();
    let began = Instant::now();
    let opened = super::try_open(&database, store::Migrate::Auto, &crate::store::patient(), None);
    assert!(matches!(opened, Err(Error::Unavailable(_))));
    assert!(began.elapsed() < BOUND);
    outage.end();
    super::open(&database, &crate::store::patient(), None);
}
