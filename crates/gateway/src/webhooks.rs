//! Webhooks: sends the changes of accounts to those who asked for them, in the background of `serve`.
//!
//! Of all gateways on a store one has the lease of a webhook, and delivers. It begins nothing that could take longer than
//! the lease still lasts, so that no two deliver at once, whatever becomes of the database meanwhile. What is new is sent
//! from the feed, the customers of a batch side by side and each customer's changes one after the other; what fails waits in
//! the store, see `store/webhooks.rs`. A receiver that takes nothing is left alone for a while, and then tried with a
//! delivery or two.

mod address;
mod command;
mod payload;
mod sender;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use store::{Delivery, DeliveryOutcome, Health, Store, WebhookTarget, WebhookWork};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub(crate) use address::Rules;
pub(crate) use command::run as command;
pub(crate) use sender::Sender;

/// Counts what was tried, by what became of it.
pub(crate) const DELIVERIES: &str = "dcams_webhook_deliveries_total";

/// Counts changes that were given up.
pub(crate) const PARKED: &str = "dcams_webhook_parked_total";

/// How far the webhook that is furthest behind is.
pub(crate) const LAG: &str = "dcams_webhook_lag_seconds";

/// Deliveries to one webhook at once.
const SIDE_BY_SIDE: usize = 16;

/// Deliveries at once in all.
const AT_ONCE: usize = 128;

/// How many webhooks look for work at once: the others leave the store to those who are served.
const QUERIES: usize = 2;

/// The most changes that are looked at together; after a crash so many may be sent twice.
const BATCH: u32 = 64;

/// So many changes in a row whose first try fails mean that the receiver is down.
const DOWN: u32 = 5;

/// How long nothing is looked for when nothing was found, and nothing was written meanwhile.
const POLL: Duration = Duration::from_secs(1);

/// The least time between two looks that found nothing.
const BREATH: Duration = Duration::from_millis(200);

/// How long the store has.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long a gateway that does not say anything keeps a webhook.
    lease: Duration,
    /// How long to wait after the first failure; after each that follows twice as long.
    first: Duration,
    /// The longest wait.
    longest: Duration,
    /// How long a change is tried.
    patience: Duration,
}

impl Pace {
    /// The pace of production.
    pub(crate) const LEASE: Duration = Duration::from_secs(30);

    /// A lease, and waits that are `tempo` times shorter than those of production.
    pub(crate) fn new(lease: Duration, tempo: u32) -> Self {
        Self {
            lease,
            first: Duration::from_secs(5) / tempo,
            longest: store::LONGEST_WAIT / tempo,
            patience: Duration::from_secs(24 * 60 * 60) / tempo,
        }
    }

    /// How long a connection may take.
    pub(crate) fn connect(&self) -> Duration {
        self.lease / 6
    }

    /// How long a delivery may take.
    pub(crate) fn total(&self) -> Duration {
        self.lease / 2
    }

    /// How long to wait after so many failures: anything up to a bound that doubles, so that those who failed together do
    /// not come back together.
    fn wait(&self, failures: u32) -> Duration {
        let most = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        most.min(self.longest).mul_f64(rand::random())
    }
}

/// Delivers until it is asked to stop.
pub(crate) async fn deliver(store: Store, sender: Sender, pace: Pace, stop: CancellationToken) {
    for outcome in ["delivered", "failed"] {
        counter!(DELIVERIES, "outcome" => outcome).increment(0);
    }
    counter!(PARKED).increment(0);
    gauge!(LAG).set(0.0);
    let holder = uuid::Uuid::new_v4().to_string();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let queries = Arc::new(Semaphore::new(QUERIES));
    let mut held: HashMap<i64, Held> = HashMap::new();
    let mut failing = false;
    while !stop.is_cancelled() {
        let asked = Instant::now();
        match store.lease_webhooks(&holder, pace.lease, asked + pace.lease / 3).await {
            Ok(leased) => {
                failing = false;
                let leased: HashSet<i64> = leased.into_iter().collect();
                // One that has not ended yet stays, so that there are never two for a webhook.
                held.retain(|_, held| !held.task.is_finished());
                for (id, held) in &held {
                    match leased.contains(id) {
                        true => held.until.send_replace(asked + pace.lease),
                        false => {
                            held.stop.cancel();
                            asked
                        }
                    };
                }
                for id in leased {
                    held.entry(id).or_insert_with(|| {
                        let (until, lease) = watch::channel(asked + pace.lease);
                        let (stop, lag) = (stop.child_token(), Arc::new(AtomicU64::new(0)));
                        let follower = Follower {
                            webhook: id,
                            holder: holder.clone(),
                            store: store.clone(),
                            sender: sender.clone(),
                            pace,
                            lease,
                            stop: stop.clone(),
                            at_once: Arc::clone(&at_once),
                            queries: Arc::clone(&queries),
                            lag: Arc::clone(&lag),
                        };
                        let task = tokio::spawn(follower.run());
                        Held { until, stop, lag, task }
                    });
                }
            }
            Err(error) if failing => tracing::debug!(%error, "the leases of webhooks cannot be renewed"),
            Err(error) => {
                failing = true;
                tracing::warn!(%error, "the leases of webhooks cannot be renewed; it is tried again");
            }
        }
        let lag = held.values().map(|held| held.lag.load(Ordering::Relaxed)).max();
        gauge!(LAG).set(Duration::from_micros(lag.unwrap_or_default()).as_secs_f64());
        let _ = stop.run_until_cancelled(tokio::time::sleep(pace.lease / 10)).await;
    }
    for (_, held) in held {
        let _ = held.task.await;
    }
    if let Err(error) = store.release_webhooks(&holder, Instant::now() + PATIENCE).await {
        tracing::warn!(%error, "the leases of webhooks were not released; they end by themselves");
    }
}

