//! The statements of the hot path. diesel caches a prepared statement by the type of its query, but never one that is
//! made of an update or of plain SQL: so each of these is a type of its own.

use diesel::{
    QueryResult, Queryable,
    backend::Backend,
    query_builder::{AstPass, Query, QueryFragment},
    serialize::ToSql,
    sql_types::{BigInt, Binary, Bool, Nullable, SmallInt, Text},
};

use crate::{
    Authority, Customer, Error, Principal, Profile, Result, Status, model,
    sealing::{Kind, Owner, Sealing},
};

/// Lets diesel cache the prepared statement of a type whose SQL is always the same.
macro_rules! cached {
    ($statement:ty, $id:ty) => {
        impl diesel::query_builder::QueryId for $statement {
            type QueryId = $id;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl<C> diesel::RunQueryDsl<C> for $statement {}
    };
}
pub(crate) use cached;

/// Reads an account's right and one of its customers, in one round trip.
pub(crate) struct Look<'a> {
    pub(crate) account: i64,
    pub(crate) email_key: &'a str,
}

/// What [`Look`] reads of the customer, in the order of its columns.
pub(crate) type CustomerColumns = (
    BigInt,
    Text,
    Text,
    Binary,
    Nullable<Binary>,
    SmallInt,
    BigInt,
    BigInt,
    BigInt,
    BigInt,
);

impl<DB: Backend> QueryFragment<DB> for Look<'_>
where
    i64: ToSql<BigInt, DB>,
    str: ToSql<Text, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(
            "SELECT a.credential_version, a.enabled, c.id, c.public_id, c.reference, c.profile, c.data_key, c.status, \
             c.status_version, c.revision, c.create_time, c.update_time \
             FROM accounts a LEFT JOIN customers c ON c.account_id = a.id AND c.email_key = ",
        );
        out.push_bind_param::<Text, _>(self.email_key)?;
        out.push_sql(" WHERE a.id = ");
        out.push_bind_param::<BigInt, _>(&self.account)
    }
}

impl Query for Look<'_> {
    type SqlType = (BigInt, Bool, Nullable<CustomerColumns>);
}

cached!(Look<'_>, Look<'static>);

/// Reads what an account's credentials are good for now.
pub(crate) struct LookAccount {
    pub(crate) account: i64,
}

impl<DB: Backend> QueryFragment<DB> for LookAccount
where
    i64: ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT credential_version, enabled FROM accounts WHERE id = ");
        out.push_bind_param::<BigInt, _>(&self.account)
    }
}

impl Query for LookAccount {
    type SqlType = (BigInt, Bool);
}

cached!(LookAccount, LookAccount);

/// What [`Look`] found.
#[derive(Queryable)]
pub(crate) struct Looked {
    credential_version: i64,
    enabled: bool,
    customer: Option<Row>,
}

impl Looked {
    /// The customer, whoever asks.
    pub(crate) fn found(self) -> Option<Row> {
        self.customer
    }

    /// The customer, if the principal may see it.
    pub(crate) fn for_principal(self, principal: &Principal) -> Result<Row> {
        permit(principal, self.credential_version, self.enabled)?;
        self.customer.ok_or(Error::CustomerNotFound)
    }
}

/// Whether the principal's right still holds, by what [`LookAccount`] found.
pub(crate) fn permit_by(principal: &Principal, account: Option<(i64, bool)>) -> Result<()> {
    let (credential_version, enabled) = account.ok_or(Error::StaleCredentials)?;
    permit(principal, credential_version, enabled)
}

/// Whether the principal's right still holds, by what the account is now.
pub(crate) fn permit(principal: &Principal, credential_version: i64, enabled: bool) -> Result<()> {
    match principal.authority {
        Authority::Operator => Ok(()),
        Authority::Credentials { version } if enabled && version == credential_version => Ok(()),
        Authority::Credentials { .. } => Err(Error::StaleCredentials),
    }
}

/// A row of `customers`.
#[derive(Clone, Queryable)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) public_id: String,
    pub(crate) reference: String,
    /// The record of the personal attributes, as it is stored.
    pub(crate) profile: Vec<u8>,
    /// The customer's key, as it is stored.
    pub(crate) data_key: Option<Vec<u8>>,
    pub(crate) status: i16,
    pub(crate) status_version: i64,
    pub(crate) revision: i64,
    pub(crate) create_time: i64,
    pub(crate) update_time: i64,
}

impl Row {
    /// The row as a change of status at the time `now` leaves it. A clock that went back does not turn history around.
    pub(crate) fn changed(mut self, status: Status, now: i64) -> Self {
        self.status = status as i16;
        self.status_version += 1;
        self.revision += 1;
        self.update_time = self.update_time.max(now);
        self
    }

    /// Whether this is the state of the customer that an etag names; without one, any is.
    pub(crate) fn is_tagged(&self, etag: Option<&str>) -> bool {
        etag.is_none_or(|etag| etag == model::etag(&self.public_id, self.revision))
    }

    /// Whose data this is. `email_key` is what the row was found by.
    pub(crate) fn owner<'a>(&'a self, account: i64, email_key: &'a str) -> Owner<'a> {
        Owner {
            account,
            public_id: &self.public_id,
            email_key,
        }
    }

    /// The customer, opened. `email_key` is what the row was found by.
    pub(crate) fn open(mut self, sealing: &Sealing, account: i64, email_key: &str) -> Result<Customer> {
        let key = sealing.key(self.owner(account, email_key), self.data_key.as_deref())?;
        let profile = std::mem::take(&mut self.profile);
        let profile = key.open(self.owner(account, email_key), Kind::Profile, profile)?;
        Ok(Customer {
            id: self.id,
            profile: read_profile(&profile, self.id)?,
            public_id: self.public_id,
            reference: self.reference,
            status: status(self.status)?,
            revision: self.revision,
            create_time: model::time(self.create_time),
            update_time: model::time(self.update_time),
        })
    }
}

/// The attributes in an opened record.
pub(crate) fn read_profile(record: &[u8], customer: i64) -> Result<Profile> {
    // Without serde's own text, which may quote the record.
    serde_json::from_slice(record)
        .map_err(|_| Error::Internal(format!("the profile of customer {customer} cannot be read")))
}

/// A status of the database.
pub(crate) fn status(number: i16) -> Result<Status> {
    Status::from_number(number).ok_or_else(|| Error::Internal(format!("{number} is no status")))
}
