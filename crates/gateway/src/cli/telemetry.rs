//! The options of what a gateway tells of the requests that it serves.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What is told of requests.
#[derive(Args)]
pub(crate) struct TelemetryOptions {
    /// The requests that have a line in the log: none, those that were refused or failed (at most 1000 a second), or all
    #[arg(long, env = "DCAMS_LOG_REQUESTS", value_name = "WHICH", default_value = "errors")]
    pub(crate) log_requests: LogRequests,
    /// Send traces over gRPC to the OpenTelemetry collector at this URL (https://HOST:PORT or http://HOST:PORT); there are none by default
    #[arg(long, env = "DCAMS_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<http::Uri>,
    /// Trust the collector by an authority in this PEM file alone; by default those of the system are trusted
    #[arg(long, env = "DCAMS_OTLP_CA", value_name = "PATH", requires = "otlp_endpoint")]
    pub(crate) otlp_ca: Option<PathBuf>,
    /// The PEM file of the certificate that is shown to the collector
    #[arg(long, env = "DCAMS_OTLP_CERT", value_name = "PATH", requires_all = ["otlp_endpoint", "otlp_key"])]
    pub(crate) otlp_cert: Option<PathBuf>,
    /// The PEM file of that certificate's private key
    #[arg(long, env = "DCAMS_OTLP_KEY", value_name = "PATH", requires = "otlp_cert")]
    pub(crate) otlp_key: Option<PathBuf>,
    /// The share of requests that is traced, from 0 to 1; of one that comes with a traceparent its sender decides
    #[arg(long, env = "DCAMS_TRACE_RATIO", value_name = "SHARE", default_value = "1", value_parser = share)]
    pub(crate) trace_ratio: f64,
}

/// The requests that have a line in the log.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogRequests {
    None,
    Errors,
    All,
}

impl From<LogRequests> for proto::Logged {
    fn from(requests: LogRequests) -> Self {
        match requests {
            LogRequests::None => Self::None,
            LogRequests::Errors => Self::Errors,
            LogRequests::All => Self::All,
        }
    }
}

/// A part of a whole.
fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_from_0_to_1() {
        for (text, number) in [("0", 0.0), ("1", 1.0), ("0.01", 0.01), ("1e-3", 0.001)] {
            assert_eq!(share(text), Ok(number), "{text}");
        }
        for text in ["", "-0.1", "1.1", "NaN", "inf", "10%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
