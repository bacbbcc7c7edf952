//! What the tests stand on: databases of their own, the program as a process, and raw requests.

mod cluster;
mod gateway;
mod http;

pub use cluster::{Cluster, Durability};
pub use gateway::{Gateway, Output, dcams};
pub use http::{Connection, Reply};

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
        Database::at(match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Cluster::shared().create_database()),
        })
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
    /// What `--store` takes.
    pub url: String,
    dir: TempDir,
}

impl Database {
    /// The database of this URL, or a new SQLite file.
    pub fn at(url: Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("sqlite://{}", dir.path().join("dcams.db").display());
        Self {
            url: url.unwrap_or(file),
            dir,
        }
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
