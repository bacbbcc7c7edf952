//! Writes batches on SQLite: one connection, one transaction a batch, and checkpoints on a thread of their own.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use diesel::{
    OptionalExtension, QueryResult, QueryableByName, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    query_builder::{AstPass, QueryFragment},
    sql_types::{BigInt, Integer, Nullable, SmallInt, Text},
    sqlite::Sqlite,
};

use super::{Apply, Kept, Work, Written};
use crate::{
    Change, Error, Result, attempts,
    connection::Connector,
    model,
    puts::{self, Held, Outcome, Task},
    sealing::Sealing,
    statements::{Look, Looked, Row, cached},
};

/// After how many changes the WAL is copied into the database: the more, the more of them have changed the same page, which is
/// copied once. So many take half of what the WAL may have.
const CHECKPOINT_EVERY: usize = 16_000;

/// How many bytes of images count as a change: about what a change takes of the WAL.
const CHANGE_BYTES: usize = 2 * 1_024;

/// How many pages the WAL may have before writing pauses for the rest of a checkpoint: 64 MiB of pages of 1 KiB.
/// Without it a WAL that is written all the time would never start over.
const WAL_CAP: i32 = 64 * 1_024;

/// How many times the WAL is copied while changes are made, before a pause for the rest. Each time has what was written during the one
/// before, so that less and less is left for the pause.
const COPIES: usize = 3;

/// How many milliseconds writing pauses at most for a checkpoint. One that meets a long read cannot end before it does,
/// and the next one tries again.
const PAUSE: u32 = 100;

/// The connection that writes.
pub(super) struct Applier {
    connector: Connector,
    path: PathBuf,
    connection: Kept<SqliteConnection>,
    sealing: Sealing,
    /// Held while a batch is written; the checkpointer takes it to make the writer pause.
    gate: Arc<Mutex<()>>,
    /// None once the checkpointer is to end.
    checkpoint: Option<Sender<()>>,
    checkpointer: Option<JoinHandle<()>>,
    changes: usize,
}

impl Applier {
    pub(super) fn new(connector: &Connector, path: &Path, sealing: &Sealing) -> Result<Self> {
        let gate = Arc::new(Mutex::new(()));
        let (checkpoint, asked) = bounded(1);
        let checkpointer = Checkpointer {
            connector: connector.clone(),
            path: path.to_owned(),
            gate: Arc::clone(&gate),
        };
        let checkpointer = thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || checkpointer.run(&asked))
            .map_err(|error| Error::Internal(format!("no thread for the store: {error}")))?;
        Ok(Self {
            connector: connector.clone(),
            path: path.to_owned(),
            connection: Kept(None),
            sealing: sealing.clone(),
            gate,
            checkpoint: Some(checkpoint),
            checkpointer: Some(checkpointer),
            changes: 0,
        })
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut SqliteConnection) -> Result<T>) -> Result<T> {
        let open = || {
            let mut connection = self.connector.connect_sqlite(&self.path)?;
            // What is sealed and no longer needed may lie in free pages for a while: FAST does not write them for that.
            let secure = match &self.sealing {
                Sealing::Clear => "ON",
                Sealing::Sealed(_) => "FAST",
            };
            connection.batch_execute(&format!(
                "PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = {secure}"
            ))?;
            Ok(connection)
        };
        self.connection.run(open, work)
    }
}

impl Apply for Applier {
    const MIXES: bool = true;

