//! Group commit: changes that wait at the same moment are made in one transaction, and each caller is answered after the
//! commit.
//!
//! A batch is what is there when the last one is done: no timer holds a change back, and the busier the store, the
//! more changes share one sync of the disk.

mod postgres;
mod sqlite;

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use metrics::{Gauge, Histogram};
use opentelemetry::KeyValue;
use tokio::sync::{oneshot, watch};

use crate::{
    Change, Error, Result, Settings,
    attempts::LOOK_EVERY,
    connection::{Connector, Location},
    model::expired,
    patience::Patience,
    puts::{Outcome, Task, Wanted},
    retries::Content,
    sealing::Sealing,
    statements::Row,
    trace::Traced,
};

/// A task, and what its customer is found by.
pub(crate) struct Work {
    pub(crate) task: Task,
    pub(crate) email_key: String,
    /// The hash of what is asked for, where it has an idempotency key.
    pub(crate) content: Option<Content>,
}

impl Work {
    /// The change, if it is one of status and nothing else: for these there is a fast way.
    fn plain(&self) -> Option<&Change> {
        match &self.task {
            Task::SetStatus(change) if change.key.is_none() => Some(change),
            _ => None,
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            task: &self.task,
            email_key: &self.email_key,
            content: self.content.as_ref(),
        }
    }
}

/// What was written: the customer as it is stored now.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) row: Row,
    /// Whether it is new.
    pub(crate) created: bool,
}

/// What a backend does with a batch.
trait Apply: Send {
    /// Whether one transaction can change a customer twice, and in more ways than one.
    const MIXES: bool;

    /// Does the work in one transaction, in its order, and tells the outcome of each. An error is the outcome of
    /// the whole transaction: none of it was done, unless the error is [`Error::Unknown`], which leaves that open.
    fn apply(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>>;

    /// Finds out what became of the batch that was just left open: the outcome of each, or none when it was not done and
    /// never will be. An error leaves it open still.
    fn resolve(&mut self, batch: &[&Work]) -> Result<Option<Vec<Outcome>>>;

    /// Writes something that changes nothing, to see whether writing works again.
    fn probe(&mut self) -> Result<()>;
}

/// How long a worker that has nothing but blocked changes waits before it tries them again.
const BLOCKED: Duration = Duration::from_millis(5);

/// A connection that is opened when it is needed. After an outage it is closed: what the library then knows of the database
/// may not be what is there.
struct Kept<C>(Option<C>);

impl<C> Kept<C> {
    fn run<T>(&mut self, open: impl FnOnce() -> Result<C>, work: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let connection = match &mut self.0 {
            Some(connection) => connection,
            none => none.insert(open()?),
        };
        let result = work(connection);
        if result.as_ref().is_err_and(Error::breaks_connection) {
            self.0 = None;
        }
        result
    }
}

/// How often a transaction that met another one is made again.
const ATTEMPTS: usize = 4;

/// How long a worker that could not write waits before it tries by itself.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// The queues, and the threads behind them.
pub(crate) struct Writer {
    queues: Vec<Queue>,
    threads: Vec<JoinHandle<()>>,
    healthy: Vec<Arc<AtomicBool>>,
    hasher: RandomState,
    written: watch::Sender<()>,
}

/// The queue of a worker.
struct Queue {
    items: Sender<Item>,
    patience: Patience,
}

/// A change that somebody waits for.
struct Item {
    work: Work,
    /// The same for two changes of the same customer.
    customer: u64,
    /// When it came into the queue.
    came: Instant,
    deadline: Instant,
    reply: oneshot::Sender<Result<Written>>,
    traced: Option<Traced>,
}

impl Writer {
    pub(crate) fn start(connector: &Connector, sealing: &Sealing, settings: &Settings) -> Result<Self> {
        let mut writer = Self {
            queues: Vec::new(),
            threads: Vec::new(),
            healthy: Vec::new(),
            hasher: RandomState::new(),
            written: watch::Sender::new(()),
        };
        let workers = settings
            .writers
            .map_or(connector.location().writers(), NonZeroUsize::get);
        let system = connector.location().system();
        for _ in 0..workers {
            match connector.location() {
                Location::Sqlite(path) => writer.spawn(
                    sqlite::Applier::new(connector, path, sealing)?,
                    system,
                    workers,
                    settings,
                )?,
                Location::Postgres(url) => writer.spawn(
                    postgres::Applier::new(connector, url, sealing),
                    system,
                    workers,
                    settings,
                )?,
            }
        }
        Ok(writer)
    }

