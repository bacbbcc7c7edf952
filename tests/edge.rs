//! What stands between the faces and the world: limits, TLS, tokens, telemetry, configuration.

mod abuse;
mod config;
mod drain;
mod http2;
mod idle;
mod limits;
mod postgres_tls;
mod slow;
mod supervised;
mod telemetry;
mod tls;
mod traces;
