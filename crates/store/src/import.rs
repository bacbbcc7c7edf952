//! Registers many customers in one transaction.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use diesel::{Connection, ExpressionMethods, Insertable, QueryDsl, RunQueryDsl};
use uuid::Uuid;

use crate::{
    Email, EmailKey, Error, Origin, Profile, Result, Status, Store,
    connection::{AnyConnection, on_either},
    model,
    schema::{customers, status_changes},
    statements::Row,
};

/// A customer to be registered, or to be changed when it is there. What is empty or none keeps what is stored.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// The address; as it is given here it is shown from now on.
    pub email: Email,
    /// The account's own reference.
    pub reference: String,
    /// The personal attributes; its `email` is not looked at.
    pub profile: Profile,
    /// The status; a new customer without one is PENDING.
    pub status: Option<Status>,
}

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
    /// Registers customers in an account, all in one transaction, with the history rows of their statuses. Of two with
    /// the same address the later one adds to the earlier one. Keep it to about a thousand.
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
        self.pool
            .write(deadline, move |connection| {
                let mut result = import(connection, account, &new, &origin);
                for _ in 1..ATTEMPTS {
                    match result {
                        Err(Error::Collision(_)) => result = import(connection, account, &new, &origin),
                        _ => break,
                    }
                }
                result
            })
            .await
    }
}

/// A new row of `customers`.
#[derive(Insertable)]
#[diesel(table_name = customers)]
struct NewRow<'a> {
    account_id: i64,
    email_key: &'a str,
    public_id: String,
    reference: &'a str,
    profile: String,
    status: i16,
    status_version: i64,
    revision: i64,
    create_time: i64,
    update_time: i64,
}

/// A new row of `status_changes`.
#[derive(Insertable)]
#[diesel(table_name = status_changes)]
struct NewChange<'a> {
    account_id: i64,
    customer_id: i64,
    version: i64,
    from_status: Option<i16>,
    to_status: i16,
    actor: &'a str,
    face: i16,
    request_id: &'a str,
    change_time: i64,
}