    fn spawn<A: Apply + 'static>(
        &mut self,
        applier: A,
        system: &'static str,
        workers: usize,
        settings: &Settings,
    ) -> Result<()> {
        let (queue, items) = bounded(settings.write_queue.div_ceil(workers));
        let patience = Patience::new(settings.queue_wait);
        let healthy = Arc::new(AtomicBool::new(true));
        let worker = Worker {
            applier,
            items,
            patience: patience.clone(),
            held: VecDeque::new(),
            blocked: false,
            most: settings.batch.get(),
            healthy: Arc::clone(&healthy),
            written: self.written.clone(),
            size: metrics::histogram!("dcams_write_batch_size"),
            seconds: metrics::histogram!("dcams_write_commit_seconds"),
            depth: metrics::gauge!("dcams_write_queue_depth", "worker" => self.queues.len().to_string()),
            system,
        };
        let thread = thread::Builder::new()
            .name(format!("store-write-{}", self.queues.len()))
            .spawn(move || worker.run())
            .map_err(|error| Error::Internal(format!("no thread for the store: {error}")))?;
        self.queues.push(Queue { items: queue, patience });
        self.threads.push(thread);
        self.healthy.push(healthy);
        Ok(())
    }

    /// Whether the last write of every worker could be made.
    pub(crate) fn healthy(&self) -> bool {
        self.healthy.iter().all(|healthy| healthy.load(Ordering::Relaxed))
    }

    /// Whether a change would find a place: somewhere, if not in the queue of its customer.
    pub(crate) fn takes(&self) -> bool {
        self.queues
            .iter()
            .any(|queue| !queue.items.is_full() && queue.patience.admits(queue.items.len()))
    }

    /// Tells whenever something was written here.
    pub(crate) fn written(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    /// Hands work to the worker that has this customer, and waits for the commit.
    pub(crate) async fn submit(&self, work: Work, deadline: Instant) -> Result<Written> {
        let customer = self.hasher.hash_one((work.task.principal().account, &work.email_key));
        let (reply, answer) = oneshot::channel();
        // One worker for a customer: its changes keep their order, and two workers never wait for each other's locks.
        let queue = usize::try_from(customer % self.queues.len() as u64).unwrap_or_default();
        let Queue { items, patience } = &self.queues[queue];
        if !patience.admits(items.len()) {
            return Err(Error::Full);
        }
        items
            .try_send(Item {
                work,
                customer,
                came: Instant::now(),
                deadline,
                reply,
                traced: Traced::here(),
            })
            .map_err(|error| match error {
                TrySendError::Full(_) => Error::Full,
                TrySendError::Disconnected(_) => Error::Unavailable("the writer has stopped".to_owned()),
            })?;
        answer
            .await
            .unwrap_or_else(|_| Err(Error::Internal("a change ended without an answer".to_owned())))
    }
}

/// What waits is still written, and the connections are closed in order.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One thread that writes.
struct Worker<A> {
    applier: A,
    items: Receiver<Item>,
    patience: Patience,
    /// Changes that wait for the next batch: those that were blocked, then second changes of a customer.
    held: VecDeque<Item>,
    /// Whether the last batch left a change that was blocked.
    blocked: bool,
    most: usize,
    healthy: Arc<AtomicBool>,
    written: watch::Sender<()>,
    size: Histogram,
    seconds: Histogram,
    depth: Gauge,
    /// The database, as traces call it.
    system: &'static str,
}

impl<A: Apply> Worker<A> {
    fn run(mut self) {
        while let Some(batch) = self.take() {
            let batch = in_time(batch);
            let (statuses, puts): (Vec<_>, Vec<_>) = match A::MIXES {
                true => (batch, Vec::new()),
                false => batch.into_iter().partition(|item| item.work.plain().is_some()),
            };
            for batch in [statuses, puts] {
                if !batch.is_empty() {
                    self.write(batch);
                }
            }
        }
    }

