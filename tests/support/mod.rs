//! What the tests stand on: databases of their own, the program as a process, and raw requests.

mod browser;
mod cluster;
pub mod collector;
mod faults;
pub mod gateway;
mod golden;
mod http;
pub mod memory;
mod proxy;
mod random;
mod seed;
mod session;
pub mod tls;

pub use browser::Browser;
pub use cluster::{Cluster, Durability, Fall};
pub use faults::Ground;
pub use gateway::{Gateway, Output, dcams, program, run};
pub use golden::golden;
pub use http::{Connection, Reply, post};
pub use proxy::{Loss, Proxy};
pub use random::Random;
pub use session::Session;

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
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
                    encrypted: false,
                }
            }
            Self::Postgres => Database::on(Cluster::shared()),
        }
    }

    /// Bytes, as SQL writes them.
    pub fn bytes(self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sqlite => format!("X'{hex}'"),
            Self::Postgres => format!("'\\x{hex}'::bytea"),
        }
    }
}

/// Asks again and again until there is an answer, for what the program does in its own time. A test fails rather than
/// hangs.
#[track_caller]
pub fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match answer() {
            Some(answer) => return answer,
            None => assert!(Instant::now() < deadline, "waited in vain: {what}"),
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
    /// Whether the program is given a key.
    encrypted: bool,
}

impl Database {
    /// The name of a SQLite database in the test's folder.
    pub const FILE: &str = "dcams.db";

    /// The name of the file of keys in the test's folder.
    pub const KEYS: &str = "keys";

    /// A new, empty database of a server of the test's own.
    pub fn on(cluster: &Cluster) -> Self {
        Self {
            backend: Backend::Postgres,
            url: cluster.create_database(),
            dir: tempfile::tempdir().unwrap(),
            encrypted: false,
        }
    }

    /// One that is there, by whatever URL leads to it.
    pub fn at(url: String) -> Self {
        Self {
            backend: Backend::Postgres,
            url,
            dir: tempfile::tempdir().unwrap(),
            encrypted: false,
        }
    }

    /// The same, to be used with a key from now on.
    pub fn encrypted(mut self) -> Self {
        self.file(Self::KEYS, format!("1:{}\n", BASE64_STANDARD.encode([7; 32])));
        self.encrypted = true;
        self
    }

    /// What tells the program which store it is to use.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--store".to_owned(), self.url.clone()];
        if self.encrypted {
            arguments.extend(["--key-file".to_owned(), self.path(Self::KEYS).display().to_string()]);
        }
        arguments
    }

    /// Opens the database past the program.
    pub fn session(&self) -> Session {
        Session::open(self)
    }

    /// All that is stored, as whoever steals it has it: the files of SQLite, or a dump.
    pub fn stolen(&self) -> Vec<u8> {
        match self.backend {
            Backend::Sqlite => {
                let mut all = Vec::new();
                for entry in std::fs::read_dir(self.dir.path()).unwrap() {
                    let path = entry.unwrap().path();
                    if path.file_name().unwrap().to_string_lossy().starts_with(Self::FILE) {
                        all.extend(std::fs::read(path).unwrap());
                    }
                }
                all
            }
            Backend::Postgres => Cluster::shared().dump(&self.url),
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

/// Asks again and again until it is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    until(what, || is_so().then_some(()));
}
