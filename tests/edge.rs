//! What stands between the faces and the world: limits, TLS, tokens, telemetry, configuration.

mod abuse;
mod breaking;
mod compat;
mod config;
mod contract_file;
mod drain;
mod explain;
mod http2;
mod idle;
mod limits;
mod overload;
mod postgres_tls;
mod slow;
mod supervised;
mod swagger;
mod telemetry;
mod timing;
mod tls;
mod traces;
