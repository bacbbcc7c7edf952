//! Encryption of a whole store: how one becomes encrypted, whether it is, and how its master key is changed.
//!
//! Clear text and sealed values never stand side by side for a gateway: a store is clear (no row in `encryption`), being
//! encrypted (nobody may use it until that is done), or encrypted. Whoever begins to encrypt it also makes all verified
//! credentials stale, so that gateways that run without a key look at the state again before their next write.

use std::{
    thread,
    time::{Duration, Instant},
};

use diesel::{
    BoolExpressionMethods, Connection, ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl,
    Queryable, QueryableByName, RunQueryDsl, connection::SimpleConnection, dsl::max, sql_types::Integer,
};

use crate::{
    EmailKey, Error, Keys, Location, Migrate, Result, Settings,
    connection::{self, AnyConnection, Connector, on_either},
    migrations,
    puts::{Rows, columns},
    schema::{accounts, customers, documents, encryption::dsl, idempotency_keys, webhooks},
    sealing::{CustomerKey, Kind, Owner, Sealer, Sealing},
    statements::Row,
};

/// The store is being encrypted.
const BEGUN: i16 = 1;

/// The store is encrypted.
const DONE: i16 = 2;

/// What `encryption` says: the state, and the index key as it is stored. None in a clear store.
pub(crate) type State = Option<(i16, Vec<u8>)>;

/// How many customers are converted in one transaction at most.
const BATCH: i64 = 500;

/// After how many bytes of images a transaction ends, however few customers it had.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// How far a conversion is, in customers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Those that are done.
    pub done: u64,
    /// All there are.
    pub total: u64,
}

/// How an open store writes personal data. A store with keys and without customers becomes encrypted here.
pub(crate) fn begin(connection: &mut AnyConnection, keys: Option<&Keys>) -> Result<Sealing> {
    let found = state(connection).map_err(|error| match error {
        // With a schema that was not looked at, the table may not be there.
        Error::Internal(message) => Error::Schema(format!("the store cannot be opened as it is: {message}")),
        other => other,
    })?;
    match (found, keys) {
        (None, None) => Ok(Sealing::Clear),
        (None, Some(keys)) => {
            connection.transaction(|connection| {
                lock(connection)?;
                if state(connection)?.is_some() {
                    return Ok(());
                }
                let there: i64 = customers::table.count().get_result(connection)?;
                let secrets: i64 = webhooks::table.count().get_result(connection)?;
                if there + secrets > 0 {
                    return Err(Error::Keys(
                        "a key was given, and the store holds customers or webhooks in clear text: run `dcams-gateway keys encrypt`"
                            .to_owned(),
                    ));
                }
                mark(connection, keys, DONE)
            })?;
            match state(connection)? {
                Some((DONE, index_key)) => sealed(keys, &index_key),
                _ => Err(unfinished()),
            }
        }
        (Some((DONE, index_key)), Some(keys)) => sealed(keys, &index_key),
        (Some((DONE, _)), None) => Err(Error::Keys(
            "the store is encrypted, and no key was given: see --key-file".to_owned(),
        )),
        (Some(_), _) => Err(unfinished()),
    }
}

fn unfinished() -> Error {
    Error::Keys("the store is being encrypted: run `dcams-gateway keys encrypt` again to finish it".to_owned())
}

fn sealed(keys: &Keys, index_key: &[u8]) -> Result<Sealing> {
    Sealer::open(keys, index_key).map(Sealing::Sealed)
}

/// Makes sure that the store is still as it was when it was opened.
pub(crate) fn confirm(connection: &mut AnyConnection, sealing: &Sealing) -> Result<()> {
    confirm_by(state(connection)?, sealing)
}

/// Makes sure that the store is still as it was when it was opened, by what its state is now.
pub(crate) fn confirm_by(state: State, sealing: &Sealing) -> Result<()> {
    match (state, sealing) {
        (None, Sealing::Clear) => Ok(()),
        (Some((DONE, index_key)), Sealing::Sealed(sealer)) => sealer.keep_up(&index_key),
        _ => Err(Error::Unavailable(
            "the store has been encrypted since it was opened: start again with its key".to_owned(),
        )),
    }
}

fn state(connection: &mut AnyConnection) -> Result<State> {
    on_either!(connection, rows => rows.encryption())
}

/// Keeps everybody else from writing customers until the transaction ends. The accounts come first, as for an import.
fn lock(connection: &mut AnyConnection) -> Result<()> {
    match connection {
        AnyConnection::Sqlite(_) => connection::take_write_lock(connection),
        AnyConnection::Postgres(connection) => Ok(connection.batch_execute(
            "LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE; LOCK TABLE customers IN EXCLUSIVE MODE",
        )?),
    }
}

