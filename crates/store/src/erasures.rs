//! Erases customers, and keeps the proof of it.

use std::time::{Instant, SystemTime};

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};

use crate::{
    Erase, Error, Result, Store,
    connection::{AnyConnection, on_either},
    feed, model,
    puts::{Held, NewChange, Rows},
    retries::{self, Content, KeyRow, Operation},
    schema::{customers, documents, erasures, idempotency_keys},
    statements::Row,
};

/// The proof that a customer was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// What the customer was called outside.
    pub public_id: String,
    /// When it was erased.
    pub time: SystemTime,
    /// How many rows of its history stay; the last one tells of the erasure.
    pub status_changes: u64,
}

impl Store {
    /// Erases a customer: its attributes, its images and its key. The history of its status stays, and a row that says who
    /// erased it. The same address can be registered anew. Once begun, it is done whether or not the caller still waits.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`], [`Error::KeyReused`], [`Error::CustomerNotFound`], in this order; [`Error::Unknown`],
    /// which alone may mean that it was done.
    pub async fn erase_customer(&self, erase: Erase, deadline: Instant) -> Result<Erasure> {
        let email_key = self.sealing.index(erase.principal.account, &erase.email);
        let content = retries::content_of_erase(&self.sealing, &erase, &email_key);
        self.pool
            .transact(deadline, move |connection| {
                run(connection, &erase, &email_key, content.as_ref())
            })
            .await
    }
}

fn run(connection: &mut AnyConnection, erase: &Erase, email_key: &str, content: Option<&Content>) -> Result<Erasure> {
    let account = erase.principal.account;
    let mut locked = on_either!(connection, rows => rows.lock(account, &[email_key], Held::Wait))?;
    feed::confirm(connection, &erase.principal)?;

    let now = model::now();
    let key = erase.key.as_ref().map(|key| key.as_str());
    if let Some(known) = on_either!(connection, rows => retries::known_keys(rows, account, key.as_slice(), now))?.pop()
    {
        return match known.is_of(content) {
            true => repeat(connection, &known),
            false => Err(Error::KeyReused),
        };
    }
    let row = locked.remove(email_key).ok_or(Error::CustomerNotFound)?;

    // A clock that went back does not turn history around.
    let row = Row {
        status_version: row.status_version + 1,
        update_time: now.max(row.update_time),
        ..row
    };
    diesel::delete(documents::table.filter(documents::customer_id.eq(row.id))).execute(connection)?;
    diesel::delete(customers::table.filter(customers::id.eq(row.id))).execute(connection)?;
    diesel::update(idempotency_keys::table.filter(idempotency_keys::customer_id.eq(row.id)))
        .set((
            idempotency_keys::profile.eq(None::<Vec<u8>>),
            idempotency_keys::reference.eq(""),
        ))
        .execute(connection)?;
    diesel::insert_into(erasures::table)
        .values((
            erasures::customer_id.eq(row.id),
            erasures::account_id.eq(account),
            erasures::public_id.eq(&row.public_id),
            erasures::actor.eq(&erase.origin.actor),
            erasures::face.eq(erase.origin.face as i16),
            erasures::request_id.eq(&erase.origin.request_id),
            erasures::erase_time.eq(row.update_time),
        ))
        .execute(connection)?;
    on_either!(connection, rows => {
        let epoch = rows.epoch()?;
        rows.record(&[NewChange::of_erasure(account, &row, &erase.origin, epoch)])?;
        if let (Some(key), Some(content)) = (key, content) {
            rows.keep_keys(&[retries::new_key(account, key, content, Operation::Erase, &row, now)])?;
        }
    });
    Ok(erasure(row.public_id, row.update_time, row.status_version))
}

/// What was answered when the customer was erased.
fn repeat(connection: &mut AnyConnection, known: &KeyRow) -> Result<Erasure> {
    let (public_id, time) = erasures::table
        .filter(erasures::customer_id.eq(known.customer_id))
        .select((erasures::public_id, erasures::erase_time))
        .first(connection)?;
    Ok(erasure(public_id, time, known.status_version))
}

fn erasure(public_id: String, time: i64, rows: i64) -> Erasure {
    Erasure {
        public_id,
        time: model::time(time),
        status_changes: u64::try_from(rows).unwrap_or_default(),
    }
}