    /// What is there now, and at least one; none when there will be no more.
    fn take(&mut self) -> Option<Vec<Item>> {
        let mut batch = Vec::new();
        let mut customers = HashSet::new();
        let newcomer = if std::mem::take(&mut self.blocked) {
            self.pause()
        } else {
            None
        };
        for item in std::mem::take(&mut self.held) {
            self.admit(item, &mut batch, &mut customers);
        }
        let mut came = None;
        if let Some(item) = newcomer {
            came = Some(item.came);
            self.admit(item, &mut batch, &mut customers);
        }
        if batch.is_empty() {
            let first = self.wait()?;
            came = Some(first.came);
            self.admit(first, &mut batch, &mut customers);
        }
        while batch.len() < self.most && self.held.len() < self.most {
            match self.items.try_recv() {
                Ok(item) => {
                    came = Some(item.came);
                    self.admit(item, &mut batch, &mut customers);
                }
                Err(_) => break,
            }
        }
        if let Some(came) = came {
            self.patience.took(came);
        }
        self.depth.set((self.items.len() + self.held.len()) as f64);
        Some(batch)
    }

    fn admit(&mut self, item: Item, batch: &mut Vec<Item>, customers: &mut HashSet<u64>) {
        if A::MIXES || customers.insert(item.customer) {
            batch.push(item);
        } else {
            self.held.push_back(item);
        }
    }

    /// Waits a little, or for a change.
    fn pause(&self) -> Option<Item> {
        match self.items.recv_timeout(BLOCKED) {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(BLOCKED);
                None
            }
        }
    }

