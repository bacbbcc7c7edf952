//! What goes wrong around a gateway: a database that is gone, a transaction of somebody else's in the way.

use std::path::{Path, PathBuf};

use diesel::{Connection, PgConnection, SqliteConnection, connection::SimpleConnection};

use super::{Backend, Cluster, Database, Durability, cluster::Outage};

/// What holds a database up: taken away from under a gateway, and brought back.
pub struct Ground {
    /// The server, of which the database is the only one; none for a file.
    cluster: Option<Cluster>,
    /// The folder of the file.
    volume: PathBuf,
}

impl Ground {
    /// A new, empty database with a ground of its own.
    pub fn new(backend: Backend) -> (Self, Database) {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let (cluster, url) = match backend {
            Backend::Sqlite => (None, format!("sqlite://{}", volume.join("dcams.db").display())),
            Backend::Postgres => {
                let cluster = Cluster::start(Durability::None);
                let url = cluster.create_database();
                (Some(cluster), url)
            }
        };
        (Self { cluster, volume }, Database { backend, url, dir })
    }

    /// Stops the server, or moves the file's folder away. A file that is open can still be read, but a gateway that has
    /// not written yet cannot begin to.
    pub fn take_away(&self) -> Away<'_> {
        match &self.cluster {
            Some(cluster) => Away::Server(cluster.stop()),
            None => {
                let there = self.volume.with_file_name("away");
                std::fs::rename(&self.volume, &there).unwrap();
                Away::Folder {
                    here: &self.volume,
                    there,
                }
            }
        }
    }
}

/// A ground that is not there.
pub enum Away<'a> {
    Server(Outage<'a>),
    Folder { here: &'a Path, there: PathBuf },
}

impl Away<'_> {
    pub fn bring_back(self) {
        match self {
            Self::Server(outage) => outage.end(),
            Self::Folder { here, there } => std::fs::rename(there, here).unwrap(),
        }
    }
}

/// Somebody else who is connected to the database of a gateway.
pub enum Neighbour {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Neighbour {
    pub fn of(database: &Database) -> Self {
        match database.backend {
            Backend::Sqlite => {
                let path = database.url.strip_prefix("sqlite://").unwrap();
                let mut connection = SqliteConnection::establish(path).unwrap();
                // The gateway may be writing just now.
                connection.batch_execute("PRAGMA busy_timeout = 30000").unwrap();
                Self::Sqlite(connection)
            }
            Backend::Postgres => Self::Postgres(PgConnection::establish(&database.url).unwrap()),
        }
    }

    pub fn execute(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.batch_execute(sql).unwrap(),
            Self::Postgres(connection) => connection.batch_execute(sql).unwrap(),
        }
    }

    /// Makes every write wait, and lets reads pass, for as long as this is kept.
    pub fn holding_writes(database: &Database) -> Self {
        let mut neighbour = Self::of(database);
        neighbour.execute(match database.backend {
            Backend::Sqlite => "BEGIN IMMEDIATE",
            Backend::Postgres => "BEGIN; LOCK TABLE customers IN EXCLUSIVE MODE",
        });
        neighbour
    }
}
