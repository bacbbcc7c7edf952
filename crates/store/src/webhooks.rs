//! Webhooks: where the changes of an account are sent to, how far that is, and what could not be delivered.
//!
//! A webhook follows the feed from a place of its own. What cannot be delivered at once becomes a row of
//! `webhook_deliveries`, and so does every later change of the same customer, so that each customer's changes arrive in
//! order; rows that were tried for too long are parked, and hold nothing up. One gateway at a time has the lease of a
//! webhook. It is told the time by the database, and records what it did only while it has the lease: whatever becomes of
//! it, a change is delivered again rather than not at all.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use diesel::{
    BoolExpressionMethods, Connection, ExpressionMethods, OptionalExtension, QueryDsl, Queryable, RunQueryDsl,
    Selectable, SelectableHelper,
    connection::SimpleConnection,
    dsl::sql,
    sql_types::{BigInt, Bool},
};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::{
    AccountName, FeedItem, Place, Result, StatusChange, Store,
    accounts::id_of,
    connection::{self, AnyConnection, on_either},
    encryption,
    feed::{self, ChangeRow},
    model,
    schema::{accounts, status_changes, webhook_deliveries, webhooks},
    sealing::Sealing,
};

/// The most webhooks of an account.
const MOST: i64 = 10;

/// The most changes that wait for another try, or behind one that does. With so many the feed is not read on.
const PENDING: i64 = 1_000;

/// The most changes that are parked; with so many the feed is not read on either.
const PARKED: i64 = 10_000;

/// How many bytes a secret has.
const SECRET: usize = 32;

/// How long the secret before counts beside a new one.
const BOTH: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that a delivery or a webhook waits. What is to wait for longer was put off by a clock that has gone back since,
/// and is due.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// The most changes that are counted for a list.
const COUNTED: i64 = 10_000;

/// What signs deliveries.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    fn generate() -> Self {
        Self(Zeroizing::new(rand::random::<[u8; SECRET]>().to_vec()))
    }

    /// The bytes that sign.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as its owner is told it, once: `whsec_` and Base64.
    pub fn reveal(&self) -> SecretString {
        SecretString::from(format!("whsec_{}", BASE64_STANDARD.encode(&*self.0)))
    }
}

/// A secret is never printed by accident.
impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// A webhook that was added.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// What it is called outside.
    pub id: String,
    /// What signs its deliveries.
    pub secret: WebhookSecret,
}

/// A webhook, and how far it is.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// What it is called outside.
    pub id: String,
    /// The account whose changes it is sent.
    pub account: String,
    /// Whether the account is enabled: the webhook of another one waits.
    pub enabled: bool,
    /// Where they are sent to.
    pub url: String,
    /// Changes that were not looked at yet; at most 10,000 are counted.
    pub behind: u64,
    /// Changes that wait for another try, or behind one that does.
    pub pending: u64,
    /// Changes that were given up.
    pub parked: u64,
    /// When the oldest change was made that is neither delivered nor parked.
    pub oldest: Option<SystemTime>,
    /// Why a change that waits was not delivered.
    pub last_error: Option<String>,
    /// Until when nothing is sent since the receiver is down.
    pub paused_until: Option<SystemTime>,
    /// Until when the secret before counts too.
    pub old_secret_until: Option<SystemTime>,
}

/// What it takes to send something to a webhook.
#[derive(Clone, Debug)]
pub struct WebhookTarget {
    /// What it is called outside.
    pub id: String,
    /// Where to.
    pub url: String,
    /// What signs, the newest first.
    pub secrets: Vec<WebhookSecret>,
}

/// What is to be done for a webhook now.
#[derive(Clone, Debug)]
pub struct WebhookWork {
    /// Where to.
    pub target: WebhookTarget,
    /// How often in a row delivery has failed.
    pub failures: u32,
    /// For how long nothing is to be sent.
    pub pause: Duration,
    /// What is to be tried again, one of each customer; then what is new, in the order of the feed.
    pub deliveries: Vec<Delivery>,
    /// How old the oldest change is that is neither delivered nor parked.
    pub lag: Duration,
}

