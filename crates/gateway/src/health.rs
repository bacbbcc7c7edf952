//! `health`: asks a gateway on this machine whether it serves, where a supervisor has nothing else to ask with.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use reqwest::{Client, StatusCode, redirect};

use crate::{cli::HealthOptions, tls};

/// How long the gateway has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends well if the gateway does.
pub(crate) async fn run(options: &HealthOptions) -> anyhow::Result<()> {
    let path = if options.live { "healthz" } else { "readyz" };
    let url = format!("http://{}/{path}", reachable(options.ops_addr));
    tls::install_provider();
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(PATIENCE)
        // None is needed, and a small system has none.
        .tls_certs_only([])
        .build()
        .context("the client")?;
    let answer = client.get(&url).send().await;
    let answer = answer
        .map_err(reqwest::Error::without_url)
        .with_context(|| url.clone())?;
    match answer.status() {
        StatusCode::OK => say!("{}", if options.live { "alive" } else { "ready" }),
        status => bail!("{url}: {status}"),
    }
}

/// An address at which a listener is found that listens on all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
