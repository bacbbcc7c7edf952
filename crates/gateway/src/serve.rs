//! `serve`: puts the parts together, tells where they listen, and stops them in order.

use std::{io::Write, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use credentials::Credentials;
use grpc::{Readiness, StreamSettings};
use store::Settings;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};

use crate::{
    audit,
    cli::{ServeOptions, StoreOptions},
    demo, housekeeping,
    listener::{Listener, Protocol},
    ops::{self, Ready},
    peer::TrustedProxies,
    retention, telemetry, webhooks,
};

/// How long a connection to the upstream may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Serves until a signal asks to stop.
pub(crate) async fn run(location: StoreOptions, options: Box<ServeOptions>) -> anyhow::Result<()> {
    // First of all: a signal that comes while the rest starts must not be lost.
    let mut signals = Signals::new()?;
    if options.demo {
        refuse_public(&options)?;
    }
    let largest = rest_settings(&options).document_body_limit;
    if options.document_budget < largest {
        tracing::warn!(
            "--document-budget has no room for two images of --document-limit, which will be refused at any time: it needs \
             {largest} bytes"
        );
    }
    let metrics = telemetry::metrics()?;
    let stop = CancellationToken::new();
    let trusted = TrustedProxies::new(options.trusted_proxies.clone());
    let bind = async |name: &str, address: SocketAddr, protocol: Protocol| {
        Listener::bind(name, address, protocol, trusted.clone(), options.max_connections).await
    };
    let rest = bind("REST", options.rest_addr, Protocol::Http1).await?;
    let ops = bind("ops", options.ops_addr, Protocol::Http1).await?;
    let mut lines = vec![
        format!("REST   http://{}/v3/stable/api/storage", rest.address()?),
        format!("ops    http://{}", ops.address()?),
    ];
    let openapi = rest::openapi(&format!("http://{}", rest.address()?)).context("the OpenAPI document")?;
    let tasks = TaskTracker::new();
    // Both faces draw from one.
    let budget = proto::Budget::new(options.document_budget);

    let (client, ready, store) = match &options.upstream {
        Some(uri) => {
            let channel = connect(uri)?;
            lines.push(format!("calls  gRPC at {uri}"));
            (
                proto::client(channel.clone()),
                Ready::Upstream(channel, stop.clone()),
                None,
            )
        }
        None => {
            let grpc = bind("gRPC", options.grpc_addr, Protocol::Http2).await?;
            let store = location.open_with(options.migrate, &store_settings(&options))?;
            lines.push(format!("gRPC   {}", grpc.address()?));
            lines.push(format!("store  {}", location.location));
            if !store.is_encrypted() {
                tracing::warn!(
                    "personal data is stored in clear text; to change that: `dcams-gateway keys generate` prints a key, \
                     --key-file takes a file of it, and `dcams-gateway keys encrypt` encrypts what is there"
                );
            }
            if options.demo {
                demo::seed(&store).await?;
                lines.extend(demo::instructions(rest.address()?, grpc.address()?));
            } else {
                demo::warn_if_present(&store).await;
            }
            let credentials = Credentials::new(options.overload.logins());
            let service = grpc::service(
                store.clone(),
                credentials,
                &grpc_settings(&options, budget.clone(), stop.clone()),
            );
            let readiness = Readiness::new(store.clone(), stop.clone());
            let routes = grpc::routes(service.clone(), readiness.clone()).context("the gRPC face")?;
            tasks.spawn(grpc.serve(routes, stop.clone()));
            tasks.spawn(audit::seal(store.clone(), stop.clone()));
            tasks.spawn(housekeeping::run(store.clone(), stop.clone()));
            if let Some(age) = options.retain_documents_for {
                tasks.spawn(retention::run(store.clone(), age, stop.clone()));
            }
            let pace = webhooks::Pace::new(
                Duration::from_millis(options.webhook_lease.into()),
                options.webhook_tempo,
            );
            let sender = webhooks::Sender::new(options.webhooks.rules(), pace.connect(), pace.total())?;
            tasks.spawn(webhooks::deliver(store.clone(), sender, pace, stop.clone()));
            (proto::client(service), Ready::Here(readiness), Some(store))
        }
    };
    tasks.spawn(rest.serve(rest::router(client, rest_settings(&options), budget), stop.clone()));
    // The probes answer until everything else has ended.
    let ops_stop = CancellationToken::new();
    let ops = tokio::spawn(ops.serve(ops::router(ready, metrics, openapi), ops_stop.clone()));
    announce(&lines)?;

    signals.asked().await;
    tracing::info!("stopping: work under way has {} s to end", options.drain.as_secs());
    stop.cancel();
    tasks.close();
    let in_order = tokio::select! {
        ended = tokio::time::timeout(options.drain, async {
            tasks.wait().await;
            ops_stop.cancel();
            let _ = ops.await;
            // The last handle closes the connections in order: SQLite then has nothing to recover at the next start. It
            // waits for a write that is under way.
            let _ = tokio::task::spawn_blocking(|| drop(store)).await;
        }) => {
            if ended.is_err() {
                tracing::warn!("some work did not end in time");
            }
            ended.is_ok()
        }
        () = signals.asked() => {
            tracing::warn!("asked again: stopping at once");
            false
        }
    };
    if !in_order {
        // To close the store would be to wait for what is stuck in it. Whatever it holds is as after a loss of power.
        tracing::info!("stopped");
        std::process::exit(0);
    }
    tracing::info!("stopped");
    Ok(())
}

