//! What stands between the faces and the world: limits, TLS, tokens, telemetry, configuration.

mod breaking;
mod compat;
mod contract_file;
mod explain;
mod swagger;