    fn apply(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>> {
        let gate = Arc::clone(&self.gate);
        let sealing = self.sealing.clone();
        let outcomes = {
            let _open = lock(&gate);
            self.run(|connection| {
                let mut is_made = false;
                let result = connection.immediate_transaction(|connection| {
                    let now = model::now();
                    let outcomes = batch
                        .iter()
                        .map(|work| match work.plain() {
                            Some(change) => settle(set_status(connection, change, &work.email_key, now)),
                            None => one(connection, &sealing, work),
                        })
                        .collect::<Result<Vec<_>>>()?;
                    is_made = true;
                    Ok(outcomes)
                });
                result.map_err(|error| match error {
                    // It failed at the commit.
                    Error::Unavailable(cause) if is_made => Error::Unknown(cause),
                    error => error,
                })
            })?
        };
        self.changes += batch.iter().map(|work| weight(work)).sum::<usize>();
        if self.changes >= CHECKPOINT_EVERY {
            self.changes = 0;
            // One that is under way or asked for already is enough.
            let _ = self.checkpoint.as_ref().map(|checkpoint| checkpoint.try_send(()));
        }
        Ok(outcomes)
    }

    fn resolve(&mut self, _batch: &[&Work]) -> Result<Option<Vec<Outcome>>> {
        self.probe().map(|()| None)
    }

    fn probe(&mut self) -> Result<()> {
        self.run(attempts::overwrite)
    }
}

/// The checkpointer's connection is closed before this one, which then leaves no WAL behind.
impl Drop for Applier {
    fn drop(&mut self) {
        self.checkpoint = None;
        if let Some(checkpointer) = self.checkpointer.take() {
            let _ = checkpointer.join();
        }
    }
}

/// For how many changes a piece of work counts.
fn weight(work: &Work) -> usize {
    match &work.task {
        Task::SetStatus(_) => 1,
        Task::Put(put) => 1 + put.new.documents.bytes() / CHANGE_BYTES,
    }
}

/// Tells the outcome of one change from a failure of the transaction that it is part of.
fn settle(result: Result<Row>) -> Result<Outcome> {
    match result {
        Err(error @ (Error::CustomerNotFound | Error::StaleCredentials | Error::Conflict)) => {
            Ok(Outcome::Settled(Err(error)))
        }
        Err(error) => Err(error),
        Ok(row) => Ok(Outcome::Settled(Ok(Written { row, created: false }))),
    }
}

/// Makes a change that is more than one of status.
fn one(connection: &mut SqliteConnection, sealing: &Sealing, work: &Work) -> Result<Outcome> {
    let outcome = puts::put_all(connection, sealing, &[work.wanted()], Held::Wait)?.pop();
    outcome.ok_or_else(|| Error::Internal("a customer had no outcome".to_owned()))
}

/// Sets a status. The row comes back as it is now.
fn set_status(connection: &mut SqliteConnection, change: &Change, email_key: &str, now: i64) -> Result<Row> {
    let look = Look {
        account: change.principal.account,
        email_key,
    };
    let looked: Option<Looked> = look.get_result(connection).optional()?;
    let before = looked
        .ok_or(Error::StaleCredentials)?
        .for_principal(&change.principal)?;
    if !change.condition.holds(&before) {
        return Err(Error::Conflict);
    }
    if before.status == change.status as i16 {
        return Ok(before);
    }
    let from = before.status;
    let after = before.changed(change.status, now);
    SetStatus { row: &after }.execute(connection)?;
    Record {
        change,
        face: change.origin.face as i16,
        from,
        row: &after,
    }
    .execute(connection)?;
    Ok(after)
}

struct SetStatus<'a> {
    row: &'a Row,
}

impl QueryFragment<Sqlite> for SetStatus<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE customers SET status = ");
        out.push_bind_param::<SmallInt, _>(&self.row.status)?;
        out.push_sql(", status_version = ");
        out.push_bind_param::<BigInt, _>(&self.row.status_version)?;
        out.push_sql(", revision = ");
        out.push_bind_param::<BigInt, _>(&self.row.revision)?;
        out.push_sql(", update_time = ");
        out.push_bind_param::<BigInt, _>(&self.row.update_time)?;
        out.push_sql(" WHERE id = ");
        out.push_bind_param::<BigInt, _>(&self.row.id)
    }
}

cached!(SetStatus<'_>, SetStatus<'static>);

struct Record<'a> {
    change: &'a Change,
    face: i16,
    from: i16,
    row: &'a Row,
}

impl QueryFragment<Sqlite> for Record<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face, \
             request_id, change_time, reason, epoch) VALUES (",
        );
        out.push_bind_param::<BigInt, _>(&self.change.principal.account)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.row.id)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.row.status_version)?;
        out.push_sql(", ");
        out.push_bind_param::<SmallInt, _>(&self.from)?;
        out.push_sql(", ");
        out.push_bind_param::<SmallInt, _>(&self.row.status)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.change.origin.actor)?;
        out.push_sql(", ");
        out.push_bind_param::<SmallInt, _>(&self.face)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.change.origin.request_id)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.row.update_time)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.change.reason)?;
        out.push_sql(", (SELECT epoch FROM feed))");
        Ok(())
    }
}

cached!(Record<'_>, Record<'static>);

/// Copies the WAL into the database, so that the writer does not have to.
struct Checkpointer {
    connector: Connector,
    path: PathBuf,
    gate: Arc<Mutex<()>>,
}

/// What SQLite says of a checkpoint: <https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>.
#[derive(QueryableByName)]
struct Checkpoint {
    /// Pages in the WAL; -1 when the checkpoint could not run.
    #[diesel(sql_type = Integer)]
    log: i32,
}

impl Checkpointer {
    fn run(&self, asked: &Receiver<()>) {
        let mut connection = None;
        for () in asked {
            if let Err(error) = self.checkpoint(&mut connection) {
                // The WAL only grows meanwhile: the next one does what this one did not.
                tracing::warn!(%error, "a checkpoint failed");
                connection = None;
            }
        }
    }

    fn checkpoint(&self, connection: &mut Option<SqliteConnection>) -> Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            none => {
                let mut connection = self.connector.connect_sqlite(&self.path)?;
                connection.batch_execute(&format!("PRAGMA busy_timeout = {PAUSE}"))?;
                none.insert(connection)
            }
        };
        let mut copy = || diesel::sql_query("PRAGMA wal_checkpoint(PASSIVE)").get_result::<Checkpoint>(connection);
        if copy()?.log > WAL_CAP {
            for _ in 1..COPIES {
                copy()?;
            }
            let _closed = lock(&self.gate);
            let _: Checkpoint = diesel::sql_query("PRAGMA wal_checkpoint(RESTART)").get_result(connection)?;
        }
        Ok(())
    }
}

/// The gate guards no data, so one that a panic left behind is as good as any.
fn lock(gate: &Mutex<()>) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}
