//! A budget of memory for large messages: both faces of a process draw from one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Reason;

/// How many bytes of large messages may be in flight at once. A cheap handle: clones share the budget.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
}

/// A part of a budget that is taken until this, and every clone of it, is dropped.
///
/// As an extension of a request it says that the request has been counted, as one of a response, that its message is.
/// It travels with a call inside one process, and never over a network.
#[derive(Clone, Debug)]
pub struct Hold {
    taken: Vec<Arc<OwnedSemaphorePermit>>,
}

impl Hold {
    /// Holds what `more` holds as well: a message that grows takes in steps.
    pub fn add(&mut self, more: Self) {
        self.taken.extend(more.taken);
    }
}

impl Budget {
    /// A budget of that many bytes; the largest message should fit.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes bytes without waiting.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when that much is not left.
    pub fn take(&self, bytes: usize) -> Result<Hold, Reason> {
        let permits = u32::try_from(bytes).map_err(|_| Reason::Overloaded)?;
        let taken = Arc::clone(&self.bytes)
            .try_acquire_many_owned(permits)
            .map_err(|_| Reason::Overloaded)?;
        Ok(Hold {
            taken: vec![Arc::new(taken)],
        })
    }
}

/// 128 MiB.
impl Default for Budget {
    fn default() -> Self {
        Self::new(128 * 1024 * 1024)
    }
}
