//! `serve`: puts the parts together, tells where they listen, and stops them in order.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use credentials::Credentials;
use grpc::{Readiness, StreamSettings};
use proto::{RequestLog, Traces};
use rustix::process::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use store::Settings;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};

use crate::{
    audit,
    cli::{ConnectionLimits, ServeOptions, StoreOptions},
    demo, docs, housekeeping,
    listener::{Listener, Protocol, Stop},
    ops::{self, Ready},
    peer::TrustedProxies,
    retention,
    telemetry::{self, Log, Observed},
    tls,
    traces::Exporting,
    webhooks,
};

/// How long a connection to the upstream may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Serves until a signal asks to stop.
pub(crate) async fn run(place: StoreOptions, options: Box<ServeOptions>, log: Log) -> anyhow::Result<()> {
    // First of all: a signal that comes while the rest starts must not be lost.
    let mut signals = Signals::new()?;
    check(&options)?;
    let largest = facade_settings(&options).document_body_limit;
    if options.document_budget < largest {
        tracing::warn!(
            "--document-budget has no room for two images of --document-limit, which will be refused at any time: it needs \
             {largest} bytes"
        );
    }
    let metrics = telemetry::metrics()?;
    let told = &options.telemetry;
    // Before whatever begins a span.
    let exporting = told
        .otlp_endpoint
        .as_ref()
        .map(|url| Exporting::begin(url, told.trace_ratio));
    let exporting = exporting.transpose()?;
    let telemetry = proto::Telemetry {
        log: RequestLog::new(told.log_requests.into()),
        traces: exporting.as_ref().map_or_else(Traces::default, |_| Traces::on()),
    };
    let mut observed = Observed::new(metrics, &log, telemetry.log.clone());
    let stop = Stop::default();
    let limits = Arc::new(options.connections.clone());
    allow_descriptors(&limits);
    let trusted = TrustedProxies::new(options.trusted_proxies.clone());
    let bind = async |name: &str, address: SocketAddr, protocol: Protocol| {
        Listener::bind(name, address, protocol, trusted.clone(), Arc::clone(&limits)).await
    };
    let tasks = TaskTracker::new();
    let configs = match tls::Faces::of(&options.tls) {
        Some(faces) => {
            let (followed, configs) = tls::load(faces).context("TLS")?;
            tasks.spawn(followed.follow(stop.now.clone()));
            Some(configs)
        }
        None => None,
    };
    let with_tls = |listener: Listener, protocol, name| {
        let tls = configs.clone();
        listener.with_tls(tls.map(|configs| tls::Acceptor::new(configs, protocol, &options.tls, name)))
    };
    let scheme = if configs.is_some() { "https" } else { "http" };
    let rest = bind("REST", options.rest_addr, Protocol::Http1).await?;
    let rest = with_tls(rest, Protocol::Http1, "rest");
    let ops = bind("ops", options.ops_addr, Protocol::Http1).await?;
    let mut lines = vec![
        format!("REST   {scheme}://{}/v3/stable/api/storage", rest.address()?),
        format!("ops    http://{}", ops.address()?),
    ];
    // The ops listener has no TLS.
    let sends = options.docs_send && options.tls.allows_plain(options.ops_addr);
    let described = docs::described(
        format!("{scheme}://{}", rest.address()?),
        sends,
        facade_settings(&options),
        options.documents.limit,
    );
    let openapi = rest::openapi(&described).context("the OpenAPI document")?;
    // Both faces draw from one.
    let budget = proto::Budget::new(options.document_budget);

    let (client, ready, store) = match &options.upstream {
        Some(uri) => {
            let channel = connect(uri, &options, &tasks, stop.now.clone())?;
            lines.push(format!("calls  gRPC at {uri}"));
            (
                proto::client(channel.clone()),
                Ready::Upstream(channel, stop.announced.clone()),
                None,
            )
        }
        None => {
            let grpc = bind("gRPC", options.grpc_addr, Protocol::Http2).await?;
            let grpc = with_tls(grpc, Protocol::Http2, "grpc");
            let store = place.open_with(options.migrate, &store_settings(&options))?;
            lines.push(match configs.is_some() {
                true => format!("gRPC   https://{}", grpc.address()?),
                false => format!("gRPC   {}", grpc.address()?),
            });
            lines.push(format!("store  {}", place.location()?));
            if !store.is_encrypted() {
                tracing::warn!(
                    "personal data is stored in clear text; to change that: `dcams-gateway keys generate` prints a key, \
                     --key-file takes a file of it, and `dcams-gateway keys encrypt` encrypts what is there"
                );
            }
            if options.demo {
                demo::seed(&store).await?;
                lines.extend(demo::instructions(rest.address()?, grpc.address()?, configs.is_some()));
            } else {
                demo::warn_if_present(&store).await;
            }
            let credentials = Credentials::new(options.overload.logins());
            let service = grpc::service(
                store.clone(),
                credentials.clone(),
                &grpc_settings(&options, budget.clone(), stop.now.clone(), telemetry.clone()),
            );
            observed = observed.with(store.clone(), credentials);
            let readiness = Readiness::new(store.clone(), stop.announced.clone());
            let routes = grpc::routes(service.clone(), readiness.clone()).context("the gRPC face")?;
            tasks.spawn(grpc.serve(routes, stop.clone()));
            tasks.spawn(audit::seal(store.clone(), stop.now.clone()));
            tasks.spawn(housekeeping::run(store.clone(), stop.now.clone()));
            if let Some(age) = options.retain_documents_for {
                tasks.spawn(retention::run(store.clone(), age, stop.now.clone()));
            }
            let pace = webhooks::Pace::new(
                Duration::from_millis(options.webhook_lease.into()),
                options.webhook_tempo,
            );
            let sender = webhooks::Sender::new(options.webhooks.rules(), pace.connect(), pace.total())?;
            tasks.spawn(webhooks::deliver(store.clone(), sender, pace, stop.now.clone()));
            (proto::client(service), Ready::Here(readiness), Some(store))
        }
    };
    let facade = rest::router(client, facade_settings(&options), budget, telemetry);
    // The same one, with the same limits: what is sent from the pages is a request like any other.
    let beside_docs = sends.then(|| facade.clone());
    tasks.spawn(rest.serve(facade, stop.clone()));
    // The probes answer until everything else has ended.
    let ops_stop = Stop::default();
    let ops = tokio::spawn(ops.serve(ops::router(ready, observed, openapi, beside_docs), ops_stop.clone()));
    announce(&lines)?;
    notify(NotifyState::Ready);

    signals.asked().await;
    notify(NotifyState::Stopping);
    // Before all else it says that it is not ready.
    stop.announced.cancel();
    let (delay, drain) = (options.drain_delay, options.drain);
    if !delay.is_zero() {
        tracing::info!("stopping in {} s, and not ready from now on", delay.as_secs());
    }
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        // Whoever asks again does not want to wait for it.
        () = signals.asked() => {}
    }
    tracing::info!("stopping: work under way has {} s to end", drain.as_secs());
    stop.now.cancel();
    tasks.close();
    let in_order = tokio::select! {
        ended = tokio::time::timeout(drain, async {
            tasks.wait().await;
            ops_stop.now.cancel();
            let _ = ops.await;
            // The last handle closes the connections in order: SQLite then has nothing to recover at the next start. It
            // waits for a write that is under way.
            let _ = tokio::task::spawn_blocking(|| {
                drop(store);
                exporting.map(Exporting::end)
            })
            .await;
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
        drop(log);
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

fn grpc_settings(
    options: &ServeOptions,
    budget: proto::Budget,
    stop: CancellationToken,
    telemetry: proto::Telemetry,
) -> grpc::Settings {
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
        message_limit: options.calls.body_limit,
        deadline: options.calls.deadline,
        deadline_limit: options.calls.deadline_limit,
        unread: options.connections.write_timeout,
        telemetry,
    }
}

/// What the facade takes, with images of at most so many bytes.
pub(crate) fn rest_settings(document_limit: usize) -> rest::Settings {
    rest::Settings {
        // Two images in Base64, and a little for everything else: 28 MiB for images of 10 MiB.
        document_body_limit: document_limit.saturating_mul(14) / 5,
        ..rest::Settings::default()
    }
}

/// What the facade takes.
fn facade_settings(options: &ServeOptions) -> rest::Settings {
    rest::Settings {
        body_limit: options.calls.body_limit,
        body_timeout: options.calls.body_timeout,
        handler_timeout: options.calls.deadline.min(options.calls.deadline_limit),
        ..rest_settings(options.documents.limit)
    }
}

/// Lets the process have as many descriptors as it may, since shells and systemd give 1,024 to begin with, and says if those
/// are not enough for all connections.
fn allow_descriptors(limits: &ConnectionLimits) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // None is no limit. If it cannot be raised, what was allowed is.
    let allowed = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(_) => getrlimit(Resource::Nofile).current,
    };
    let needed = limits.max_connections.get() as u64;
    if let Some(allowed) = allowed
        && allowed < needed
    {
        tracing::warn!(
            "the process may have {allowed} open files, and --max-connections alone needs {needed}: raise `ulimit -n`, or \
             LimitNOFILE= of systemd"
        );
    }
}

