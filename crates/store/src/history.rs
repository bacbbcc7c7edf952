//! The history of a customer's statuses.

use std::time::Instant;

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl, SelectableHelper};

use crate::{
    EmailKey, Principal, Result, StatusChange, Store, customers,
    feed::{self, ChangeRow},
    schema::status_changes::dsl::{customer_id, status_changes, version},
};

impl Store {
    /// The last changes of a customer's status, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`crate::Error::StaleCredentials`] before [`crate::Error::CustomerNotFound`].
    pub async fn history(
        &self,
        principal: Principal,
        email: EmailKey,
        limit: u32,
        deadline: Instant,
    ) -> Result<Vec<StatusChange>> {
        let email_key = self.sealing.index(principal.account, &email);
        self.pool
            .read(deadline, move |connection| {
                let customer = customers::look(connection, &principal, &email_key)?;
                let mut rows: Vec<ChangeRow> = status_changes
                    .filter(customer_id.eq(customer.id))
                    .order(version.desc())
                    .limit(limit.into())
                    .select(ChangeRow::as_select())
                    .load(connection)?;
                rows.reverse();
                feed::named(connection, rows)
            })
            .await
    }
}
