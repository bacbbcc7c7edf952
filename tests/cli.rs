//! The command line as a process: what it prints, what it changes, how it ends.

mod accounts;
mod audit;
mod copy;
mod customers;
mod erasure;
mod export;
mod failures;
mod feed;
mod history;
mod import;
mod keys;
mod schema;
mod tokens;
mod usage;

use serde_json::json;

use crate::support::{Backend, Database, Gateway, dcams};

/// A database with an account `shop`, whose password is `secret`.
fn shop(backend: Backend) -> Database {
    let database = backend.database();
    dcams(&database, &["account", "create", "shop", "--password-stdin"], "secret").ok();
    database
}

/// Whether a gateway takes a user and a password: nobody's status is asked for, so that a good pair gives 404.
fn takes(gateway: &Gateway, user: &str, password: &str) -> bool {
    let body = json!({
        "user": user, "pass": password, "service": "getStatus", "target": { "email": "nobody@example.com" },
    });
    match gateway.post(body.to_string()).status {
        404 => true,
        401 => false,
        other => panic!("{other}"),
    }
}
