//! Deletes what the store keeps for a while only: idempotency keys of the day before, and the marks of transactions that
//! nobody asks for any more.

use std::time::{Duration, Instant};

use store::Store;
use tokio_util::sync::CancellationToken;

/// How often is looked for what is old: the marks of a minute at full load are deleted in a few milliseconds.
const ROUND: Duration = Duration::from_secs(10);

/// How long others have the store between two batches.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the store has for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the store clean until it is asked to stop.
pub(crate) async fn run(store: Store, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let _ = stop
        .run_until_cancelled(async {
            loop {
                rounds.tick().await;
                if let Err(error) = clean(&store).await {
                    tracing::warn!(%error, "old idempotency keys could not be deleted; the next round tries again");
                }
            }
        })
        .await;
}

async fn clean(store: &Store) -> store::Result<()> {
    store.expire_attempts(Instant::now() + PATIENCE).await?;
    while store.expire_keys(Instant::now() + PATIENCE).await? > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