/// A webhook that this gateway has.
struct Held {
    /// Until when.
    until: watch::Sender<Instant>,
    stop: CancellationToken,
    /// How far behind it is, in microseconds.
    lag: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// What delivers to one webhook.
struct Follower {
    webhook: i64,
    holder: String,
    store: Store,
    sender: Sender,
    pace: Pace,
    lease: watch::Receiver<Instant>,
    stop: CancellationToken,
    at_once: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    lag: Arc<AtomicU64>,
}

/// What the deliveries of a batch share.
struct Batch {
    target: WebhookTarget,
    sender: Sender,
    pace: Pace,
    lease: watch::Receiver<Instant>,
    stop: CancellationToken,
    at_once: Arc<Semaphore>,
    /// How many in a row could not be delivered.
    failures: AtomicU32,
    /// Whether the receiver was down already, and this is to see whether it still is.
    probe: bool,
}

impl Follower {
    async fn run(self) {
        let mut written = self.store.written();
        let mut failing = false;
        while !self.stop.is_cancelled() {
            // Never closed; the others wait here, and not in the queue of those who are served.
            let turn = self.queries.acquire().await;
            let work = self
                .store
                .webhook_work(self.webhook, &self.holder, BATCH, DOWN, Instant::now() + PATIENCE)
                .await;
            drop(turn);
            let paused = match work {
                // Another gateway has it, or it was removed.
                Ok(None) => return,
                Ok(Some(work)) => {
                    failing = false;
                    let lag = u64::try_from(work.lag.as_micros()).unwrap_or(u64::MAX);
                    self.lag.store(lag, Ordering::Relaxed);
                    if !work.deliveries.is_empty() {
                        if !self.batch(work).await {
                            return;
                        }
                        continue;
                    }
                    !work.pause.is_zero()
                }
                Err(error) if failing => {
                    tracing::debug!(%error, "a webhook cannot be read");
                    true
                }
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "a webhook cannot be read; it is tried again");
                    true
                }
            };
            let rest = async {
                tokio::time::sleep(BREATH).await;
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    Ok(()) = written.changed(), if !paused => {}
                }
            };
            let _ = self.stop.run_until_cancelled(rest).await;
        }
    }

    /// Delivers what there is, and writes down what became of it. Tells whether the webhook is still this gateway's.
    async fn batch(&self, work: WebhookWork) -> bool {
        let was_down = work.failures >= DOWN;
        let batch = Arc::new(Batch {
            target: work.target,
            sender: self.sender.clone(),
            pace: self.pace,
            lease: self.lease.clone(),
            stop: self.stop.clone(),
            at_once: Arc::clone(&self.at_once),
            failures: AtomicU32::new(work.failures),
            probe: was_down,
        });
        let outcomes = deliver_all(&batch, work.deliveries).await;
        let failures = batch.failures.load(Ordering::Relaxed);
        let down = failures >= DOWN;
        let health = Health {
            failures,
            pause: if down {
                self.pace.wait(failures - DOWN + 1)
            } else {
                Duration::ZERO
            },
        };
        if down != was_down {
            let id = &batch.target.id;
            match down {
                true => {
                    tracing::warn!(webhook = %id, "a webhook fails again and again: it is tried less often from now on")
                }
                false => tracing::info!(webhook = %id, "a webhook is up again"),
            }
        }
        if outcomes.iter().all(|(_, outcome)| *outcome == DeliveryOutcome::Waits) {
            // Nothing could be sent, as when the lease is not renewed in time.
            let _ = self.stop.run_until_cancelled(tokio::time::sleep(BREATH)).await;
        }
        self.record(outcomes, health).await
    }

    /// Tries for as long as the lease lasts: what is not written down is sent again.
    async fn record(&self, outcomes: Vec<(Delivery, DeliveryOutcome)>, health: Health) -> bool {
        loop {
            let until = *self.lease.borrow();
            let recorded = self.store.record_deliveries(
                self.webhook,
                &self.holder,
                outcomes.clone(),
                health.clone(),
                self.pace.patience,
                until.min(Instant::now() + PATIENCE),
            );
            match recorded.await {
                Ok(Some(parked)) => {
                    counter!(PARKED).increment(parked);
                    return true;
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(%error, "what became of deliveries could not be written down");
                    if until <= Instant::now() || self.stop.is_cancelled() {
                        return false;
                    }
                    let _ = self.stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
                }
            }
        }
    }
}

