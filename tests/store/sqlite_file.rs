//! What is special about a store in a SQLite file: who may read it, what survives, and how large its WAL becomes.

use std::{
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use diesel::{QueryableByName, RunQueryDsl, sql_query, sql_types::Integer};
use store::{Error, NewCustomer, Profile, Settings, Status};
use tokio::task::JoinSet;

use super::{Bench, STATUSES, block_on, image, key, new_customer, patient, recovered, soon, with_images};
use crate::support::{Backend, Database, Session};

/// How many changes there are between two checkpoints, at least.
const ROUND: usize = 16_000;

fn test(test: impl AsyncFnOnce(Bench)) {
    block_on(async { test(Bench::on(Backend::Sqlite.database()).await).await });
}

/// What SQLite says of the WAL, without doing anything to it.
#[derive(Debug, QueryableByName)]
struct Wal {
    /// Its pages.
    #[diesel(sql_type = Integer)]
    log: i32,
    /// Those of them that are in the database as well.
    #[diesel(sql_type = Integer)]
    checkpointed: i32,
}

fn wal(database: &Database) -> Wal {
    match database.session() {
        Session::Sqlite(mut connection) => sql_query("PRAGMA wal_checkpoint(NOOP)")
            .get_result(&mut connection)
            .unwrap(),
        Session::Postgres(_) => unreachable!("no WAL of SQLite's"),
    }
}

/// The size of the WAL's file.
fn wal_bytes(database: &Database) -> u64 {
    std::fs::metadata(database.path("dcams.db-wal")).unwrap().len()
}

/// Customers, each changed by a task of its own.
const CUSTOMERS: usize = 50;

/// Registers the customers that [`write_round`] changes, each with a record of so many bytes.
async fn register(bench: &Bench, bytes: usize) {
    let customer = |number| NewCustomer {
        profile: Profile {
            address: "x".repeat(bytes),
            ..Profile::default()
        },
        ..new_customer(&format!("{number}@example.com"))
    };
    bench.import((0..CUSTOMERS).map(customer).collect()).await.unwrap();
}

/// Makes as many changes as make a checkpoint due.
async fn write_round(bench: &Bench, round: usize) {
    let mut tasks = JoinSet::new();
    for task in 0..CUSTOMERS {
        let email = format!("{task}@example.com");
        let changes: Vec<_> = (0..ROUND / CUSTOMERS)
            .map(|number| bench.change(&email, STATUSES[(round + number) % 3]))
            .collect();
        let store = bench.store.clone();
        tasks.spawn(async move {
            for change in changes {
                store.set_status(change, soon()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[test]
fn nobody_else_can_read_the_files() {
    test(async |bench| {
        bench.register(&["a@example.com"]).await;
        bench.set("a@example.com", Status::Pass).await.unwrap();
        for name in ["dcams.db", "dcams.db-wal", "dcams.db-shm"] {
            let mode = std::fs::metadata(bench.database.path(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    });
}

#[test]
fn the_file_is_in_wal_mode_with_small_pages() {
    test(async |bench| {
        let mut sql = bench.database.session();
        assert_eq!(sql.number("(SELECT journal_mode = 'wal' FROM pragma_journal_mode)"), 1);
        assert_eq!(sql.number("(SELECT page_size FROM pragma_page_size)"), 1_024);
    });
}

#[test]
fn a_customer_is_looked_up_on_the_thread_that_asks() {
    test(async |bench| {
        bench.register(&["a@example.com"]).await;
        let at_once = async || {
            let store = bench.another(&patient());
            let ask = || store.customer(bench.shop, key("a@example.com"), soon());
            // The first has no connection yet.
            ask().await.unwrap();
            let answer = pin!(ask()).poll(&mut Context::from_waker(Waker::noop()));
            matches!(answer, Poll::Ready(Ok(_)))
        };
        // A thread that loses the processor at the wrong moment looks as if it waited for the disk.
        assert!(at_once().await || at_once().await || at_once().await);
    });
}

#[test]
fn the_wal_is_copied_into_the_database_while_changes_are_made_and_starts_over() {
    test(async |bench| {
        register(&bench, 0).await;
        // A transaction for each change, so that every round writes as much.
        let store = bench.another(&Settings {
            batch: NonZeroUsize::MIN,
            ..patient()
        });
        let bench = Bench { store, ..bench };
        let mut first = 0;
        for round in 0..3 {
            write_round(&bench, round).await;
            // The checkpoint that is due now comes by itself, on another thread.
            while !matches!(wal(&bench.database), Wal { log, checkpointed } if log == checkpointed) {
                tokio::task::yield_now().await;
            }
            match round {
                0 => first = wal_bytes(&bench.database),
                _ => assert!(wal_bytes(&bench.database) < 2 * first, "round {round} added to the WAL"),
            }
        }
    });
}

#[test]
fn the_wal_is_copied_into_the_database_while_images_are_stored_and_starts_over() {
    test(async |bench| {
        // More than three times the 64 MiB that the WAL may have, in fewer changes than make a checkpoint due.
        for number in 0..28_u64 {
            let new = with_images("a@example.com", &image(number, 8 << 20), &[]);
            bench.put(new).await.unwrap();
        }
        let size = wal_bytes(&bench.database);
        assert!(size < 160 << 20, "the WAL has {size} bytes");
    });
}

#[test]
fn a_reader_that_does_not_end_holds_up_no_change() {
    test(async |bench| {
        // So large that one round fills more than the 64 MiB that the WAL may have.
        register(&bench, 18 * 1_024).await;
        // A lock is waited for longer than a change may take: whoever waits for the reader is found out.
        let store = bench.another(&Settings {
            statement: Duration::from_secs(150),
            ..patient()
        });
        let bench = Bench { store, ..bench };
        let mut reader = bench.database.session();
        reader.execute("BEGIN; SELECT count(*) FROM customers");
        for round in 0..2 {
            write_round(&bench, round).await;
        }
        assert!(wal_bytes(&bench.database) > 64 << 20, "the WAL has met its limit");
        reader.execute("COMMIT");
    });
}

#[test]
fn a_file_that_another_program_keeps_locked_is_unavailable_and_works_again_when_it_is_let_go() {
    test(async |bench| {
        bench.register(&["a@example.com"]).await;
        let store = bench.another(&Settings {
            statement: Duration::from_millis(20),
            ..patient()
        });
        let change = || bench.change("a@example.com", Status::Pass);

        let mut hold = bench.database.session().holding_customers();
        let answer = store.set_status(change(), soon()).await;
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        let answer = store.ping(soon()).await;
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        let name = "other".parse().unwrap();
        let answer = store.create_account(&name, "hash".to_owned(), soon()).await;
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        let read = store.customer(bench.shop, super::key("a@example.com"), soon()).await;
        assert_eq!(read.unwrap().status, Status::Pending, "who reads is not held up");
        hold.release();

        recovered(&store).await;
        store.set_status(change(), soon()).await.unwrap();
        assert_eq!(bench.whole_history("a@example.com").await.len(), 2);
    });
}
