//! Keeps hashing within bounds: so many at once, so many waiting, and no longer than so.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time;

use crate::Settings;
use crate::password::StoredHash;

/// Where passwords are hashed.
pub(crate) struct Hashing {
    running: Arc<Semaphore>,
    /// Counts those that run and those that wait.
    admitted: Arc<Semaphore>,
    wait: Duration,
    /// How many permits the two had at first.
    at_once: usize,
    most: usize,
}

/// There is no room or no time for one more hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// The right to one hash, after waiting for its turn.
pub(crate) struct Ticket {
    running: Arc<Semaphore>,
    admission: OwnedSemaphorePermit,
    wait: Duration,
}

impl Hashing {
    pub(crate) fn new(settings: &Settings) -> Self {
        let running = settings.hashes_at_once.get().min(Semaphore::MAX_PERMITS);
        let admitted = running.saturating_add(settings.hash_queue).min(Semaphore::MAX_PERMITS);
        Self {
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(admitted)),
            wait: settings.hash_wait,
            at_once: running,
            most: admitted,
        }
    }

    /// How many hashes are being made, and how many wait for their turn.
    pub(crate) fn load(&self) -> (usize, usize) {
        let running = self.at_once.saturating_sub(self.running.available_permits());
        let admitted = self.most.saturating_sub(self.admitted.available_permits());
        (running, admitted.saturating_sub(running))
    }

    /// Takes a place in the queue if there is one.
    pub(crate) fn enter(&self) -> Result<Ticket, Busy> {
        let admission = self.admitted.clone().try_acquire_owned().map_err(|_| Busy)?;
        Ok(Ticket {
            running: self.running.clone(),
            admission,
            wait: self.wait,
        })
    }
}

impl Ticket {
    /// Says whether the password is the one that was hashed.
    pub(crate) async fn matches(self, password: SecretString, hash: StoredHash) -> Result<bool, Busy> {
        let turn = time::timeout(self.wait, self.running.acquire_owned())
            .await
            .map_err(|_| Busy)?
            .map_err(|_| Busy)?;
        let admission = self.admission;
        let compared = task::spawn_blocking(move || {
            // Who waits for this may be gone before it ends, the core and the memory are in use until then.
            let _held = (turn, admission);
            hash.matches(&password)
        });
        // What fails here is the machine, not the password: no memory, or the runtime is shutting down.
        compared.await.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::password;

    fn hashing(hashes_at_once: usize, hash_queue: usize, hash_wait: Duration) -> Hashing {
        let hashes_at_once = NonZeroUsize::new(hashes_at_once).unwrap();
        Hashing::new(&Settings {
            hashes_at_once,
            hash_queue,
            hash_wait,
            ..Settings::default()
        })
    }

    #[test]
    fn no_more_enter_than_may_run_and_wait() {
        let hashing = hashing(2, 3, Duration::ZERO);
        let mut tickets: Vec<Ticket> = (0..5).map(|_| hashing.enter().unwrap()).collect();
        assert!(hashing.enter().is_err());
        assert_eq!(hashing.load(), (0, 5));
        let turn = hashing.running.clone().try_acquire_owned().unwrap();
        assert_eq!(hashing.load(), (1, 4));
        drop(turn);
        tickets.pop();
        assert!(hashing.enter().is_ok());
        assert_eq!(hashing.load(), (0, 4));
    }

    #[test]
    fn limits_beyond_all_measure_are_taken_as_no_limit() {
        assert!(hashing(usize::MAX, usize::MAX, Duration::MAX).enter().is_ok());
    }

    /// A login that has no hash.
    async fn nobody(hashing: &Hashing) -> Result<bool, Busy> {
        let ticket = hashing.enter().unwrap();
        ticket.matches("right".into(), StoredHash::nobodys()).await
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_in_time_is_busy() {
        let hashing = hashing(1, 1, Duration::from_millis(1));
        let turn = hashing.running.clone().acquire_owned().await.unwrap();
        assert_eq!(nobody(&hashing).await, Err(Busy));
        drop(turn);
        assert_eq!(nobody(&hashing).await, Ok(false));
    }

    #[tokio::test]
    async fn everything_is_given_back() {
        let hashing = hashing(1, 0, Duration::from_secs(60));
        let hash = StoredHash::read(&password::hash(&"right".into()).unwrap()).unwrap();
        assert_eq!(hashing.enter().unwrap().matches("right".into(), hash).await, Ok(true));
        assert_eq!(nobody(&hashing).await, Ok(false));
        assert_eq!(
            (
                hashing.running.available_permits(),
                hashing.admitted.available_permits()
            ),
            (1, 1)
        );
    }
}
