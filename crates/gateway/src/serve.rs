//! `serve`: puts the parts together, tells where they listen, and stops them in order.

mod settings;

use std::{io::Write, net::SocketAddr, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use anyhow::{Context, bail};
use credentials::Credentials;
use grpc::Readiness;
use proto::{RequestLog, Traces};
use rustix::process::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use store::Store;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::task::TaskTracker;

pub(crate) use self::settings::rest_settings;
use crate::{
    audit,
    cli::{ConnectionLimits, ServeOptions, StoreOptions},
    demo, docs, housekeeping,
    listener::{Listener, Protocol, Stop},
    ops::{self, Ready},
    peer::TrustedProxies,
    remote::Remote,
    retention,
    telemetry::{self, Log, Observed},
    tls,
    traces::Exporting,
    webhooks,
};

/// How many threads talk with clients: by default one for each core. The store's threads need a core as well, but they wait
/// for the disk half of the time: one thread fewer would save a twentieth of the processor, and could not refuse what is too
/// much on the core that is idle meanwhile (BENCHMARKS.md).
pub(crate) fn worker_threads(options: &ServeOptions) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    options.worker_threads.map_or_else(cores, NonZeroUsize::get)
}

/// Serves until a signal asks to stop.
pub(crate) async fn run(place: StoreOptions, options: Box<ServeOptions>, log: Log) -> anyhow::Result<()> {
    // First of all: a signal that comes while the rest starts must not be lost.
    let mut signals = Signals::new()?;
    refuse(&options)?;
    warn_of_budget(&options);
    let metrics = telemetry::metrics()?;
    let (tasks, stop) = (TaskTracker::new(), Stop::default());
    let (telemetry, exporting) = tell(&options, &tasks, &stop)?;
    let observed = Observed::new(metrics, &log, telemetry.log.clone());
    allow_descriptors(&options.connections);

    let door = Door::new(&options, &tasks, &stop)?;
    let rest = door.face("REST", options.rest_addr, Protocol::Http1)?;
    let ops = door.bind("ops", options.ops_addr, Protocol::Http1)?;
    let scheme = door.scheme();
    let mut lines = vec![
        format!("REST   {scheme}://{}/v3/stable/api/storage", rest.address()?),
        format!("ops    http://{}", ops.address()?),
    ];
    // The ops listener has no TLS.
    let sends = options.docs_send && options.tls.allows_plain(options.ops_addr);
    let described = docs::described(
        format!("{scheme}://{}", rest.address()?),
        sends,
        settings::facade(&options),
        options.documents.limit,
    );
    let openapi = rest::openapi(&described).context("the OpenAPI document")?;
    // Both faces draw from one.
    let budget = proto::Budget::new(options.document_budget);

    let behind = match Remote::upstream(&options)? {
        Some(upstream) => {
            lines.push(format!("calls  gRPC at {}", upstream.uri()));
            let channel = upstream.connect(&tasks, stop.now.clone())?;
            Behind {
                client: proto::client(channel.clone()),
                gate: proto::Gate::default(),
                ready: Ready::Upstream(channel, stop.announced.clone()),
                observed,
                store: None,
            }
        }
        None => {
            let grpc = door.face("gRPC", options.grpc_addr, Protocol::Http2)?;
            let store = place.open_with(options.migrate, &settings::store(&options))?;
            lines.push(match scheme {
                "https" => format!("gRPC   https://{}", grpc.address()?),
                _ => format!("gRPC   {}", grpc.address()?),
            });
            lines.push(format!("store  {}", place.location()?));
            if options.demo {
                demo::seed(&store).await?;
                lines.extend(demo::instructions(rest.address()?, grpc.address()?, scheme == "https"));
            } else {
                demo::warn_if_present(&store).await;
            }
            let settings = settings::grpc(&options, budget.clone(), stop.now.clone(), telemetry.clone());
            serve_store(store, grpc, &options, &settings, observed, &tasks, &stop)?
        }
    };
    let facade = rest::router(
        behind.client,
        behind.gate,
        settings::facade(&options),
        budget,
        telemetry,
    );
    // The same one, with the same limits: what is sent from the pages is a request like any other.
    let beside_docs = sends.then(|| facade.clone());
    tasks.spawn(rest.serve(facade, stop.clone()));
    // The probes answer until everything else has ended.
    let ops_stop = Stop::default();
    let router = ops::router(behind.ready, behind.observed, openapi, beside_docs);
    let ops = tokio::spawn(ops.serve(router, ops_stop.clone()));
    announce(&lines)?;
    notify(NotifyState::Ready);

    signals.asked().await;
    notify(NotifyState::Stopping);
    let ending = async {
        tasks.close();
        tasks.wait().await;
        ops_stop.now.cancel();
        let _ = ops.await;
        // The last handle closes the connections in order: SQLite then has nothing to recover at the next start. It
        // waits for a write that is under way.
        let _ = tokio::task::spawn_blocking(|| {
            drop(behind.store);
            exporting.map(Exporting::end)
        })
        .await;
    };
    if !drain(&options, &mut signals, &stop, ending).await {
        // To close the store would be to wait for what is stuck in it. Whatever it holds is as after a loss of power.
        tracing::info!("stopped");
        drop(log);
        std::process::exit(0);
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the JSON endpoint stands before.
struct Behind {
    client: proto::Client,
    /// Whether it takes a call.
    gate: proto::Gate,
    ready: Ready,
    observed: Observed,
    /// None where that is another process.
    store: Option<Store>,
}

/// Serves gRPC on a store, and does what a store needs done in the background.
fn serve_store(
    store: Store,
    grpc: Listener,
    options: &ServeOptions,
    settings: &grpc::Settings,
    observed: Observed,
    tasks: &TaskTracker,
    stop: &Stop,
) -> anyhow::Result<Behind> {
    if !store.is_encrypted() {
        tracing::warn!(
            "personal data is stored in clear text; to change that: `dcams-gateway keys generate` prints a key, \
             --key-file takes a file of it, and `dcams-gateway keys encrypt` encrypts what is there"
        );
    }
    let credentials = Credentials::new(options.overload.logins());
    let service = grpc::service(store.clone(), credentials.clone(), settings);
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
    Ok(Behind {
        gate: service.gate(),
        client: service.client(),
        ready: Ready::Here(readiness),
        observed: observed.with(store.clone(), credentials),
        store: Some(store),
    })
}

/// What every listener has in common.
struct Door<'a> {
    options: &'a ServeOptions,
    trusted: TrustedProxies,
    limits: Arc<ConnectionLimits>,
    /// The certificates of the moment, with TLS.
    tls: Option<watch::Receiver<tls::Configs>>,
}

impl<'a> Door<'a> {
    fn new(options: &'a ServeOptions, tasks: &TaskTracker, stop: &Stop) -> anyhow::Result<Self> {
        let tls = match certificates(options)? {
            Some((followed, configs)) => {
                tasks.spawn(followed.follow(stop.now.clone()));
                Some(configs)
            }
            None => None,
        };
        Ok(Self {
            options,
            trusted: TrustedProxies::new(options.trusted_proxies.clone()),
            limits: Arc::new(options.connections.clone()),
            tls,
        })
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn bind(&self, name: &str, address: SocketAddr, protocol: Protocol) -> anyhow::Result<Listener> {
        Listener::bind(name, address, protocol, self.trusted.clone(), Arc::clone(&self.limits))
    }

    /// The listener of a face, which speaks TLS if there is any.
    fn face(&self, name: &str, address: SocketAddr, protocol: Protocol) -> anyhow::Result<Listener> {
        let tls = self.tls.clone();
        let tls = tls.map(|configs| tls::Acceptor::new(configs, protocol, &self.options.tls, name));
        Ok(self.bind(name, address, protocol)?.with_tls(tls))
    }
}

/// The certificates of the faces out of their files, if they have any.
fn certificates(options: &ServeOptions) -> anyhow::Result<Option<tls::Loaded<tls::Faces>>> {
    tls::Faces::of(&options.tls)
        .map(|faces| tls::load(faces).context("TLS"))
        .transpose()
}

/// How requests are told of, and what sends their traces away. To be called before whatever begins a span.
fn tell(
    options: &ServeOptions,
    tasks: &TaskTracker,
    stop: &Stop,
) -> anyhow::Result<(proto::Telemetry, Option<Exporting>)> {
    let told = &options.telemetry;
    let begin = |collector: Remote| {
        let uri = collector.uri().clone();
        Exporting::begin(collector.connect(tasks, stop.now.clone())?, &uri, told.trace_ratio)
    };
    let exporting = Remote::collector(told)?.map(begin).transpose()?;
    let telemetry = proto::Telemetry {
        log: RequestLog::new(told.log_requests.into()),
        traces: exporting.as_ref().map_or_else(Traces::default, |_| Traces::on()),
    };
    Ok((telemetry, exporting))
}

/// Says first that it is not ready, then stops, and waits until all has ended, or for as long as may be. Gives whether all
/// has.
async fn drain(options: &ServeOptions, signals: &mut Signals, stop: &Stop, ending: impl Future<Output = ()>) -> bool {
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
    tokio::select! {
        ended = tokio::time::timeout(drain, ending) => {
            if ended.is_err() {
                tracing::warn!("some work did not end in time");
            }
            ended.is_ok()
        }
        () = signals.asked() => {
            tracing::warn!("asked again: stopping at once");
            false
        }
    }
}

/// Says so if there can never be room for what may come.
fn warn_of_budget(options: &ServeOptions) {
    let largest = settings::facade(options).document_body_limit;
    if options.document_budget < largest {
        tracing::warn!(
            "--document-budget has no room for two images of --document-limit, which will be refused at any time: it needs \
             {largest} bytes"
        );
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
    refuse(options)?;
    certificates(options)?;
    let remotes = [Remote::upstream(options)?, Remote::collector(&options.telemetry)?];
    remotes.into_iter().flatten().try_for_each(Remote::check)
}

/// Refuses options that do not go together, or that nobody should want.
fn refuse(options: &ServeOptions) -> anyhow::Result<()> {
    if options.demo {
        refuse_public(options)?;
    }
    options.tls.check_address("REST", options.rest_addr)?;
    Remote::collector(&options.telemetry)?;
    match Remote::upstream(options)? {
        Some(_) => Ok(()),
        None => options.tls.check_address("gRPC", options.grpc_addr),
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
