//! Webhooks: every change arrives, at least once and in order per customer, or is listed as parked.

mod delivery;
mod receiver;
mod secrets;
mod takeover;

use serde_json::json;

use crate::support::{Backend, Connection, Database, Gateway, dcams, eventually};
use receiver::Receiver;

/// Test time: what takes 24 hours takes 24 seconds, and a gateway that is gone is known to be in a second and a half.
const FAST: [&str; 2] = ["--webhook-tempo=3600", "--webhook-lease=1500"];

/// A database with an account `shop`.
fn shop(backend: Backend) -> Database {
    with_account(backend.database())
}

fn with_account(database: Database) -> Database {
    dcams(&database, &["account", "create", "shop", "--password-stdin"], "secret").ok();
    database
}

/// Registers customers of the shop, of whom only the address is known.
fn register(database: &Database, emails: &[&str]) {
    database.import("shop", &format!("email\n{}\n", emails.join("\n")));
}

/// A webhook that was added.
struct Hook {
    id: String,
    secret: String,
}

impl Hook {
    fn add(database: &Database, url: &str) -> Self {
        if database.backend == Backend::Postgres {
            // Transactions of other tests keep what was registered from being in the feed yet: it would be sent.
            let late = "(SELECT count(*) FROM status_changes
                          WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint)";
            eventually("the feed is up to date", || database.session().number(late) == 0);
        }
        let said = dcams(database, &["webhook", "add", url, "--account", "shop"], "").ok();
        let line = |name: &str| {
            let mut lines = said.lines();
            lines.find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
        };
        assert_eq!(said.lines().count(), 2, "{said}");
        Self {
            id: line("webhook "),
            secret: line("secret: "),
        }
    }

    /// A command on it, which must succeed.
    #[track_caller]
    fn command(&self, database: &Database, command: &str, flags: &[&str]) -> String {
        dcams(database, &[&["webhook", command, &self.id], flags].concat(), "").ok()
    }
}

/// Sets the status of a customer of the shop.
#[track_caller]
fn set(gateway: &Gateway, email: &str, status: &str) {
    let body = json!({
        "user": "shop", "pass": "secret", "service": "updateStatus", "target": { "email": email, "status": status },
    });
    let reply = Connection::open(gateway.rest).post(body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// A number that the metrics have.
fn metric(gateway: &Gateway, series: &str) -> f64 {
    let text = gateway.get("/metrics").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
    line.unwrap_or_else(|| panic!("{series} in {text}")).parse().unwrap()
}

/// How many changes of all webhooks wait.
fn pending(database: &Database) -> i64 {
    database
        .session()
        .number("(SELECT count(*) FROM webhook_deliveries WHERE NOT parked)")
}
