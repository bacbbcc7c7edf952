//! The operations on accounts.

use std::{
    fmt,
    time::{Instant, SystemTime},
};

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, Queryable, RunQueryDsl};

use crate::{
    AccountName, Error, Result, Store,
    connection::AnyConnection,
    encryption, model,
    schema::accounts::dsl::{accounts, create_time, credential_version, enabled, id, name, password_hash, update_time},
};

/// An account: who may sign in, and whose customers there are.
#[derive(Clone)]
pub struct Account {
    /// The row; never shown outside.
    pub id: i64,
    /// The user name of its credentials.
    pub name: String,
    /// The password's argon2id hash, as a PHC string.
    pub password_hash: String,
    /// Grows with every change of password, enabled or disabled, and with every token that is revoked.
    pub credential_version: i64,
    /// Whether it may sign in.
    pub enabled: bool,
    /// When it was created.
    pub create_time: SystemTime,
}

/// A hash is no secret to print.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[derive(Queryable)]
struct Row {
    id: i64,
    name: String,
    password_hash: String,
    credential_version: i64,
    enabled: bool,
    create_time: i64,
    _update_time: i64,
}

impl From<Row> for Account {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            password_hash: row.password_hash,
            credential_version: row.credential_version,
            enabled: row.enabled,
            create_time: model::time(row.create_time),
        }
    }
}

impl Store {
    /// The account of this name, enabled or not.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`]; [`Error::Unavailable`] when the store has been encrypted since it was opened.
    pub async fn account(&self, of: &str, deadline: Instant) -> Result<Account> {
        let of = of.to_owned();
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                encryption::confirm(connection, &sealing)?;
                let found: Option<Row> = accounts.filter(name.eq(&of)).first(connection).optional()?;
                found.map(Account::from).ok_or(Error::AccountNotFound)
            })
            .await
    }

    /// All accounts by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn accounts(&self, deadline: Instant) -> Result<Vec<Account>> {
        self.pool
            .read(deadline, |connection| {
                let rows: Vec<Row> = accounts.order(name).load(connection)?;
                Ok(rows.into_iter().map(Account::from).collect())
            })
            .await
    }

    /// Creates an enabled account.
    ///
    /// # Errors
    /// [`Error::AccountExists`].
    pub async fn create_account(&self, called: &AccountName, hash: String, deadline: Instant) -> Result<()> {
        let called = called.as_str().to_owned();
        self.pool
            .write(deadline, move |connection| {
                let now = model::now();
                let inserted = diesel::insert_into(accounts)
                    .values((
                        name.eq(&called),
                        password_hash.eq(&hash),
                        credential_version.eq(1_i64),
                        enabled.eq(true),
                        create_time.eq(now),
                        update_time.eq(now),
                    ))
                    .execute(connection);
                match inserted.map_err(Error::from) {
                    Ok(_) => Ok(()),
                    Err(Error::Collision(_)) => Err(Error::AccountExists),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Replaces the hash of an account's password. What was verified with the old one no longer holds.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn set_password(&self, of: &AccountName, hash: String, deadline: Instant) -> Result<()> {
        let of = of.as_str().to_owned();
        self.pool
            .write(deadline, move |connection| {
                let changed = diesel::update(accounts.filter(name.eq(&of)))
                    .set((
                        password_hash.eq(&hash),
                        credential_version.eq(credential_version + 1_i64),
                        update_time.eq(model::now()),
                    ))
                    .execute(connection)?;
                found(changed)
            })
            .await
    }

    /// Lets an account sign in, or no longer. Both succeed when it is so already.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn set_account_enabled(&self, of: &AccountName, now_enabled: bool, deadline: Instant) -> Result<()> {
        let of = of.as_str().to_owned();
        self.pool
            .write(deadline, move |connection| {
                diesel::update(accounts.filter(name.eq(&of)).filter(enabled.ne(now_enabled)))
                    .set((
                        enabled.eq(now_enabled),
                        credential_version.eq(credential_version + 1_i64),
                        update_time.eq(model::now()),
                    ))
                    .execute(connection)?;
                let there: Option<i64> = accounts.filter(name.eq(&of)).select(id).first(connection).optional()?;
                found(usize::from(there.is_some()))
            })
            .await
    }
}

fn found(rows: usize) -> Result<()> {
    if rows == 0 { Err(Error::AccountNotFound) } else { Ok(()) }
}

/// The row of the account of that name.
pub(crate) fn id_of(connection: &mut AnyConnection, called: &str) -> Result<i64> {
    let found = accounts.filter(name.eq(called)).select(id).first(connection);
    found.optional()?.ok_or(Error::AccountNotFound)
}
