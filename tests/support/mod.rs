//! What the tests stand on: databases of their own, the program as a process, and raw requests.

mod cluster;
mod faults;
mod gateway;
mod golden;
mod http;
mod seed;

pub use cluster::{Cluster, Durability};
pub use faults::{Ground, Neighbour};
pub use gateway::{Gateway, Output, dcams};
pub use golden::golden;
pub use http::{Connection, Reply, post};

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

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
        let dir = tempfile::tempdir().unwrap();
        let url = match self {
            Self::Sqlite => format!("sqlite://{}", dir.path().join("dcams.db").display()),
            Self::Postgres => Cluster::shared().create_database(),
        };
        Database {
            backend: self,
            url,
            dir,
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

/// Asks again and again, through real requests, until it is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::yield_now();
    }
}