fn import(connection: &mut AnyConnection, account: i64, new: &[NewCustomer], origin: &Origin) -> Result<Imported> {
    let wanted = merge(new);
    connection.transaction(|connection| {
        take_turns(connection, account)?;
        let stored = lock(connection, account, wanted.keys().map(|key| key.as_str()))?;
        // Not before the rows are locked: what was waited for has happened earlier.
        let now = model::now();
        let change = |customer_id, version, from_status, to_status, change_time| NewChange {
            account_id: account,
            customer_id,
            version,
            from_status,
            to_status,
            actor: &origin.actor,
            face: origin.face as i16,
            request_id: &origin.request_id,
            change_time,
        };
        let mut created = Vec::new();
        let mut changes = Vec::new();
        for (key, customer) in &wanted {
            match stored.get(key.as_str()) {
                None => created.push(NewRow::new(account, key, customer, now)?),
                Some(row) => {
                    let status = customer.status.map_or(row.status, |status| status as i16);
                    // A clock that went back does not turn history around.
                    let time = row.update_time.max(now);
                    if status != row.status {
                        changes.push(change(row.id, row.status_version + 1, Some(row.status), status, time));
                    }
                    update(connection, row, customer, status, time)?;
                }
            }
        }
        on_either!(connection, connection => {
            diesel::insert_into(customers::table).values(&created).execute(connection)
        })?;
        let ids = lock(connection, account, created.iter().map(|row| row.email_key))?;
        for row in ids.values() {
            changes.push(change(row.id, row.status_version, None, row.status, now));
        }
        on_either!(connection, connection => {
            diesel::insert_into(status_changes::table).values(&changes).execute(connection)
        })?;
        Ok(Imported {
            created: created.len() as u64,
            updated: stored.len() as u64,
        })
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

/// Those of the customers that are stored, by their keys. They stay as they are until the transaction ends. They are
/// locked in the order of their ids: two transactions that wait for rows then never do so in a circle.
fn lock<'a>(
    connection: &mut AnyConnection,
    account: i64,
    keys: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Row>> {
    use customers::dsl;

    let query = dsl::customers
        .filter(dsl::account_id.eq(account))
        .filter(dsl::email_key.eq_any(keys.collect::<Vec<_>>()))
        .select((
            dsl::email_key,
            (
                dsl::id,
                dsl::reference,
                dsl::profile,
                dsl::status,
                dsl::status_version,
                dsl::revision,
                dsl::create_time,
                dsl::update_time,
            ),
        ))
        .order(dsl::id);
    let rows: Vec<(String, Row)> = match connection {
        // The whole file is locked.
        AnyConnection::Sqlite(connection) => query.load(connection)?,
        AnyConnection::Postgres(connection) => query.for_update().load(connection)?,
    };
    Ok(rows.into_iter().collect())
}

/// Lays what is new over a stored row.
fn update(connection: &mut AnyConnection, row: &Row, new: &NewCustomer, status: i16, time: i64) -> Result<()> {
    use customers::dsl;

    let stored: Profile = row.profile()?;
    let profile = overlay(&stored, &new.profile, &new.email);
    let reference = or(&new.reference, &row.reference);
    if profile == stored && reference == row.reference && status == row.status {
        return Ok(());
    }
    let target = dsl::customers.filter(dsl::id.eq(row.id));
    diesel::update(target)
        .set((
            dsl::profile.eq(to_json(&profile)?),
            dsl::reference.eq(reference),
            dsl::revision.eq(dsl::revision + 1_i64),
            dsl::update_time.eq(time),
        ))
        .execute(connection)?;
    if status != row.status {
        diesel::update(target)
            .set((dsl::status.eq(status), dsl::status_version.eq(row.status_version + 1)))
            .execute(connection)?;
    }
    Ok(())
}

impl<'a> NewRow<'a> {
    fn new(account: i64, key: &'a EmailKey, new: &'a NewCustomer, now: i64) -> Result<Self> {
        Ok(Self {
            account_id: account,
            email_key: key.as_str(),
            public_id: Uuid::new_v4().simple().to_string(),
            reference: &new.reference,
            profile: to_json(&overlay(&Profile::default(), &new.profile, &new.email))?,
            status: new.status.unwrap_or(Status::Pending) as i16,
            status_version: 1,
            revision: 1,
            create_time: now,
            update_time: now,
        })
    }
}

/// One customer for each key, in the order of the keys; what is said twice counts as it was said last.
fn merge(new: &[NewCustomer]) -> BTreeMap<&EmailKey, NewCustomer> {
    let mut merged: BTreeMap<&EmailKey, NewCustomer> = BTreeMap::new();
    for customer in new {
        merged
            .entry(customer.email.key())
            .and_modify(|earlier| {
                earlier.profile = overlay(&earlier.profile, &customer.profile, &customer.email);
                earlier.reference = or(&customer.reference, &earlier.reference).to_owned();
                earlier.status = customer.status.or(earlier.status);
                earlier.email = customer.email.clone();
            })
            .or_insert_with(|| customer.clone());
    }
    merged
}

/// The attributes of `new`, and those of `stored` where `new` has none.
fn overlay(stored: &Profile, new: &Profile, email: &Email) -> Profile {
    let pick = |of: fn(&Profile) -> &String| or(of(new), of(stored)).to_owned();
    Profile {
        email: email.as_str().to_owned(),
        first_name: pick(|profile| &profile.first_name),
        last_name: pick(|profile| &profile.last_name),
        address: pick(|profile| &profile.address),
        city: pick(|profile| &profile.city),
        state: pick(|profile| &profile.state),
        zip: pick(|profile| &profile.zip),
        date_of_birth: pick(|profile| &profile.date_of_birth),
        phone: pick(|profile| &profile.phone),
    }
}

fn or<'a>(new: &'a str, stored: &'a str) -> &'a str {
    if new.is_empty() { stored } else { new }
}

fn to_json(profile: &Profile) -> Result<String> {
    serde_json::to_string(profile).map_err(|_| Error::Internal("a profile cannot be written".to_owned()))
}
