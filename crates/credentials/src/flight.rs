//! Lets callers who ask the same at the same time share one answer.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::digest::Digest;
use crate::{Error, Verified};

/// How a check ends.
pub(crate) type Outcome = Result<Verified, Error>;

/// The checks that are under way, each in a task of its own that ends whatever becomes of its callers.
#[derive(Default)]
pub(crate) struct Flights {
    airborne: Mutex<HashMap<Digest, watch::Receiver<Option<Outcome>>>>,
}

impl Flights {
    /// Waits for the check of this key that is under way, or starts one. `start` runs under the lock, so it must be
    /// short; it breaks with an outcome that needs no flight and concerns this caller alone.
    pub(crate) async fn share<F>(
        self: &Arc<Self>,
        key: Digest,
        start: impl FnOnce() -> ControlFlow<Outcome, F>,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut landing = match self.board(key, start) {
            ControlFlow::Continue(landing) => landing,
            ControlFlow::Break(outcome) => return outcome,
        };
        // A task that ends without an outcome was dropped by a runtime that is shutting down.
        landing
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|outcome| *outcome)
            .unwrap_or(Err(Error::Busy))
    }

    fn board<F>(
        self: &Arc<Self>,
        key: Digest,
        start: impl FnOnce() -> ControlFlow<Outcome, F>,
    ) -> ControlFlow<Outcome, watch::Receiver<Option<Outcome>>>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut airborne = self.airborne();
        if let Some(landing) = airborne.get(&key) {
            return ControlFlow::Continue(landing.clone());
        }
        let check = start()?;
        let (land, landing) = watch::channel(None);
        airborne.insert(key, landing.clone());
        drop(airborne);

        let flight = Flight {
            flights: self.clone(),
            key,
        };
        tokio::spawn(async move {
            // Owned by the task, so that it lands even if the check panics or is never run.
            let _flight = flight;
            land.send_replace(Some(check.await));
        });
        ControlFlow::Continue(landing)
    }

    fn airborne(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<Option<Outcome>>>> {
        self.airborne.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a check off the list when it is over.
struct Flight {
    flights: Arc<Flights>,
    key: Digest,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.airborne().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::sync::oneshot;

    use super::*;

    const LANDED: Outcome = Ok(Verified { account: 1, version: 1 });

    /// Polls a future once, so that it has boarded its flight.
    async fn boarded<F: Future<Output = Outcome>>(future: &mut std::pin::Pin<&mut F>) {
        poll_fn(|context| {
            assert!(future.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    fn unwanted() -> ControlFlow<Outcome, std::future::Ready<Outcome>> {
        panic!("a second flight of the same key")
    }

    #[tokio::test]
    async fn callers_of_the_same_key_share_one_flight() {
        let flights = Arc::new(Flights::default());
        let (land, landing) = oneshot::channel();
        let mut leader = pin!(flights.share([1; 32], || ControlFlow::Continue(async { landing.await.unwrap() })));
        boarded(&mut leader).await;
        let mut passenger = pin!(flights.share([1; 32], unwanted));
        boarded(&mut passenger).await;
        land.send(LANDED).unwrap();
        assert_eq!((leader.await, passenger.await), (LANDED, LANDED));
    }

    #[tokio::test]
    async fn other_keys_fly_alone_and_a_landed_flight_is_over() {
        let flights = Arc::new(Flights::default());
        for outcome in [LANDED, Err(Error::Wrong)] {
            let flown = flights
                .share([1; 32], || ControlFlow::Continue(async move { outcome }))
                .await;
            assert_eq!(flown, outcome);
            tokio::task::yield_now().await;
            assert!(flights.airborne().is_empty());
        }
    }

    #[tokio::test]
    async fn a_leader_who_goes_away_leaves_nobody_waiting() {
        let flights = Arc::new(Flights::default());
        let (land, landing) = oneshot::channel();
        let mut leader = Box::pin(flights.share([1; 32], || ControlFlow::Continue(async { landing.await.unwrap() })));
        boarded(&mut leader.as_mut()).await;
        let mut passenger = pin!(flights.share([1; 32], unwanted));
        boarded(&mut passenger).await;
        drop(leader);
        land.send(LANDED).unwrap();
        assert_eq!(passenger.await, LANDED);
    }

    #[tokio::test]
    async fn a_check_that_is_lost_is_busy_for_everybody_and_can_be_made_again() {
        let flights = Arc::new(Flights::default());
        let (land, landing) = oneshot::channel::<Outcome>();
        let mut leader = pin!(flights.share([1; 32], || ControlFlow::Continue(async { landing.await.unwrap() })));
        boarded(&mut leader).await;
        drop(land);
        assert_eq!(leader.await, Err(Error::Busy));
        assert_eq!(
            flights.share([1; 32], || ControlFlow::Continue(async { LANDED })).await,
            LANDED
        );
    }

    #[tokio::test]
    async fn an_outcome_without_a_flight_is_for_its_caller_alone() {
        let flights = Arc::new(Flights::default());
        let refused = flights.share([1; 32], || {
            ControlFlow::<_, std::future::Ready<Outcome>>::Break(Err(Error::Busy))
        });
        assert_eq!(refused.await, Err(Error::Busy));
        assert!(flights.airborne().is_empty());
    }
}
