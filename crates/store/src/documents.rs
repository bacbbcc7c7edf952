//! The images of customers' identity documents, which nothing reads but what is here.

use std::time::{Instant, SystemTime};

use diesel::{Connection, ExpressionMethods, QueryDsl, RunQueryDsl, dsl::sql, sql_types::BigInt};

use crate::{
    Customer, Documents, EmailKey, Error, Principal, Result, Store,
    connection::AnyConnection,
    customers, model,
    schema::documents::dsl,
    sealing::{Kind, Sealing},
};

impl Store {
    /// How many bytes the images of a customer take, as they are stored: what reading them will take of memory.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`].
    pub async fn document_bytes(&self, principal: Principal, email: EmailKey, deadline: Instant) -> Result<u64> {
        let email_key = self.sealing.index(principal.account, &email);
        self.pool
            .read(deadline, move |connection| {
                let customer = customers::look(connection, &principal, &email_key)?;
                let bytes: i64 = dsl::documents
                    .filter(dsl::customer_id.eq(customer.id))
                    .select(sql::<BigInt>("CAST(coalesce(sum(length(content)), 0) AS BIGINT)"))
                    .first(connection)?;
                Ok(u64::try_from(bytes).unwrap_or_default())
            })
            .await
    }

    /// Reads a customer with its images.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`].
    pub async fn documents(
        &self,
        principal: Principal,
        email: EmailKey,
        deadline: Instant,
    ) -> Result<(Customer, Documents)> {
        let email_key = self.sealing.index(principal.account, &email);
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                // In one transaction: the images are those of this very customer, and not of one with a new key.
                connection.transaction(|connection| read(connection, &sealing, &principal, &email_key))
            })
            .await
    }

    /// Deletes images that were stored before a time, the oldest first and at most `most`; tells how many those were.
    ///
    /// # Errors
    /// Those of the database; then none were deleted.
    pub async fn expire_documents(&self, before: SystemTime, most: u32, deadline: Instant) -> Result<u64> {
        let before = model::micros(before);
        self.pool
            .write(deadline, move |connection| {
                let old: Vec<(i64, i16)> = dsl::documents
                    .filter(dsl::upload_time.lt(before))
                    // Those of one moment in the order in which they are stored, so that locks are taken in it.
                    .order((dsl::upload_time, dsl::customer_id, dsl::kind))
                    .limit(most.into())
                    .select((dsl::customer_id, dsl::kind))
                    .load(connection)?;
                connection.transaction(|connection| {
                    let mut deleted = 0;
                    for (customer, kind) in old {
                        // One that was stored anew meanwhile stays.
                        deleted += diesel::delete(
                            dsl::documents
                                .filter(dsl::customer_id.eq(customer))
                                .filter(dsl::kind.eq(kind))
                                .filter(dsl::upload_time.lt(before)),
                        )
                        .execute(connection)?;
                    }
                    Ok(deleted as u64)
                })
            })
            .await
    }
}

fn read(
    connection: &mut AnyConnection,
    sealing: &Sealing,
    principal: &Principal,
    email_key: &str,
) -> Result<(Customer, Documents)> {
    let row = customers::look(connection, principal, email_key)?;
    let stored: Vec<(i16, Vec<u8>)> = dsl::documents
        .filter(dsl::customer_id.eq(row.id))
        .select((dsl::kind, dsl::content))
        .load(connection)?;
    let owner = row.owner(principal.account, email_key);
    let key = sealing.key(owner, row.data_key.as_deref())?;
    let mut documents = Documents::default();
    for (number, content) in stored {
        match number {
            Documents::FRONT => documents.front = key.open(owner, Kind::Front, content)?.into(),
            Documents::BACK => documents.back = key.open(owner, Kind::Back, content)?.into(),
            other => return Err(Error::Internal(format!("{other} is no kind of document"))),
        }
    }
    Ok((row.open(sealing, principal.account, email_key)?, documents))
}
