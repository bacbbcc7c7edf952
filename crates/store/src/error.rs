//! What can go wrong in a store, said so that a caller can act on it; database errors are classified here and nowhere
//! else.

use diesel::result::{ConnectionError, DatabaseErrorKind, Error as Diesel};

use crate::Location;

/// What a store answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The account has no customer with this email.
    #[error("no such customer")]
    CustomerNotFound,
    /// No account has this name.
    #[error("no such account")]
    AccountNotFound,
    /// An account has this name already.
    #[error("the account exists already")]
    AccountExists,
    /// The account was disabled, or its password changed, since the caller's credentials were verified.
    #[error("the credentials are no longer valid")]
    StaleCredentials,
    /// The customer is not as the caller says that it must be; nothing was done.
    #[error("the customer was changed by someone else")]
    Conflict,
    /// The idempotency key came with other content before; nothing was done.
    #[error("the idempotency key was already used")]
    KeyReused,
    /// A cursor that this store did not hand out.
    #[error("the cursor is not of this store")]
    InvalidCursor,
    /// A page token that was not handed out for this query.
    #[error("the page token is not of this query")]
    InvalidPageToken,
    /// A queue is full; nothing was done.
    #[error("a queue is full")]
    Full,
    /// The deadline passed before the work began; nothing was done.
    #[error("the deadline passed")]
    Expired,
    /// The database is out of reach, out of space or stopping; nothing was done.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database went out of reach while a write was under way, and what became of that could not be found out before
    /// the deadline.
    #[error("it is not known whether a write was made: {0}")]
    Unknown(String),
    /// The schema of the database is not the one that this program needs.
    #[error("{0}")]
    Schema(String),
    /// The master keys cannot be had, or are not those of the store.
    #[error("{0}")]
    Keys(String),
    /// A copy of a store is not what its source holds, or cannot become it.
    #[error("{0}")]
    Differs(String),
    /// Another transaction stood in the way; the same again may succeed.
    #[error("the transaction met another one: {0}")]
    Collision(String),
    /// A defect, or a damaged database.
    #[error("the database refused: {0}")]
    Internal(String),
}

impl Error {
    /// Whether the connection that gave this error should be closed, and not be used again.
    pub(crate) fn breaks_connection(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_))
    }

    /// Whether PostgreSQL ended a connection that was in use, and may take another: it was told to, or the next statement of a
    /// transaction did not come in time.
    pub(crate) fn is_cut_off(&self) -> bool {
        matches!(self, Self::Unavailable(message) if message.contains(ENDED) || message.contains(HAS_ENDED))
    }

    /// The same, and where it happened, for whoever has two stores at hand.
    pub(crate) fn at(self, location: &Location) -> Self {
        let place = |message: String| format!("{location}: {message}");
        match self {
            Self::Unavailable(message) => Self::Unavailable(place(message)),
            Self::Unknown(message) => Self::Unknown(place(message)),
            Self::Schema(message) => Self::Schema(place(message)),
            Self::Collision(message) => Self::Collision(place(message)),
            Self::Internal(message) => Self::Internal(place(message)),
            other => other,
        }
    }
}

/// What PostgreSQL says last on a connection that it ends.
const ENDED: &str = "terminating connection";

/// What libpq says of each statement after that, as of a rollback, whose error diesel gives in place of the one before.
const HAS_ENDED: &str = "no connection to the server";

/// Parts of messages that tell an outage from a defect. diesel gives most of these no kind of their own.
const OUTAGES: [&str; 26] = [
    // SQLite, https://www.sqlite.org/rescode.html
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    // libpq
    "server closed the connection",
    "connection to server",
    "could not connect",
    "could not receive data",
    "could not send data",
    HAS_ENDED,
    "connection not open",
    "SSL SYSCALL error",
    // PostgreSQL's classes 53, 57 and 25006
    ENDED,
    "the database system is",
    "too many clients",
    "remaining connection slots",
    "No space left on device",
    "canceling statement due to",
    "read-only transaction",
    "recovery is in progress",
    "could not extend file",
    // What the system says of a file of PostgreSQL's: class 58.
    "Input/output error",
    "Disk quota exceeded",
    "Read-only file system",
];

/// Whether a transaction on SQLite that failed with this message may have left a whole commit in the WAL: it is not seen, but
/// would be found there if the process ended before anything else is written.
pub(crate) fn may_come_back(message: &str) -> bool {
    ["disk I/O error", "database or disk is full"]
        .iter()
        .any(|failure| message.contains(failure))
}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Self {
        // Only the primary message: the details of a database error quote the row.
        let message = match &error {
            Diesel::DatabaseError(_, information) => information.message().to_owned(),
            other => other.to_string(),
        };
        match error {
            Diesel::DatabaseError(DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::ReadOnlyTransaction, _)
            | Diesel::BrokenTransactionManager => Self::Unavailable(message),
            Diesel::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Self::Collision(message),
            Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Self::Collision(message),
            Diesel::DatabaseError(..) if message.contains("deadlock detected") => Self::Collision(message),
            Diesel::DatabaseError(..) if OUTAGES.iter().any(|outage| message.contains(outage)) => {
                Self::Unavailable(message)
            }
            Diesel::RollbackErrorOnCommit { commit_error, .. } => (*commit_error).into(),
            _ => Self::Internal(message),
        }
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Unavailable(one_line(&error.to_string()))
    }
}

/// The beginnings of what libpq says once it has understood the URL. What it says before may quote any part of it, the
/// password as well.
const UNDERSTOOD: [&str; 6] = [
    "connection to server",
    "could not match",
    "could not translate host name",
    "invalid target_session_attrs value",
    // Of a known mode, in a build without TLS.
    "sslmode value",
    "weak sslmode",
];

/// Why there is no connection to PostgreSQL.
pub(crate) fn of_libpq(error: ConnectionError) -> Error {
    let text = error.to_string();
    // A host with an @ is the end of a password that has one.
    if UNDERSTOOD.iter().any(|beginning| text.starts_with(beginning)) && !text.contains('@') {
        return error.into();
    }
    Error::Unavailable(
        "its URL cannot be understood (special characters of the user and the password are written as %XX)".to_owned(),
    )
}

/// A connection error of libpq has a line for each address that was tried.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(kind: DatabaseErrorKind, message: &str) -> Error {
        Diesel::DatabaseError(kind, Box::new(message.to_owned())).into()
    }

    #[test]
    fn outages_are_told_from_defects() {
        for message in OUTAGES {
            assert!(
                matches!(database(DatabaseErrorKind::Unknown, message), Error::Unavailable(_)),
                "{message}"
            );
        }
        let defect = database(DatabaseErrorKind::Unknown, "no such table: customers");
        assert!(matches!(defect, Error::Internal(_)));
    }

    #[test]
    fn what_another_transaction_caused_may_be_tried_again() {
        for (kind, message) in [
            (
                DatabaseErrorKind::SerializationFailure,
                "could not serialize access due to concurrent update",
            ),
            (
                DatabaseErrorKind::UniqueViolation,
                "duplicate key value violates unique constraint",
            ),
            (DatabaseErrorKind::Unknown, "deadlock detected"),
        ] {
            assert!(matches!(database(kind, message), Error::Collision(_)), "{message}");
        }
    }
}
