//! Runs queries for async callers on a few threads of their own, each with a pooled connection: a dedicated thread
//! costs a fraction of what a blocking task per query does. What is quickly looked up has no need of them: [`inline`].

mod inline;

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use opentelemetry::KeyValue;
use tokio::sync::oneshot;

use self::inline::Inline;
use crate::{
    Error, Result, Settings, attempts,
    connection::{AnyConnection, Connector, Location},
    error,
    model::expired,
    patience::Patience,
    trace::Traced,
};

/// The threads, and the queue before them.
pub(crate) struct Pool {
    /// None once it is being closed.
    queue: Option<Sender<Job>>,
    /// How many may wait in it, but for probes.
    most: usize,
    patience: Patience,
    inline: Inline,
    threads: Vec<JoinHandle<()>>,
    connections: r2d2::Pool<Connector>,
    measures: Measures,
    /// The database, as traces call it.
    system: &'static str,
}

/// What is told of the pool.
struct Measures {
    in_use: Gauge,
    idle: Gauge,
    depth: Gauge,
    waited: Histogram,
    full: Counter,
}

impl Measures {
    fn new() -> Self {
        Self {
            in_use: gauge!("dcams_pool_connections", "state" => "in_use"),
            idle: gauge!("dcams_pool_connections", "state" => "idle"),
            depth: gauge!("dcams_pool_queue_depth"),
            waited: histogram!("dcams_pool_wait_seconds"),
            full: counter!("dcams_pool_refused_total", "cause" => "full"),
        }
    }
}

/// How many probes may wait. How busy the store is does not decide whether it is there.
const PROBES: usize = 8;

/// Work for one of the threads: it is given the means to get a connection, and answers its caller itself.
type Job = Box<dyn FnOnce(&Connections) + Send>;

/// The pooled connections, as a thread sees them.
struct Connections {
    pool: r2d2::Pool<Connector>,
    checkout: Duration,
    /// Counts that no connection could be had in time.
    unconnected: Counter,
}