/// Delivers side by side what is of several customers, and in order what is of one. Gives the outcomes in the order of
/// the deliveries.
async fn deliver_all(batch: &Arc<Batch>, deliveries: Vec<Delivery>) -> Vec<(Delivery, DeliveryOutcome)> {
    let mut order: Vec<i64> = Vec::new();
    let mut customers: HashMap<i64, Vec<(usize, Delivery)>> = HashMap::new();
    let total = deliveries.len();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let customer = delivery.item.change.customer;
        let of_customer = customers.entry(customer).or_insert_with(|| {
            order.push(customer);
            Vec::new()
        });
        of_customer.push((number, delivery));
    }
    let mut waiting = order.into_iter().filter_map(|customer| customers.remove(&customer));
    let mut tasks = JoinSet::new();
    let mut outcomes: Vec<Option<(Delivery, DeliveryOutcome)>> = std::iter::repeat_with(|| None).take(total).collect();
    loop {
        while tasks.len() < SIDE_BY_SIDE
            && let Some(chain) = waiting.next()
        {
            let batch = Arc::clone(batch);
            tasks.spawn(async move { batch.in_order(chain).await });
        }
        match tasks.join_next().await {
            None => break,
            Some(Ok(done)) => {
                for (number, delivery, outcome) in done {
                    if let Some(place) = outcomes.get_mut(number) {
                        *place = Some((delivery, outcome));
                    }
                }
            }
            // It panicked: what it had is not written down, nor what comes after, and is sent again.
            Some(Err(error)) => tracing::error!(%error, "a delivery ended in a panic"),
        }
    }
    outcomes.into_iter().map_while(|outcome| outcome).collect()
}

impl Batch {
    /// Delivers the changes of one customer, up to the first that fails.
    async fn in_order(&self, chain: Vec<(usize, Delivery)>) -> Vec<(usize, Delivery, DeliveryOutcome)> {
        let mut blocked = false;
        let mut outcomes = Vec::with_capacity(chain.len());
        for (number, delivery) in chain {
            let outcome = match blocked || delivery.behind {
                true => DeliveryOutcome::Waits,
                false => self.attempt(&delivery).await,
            };
            blocked |= outcome != DeliveryOutcome::Done;
            outcomes.push((number, delivery, outcome));
        }
        outcomes
    }

    async fn attempt(&self, delivery: &Delivery) -> DeliveryOutcome {
        let Some(body) = payload::body(&delivery.item) else {
            return DeliveryOutcome::Done;
        };
        let Ok(_permit) = self.at_once.acquire().await else {
            return DeliveryOutcome::Waits;
        };
        let down = !self.probe && self.failures.load(Ordering::Relaxed) >= DOWN;
        let lasts = *self.lease.borrow() > Instant::now() + self.pace.total();
        if down || !lasts {
            return DeliveryOutcome::Waits;
        }
        let id = format!("{}_{}", self.target.id, delivery.item.change.place.position);
        let sent = self.sender.send(&self.target, &id, body);
        match self.stop.run_until_cancelled(sent).await {
            None => DeliveryOutcome::Waits,
            Some(Ok(_)) => {
                self.failures.store(0, Ordering::Relaxed);
                counter!(DELIVERIES, "outcome" => "delivered").increment(1);
                DeliveryOutcome::Done
            }
            Some(Err(failure)) => {
                // One that fails again says nothing new of the receiver: it may be this one that it does not take.
                if self.probe || delivery.attempts == 0 {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                counter!(DELIVERIES, "outcome" => "failed").increment(1);
                tracing::debug!(webhook = %self.target.id, %failure, "a delivery failed");
                DeliveryOutcome::Failed {
                    error: failure.to_string(),
                    retry: self.pace.wait(delivery.attempts + 1),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_are_drawn_anew() {
        let pace = Pace::new(Pace::LEASE, 1);
        for (failures, most) in [
            (1, 5),
            (2, 10),
            (3, 20),
            (10, 2_560),
            (11, 3_600),
            (1_000, 3_600),
            (u32::MAX, 3_600),
        ] {
            let waits: Vec<Duration> = (0..200).map(|_| pace.wait(failures)).collect();
            let most = Duration::from_secs(most);
            assert!(waits.iter().all(|wait| *wait <= most), "{failures}");
            assert!(waits.iter().any(|wait| *wait > most / 2), "{failures}");
            assert!(waits.iter().any(|wait| *wait < most / 2), "{failures}");
        }
    }

    #[test]
    fn a_delivery_takes_less_time_than_its_lease_lasts() {
        let pace = Pace::new(Pace::LEASE, 1);
        assert_eq!(pace.connect(), Duration::from_secs(5));
        assert_eq!(pace.total(), Duration::from_secs(15));
    }
}
