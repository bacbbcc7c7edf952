//! The gRPC face of another process, behind a facade alone.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};

use crate::{cli::ServeOptions, tls};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Where the gRPC face of another process is, and whether it speaks TLS.
fn endpoint(uri: &http::Uri, options: &ServeOptions) -> anyhow::Result<(Endpoint, bool)> {
    // A password in it would be printed with it; whose calls they are, each request says itself.
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    let with_tls = match uri.scheme_str() {
        Some("http") => Some(false),
        Some("https") => Some(true),
        _ => None,
    };
    let (Some(with_tls), true, "" | "/") = (with_tls, plain, uri.path()) else {
        bail!("--upstream needs a URL of the form https://HOST:PORT or http://HOST:PORT");
    };
    options.tls.check_upstream(uri)?;
    let certificates = &options.upstream_tls;
    if !with_tls && (certificates.upstream_ca.is_some() || certificates.upstream_cert.is_some()) {
        bail!("--upstream-ca and --upstream-cert need an --upstream of https");
    }
    let endpoint = Endpoint::from(uri.clone())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    Ok((endpoint, with_tls))
}

/// Refuses what cannot be an upstream, whatever stands in the files.
pub(super) fn refuse(uri: &http::Uri, options: &ServeOptions) -> anyhow::Result<()> {
    endpoint(uri, options).map(drop)
}

/// Refuses that as well of which the files are not fit for use.
pub(super) fn check(uri: &http::Uri, options: &ServeOptions) -> anyhow::Result<()> {
    match endpoint(uri, options)? {
        (_, true) => certificates(options).map(drop),
        (_, false) => Ok(()),
    }
}

/// What is needed for TLS, out of its files.
fn certificates(options: &ServeOptions) -> anyhow::Result<tls::Loaded<tls::Upstream>> {
    tls::load(tls::Upstream::of(&options.upstream_tls)).context("TLS to the upstream")
}

/// A channel to the gRPC face of another process, which need not be there yet. `tasks` get what reads its certificates
/// anew.
pub(super) fn connect(
    uri: &http::Uri,
    options: &ServeOptions,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> anyhow::Result<Channel> {
    let (endpoint, with_tls) = endpoint(uri, options)?;
    if !with_tls {
        return Ok(endpoint.connect_lazy());
    }
    let (followed, config) = certificates(options)?;
    tasks.spawn(followed.follow(stop));
    Ok(endpoint.connect_with_connector_lazy(tls::Connector::new(config)))
}
