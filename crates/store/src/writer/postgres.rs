//! Writes batches on PostgreSQL: one statement that is a transaction of its own, so a batch costs one round trip and one
//! commit.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, RunQueryDsl,
    connection::SimpleConnection,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment},
    sql_types::{Array, BigInt, Nullable, SmallInt, Text},
};

use super::{Apply, Kept, Task, Work, Written};
use crate::{
    Authority, Change, Error, Result,
    connection::Connector,
    model,
    puts::{self, Held, Outcome, Wanted},
    sealing::Sealing,
    statements::{CustomerColumns, Look, Looked, Row, cached},
};

/// A connection that writes.
pub(super) struct Applier {
    connector: Connector,
    url: String,
    connection: Kept<PgConnection>,
    sealing: Sealing,
}

impl Applier {
    pub(super) fn new(connector: &Connector, url: &str, sealing: &Sealing) -> Self {
        Self {
            connector: connector.clone(),
            url: url.to_owned(),
            connection: Kept(None),
            sealing: sealing.clone(),
        }
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        let open = || {
            let mut connection = self.connector.connect_postgres(&self.url)?;
            // The plan is kept for the life of the connection, and may be made while the tables are still small.
            connection
                .batch_execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")?;
            Ok(connection)
        };
        self.connection.run(open, work)
    }
}

impl Apply for Applier {
    /// A statement changes a row once, and in one way.
    const MIXES: bool = false;

    fn apply(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>> {
        let mut changes = Vec::new();
        let mut puts = Vec::new();
        for work in batch {
            let email_key = &*work.email_key;
            match &work.task {
                Task::SetStatus(change) => changes.push((change, email_key)),
                Task::Put(put) => puts.push(Wanted { put, email_key }),
            }
        }
        if puts.is_empty() {
            self.set_statuses(&changes)
        } else {
            self.put(&puts)
        }
    }

    fn probe(&mut self) -> Result<()> {
        self.run(|connection| Ok(connection.batch_execute("SELECT FROM accounts LIMIT 1 FOR UPDATE SKIP LOCKED")?))
    }
}

impl Applier {
    fn set_statuses(&mut self, changes: &[(&Change, &str)]) -> Result<Vec<Outcome>> {
        let now = model::now();
        let batch = SetStatuses::new(changes, now);
        self.run(|connection| {
            let rows: Vec<(i64, Row)> = batch.load(connection)?;
            let mut before: Vec<Option<Row>> = vec![None; changes.len()];
            for (item, row) in rows {
                // Numbered from 1, by WITH ORDINALITY.
                let place = usize::try_from(item - 1).ok().and_then(|place| before.get_mut(place));
                *place.ok_or_else(|| Error::Internal(format!("no change has the number {item}")))? = Some(row);
            }
            let settled = |row| Outcome::Settled(Ok(Written { row, created: false }));
            let outcome = |((change, email_key), before): (&(&Change, &str), Option<Row>)| match before {
                Some(row) if row.status == change.status as i16 => settled(row),
                Some(row) => settled(row.changed(change.status, now)),
                // The batch is committed: what goes wrong here is this change's alone.
                None => why_not(connection, change, email_key),
            };
            Ok(changes.iter().zip(before).map(outcome).collect())
        })
    }

