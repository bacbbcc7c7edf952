//! `WatchStatusChanges`: a task for each stream reads the feed a page at a time and hands the pages to the consumer through
//! a small queue.
//!
//! The task asks again whenever this process has written something, but not more often than every [`THROTTLE`], and now and
//! then in any case: other processes write as well. What it hands out it never counts as read by the consumer: that is said
//! by the cursor that the consumer comes back with.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use metrics::{Counter, Gauge, Histogram};
use proto::{
    Reason, Refusal,
    v1::{WatchStatusChangesRequest, WatchStatusChangesResponse},
};
use store::{Error, FeedItem, Place, Principal, Scope, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    Service, Settings,
    access::{Actor, Call},
    convert,
};

/// Limits of the streams.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// The most streams at once; one more is refused.
    pub most: usize,
    /// The most of them that an account has at once; one more is refused.
    pub most_per_account: usize,
    /// How long nothing is sent before a heartbeat is.
    pub heartbeat: Duration,
    /// How long a consumer may leave the oldest answer of a full queue there.
    pub slow_consumer: Duration,
    /// How long the store may be out of reach before a stream ends.
    pub outage: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            most: 256,
            most_per_account: 64,
            heartbeat: Duration::from_secs(10),
            slow_consumer: Duration::from_secs(30),
            outage: Duration::from_secs(30),
        }
    }
}

/// An extension of a request: cancelled when the connection that it came over is to end. A stream on it ends then as it does
/// when the server stops, so that its consumer goes on over another one.
#[derive(Clone, Debug)]
pub struct Retiring(pub CancellationToken);

/// The most changes in an answer, as the contract says.
const PAGE: u32 = 100;

/// How many answers wait for the consumer.
const QUEUE: usize = 4;

/// How long the store has for a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream that has caught up does not ask more often than this.
const THROTTLE: Duration = Duration::from_millis(20);

/// How long a stream that has caught up waits for a sign before it asks without one: the first time, and at most.
const POLL: Duration = Duration::from_millis(50);
const POLL_AT_MOST: Duration = Duration::from_millis(500);

/// How many pages are read at once for all streams: the calls that do not stream keep the other connections.
const READS: usize = 2;

/// What the streams of a process share.
#[derive(Clone)]
pub(crate) struct Streams {
    settings: StreamSettings,
    stop: CancellationToken,
    seats: Arc<Semaphore>,
    /// How many of them each account has. One without any is not in it.
    taken: Arc<Mutex<HashMap<i64, usize>>>,
    reads: Arc<Semaphore>,
    running: Gauge,
    sent: Counter,
    lag: Histogram,
}

impl Streams {
    pub(crate) fn new(settings: &Settings) -> Self {
        let streams = settings.streams.clone();
        Self {
            stop: settings.stop.clone(),
            seats: Arc::new(Semaphore::new(streams.most)),
            taken: Arc::default(),
            reads: Arc::new(Semaphore::new(READS)),
            settings: streams,
            running: metrics::gauge!("dcams_feed_streams"),
            sent: metrics::counter!("dcams_feed_changes_sent_total"),
            lag: metrics::histogram!("dcams_feed_lag_seconds"),
        }
    }

    /// A seat for a stream of an account, if there is one.
    fn seat(&self, account: i64) -> Result<Seat, Reason> {
        let permit = Arc::clone(&self.seats).try_acquire_owned();
        let permit = permit.map_err(|_| Reason::Overloaded)?;
        let mut accounts = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = accounts.get(&account).copied().unwrap_or_default();
        if taken >= self.settings.most_per_account {
            return Err(Reason::Throttled);
        }
        accounts.insert(account, taken + 1);
        self.running.increment(1);
        Ok(Seat {
            running: self.running.clone(),
            account,
            taken: Arc::clone(&self.taken),
            _permit: permit,
        })
    }
}

/// The right to stream, as long as it is held.
struct Seat {
    running: Gauge,
    account: i64,
    taken: Arc<Mutex<HashMap<i64, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.running.decrement(1);
        let mut accounts = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match accounts.get_mut(&self.account) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(accounts.remove(&self.account)),
        }
    }
}

