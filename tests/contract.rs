//! The REST contract as a table of requests and golden replies, the same on both stores, near and far.
//!
//! A table is a list of rows, each a name and the bytes of a request. The rows are sent over sockets to the program in
//! the four [`Configuration`]s, and what each of them answers must be, to the byte, the one file of the table in
//! `tests/golden`. There the request comes first; where only its body is shown, it is posted the way [`post`] does it.
//! Nothing is replaced but what is new every time: `<id>`, `<public id>`, `<date>` and the seconds of a long wait.
//!
//! `INSTA_UPDATE=always cargo test -p dcams-gateway --test main contract::` writes the files anew; look at the
//! difference before it is committed.

pub mod configuration;
pub mod documented;
mod email;
pub mod errors;
mod failures;
pub mod family;
mod http;
mod malformed;
mod order;
mod retries;
#[path = "../crates/gateway/src/compat/rows.rs"]
#[allow(dead_code)]
pub mod rows;
mod tolerances;
pub mod transcript;

use std::thread;

use configuration::{Configuration, Deployment};
use transcript::transcript;

use crate::support::{self, Database, post};

/// A row of a table: what it shows, and the request as it is sent.
pub type Row = (&'static str, Vec<u8>);

/// Rows that are posted: of each, its name and its body.
pub fn posted<const N: usize>(rows: [(&'static str, &str); N]) -> Vec<Row> {
    rows.map(|(name, body)| (name, post(body.as_bytes()))).into()
}

/// The rows of the table that `compat` sends as well.
pub fn shared(rows: Vec<rows::Row>) -> Vec<Row> {
    rows.into_iter().map(|row| (row.name, post(&row.body))).collect()
}

/// Sends a table to every configuration, each with a database of its own that has the account `USERNAME` and its
/// customers, and compares the answers with the golden file of that name.
pub fn check(golden: &str, customers: &str, rows: &[Row]) {
    let prepare = |database: &Database| {
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", customers);
    };
    everywhere(golden, &[], prepare, |deployment| {
        transcript(deployment.face().rest, rows)
    });
}

/// Starts every configuration on a database that was prepared, and compares what `answers` gives of each with the
/// golden file of that name.
pub fn everywhere(
    golden: &str,
    arguments: &[&str],
    prepare: impl Fn(&Database) + Sync,
    answers: impl Fn(&Deployment) -> String + Sync,
) {
    everywhere_on(|database| database, golden, arguments, prepare, answers);
}

/// The same on databases that `set_up` makes of empty ones.
pub fn everywhere_on(
    set_up: impl Fn(Database) -> Database + Sync,
    golden: &str,
    arguments: &[&str],
    prepare: impl Fn(&Database) + Sync,
    answers: impl Fn(&Deployment) -> String + Sync,
) {
    let transcripts = thread::scope(|scope| {
        let started = Configuration::ALL.map(|configuration| {
            let (set_up, prepare, answers) = (&set_up, &prepare, &answers);
            let work = scope.spawn(move || {
                let database = set_up(configuration.backend.database());
                prepare(&database);
                answers(&Deployment::start(configuration, database, arguments))
            });
            (configuration, work)
        });
        started.map(|(configuration, work)| (configuration, work.join().unwrap()))
    });
    compare(golden, &transcripts);
}

/// Compares the answers of each configuration with the golden file of that name.
pub fn compare(golden: &str, transcripts: &[(Configuration, String)]) {
    for (configuration, transcript) in transcripts {
        eprintln!("comparing: {configuration}");
        support::golden(golden, transcript);
    }
}
