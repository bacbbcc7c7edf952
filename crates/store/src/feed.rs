//! The feed: the changes of an account in an order in which whoever follows them misses none.
//!
//! On PostgreSQL the numbers of rows are given before their transactions commit, so a row may become visible behind one
//! with a larger number. Here rows are ordered by the transaction that wrote them, or a later one that had ended by then, and
//! handed out only when every transaction up to that has ended. So the change of a customer never comes before an earlier one
//! (`status_changes_order`, in the migrations). <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT>

use std::{
    cmp::Ordering,
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use diesel::{
    Connection, ExpressionMethods, PgConnection, QueryDsl, Queryable, RunQueryDsl, Selectable, SelectableHelper,
    connection::SimpleConnection,
    dsl::sql,
    sql_types::{BigInt, Bool, Nullable, Text},
};

use tokio::sync::watch;

use crate::{
    Customer, Error, Face, Origin, Place, Principal, Result, StatusChange, Store,
    connection::{self, AnyConnection, on_either},
    model,
    puts::{ERASED, Rows, columns},
    schema::{customers, erasures, feed, status_changes},
    sealing::Sealing,
    statements::{self, Row},
};

/// The first byte of a cursor: how the rest is to be read.
const FORMAT: u8 = 1;

/// How many characters of the store's name a cursor has.
const NAME: usize = 8;

/// A change, and the customer as it is now; none once it is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedItem {
    /// The change.
    pub change: StatusChange,
    /// The customer.
    pub customer: Option<Customer>,
}

