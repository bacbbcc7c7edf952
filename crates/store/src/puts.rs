//! Registers customers, or changes those that are there: many in one transaction, each by itself.
//!
//! What a change makes of what is stored is decided here, once; [`Rows`] is what the two databases do for it. A change of
//! status alone has a faster way of its own in `writer/`; it comes here when it has an idempotency key.

use std::collections::{BTreeMap, HashMap};

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, PgConnection, QueryDsl, RunQueryDsl, SelectableHelper,
    SqliteConnection, upsert::excluded,
};
use uuid::Uuid;

use crate::{
    Change, Documents, Error, Field, IdempotencyKey, NewCustomer, Origin, Principal, Profile, Put, Result, Status,
    encryption, model,
    retries::{self, Content, KeyRow, NewKey},
    schema::{accounts, customers, documents, feed, idempotency_keys, status_changes},
    sealing::{CustomerKey, Kind, Owner, Sealing},
    statements::{self, Row},
    writer::Written,
};

/// What is to be written of a customer.
pub(crate) enum Task {
    /// Set its status.
    SetStatus(Change),
    /// Register it, or change it.
    Put(Box<Put>),
}

impl Task {
    pub(crate) fn principal(&self) -> Principal {
        match self {
            Self::SetStatus(change) => change.principal,
            Self::Put(put) => put.principal,
        }
    }

    /// What the caller calls it.
    pub(crate) fn key(&self) -> Option<&IdempotencyKey> {
        match self {
            Self::SetStatus(change) => change.key.as_ref(),
            Self::Put(put) => put.key.as_ref(),
        }
    }

    fn origin(&self) -> &Origin {
        match self {
            Self::SetStatus(change) => &change.origin,
            Self::Put(put) => &put.origin,
        }
    }

    fn etag(&self) -> Option<&str> {
        match self {
            Self::SetStatus(change) => change.condition.etag.as_deref(),
            Self::Put(put) => put.etag.as_deref(),
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::SetStatus(change) => change.reason.as_deref(),
            Self::Put(_) => None,
        }
    }
}

