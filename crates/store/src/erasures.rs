//! Erases customers, and keeps the proof of it.

use std::time::{Instant, SystemTime};

use diesel::{Connection, ExpressionMethods, QueryDsl, RunQueryDsl};

use crate::{
    Erase, Error, Origin, Principal, Result, Store,
    connection::{self, AnyConnection, on_either},
    model,
    puts::{Held, Rows},
    schema::{customers, documents, erasures},
    statements,
};

/// The proof that a customer was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// What the customer was called outside.
    pub public_id: String,
    /// When it was erased.
    pub time: SystemTime,
    /// How many rows of its history stay.
    pub status_changes: u64,
}

impl Store {
    /// Erases a customer: its attributes, its images and its key. The history of its status stays, and a row that says who
    /// erased it. The same address can be registered anew. Once begun, it is done whether or not the caller still waits.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`]; [`Error::Unavailable`] when it may or may not have
    /// been done.
    pub async fn erase_customer(&self, erase: Erase, deadline: Instant) -> Result<Erasure> {
        let Erase {
            principal,
            email,
            origin,
            ..
        } = erase;
        let email_key = self.sealing.index(principal.account, &email);
        self.pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    connection::take_write_lock(connection)?;
                    erase_row(connection, principal, &email_key, &origin)
                })
            })
            .await
    }
}

fn erase_row(
    connection: &mut AnyConnection,
    principal: Principal,
    email_key: &str,
    origin: &Origin,
) -> Result<Erasure> {
    let account = principal.account;
    let mut locked = on_either!(connection, rows => rows.lock(account, &[email_key], Held::Wait))?;
    let permits = on_either!(connection, rows => rows.accounts(&[account]))?;
    statements::permit_by(&principal, permits.get(&account).copied())?;
    let row = locked.remove(email_key).ok_or(Error::CustomerNotFound)?;

    // A clock that went back does not turn history around.
    let time = model::now().max(row.update_time);
    diesel::delete(documents::table.filter(documents::customer_id.eq(row.id))).execute(connection)?;
    diesel::delete(customers::table.filter(customers::id.eq(row.id))).execute(connection)?;
    diesel::insert_into(erasures::table)
        .values((
            erasures::customer_id.eq(row.id),
            erasures::account_id.eq(account),
            erasures::public_id.eq(&row.public_id),
            erasures::actor.eq(&origin.actor),
            erasures::face.eq(origin.face as i16),
            erasures::request_id.eq(&origin.request_id),
            erasures::erase_time.eq(time),
        ))
        .execute(connection)?;
    Ok(Erasure {
        public_id: row.public_id,
        time: model::time(time),
        status_changes: u64::try_from(row.status_version).unwrap_or_default(),
    })
}
