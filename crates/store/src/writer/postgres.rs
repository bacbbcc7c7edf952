//! Writes batches on PostgreSQL: one statement that is a transaction of its own, so a batch costs one round trip and one
//! commit.

use std::time::{Duration, Instant};

use diesel::{
    Connection, ExpressionMethods, OptionalExtension, PgConnection, QueryDsl, QueryResult, RunQueryDsl,
    connection::SimpleConnection,
    dsl::sql,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment},
    sql_types::{Array, BigInt, Binary, Bool, Nullable, SmallInt, Text},
};

use super::{Apply, Kept, Work, Written};
use crate::{
    Authority, Change, Error, Result,
    attempts::{Attempt, Fate},
    connection::Connector,
    feed, model,
    puts::{self, Held, Outcome, Wanted},
    schema::status_changes,
    sealing::Sealing,
    statements::{CustomerColumns, Look, Looked, Row, cached},
};

/// How long a connection may be idle without being asked for a sign of life before it is used.
const IDLE: Duration = Duration::from_millis(50);

/// How long a transaction may wait for its next statement. When the network has parted them, the server holds the locks of a
/// transaction until then, and the next connection waits for those.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection that writes.
pub(super) struct Applier {
    connector: Connector,
    url: String,
    connection: Kept<PgConnection>,
    sealing: Sealing,
    /// The last one, until its outcome is known or nobody waits for that any more. Then no connection is used before this
    /// is settled: it may still be on its way to the server, and must not be made after what comes later.
    lost: Option<Lost>,
    /// When the connection was last used.
    used: Instant,
}

/// A transaction of which it is not known whether it was committed.
struct Lost {
    attempt: Attempt,
    /// What it comes to if it was; none where that has to be read.
    outcomes: Option<Vec<Outcome>>,
}

impl Applier {
    pub(super) fn new(connector: &Connector, url: &str, sealing: &Sealing) -> Self {
        Self {
            connector: connector.clone(),
            url: url.to_owned(),
            connection: Kept(None),
            sealing: sealing.clone(),
            lost: None,
            used: Instant::now(),
        }
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        let given_up = self.lost.take();
        if given_up.is_some() {
            self.connection = Kept(None);
        }
        let mut is_settled = false;
        let open = || {
            let mut connection = self.connector.connect_postgres(&self.url)?;
            if let Some(lost) = &given_up {
                lost.attempt.fate(&mut connection)?;
            }
            is_settled = true;
            // It may be another server than the last one.
            feed::settle_epoch_on(&mut connection)?;
            // The plan is kept for the life of the connection, and may be made while the tables are still small.
            connection.batch_execute(&format!(
                "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
                 SET idle_in_transaction_session_timeout = {}",
                PAUSE.as_millis()
            ))?;
            Ok(connection)
        };
        // A connection that died while nobody used it would leave open what became of the next batch.
        if self.used.elapsed() > IDLE && !self.connection.is_alive() {
            self.connection = Kept(None);
        }
        let result = self.connection.run(open, work);
        self.used = Instant::now();
        if !is_settled {
            self.lost = given_up;
        }
        result
    }
}

impl Apply for Applier {
    /// A statement changes a row once, and in one way.
    const MIXES: bool = false;