/// A change that is to be delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The change, and the customer as it is now.
    pub item: FeedItem,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether an earlier change of the customer waits, so that this one is not to be sent now.
    pub behind: bool,
    /// The row of `webhook_deliveries`, unless it is new.
    row: Option<i64>,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// There is nothing more to do for it.
    Done,
    /// It failed.
    Failed {
        /// Why, with nothing personal in it.
        error: String,
        /// When to try again.
        retry: Duration,
    },
    /// It was not tried.
    Waits,
}

/// How the receiver is, as its gateway found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How often in a row delivery has failed.
    pub failures: u32,
    /// For how long nothing is to be sent.
    pub pause: Duration,
}

/// A change that was given up.
#[derive(Clone, Debug)]
pub struct ParkedDelivery {
    /// The change.
    pub change: StatusChange,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried first.
    pub first_time: SystemTime,
    /// What became of the last try.
    pub last_error: String,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhooks)]
struct Row {
    id: i64,
    account_id: i64,
    public_id: String,
    url: String,
    secret: Vec<u8>,
    old_secret: Option<Vec<u8>>,
    old_secret_until: i64,
    epoch: i64,
    xid: i64,
    position: i64,
    lease_until: i64,
    failures: i32,
    pause_until: i64,
}

impl Row {
    fn place(&self) -> Place {
        Place {
            epoch: self.epoch,
            xid: self.xid,
            position: self.position,
        }
    }