impl Store {
    /// The next changes of an account behind a place, at most `most`, with their customers as they are now. None when there
    /// are no more yet.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`], and those of the database.
    pub async fn feed(
        &self,
        principal: Principal,
        after: Place,
        most: u32,
        deadline: Instant,
    ) -> Result<Vec<FeedItem>> {
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                confirm(connection, &principal)?;
                let changes = behind(connection, principal.account, after, most)?;
                with_customers(connection, &sealing, principal.account, changes)
            })
            .await
    }

    /// The place behind which an account has no changes yet that could be handed out.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`], and those of the database.
    pub async fn feed_end(&self, principal: Principal, deadline: Instant) -> Result<Place> {
        self.pool
            .read(deadline, move |connection| {
                confirm(connection, &principal)?;
                end(connection, principal.account)
            })
            .await
    }

    /// A place as it is handed out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cursor(&self, place: Place, deadline: Instant) -> Result<String> {
        let name = self.name(deadline).await?;
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(name.as_bytes());
        for part in [place.epoch, place.xid, place.position] {
            bytes.extend_from_slice(&part.to_be_bytes());
        }
        Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The place of a cursor.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`] when this store did not hand it out, and those of the database.
    pub async fn place(&self, cursor: &str, deadline: Instant) -> Result<Place> {
        let name = self.name(deadline).await?;
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| Error::InvalidCursor)?;
        let places = bytes
            .strip_prefix(&[FORMAT])
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .filter(|rest| rest.len() == 24)
            .ok_or(Error::InvalidCursor)?;
        let mut parts = places
            .chunks_exact(8)
            .map(|part| part.try_into().map_or(0, i64::from_be_bytes));
        let mut next = || parts.next().unwrap_or_default();
        let place = Place {
            epoch: next(),
            xid: next(),
            position: next(),
        };
        match self
            .pool
            .read(deadline, move |connection| is_past(connection, place))
            .await?
        {
            true => Ok(place),
            false => Err(Error::InvalidCursor),
        }
    }

    /// How old the oldest change is that the feed holds back, since a transaction runs that began to write before it did.
    /// Zero where there is none, and always on SQLite, where one writes at a time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn held_back(&self, deadline: Instant) -> Result<Duration> {
        let since = self.pool.read(deadline, held_back_since).await?;
        let age = since.map_or(0, |since| model::now().saturating_sub(since));
        Ok(Duration::from_micros(u64::try_from(age).unwrap_or_default()))
    }

    /// Tells whenever this handle's store has written something, so that whoever waits for changes need not ask often. It
    /// knows nothing of other gateways, of imports and of erasures: ask now and then all the same.
    pub fn written(&self) -> watch::Receiver<()> {
        self.writer.written()
    }

    /// What the store is called in cursors. It never changes.
    async fn name(&self, deadline: Instant) -> Result<String> {
        if let Some(name) = self.name.get() {
            return Ok(name.clone());
        }
        let name: String = self
            .pool
            .read(deadline, |connection| {
                Ok(feed::table.select(feed::name).first(connection)?)
            })
            .await?;
        let name = name.get(..NAME).unwrap_or(&name).to_owned();
        Ok(self.name.get_or_init(|| name).clone())
    }
}

/// Makes sure that numbers of transactions mean something: a store that finds itself on another server than the one that
/// wrote its rows (a dump that was restored elsewhere, a standby that took over, a copy) goes on in the next epoch.
pub(crate) fn settle_epoch(connection: &mut AnyConnection) -> Result<()> {
    match connection {
        AnyConnection::Sqlite(_) => Ok(()),
        AnyConnection::Postgres(connection) => settle_epoch_on(connection),
    }
}

/// The same, on PostgreSQL.
pub(crate) fn settle_epoch_on(connection: &mut PgConnection) -> Result<()> {
    // The timeline that is written, which a checkpoint knows of only later.
    let here: String = diesel::select(sql::<Text>(
        "(SELECT system_identifier::text || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system())",
    ))
    .get_result(connection)?;
    let known: String = feed::table.select(feed::server).first(connection)?;
    if known == here {
        return Ok(());
    }
    connection.transaction(|connection| {
        // Nobody adds a row meanwhile.
        connection.batch_execute("LOCK TABLE status_changes IN ACCESS EXCLUSIVE MODE")?;
        let (known, epoch): (String, i64) = feed::table.select((feed::server, feed::epoch)).first(connection)?;
        if known == here {
            return Ok(());
        }
        // Until the first server is known, there are no rows but those of before the feed.
        let epoch = if known.is_empty() { epoch } else { epoch + 1 };
        connection.batch_execute(&format!(
            "ALTER TABLE status_changes ALTER COLUMN epoch SET DEFAULT {epoch}"
        ))?;
        diesel::update(feed::table)
            .set((feed::epoch.eq(epoch), feed::server.eq(&here)))
            .execute(connection)?;
        Ok(())
    })
}

/// Whether a place is not ahead of all that there is: that of a store which was set back to an earlier state may be, and
/// whoever waited there would miss what comes before it.
fn is_past(connection: &mut AnyConnection, place: Place) -> Result<bool> {
    let Place { epoch, xid, position } = place;
    let is_past = match connection {
        AnyConnection::Sqlite(_) => format!(
            "({epoch}, {position}) <= (SELECT f.epoch, (SELECT coalesce(max(position), 0) FROM status_changes) FROM feed f)"
        ),
        AnyConnection::Postgres(_) => format!(
            "({epoch}, {xid}) < (SELECT f.epoch, pg_snapshot_xmax(pg_current_snapshot())::text::bigint FROM feed f)
             AND {position} <= (SELECT coalesce(max(position), 0) FROM status_changes)"
        ),
    };
    Ok(diesel::select(sql::<Bool>(&is_past)).get_result(connection)?)
}

/// Confirms that the principal's right still holds.
pub(crate) fn confirm(connection: &mut AnyConnection, principal: &Principal) -> Result<()> {
    let account = on_either!(connection, rows => rows.accounts(&[principal.account]))?
        .get(&principal.account)
        .copied();
    statements::permit_by(principal, account)
}

/// What holds of a row when no earlier one can come any more. What was written on another server was committed before the
/// first row here.
pub(crate) fn settled(connection: &AnyConnection) -> &'static str {
    match connection {
        // One writes at a time.
        AnyConnection::Sqlite(_) => "TRUE",
        // As a comparison of rows it is a range of the index: whoever reads it from its end meets no row that is held back.
        AnyConnection::Postgres(_) => {
            "(status_changes.epoch, status_changes.xid)
              < ((SELECT f.epoch FROM feed f), pg_snapshot_xmin(pg_current_snapshot())::text::bigint)"
        }
    }
}

/// The time of the first change, in the order of the feed, that is not settled: a step into the index for each account.
fn held_back_since(connection: &mut AnyConnection) -> Result<Option<i64>> {
    if let AnyConnection::Sqlite(_) = connection {
        return Ok(None);
    }
    connection::by_index(connection, |connection| {
        let first = sql::<Nullable<BigInt>>(
            "(SELECT min(held.change_time) FROM accounts a CROSS JOIN LATERAL (
                 SELECT s.change_time FROM status_changes s
                 WHERE s.account_id = a.id AND s.epoch = (SELECT f.epoch FROM feed f)
                   AND s.xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
                 ORDER BY s.epoch, s.xid, s.position LIMIT 1) held)",
        );
        Ok(diesel::select(first).get_result(connection)?)
    })
}

/// The place behind which an account has no changes yet that could be handed out.
pub(crate) fn end(connection: &mut AnyConnection, account: i64) -> Result<Place> {
    use status_changes::dsl;

    let last: Vec<(i64, i64, i64)> = dsl::status_changes
        .filter(dsl::account_id.eq(account))
        .filter(sql::<Bool>(settled(connection)))
        .order((dsl::epoch.desc(), dsl::xid.desc(), dsl::position.desc()))
        .limit(1)
        .select((dsl::epoch, dsl::xid, dsl::position))
        .load(connection)?;
    Ok(last
        .first()
        .map_or_else(Place::default, |&(epoch, xid, position)| Place { epoch, xid, position }))
}

/// The next rows of an account behind a place, in the order of the feed.
pub(crate) fn behind(
    connection: &mut AnyConnection,
    account: i64,
    after: Place,
    most: u32,
) -> Result<Vec<StatusChange>> {
    let ranges = ranges(connection, after)?;
    let rows = rows_within(connection, account, ranges, most)?;
    named(connection, rows)
}

/// The rows of an account in ranges that follow on one another, in the order of the feed.
pub(crate) fn rows_within(
    connection: &mut AnyConnection,
    account: i64,
    ranges: Vec<String>,
    most: u32,
) -> Result<Vec<ChangeRow>> {
    use status_changes::dsl;

    connection::by_index(connection, |connection| {
        let mut rows: Vec<ChangeRow> = Vec::new();
        for range in ranges {
            let left = i64::from(most) - i64::try_from(rows.len()).unwrap_or(i64::MAX);
            if left <= 0 {
                break;
            }
            // On the connection itself: many rows are read here, and each would go by way of the types of both backends.
            let more: Vec<ChangeRow> = on_either!(connection, connection => dsl::status_changes
                .filter(dsl::account_id.eq(account))
                .filter(sql::<Bool>(&range))
                .order((dsl::epoch, dsl::xid, dsl::position))
                .limit(left)
                .select(ChangeRow::as_select())
                .load(connection)?);
            rows.extend(more);
        }
        Ok(rows)
    })
}

/// What is settled behind a place, as ranges of the index, in their order. Each begins and ends within the index: one whose
/// end were only a condition would read whatever a long transaction holds back, again and again, and one whose beginning
/// were, all of the history.
pub(crate) fn ranges(connection: &mut AnyConnection, after: Place) -> Result<Vec<String>> {
    let Place { epoch, xid, position } = after;
    match connection {
        AnyConnection::Sqlite(_) => Ok(all_ranges(connection, after)),
        // PostgreSQL ends at the first column of a comparison of rows only: so the last epoch has a range of its own. That
        // it ends while the ranges are read moves nothing forward: what was written in it stays behind the place.
        AnyConnection::Postgres(_) => {
            let last: i64 = feed::table.select(feed::epoch).first(connection)?;
            let settled = "xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
            Ok(match epoch.cmp(&last) {
                Ordering::Less => vec![
                    format!("(epoch, xid, position) > ({epoch}, {xid}, {position}) AND epoch < {last}"),
                    format!("epoch = {last} AND {settled}"),
                ],
                Ordering::Equal => vec![format!(
                    "epoch = {last} AND (xid, position) > ({xid}, {position}) AND {settled}"
                )],
                // Of a store that this one was made from, before it was set back.
                Ordering::Greater => Vec::new(),
            })
        }
    }
}

/// All that is behind a place, be it settled or not, as ranges of the index, in their order.
pub(crate) fn all_ranges(connection: &AnyConnection, after: Place) -> Vec<String> {
    let Place { epoch, xid, position } = after;
    match connection {
        // SQLite does not find the number of a row by a comparison of rows.
        AnyConnection::Sqlite(_) => vec![
            format!("epoch = {epoch} AND xid = {xid} AND position > {position}"),
            format!("(epoch, xid) > ({epoch}, {xid})"),
        ],
        AnyConnection::Postgres(_) => vec![format!("(epoch, xid, position) > ({epoch}, {xid}, {position})")],
    }
}

/// A row of `status_changes`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = status_changes)]
pub(crate) struct ChangeRow {
    pub(crate) position: i64,
    pub(crate) account_id: i64,
    pub(crate) customer_id: i64,
    pub(crate) version: i64,
    pub(crate) from_status: Option<i16>,
    pub(crate) to_status: i16,
    pub(crate) actor: String,
    pub(crate) face: i16,
    pub(crate) request_id: String,
    pub(crate) change_time: i64,
    pub(crate) kind: i16,
    pub(crate) reason: Option<String>,
    pub(crate) epoch: i64,
    pub(crate) xid: i64,
}

/// The rows, with what their customers are called outside.
pub(crate) fn named(connection: &mut AnyConnection, rows: Vec<ChangeRow>) -> Result<Vec<StatusChange>> {
    let names = public_ids(connection, rows.iter().map(|row| row.customer_id))?;
    rows.into_iter()
        .map(|row| {
            let name = names.get(&row.customer_id).cloned();
            row.into_change(name.unwrap_or_default())
        })
        .collect()
}

/// What customers are, or were, called outside.
pub(crate) fn public_ids(
    connection: &mut AnyConnection,
    customers: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, String>> {
    let mut ids: Vec<i64> = customers.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let living: Vec<(i64, String)> = on_either!(connection, connection => customers::table
        .filter(customers::id.eq_any(&ids))
        .select((customers::id, customers::public_id))
        .load(connection)?);
    // After the living: who is erased between the two reads is found here.
    let erased: Vec<(i64, String)> = match living.len() < ids.len() {
        true => on_either!(connection, connection => erasures::table
            .filter(erasures::customer_id.eq_any(&ids))
            .select((erasures::customer_id, erasures::public_id))
            .load(connection)?),
        false => Vec::new(),
    };
    Ok(living.into_iter().chain(erased).collect())
}

/// The changes, with their customers as they are now.
pub(crate) fn with_customers(
    connection: &mut AnyConnection,
    sealing: &Sealing,
    account: i64,
    changes: Vec<StatusChange>,
) -> Result<Vec<FeedItem>> {
    let mut ids: Vec<i64> = changes.iter().map(|change| change.customer).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // The account is compared here: one more condition, and PostgreSQL may read all its customers to look for it.
    let rows: Vec<(i64, String, Row)> = on_either!(connection, connection => customers::table
        .filter(customers::id.eq_any(&ids))
        .select((customers::account_id, customers::email_key, columns!()))
        .load(connection)?);
    let customers: HashMap<i64, Customer> = rows
        .into_iter()
        .filter(|(of, ..)| *of == account)
        .filter_map(|(_, email_key, row)| {
            let id = row.id;
            match row.open(sealing, account, &email_key) {
                Ok(customer) => Some(Ok((id, customer))),
                // One that is damaged must not hold up all others: its changes come without it.
                Err(Error::Internal(message)) => {
                    tracing::error!(customer = id, message, "a change is handed out without its customer");
                    None
                }
                Err(error) => Some(Err(error)),
            }
        })
        .collect::<Result<_>>()?;
    Ok(changes
        .into_iter()
        .map(|change| FeedItem {
            customer: customers.get(&change.customer).cloned(),
            change,
        })
        .collect())
}

impl ChangeRow {
    fn into_change(self, customer_id: String) -> Result<StatusChange> {
        Ok(StatusChange {
            place: Place {
                epoch: self.epoch,
                xid: self.xid,
                position: self.position,
            },
            customer: self.customer_id,
            customer_id,
            version: self.version,
            from: self.from_status.map(statements::status).transpose()?,
            to: statements::status(self.to_status)?,
            erased: self.kind == ERASED,
            origin: Origin {
                actor: self.actor,
                face: Face::from_number(self.face)
                    .ok_or_else(|| Error::Internal(format!("{} is no face", self.face)))?,
                request_id: self.request_id,
            },
            reason: self.reason,
            time: model::time(self.change_time),
        })
    }
}