impl Pool {
    pub(crate) fn start(connector: Connector, settings: &Settings) -> Result<Self> {
        let system = connector.location().system();
        // A server is always waited for.
        let inline = match connector.location() {
            Location::Sqlite(_) => settings.inline_reads,
            Location::Postgres(_) => 0,
        };
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(settings.readers.get()).unwrap_or(u32::MAX))
            .min_idle(Some(0))
            .idle_timeout(None)
            .max_lifetime(None)
            // Twice the longest pause between attempts to connect: after a long outage the next caller gets a connection.
            .connection_timeout(settings.checkout)
            // A test would be one more round trip for every query: a dead connection is found by using it.
            .test_on_check_out(false)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(connector);
        let (queue, jobs) = bounded::<Job>(settings.read_queue.saturating_add(PROBES));
        let mut threads = Vec::new();
        for number in 0..settings.readers.get() {
            let connections = Connections {
                pool: pool.clone(),
                checkout: settings.checkout,
                unconnected: counter!("dcams_pool_refused_total", "cause" => "no_connection"),
            };
            let jobs: Receiver<Job> = jobs.clone();
            let thread = thread::Builder::new()
                .name(format!("store-read-{number}"))
                .spawn(move || {
                    for job in jobs {
                        job(&connections);
                    }
                })
                .map_err(|error| Error::Internal(format!("no thread for the store: {error}")))?;
            threads.push(thread);
        }
        Ok(Self {
            queue: Some(queue),
            most: settings.read_queue,
            patience: Patience::new(settings.queue_wait),
            inline: Inline::new(inline),
            threads,
            connections: pool,
            measures: Measures::new(),
            system,
        })
    }

    /// Sets the gauges.
    pub(crate) fn observe(&self) {
        let r2d2::State {
            connections,
            idle_connections,
            ..
        } = self.connections.state();
        self.measures.idle.set(idle_connections);
        self.measures.in_use.set(connections.saturating_sub(idle_connections));
        let waiting = self.queue.as_ref().map_or(0, Sender::len);
        self.measures.depth.set(waiting as f64);
    }

    /// Runs a read. If the connection turns out to be dead, it is run again on another: after a restart of the database
    /// all that are kept are dead, and only one that was made since tells that the database is.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        deadline: Instant,
        query: impl Fn(&mut AnyConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.enter()?;
        self.read_now(deadline, query).await
    }

    /// The same for what is found by its key, which is done at once where nothing has to be waited for.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        deadline: Instant,
        query: impl Fn(&mut AnyConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.enter()?;
        match self.look_up_inline(deadline, &query) {
            Some(result) => result,
            None => self.read_now(deadline, query).await,
        }
    }

    /// Runs it on this thread, if it may and a connection is there. None as well when the connection turns out to be dead.
    fn look_up_inline<T>(
        &self,
        deadline: Instant,
        query: impl FnOnce(&mut AnyConnection) -> Result<T>,
    ) -> Option<Result<T>> {
        let _turn = self.inline.turn()?;
        let mut connection = self.connections.try_get()?;
        let result = self.query().run(deadline, || connection.run(query));
        (!matches!(result, Err(Error::Unavailable(_)))).then_some(result)
    }

    /// Runs a read for a probe, which waits however many do.
    pub(crate) async fn probe<T: Send + 'static>(
        &self,
        deadline: Instant,
        query: impl Fn(&mut AnyConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_now(deadline, query).await
    }

    async fn read_now<T: Send + 'static>(
        &self,
        deadline: Instant,
        query: impl Fn(&mut AnyConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.submit(deadline, move |connections| {
            let began = Instant::now();
            loop {
                let mut connection = connections.get()?;
                match connection.run(&query) {
                    Err(Error::Unavailable(_)) if connection.made < began && !expired(deadline) => {}
                    result => return result,
                }
            }
        })
        .await
    }

    /// Runs a piece of administration, once. What a commit that failed on SQLite has left is overwritten before it is called
    /// refused; where that fails as well, it may come back, and the error is [`Error::Unknown`].
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        deadline: Instant,
        query: impl FnOnce(&mut AnyConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.enter()?;
        self.submit(deadline, move |connections| {
            let result = connections.get()?.run(query);
            match result {
                Err(Error::Unavailable(cause)) if error::may_come_back(&cause) => {
                    let overwritten = connections.get().and_then(|mut pooled| pooled.run(attempts::forget));
                    Err(match overwritten {
                        Ok(()) => Error::Unavailable(cause),
                        Err(_) => Error::Unknown(cause),
                    })
                }
                result => result,
            }
        })
        .await
    }

    /// Does a piece of work in a transaction of its own, once, whatever happens to its connection; see
    /// [`attempts::transact`].
    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Fn(&mut AnyConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.enter()?;
        self.submit(deadline, move |connections| {
            attempts::transact(|| connections.get(), deadline, work)
        })
        .await
    }

    /// Refuses one more when too many wait, or for too long.
    fn enter(&self) -> Result<()> {
        let waiting = self.queue.as_ref().map_or(0, Sender::len);
        match waiting < self.most && self.patience.admits(waiting) {
            true => Ok(()),
            false => Err(self.full()),
        }
    }

    /// Counts one that is refused.
    fn full(&self) -> Error {
        self.measures.full.increment(1);
        Error::Full
    }

    /// A query that comes now.
    fn query(&self) -> Query {
        Query {
            came: Instant::now(),
            waited: self.measures.waited.clone(),
            traced: Traced::here(),
            system: self.system,
        }
    }

    async fn submit<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Connections) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let (query, patience) = (self.query(), self.patience.clone());
        let job: Job = Box::new(move |connections| {
            patience.took(query.came);
            // A caller that went away needs no answer.
            let _ = reply.send(query.run(deadline, || work(connections)));
        });
        let closed = || Error::Unavailable("the store is closed".to_owned());
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => self.full(),
            TrySendError::Disconnected(_) => closed(),
        })?;
        answer
            .await
            .unwrap_or_else(|_| Err(Error::Internal("a query ended without an answer".to_owned())))
    }
}

/// A query from when it came, and what is told of it.
struct Query {
    came: Instant,
    waited: Histogram,
    traced: Option<Traced>,
    system: &'static str,
}

impl Query {
    /// Runs it, unless nobody waits for it any more.
    fn run<T>(mut self, deadline: Instant, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.waited.record(self.came.elapsed());
        let from = self.traced.as_ref().map(|_| SystemTime::now());
        let result = match expired(deadline) {
            true => Err(Error::Expired),
            false => work(),
        };
        if let (Some(traced), Some(from)) = (&mut self.traced, from) {
            let system = KeyValue::new("db.system.name", self.system);
            traced.tell("store.query", from, result.is_err(), vec![system]);
        }
        result
    }
}

/// What waits is still answered, and the connections are closed in order: only then does SQLite remove its WAL.
impl Drop for Pool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Connections {
    fn get(&self) -> Result<r2d2::PooledConnection<Connector>> {
        self.pool.get_timeout(self.checkout).map_err(|error| {
            self.unconnected.increment(1);
            Error::Unavailable(format!("no connection: {error}"))
        })
    }
}
