//! Deletes what the store keeps for a while only: idempotency keys of the day before, and the marks of transactions that
//! nobody asks for any more. And looks whether the feed moves on.

use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::background::every;

/// How often is looked for what is old: the marks of a minute at full load are deleted in a few milliseconds.
const ROUND: Duration = Duration::from_secs(10);

/// How long others have the store between two batches.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the store has for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the store has to say what the feed holds back.
const GLANCE: Duration = Duration::from_secs(2);

/// What tells the age of the oldest change that the feed holds back.
pub(crate) const HELD_BACK: &str = "dcams_feed_held_back_seconds";

/// Keeps the store clean until it is asked to stop.
pub(crate) async fn run(store: Store, stop: CancellationToken) {
    let (store, held_back) = (&store, &gauge!(HELD_BACK));
    every(ROUND, stop, || async move {
        look(store, held_back).await;
        // Each by itself: what holds up one must not keep the other.
        repeat("marks of transactions", || {
            store.expire_attempts(Instant::now() + PATIENCE)
        })
        .await;
        repeat("idempotency keys", || store.expire_keys(Instant::now() + PATIENCE)).await;
    })
    .await;
}

/// Sees what the feed holds back. What cannot be seen stays as it was: that the store does not answer is told elsewhere.
async fn look(store: &Store, held_back: &Gauge) {
    if let Ok(age) = store.held_back(Instant::now() + GLANCE).await {
        held_back.set(age.as_secs_f64());
    }
}

/// Deletes batch by batch until nothing is left that is old.
async fn repeat<F: Future<Output = store::Result<u64>>>(what: &str, delete: impl Fn() -> F) {
    loop {
        match delete().await {
            Ok(0) => return,
            Ok(_) => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                tracing::warn!(%error, "old {what} could not be deleted; the next round tries again");
                return;
            }
        }
    }
}