    fn target(&self, sealing: &Sealing, now: i64) -> Result<WebhookTarget> {
        let old = self.old_secret.as_ref().filter(|_| self.old_secret_until > now);
        let open = |stored: &Vec<u8>| sealing.open_secret(&self.public_id, stored).map(WebhookSecret);
        Ok(WebhookTarget {
            id: self.public_id.clone(),
            url: self.url.clone(),
            secrets: std::iter::once(&self.secret)
                .chain(old)
                .map(open)
                .collect::<Result<_>>()?,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_deliveries)]
struct DeliveryRow {
    id: i64,
    position: i64,
    attempts: i32,
    first_time: i64,
    last_error: String,
}

impl Store {
    /// Adds a webhook to an account, which is sent the changes that are made from now on. None if the account has ten already.
    /// The URL is taken as it is: whoever adds it has looked at it.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`](crate::Error::AccountNotFound), and those of the database.
    pub async fn add_webhook(&self, of: &AccountName, url: &str, deadline: Instant) -> Result<Option<NewWebhook>> {
        let (of, url, sealing) = (of.as_str().to_owned(), url.to_owned(), self.sealing.clone());
        self.pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    begin(connection, &sealing)?;
                    let account = id_of(connection, &of)?;
                    let there: i64 = webhooks::table
                        .filter(webhooks::account_id.eq(account))
                        .count()
                        .get_result(connection)?;
                    if there >= MOST {
                        return Ok(None);
                    }
                    let id = format!("wh_{}", uuid::Uuid::new_v4().simple());
                    let secret = WebhookSecret::generate();
                    let end = feed::end(connection, account)?;
                    diesel::insert_into(webhooks::table)
                        .values((
                            webhooks::account_id.eq(account),
                            webhooks::public_id.eq(&id),
                            webhooks::url.eq(&url),
                            webhooks::secret.eq(sealing.seal_secret(&id, secret.bytes())?),
                            webhooks::old_secret_until.eq(0),
                            webhooks::create_time.eq(model::now()),
                            webhooks::epoch.eq(end.epoch),
                            webhooks::xid.eq(end.xid),
                            webhooks::position.eq(end.position),
                            webhooks::lease_holder.eq(""),
                            webhooks::lease_until.eq(0),
                            webhooks::failures.eq(0),
                            webhooks::pause_until.eq(0),
                        ))
                        .execute(connection)?;
                    Ok(Some(NewWebhook { id, secret }))
                })
            })
            .await
    }

    /// The webhooks of an account, or all, in the order in which they were added.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`](crate::Error::AccountNotFound), and those of the database.
    pub async fn webhooks(&self, of: Option<&AccountName>, deadline: Instant) -> Result<Vec<Webhook>> {
        let account = match of {
            Some(of) => Some(self.account(of.as_str(), deadline).await?.id),
            None => None,
        };
        self.pool
            .read(deadline, move |connection| {
                let now = clock(connection)?;
                let rows: Vec<Row> = webhooks::table
                    .filter(sql::<Bool>(&account.map_or_else(
                        || "TRUE".to_owned(),
                        |account| format!("account_id = {account}"),
                    )))
                    .order(webhooks::id)
                    .select(Row::as_select())
                    .load(connection)?;
                rows.into_iter().map(|row| state(connection, row, now)).collect()
            })
            .await
    }

    /// Removes a webhook and what waits for it, and tells whether it was there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove_webhook(&self, id: &str, deadline: Instant) -> Result<bool> {
        let id = id.to_owned();
        self.pool
            .write(deadline, move |connection| {
                let deleted =
                    diesel::delete(webhooks::table.filter(webhooks::public_id.eq(&id))).execute(connection)?;
                Ok(deleted > 0)
            })
            .await
    }

    /// Gives a webhook a new secret; for a day the one before counts too. One that was replaced within the last day counts no
    /// longer. None if there is no such webhook.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rotate_webhook_secret(&self, id: &str, deadline: Instant) -> Result<Option<WebhookSecret>> {
        let (id, sealing) = (id.to_owned(), self.sealing.clone());
        self.pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    begin(connection, &sealing)?;
                    let until = clock(connection)?.saturating_add(micros(BOTH));
                    let secret = WebhookSecret::generate();
                    let changed = diesel::update(webhooks::table.filter(webhooks::public_id.eq(&id)))
                        .set((
                            webhooks::old_secret.eq(sql("secret")),
                            webhooks::old_secret_until.eq(until),
                            webhooks::secret.eq(sealing.seal_secret(&id, secret.bytes())?),
                        ))
                        .execute(connection)?;
                    Ok((changed > 0).then_some(secret))
                })
            })
            .await
    }

    /// What it takes to send something to a webhook; none if there is no such webhook.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn webhook_target(&self, id: &str, deadline: Instant) -> Result<Option<WebhookTarget>> {
        let (id, sealing) = (id.to_owned(), self.sealing.clone());
        self.pool
            .read(deadline, move |connection| {
                encryption::confirm(connection, &sealing)?;
                let now = clock(connection)?;
                let row = by_public_id(connection, &id)?;
                row.map(|row| row.target(&sealing, now)).transpose()
            })
            .await
    }

    /// Ends the pause of a webhook whose receiver is up again, and tells whether it was there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn wake_webhook(&self, id: &str, deadline: Instant) -> Result<bool> {
        let id = id.to_owned();
        self.pool.write(deadline, move |connection| wake(connection, &id)).await
    }

    /// Takes, or renews, the lease of every webhook of an enabled account that nobody else holds, and gives the rows of those
    /// that `holder` has now.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lease_webhooks(&self, holder: &str, lease: Duration, deadline: Instant) -> Result<Vec<i64>> {
        let holder = holder.to_owned();
        self.pool
            .write(deadline, move |connection| {
                // Where there is none, nothing is written.
                if free(connection, &holder, lease)?.is_empty() {
                    return Ok(Vec::new());
                }
                connection.transaction(|connection| {
                    connection::take_write_lock(connection)?;
                    let mut held = Vec::new();
                    for id in free(connection, &holder, lease)? {
                        let now = clock(connection)?;
                        let end = now.saturating_add(micros(lease));
                        // Who waited for another gateway's row finds it taken.
                        let is_free = webhooks::lease_until.le(now).or(webhooks::lease_until.gt(end));
                        let taken = diesel::update(webhooks::table.filter(webhooks::id.eq(id)))
                            .filter(webhooks::lease_holder.eq(&holder).or(is_free))
                            .set((webhooks::lease_holder.eq(&holder), webhooks::lease_until.eq(end)))
                            .execute(connection)?;
                        if taken > 0 {
                            held.push(id);
                        }
                    }
                    Ok(held)
                })
            })
            .await
    }

    /// Gives up all leases of a gateway, so that another one need not wait for their end.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release_webhooks(&self, holder: &str, deadline: Instant) -> Result<()> {
        let holder = holder.to_owned();
        self.pool
            .write(deadline, move |connection| {
                let held = webhooks::table.filter(webhooks::lease_holder.eq(&holder));
                diesel::update(held)
                    .set((webhooks::lease_holder.eq(""), webhooks::lease_until.eq(0)))
                    .execute(connection)?;
                Ok(())
            })
            .await
    }

    /// What is to be done now for a webhook whose lease `holder` has; none if it has it no longer. With at least `down`
    /// failures in a row it is one delivery of those that wait and a new one, to see whether the receiver is up again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn webhook_work(
        &self,
        webhook: i64,
        holder: &str,
        most: u32,
        down: u32,
        deadline: Instant,
    ) -> Result<Option<WebhookWork>> {
        let (holder, sealing) = (holder.to_owned(), self.sealing.clone());
        self.pool
            .read(deadline, move |connection| {
                encryption::confirm(connection, &sealing)?;
                let now = clock(connection)?;
                let row: Option<Row> = webhooks::table
                    .filter(webhooks::id.eq(webhook))
                    .filter(webhooks::lease_holder.eq(&holder))
                    .select(Row::as_select())
                    .first(connection)
                    .optional()?;
                match row.filter(|row| row.lease_until > now) {
                    Some(row) => work(connection, &sealing, &row, most, down, now).map(Some),
                    None => Ok(None),
                }
            })
            .await
    }

    /// Writes down what became of what [`Store::webhook_work`] gave, all of it and in that order. What failed and was first
    /// tried `patience` ago is parked. Gives how many were; none if `holder` no longer has the lease, and then nothing is
    /// written. To do it again does no harm.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_deliveries(
        &self,
        webhook: i64,
        holder: &str,
        outcomes: Vec<(Delivery, DeliveryOutcome)>,
        health: Health,
        patience: Duration,
        deadline: Instant,
    ) -> Result<Option<u64>> {
        let holder = holder.to_owned();
        self.pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    connection::take_write_lock(connection)?;
                    let now = clock(connection)?;
                    let holds = diesel::update(webhooks::table.filter(webhooks::id.eq(webhook)))
                        .filter(webhooks::lease_holder.eq(&holder).and(webhooks::lease_until.gt(now)))
                        .set((
                            webhooks::failures.eq(i32::try_from(health.failures).unwrap_or(i32::MAX)),
                            webhooks::pause_until.eq(match health.pause {
                                Duration::ZERO => 0,
                                pause => now.saturating_add(micros(pause)),
                            }),
                        ))
                        .execute(connection)?;
                    if holds == 0 {
                        return Ok(None);
                    }
                    record(connection, webhook, &outcomes, now)?;
                    park(connection, webhook, now.saturating_sub(micros(patience))).map(Some)
                })
            })
            .await
    }

    /// What was given up, the oldest first, at most 10,000; none if there is no such webhook.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn parked_deliveries(&self, id: &str, deadline: Instant) -> Result<Option<Vec<ParkedDelivery>>> {
        let id = id.to_owned();
        self.pool
            .read(deadline, move |connection| {
                let Some(webhook) = by_public_id(connection, &id)? else {
                    return Ok(None);
                };
                let rows: Vec<DeliveryRow> = webhook_deliveries::table
                    .filter(webhook_deliveries::webhook_id.eq(webhook.id))
                    .filter(webhook_deliveries::parked.eq(true))
                    .order(webhook_deliveries::id)
                    .limit(PARKED)
                    .select(DeliveryRow::as_select())
                    .load(connection)?;
                let changes = changes_at(connection, rows.iter().map(|row| row.position))?;
                Ok(Some(
                    join(rows, changes, |change| change.place.position)
                        .map(|(row, change)| ParkedDelivery {
                            change,
                            attempts: count(row.attempts),
                            first_time: model::time(row.first_time),
                            last_error: row.last_error,
                        })
                        .collect(),
                ))
            })
            .await
    }

    /// Has what was given up tried again, all or the change with a sequence, and ends the pause. Tells how many; none if
    /// there is no such webhook.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn resend_parked(&self, id: &str, sequence: Option<i64>, deadline: Instant) -> Result<Option<u64>> {
        let id = id.to_owned();
        self.pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    connection::take_write_lock(connection)?;
                    let Some(webhook) = by_public_id(connection, &id)? else {
                        return Ok(None);
                    };
                    let (first, last) = sequence.map_or((i64::MIN, i64::MAX), |sequence| (sequence, sequence));
                    let now = clock(connection)?;
                    let again = diesel::update(webhook_deliveries::table)
                        .filter(webhook_deliveries::webhook_id.eq(webhook.id))
                        .filter(webhook_deliveries::parked.eq(true))
                        .filter(webhook_deliveries::position.between(first, last))
                        .set((
                            webhook_deliveries::parked.eq(false),
                            webhook_deliveries::attempts.eq(0),
                            webhook_deliveries::first_time.eq(0),
                            webhook_deliveries::next_time.eq(now),
                        ))
                        .execute(connection)?;
                    wake(connection, &id)?;
                    Ok(Some(again as u64))
                })
            })
            .await
    }
}

