//! Registers customers, or changes those that are there: many in one transaction, each by itself.
//!
//! What a change makes of what is stored is decided here, once; [`Rows`] is what the two databases do for it.

use std::collections::{BTreeMap, HashMap};

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, PgConnection, QueryDsl, RunQueryDsl, SqliteConnection,
    upsert::excluded,
};
use uuid::Uuid;

use crate::{
    Documents, Error, Field, NewCustomer, Origin, Profile, Put, Result, Status, encryption, model,
    schema::{accounts, customers, documents, feed, status_changes},
    sealing::{CustomerKey, Kind, Owner, Sealing},
    statements::{self, Row},
    writer::Written,
};

/// A change that is asked for, and what its customer is found by.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) put: &'a Put,
    pub(crate) email_key: &'a str,
}

/// What became of a change.
pub(crate) enum Outcome {
    /// It was made, or refused.
    Settled(Result<Written>),
    /// Another transaction holds the customer, or has just registered it.
    Blocked,
}

/// What to do about a customer that another transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Wait for it.
    Wait,
    /// Pass it over.
    Skip,
}

/// What a database does for a change of customers, inside a transaction.
pub(crate) trait Rows {
    /// What is known of the store's encryption.
    fn encryption(&mut self) -> Result<encryption::State>;

    /// The credential version of each account, and whether it is enabled.
    fn accounts(&mut self, ids: &[i64]) -> Result<HashMap<i64, (i64, bool)>>;

    /// Those of an account's customers that are stored, by what they are found by. They stay as they are until the
    /// transaction ends, and are locked in the order of their ids: two transactions that wait for rows then never do so in
    /// a circle.
    fn lock(&mut self, account: i64, email_keys: &[&str], held: Held) -> Result<HashMap<String, Row>>;

    /// The ids and public ids of customers, by what they are found by.
    fn ids(&mut self, account: i64, email_keys: &[&str]) -> Result<HashMap<String, (i64, String)>>;

