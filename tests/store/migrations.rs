//! Migrations: one of many that start at once migrates, and a schema that does not fit is refused untouched.

use std::{sync::Barrier, time::Duration};

use store::{Error, Migrate, Settings, Store};

use super::{block_on, soon, try_open};
use crate::support::{Backend, Database};

on_both![
    on_an_empty_database;
    of_many_that_open_an_empty_database_at_once_all_succeed,
    a_check_refuses_an_empty_database_and_changes_nothing,
    a_check_accepts_a_schema_that_is_up_to_date,
    a_check_needs_no_more_than_to_read,
    a_schema_of_a_newer_program_is_refused,
    a_schema_that_is_not_to_be_looked_at_is_taken_as_it_is,
];

fn on_an_empty_database(backend: Backend, test: impl FnOnce(&Database)) {
    test(&backend.database());
}

fn attempt(database: &Database, migrate: Migrate) -> store::Result<Store> {
    try_open(database, migrate, &Settings::default())
}

#[track_caller]
fn refused(database: &Database, migrate: Migrate) -> String {
    match attempt(database, migrate) {
        Err(Error::Schema(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("{migrate:?} opened the store"),
    }
}

/// How many tables and indexes there are.
fn tables(database: &Database) -> i64 {
    database.session().number(match database.backend {
        Backend::Sqlite => "(SELECT count(*) FROM sqlite_schema)",
        Backend::Postgres => "(SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)",
    })
}

fn of_many_that_open_an_empty_database_at_once_all_succeed(database: &Database) {
    const GATEWAYS: usize = 8;
    let barrier = Barrier::new(GATEWAYS);
    let opened: Vec<_> = std::thread::scope(|scope| {
        let gateways: Vec<_> = (0..GATEWAYS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    attempt(database, Migrate::Auto).map(drop)
                })
            })
            .collect();
        gateways.into_iter().map(|gateway| gateway.join().unwrap()).collect()
    });
    for result in opened {
        result.unwrap();
    }
    attempt(database, Migrate::Check).unwrap();
}

fn a_check_refuses_an_empty_database_and_changes_nothing(database: &Database) {
    for _ in 0..2 {
        let message = refused(database, Migrate::Check);
        assert!(message.contains("dcams-gateway migrate"), "{message}");
        if database.backend == Backend::Sqlite {
            assert!(!database.path(Database::FILE).exists(), "it made the file");
        }
    }
    // Nor does it in a database that is there.
    assert_eq!(tables(database), 0);
    refused(database, Migrate::Check);
    assert_eq!(tables(database), 0);
}

fn a_check_accepts_a_schema_that_is_up_to_date(database: &Database) {
    attempt(database, Migrate::Auto).unwrap();
    for migrate in [Migrate::Check, Migrate::Auto, Migrate::Off] {
        attempt(database, migrate).unwrap();
    }
}

fn a_check_needs_no_more_than_to_read(database: &Database) {
    attempt(database, Migrate::Auto).unwrap();
    let mut sql = database.session();
    match database.backend {
        Backend::Sqlite => {
            // Whoever writes holds this lock.
            sql.execute("BEGIN IMMEDIATE");
            let impatient = Settings {
                statement: Duration::from_millis(1),
                ..Settings::default()
            };
            try_open(database, Migrate::Check, &impatient).unwrap();
        }
        Backend::Postgres => {
            sql.execute(
                "CREATE ROLE reader LOGIN; REVOKE CREATE ON SCHEMA public FROM public;
                 GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
            );
            let reader = database.url.replace("postgres@", "reader@").parse().unwrap();
            Store::open(&reader, Migrate::Check, &Settings::default(), None).unwrap();
        }
    }
}

fn a_schema_of_a_newer_program_is_refused(database: &Database) {
    attempt(database, Migrate::Auto).unwrap();
    let before = tables(database);
    database
        .session()
        .execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000001')");
    for migrate in [Migrate::Auto, Migrate::Check] {
        let message = refused(database, migrate);
        assert!(message.contains("newer"), "{message}");
        assert!(message.contains("99991231000001"), "{message}");
    }
    assert_eq!(tables(database), before);
    attempt(database, Migrate::Off).unwrap();
}

fn a_schema_that_is_not_to_be_looked_at_is_taken_as_it_is(database: &Database) {
    assert_eq!(tables(database), 0);
    block_on(async {
        let store = attempt(database, Migrate::Off).unwrap();
        store.ping(soon()).await.unwrap();
        let answer = store.accounts(soon()).await;
        assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
    });
    assert_eq!(tables(database), 0);
    // Nothing that it left behind is in the way.
    attempt(database, Migrate::Auto).unwrap();
}
