//! Keeps accounts, customers and the history of their statuses, on SQLite or PostgreSQL.
//!
//! The only crate that knows diesel. What differs between the two databases is in `connection`, `migrations` and the two
//! files of `writer/`; `import` differs by a lock, and `copy` by how ids are kept.
//!
//! | file | what it is for |
//! |---|---|
//! | `connection` | one type for a connection to either database |
//! | `pool` | threads that run queries for async callers |
//! | `patience` | how long what is asked of either may wait |
//! | `writer` | group commit: many changes, one transaction |
//! | `puts` | what it means to register or change a customer |
//! | `retries` | idempotency keys: what came twice is made once |
//! | `attempts` | what became of a transaction whose connection was lost |
//! | `feed` | the changes of an account in an order in which nothing is missed |
//! | `accounts`, `customers`, `documents`, `erasures`, `history`, `import`, `export` | the operations of a [`Store`], one resource a file |
//! | `tokens` | API tokens: what acts for an account without its password |
//! | `webhooks` | where changes are sent to, how far that is, and what could not be delivered |
//! | `audit` | the history sealed in blocks, and checked against them |
//! | `copy` | from one store to another, whatever databases they are on |
//! | `sealing`, `keys`, `encryption` | encryption at rest: of a value, the master keys, and of a whole store |
//! | `email`, `fields`, `model` | the types they speak in, and what these may hold |

mod accounts;
mod attempts;
mod audit;
mod connection;
mod copy;
mod customers;
mod documents;
mod email;
mod encryption;
mod erasures;
mod error;
mod export;
mod feed;
mod fields;
mod hash;
mod history;
mod import;
mod keys;
mod migrations;
mod model;
mod patience;
mod pool;
mod puts;
mod retries;
mod schema;
mod sealing;
mod statements;
mod tokens;
mod trace;
mod webhooks;
mod writer;

use std::{
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

pub use accounts::Account;
pub use audit::{AuditProgress, Audited, Fault, Head, InvalidHead, Sealed, Tampering, verify};
pub use connection::{Location, LocationError};
pub use copy::{CopiedTable, CopyProgress, CopyStage, copy};
pub use email::{Email, EmailKey, InvalidEmail};
pub use encryption::{Encryption, Progress};
pub use erasures::Erasure;
pub use error::{Error, Result};
pub use feed::FeedItem;
pub use fields::{Field, InvalidField, check, check_documents, extension};
pub use history::{HistoryPage, HistoryQuery, Whose};
pub use import::Imported;
pub use keys::Keys;
pub use migrations::Migrate;
pub use model::{
    AccountName, Authority, Change, Condition, Customer, Documents, Erase, Face, IdempotencyKey, InvalidAccountName,
    InvalidIdempotencyKey, InvalidStatus, NewCustomer, Origin, Place, Principal, Profile, Put, Registered, Status,
    StatusChange,
};
pub use tokens::{InvalidScope, NewToken, Scope, Scopes, StoredToken, Token, TokenHash};
pub use webhooks::{
    Delivery, DeliveryOutcome, Health, LONGEST_WAIT, NewWebhook, ParkedDelivery, Webhook, WebhookSecret, WebhookTarget,
    WebhookWork,
};

use pool::Pool;
use sealing::Sealing;
use writer::Writer;

/// Limits of a store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads, each with a connection, that answer reads and administration.
    pub readers: NonZeroUsize,
    /// Reads of one customer that may run at once on the threads that ask, in place of these, where the store is a SQLite
    /// file. While the file's disk hangs so many of those threads may hang too.
    pub inline_reads: usize,
    /// Reads that may wait; one more is [`Error::Full`].
    pub read_queue: usize,
    /// Threads, each with a connection, that write. None means one on SQLite, which lets one write at a time and is
    /// fastest so, and two on PostgreSQL.
    pub writers: Option<NonZeroUsize>,
    /// Changes that may wait for a writer; one more is [`Error::Full`].
    pub write_queue: usize,
    /// How long what is taken from a queue may have waited: while it has for longer, one more is [`Error::Full`].
    pub queue_wait: Duration,
    /// The most changes in one transaction.
    pub batch: NonZeroUsize,
    /// How long to wait for a connection.
    pub checkout: Duration,
    /// The longest that a statement may take on PostgreSQL, or wait for another process's lock.
    pub statement: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const fn some(n: usize) -> NonZeroUsize {
            match NonZeroUsize::new(n) {
                Some(n) => n,
                None => NonZeroUsize::MIN,
            }
        }
        Self {
            readers: some(4),
            inline_reads: 1,
            read_queue: 1_024,
            writers: None,
            write_queue: 1_024,
            queue_wait: Duration::from_millis(500),
            batch: some(256),
            checkout: Duration::from_millis(500),
            statement: Duration::from_secs(10),
        }
    }
}

/// A cheap handle on an open store. The last one closes it, and waits until that is done.
#[derive(Clone)]
pub struct Store {
    pool: Arc<Pool>,
    writer: Arc<Writer>,
    sealing: Sealing,
    /// What the store is called in cursors, once that was asked for.
    name: Arc<OnceLock<String>>,
}

impl Store {
    /// Opens the store at `location` and brings its schema up to date as `migrate` says. A SQLite file that is not
    /// there is made, if the schema may be. With `keys`, a store that has no customers yet becomes an encrypted one. Blocks,
    /// so that a store that cannot be had is known at start.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be reached, [`Error::Schema`] when its schema is not the one
    /// that this program needs, [`Error::Keys`] when it is encrypted and the keys are not its own, or when it is not and
    /// holds customers in clear text although there are keys.
    pub fn open(location: &Location, migrate: Migrate, settings: &Settings, keys: Option<&Keys>) -> Result<Self> {
        let connector = connection::Connector::new(location.clone(), settings);
        migrations::run(&connector, migrate)?;
        let connection = &mut connector.connect()?;
        let sealing = encryption::begin(connection, keys)?;
        feed::settle_epoch(connection)?;
        Ok(Self {
            pool: Arc::new(Pool::start(connector.clone(), settings)?),
            writer: Arc::new(Writer::start(&connector, &sealing, settings)?),
            sealing,
            name: Arc::default(),
        })
    }

    /// Brings the schema of the store at `location` up to date, or looks whether it is, as `migrate` says, and opens nothing:
    /// an encrypted store needs no keys for that. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Schema`], as for [`Store::open`].
    pub fn migrate(location: &Location, migrate: Migrate, settings: &Settings) -> Result<()> {
        migrations::run(&connection::Connector::new(location.clone(), settings), migrate)
    }

    /// Whether personal data is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.sealing, Sealing::Sealed(_))
    }

    /// Whether one more change would find a place in a queue now: when not, it would be [`Error::Full`].
    pub fn takes_changes(&self) -> bool {
        self.writer.takes()
    }

    /// Asks the database for a sign of life, and whether the last write could be made.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a request would not be served now.
    pub async fn ping(&self, deadline: Instant) -> Result<()> {
        if !self.writer.healthy() {
            return Err(Error::Unavailable("the last write failed".to_owned()));
        }
        self.pool.probe(deadline, connection::ping).await
    }

    /// Sets the gauges of the connections, which nothing sets by itself: to be called before the metrics are shown.
    pub fn observe(&self) {
        self.pool.observe();
    }
}
