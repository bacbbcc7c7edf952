//! Reads all customers of an account, a page at a time.

use std::time::Instant;

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};

use crate::{Customer, Result, Store, puts::columns, schema::customers::dsl, statements::Row};

impl Store {
    /// The customers of an account behind the one with the id `after`, at most `most`, in the order in which they were
    /// registered.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn customers(&self, account: i64, after: i64, most: u32, deadline: Instant) -> Result<Vec<Customer>> {
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                let rows: Vec<(String, Row)> = dsl::customers
                    .filter(dsl::account_id.eq(account))
                    .filter(dsl::id.gt(after))
                    .order(dsl::id)
                    .limit(most.into())
                    .select((dsl::email_key, columns!()))
                    .load(connection)?;
                rows.into_iter()
                    .map(|(email_key, row)| row.open(&sealing, account, &email_key))
                    .collect()
            })
            .await
    }

    /// How many customers an account has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn customer_count(&self, account: i64, deadline: Instant) -> Result<u64> {
        self.pool
            .read(deadline, move |connection| {
                let count: i64 = dsl::customers
                    .filter(dsl::account_id.eq(account))
                    .count()
                    .get_result(connection)?;
                Ok(u64::try_from(count).unwrap_or_default())
            })
            .await
    }
}