    /// Waits for a change. A worker that could not write tries by itself meanwhile: with the gateway not ready, no
    /// request would come to try it.
    fn wait(&mut self) -> Option<Item> {
        while !self.healthy.load(Ordering::Relaxed) {
            match self.items.recv_timeout(PROBE_EVERY) {
                Ok(item) => return Some(item),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let works = self.applier.probe().is_ok();
                    self.healthy.store(works, Ordering::Relaxed);
                }
            }
        }
        self.items.recv().ok()
    }

    fn write(&mut self, mut batch: Vec<Item>) {
        let began = Instant::now();
        let from = batch.iter().any(|item| item.traced.is_some()).then(SystemTime::now);
        self.size.record(batch.len() as f64);
        let result = self.transact(&works(&batch));
        self.seconds.record(began.elapsed());
        if let Some(from) = from {
            self.trace(&mut batch, from, result.is_err());
        }
        self.written.send_replace(());
        match result {
            Ok(outcomes) => self.settle(batch.into_iter().zip(outcomes)),
            Err(Error::Unknown(cause)) => self.find_out(batch, cause),
            // One bad change must not fail the others: each alone.
            Err(error) if batch.len() > 1 && !matches!(error, Error::Unavailable(_)) => {
                let outcomes: Vec<_> = batch.iter().map(|item| self.alone(item)).collect();
                self.settle(batch.into_iter().zip(outcomes));
            }
            Err(error) => fail(batch, &error),
        }
    }

    /// Tells the requests that are recorded how long they waited, and of the transaction that they shared.
    fn trace(&self, batch: &mut [Item], from: SystemTime, failed: bool) {
        let size = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        for traced in batch.iter_mut().filter_map(|item| item.traced.as_mut()) {
            let attributes = vec![
                KeyValue::new("db.system.name", self.system),
                KeyValue::new("db.operation.batch.size", size),
            ];
            traced.tell("store.transaction", from, failed, attributes);
        }
    }

    /// Finds out what became of a batch when the connection was lost at its commit. What was not done is done now, once.
    fn find_out(&mut self, batch: Vec<Item>, cause: String) {
        tracing::warn!(
            changes = batch.len(),
            cause,
            "it is not known whether a batch was written: finding out"
        );
        match self.look_until_known(&batch, &cause) {
            Ok(Some(outcomes)) => self.settle(batch.into_iter().zip(outcomes)),
            Ok(None) => {
                let batch = in_time(batch);
                if batch.is_empty() {
                    return;
                }
                let mut result = self.transact(&works(&batch));
                if let Err(Error::Unknown(cause)) = result {
                    result = self
                        .look_until_known(&batch, &cause)
                        .and_then(|outcomes| outcomes.ok_or(Error::Unavailable(cause)));
                }
                match result {
                    Ok(outcomes) => self.settle(batch.into_iter().zip(outcomes)),
                    Err(error) => fail(batch, &error),
                }
            }
            Err(error) => fail(batch, &error),
        }
    }

    /// Asks what became of a batch until there is an answer, or nobody waits for it any more. Whatever comes meanwhile is
    /// refused: it would wait for the same database.
    fn look_until_known(&mut self, batch: &[Item], cause: &str) -> Result<Option<Vec<Outcome>>> {
        let works = works(batch);
        loop {
            match self.applier.resolve(&works) {
                Ok(known) => {
                    self.healthy.store(true, Ordering::Relaxed);
                    return Ok(known);
                }
                Err(error) if batch.iter().all(|item| expired(item.deadline)) => {
                    tracing::error!(%error, "what became of a batch could not be found out in time");
                    return Err(Error::Unknown(cause.to_owned()));
                }
                Err(_) => {}
            }
            let again = Instant::now() + LOOK_EVERY;
            loop {
                match self.items.recv_deadline(again) {
                    Ok(item) => item.answer(Err(Error::Unavailable("an earlier write is still open".to_owned()))),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => {
                        thread::sleep(again.saturating_duration_since(Instant::now()));
                        break;
                    }
                }
            }
        }
    }

    /// Makes one change in a transaction of its own.
    fn alone(&mut self, item: &Item) -> Outcome {
        let mut result = self.transact(&[&item.work]);
        if let Err(Error::Unknown(cause)) = result {
            result = self
                .look_until_known(std::slice::from_ref(item), &cause)
                .and_then(|outcomes| outcomes.ok_or(Error::Unavailable(cause)));
        }
        match result {
            Ok(mut outcomes) => outcomes
                .pop()
                .unwrap_or_else(|| Outcome::Settled(Err(Error::Internal("a change had no outcome".to_owned())))),
            Err(error) => Outcome::Settled(Err(error)),
        }
    }

    /// Answers the callers, and keeps what was blocked, before whatever is held already.
    fn settle(&mut self, outcomes: impl Iterator<Item = (Item, Outcome)>) {
        let mut blocked = Vec::new();
        for (item, outcome) in outcomes {
            match outcome {
                Outcome::Settled(result) => item.answer(result),
                Outcome::Blocked => blocked.push(item),
            }
        }
        self.blocked |= !blocked.is_empty();
        for item in blocked.into_iter().rev() {
            self.held.push_front(item);
        }
    }

    fn transact(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>> {
        let mut result = self.applier.apply(batch);
        for _ in 1..ATTEMPTS {
            match result {
                Err(Error::Collision(_)) => result = self.applier.apply(batch),
                _ => break,
            }
        }
        let is_out = matches!(result, Err(Error::Unavailable(_) | Error::Unknown(_)));
        self.healthy.store(!is_out, Ordering::Relaxed);
        result
    }
}

/// Those that still have time. The others are answered: nothing was done for them.
fn in_time(batch: Vec<Item>) -> Vec<Item> {
    let (late, batch) = batch.into_iter().partition(|item| expired(item.deadline));
    fail(late, &Error::Expired);
    batch
}

fn fail(batch: Vec<Item>, error: &Error) {
    for item in batch {
        item.answer(Err(error.clone()));
    }
}

fn works(batch: &[Item]) -> Vec<&Work> {
    batch.iter().map(|item| &item.work).collect()
}

impl Item {
    fn answer(self, outcome: Result<Written>) {
        // A caller that went away needs no answer.
        let _ = self.reply.send(outcome);
    }
}