    fn apply(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>> {
        match self.try_once(batch) {
            // It was not at its commit, so nothing was done, and the next connection may do it.
            Err(error) if error.is_cut_off() => self.try_once(batch),
            result => result,
        }
    }

    fn resolve(&mut self, batch: &[&Work]) -> Result<Option<Vec<Outcome>>> {
        let Some(lost) = self.lost.take() else {
            return Ok(None);
        };
        match self.run(|connection| lost.attempt.fate(connection)) {
            Ok(Fate::Lost) => Ok(None),
            Ok(Fate::Committed(xid)) => match &lost.outcomes {
                Some(_) => Ok(lost.outcomes),
                None => {
                    let outcomes =
                        self.run(|connection| batch.iter().map(|work| made(connection, work, xid)).collect());
                    if outcomes.is_err() {
                        self.lost = Some(lost);
                    }
                    outcomes.map(Some)
                }
            },
            Err(error) => {
                self.lost = Some(lost);
                Err(error)
            }
        }
    }

    fn probe(&mut self) -> Result<()> {
        self.run(|connection| Ok(connection.batch_execute("SELECT FROM accounts LIMIT 1 FOR UPDATE SKIP LOCKED")?))
    }
}

impl Applier {
    fn try_once(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>> {
        let plain: Option<Vec<_>> = batch
            .iter()
            .map(|work| work.plain().map(|change| (change, &*work.email_key)))
            .collect();
        match plain {
            Some(changes) => self.set_statuses(&changes),
            None => self.put(batch),
        }
    }

    fn set_statuses(&mut self, changes: &[(&Change, &str)]) -> Result<Vec<Outcome>> {
        let now = model::now();
        let attempt = Attempt::new();
        let batch = SetStatuses::new(&attempt, changes, now);
        let outcomes = self.run(|connection| {
            let rows: Vec<(i64, bool, Row)> = match batch.load(connection).map_err(Error::from) {
                Ok(rows) => rows,
                Err(Error::Unavailable(cause)) => return Err(Error::Unknown(cause)),
                Err(error) => return Err(error),
            };
            let mut before: Vec<Option<(bool, Row)>> = vec![None; changes.len()];
            for (item, holds, row) in rows {
                // Numbered from 1, by WITH ORDINALITY.
                let place = usize::try_from(item - 1).ok().and_then(|place| before.get_mut(place));
                *place.ok_or_else(|| Error::Internal(format!("no change has the number {item}")))? = Some((holds, row));
            }
            let outcome = |((change, email_key), before): (&(&Change, &str), Option<(bool, Row)>)| match before {
                Some((false, _)) => Outcome::Settled(Err(Error::Conflict)),
                Some((true, row)) if row.status == change.status as i16 => settled(row),
                Some((true, row)) => settled(row.changed(change.status, now)),
                // The batch is committed: what goes wrong here is this change's alone.
                None => why_not(connection, change, email_key),
            };
            Ok(changes.iter().zip(before).map(outcome).collect())
        });
        if matches!(outcomes, Err(Error::Unknown(_))) {
            self.lost = Some(Lost {
                attempt,
                outcomes: None,
            });
        }
        outcomes
    }

    fn put(&mut self, batch: &[&Work]) -> Result<Vec<Outcome>> {
        let sealing = self.sealing.clone();
        let wanted: Vec<Wanted<'_>> = batch.iter().map(|work| work.wanted()).collect();
        let attempt = Attempt::new();
        let mut made = None;
        let result = self.run(|connection| {
            let result = connection.transaction(|connection| {
                made = Some(puts::put_all(connection, &sealing, &wanted, Held::Skip)?);
                attempt.record(connection)
            });
            match result {
                Err(Error::Unavailable(cause)) if made.is_some() => Err(Error::Unknown(cause)),
                result => result,
            }
        });
        match result {
            Ok(()) => Ok(made.unwrap_or_default()),
            Err(error) => {
                if matches!(error, Error::Unknown(_)) {
                    self.lost = Some(Lost {
                        attempt,
                        outcomes: made,
                    });
                }
                Err(error)
            }
        }
    }
}

/// What became of a change in a transaction whose answer was lost, by the row of the history that it wrote. A change
/// without one was not needed, was refused, or met a customer that was held: nothing was done for it, so that it can be made
/// now.
fn made(connection: &mut PgConnection, work: &Work, xid: i64) -> Result<Outcome> {
    use status_changes::dsl;

    let look = Look {
        account: work.task.principal().account,
        email_key: &work.email_key,
    };
    let looked: Option<Looked> = look.get_result(connection).optional()?;
    let Some(row) = looked.and_then(Looked::found) else {
        // There was none, or it was changed and has been erased since: nothing tells which.
        return Ok(Outcome::Settled(Err(Error::Unknown("the customer is gone".to_owned()))));
    };
    let change: Option<(i64, i16, i64)> = dsl::status_changes
        .filter(dsl::customer_id.eq(row.id))
        // Not a column of diesel's: SQLite has none.
        .filter(sql::<Bool>(&format!("attempt = {xid}")))
        .order(dsl::version.desc())
        .select((dsl::version, dsl::to_status, dsl::change_time))
        .first(connection)
        .optional()?;
    Ok(match change {
        None => Outcome::Blocked,
        Some((version, _, _)) if version == row.status_version => settled(row),
        // Somebody has changed it since. No customer has the etag of this answer, so that nothing is built on it.
        Some((version, status, time)) => settled(Row {
            status,
            status_version: version,
            revision: 0,
            update_time: time,
            ..row
        }),
    })
}

fn settled(row: Row) -> Outcome {
    Outcome::Settled(Ok(Written { row, created: false }))
}

impl Kept<PgConnection> {
    /// Whether there is a connection, and a server at its other end.
    fn is_alive(&mut self) -> bool {
        self.0
            .as_mut()
            .is_some_and(|connection| connection.batch_execute("SELECT 1").is_ok())
    }
}

/// Sets the status of many customers, each at most once, and records what changed.
///
/// `permitted` stands apart so that `locked` finds each row by the whole of its key: in one join, a planner without
/// statistics reads all customers of the account instead. `locked` sees each row as its last committed change left it, and
/// passes over those that another transaction holds: one of them must not hold up a whole batch. `ordered` comes when all of
/// them are had, and gives the rows of the history their place in the feed. What comes back are the
/// rows as they were before; a change without one found no account, no right, no customer, or a customer that is held.
struct SetStatuses<'a> {
    attempt: &'a [u8],
    now: i64,
    accounts: Vec<i64>,
    /// None for an operator, who needs no credentials.
    versions: Vec<Option<i64>>,
    email_keys: Vec<&'a str>,
    statuses: Vec<i16>,
    actors: Vec<&'a str>,
    faces: Vec<i16>,
    request_ids: Vec<&'a str>,
    etags: Vec<Option<&'a str>>,
    expected: Vec<Option<i16>>,
    reasons: Vec<Option<&'a str>>,
}

impl<'a> SetStatuses<'a> {
    fn new(attempt: &'a Attempt, changes: &[(&'a Change, &'a str)], now: i64) -> Self {
        let email_keys = changes.iter().map(|(_, email_key)| *email_key).collect();
        let changes = || changes.iter().map(|(change, _)| *change);
        Self {
            attempt: &attempt.0,
            now,
            email_keys,
            accounts: changes().map(|change| change.principal.account).collect(),
            versions: changes().map(version).collect(),
            statuses: changes().map(|change| change.status as i16).collect(),
            actors: changes().map(|change| change.origin.actor.as_str()).collect(),
            faces: changes().map(|change| change.origin.face as i16).collect(),
            request_ids: changes().map(|change| change.origin.request_id.as_str()).collect(),
            etags: changes().map(|change| change.condition.etag.as_deref()).collect(),
            expected: changes()
                .map(|change| change.condition.status.map(|status| status as i16))
                .collect(),
            reasons: changes().map(|change| change.reason.as_deref()).collect(),
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
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.etags)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<SmallInt>>, _>(&self.expected)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.reasons)?;
        out.push_sql(
            ") WITH ORDINALITY AS t (account_id, version, email_key, to_status, actor, face, request_id, etag, expected,
                                     reason, item)
            ), attempted AS (
                INSERT INTO attempts (id) VALUES (",
        );
        out.push_bind_param::<Binary, _>(self.attempt)?;
        out.push_sql(
            ")
            ), permitted AS MATERIALIZED (
                SELECT i.* FROM input i JOIN accounts a ON a.id = i.account_id
                WHERE i.version IS NULL OR (a.enabled AND a.credential_version = i.version)
            ), locked AS MATERIALIZED (
                SELECT p.item, p.to_status, p.actor, p.face, p.request_id, p.reason,
                       (p.etag IS NULL OR p.etag = left(c.public_id, 8) || '-' || c.revision)
                           AND (p.expected IS NULL OR p.expected = c.status) AS holds, c.account_id, c.id, c.public_id,
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
                FROM locked l WHERE c.id = l.id AND l.status <> l.to_status AND l.holds
            ), ordered AS MATERIALIZED (
                SELECT status_changes_order(count(*)) AS xid FROM locked
            ), recorded AS (
                INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face,
                                            request_id, reason, change_time, xid)
                SELECT account_id, id, status_version + 1, status, to_status, actor, face, request_id, reason,
                       greatest(update_time, ",
        );
        out.push_bind_param::<BigInt, _>(&self.now)?;
        out.push_sql(
            "), xid
                FROM locked CROSS JOIN ordered WHERE status <> to_status AND holds ORDER BY item
            )
            SELECT item, holds, id, public_id, reference, profile, data_key, status, status_version, revision, create_time,
                   update_time
            FROM locked",
        );
        Ok(())
    }
}

impl Query for SetStatuses<'_> {
    type SqlType = (BigInt, Bool, CustomerColumns);
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
