//! Deletes what the store keeps for a while only: idempotency keys of the day before, and the marks of transactions that
//! nobody asks for any more.

use std::time::{Duration, Instant};

use store::Store;
use tokio_util::sync::CancellationToken;

use crate::background::every;

/// How often is looked for what is old: the marks of a minute at full load are deleted in a few milliseconds.
const ROUND: Duration = Duration::from_secs(10);

/// How long others have the store between two batches.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the store has for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the store clean until it is asked to stop.
pub(crate) async fn run(store: Store, stop: CancellationToken) {
    let store = &store;
    every(ROUND, stop, || async move {
        // Each by itself: what holds up one must not keep the other.
        repeat("marks of transactions", || {
            store.expire_attempts(Instant::now() + PATIENCE)
        })
        .await;
        repeat("idempotency keys", || store.expire_keys(Instant::now() + PATIENCE)).await;
    })
    .await;
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