    fn put(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Outcome>> {
        let sealing = self.sealing.clone();
        self.run(|connection| {
            connection.transaction(|connection| puts::put_all(connection, &sealing, wanted, Held::Skip))
        })
    }
}

/// Sets the status of many customers, each at most once, and records what changed.
///
/// `permitted` stands apart so that `locked` finds each row by the whole of its key: in one join, a planner without
/// statistics reads all customers of the account instead. `locked` sees each row as its last committed change left it, and
/// passes over those that another transaction holds: one of them must not hold up a whole batch. What comes back are the
/// rows as they were before; a change without one found no account, no right, no customer, or a customer that is held.
struct SetStatuses<'a> {
    now: i64,
    accounts: Vec<i64>,
    /// None for an operator, who needs no credentials.
    versions: Vec<Option<i64>>,
    email_keys: Vec<&'a str>,
    statuses: Vec<i16>,
    actors: Vec<&'a str>,
    faces: Vec<i16>,
    request_ids: Vec<&'a str>,
}

impl<'a> SetStatuses<'a> {
    fn new(changes: &[(&'a Change, &'a str)], now: i64) -> Self {
        let email_keys = changes.iter().map(|(_, email_key)| *email_key).collect();
        let changes = || changes.iter().map(|(change, _)| *change);
        Self {
            now,
            email_keys,
            accounts: changes().map(|change| change.principal.account).collect(),
            versions: changes().map(version).collect(),
            statuses: changes().map(|change| change.status as i16).collect(),
            actors: changes().map(|change| change.origin.actor.as_str()).collect(),
            faces: changes().map(|change| change.origin.face as i16).collect(),
            request_ids: changes().map(|change| change.origin.request_id.as_str()).collect(),
        }
    }
}

fn version(change: &Change) -> Option<i64> {
    match change.principal.authority {
        Authority::Credentials { version } => Some(version),
        Authority::Operator => None,
    }
}

impl QueryFragment<Pg> for SetStatuses<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH input AS (SELECT * FROM unnest(");
        out.push_bind_param::<Array<BigInt>, _>(&self.accounts)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<BigInt>>, _>(&self.versions)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.email_keys)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SmallInt>, _>(&self.statuses)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.actors)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SmallInt>, _>(&self.faces)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Text>, _>(&self.request_ids)?;
        out.push_sql(
            ") WITH ORDINALITY AS t (account_id, version, email_key, to_status, actor, face, request_id, item)
            ), permitted AS MATERIALIZED (
                SELECT i.* FROM input i JOIN accounts a ON a.id = i.account_id
                WHERE i.version IS NULL OR (a.enabled AND a.credential_version = i.version)
            ), locked AS MATERIALIZED (
                SELECT p.item, p.to_status, p.actor, p.face, p.request_id, c.account_id, c.id, c.public_id,
                       c.reference, c.profile, c.data_key, c.status, c.status_version, c.revision, c.create_time, c.update_time
                FROM permitted p JOIN customers c ON c.account_id = p.account_id AND c.email_key = p.email_key
                FOR UPDATE OF c SKIP LOCKED
            ), changed AS (
                UPDATE customers c
                SET status = l.to_status, status_version = l.status_version + 1, revision = l.revision + 1,
                    update_time = greatest(l.update_time, ",
        );
        out.push_bind_param::<BigInt, _>(&self.now)?;
        out.push_sql(
            ")
                FROM locked l WHERE c.id = l.id AND l.status <> l.to_status
            ), recorded AS (
                INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face,
                                            request_id, change_time)
                SELECT account_id, id, status_version + 1, status, to_status, actor, face, request_id,
                       greatest(update_time, ",
        );
        out.push_bind_param::<BigInt, _>(&self.now)?;
        out.push_sql(
            ")
                FROM locked WHERE status <> to_status ORDER BY item
            )
            SELECT item, id, public_id, reference, profile, data_key, status, status_version, revision, create_time,
                   update_time
            FROM locked",
        );
        Ok(())
    }
}

impl Query for SetStatuses<'_> {
    type SqlType = (BigInt, CustomerColumns);
}

cached!(SetStatuses<'_>, SetStatuses<'static>);

/// Why a change found no customer that it may change: it may not, there is none, or another transaction holds it.
fn why_not(connection: &mut PgConnection, change: &Change, email_key: &str) -> Outcome {
    let look = Look {
        account: change.principal.account,
        email_key,
    };
    let looked: Result<Option<Looked>> = look.get_result(connection).optional().map_err(Error::from);
    let row = looked
        .and_then(|looked| looked.ok_or(Error::StaleCredentials))
        .and_then(|looked| looked.for_principal(&change.principal));
    match row {
        Ok(_) => Outcome::Blocked,
        Err(error) => Outcome::Settled(Err(error)),
    }
}
