//! How many calls may be under way at once, over both faces together. One more is refused at once: to let it wait would make
//! all of them late.

use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts the calls.
#[derive(Clone)]
pub(crate) struct Calls {
    places: Arc<Semaphore>,
    under_way: Gauge,
}

/// There is no place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// A call that is under way, as long as it is held.
pub(crate) struct Place {
    under_way: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Calls {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            under_way: metrics::gauge!("dcams_calls_under_way"),
        }
    }

    pub(crate) fn enter(&self) -> Result<Place, TooMany> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| TooMany)?;
        self.under_way.increment(1);
        Ok(Place {
            under_way: self.under_way.clone(),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_is_given_back() {
        let calls = Calls::new(2);
        let (one, _other) = (calls.enter(), calls.enter());
        assert!(one.is_ok() && calls.enter().is_err());
        drop(one);
        assert!(calls.enter().is_ok());
        assert!(Calls::new(usize::MAX).enter().is_ok());
    }
}
