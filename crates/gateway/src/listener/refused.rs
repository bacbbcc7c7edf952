//! Connections that are too many: they are counted, and some of them closed late.

use std::{sync::Arc, time::Duration};

use metrics::Counter;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::addresses::Full;

/// How long a connection is left open, and not read, that is one too many for an address that abused others. A client that
/// is closed at once comes back at once, and to take it and to close it, again and again, is what it cost by then.
const DELAY: Duration = Duration::from_secs(1);

/// How many of these there are at most; beyond that they are closed at once, like those of everybody else.
const DELAYED: usize = 256;

/// Counts what a listener does not serve, and keeps it open where that is better.
pub(super) struct Refused {
    /// There were too many in all.
    all: Counter,
    /// There were too many from their address.
    address: Counter,
    delays: Arc<Semaphore>,
}

impl Refused {
    pub(super) fn register(listener: &str) -> Self {
        let refused = |limit: &'static str| metrics::counter!("dcams_connections_refused_total", "listener" => listener.to_owned(), "limit" => limit);
        Self {
            all: refused("all"),
            address: refused("address"),
            delays: Arc::new(Semaphore::new(DELAYED)),
        }
    }

    /// There are too many in all. A client that is told to wait would only hold a descriptor.
    pub(super) fn for_all(&self) {
        self.all.increment(1);
    }

    /// There are too many from its address. `stream` is closed when it is dropped.
    pub(super) fn for_address(
        &self,
        stream: impl Send + 'static,
        full: Full,
        stop: &CancellationToken,
        connections: &TaskTracker,
    ) {
        self.address.increment(1);
        if full.is_abuser
            && let Ok(delay) = Arc::clone(&self.delays).try_acquire_owned()
        {
            let stop = stop.clone();
            connections.spawn(async move {
                let _ = timeout(DELAY, stop.cancelled()).await;
                drop((stream, delay));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_abuser_is_delayed_and_only_so_often() {
        let (refused, stop, connections) = (Refused::register("test"), CancellationToken::new(), TaskTracker::new());
        let refuse = |is_abuser| refused.for_address((), Full { is_abuser }, &stop, &connections);
        refuse(false);
        assert_eq!(connections.len(), 0);
        for _ in 0..=DELAYED {
            refuse(true);
        }
        assert_eq!(connections.len(), DELAYED, "one more is closed at once");
        // Who waits does not hold up the end.
        stop.cancel();
        connections.close();
        connections.wait().await;
        assert_eq!(refused.delays.available_permits(), DELAYED);
    }
}