/// Begins to write a secret: the store is still as it was when it was opened, and stays so until the transaction ends.
fn begin(connection: &mut AnyConnection, sealing: &Sealing) -> Result<()> {
    connection::take_write_lock(connection)?;
    if let AnyConnection::Postgres(connection) = connection {
        connection.batch_execute("LOCK TABLE webhooks IN ROW EXCLUSIVE MODE")?;
    }
    encryption::confirm(connection, sealing)
}

/// Seals the secrets of a store that is being encrypted.
pub(crate) fn seal(connection: &mut AnyConnection, sealing: &Sealing) -> Result<()> {
    connection.transaction(|connection| {
        connection::take_write_lock(connection)?;
        if let AnyConnection::Postgres(connection) = connection {
            // Whoever began to add one before the store was marked is waited for.
            connection.batch_execute("LOCK TABLE webhooks IN SHARE ROW EXCLUSIVE MODE")?;
        }
        let rows: Vec<Row> = webhooks::table.select(Row::as_select()).load(connection)?;
        for row in rows {
            // A sealed one is longer: what was interrupted goes on.
            let sealed = |secret: &Vec<u8>| match secret.len() {
                SECRET => sealing.seal_secret(&row.public_id, secret),
                _ => Ok(secret.clone()),
            };
            diesel::update(webhooks::table.filter(webhooks::id.eq(row.id)))
                .set((
                    webhooks::secret.eq(sealed(&row.secret)?),
                    webhooks::old_secret.eq(row.old_secret.as_ref().map(sealed).transpose()?),
                ))
                .execute(connection)?;
        }
        Ok(())
    })
}