    /// Stores new customers, and passes over those that are there by now.
    fn insert(&mut self, new: &[NewRow<'_>]) -> Result<()>;

    /// Stores what changed.
    fn update(&mut self, row: &Row) -> Result<()>;

    /// The epoch of new rows of the history, where the database does not set it by itself.
    fn epoch(&mut self) -> Result<Option<i64>>;

    /// Adds to the history.
    fn record(&mut self, changes: &[NewChange<'_>]) -> Result<()>;

    /// Stores an image in the place of the one that was there.
    fn put_document(&mut self, document: &NewDocument) -> Result<()>;

    /// Deletes an image, if it is there.
    fn delete_document(&mut self, customer: i64, kind: i16) -> Result<()>;
}

/// A new row of `customers`.
#[derive(Insertable)]
#[diesel(table_name = customers)]
pub(crate) struct NewRow<'a> {
    account_id: i64,
    email_key: &'a str,
    public_id: &'a str,
    reference: &'a str,
    profile: &'a [u8],
    data_key: Option<&'a [u8]>,
    status: i16,
    status_version: i64,
    revision: i64,
    create_time: i64,
    update_time: i64,
}

/// What `status_changes.kind` says of a change of status.
pub(crate) const CHANGED: i16 = 1;

/// What `status_changes.kind` says of an erasure.
pub(crate) const ERASED: i16 = 2;

/// A new row of `status_changes`.
#[derive(Insertable)]
#[diesel(table_name = status_changes)]
pub(crate) struct NewChange<'a> {
    account_id: i64,
    customer_id: i64,
    version: i64,
    from_status: Option<i16>,
    to_status: i16,
    actor: &'a str,
    face: i16,
    request_id: &'a str,
    change_time: i64,
    kind: i16,
    reason: Option<&'a str>,
    /// None for what the database sets by itself.
    epoch: Option<i64>,
}

/// A row of `documents`.
#[derive(Insertable)]
#[diesel(table_name = documents)]
pub(crate) struct NewDocument {
    customer_id: i64,
    kind: i16,
    content: Vec<u8>,
    upload_time: i64,
}

/// The columns of a [`Row`], in its order.
macro_rules! columns {
    () => {{
        use $crate::schema::customers::dsl;

        (
            dsl::id,
            dsl::public_id,
            dsl::reference,
            dsl::profile,
            dsl::data_key,
            dsl::status,
            dsl::status_version,
            dsl::revision,
            dsl::create_time,
            dsl::update_time,
        )
    }};
}
pub(crate) use columns;

macro_rules! rows {
    (
        $connection:ty,
        lock($query:ident, $held:ident): $lock:expr,
        insert($rows:ident): $insert:expr,
        epoch: $epoch:expr
    ) => {
        impl Rows for $connection {
            fn encryption(&mut self) -> Result<encryption::State> {
                use crate::schema::encryption::dsl;

                Ok(dsl::encryption
                    .select((dsl::state, dsl::index_key))
                    .first(self)
                    .optional()?)
            }

            fn accounts(&mut self, ids: &[i64]) -> Result<HashMap<i64, (i64, bool)>> {
                use accounts::dsl;

                let rows: Vec<(i64, i64, bool)> = dsl::accounts
                    .filter(dsl::id.eq_any(ids))
                    .select((dsl::id, dsl::credential_version, dsl::enabled))
                    .load(self)?;
                Ok(rows
                    .into_iter()
                    .map(|(id, version, enabled)| (id, (version, enabled)))
                    .collect())
            }

            fn lock(&mut self, account: i64, email_keys: &[&str], $held: Held) -> Result<HashMap<String, Row>> {
                use customers::dsl;

                let $query = dsl::customers
                    .filter(dsl::account_id.eq(account))
                    .filter(dsl::email_key.eq_any(email_keys))
                    .select((dsl::email_key, columns!()))
                    .order(dsl::id);
                let rows: Vec<(String, Row)> = $lock(self)?;
                Ok(rows.into_iter().collect())
            }

            fn ids(&mut self, account: i64, email_keys: &[&str]) -> Result<HashMap<String, (i64, String)>> {
                use customers::dsl;

                let rows: Vec<(String, i64, String)> = dsl::customers
                    .filter(dsl::account_id.eq(account))
                    .filter(dsl::email_key.eq_any(email_keys))
                    .select((dsl::email_key, dsl::id, dsl::public_id))
                    .load(self)?;
                Ok(rows
                    .into_iter()
                    .map(|(key, id, public_id)| (key, (id, public_id)))
                    .collect())
            }

            fn insert(&mut self, $rows: &[NewRow<'_>]) -> Result<()> {
                $insert.execute(self)?;
                Ok(())
            }

            fn update(&mut self, row: &Row) -> Result<()> {
                use customers::dsl;

                diesel::update(dsl::customers.filter(dsl::id.eq(row.id)))
                    .set((
                        dsl::reference.eq(&row.reference),
                        dsl::profile.eq(&row.profile),
                        dsl::status.eq(row.status),
                        dsl::status_version.eq(row.status_version),
                        dsl::revision.eq(row.revision),
                        dsl::update_time.eq(row.update_time),
                    ))
                    .execute(self)?;
                Ok(())
            }

            fn epoch(&mut self) -> Result<Option<i64>> {
                $epoch(self)
            }

            fn record(&mut self, changes: &[NewChange<'_>]) -> Result<()> {
                diesel::insert_into(status_changes::table)
                    .values(changes)
                    .execute(self)?;
                Ok(())
            }

            fn put_document(&mut self, document: &NewDocument) -> Result<()> {
                use documents::dsl;

                diesel::insert_into(dsl::documents)
                    .values(document)
                    .on_conflict((dsl::customer_id, dsl::kind))
                    .do_update()
                    .set((
                        dsl::content.eq(excluded(dsl::content)),
                        dsl::upload_time.eq(excluded(dsl::upload_time)),
                    ))
                    .execute(self)?;
                Ok(())
            }

            fn delete_document(&mut self, customer: i64, of_kind: i16) -> Result<()> {
                use documents::dsl;

                diesel::delete(
                    dsl::documents
                        .filter(dsl::customer_id.eq(customer))
                        .filter(dsl::kind.eq(of_kind)),
                )
                .execute(self)?;
                Ok(())
            }
        }
    };
}

rows! {
    SqliteConnection,
    // The whole file is locked, whoever holds it.
    lock(query, _held): |connection: &mut SqliteConnection| query.load(connection),
    insert(rows): diesel::insert_into(customers::table).values(rows),
    epoch: |connection| Ok(Some(feed::table.select(feed::epoch).first(connection)?))
}

rows! {
    PgConnection,
    lock(query, held): |connection: &mut PgConnection| match held {
        Held::Wait => query.for_update().load(connection),
        Held::Skip => query.for_update().skip_locked().load(connection),
    },
    insert(rows): diesel::insert_into(customers::table).values(rows).on_conflict_do_nothing(),
    epoch: |_connection| Ok(None)
}

/// Makes changes, at most one for each customer, inside a transaction. An error is that of the whole transaction.
pub(crate) fn put_all(
    rows: &mut impl Rows,
    sealing: &Sealing,
    wanted: &[Wanted<'_>],
    held: Held,
) -> Result<Vec<Outcome>> {
    let mut keys: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for wanted in wanted {
        keys.entry(wanted.account()).or_default().push(wanted.email_key);
    }
    let mut stored = HashMap::new();
    for (account, keys) in &keys {
        for (key, row) in rows.lock(*account, keys, held)? {
            stored.insert((*account, key), row);
        }
    }
    // Not before the rows are locked: whoever encrypts the store, or changes its master key, keeps them locked while it
    // says so.
    encryption::confirm_by(rows.encryption()?, sealing)?;
    let permits = rows.accounts(&keys.into_keys().collect::<Vec<_>>())?;
    let refused = |wanted: &Wanted<'_>| {
        statements::permit_by(&wanted.put.principal, permits.get(&wanted.account()).copied()).err()
    };

    // Not before the rows are locked: what was waited for has happened earlier.
    let now = model::now();
    let mut plans = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let stored = stored.remove(&(wanted.account(), wanted.email_key.to_owned()));
        plans.push(match refused(wanted) {
            Some(error) => Err(error),
            None => Ok(Plan::of(wanted, stored, sealing, now)?),
        });
    }

    let mut new: Vec<NewRow<'_>> = plans.iter().flatten().filter_map(Plan::new_row).collect();
    if held == Held::Skip {
        // In one order: two batches that register the same customers then never wait for each other in a circle. An
        // import keeps the order that it was given; if it meets a batch in a circle, one of the two is made again.
        new.sort_by_key(|row| (row.account_id, row.email_key));
    }
    let created = register(rows, &new)?;

    let epoch = rows.epoch()?;
    let mut outcomes = Vec::with_capacity(plans.len());
    let mut changes = Vec::new();
    for (plan, wanted) in plans.into_iter().zip(wanted) {
        outcomes.push(match plan {
            Err(error) => Outcome::Settled(Err(error)),
            Ok(plan) => match plan.place(&created) {
                None => Outcome::Blocked,
                Some(plan) => Outcome::Settled(Ok(plan.write(rows, wanted, &mut changes, epoch, now)?)),
            },
        });
    }
    if !changes.is_empty() {
        rows.record(&changes)?;
    }
    Ok(outcomes)
}

/// Stores new customers, and tells the ids of those that are ours, by their public ids.
fn register(rows: &mut impl Rows, new: &[NewRow<'_>]) -> Result<HashMap<String, i64>> {
    let mut created = HashMap::new();
    if new.is_empty() {
        return Ok(created);
    }
    rows.insert(new)?;
    for new in new.chunk_by(|one, next| one.account_id == next.account_id) {
        let keys: Vec<&str> = new.iter().map(|row| row.email_key).collect();
        for (id, public_id) in rows.ids(new[0].account_id, &keys)?.into_values() {
            created.insert(public_id, id);
        }
    }
    Ok(created)
}

/// What a change makes of what is stored.
struct Plan<'a> {
    account: i64,
    email_key: &'a str,
    /// The customer as it is to be; its id is 0 while it is not stored.
    row: Row,
    /// Whether it is not what is stored.
    changed: bool,
    /// Whether the status is not what is stored, and what that is.
    status_changed: Option<Option<i16>>,
    /// What seals the images. That is not done before each is stored: a batch of them would be in memory twice.
    key: CustomerKey,
}

impl<'a> Plan<'a> {
    fn of(wanted: &Wanted<'a>, stored: Option<Row>, sealing: &Sealing, now: i64) -> Result<Self> {
        match stored {
            None => Self::register(wanted, sealing, now),
            Some(row) => Self::change(wanted, row, sealing, now),
        }
    }

    fn register(wanted: &Wanted<'a>, sealing: &Sealing, now: i64) -> Result<Self> {
        let new = &wanted.put.new;
        let public_id = Uuid::new_v4().simple().to_string();
        let owner = wanted.owner(&public_id);
        let (key, data_key) = sealing.new_key(owner)?;
        let mut profile = new.profile.clone();
        new.email.as_str().clone_into(&mut profile.email);
        let profile = key.seal(owner, Kind::Profile, &to_json(&profile)?)?;
        Ok(Self {
            account: wanted.account(),
            email_key: wanted.email_key,
            row: Row {
                id: 0,
                public_id,
                reference: new.reference.clone(),
                profile,
                data_key,
                status: new.status.unwrap_or(Status::Pending) as i16,
                status_version: 1,
                revision: 1,
                create_time: now,
                update_time: now,
            },
            changed: true,
            status_changed: Some(None),
            key,
        })
    }

    fn change(wanted: &Wanted<'a>, mut row: Row, sealing: &Sealing, now: i64) -> Result<Self> {
        let new = &wanted.put.new;
        let owner = row.owner(wanted.account(), wanted.email_key);
        let key = sealing.key(owner, row.data_key.as_deref())?;
        let record = key.open(owner, Kind::Profile, row.profile.clone())?;
        let stored = statements::read_profile(&record, row.id)?;
        let profile = overlay(&stored, new);
        let sealed = match profile == stored {
            true => None,
            false => Some(key.seal(owner, Kind::Profile, &to_json(&profile)?)?),
        };

        let reference = new.laid_over(Field::Reference, &row.reference, &new.reference);
        let status = new.status.map_or(row.status, |status| status as i16);
        let status_changed = (status != row.status).then_some(Some(row.status));
        let changed = sealed.is_some()
            || *reference != row.reference
            || status_changed.is_some()
            || wanted.documents().next().is_some();
        if changed {
            row.reference = reference.to_owned();
            row.profile = sealed.unwrap_or(row.profile);
            row.status = status;
            row.status_version += i64::from(status_changed.is_some());
            row.revision += 1;
            // A clock that went back does not turn history around.
            row.update_time = row.update_time.max(now);
        }
        Ok(Self {
            account: wanted.account(),
            email_key: wanted.email_key,
            row,
            changed,
            status_changed,
            key,
        })
    }

    fn new_row(&self) -> Option<NewRow<'_>> {
        let row = &self.row;
        (row.id == 0).then(|| NewRow {
            account_id: self.account,
            email_key: self.email_key,
            public_id: &row.public_id,
            reference: &row.reference,
            profile: &row.profile,
            data_key: row.data_key.as_deref(),
            status: row.status,
            status_version: row.status_version,
            revision: row.revision,
            create_time: row.create_time,
            update_time: row.update_time,
        })
    }

    /// The plan with the id of its customer; none if somebody else has registered the customer first.
    fn place(self, created: &HashMap<String, i64>) -> Option<Placed<'a>> {
        let is_new = self.row.id == 0;
        let id = if is_new {
            *created.get(&self.row.public_id)?
        } else {
            self.row.id
        };
        Some(Placed { id, is_new, plan: self })
    }
}

/// A plan whose customer has its place.
struct Placed<'a> {
    id: i64,
    is_new: bool,
    plan: Plan<'a>,
}

