//! Registers many customers in one transaction.

use std::{collections::HashMap, time::Instant};

use diesel::{Connection, ExpressionMethods, QueryDsl, RunQueryDsl};

use crate::{
    Authority, EmailKey, Error, NewCustomer, Origin, Principal, Put, Result, Store,
    connection::{AnyConnection, on_either},
    puts::{self, Held, Outcome, Wanted},
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

/// How often an import that met another transaction is made again.
const ATTEMPTS: usize = 5;

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
        self.pool
            .write(deadline, move |connection| {
                let puts: Vec<(Put, String)> = merge(new)
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
                        (put, email_key)
                    })
                    .collect();
                let mut result = import(connection, &sealing, account, &puts);
                for _ in 1..ATTEMPTS {
                    match result {
                        Err(Error::Collision(_)) => result = import(connection, &sealing, account, &puts),
                        _ => break,
                    }
                }
                result
            })
            .await
    }
}

fn import(connection: &mut AnyConnection, sealing: &Sealing, account: i64, puts: &[(Put, String)]) -> Result<Imported> {
    let wanted: Vec<Wanted<'_>> = puts.iter().map(|(put, email_key)| Wanted { put, email_key }).collect();
    connection.transaction(|connection| {
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
    })
}

/// Makes imports of one account follow each other, and SQLite take its write lock before it reads.
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