/// What all gateways go by: on PostgreSQL the database's time, on SQLite that of the one machine there is.
fn clock(connection: &mut AnyConnection) -> Result<i64> {
    match connection {
        AnyConnection::Sqlite(_) => Ok(model::now()),
        AnyConnection::Postgres(connection) => Ok(diesel::select(sql::<BigInt>(
            "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
        ))
        .get_result(connection)?),
    }
}

/// A time that passes, as the database keeps it.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A time that passed, of two of the database.
fn since(now: i64, time: i64) -> Duration {
    Duration::from_micros(u64::try_from(now.saturating_sub(time)).unwrap_or_default())
}

fn count(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or_default()
}

fn by_public_id(connection: &mut AnyConnection, id: &str) -> Result<Option<Row>> {
    Ok(webhooks::table
        .filter(webhooks::public_id.eq(id))
        .select(Row::as_select())
        .first(connection)
        .optional()?)
}

fn wake(connection: &mut AnyConnection, id: &str) -> Result<bool> {
    let woken = diesel::update(webhooks::table.filter(webhooks::public_id.eq(id)))
        .set((webhooks::failures.eq(0), webhooks::pause_until.eq(0)))
        .execute(connection)?;
    Ok(woken > 0)
}

/// The webhooks of enabled accounts that nobody but `holder` has. A lease that ends later than one that begins now was taken
/// by a clock that has gone back since: nobody waits for the hours that it was ahead.
fn free(connection: &mut AnyConnection, holder: &str, lease: Duration) -> Result<Vec<i64>> {
    let now = clock(connection)?;
    let end = now.saturating_add(micros(lease));
    let is_free = webhooks::lease_until.le(now).or(webhooks::lease_until.gt(end));
    Ok(webhooks::table
        .filter(webhooks::lease_holder.eq(holder).or(is_free))
        .filter(sql::<Bool>(
            "EXISTS (SELECT 1 FROM accounts a WHERE a.id = webhooks.account_id AND a.enabled)",
        ))
        .order(webhooks::id)
        .select(webhooks::id)
        .load(connection)?)
}