pub(crate) async fn answer(
    service: &Service,
    request: Request<WatchStatusChangesRequest>,
) -> Result<Response<Answers>, Status> {
    let mut call = service.begin(&request)?;
    let deadline = call.deadline;
    // Without one, it lives as long as the server does.
    let retiring = request
        .extensions()
        .get::<Retiring>()
        .map(|retiring| retiring.0.clone());
    let WatchStatusChangesRequest { cursor, only_new } = request.into_inner();
    let begin = |actor: Actor, cursor: String| async move {
        let store = &service.store;
        let principal = actor.principal;
        // Before the cursor is looked at: without the right, nothing is said of it.
        store.confirm(principal, deadline).await?;
        let place = if !cursor.is_empty() {
            store.place(&cursor, deadline).await?
        } else if only_new {
            store.feed_end(principal, deadline).await?
        } else {
            Place::default()
        };
        Ok((actor, place, store.cursor(place, deadline).await?))
    };
    let announces = cursor.is_empty() && only_new;
    let (actor, place, cursor) = service.perform(&call, Scope::Read, Ok(cursor), begin).await?;
    // After the credentials: nobody else takes a seat.
    let seat = service.streams.seat(actor.principal.account)?;
    call.leave();

    let (answers, queue) = mpsc::channel(QUEUE);
    let (end, ended) = oneshot::channel();
    let queue = Arc::new(Mutex::new(queue));
    let reader = Reader {
        service: service.clone(),
        call,
        actor,
        place,
        cursor,
        live: false,
        last_sent: Instant::now(),
        answers,
        queue: Arc::clone(&queue),
    };
    tokio::spawn(async move {
        if let Some(status) = reader.run(announces, retiring.unwrap_or_default()).await {
            // Nobody listens any more if this fails.
            let _ = end.send(status);
        }
        drop(seat);
    });
    Ok(Response::new(Box::pin(Handed {
        queue,
        ended: Some(ended),
    })))
}

/// The answers of a call.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<WatchStatusChangesResponse, Status>> + Send>>;

/// An answer in the queue, with the cursor of the one before: who does not get it goes on there.
struct Queued {
    answer: WatchStatusChangesResponse,
    before: String,
}

type Queue = Arc<Mutex<mpsc::Receiver<Queued>>>;

/// Poisoned only by a panic in a call of the channel, which leaves it whole.
fn lock(queue: &Queue) -> MutexGuard<'_, mpsc::Receiver<Queued>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers of a call: what is in the queue, and behind that why there is no more.
struct Handed {
    queue: Queue,
    /// None once it was told.
    ended: Option<oneshot::Receiver<Status>>,
}

impl Stream for Handed {
    type Item = Result<WatchStatusChangesResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = lock(&self.queue).poll_recv(context);
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(queued)) => Poll::Ready(Some(Ok(queued.answer))),
            Poll::Ready(None) => {
                let Some(ended) = &mut self.ended else {
                    return Poll::Ready(None);
                };
                let ended = std::task::ready!(Pin::new(ended).poll(context));
                self.ended = None;
                // A reader that ended without a word has met a defect.
                Poll::Ready(Some(Err(ended.unwrap_or_else(|_| Reason::Internal.into()))))
            }
        }
    }
}

/// A consumer that leaves frees its reader.
impl Drop for Handed {
    fn drop(&mut self) {
        lock(&self.queue).close();
    }
}

/// What reads for a stream.
struct Reader {
    service: Service,
    /// Verified anew when what was verified no longer holds: the account's password may have been changed, or another of its
    /// tokens revoked.
    call: Call,
    actor: Actor,
    /// All up to here is in the queue, or was.
    place: Place,
    /// The same, as the consumer sees it.
    cursor: String,
    /// Whether the stream has caught up once: what comes then is as old as it was late.
    live: bool,
    last_sent: Instant,
    answers: mpsc::Sender<Queued>,
    queue: Queue,
}

/// Why a stream ends; none when nobody is there to be told.
type End = Option<Refusal>;

impl Reader {
    async fn run(mut self, announces: bool, retiring: CancellationToken) -> Option<Status> {
        let stop = self.service.streams.stop.clone();
        let answers = self.answers.clone();
        let end = tokio::select! {
            Err(end) = self.follow(announces) => end,
            () = answers.closed() => None,
            () = stop.cancelled() => Some(Reason::Unavailable.into()),
            () = retiring.cancelled() => Some(Reason::Unavailable.into()),
        };
        end.map(|refusal| self.call.refused(refusal))
    }

    /// Reads and hands out until that cannot go on.
    async fn follow(&mut self, announces: bool) -> Result<std::convert::Infallible, End> {
        if announces {
            self.send(Vec::new()).await?;
        }
        let mut written = self.service.store.written();
        let mut pause = POLL;
        let mut out_of_reach: Option<Instant> = None;
        loop {
            // Before the read: what is written during it makes for another one.
            written.mark_unchanged();
            let asked = Instant::now();
            let page = match self.actor.expired() {
                true => Err(Error::StaleCredentials),
                false => {
                    let (store, streams) = (self.service.store.clone(), self.service.streams.clone());
                    self.beating(read(store, streams, self.actor.principal, self.place))
                        .await?
                }
            };
            let error = match page {
                Ok((items, cursor)) => {
                    out_of_reach = None;
                    let is_full = items.len() >= PAGE as usize;
                    if !items.is_empty() {
                        pause = POLL;
                        self.hand_out(items, cursor).await?;
                    }
                    self.live |= !is_full;
                    if is_full {
                        continue;
                    }
                    None
                }
                Err(Error::StaleCredentials) => self.renew().await?,
                // A short outage is none of the consumer's business: the stream goes on behind it where it was.
                Err(
                    error @ (Error::Unavailable(_)
                    | Error::Expired
                    | Error::Full
                    | Error::Collision(_)
                    | Error::Keys(_)),
                ) => Some(error.to_string()),
                Err(error) => return Err(Some(convert::reason(error, self.call.request_id()).into())),
            };
            if let Some(error) = error {
                let since = *out_of_reach.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.service.streams.settings.outage {
                    let request_id = self.call.request_id();
                    tracing::warn!(request_id, error, "a stream ends, as the store is out of reach");
                    return Err(Some(Reason::Unavailable.into()));
                }
            }
            pause = self.beating(sign(&mut written, pause, asked)).await?;
        }
    }