/// A change that is asked for, and what its customer is found by.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) task: &'a Task,
    pub(crate) email_key: &'a str,
    /// The hash of what is asked for, where it has an idempotency key.
    pub(crate) content: Option<&'a Content>,
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

    /// The customer with an id, as it is now.
    fn find(&mut self, id: i64) -> Result<Option<Row>>;

    /// What is known of idempotency keys of an account.
    fn keys(&mut self, account: i64, keys: &[&str]) -> Result<Vec<KeyRow>>;

    /// Keeps idempotency keys.
    fn keep_keys(&mut self, keys: &[NewKey<'_>]) -> Result<()>;

    /// Forgets an idempotency key.
    fn forget_key(&mut self, id: i64) -> Result<()>;

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

impl<'a> NewChange<'a> {
    /// What the history says of an erasure; `row` is the customer as it was, with the number of this row.
    pub(crate) fn of_erasure(account: i64, row: &Row, origin: &'a Origin, epoch: Option<i64>) -> Self {
        Self {
            account_id: account,
            customer_id: row.id,
            version: row.status_version,
            from_status: Some(row.status),
            to_status: row.status,
            actor: &origin.actor,
            face: origin.face as i16,
            request_id: &origin.request_id,
            change_time: row.update_time,
            kind: ERASED,
            reason: None,
            epoch,
        }
    }
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

            fn find(&mut self, id: i64) -> Result<Option<Row>> {
                use customers::dsl;

                Ok(dsl::customers
                    .filter(dsl::id.eq(id))
                    .select(columns!())
                    .first(self)
                    .optional()?)
            }

            fn keys(&mut self, account: i64, keys: &[&str]) -> Result<Vec<KeyRow>> {
                use idempotency_keys::dsl;

                Ok(dsl::idempotency_keys
                    .filter(dsl::account_id.eq(account))
                    .filter(dsl::key.eq_any(keys))
                    .select(KeyRow::as_select())
                    .load(self)?)
            }

            fn keep_keys(&mut self, keys: &[NewKey<'_>]) -> Result<()> {
                diesel::insert_into(idempotency_keys::table)
                    .values(keys)
                    .execute(self)?;
                Ok(())
            }

            fn forget_key(&mut self, id: i64) -> Result<()> {
                use idempotency_keys::dsl;

                diesel::delete(dsl::idempotency_keys.filter(dsl::id.eq(id))).execute(self)?;
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
    // Not before the rows are locked: what was waited for has happened earlier.
    let now = model::now();
    let remembered = retries::remembered(rows, wanted, now)?;
    let mut plans = Vec::with_capacity(wanted.len());
    for (wanted, remembered) in wanted.iter().zip(remembered) {
        let permit = statements::permit_by(&wanted.task.principal(), permits.get(&wanted.account()).copied());
        let stored = stored.remove(&(wanted.account(), wanted.email_key.to_owned()));
        plans.push(match (permit, remembered) {
            (Err(error), _) => Planned::Settled(Err(error)),
            (Ok(()), Some(answer)) => Planned::Settled(answer),
            (Ok(()), None) => Plan::of(wanted, stored, sealing, now)?,
        });
    }

    let mut new: Vec<NewRow<'_>> = plans.iter().filter_map(Planned::new_row).collect();
    if held == Held::Skip {
        // In one order: two batches that register the same customers then never wait for each other in a circle. An
        // import keeps the order that it was given; if it meets a batch in a circle, one of the two is made again.
        new.sort_by_key(|row| (row.account_id, row.email_key));
    }
    let created = register(rows, &new)?;

    let epoch = rows.epoch()?;
    let mut outcomes = Vec::with_capacity(plans.len());
    let (mut changes, mut keys) = (Vec::new(), Vec::new());
    for (plan, wanted) in plans.into_iter().zip(wanted) {
        outcomes.push(match plan {
            Planned::Settled(result) => Outcome::Settled(result),
            Planned::Absent(error) => match rows.ids(wanted.account(), &[wanted.email_key])?.is_empty() {
                true => Outcome::Settled(Err(error)),
                // It is there, and somebody else holds it.
                false => Outcome::Blocked,
            },
            Planned::Made(plan) => match plan.place(&created) {
                None => Outcome::Blocked,
                Some(plan) => {
                    let written = plan.write(rows, wanted, &mut changes, epoch, now)?;
                    keys.extend(retries::kept(wanted, &written, now));
                    Outcome::Settled(Ok(written))
                }
            },
        });
    }
    if !changes.is_empty() {
        rows.record(&changes)?;
    }
    if !keys.is_empty() {
        rows.keep_keys(&keys)?;
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

/// What is to become of a change.
enum Planned<'a> {
    /// It is answered without writing anything.
    Settled(Result<Written>),
    /// Its customer was not found; this is the answer if there is none.
    Absent(Error),
    /// It is made.
    Made(Plan<'a>),
}

impl Planned<'_> {
    fn new_row(&self) -> Option<NewRow<'_>> {
        match self {
            Self::Made(plan) => plan.new_row(),
            Self::Settled(_) | Self::Absent(_) => None,
        }
    }
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
    /// What seals the images, where there can be any. That is not done before each is stored: a batch of them would be in
    /// memory twice.
    key: Option<CustomerKey>,
}

impl<'a> Plan<'a> {
    fn of(wanted: &Wanted<'a>, stored: Option<Row>, sealing: &Sealing, now: i64) -> Result<Planned<'a>> {
        let plan = match (wanted.task, stored) {
            (Task::SetStatus(_), None) => return Ok(Planned::Absent(Error::CustomerNotFound)),
            (Task::Put(put), None) if put.etag.is_some() => return Ok(Planned::Absent(Error::Conflict)),
            (_, Some(row)) if !row.is_tagged(wanted.task.etag()) => Err(Error::Conflict),
            (Task::SetStatus(change), Some(row)) if !change.condition.holds(&row) => Err(Error::Conflict),
            (Task::SetStatus(change), Some(row)) => Ok(Self::set_status(wanted, change, row, now)),
            (Task::Put(put), None) => Ok(Self::register(wanted, put, sealing, now)?),
            (Task::Put(put), Some(row)) => Ok(Self::change(wanted, put, row, sealing, now)?),
        };
        Ok(plan.map_or_else(|error| Planned::Settled(Err(error)), Planned::Made))
    }

    fn set_status(wanted: &Wanted<'a>, change: &Change, row: Row, now: i64) -> Self {
        let from = row.status;
        let changed = from != change.status as i16;
        Self {
            account: wanted.account(),
            email_key: wanted.email_key,
            row: match changed {
                true => row.changed(change.status, now),
                false => row,
            },
            changed,
            status_changed: changed.then_some(Some(from)),
            key: None,
        }
    }

    fn register(wanted: &Wanted<'a>, put: &Put, sealing: &Sealing, now: i64) -> Result<Self> {
        let new = &put.new;
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
            key: Some(key),
        })
    }

    fn change(wanted: &Wanted<'a>, put: &Put, mut row: Row, sealing: &Sealing, now: i64) -> Result<Self> {
        let new = &put.new;
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
            key: Some(key),
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
            let origin = wanted.task.origin();
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
                reason: wanted.task.reason(),
                epoch,
            });
        }
        let owner = row.owner(plan.account, plan.email_key);
        for (kind, image) in wanted.documents() {
            match (image, &plan.key) {
                (Some(image), Some(key)) => rows.put_document(&NewDocument {
                    customer_id: id,
                    kind: kind.document(),
                    content: key.seal(owner, kind, image)?,
                    upload_time: now,
                })?,
                _ => rows.delete_document(id, kind.document())?,
            }
        }
        Ok(Written { row, created: is_new })
    }
}

impl<'a> Wanted<'a> {
    pub(crate) fn account(&self) -> i64 {
        self.task.principal().account
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
        let new = match self.task {
            Task::SetStatus(_) => None,
            Task::Put(put) => Some(&put.new),
        };
        new.into_iter().flat_map(|new| {
            let Documents { front, back } = &new.documents;
            [(Field::Front, Kind::Front, front), (Field::Back, Kind::Back, back)]
                .into_iter()
                .filter(|(field, _, image)| !image.is_empty() || new.cleared.contains(field))
                .map(|(_, kind, image)| (kind, (!image.is_empty()).then_some(&image[..])))
        })
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