impl<'a> Placed<'a> {
    fn write(
        self,
        rows: &mut impl Rows,
        wanted: &Wanted<'a>,
        changes: &mut Vec<NewChange<'a>>,
        epoch: Option<i64>,
        now: i64,
    ) -> Result<Written> {
        let Self { id, is_new, plan } = self;
        let row = Row { id, ..plan.row };
        if plan.changed && !is_new {
            rows.update(&row)?;
        }
        if let Some(from_status) = plan.status_changed {
            let origin: &Origin = &wanted.put.origin;
            changes.push(NewChange {
                account_id: plan.account,
                customer_id: id,
                version: row.status_version,
                from_status,
                to_status: row.status,
                actor: &origin.actor,
                face: origin.face as i16,
                request_id: &origin.request_id,
                change_time: row.update_time,
                kind: CHANGED,
                reason: None,
                epoch,
            });
        }
        let owner = row.owner(plan.account, plan.email_key);
        for (kind, image) in wanted.documents() {
            match image {
                Some(image) => rows.put_document(&NewDocument {
                    customer_id: id,
                    kind: kind.document(),
                    content: plan.key.seal(owner, kind, image)?,
                    upload_time: now,
                })?,
                None => rows.delete_document(id, kind.document())?,
            }
        }
        Ok(Written { row, created: is_new })
    }
}

