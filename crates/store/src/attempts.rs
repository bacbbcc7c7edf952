//! Attempts: how it is found out what became of a transaction when the connection to PostgreSQL was lost at its commit.
//!
//! Each transaction of a write adds a row under an id of its own. Whoever lost it adds the same row, on another connection:
//! that waits for a transaction that is still under way, and either the row is there, so that it was committed, or it is
//! added now, and the lost transaction can never commit.

use std::{
    ops::DerefMut,
    thread,
    time::{Duration, Instant},
};

use diesel::{
    Connection, ExpressionMethods, PgConnection, RunQueryDsl, SqliteConnection, connection::SimpleConnection,
};
use uuid::Uuid;

use crate::{
    Error, Result, Store,
    connection::{self, AnyConnection, Pooled},
    model,
    schema::attempts::dsl,
};

/// How long an attempt can be asked for: many times what any caller waits.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// How many old attempts are deleted in one transaction.
const BATCH: u32 = 10_000;

/// How long to wait before it is asked again what became of a transaction.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a transaction that met another one is made.
const RETRIES: usize = 5;

/// The id of a transaction. Later ones have larger ones.
#[derive(Clone, Debug)]
pub(crate) struct Attempt(pub(crate) Vec<u8>);

/// What became of a transaction.
pub(crate) enum Fate {
    /// It was committed, as the transaction with this number.
    Committed(i64),
    /// It was not, and never will be.
    Lost,
}

impl Attempt {
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7().as_bytes().to_vec())
    }

    /// Adds the row, as a part of the transaction.
    pub(crate) fn record(&self, connection: &mut PgConnection) -> Result<()> {
        diesel::insert_into(dsl::attempts)
            .values(dsl::id.eq(&self.0))
            .execute(connection)?;
        Ok(())
    }

    /// Finds out what became of the transaction.
    ///
    /// This always writes: a row that is there is written once more, as it is. So the answer comes after a commit, which waits
    /// for a synchronous standby where there is one. A server that crashed while it waited for its standby has recovered what
    /// the standby may not have; to say of that that it was committed, and then to lose the server, would lose it.
    pub(crate) fn fate(&self, connection: &mut PgConnection) -> Result<Fate> {
        let (xid, lost) = diesel::insert_into(dsl::attempts)
            .values((dsl::id.eq(&self.0), dsl::lost.eq(true)))
            .on_conflict(dsl::id)
            .do_update()
            .set(dsl::lost.eq(dsl::lost))
            .returning((dsl::xid, dsl::lost))
            .get_result(connection)?;
        // The row may be that of an earlier look, whose answer was lost as well.
        Ok(match lost {
            true => Fate::Lost,
            false => Fate::Committed(xid),
        })
    }
}

/// What became of a transaction on SQLite whose commit failed. It shows nothing of itself to anybody, and what it left at
/// the end of the WAL could come back only if the process ended before anything else is written there. So something is.
pub(crate) fn overwrite(connection: &mut SqliteConnection) -> Result<()> {
    // Writes the first page as it is, and syncs it.
    Ok(connection.batch_execute("BEGIN IMMEDIATE; PRAGMA user_version = 0; COMMIT")?)
}

/// The same on either database: PostgreSQL leaves nothing that could come back.
pub(crate) fn forget(connection: &mut AnyConnection) -> Result<()> {
    match connection {
        AnyConnection::Sqlite(connection) => overwrite(connection),
        AnyConnection::Postgres(_) => Ok(()),
    }
}

/// Does a piece of work in a transaction of its own. When the connection is lost at the commit, it is found out what became
/// of it, on connections that `connect` gives, and what was not done is done once more.
///
/// # Errors
/// [`Error::Unknown`] when that could not be found out before the deadline. All other errors mean that nothing was done.
pub(crate) fn transact<T, C: DerefMut<Target = Pooled>>(
    connect: impl Fn() -> Result<C>,
    deadline: Instant,
    work: impl Fn(&mut AnyConnection) -> Result<T>,
) -> Result<T> {
    let (began, mut retried) = (Instant::now(), 0);
    loop {
        let attempt = Attempt::new();
        let mut pooled = connect()?;
        let mut made = None;
        let result = pooled.run(|connection| {
            let result = connection.transaction(|connection| {
                connection::take_write_lock(connection)?;
                made = Some(work(connection)?);
                match connection {
                    AnyConnection::Sqlite(_) => Ok(()),
                    AnyConnection::Postgres(connection) => attempt.record(connection),
                }
            });
            match result {
                Err(Error::Unavailable(cause)) if made.is_some() => Err(Error::Unknown(cause)),
                result => result,
            }
        });
        let is_old = pooled.made < began;
        drop(pooled);
        let error = match (result, made) {
            (Ok(()), Some(made)) => return Ok(made),
            (Err(Error::Unknown(cause)), Some(made)) => match fate(&connect, &attempt, deadline) {
                Ok(Fate::Committed(_)) => return Ok(made),
                Ok(Fate::Lost) => Error::Unavailable(cause),
                Err(_) => return Err(Error::Unknown(cause)),
            },
            (Err(error), _) => error,
            (Ok(()), None) => Error::Internal("a transaction did nothing".to_owned()),
        };
        retried += 1;
        let again = match error {
            Error::Collision(_) => retried < RETRIES,
            // After a restart of the database all that are kept are dead.
            Error::Unavailable(_) => is_old || retried == 1,
            _ => false,
        };
        if !again || model::expired(deadline) {
            return Err(error);
        }
    }
}

/// Asks what became of a transaction until there is an answer.
fn fate<C: DerefMut<Target = Pooled>>(
    connect: impl Fn() -> Result<C>,
    attempt: &Attempt,
    deadline: Instant,
) -> Result<Fate> {
    loop {
        let result = connect().and_then(|mut pooled| {
            pooled.run(|connection| match connection {
                AnyConnection::Sqlite(connection) => overwrite(connection).map(|()| Fate::Lost),
                AnyConnection::Postgres(connection) => attempt.fate(connection),
            })
        });
        if result.is_ok() || model::expired(deadline) {
            return result;
        }
        thread::sleep(LOOK_EVERY);
    }
}

impl Store {
    /// Deletes attempts that nobody asks for any more, at most ten thousand. Gives how many there were.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn expire_attempts(&self, deadline: Instant) -> Result<u64> {
        self.pool
            .write(deadline, |connection| match connection {
                AnyConnection::Sqlite(_) => Ok(0),
                // By the clock that made them: those of gateways may differ.
                AnyConnection::Postgres(connection) => Ok(diesel::sql_query(format!(
                    "DELETE FROM attempts WHERE ctid = ANY (ARRAY(
                         SELECT ctid FROM attempts WHERE create_time < now() - interval '{} seconds' LIMIT {BATCH}))",
                    KEPT.as_secs()
                ))
                .execute(connection)? as u64),
            })
            .await
    }
}
