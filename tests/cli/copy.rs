//! `store copy`: what it prints, and how it ends.

use super::shop;
use crate::support::{Backend, Database, Output, dcams, program, run};

fn copy(from: &str, to: &str) -> Output {
    run(program().args(["store", "copy", "--from", from, "--to", to]), "")
}

/// The location as the program shows it: without the user.
fn shown(database: &Database) -> String {
    database.url.replace("postgres@", "")
}

#[test]
fn a_store_is_moved_to_the_other_database_and_works_there() {
    for (from, to) in [
        (Backend::Sqlite, Backend::Postgres),
        (Backend::Postgres, Backend::Sqlite),
    ] {
        let (from, to) = (shop(from), to.database());
        from.import("shop", "email,fn\na@example.com,Ann\nb@example.com,Bo\n");
        let out = copy(&from.url, &to.url).ok();
        let (lines, end) = out.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(end, format!("{} holds what {} holds", shown(&to), shown(&from)));
        let mut counts = Vec::new();
        for line in lines.lines() {
            let [table, rows, checksum] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            assert_eq!(checksum.len(), 16, "{line}");
            assert!(checksum.bytes().all(|digit| digit.is_ascii_hexdigit()), "{line}");
            counts.push((table, rows));
        }
        assert_eq!(
            counts,
            [
                ("encryption", "0"),
                ("accounts", "1"),
                ("customers", "2"),
                ("documents", "0"),
                ("status_changes", "2"),
                ("erasures", "0"),
                ("idempotency_keys", "0"),
                ("audit_blocks", "0"),
                ("webhooks", "0"),
                ("webhook_deliveries", "0"),
                ("api_tokens", "0"),
            ]
        );
        let show = ["customer", "show", "b@example.com", "--account", "shop"];
        assert_eq!(dcams(&to, &show, "").ok(), dcams(&from, &show, "").ok());
        // Again, and to a third: the same lines.
        assert_eq!(copy(&from.url, &to.url).ok(), out);
        let third = from.backend.database();
        let again = copy(&to.url, &third.url).ok();
        assert_eq!(again.trim_end().rsplit_once('\n').unwrap().0, lines);
    }
}

#[test]
fn what_cannot_be_copied_is_said_in_one_line() {
    let (from, other) = (shop(Backend::Sqlite), shop(Backend::Postgres));
    let line = copy(&from.url, &other.url).fails(1);
    assert_eq!(
        line,
        format!(
            "{} holds accounts that are not those of the source: nothing was copied; copy to an empty database",
            shown(&other)
        )
    );
    let line = copy(&from.url, &from.url).fails(1);
    assert_eq!(line, "a store cannot be copied to itself");
    let empty = Backend::Sqlite.database();
    let line = copy(&empty.url, &other.url).fails(1);
    assert_eq!(line, format!("{}: there is no such file", empty.url));
    let nowhere = "postgres://user:canary@127.0.0.1:1/none";
    let line = copy(nowhere, &empty.url).fails(1);
    assert!(
        line.starts_with("the database is unavailable: postgres://127.0.0.1:1/none: "),
        "{line}"
    );
    assert!(!line.contains("canary"), "{line}");
}

#[test]
fn both_stores_must_be_named_and_no_url_is_quoted() {
    let output = run(program().args(["store", "copy", "--from", "sqlite://a.db"]), "");
    assert!(output.fails(2).contains("--to <URL>"));
    let line = copy("mysql://user:canary@h/d", "sqlite://a.db").fails(2);
    assert!(line.contains("a store is sqlite://PATH or postgres://"), "{line}");
    assert!(!line.contains("canary"), "{line}");
}

#[test]
fn the_urls_can_come_from_the_environment() {
    let (from, to) = (shop(Backend::Sqlite), Backend::Sqlite.database());
    let mut command = program();
    command
        .args(["store", "copy"])
        .env("DCAMS_COPY_FROM", &from.url)
        .env("DCAMS_COPY_TO", &to.url);
    let end = format!("{} holds what {} holds\n", to.url, from.url);
    assert!(run(&mut command, "").ok().ends_with(&end));
}
