//! Idempotency keys: what came twice is made once, and answered as it was the first time.
//!
//! A key stands in the transaction of the change that it names, with a hash of what was asked for and the customer as it was
//! answered. What was refused leaves no key.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use diesel::{ExpressionMethods, Insertable, QueryDsl, Queryable, RunQueryDsl, Selectable};

use crate::{
    Change, Erase, Error, Put, Result, Store, model,
    puts::{Rows, Task, Wanted},
    schema::idempotency_keys,
    sealing::Sealing,
    statements::Row,
    writer::Written,
};

/// How long a key is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many old keys are deleted in one transaction.
const BATCH: i64 = 1_000;

/// The hash of what is asked for.
pub(crate) type Content = [u8; 32];

/// What was done under a key. The numbers are those of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum Operation {
    SetStatus = 1,
    Put = 2,
    Erase = 3,
}

/// A row of `idempotency_keys`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = idempotency_keys)]
pub(crate) struct KeyRow {
    pub(crate) id: i64,
    key: String,
    content: Vec<u8>,
    key_time: i64,
    pub(crate) customer_id: i64,
    created: bool,
    reference: String,
    profile: Option<Vec<u8>>,
    status: i16,
    pub(crate) status_version: i64,
    revision: i64,
    update_time: i64,
}

/// A new row of `idempotency_keys`.
#[derive(Insertable)]
#[diesel(table_name = idempotency_keys)]
pub(crate) struct NewKey<'a> {
    account_id: i64,
    key: &'a str,
    content: &'a [u8],
    operation: i16,
    key_time: i64,
    customer_id: i64,
    created: bool,
    reference: String,
    profile: Option<Vec<u8>>,
    status: i16,
    status_version: i64,
    revision: i64,
    update_time: i64,
}

impl KeyRow {
    fn is_old(&self, now: i64) -> bool {
        self.key_time < old_before(now)
    }

    /// The customer as it was answered the first time. `row` is the customer as it is now.
    fn answer(self, row: Option<Row>) -> Result<Written> {
        let (Some(row), Some(profile)) = (row, self.profile) else {
            return Err(Error::CustomerNotFound);
        };
        Ok(Written {
            row: Row {
                reference: self.reference,
                profile,
                status: self.status,
                status_version: self.status_version,
                revision: self.revision,
                update_time: self.update_time,
                ..row
            },
            created: self.created,
        })
    }
}

fn old_before(now: i64) -> i64 {
    now.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX))
}

/// What was answered the first time to each change whose key is known; none for what is to be made.
pub(crate) fn remembered(
    rows: &mut impl Rows,
    wanted: &[Wanted<'_>],
    now: i64,
) -> Result<Vec<Option<Result<Written>>>> {
    let mut keys: HashMap<i64, HashSet<&str>> = HashMap::new();
    for wanted in wanted {
        if let Some(key) = wanted.task.key() {
            keys.entry(wanted.account()).or_default().insert(key.as_str());
        }
    }
    let mut known = HashMap::new();
    for (account, keys) in keys {
        for row in known_keys(rows, account, &keys.into_iter().collect::<Vec<_>>(), now)? {
            known.insert((account, row.key.clone()), row);
        }
    }
    let mut answers = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let key = wanted.task.key().map(|key| key.as_str().to_owned());
        let row = key.and_then(|key| known.remove(&(wanted.account(), key)));
        answers.push(match row {
            None => None,
            Some(row) if !row.is_of(wanted.content) => Some(Err(Error::KeyReused)),
            Some(row) => {
                let customer = rows.find(row.customer_id)?;
                Some(row.answer(customer))
            }
        });
    }
    Ok(answers)
}

impl KeyRow {
    /// Whether the same was asked for.
    pub(crate) fn is_of(&self, content: Option<&Content>) -> bool {
        content.is_some_and(|content| self.content == content)
    }
}

/// The keys that are known and not too old; those that are make room.
pub(crate) fn known_keys(rows: &mut impl Rows, account: i64, keys: &[&str], now: i64) -> Result<Vec<KeyRow>> {
    let mut known = Vec::new();
    for row in rows.keys(account, keys)? {
        match row.is_old(now) {
            true => rows.forget_key(row.id)?,
            false => known.push(row),
        }
    }
    Ok(known)
}

