//! `migrate`: the schema of a store.

use diesel::{QueryableByName, sql_types::BigInt};

use crate::support::{Backend, Database, Gateway, dcams};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many tables there are.
fn tables(database: &Database) -> i64 {
    let catalog = match database.backend {
        Backend::Sqlite => "sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        Backend::Postgres => "information_schema.tables WHERE table_schema = 'public'",
    };
    let rows: Vec<Count> = database
        .session()
        .rows(&format!("SELECT count(*) AS count FROM {catalog}"));
    rows[0].count
}

/// The location as the program shows it: without the user.
fn shown(database: &Database) -> String {
    database.url.replace("postgres@", "")
}

#[test]
fn migrating_makes_the_schema_and_then_finds_it_up_to_date() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let up_to_date = format!("the schema of {} is up to date\n", shown(&database));
        assert_eq!(dcams(&database, &["migrate"], "").ok(), up_to_date);
        let made = tables(&database);
        assert!(made >= 4, "{made}");
        assert_eq!(dcams(&database, &["migrate"], "").ok(), up_to_date);
        assert_eq!(dcams(&database, &["migrate", "--check"], "").ok(), up_to_date);
        assert_eq!(tables(&database), made);
    }
}

#[test]
fn a_check_of_a_new_store_fails_and_changes_nothing() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let line = dcams(&database, &["migrate", "--check"], "").fails(1);
        assert!(line.contains("run `dcams-gateway migrate`"), "{line}");
        if backend == Backend::Sqlite {
            assert!(!database.path("dcams.db").exists());
        }
        assert_eq!(tables(&database), 0);
    }
}

#[test]
fn a_gateway_that_only_checks_serves_a_store_that_is_up_to_date_and_no_other() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let serve = [
            "serve",
            "--migrate",
            "check",
            "--rest-addr",
            "127.0.0.1:0",
            "--grpc-addr",
            "127.0.0.1:0",
        ];
        let line = dcams(&database, &[&serve[..], &["--ops-addr", "127.0.0.1:0"]].concat(), "").fails(1);
        assert!(line.contains("run `dcams-gateway migrate`"), "{line}");

        dcams(&database, &["migrate"], "").ok();
        let gateway = Gateway::start(&database, &["--migrate", "check"]);
        assert_eq!(gateway.get("/readyz").status, 200);
    }
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    for backend in Backend::BOTH {
        let database = backend.database();
        dcams(&database, &["migrate"], "").ok();
        database
            .session()
            .execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99999999999999')");
        for arguments in [&["migrate"][..], &["migrate", "--check"], &["account", "list"]] {
            let line = dcams(&database, arguments, "").fails(1);
            assert!(line.contains("migrated by a newer dcams-gateway"), "{line}");
        }
    }
}
