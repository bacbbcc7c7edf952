//! `feed`: an account's changes as JSON, a line each.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::shop;
use crate::support::{Backend, Database, Gateway, dcams, program, until};

/// A database whose account `shop` has a customer whose status was changed twice.
fn changed(backend: Backend) -> Database {
    let database = shop(backend);
    database.import("shop", "email,reference\nann@example.com,4711\n");
    for status in ["PASS", "FAIL"] {
        set(&database, status);
    }
    database
}

fn set(database: &Database, status: &str) {
    let set = ["customer", "set-status", "ann@example.com", status, "--account", "shop"];
    dcams(database, &set, "").ok();
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn versions(lines: &[Value]) -> Vec<i64> {
    lines.iter().map(|line| line["version"].as_i64().unwrap()).collect()
}

/// The command while it runs. It is killed when this is dropped.
struct Following {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Following {
    fn begin(database: &Database, arguments: &[&str]) -> Self {
        let mut command = program();
        command
            .args(database.arguments())
            .args(["feed", "--account", "shop"])
            .args(arguments)
            .current_dir(database.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Some(BufReader::new(child.stdout.take().unwrap()));
        Self { child, out }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for its end, which must be in order.
    fn end(mut self) {
        let status = until("the command ends", || self.child.try_wait().unwrap());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), &*said), (Some(0), ""));
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_there_is_printed_and_each_line_says_where_to_go_on() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let feed = |arguments: &[&str]| {
            let arguments = [&["feed", "--account", "shop", "--until-now"], arguments].concat();
            lines(&dcams(&database, &arguments, "").ok())
        };
        let all = feed(&[]);
        assert_eq!(versions(&all), [1, 2, 3], "{backend}");
        let mut second = all[1].clone();
        assert!(second["change_time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert!(second["sequence"].as_i64() > all[0]["sequence"].as_i64());
        for made_up in ["sequence", "customer_id", "request_id", "change_time", "cursor"] {
            assert!(!second.as_object_mut().unwrap().remove(made_up).unwrap().is_null());
        }
        let expected = json!({
            "email": "ann@example.com", "reference": "4711", "from_status": "PENDING", "to_status": "PASS", "version": 2,
            "account": "shop", "actor": "operator", "face": "cli", "reason": null, "erased": false,
        });
        assert_eq!(second, expected, "{backend}");
        assert_eq!(all[0]["from_status"], Value::Null);
        for (line, left) in all.iter().zip([&[2, 3][..], &[3], &[]]) {
            let cursor = line["cursor"].as_str().unwrap();
            assert_eq!(versions(&feed(&["--from", cursor])), left, "{backend}");
        }
        assert_eq!(feed(&["--only-new"]), [] as [Value; 0]);

        let wrong = |arguments: &[&str]| dcams(&database, &[&["feed", "--account"], arguments].concat(), "").fails(1);
        assert_eq!(
            wrong(&["shop", "--from", "nonsense"]),
            "--from is no cursor of this store"
        );
        assert_eq!(wrong(&["nobody"]), "nobody: no such account");
        let erase = ["customer", "erase", "ann@example.com", "--account", "shop", "--yes"];
        dcams(&database, &erase, "").ok();
        let erased = feed(&[]);
        assert_eq!(
            (&erased[1]["email"], &erased[1]["reference"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(erased[1]["customer_id"], all[1]["customer_id"]);
    }
}

#[test]
fn changes_are_followed_until_it_is_told_to_stop() {
    for backend in Backend::BOTH {
        for signal in ["INT", "TERM"] {
            let database = changed(backend);
            // Another process changes them.
            let _gateway = Gateway::start(&database, &[]);
            let mut following = Following::begin(&database, &[]);
            for version in 1..=3 {
                assert_eq!(following.next()["version"], version, "{backend}");
            }
            set(&database, "PENDING");
            assert_eq!(following.next()["version"], 4, "{backend}");
            following.signal(signal);
            following.end();
        }
    }
}

#[test]
fn it_ends_when_nobody_reads_it_any_more() {
    for backend in Backend::BOTH {
        let database = changed(backend);
        let mut following = Following::begin(&database, &[]);
        following.next();
        // Although there is nothing more to print.
        following.out = None;
        following.end();
    }
}
