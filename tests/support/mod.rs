//! What the tests stand on: databases of their own, the program as a process, and raw requests.

mod cluster;
mod gateway;
mod http;
mod sql;

pub use cluster::{Cluster, Durability};
pub use gateway::{Gateway, Output, dcams};
pub use http::{Connection, Reply};
pub use sql::{Hold, Sql};

use std::{fmt, path::PathBuf};

use tempfile::TempDir;

/// The two databases that a store can be on; what is tested is tested on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub const BOTH: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// A new, empty database of this kind.
    pub fn database(self) -> Database {
        match self {
            Self::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                Database {
                    backend: self,
                    url: format!("sqlite://{}", dir.path().join(Database::FILE).display()),
                    dir,
                }
            }
            Self::Postgres => Database::on(Cluster::shared()),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// A database of a test's own, and a folder for whatever else the test writes.
pub struct Database {
    pub backend: Backend,
    /// What `--store` takes.
    pub url: String,
    dir: TempDir,
}

impl Database {
    /// The name of a SQLite database in the test's folder.
    pub const FILE: &str = "dcams.db";

    /// A new, empty database on a server.
    pub fn on(cluster: &Cluster) -> Self {
        Self {
            backend: Backend::Postgres,
            url: cluster.create_database(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A connection for statements of the test's own.
    pub fn sql(&self) -> Sql {
        Sql::open(self)
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the test's folder.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}