/// How many changes of a webhook wait, or are parked.
fn count_of(connection: &mut AnyConnection, webhook: i64, parked: bool) -> Result<i64> {
    Ok(webhook_deliveries::table
        .filter(webhook_deliveries::webhook_id.eq(webhook))
        .filter(webhook_deliveries::parked.eq(parked))
        .count()
        .get_result(connection)?)
}

/// When the oldest change was made that waits.
fn oldest_pending(connection: &mut AnyConnection, webhook: i64) -> Result<Option<i64>> {
    Ok(status_changes::table
        .filter(sql::<Bool>(&format!(
            "position = (SELECT d.position FROM webhook_deliveries d
             WHERE d.webhook_id = {webhook} AND NOT d.parked ORDER BY d.id LIMIT 1)"
        )))
        .select(status_changes::change_time)
        .first(connection)
        .optional()?)
}

fn work(
    connection: &mut AnyConnection,
    sealing: &Sealing,
    row: &Row,
    most: u32,
    down: u32,
    now: i64,
) -> Result<WebhookWork> {
    let failures = count(row.failures);
    let mut work = WebhookWork {
        target: row.target(sealing, now)?,
        failures,
        pause: match since(row.pause_until, now) {
            pause if pause > LONGEST_WAIT => Duration::ZERO,
            pause => pause,
        },
        deliveries: Vec::new(),
        lag: Duration::ZERO,
    };
    let pending = count_of(connection, row.id, false)?;
    let (probe, paused) = (failures >= down, !work.pause.is_zero());
    if pending > 0 && !paused {
        work.deliveries = due(
            connection,
            sealing,
            row,
            if probe { 1 } else { most.into() },
            probe,
            now,
        )?;
    }
    let room = count((PENDING - pending).min(PARKED - count_of(connection, row.id, true)?));
    let room = room.min(match (paused, probe) {
        (true, _) => 0,
        // It may be what was tried before that is not taken, and not the receiver that is down.
        (false, true) => 1,
        (false, false) => most,
    });
    let mut fresh = feed::behind(connection, row.account_id, row.place(), room.max(1))?;
    let oldest = match pending {
        0 => fresh.first().map(|change| model::micros(change.time)),
        _ => oldest_pending(connection, row.id)?,
    };
    work.lag = oldest.map(|time| since(now, time)).unwrap_or_default();
    fresh.truncate(room as usize);
    if !fresh.is_empty() {
        let waiting = waiting(connection, row.id, &fresh)?;
        let items = feed::with_customers(connection, sealing, row.account_id, fresh)?;
        work.deliveries.extend(items.into_iter().map(|item| Delivery {
            behind: waiting.contains(&item.change.customer),
            item,
            attempts: 0,
            row: None,
        }));
    }
    Ok(work)
}

