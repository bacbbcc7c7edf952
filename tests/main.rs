//! The program from outside: every test of the workspace that needs a process, a socket or a database, in one binary.
//!
//! Run it with `tests/run`, which installs PostgreSQL when it is not there.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod accounts;
mod cli;
mod contract;
mod edge;
mod faults;
mod feed_chaos;
mod grpc;
mod linearizability;
mod memory;
mod openapi;
mod privacy;
mod serve;
mod store;
mod support;
mod webhooks;
