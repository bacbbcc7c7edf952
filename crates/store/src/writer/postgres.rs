//! Writes batches on PostgreSQL: one statement that is a transaction of its own, so a batch costs one round trip and one
//! commit.

use diesel::{
    PgConnection, QueryResult, Queryable, RunQueryDsl,
    connection::SimpleConnection,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment},
    sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Text},
};

use super::Apply;
use crate::{
    Authority, Change, Customer, Error, Result,
    connection::Connector,
    model,
    statements::{self, CustomerColumns, Row, cached},
};

/// A connection that writes.
pub(super) struct Applier {
    connector: Connector,
    url: String,
    connection: Option<PgConnection>,
}

impl Applier {
    pub(super) fn new(connector: &Connector, url: &str) -> Self {
        Self {
            connector: connector.clone(),
            url: url.to_owned(),
            connection: None,
        }
    }

    fn with_connection<T>(&mut self, work: impl FnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut connection = self.connector.connect_postgres(&self.url)?;
                // The plan is kept for the life of the connection, and may be made while the tables are still small.
                connection
                    .batch_execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")?;
                none.insert(connection)
            }
        };
        let result = work(connection);
        if result.as_ref().is_err_and(Error::breaks_connection) {
            self.connection = None;
        }
        result
    }
}

impl Apply for Applier {
    /// A statement changes a row once.
    const REPEATS: bool = false;

    fn apply(&mut self, changes: &[&Change]) -> Result<Vec<Result<Customer>>> {
        let now = model::now();
        let batch = SetStatuses::new(changes, now);
        let rows: Vec<Outcome> = self.with_connection(|connection| Ok(batch.load(connection)?))?;
        if rows.len() != changes.len() {
            return Err(Error::Internal(format!(
                "{} outcomes for {} changes",
                rows.len(),
                changes.len()
            )));
        }
        // One for each change and in their order, as the statement asks for.
        Ok(changes
            .iter()
            .zip(rows)
            .map(|(change, row)| row.of(change, now))
            .collect())
    }

    fn probe(&mut self) -> Result<()> {
        self.with_connection(|connection| Ok(connection.batch_execute("SELECT 1")?))
    }
}

/// Sets the status of many customers, each at most once, and records what changed.
///
/// `locked` takes the rows in the order of their ids, so that two gateways never wait for each other in a circle, and
/// sees each as its last committed change left it. What it gives is the row before; [`Outcome`] derives the row after.
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
    fn new(changes: &[&'a Change], now: i64) -> Self {
        Self {
            now,
            accounts: changes.iter().map(|change| change.principal.account).collect(),
            versions: changes.iter().map(|change| version(change)).collect(),
            email_keys: changes.iter().map(|change| change.email.as_str()).collect(),
            statuses: changes.iter().map(|change| change.status as i16).collect(),
            actors: changes.iter().map(|change| change.origin.actor.as_str()).collect(),
            faces: changes.iter().map(|change| change.origin.face as i16).collect(),
            request_ids: changes.iter().map(|change| change.origin.request_id.as_str()).collect(),
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
            ), locked AS MATERIALIZED (
                SELECT i.item, i.to_status, i.actor, i.face, i.request_id, c.account_id, c.id, c.reference, c.profile,
                       c.status, c.status_version, c.revision, c.create_time, c.update_time
                FROM input i
                JOIN accounts a ON a.id = i.account_id
                     AND (i.version IS NULL OR (a.enabled AND a.credential_version = i.version))
                JOIN customers c ON c.account_id = i.account_id AND c.email_key = i.email_key
                ORDER BY c.id
                FOR UPDATE OF c
            ), changed AS (
                UPDATE customers c
                SET status = l.to_status, status_version = c.status_version + 1, revision = c.revision + 1,
                    update_time = greatest(c.update_time, ",
        );
        out.push_bind_param::<BigInt, _>(&self.now)?;
        out.push_sql(
            ")
                FROM locked l WHERE c.id = l.id AND l.status <> l.to_status
                RETURNING c.id, c.status_version, c.update_time
            ), recorded AS (
                INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face,
                                            request_id, change_time)
                SELECT l.account_id, l.id, c.status_version, l.status, l.to_status, l.actor, l.face, l.request_id,
                       c.update_time
                FROM changed c JOIN locked l ON l.id = c.id ORDER BY l.item
            )
            SELECT a.credential_version, a.enabled, l.id, l.reference, l.profile, l.status, l.status_version,
                   l.revision, l.create_time, l.update_time
            FROM input i LEFT JOIN accounts a ON a.id = i.account_id LEFT JOIN locked l ON l.item = i.item
            ORDER BY i.item",
        );
        Ok(())
    }
}

impl Query for SetStatuses<'_> {
    type SqlType = (Nullable<BigInt>, Nullable<Bool>, Nullable<CustomerColumns>);
}

cached!(SetStatuses);

/// What came of one change: the account as it is, and the customer as it was.
#[derive(Queryable)]
struct Outcome {
    credential_version: Option<i64>,
    enabled: Option<bool>,
    before: Option<Row>,
}

impl Outcome {
    fn of(self, change: &Change, now: i64) -> Result<Customer> {
        match (self.credential_version, self.enabled) {
            (Some(version), Some(enabled)) => statements::permit(&change.principal, version, enabled)?,
            _ => return Err(Error::StaleCredentials),
        }
        let before = self.before.ok_or(Error::CustomerNotFound)?;
        let after = if before.status == change.status as i16 {
            before
        } else {
            before.changed(change.status, now)
        };
        after.try_into()
    }
}
