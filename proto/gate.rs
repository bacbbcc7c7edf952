//! Whether the service would refuse one more call as one too many, for whoever can spare itself and it the work.

use std::{fmt, sync::Arc};

/// Tells it at the moment it is asked. A cheap handle; the default one is never shut, as before a service that is remote.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Gate {
    /// A gate that is shut whenever `is_shut` says so.
    pub fn new(is_shut: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_shut)))
    }

    /// Whether one more call would be refused now.
    pub fn is_shut(&self) -> bool {
        self.0.as_ref().is_some_and(|is_shut| is_shut())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Gate")
            .field("is_shut", &self.is_shut())
            .finish()
    }
}
