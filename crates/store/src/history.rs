//! The history of a customer's statuses.

use std::time::Instant;

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};

use crate::{
    EmailKey, Error, Face, Origin, Principal, Result, StatusChange, Store, customers, model,
    schema::status_changes::dsl::{
        actor, change_time, customer_id, face, from_status, request_id, status_changes, to_status, version,
    },
    statements,
};

type Row = (i64, Option<i16>, i16, String, i16, String, i64);

impl Store {
    /// The last changes of a customer's status, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`].
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
                let rows: Vec<Row> = status_changes
                    .filter(customer_id.eq(customer.id))
                    .order(version.desc())
                    .limit(limit.into())
                    .select((version, from_status, to_status, actor, face, request_id, change_time))
                    .load(connection)?;
                rows.into_iter().rev().map(StatusChange::try_from).collect()
            })
            .await
    }
}

impl TryFrom<Row> for StatusChange {
    type Error = Error;

    fn try_from((number, from, to, who, over, request, at): Row) -> Result<Self> {
        Ok(Self {
            version: number,
            from: from.map(statements::status).transpose()?,
            to: statements::status(to)?,
            origin: Origin {
                actor: who,
                face: Face::from_number(over).ok_or_else(|| Error::Internal(format!("{over} is no face")))?,
                request_id: request,
            },
            time: model::time(at),
        })
    }
}