/// Of each customer the first change that waits, where its time has come; with `early` also where it has not.
fn due(
    connection: &mut AnyConnection,
    sealing: &Sealing,
    webhook: &Row,
    most: i64,
    early: bool,
    now: i64,
) -> Result<Vec<Delivery>> {
    let rows: Vec<DeliveryRow> = webhook_deliveries::table
        .filter(sql::<Bool>(&format!(
            "id IN (SELECT min(d.id) FROM webhook_deliveries d
             WHERE d.webhook_id = {} AND NOT d.parked GROUP BY d.customer_id)",
            webhook.id
        )))
        .filter(
            webhook_deliveries::next_time
                .le(if early { i64::MAX } else { now })
                .or(webhook_deliveries::next_time.gt(now.saturating_add(micros(LONGEST_WAIT)))),
        )
        .order((webhook_deliveries::next_time, webhook_deliveries::id))
        .limit(most)
        .select(DeliveryRow::as_select())
        .load(connection)?;
    let changes = changes_at(connection, rows.iter().map(|row| row.position))?;
    let items = feed::with_customers(connection, sealing, webhook.account_id, changes)?;
    Ok(join(rows, items, |item| item.change.place.position)
        .map(|(row, item)| Delivery {
            item,
            attempts: count(row.attempts),
            behind: false,
            row: Some(row.id),
        })
        .collect())
}

/// The changes with these positions, in any order.
fn changes_at(connection: &mut AnyConnection, positions: impl Iterator<Item = i64>) -> Result<Vec<StatusChange>> {
    let mut changes = Vec::new();
    let positions: Vec<i64> = positions.collect();
    // No statement has more values than either database takes.
    for some in positions.chunks(1_000) {
        let rows: Vec<ChangeRow> = on_either!(connection, connection => status_changes::table
            .filter(status_changes::position.eq_any(some))
            .select(ChangeRow::as_select())
            .load(connection)?);
        changes.extend(feed::named(connection, rows)?);
    }
    Ok(changes)
}

/// The rows in their order, each with what has its position.
fn join<T>(
    rows: Vec<DeliveryRow>,
    others: Vec<T>,
    position: impl Fn(&T) -> i64,
) -> impl Iterator<Item = (DeliveryRow, T)> {
    let mut others: HashMap<i64, T> = others.into_iter().map(|other| (position(&other), other)).collect();
    rows.into_iter().filter_map(move |row| {
        let other = others.remove(&row.position)?;
        Some((row, other))
    })
}

/// The customers of changes of whom others wait already.
fn waiting(connection: &mut AnyConnection, webhook: i64, changes: &[StatusChange]) -> Result<HashSet<i64>> {
    let customers: Vec<i64> = changes.iter().map(|change| change.customer).collect();
    let waiting: Vec<i64> = on_either!(connection, connection => webhook_deliveries::table
        .filter(webhook_deliveries::webhook_id.eq(webhook))
        .filter(webhook_deliveries::parked.eq(false))
        .filter(webhook_deliveries::customer_id.eq_any(&customers))
        .select(webhook_deliveries::customer_id)
        .distinct()
        .load(connection)?);
    Ok(waiting.into_iter().collect())
}

fn record(
    connection: &mut AnyConnection,
    webhook: i64,
    outcomes: &[(Delivery, DeliveryOutcome)],
    now: i64,
) -> Result<()> {
    use webhook_deliveries::dsl;

    let mut last = None;
    for (delivery, outcome) in outcomes {
        let place = delivery.item.change.place;
        let Some(row) = delivery.row else {
            last = Some(place);
            if *outcome != DeliveryOutcome::Done {
                queue(connection, webhook, delivery, outcome, now)?;
            }
            continue;
        };
        match outcome {
            DeliveryOutcome::Done => {
                diesel::delete(dsl::webhook_deliveries.filter(dsl::id.eq(row))).execute(connection)?;
            }
            DeliveryOutcome::Failed { error, retry } => {
                diesel::update(dsl::webhook_deliveries.filter(dsl::id.eq(row)))
                    .set((
                        dsl::attempts.eq(tried(delivery)),
                        dsl::first_time.eq(sql(&format!("CASE WHEN first_time = 0 THEN {now} ELSE first_time END"))),
                        dsl::next_time.eq(now.saturating_add(micros(*retry))),
                        dsl::last_error.eq(error),
                    ))
                    .execute(connection)?;
            }
            DeliveryOutcome::Waits => {}
        }
    }
    if let Some(Place { epoch, xid, position }) = last {
        diesel::update(webhooks::table.filter(webhooks::id.eq(webhook)))
            .set((
                webhooks::epoch.eq(epoch),
                webhooks::xid.eq(xid),
                webhooks::position.eq(position),
            ))
            .execute(connection)?;
    }
    Ok(())
}

