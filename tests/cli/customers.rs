//! `customer show`, `set-status` and `history`: what an operator sees and does.

use insta::{allow_duplicates, assert_snapshot};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::shop;
use crate::support::{Backend, Connection, Database, Gateway, dcams, post};

const CUSTOMER: &str = "\
email,fn,ln,addr,city,state,zip,dob,phone,reference,status
Test@Example.com,John,Smith,123 Main St,Stratford,CT,06614,19700101,2015106000,888888812,PENDING
";

/// A database with an account `shop` that has one customer.
fn shop_with_a_customer(backend: Backend) -> Database {
    let database = shop(backend);
    let file = database.file("customers.csv", CUSTOMER);
    let import = ["customer", "import", file.to_str().unwrap(), "--account", "shop"];
    assert_eq!(
        dcams(&database, &import, "").ok(),
        "1 customer created, 0 already there\n"
    );
    database
}

/// What is printed, with a word of the same width for each time and each id that was made up.
fn masked(text: &str) -> String {
    let mut masked = text.to_owned();
    for word in text.split_whitespace() {
        if word.parse::<Timestamp>().is_ok() {
            masked = masked.replace(word, &format!("{:<width$}", "TIME", width = word.len()));
        } else if word.parse::<Uuid>().is_ok() {
            masked = masked.replace(word, "ID");
        }
    }
    masked.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_customer_is_shown_as_it_is_stored() {
    for backend in Backend::BOTH {
        let database = shop_with_a_customer(backend);
        // Every way to write the same address finds it, and it is shown as it was registered.
        for email in ["Test@Example.com", "test@example.com", " TEST@EXAMPLE.COM "] {
            let shown = dcams(&database, &["customer", "show", email, "--account", "shop"], "").ok();
            allow_duplicates!(assert_snapshot!(masked(&shown), @r"
            email      Test@Example.com
            fn         John
            ln         Smith
            addr       123 Main St
            city       Stratford
            state      CT
            zip        06614
            dob        19700101
            phone      2015106000
            reference  888888812
            status     PENDING
            created    TIME
            updated    TIME
            "));
        }
    }
}

#[test]
fn a_status_is_set_in_any_letter_case() {
    for backend in Backend::BOTH {
        let database = shop_with_a_customer(backend);
        for (given, status) in [
            ("PASS", "PASS"),
            ("fail", "FAIL"),
            ("Pending", "PENDING"),
            ("pass", "PASS"),
        ] {
            let set = ["customer", "set-status", "test@example.com", given, "--account", "shop"];
            assert_eq!(dcams(&database, &set, "").ok(), format!("the status is {status}\n"));
            let shown = dcams(
                &database,
                &["customer", "show", "test@example.com", "--account", "shop"],
                "",
            )
            .ok();
            assert!(shown.contains(&format!("\nstatus     {status}\n")), "{shown}");
        }
    }
}

#[test]
fn the_history_tells_every_change_and_who_made_it() {
    for backend in Backend::BOTH {
        let database = shop_with_a_customer(backend);
        let set = [
            "customer",
            "set-status",
            "test@example.com",
            "PASS",
            "--account",
            "shop",
        ];
        dcams(&database, &set, "").ok();
        // The same again is no change.
        dcams(&database, &set, "").ok();
        let gateway = Gateway::start(&database, &[]);
        let body = json!({
            "user": "shop", "pass": "secret", "service": "updateStatus",
            "target": { "email": "test@example.com", "status": "FAIL" },
        });
        let request = String::from_utf8(post(body.to_string().as_bytes())).unwrap();
        let request = request.replacen("\r\n", "\r\nX-Request-Id: order-4711\r\n", 1);
        assert_eq!(Connection::open(gateway.rest).exchange(request.as_bytes()).status, 200);

        let history = ["customer", "history", "test@example.com", "--account", "shop"];
        allow_duplicates!(assert_snapshot!(masked(&dcams(&database, &history, "").ok()), @r"
        sequence  version  time                            from       to       face  actor, request, reason
               1        1  TIME                            -       -> PENDING  cli   operator, ID
               2        2  TIME                            PENDING -> PASS     cli   operator, ID
               3        3  TIME                            PASS    -> FAIL     rest  shop, order-4711
        "));
        let latest = [&history[..], &["--limit", "2"]].concat();
        allow_duplicates!(assert_snapshot!(masked(&dcams(&database, &latest, "").ok()), @r"
        sequence  version  time                            from       to       face  actor, request, reason
               2        2  TIME                            PENDING -> PASS     cli   operator, ID
               3        3  TIME                            PASS    -> FAIL     rest  shop, order-4711
        "));
    }
}

#[test]
fn an_unknown_email_or_account_is_said_to_be_unknown() {
    for backend in Backend::BOTH {
        let database = shop_with_a_customer(backend);
        dcams(&database, &["account", "create", "other"], "").ok();
        let commands: [&[&str]; 3] = [&["show"], &["history"], &["set-status"]];
        for command in commands {
            let status: &[&str] = if command == ["set-status"] { &["PASS"] } else { &[] };
            let of = |email: &str, account: &str| {
                let arguments = [&["customer"], command, &[email], status, &["--account", account]].concat();
                dcams(&database, &arguments, "").fails(1)
            };
            assert_eq!(of("nobody@example.com", "shop"), "no such customer");
            assert_eq!(of("test@example.com", "other"), "no such customer");
            assert_eq!(of("test@example.com", "nobody"), "nobody: no such account");
            assert_eq!(of("no address", "shop"), "the email address is invalid");
        }
        let shown = dcams(
            &database,
            &["customer", "show", "test@example.com", "--account", "shop"],
            "",
        )
        .ok();
        assert!(shown.contains("\nstatus     PENDING\n"), "{shown}");
    }
}

#[test]
fn an_operator_may_act_for_a_disabled_account() {
    for backend in Backend::BOTH {
        let database = shop_with_a_customer(backend);
        dcams(&database, &["account", "disable", "shop"], "").ok();
        let set = [
            "customer",
            "set-status",
            "test@example.com",
            "PASS",
            "--account",
            "shop",
        ];
        assert_eq!(dcams(&database, &set, "").ok(), "the status is PASS\n");
    }
}