/// Writes down that the store is encrypted now, or is going to be.
fn mark(connection: &mut AnyConnection, keys: &Keys, state: i16) -> Result<()> {
    diesel::insert_into(dsl::encryption)
        .values((
            dsl::id.eq(1),
            dsl::state.eq(state),
            dsl::index_key.eq(Sealer::new_index_key(keys)?),
        ))
        .execute(connection)?;
    diesel::update(accounts::table)
        .set(accounts::credential_version.eq(accounts::credential_version + 1_i64))
        .execute(connection)?;
    Ok(())
}

/// The conversion of a whole store, on a connection of its own. It blocks.
pub struct Encryption {
    connection: AnyConnection,
    keys: Keys,
}

impl Encryption {
    /// Opens a store to encrypt it, or to change its master key.
    ///
    /// # Errors
    /// As for [`crate::Store::open`], but in whatever state of encryption the store is.
    pub fn open(location: &Location, settings: &Settings, keys: &Keys) -> Result<Self> {
        let connector = Connector::new(location.clone(), settings);
        migrations::run(&connector, Migrate::Auto)?;
        Ok(Self {
            connection: connector.connect()?,
            keys: keys.clone(),
        })
    }

    /// Encrypts a clear store. While that goes on nobody else can use it; one that was interrupted goes on where it
    /// ended. What was in clear text is gone from the database's files afterwards. Gives how many customers it encrypted.
    ///
    /// # Errors
    /// Those of the database; it can be run again. [`Error::Keys`] when it was begun with other keys.
    pub fn encrypt(&mut self, mut progress: impl FnMut(Progress)) -> Result<u64> {
        let Self { connection, keys } = self;
        connection.transaction(|connection| {
            lock(connection)?;
            match state(connection)? {
                None => mark(connection, keys, BEGUN),
                Some(_) => Ok(()),
            }
        })?;
        let (state, index_key) = state(connection)?.ok_or_else(unfinished)?;
        let sealing = sealed(keys, &index_key)?;
        if state == DONE {
            return Ok(0);
        }
        let mut so_far = Progress {
            done: encrypted_count(connection)?,
            total: count(connection)?,
        };
        let mut encrypted = 0;
        loop {
            progress(so_far);
            let batch = connection.transaction(|connection| {
                connection::take_write_lock(connection)?;
                encrypt_some(connection, &sealing)
            })?;
            if batch == 0 {
                break;
            }
            encrypted += batch;
            so_far.done += batch;
        }
        // Replies that are kept for retries are in clear text. To forget them is what a day would do.
        diesel::delete(idempotency_keys::table).execute(connection)?;
        crate::webhooks::seal(connection, &sealing)?;
        scrub(connection)?;
        diesel::update(dsl::encryption)
            .set(dsl::state.eq(DONE))
            .execute(connection)?;
        Ok(encrypted)
    }

    /// Wraps every customer's key by the newest master key, also while gateways serve: once the index key is wrapped by
    /// it, they register nobody under an older one. Gives how many were wrapped by an older one.
    ///
    /// # Errors
    /// Those of the database; it can be run again. [`Error::Keys`] when the store is not encrypted, or by other keys.
    pub fn rotate(&mut self, mut progress: impl FnMut(Progress)) -> Result<u64> {
        let Self { connection, keys } = self;
        let Sealing::Sealed(sealer) = begin(connection, Some(keys))? else {
            return Err(Error::Keys("the store is not encrypted".to_owned()));
        };
        connection.transaction(|connection| {
            // Those who are registering somebody are waited for.
            lock(connection)?;
            if let Some((_, index_key)) = state(connection)?
                && let Some(wrapped) = sealer.rewrap_index_key(&index_key)?
            {
                diesel::update(dsl::encryption)
                    .set(dsl::index_key.eq(wrapped))
                    .execute(connection)?;
            }
            Ok::<_, Error>(())
        })?;
        let sealing = Sealing::Sealed(sealer);
        let mut so_far = Progress {
            done: 0,
            total: count(connection)?,
        };
        // Who is registered from now on has the new key: to follow them would not end before they do.
        let newest: Option<i64> = customers::table.select(max(customers::id)).first(connection)?;
        let (mut rotated, mut after) = (0, 0);
        loop {
            progress(so_far);
            let began = Instant::now();
            let (looked, wrapped, last) = connection.transaction(|connection| {
                connection::take_write_lock(connection)?;
                rewrap_some(connection, &sealing, after, newest.unwrap_or_default())
            })?;
            if looked == 0 {
                return Ok(rotated);
            }
            rotated += wrapped;
            so_far.done += looked;
            after = last;
            make_room(connection, began.elapsed());
        }
    }
}

/// Lets others write for as long as a batch took. Whoever waits for SQLite's lock only looks now and then whether it is
/// free: one that is taken again at once is never seen to be.
fn make_room(connection: &AnyConnection, pause: Duration) {
    if let AnyConnection::Sqlite(_) = connection {
        thread::sleep(pause);
    }
}