impl<'a> Wanted<'a> {
    fn account(&self) -> i64 {
        self.put.principal.account
    }

    fn owner<'o>(&'o self, public_id: &'o str) -> Owner<'o> {
        Owner {
            account: self.account(),
            public_id,
            email_key: self.email_key,
        }
    }

    /// What is to become of the images: none of one that is to be deleted.
    fn documents(&self) -> impl Iterator<Item = (Kind, Option<&'a [u8]>)> {
        let new = &self.put.new;
        let Documents { front, back } = &new.documents;
        [(Field::Front, Kind::Front, front), (Field::Back, Kind::Back, back)]
            .into_iter()
            .filter(|(field, _, image)| !image.is_empty() || new.cleared.contains(field))
            .map(|(_, kind, image)| (kind, (!image.is_empty()).then_some(&image[..])))
    }
}

impl NewCustomer {
    /// Adds what is said later of the same customer.
    pub(crate) fn add(&mut self, later: Self) {
        let earlier = std::mem::take(&mut self.profile);
        self.profile = overlay(&earlier, &later);
        self.reference = later
            .laid_over(Field::Reference, &self.reference, &later.reference)
            .to_owned();
        self.status = later.status.or(self.status);
        for (mine, later) in [
            (&mut self.documents.front, later.documents.front),
            (&mut self.documents.back, later.documents.back),
        ] {
            if !later.is_empty() {
                *mine = later;
            }
        }
    }