/// What is kept of a change that was made, if it has a key.
pub(crate) fn kept<'a>(wanted: &Wanted<'a>, written: &Written, now: i64) -> Option<NewKey<'a>> {
    let operation = match wanted.task {
        Task::SetStatus(_) => Operation::SetStatus,
        Task::Put(_) => Operation::Put,
    };
    let (key, content) = (wanted.task.key()?.as_str(), wanted.content?);
    let key = new_key(wanted.account(), key, content, operation, &written.row, now);
    Some(NewKey {
        created: written.created,
        profile: Some(written.row.profile.clone()),
        reference: written.row.reference.clone(),
        ..key
    })
}

/// A key, with nothing of the customer's attributes.
pub(crate) fn new_key<'a>(
    account: i64,
    key: &'a str,
    content: &'a Content,
    operation: Operation,
    row: &Row,
    now: i64,
) -> NewKey<'a> {
    NewKey {
        account_id: account,
        key,
        content,
        operation: operation as i16,
        key_time: now,
        customer_id: row.id,
        created: false,
        reference: String::new(),
        profile: None,
        status: row.status,
        status_version: row.status_version,
        revision: row.revision,
        update_time: row.update_time,
    }
}

/// What is hashed of a request: each part with its length before it, so that no two requests read the same.
struct Parts(blake3::Hasher);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
    }

    fn add_optional(&mut self, part: Option<&str>) {
        self.0.update(&[u8::from(part.is_some())]);
        self.add(part.unwrap_or_default().as_bytes());
    }
}

fn parts(sealing: &Sealing, operation: Operation, email_key: &str) -> Parts {
    let mut parts = Parts(sealing.content_hasher());
    parts.add(&(operation as i16).to_le_bytes());
    parts.add(email_key.as_bytes());
    parts
}

/// The hash of a task, if it has a key. Where it comes from is no part of it.
pub(crate) fn content_of(sealing: &Sealing, task: &Task, email_key: &str) -> Option<Content> {
    task.key()?;
    Some(match task {
        Task::SetStatus(change) => of_change(sealing, change, email_key),
        Task::Put(put) => of_put(sealing, put, email_key),
    })
}

fn of_change(sealing: &Sealing, change: &Change, email_key: &str) -> Content {
    let mut parts = parts(sealing, Operation::SetStatus, email_key);
    parts.add(change.status.as_str().as_bytes());
    parts.add_optional(change.condition.etag.as_deref());
    parts.add_optional(change.condition.status.map(|status| status.as_str()));
    parts.add_optional(change.reason.as_deref());
    parts.0.finalize().into()
}

fn of_put(sealing: &Sealing, put: &Put, email_key: &str) -> Content {
    let mut parts = parts(sealing, Operation::Put, email_key);
    let (new, profile) = (&put.new, &put.new.profile);
    for text in [
        new.email.as_str(),
        &new.reference,
        &profile.first_name,
        &profile.last_name,
        &profile.address,
        &profile.city,
        &profile.state,
        &profile.zip,
        &profile.date_of_birth,
        &profile.phone,
    ] {
        parts.add(text.as_bytes());
    }
    parts.add(&new.documents.front);
    parts.add(&new.documents.back);
    parts.add_optional(new.status.map(|status| status.as_str()));
    let mut cleared: Vec<&str> = new.cleared.iter().map(|field| field.name()).collect();
    cleared.sort_unstable();
    for field in cleared {
        parts.add(field.as_bytes());
    }
    parts.add_optional(put.etag.as_deref());
    parts.0.finalize().into()
}

/// The hash of an erasure, if it has a key.
pub(crate) fn content_of_erase(sealing: &Sealing, erase: &Erase, email_key: &str) -> Option<Content> {
    erase.key.as_ref()?;
    Some(parts(sealing, Operation::Erase, email_key).0.finalize().into())
}

impl Store {
    /// Deletes idempotency keys that are older than a day, at most a thousand. Gives how many there were.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn expire_keys(&self, deadline: Instant) -> Result<u64> {
        self.pool
            .write(deadline, |connection| {
                use idempotency_keys::dsl;

                let old: Vec<i64> = dsl::idempotency_keys
                    .filter(dsl::key_time.lt(old_before(model::now())))
                    .order(dsl::key_time)
                    .limit(BATCH)
                    .select(dsl::id)
                    .load(connection)?;
                if old.is_empty() {
                    return Ok(0);
                }
                let deleted = crate::connection::on_either!(connection, connection => diesel::delete(
                    dsl::idempotency_keys.filter(dsl::id.eq_any(&old))
                )
                .execute(connection)?);
                Ok(deleted as u64)
            })
            .await
    }
}
