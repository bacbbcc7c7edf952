//! What stands between the faces and the world: limits, TLS, tokens, telemetry, configuration.

mod overload;
mod timing;
