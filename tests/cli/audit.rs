//! `audit seal` and `audit verify`: what they print, and how they end.

use super::shop;
use crate::support::{Backend, Database, Gateway, Output, dcams, eventually};

fn audit(database: &Database, arguments: &[&str]) -> Output {
    dcams(database, &[&["audit"], arguments].concat(), "")
}

/// Seals until so many rows are.
fn seal(database: &Database, rows: u64) {
    let mut sealed = 0;
    // On PostgreSQL a transaction of any other test holds rows back until it ends.
    eventually("the rows are sealed", || {
        let said = audit(database, &["seal"]).ok();
        let end = " rows are sealed that were not before\n";
        sealed += said.strip_suffix(end).unwrap().parse::<u64>().unwrap();
        sealed >= rows
    });
    assert_eq!(sealed, rows);
}

/// A shop with two customers and two changes.
fn changed(backend: Backend) -> Database {
    let database = shop(backend);
    database.import("shop", "email\na@example.com\nb@example.com\n");
    for status in ["PASS", "FAIL"] {
        let set = ["customer", "set-status", "a@example.com", status, "--account", "shop"];
        dcams(&database, &set, "").ok();
    }
    database
}

/// The words of the lines of a table, but for its head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn a_sealed_history_fits_and_its_head_can_be_checked_later() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        dcams(&database, &["account", "create", "other"], "").ok();
        let before = audit(&database, &["verify"]).ok();
        assert_eq!(
            before.lines().next().unwrap(),
            "account    blocks        rows  unsealed  head"
        );
        assert_eq!(
            rows(&before),
            [["shop", "0", "0", "4", "-"], ["other", "0", "0", "0", "-"]]
        );

        seal(&database, 4);
        let sealed = audit(&database, &["verify"]).ok();
        let head = rows(&sealed)[0][4];
        assert_eq!(rows(&sealed)[0][2..4], ["4", "0"], "{sealed}");
        assert!(head.starts_with("shop:") && head.len() > 70, "{sealed}");
        let of = ["verify", "--account", "shop", "--head", head];
        assert_eq!(rows(&audit(&database, &of).ok()), rows(&sealed)[..1]);

        // Another history than the one that was noted.
        let last = if head.ends_with('0') { "1" } else { "0" };
        let forged = format!("{}{last}", &head[..head.len() - 1]);
        let output = audit(&database, &["verify", "--head", &forged]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.out.contains("FAULT: block "), "{output:?}");
        assert!(output.out.contains("is not the one that was noted"), "{output:?}");
        let wrong = ["verify", "--account", "other", "--head", head];
        assert!(audit(&database, &wrong).fails(1).contains("another account"));
        assert_eq!(
            audit(&database, &["verify", "--account", "nobody"]).fails(1),
            "no such account"
        );
        let line = audit(&database, &["verify", "--head", "nonsense"]).fails(2);
        assert!(line.contains("ACCOUNT:NUMBER:HASH is needed"), "{line}");
    }
}

#[test]
fn a_row_that_was_changed_is_named() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        seal(&database, 4);
        let set = "UPDATE status_changes SET to_status = 1, actor = 'canary' WHERE position = 4";
        database.session().execute(set);
        let output = audit(&database, &["verify"]);
        assert_eq!(output.code, 1, "{output:?}");
        assert_eq!(output.err, "error: the history of an account is not what was sealed\n");
        let history = [
            "customer",
            "history",
            "a@example.com",
            "--format",
            "ndjson",
            "--account",
            "shop",
        ];
        let history = dcams(&database, &history, "").ok();
        let row: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
        let named = format!(
            "FAULT: the row of customer {}, version 3, sequence 4, was changed (block ",
            row["customer_id"].as_str().unwrap()
        );
        assert!(output.out.contains(&named), "{output:?}");
        assert!(!output.out.contains("canary"), "{output:?}");
    }
}

#[test]
fn a_store_with_no_schema_is_refused_and_not_made() {
    let database = Backend::Sqlite.database();
    let line = audit(&database, &["verify"]).fails(1);
    assert!(line.contains("run `dcams-gateway migrate`"), "{line}");
    assert!(!database.path(Database::FILE).exists());
}

#[test]
fn a_gateway_seals_by_itself_and_counts_it() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let gateway = Gateway::start(&database, &[]);
        // On PostgreSQL a transaction of any other test may hold some of them back.
        eventually("the history is sealed", || {
            let metrics = String::from_utf8(gateway.get("/metrics").body).unwrap();
            metrics
                .lines()
                .filter_map(|line| line.strip_prefix("dcams_audit_rows_sealed_total "))
                .any(|rows| rows != "0")
        });
        drop(gateway);
        let table = audit(&database, &["verify"]).ok();
        assert_eq!(rows(&table)[0][1], "1", "{table}");
    }
}