/// How often a delivery was tried, with the try that it was given for.
fn tried(delivery: &Delivery) -> i32 {
    i32::try_from(delivery.attempts).unwrap_or(i32::MAX).saturating_add(1)
}

/// Has a new change wait.
fn queue(
    connection: &mut AnyConnection,
    webhook: i64,
    delivery: &Delivery,
    outcome: &DeliveryOutcome,
    now: i64,
) -> Result<()> {
    use webhook_deliveries::dsl;

    let (attempts, next, error) = match outcome {
        DeliveryOutcome::Failed { error, retry } => {
            (tried(delivery), now.saturating_add(micros(*retry)), error.as_str())
        }
        _ => (0, now, ""),
    };
    let change = &delivery.item.change;
    let row = (
        dsl::webhook_id.eq(webhook),
        dsl::position.eq(change.place.position),
        dsl::customer_id.eq(change.customer),
        dsl::attempts.eq(attempts),
        // Also of what stands behind another one: it is not to wait for days after that was given up.
        dsl::first_time.eq(now),
        dsl::next_time.eq(next),
        dsl::parked.eq(false),
        dsl::last_error.eq(error),
    );
    // It is there if this was recorded before.
    on_either!(connection, connection => diesel::insert_into(dsl::webhook_deliveries)
        .values(row)
        .on_conflict_do_nothing()
        .execute(connection)?);
    Ok(())
}

/// Gives up what was first tried before a time, and tells how many those are.
fn park(connection: &mut AnyConnection, webhook: i64, before: i64) -> Result<u64> {
    use webhook_deliveries::dsl;

    let parked = diesel::update(dsl::webhook_deliveries)
        .filter(dsl::webhook_id.eq(webhook))
        .filter(dsl::parked.eq(false))
        .filter(dsl::first_time.gt(0).and(dsl::first_time.le(before)))
        .set(dsl::parked.eq(true))
        .execute(connection)?;
    Ok(parked as u64)
}

/// A webhook as a list shows it.
fn state(connection: &mut AnyConnection, row: Row, now: i64) -> Result<Webhook> {
    let (account, enabled): (String, bool) = accounts::table
        .filter(accounts::id.eq(row.account_id))
        .select((accounts::name, accounts::enabled))
        .first(connection)?;
    let Place { epoch, xid, position } = row.place();
    let settled = feed::settled(connection);
    let behind: Vec<i64> = status_changes::table
        .filter(status_changes::account_id.eq(row.account_id))
        .filter(sql::<Bool>(&format!(
            "(epoch, xid, position) > ({epoch}, {xid}, {position})"
        )))
        .filter(sql::<Bool>(settled))
        .order((status_changes::epoch, status_changes::xid, status_changes::position))
        .limit(COUNTED)
        .select(status_changes::change_time)
        .load(connection)?;
    let oldest = oldest_pending(connection, row.id)?.or(behind.first().copied());
    let last_error = webhook_deliveries::table
        .filter(webhook_deliveries::webhook_id.eq(row.id))
        .filter(
            webhook_deliveries::parked
                .eq(false)
                .and(webhook_deliveries::attempts.gt(0)),
        )
        .order(webhook_deliveries::next_time.desc())
        .select(webhook_deliveries::last_error)
        .first(connection)
        .optional()?;
    let later = |time: i64| (time > now).then(|| model::time(time));
    Ok(Webhook {
        behind: behind.len() as u64,
        pending: count_of(connection, row.id, false)?.unsigned_abs(),
        parked: count_of(connection, row.id, true)?.unsigned_abs(),
        oldest: oldest.map(model::time),
        last_error,
        paused_until: later(row.pause_until),
        old_secret_until: row.old_secret.is_some().then(|| later(row.old_secret_until)).flatten(),
        id: row.public_id,
        account,
        enabled,
        url: row.url,
    })
}