fn store_settings(options: &ServeOptions) -> Settings {
    Settings {
        readers: options.readers,
        writers: options.writers,
        write_queue: options.write_queue.get(),
        queue_wait: options.overload.queue_wait,
        batch: options.write_batch,
        ..Settings::default()
    }
}

fn grpc_settings(options: &ServeOptions, budget: proto::Budget, stop: CancellationToken) -> grpc::Settings {
    grpc::Settings {
        document_limit: options.documents.limit,
        customer_link: options.customer_link.clone().unwrap_or_default(),
        budget,
        account_rate: options.overload.account_rate(),
        calls: options.overload.max_calls.get(),
        lag: options.overload.lag_limit,
        streams: StreamSettings {
            most: options.streams.get(),
            most_per_account: options.overload.streams_per_account(),
            heartbeat: options.heartbeat,
            slow_consumer: options.slow_consumer,
            ..StreamSettings::default()
        },
        stop,
        ..grpc::Settings::default()
    }
}

fn rest_settings(options: &ServeOptions) -> rest::Settings {
    rest::Settings {
        // Two images in Base64, and a little for everything else: 28 MiB for images of 10 MiB.
        document_body_limit: options.documents.limit.saturating_mul(14) / 5,
        ..rest::Settings::default()
    }
}

/// A demo has a password that everybody knows.
fn refuse_public(options: &ServeOptions) -> anyhow::Result<()> {
    for address in [options.rest_addr, options.grpc_addr, options.ops_addr] {
        if !address.ip().is_loopback() {
            bail!("--demo serves on loopback only, and {address} is not: its password is known to everybody");
        }
    }
    Ok(())
}

/// A channel to the gRPC face of another process, which need not be there yet.
fn connect(uri: &http::Uri) -> anyhow::Result<Channel> {
    // A password in it would be printed with it; whose calls they are, each request says itself.
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    if uri.scheme_str() != Some("http") || !plain || !["", "/"].contains(&uri.path()) {
        bail!("--upstream needs a URL of the form http://HOST:PORT");
    }
    Ok(Endpoint::from(uri.clone())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .connect_lazy())
}

/// Tells on standard output what is served where.
fn announce(lines: &[String]) -> anyhow::Result<()> {
    let mut text = format!("dcams-gateway {} is ready\n", env!("CARGO_PKG_VERSION"));
    for line in lines {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("standard output")
}

/// SIGTERM and Ctrl-C.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("the signals");
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
        })
    }

    /// Returns when one of them comes.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