    /// Verifies the caller anew. Gives why that could not be done now, where it may be a little later.
    async fn renew(&mut self) -> Result<Option<String>, End> {
        let (service, deadline) = (self.service.clone(), std::time::Instant::now() + PATIENCE);
        match service.verify(&self.call, deadline).await {
            // An account that took the name of this one has another feed.
            Ok(actor) if actor.principal.account == self.actor.principal.account => {
                self.actor = actor;
                Ok(None)
            }
            Ok(_) => Err(Some(Reason::BadCredentials.into())),
            Err(refusal) if refusal.reason.retryable() => Ok(Some(refusal.message())),
            Err(refusal) => Err(Some(refusal)),
        }
    }

    /// Waits for something, and sends heartbeats meanwhile.
    async fn beating<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = std::pin::pin!(work);
        loop {
            match timeout_at(self.last_sent + self.service.streams.settings.heartbeat, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => self.send(Vec::new()).await?,
            }
        }
    }

    async fn hand_out(&mut self, items: Vec<FeedItem>, cursor: String) -> Result<(), End> {
        let now = SystemTime::now();
        let mut changes = Vec::with_capacity(items.len());
        for FeedItem { change, customer } in items {
            self.place = change.place;
            if self.live {
                // A clock that went back makes none.
                self.service
                    .streams
                    .lag
                    .record(now.duration_since(change.time).unwrap_or_default());
            }
            changes.push(convert::status_change(change, customer.as_ref(), self.actor.account()));
        }
        let before = std::mem::replace(&mut self.cursor, cursor);
        self.queue_up(changes, before).await
    }

    /// Sends what has no change in it.
    async fn send(&mut self, none: Vec<proto::v1::StatusChange>) -> Result<(), End> {
        let before = self.cursor.clone();
        self.queue_up(none, before).await
    }

    async fn queue_up(&mut self, changes: Vec<proto::v1::StatusChange>, before: String) -> Result<(), End> {
        let count = changes.len() as u64;
        let queued = Queued {
            answer: WatchStatusChangesResponse {
                changes,
                cursor: self.cursor.clone(),
            },
            before,
        };
        let patience = self.service.streams.settings.slow_consumer;
        match timeout(patience, self.answers.reserve()).await {
            Ok(Ok(place)) => place.send(queued),
            Ok(Err(_)) => return Err(None),
            Err(_) => return Err(Some(Refusal::too_slow(self.give_up(queued)))),
        }
        self.last_sent = Instant::now();
        self.service.streams.sent.increment(count);
        Ok(())
    }

    /// Takes back what the consumer has not taken, which it may leave for as long as its connection lives, and gives the
    /// cursor behind what it has.
    fn give_up(&self, last: Queued) -> String {
        let mut queue = lock(&self.queue);
        queue.close();
        let mut left: VecDeque<Queued> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
        left.push_back(last);
        left.pop_front().map(|first| first.before).unwrap_or_default()
    }
}

/// Reads a page, and the cursor behind it.
async fn read(
    store: Store,
    streams: Streams,
    principal: Principal,
    after: Place,
) -> store::Result<(Vec<FeedItem>, String)> {
    // The semaphore is never closed.
    let _one_of_few = streams.reads.acquire().await;
    let deadline = std::time::Instant::now() + PATIENCE;
    let items = store.feed(principal, after, PAGE, deadline).await?;
    let behind = items.last().map_or(after, |item| item.change.place);
    let cursor = store.cursor(behind, deadline).await?;
    Ok((items, cursor))
}

/// Waits for a sign that something was written, or for as long as `pause`, but not so short that the store is asked too
/// often. Gives how long to wait the next time.
async fn sign(written: &mut watch::Receiver<()>, pause: Duration, asked: Instant) -> Duration {
    let next = match timeout(pause, written.changed()).await {
        Ok(Ok(())) => POLL,
        // There is no writer any more, and there will be no sign.
        Ok(Err(_)) => {
            tokio::time::sleep(pause).await;
            POLL_AT_MOST
        }
        Err(_) => (pause * 2).min(POLL_AT_MOST),
    };
    sleep_until(asked + THROTTLE).await;
    next
}
