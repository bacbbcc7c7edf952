//! PostgreSQL whose disk is full, or fails, under load: what is refused was not made, nothing acknowledged is lost, reads go on
//! where PostgreSQL does, and changes are made again, without a restart of the gateway, when the disk is well again.
//!
//! A sync of the WAL that fails, or a WAL that has no room, brings PostgreSQL down, as it documents; it starts again by itself
//! or by whoever watches over it.

use std::{
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection, PgConnection, connection::SimpleConnection};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    faults::{
        Random,
        clients::{Client, tally, work},
        either,
        ledger::{Fate, Stored, finds_a_loss, verify},
        load::{CLIENTS, body, create_account, email, register, see},
        seed,
        shim::{Rule, Shim, call, errno, file},
        tell,
    },
    support::{Cluster, Database, Durability, Gateway, eventually, program},
};

/// How long a client waits that was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a disk stays full.
const FULL: Duration = Duration::from_millis(700);

/// What is wrong with the disk.
struct Trouble {
    name: &'static str,
    /// Sets of [`call`] and [`file`].
    calls: u8,
    files: u8,
    /// For as long as it lasts, nothing can be made or grow; else some calls fail.
    is_full: bool,
    /// What makes the server do such calls.
    nudge: &'static str,
}

const TROUBLES: [Trouble; 7] = [
    Trouble {
        name: "full",
        calls: call::OPEN | call::WRITE,
        files: file::MAIN,
        is_full: true,
        nudge: "SELECT 1",
    },
    Trouble {
        name: "full for the WAL",
        calls: call::OPEN | call::WRITE,
        files: file::WAL,
        is_full: true,
        nudge: "SELECT pg_switch_wal()",
    },
    Trouble {
        name: "open",
        calls: call::OPEN,
        files: file::MAIN,
        is_full: false,
        nudge: "SELECT 1",
    },
    Trouble {
        name: "write",
        calls: call::WRITE,
        files: file::MAIN,
        is_full: false,
        nudge: "CHECKPOINT",
    },
    Trouble {
        name: "sync",
        calls: call::SYNC,
        files: file::MAIN,
        is_full: false,
        nudge: "CHECKPOINT",
    },
    Trouble {
        name: "write of the WAL",
        calls: call::WRITE,
        files: file::WAL,
        is_full: false,
        nudge: "SELECT 1",
    },
    Trouble {
        name: "sync of the WAL",
        calls: call::SYNC,
        files: file::WAL,
        is_full: false,
        nudge: "SELECT 1",
    },
];

impl Trouble {
    fn rule(&self, random: &mut Random) -> Rule {
        Rule {
            calls: self.calls,
            files: self.files,
            first: 1 + random.next() % 8,
            count: match self.is_full {
                true => u64::MAX,
                false => 1 + 2 * (random.next() % 2),
            },
            error: if self.is_full { errno::ENOSPC } else { errno::EIO },
            growing: self.is_full,
        }
    }
}

/// Does something in a new session, whatever comes of it.
fn nudge(database: &Database, sql: &str) -> bool {
    PgConnection::establish(&database.url).is_ok_and(|mut session| session.batch_execute(sql).is_ok())
}

#[test]
fn nothing_is_lost_whatever_becomes_of_the_disk_of_postgresql() {
    let name = "a disk of postgresql";
    let mut random = Random(seed(name));
    let mut cluster = Cluster::start(Durability::Full);
    let database = Database::on(&cluster);
    create_account(&database, program);
    let mut sent = register(&database, program);

    let library = cluster.file_of_its_own("shim.so");
    Shim::copy_library(&library);
    let control = cluster.file_of_its_own("shim-control");
    let shim = Shim::on(&cluster.data(), control.parent().unwrap(), false);
    cluster.restart_with(shim.environment(&library));

    let gateway = Gateway::start(&database, &[]);
    let runtime = Runtime::new().unwrap();
    let mut clients = Client::crew(&runtime, CLIENTS, &[&gateway]);
    let rounds = either(1, 30);
    let mut failed = [0; TROUBLES.len()];
    let mut slowest = [Duration::ZERO; TROUBLES.len()];
    for round in 0..rounds {
        for (trouble, (failed, slowest)) in TROUBLES.iter().zip(failed.iter_mut().zip(&mut slowest)) {
            let context = format!("{} in round {round}", trouble.name);
            let rule = trouble.rule(&mut random);
            let again = work(&runtime, &mut clients, PAUSE, &mut sent, |board| {
                board.reach(50);
                shim.arm(0, rule);
                eventually(&format!("a call fails: {context}"), || {
                    nudge(&database, trouble.nudge);
                    shim.failed(0) > 0
                });
                if trouble.is_full {
                    let until = Instant::now() + FULL;
                    while Instant::now() < until {
                        // What is there can be read.
                        if trouble.files == file::MAIN {
                            let read = gateway.post(body("getStatus", json!({ "email": email(0) })));
                            assert_eq!(read.status, 200, "{context}: {}", read.text());
                        }
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                shim.disarm();
                eventually(&format!("the server takes connections: {context}"), || {
                    cluster.revive();
                    nudge(&database, "SELECT 1")
                });
                let again = board.all_write_again();
                board.reach(50);
                again
            });
            *failed += shim.failed(0);
            *slowest = again.max(*slowest);
            eventually("the gateway is ready", || gateway.get("/readyz").status == 200);
            let stored = Stored::of(&mut database.session());
            verify(&stored, &sent).unwrap_or_else(|fault| panic!("{context}: {fault}"));
            see(&gateway, &stored, &context);
        }
    }
    let tally = tally(&clients);
    let times: Vec<_> = TROUBLES
        .iter()
        .zip(failed.iter().zip(&slowest))
        .map(|(trouble, (failed, time))| format!("{} {failed} calls, {} ms", trouble.name, time.as_millis()))
        .collect();
    tell(&format!(
        "{name}: {tally:?}, 0 acknowledged and lost, 0 refused and made, 0 left open; failed, and all clients write again at most \
         after: {}",
        times.join("; ")
    ));
    let open = sent
        .values()
        .flatten()
        .filter(|attempt| attempt.fate == Fate::Open)
        .count();
    assert_eq!(open, 0);
    assert!(tally.refused > 0, "{tally:?}");
    // It did go down: the test would be blind without.
    assert!(cluster.log().contains("PANIC"), "the server never went down");
    // Whoever tests beside this one has the machine as well: only the long form, which runs alone, can ask for this.
    let bound = either(Duration::from_secs(30), Duration::from_secs(2));
    assert!(slowest.iter().all(|time| *time < bound), "{times:?}");
    assert_eq!(gateway.stop().code, 0);
    finds_a_loss(&mut database.session(), &sent);
}