fn count(connection: &mut AnyConnection) -> Result<u64> {
    let count: i64 = customers::table.count().get_result(connection)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

fn encrypted_count(connection: &mut AnyConnection) -> Result<u64> {
    let count: i64 = customers::table
        .filter(customers::data_key.is_not_null())
        .count()
        .get_result(connection)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Encrypts customers that are in clear text yet, and tells how many.
fn encrypt_some(connection: &mut AnyConnection, sealing: &Sealing) -> Result<u64> {
    let rows: Vec<(i64, String, Row)> = customers::table
        .filter(customers::data_key.is_null())
        .order(customers::id)
        .limit(BATCH)
        .select((customers::account_id, customers::email_key, columns!()))
        .load(connection)?;
    let (mut encrypted, mut bytes) = (0, 0);
    for (account, email_key, row) in rows {
        let email_key = sealing.index(account, &EmailKey::stored(email_key));
        let owner = row.owner(account, &email_key);
        let (key, data_key) = sealing.new_key(owner)?;
        let profile = key.seal(owner, Kind::Profile, &row.profile)?;
        diesel::update(customers::table.filter(customers::id.eq(row.id)))
            .set((
                customers::email_key.eq(&email_key),
                customers::profile.eq(profile),
                customers::data_key.eq(data_key),
            ))
            .execute(connection)?;
        bytes += encrypt_documents(connection, row.id, owner, &key)?;
        encrypted += 1;
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    Ok(encrypted)
}

/// Encrypts the images of a customer, and tells how large they are.
fn encrypt_documents(
    connection: &mut AnyConnection,
    customer: i64,
    owner: Owner<'_>,
    key: &CustomerKey,
) -> Result<usize> {
    let mut bytes = 0;
    for kind in [Kind::Front, Kind::Back] {
        let number = kind.document();
        let place = documents::customer_id.eq(customer).and(documents::kind.eq(number));
        let content: Option<Vec<u8>> = documents::table
            .filter(place)
            .select(documents::content)
            .first(connection)
            .optional()?;
        if let Some(content) = content {
            bytes += content.len();
            diesel::update(documents::table.filter(place))
                .set(documents::content.eq(key.seal(owner, kind, &content)?))
                .execute(connection)?;
        }
    }
    Ok(bytes)
}

/// A customer's key as it is stored, and whose it is.
#[derive(Queryable)]
struct Wrapped {
    id: i64,
    account: i64,
    public_id: String,
    email_key: String,
    data_key: Vec<u8>,
}

/// Wraps the keys of customers behind the one with the id `after` and up to `newest`. Tells how many it looked at, how many
/// it wrapped, and the last one's id.
fn rewrap_some(connection: &mut AnyConnection, sealing: &Sealing, after: i64, newest: i64) -> Result<(u64, u64, i64)> {
    let rows: Vec<Wrapped> = customers::table
        .filter(customers::id.gt(after))
        .filter(customers::id.le(newest))
        .filter(customers::data_key.is_not_null())
        .order(customers::id)
        .limit(BATCH)
        .select((
            customers::id,
            customers::account_id,
            customers::public_id,
            customers::email_key,
            customers::data_key.assume_not_null(),
        ))
        .load(connection)?;
    let (mut wrapped, mut last) = (0, after);
    for row in &rows {
        let owner = Owner {
            account: row.account,
            public_id: &row.public_id,
            email_key: &row.email_key,
        };
        last = row.id;
        if let Some(anew) = sealing.rewrap(owner, &row.data_key)? {
            diesel::update(customers::table.filter(customers::id.eq(row.id)))
                .set(customers::data_key.eq(anew))
                .execute(connection)?;
            wrapped += 1;
        }
    }
    Ok((rows.len() as u64, wrapped, last))
}

/// What SQLite says of a checkpoint.
#[derive(QueryableByName)]
struct Checkpoint {
    /// Not 0 when a reader or a writer was in the way.
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// Rewrites the files of the database without what was deleted or replaced.
fn scrub(connection: &mut AnyConnection) -> Result<()> {
    match connection {
        AnyConnection::Sqlite(connection) => {
            connection.batch_execute("VACUUM")?;
            let checkpoint: Checkpoint = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result(connection)?;
            if checkpoint.busy != 0 {
                return Err(Error::Unavailable(
                    "another program reads the store, and its WAL still has clear text: run this again".to_owned(),
                ));
            }
        }
        AnyConnection::Postgres(connection) => {
            connection.batch_execute("SET statement_timeout = 0")?;
            // Each alone: it runs in no transaction, and many statements at once are one. What the planner knows of the
            // columns quotes them.
            for table in ["customers", "documents", "idempotency_keys", "webhooks"] {
                connection.batch_execute(&format!("VACUUM (FULL, ANALYZE) {table}"))?;
            }
        }
    }
    Ok(())
}