/// What would keep it from serving whatever else is there; `config check` says so too.
pub(crate) fn check(options: &ServeOptions) -> anyhow::Result<()> {
    if options.demo {
        refuse_public(options)?;
    }
    options.tls.check_address("REST", options.rest_addr)?;
    match &options.upstream {
        Some(uri) => endpoint(uri, options).map(drop)?,
        None => options.tls.check_address("gRPC", options.grpc_addr)?,
    }
    // That the files of TLS are fit for use.
    if let Some(faces) = tls::Faces::of(&options.tls) {
        tls::load(faces).context("TLS")?;
    }
    Ok(())
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

/// A channel to the gRPC face of another process, which need not be there yet. `tasks` get what reads its certificates
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

/// anew.
fn connect(
    uri: &http::Uri,
    options: &ServeOptions,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> anyhow::Result<Channel> {
    let (endpoint, with_tls) = endpoint(uri, options)?;
    if !with_tls {
        return Ok(endpoint.connect_lazy());
    }
    let certificates = tls::Upstream::of(&options.upstream_tls);
    let (followed, config) = tls::load(certificates).context("TLS to the upstream")?;
    tasks.spawn(followed.follow(stop));
    Ok(endpoint.connect_with_connector_lazy(tls::Connector::new(config)))
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

/// Tells the service manager, if one started this and asked to be told.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager was not told: {error}");
    }
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