    /// What becomes of a text: the new one, nothing, or what is stored.
    fn laid_over<'a>(&self, field: Field, stored: &'a str, new: &'a str) -> &'a str {
        if new.is_empty() && !self.cleared.contains(&field) {
            stored
        } else {
            new
        }
    }
}

/// The stored attributes with what is new laid over them.
fn overlay(stored: &Profile, new: &NewCustomer) -> Profile {
    let pick = |field, of: fn(&Profile) -> &String| new.laid_over(field, of(stored), of(&new.profile)).to_owned();
    Profile {
        // As it was registered.
        email: stored.email.clone(),
        first_name: pick(Field::FirstName, |profile| &profile.first_name),
        last_name: pick(Field::LastName, |profile| &profile.last_name),
        address: pick(Field::Address, |profile| &profile.address),
        city: pick(Field::City, |profile| &profile.city),
        state: pick(Field::State, |profile| &profile.state),
        zip: pick(Field::Zip, |profile| &profile.zip),
        date_of_birth: pick(Field::DateOfBirth, |profile| &profile.date_of_birth),
        phone: pick(Field::Phone, |profile| &profile.phone),
    }
}

fn to_json(profile: &Profile) -> Result<Vec<u8>> {
    serde_json::to_vec(profile).map_err(|_| Error::Internal("a profile cannot be written".to_owned()))
}
