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
    a_schema_that_is_not_to_be_looked_at_cannot_be_opened_when_it_is_not_there,
    customers_of_the_first_schema_are_kept_and_their_ids_do_not_come_back,
];

fn on_an_empty_database(backend: Backend, test: impl FnOnce(&Database)) {
    test(&backend.database());
}

fn attempt(database: &Database, migrate: Migrate) -> store::Result<Store> {
    try_open(database, migrate, &crate::store::patient(), None)
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
                ..crate::store::patient()
            };
            try_open(database, Migrate::Check, &impatient, None).unwrap();
        }
        Backend::Postgres => {
            sql.execute(
                "CREATE ROLE reader LOGIN; REVOKE CREATE ON SCHEMA public FROM public;
                 GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
            );
            let reader = database.url.replace("postgres@", "reader@").parse().unwrap();
            Store::open(&reader, Migrate::Check, &crate::store::patient(), None).unwrap();
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

fn a_schema_that_is_not_to_be_looked_at_cannot_be_opened_when_it_is_not_there(database: &Database) {
    assert_eq!(tables(database), 0);
    refused(database, Migrate::Off);
    assert_eq!(tables(database), 0);
    // Nothing that it left behind is in the way.
    attempt(database, Migrate::Auto).unwrap();
}

fn customers_of_the_first_schema_are_kept_and_their_ids_do_not_come_back(database: &Database) {
    let record = r#"{"email":"Zoë@Example.com","last_name":"O''Brien"}"#;
    let (folder, id) = match database.backend {
        Backend::Sqlite => ("sqlite", ""),
        Backend::Postgres => ("postgres", "OVERRIDING SYSTEM VALUE"),
    };
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let first = std::fs::read_to_string(format!("{first}/{folder}/2026-11-23-000001_foundation/up.sql")).unwrap();
    let mut sql = database.session();
    sql.execute(&first);
    sql.execute(&format!(
        "CREATE TABLE __diesel_schema_migrations (
             version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
         );
         INSERT INTO __diesel_schema_migrations (version) VALUES ('20261123000001');
         INSERT INTO accounts (name, password_hash, credential_version, enabled, create_time, update_time)
         VALUES ('shop', 'hash', 7, {enabled}, 1, 1);
         INSERT INTO customers (id, account_id, email_key, public_id, reference, profile, status, status_version, revision,
                                create_time, update_time)
         {id}
         VALUES (1, 1, 'zoë@example.com', 'public', '0042', '{record}', 3, 2, 5, 11, 12),
                (2, 1, 'gone@example.com', 'gone', '', '{{}}', 2, 1, 1, 13, 13);
         INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face, request_id,
                                     change_time)
         VALUES (1, 1, 1, NULL, 2, 'shop', 3, 'first', 11), (1, 1, 2, 2, 3, 'shop', 1, 'second', 12),
                (1, 2, 1, NULL, 2, 'shop', 3, 'third', 13);
         DELETE FROM customers WHERE id = 2;",
        enabled = match database.backend {
            Backend::Sqlite => "1",
            Backend::Postgres => "true",
        },
    ));
    if database.backend == Backend::Postgres {
        // What the rows would have done had they been given their ids.
        sql.execute("SELECT setval(pg_get_serial_sequence('customers', 'id'), 2)");
    }
    drop(sql);

    attempt(database, Migrate::Check).map(drop).unwrap_err();
    block_on(async {
        let store = attempt(database, Migrate::Auto).unwrap();
        let shop = super::credentials(&store, "shop").await;
        let customer = store
            .customer(shop, super::key("zoë@example.com"), soon())
            .await
            .unwrap();
        assert_eq!((customer.id, customer.public_id.as_str()), (1, "public"));
        assert_eq!((customer.reference.as_str(), customer.revision), ("0042", 5));
        assert_eq!(customer.status, store::Status::Fail);
        assert_eq!(customer.profile.email, "Zoë@Example.com");
        assert_eq!(customer.profile.last_name, "O'Brien");
        let history = store
            .history(shop, super::key("zoë@example.com"), 10, soon())
            .await
            .unwrap();
        assert_eq!(history.len(), 2);

        let new = vec![super::new_customer("gone@example.com")];
        store
            .import(shop.account, new, super::origin("import"), soon())
            .await
            .unwrap();
        let anew = store
            .customer(shop, super::key("gone@example.com"), soon())
            .await
            .unwrap();
        assert_eq!(anew.id, 3, "the id of a customer that is gone stays with its history");
    });
}
