//! What goes wrong under a gateway: a database that is gone, and comes back.

use std::path::{Path, PathBuf};

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
        let database = Database {
            backend,
            url,
            dir,
            encrypted: false,
        };
        (Self { cluster, volume }, database)
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
