//! The ways in which a legacy client can meet the gateway.

use std::fmt;

use crate::support::{Backend, Database, Gateway};

/// A store, and where the facade is.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    pub backend: Backend,
    pub facade: Facade,
}

/// Where the facade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facade {
    /// In the process of the gRPC face.
    Near,
    /// Alone, with `--upstream`, in front of the gRPC face of another.
    Far,
}

impl Configuration {
    pub const ALL: [Self; 4] = [
        Self::new(Backend::Sqlite, Facade::Near),
        Self::new(Backend::Sqlite, Facade::Far),
        Self::new(Backend::Postgres, Facade::Near),
        Self::new(Backend::Postgres, Facade::Far),
    ];

    const fn new(backend: Backend, facade: Facade) -> Self {
        Self { backend, facade }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facade = match self.facade {
            Facade::Near => "in one process",
            Facade::Far => "upstream",
        };
        write!(f, "{}, {facade}", self.backend)
    }
}

/// A configuration that serves.
pub struct Deployment {
    facade: Option<Gateway>,
    gateway: Gateway,
    pub database: Database,
}

impl Deployment {
    /// Starts it; `arguments` are for the gateway that has the store.
    pub fn start(configuration: Configuration, database: Database, arguments: &[&str]) -> Self {
        let gateway = Gateway::start(&database, arguments);
        let facade = match configuration.facade {
            Facade::Near => None,
            Facade::Far => Some(Gateway::facade(&gateway, &[])),
        };
        Self {
            facade,
            gateway,
            database,
        }
    }

    /// The process whose REST face clients talk to.
    pub fn face(&self) -> &Gateway {
        self.facade.as_ref().unwrap_or(&self.gateway)
    }

    /// The facade alone, after the gateway it stands before was killed.
    pub fn without_upstream(self) -> Gateway {
        self.facade.unwrap()
    }
}
