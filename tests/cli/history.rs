//! `customer history`, `show --at` and `set-status --reason`: what an operator sees of who changed what.

use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use super::shop;
use crate::support::{Backend, Database, dcams};

/// A shop with two customers, whose statuses have been changed.
fn changed(backend: Backend) -> Database {
    let database = shop(backend);
    database.import("shop", "email,reference\nA@example.com,0042\nb@example.com,\n");
    for (email, status) in [
        ("a@example.com", "PASS"),
        ("b@example.com", "FAIL"),
        ("a@example.com", "FAIL"),
    ] {
        customer(&database, &["set-status", email, status]).ok();
    }
    database
}

fn customer(database: &Database, arguments: &[&str]) -> crate::support::Output {
    dcams(
        database,
        &[&["customer"], arguments, &["--account", "shop"]].concat(),
        "",
    )
}

/// The history as objects.
fn objects(database: &Database, arguments: &[&str]) -> Vec<Value> {
    let out = customer(database, &[&["history", "--format", "ndjson"], arguments].concat()).ok();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(objects: &[Value], key: &str) -> Vec<i64> {
    objects.iter().map(|object| object[key].as_i64().unwrap()).collect()
}

fn texts<'a>(objects: &'a [Value], key: &str) -> Vec<&'a str> {
    objects
        .iter()
        .map(|object| object[key].as_str().unwrap_or("null"))
        .collect()
}

#[test]
fn the_history_can_be_had_as_objects() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let history = objects(&database, &["a@example.com"]);
        assert_eq!(numbers(&history, "version"), [1, 2, 3]);
        assert_eq!(texts(&history, "from_status"), ["null", "PENDING", "PASS"]);
        assert_eq!(texts(&history, "to_status"), ["PENDING", "PASS", "FAIL"]);
        for object in &history {
            assert_eq!(object["email"], "A@example.com");
            assert_eq!(object["reference"], "0042");
            assert_eq!(
                (&object["account"], &object["actor"]),
                (&"shop".into(), &"operator".into())
            );
            assert_eq!((&object["face"], &object["reason"]), (&"cli".into(), &Value::Null));
            assert_eq!(object["erased"], false);
            assert!(object["change_time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        }
        // Of all customers, in the order of their times.
        let all = objects(&database, &[]);
        assert_eq!(numbers(&all, "version"), [1, 1, 2, 2, 3]);
        assert_eq!(all[4], history[2]);
        assert_eq!(objects(&database, &["--limit", "2"]), all[3..]);
        assert_eq!(objects(&database, &["a@example.com", "--limit", "0"]), [Value::Null; 0]);
        let id = history[0]["customer_id"].as_str().unwrap();
        assert_eq!(objects(&database, &["--id", id]), history);
        let table = customer(&database, &["history"]).ok();
        assert_eq!(table.lines().count(), 6);
        assert!(table.lines().next().unwrap().contains("  customer  "), "{table}");
        assert!(table.contains(&format!("  {id}  ")), "{table}");
    }
}

#[test]
fn a_range_of_times_is_chosen() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let all = objects(&database, &[]);
        let times = texts(&all, "change_time");
        let rows = |arguments: &[&str]| numbers(&objects(&database, arguments), "sequence");
        assert_eq!(rows(&["--since", times[3]]), numbers(&all[3..], "sequence"));
        assert_eq!(rows(&["--until", times[3]]), numbers(&all[..3], "sequence"));
        let range = ["--since", times[2], "--until", times[4], "a@example.com"];
        assert_eq!(rows(&range), numbers(&all[2..3], "sequence"));
        // In any offset of the clock.
        let offset = times[3].replace('Z', "+00:00");
        assert_eq!(rows(&["--since", &offset]), numbers(&all[3..], "sequence"));
        let line = customer(&database, &["history", "--since", "yesterday"]).fails(2);
        assert!(line.contains("--since <TIME>"), "{line}");
    }
}

#[test]
fn the_status_at_a_time_is_shown() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let history = objects(&database, &["a@example.com"]);
        let at = |time: &str| customer(&database, &["show", "a@example.com", "--at", time]);
        for (object, status) in history.iter().zip(["PENDING", "PASS", "FAIL"]) {
            let time = object["change_time"].as_str().unwrap();
            let shown = at(time).ok();
            assert!(
                shown.starts_with(&format!("status     {status}\nsince      {time}\n")),
                "{shown}"
            );
            assert!(shown.contains("\nactor      operator\n"), "{shown}");
        }
        let first: Timestamp = history[0]["change_time"].as_str().unwrap().parse().unwrap();
        let before = first.checked_sub(1.microsecond()).unwrap().to_string();
        assert_eq!(at(&before).fails(1), "no such customer");
        let line = at("now").fails(2);
        assert!(line.contains("--at <TIME>"), "{line}");
    }
}

#[test]
fn a_reason_is_kept_and_shown() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let set = |status: &str, reason: &str| {
            customer(&database, &["set-status", "a@example.com", status, "--reason", reason])
        };
        set("PASS", " Papers, seen twice ").ok();
        let history = objects(&database, &["a@example.com"]);
        assert_eq!(history[3]["reason"], "Papers, seen twice", "{backend}");
        let table = customer(&database, &["history", "a@example.com"]).ok();
        assert!(table.trim_end().ends_with(", Papers, seen twice"), "{table}");
        let now = Timestamp::now().to_string();
        let shown = customer(&database, &["show", "a@example.com", "--at", &now]).ok();
        assert!(shown.ends_with("reason     Papers, seen twice\n"), "{shown}");

        for bad in ["", " ", "a\nb", &"é".repeat(201)] {
            let line = set("FAIL", bad).fails(2);
            assert!(line.contains("1 to 200 characters"), "{line}");
        }
        set("FAIL", &"é".repeat(200)).ok();
    }
}

#[test]
fn the_history_of_an_erased_customer_is_found_by_its_public_id() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let before = objects(&database, &["a@example.com"]);
        customer(&database, &["erase", "a@example.com", "--yes"]).ok();
        assert_eq!(
            customer(&database, &["history", "a@example.com"]).fails(1),
            "no such customer"
        );
        let id = before[0]["customer_id"].as_str().unwrap();
        let after = objects(&database, &["--id", id]);
        assert_eq!(numbers(&after, "version")[..3], [1, 2, 3]);
        for object in &after {
            assert_eq!((&object["email"], &object["reference"]), (&Value::Null, &Value::Null));
        }
        assert!(after[3..].iter().all(|object| object["erased"] == true));
        let table = customer(&database, &["history", "--id", id]).ok();
        assert_eq!(table.matches("erased").count(), after.len() - 3, "{table}");
        assert!(!table.contains('@'), "{table}");
        let both = customer(&database, &["history", "b@example.com", "--id", id]).fails(2);
        assert!(both.contains("cannot be used with"), "{both}");
        assert_eq!(
            customer(&database, &["history", "--id", "x"]).fails(1),
            "no such customer"
        );
    }
}
