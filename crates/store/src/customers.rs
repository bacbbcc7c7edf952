//! The operations on one customer.

use std::time::Instant;

use diesel::{OptionalExtension, RunQueryDsl};

use crate::{
    Change, Customer, EmailKey, Error, Principal, Result, Store,
    connection::{AnyConnection, on_either},
    statements::{self, Look, LookAccount, Looked, Row},
};

impl Store {
    /// Sets the status of a customer, and records the change in the same transaction. Returns once that is on disk.
    /// The same status again succeeds and records nothing. Once begun, the change is made whether or not the caller
    /// still waits.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`]; [`Error::Full`] and [`Error::Expired`] when
    /// nothing was begun; [`Error::Unavailable`] when the change may or may not have been made.
    pub async fn set_status(&self, change: Change, deadline: Instant) -> Result<Customer> {
        self.writer.submit(change, deadline).await
    }

    /// Reads a customer of the principal's account.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`].
    pub async fn customer(&self, principal: Principal, email: EmailKey, deadline: Instant) -> Result<Customer> {
        self.pool
            .read(deadline, move |connection| {
                look(connection, &principal, &email).and_then(Customer::try_from)
            })
            .await
    }

    /// Confirms that the principal's right still holds.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] when it does not.
    pub async fn confirm(&self, principal: Principal, deadline: Instant) -> Result<()> {
        self.pool
            .read(deadline, move |connection| {
                let look = LookAccount {
                    account: principal.account,
                };
                let account = on_either!(connection, connection => look.get_result(connection).optional()?);
                statements::permit_by(&principal, account)
            })
            .await
    }
}

/// The row of a customer, if the principal may see it.
pub(crate) fn look(connection: &mut AnyConnection, principal: &Principal, email: &EmailKey) -> Result<Row> {
    let look = Look {
        account: principal.account,
        email_key: email.as_str(),
    };
    let looked: Option<Looked> = on_either!(connection, connection => look.get_result(connection).optional()?);
    looked.ok_or(Error::StaleCredentials)?.for_principal(principal)
}
