//! Deletes images of documents that have been kept long enough, in the background and a few at a time.

use std::time::{Duration, Instant, SystemTime};

use metrics::counter;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::background::every;

/// How often is looked for what is old.
const ROUND: Duration = Duration::from_secs(60);

/// How many images are deleted in one transaction.
const BATCH: u32 = 100;

/// How long others have the store between two batches.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the store has for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// What counts the images that were deleted.
pub(crate) const EXPIRED: &str = "dcams_documents_expired_total";

/// Keeps images for `age` and no longer, until it is asked to stop.
pub(crate) async fn run(store: Store, age: Duration, stop: CancellationToken) {
    // It is there before the first image is too old.
    counter!(EXPIRED).increment(0);
    every(ROUND, stop, || expire(&store, age)).await;
}

/// Deletes what is too old now.
async fn expire(store: &Store, age: Duration) {
    let Some(before) = SystemTime::now().checked_sub(age) else {
        return;
    };
    loop {
        match store.expire_documents(before, BATCH, Instant::now() + PATIENCE).await {
            Ok(deleted) => {
                counter!(EXPIRED).increment(deleted);
                if deleted < u64::from(BATCH) {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "old images of documents could not be deleted; the next round tries again");
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
