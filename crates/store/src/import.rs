//! Registers many customers in one transaction.

use std::{collections::HashMap, time::Instant};

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};

use crate::{
    Authority, EmailKey, Error, NewCustomer, Origin, Principal, Put, Result, Store,
    connection::{AnyConnection, on_either},
    puts::{self, Held, Outcome, Task, Wanted},
    sealing::Sealing,
};

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Customers that are new.
    pub created: u64,
    /// Customers that were there, changed or not.
    pub updated: u64,
}

impl Store {
    /// Registers customers in an account, all in one transaction and in their order, with the history rows of their
    /// statuses. Of two with the same address the later one adds to the earlier one. Keep it to about a thousand.
    ///
    /// # Errors
    /// Those of the database; then nothing was registered.
    pub async fn import(
        &self,
        account: i64,
        new: Vec<NewCustomer>,
        origin: Origin,
        deadline: Instant,
    ) -> Result<Imported> {
        let sealing = self.sealing.clone();
        let principal = Principal {
            account,
            authority: Authority::Operator,
        };
        let tasks: Vec<(Task, String)> = merge(new)
            .into_iter()
            .map(|new| {
                let email_key = sealing.index(account, new.email.key());
                let put = Put {
                    principal,
                    new,
                    etag: None,
                    key: None,
                    origin: origin.clone(),
                    hold: None,
                };
                (Task::Put(Box::new(put)), email_key)
            })
            .collect();
        self.pool
            .transact(deadline, move |connection| {
                import(connection, &sealing, account, &tasks)
            })
            .await
    }
}

fn import(
    connection: &mut AnyConnection,
    sealing: &Sealing,
    account: i64,
    tasks: &[(Task, String)],
) -> Result<Imported> {
    let wanted: Vec<Wanted<'_>> = tasks
        .iter()
        .map(|(task, email_key)| Wanted {
            task,
            email_key,
            content: None,
        })
        .collect();
    take_turns(connection, account)?;
    let outcomes = on_either!(connection, rows => puts::put_all(rows, sealing, &wanted, Held::Wait))?;
    let mut done = Imported::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Settled(written) => match written?.created {
                true => done.created += 1,
                false => done.updated += 1,
            },
            Outcome::Blocked => return Err(Error::Collision("a customer was registered meanwhile".to_owned())),
        }
    }
    Ok(done)
}

/// Makes imports of one account follow each other.
fn take_turns(connection: &mut AnyConnection, account: i64) -> Result<()> {
    use crate::schema::accounts::dsl::{accounts, id, update_time};

    match diesel::update(accounts.filter(id.eq(account)))
        .set(update_time.eq(update_time))
        .execute(connection)?
    {
        0 => Err(Error::AccountNotFound),
        _ => Ok(()),
    }
}

/// One customer for each address, in the order in which they came first; what is said twice counts as it was said last.
fn merge(new: Vec<NewCustomer>) -> Vec<NewCustomer> {
    let mut places: HashMap<EmailKey, usize> = HashMap::with_capacity(new.len());
    let mut merged: Vec<NewCustomer> = Vec::with_capacity(new.len());
    for customer in new {
        match places.get(customer.email.key()) {
            Some(&place) => merged[place].add(customer),
            None => {
                places.insert(customer.email.key().clone(), merged.len());
                merged.push(customer);
            }
        }
    }
    merged
}
