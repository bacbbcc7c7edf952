//! Whether the service would refuse one more call as one too many, for whoever can spare itself and it the work.

use std::{fmt, sync::Arc};

/// Tells it at the moment it is asked. A cheap handle; the default one is never shut, as before a service that is remote.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<dyn Fn(Call) -> bool + Send + Sync>>);

/// What a gate is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// One of any kind.
    Any,
    /// One that changes a customer.
    Change,
}

impl Gate {
    /// A gate that is shut whenever `is_shut` says so.
    pub fn new(is_shut: impl Fn(Call) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_shut)))
    }

    /// Whether one more such call would be refused now.
    pub fn is_shut(&self, call: Call) -> bool {
        self.0.as_ref().is_some_and(|is_shut| is_shut(call))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Gate").finish_non_exhaustive()
    }
}
