//! Work that is done again and again while a gateway serves.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Does a round of work at once and then as often as told, one after the other, until it is asked to stop: a round that is
/// under way ends at its next wait.
pub(crate) async fn every<F>(time: Duration, stop: CancellationToken, mut round: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    let mut rounds = interval(time);
    // One that took too long does not make the next ones come at once.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _ = stop
        .run_until_cancelled(async {
            loop {
                rounds.tick().await;
                round().await;
            }
        })
        .await;
}
