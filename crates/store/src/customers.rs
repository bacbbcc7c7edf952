//! The operations on one customer.

use std::time::Instant;

use diesel::{OptionalExtension, RunQueryDsl};

use crate::{
    Change, Customer, EmailKey, Error, Principal, Put, Registered, Result, Store,
    connection::{AnyConnection, on_either},
    puts::Task,
    retries,
    statements::{self, Look, LookAccount, Looked, Row},
    writer::Work,
};

impl Store {
    /// Sets the status of a customer, and records the change in the same transaction. Returns once that is on disk.
    /// The same status again succeeds and records nothing. Once begun, the change is made whether or not the caller
    /// still waits.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`], [`Error::KeyReused`], [`Error::CustomerNotFound`], [`Error::Conflict`], in this order;
    /// [`Error::Full`], [`Error::Expired`], [`Error::Unavailable`]; [`Error::Unknown`], which alone may mean that the change
    /// was made.
    pub async fn set_status(&self, change: Change, deadline: Instant) -> Result<Customer> {
        let account = change.principal.account;
        let email_key = self.sealing.index(account, &change.email);
        let written = self
            .write(Task::SetStatus(change), account, email_key, deadline)
            .await?;
        Ok(written.customer)
    }

    /// Registers a customer, or changes the one that is there, in one step; a new customer's first status, and a change of
    /// status, are recorded. Returns once that is on disk. Once begun, it is done whether or not the caller still waits.
    ///
    /// # Errors
    /// As for [`Store::set_status`].
    pub async fn put_customer(&self, put: Put, deadline: Instant) -> Result<Registered> {
        let account = put.principal.account;
        let email_key = self.sealing.index(account, put.new.email.key());
        self.write(Task::Put(Box::new(put)), account, email_key, deadline).await
    }

    /// Hands a task to the writer, and opens what it wrote: not on the writer's thread, for which everybody waits.
    async fn write(&self, task: Task, account: i64, email_key: String, deadline: Instant) -> Result<Registered> {
        let work = Work {
            content: retries::content_of(&self.sealing, &task, &email_key),
            task,
            email_key: email_key.clone(),
        };
        let written = self.writer.submit(work, deadline).await?;
        Ok(Registered {
            // What was written is written, whether or not it can be read here: it must not look refused.
            customer: written
                .row
                .open(&self.sealing, account, &email_key)
                .map_err(|error| Error::Unknown(format!("it was made, and cannot be read: {error}")))?,
            created: written.created,
        })
    }

    /// Reads a customer of the principal's account.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`].
    pub async fn customer(&self, principal: Principal, email: EmailKey, deadline: Instant) -> Result<Customer> {
        let email_key = self.sealing.index(principal.account, &email);
        let sealing = self.sealing.clone();
        self.pool
            .look_up(deadline, move |connection| {
                look(connection, &principal, &email_key)?.open(&sealing, principal.account, &email_key)
            })
            .await
    }

    /// Confirms that the principal's right still holds.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] when it does not.
    pub async fn confirm(&self, principal: Principal, deadline: Instant) -> Result<()> {
        self.pool
            .look_up(deadline, move |connection| {
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
pub(crate) fn look(connection: &mut AnyConnection, principal: &Principal, email_key: &str) -> Result<Row> {
    let look = Look {
        account: principal.account,
        email_key,
    };
    let looked: Option<Looked> = on_either!(connection, connection => look.get_result(connection).optional()?);
    looked.ok_or(Error::StaleCredentials)?.for_principal(principal)
}
