//! Copies a whole store to another one, on the same kind of database or the other kind.
//!
//! Rows go as they are stored, with their ids. What is sealed is bound to ids that stay, so that it needs no key here.
//! Pages follow each table's key and each is a transaction, so that a copy that was interrupted goes on behind the last
//! row that the target has. Every step knows the tables as [`TABLES`] only; [`copied!`] says what is in them.

use diesel::{
    Connection, ExecuteCopyFromDsl, ExpressionMethods, Insertable, QueryDsl, Queryable, RunQueryDsl,
    connection::SimpleConnection,
    dsl::{max, sql},
    sql_types::{BigInt, Nullable},
};

use crate::{
    Error, Location, Migrate, Result, Settings,
    connection::{AnyConnection, Connector},
    hash::Value,
    migrations,
    schema::{
        accounts, api_tokens, audit_blocks, customers, documents, encryption, erasures, feed, idempotency_keys,
        status_changes, webhook_deliveries, webhooks,
    },
};

/// The most rows of a page. None but a document is larger than some KiB.
const PAGE: i64 = 1_000;

/// After how many bytes of images a page ends, however few rows it has. The last customer's images come on top.
const PAGE_BYTES: i64 = 16 * 1024 * 1024;

/// What a copy is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStage {
    /// It compares what the target had already with the source.
    Comparing,
    /// It copies rows.
    Copying,
    /// It compares both stores at the end.
    Verifying,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// What it is doing.
    pub stage: CopyStage,
    /// The table that it is at.
    pub table: &'static str,
    /// The rows of the table that are done.
    pub done: u64,
    /// All that there are to do in it. When stores are compared, those of both.
    pub total: u64,
}

/// A table that both stores hold alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// The BLAKE3 hash of all of them in the order of their keys, as hex digits.
    pub checksum: String,
}

/// Copies the store at `from`, which is only read, to the one at `to`, and compares them at the end. A target that holds a
/// part of the source already, such as a copy that was interrupted, gets the rest. It blocks. No gateway may use either
/// store meanwhile: a change that is made under the copy is found at the end.
///
/// # Errors
/// [`Error::Differs`] when the target holds anything that the source does not, and nothing was written; or when the two
/// differ in the end. [`Error::Schema`] when the source's schema is not up to date. Those of the databases; then the same
/// again goes on.
pub fn copy(from: &Location, to: &Location, mut progress: impl FnMut(CopyProgress)) -> Result<Vec<CopiedTable>> {
    if from == to {
        return Err(Error::Differs("a store cannot be copied to itself".to_owned()));
    }
    let source = &mut Side::open(from, Migrate::Check)?;
    let target = &mut Side::open(to, Migrate::Auto)?;
    // All of them before the first row is written.
    for table in TABLES {
        refuse_foreign(table, source, target, &mut progress)?;
    }
    for table in TABLES {
        copy_table(table, source, target, &mut progress)?;
    }
    keep_ids_used(source, target)?;
    carry_feed(source, target)?;
    let mut copied = Vec::new();
    for table in TABLES {
        copied.push(verify(table, source, target, &mut progress)?);
    }
    Ok(copied)
}

/// One of the two stores.
struct Side<'a> {
    location: &'a Location,
    connection: AnyConnection,
}

impl<'a> Side<'a> {
    fn open(location: &'a Location, migrate: Migrate) -> Result<Self> {
        let connector = Connector::new(location.clone(), &Settings::default());
        let connect = || {
            if migrate == Migrate::Check && connector.is_absent() {
                return Err(Error::Schema("there is no such file".to_owned()));
            }
            migrations::run(&connector, migrate)?;
            let mut connection = connector.connect()?;
            if let AnyConnection::Postgres(connection) = &mut connection {
                // To count a large table takes its time.
                connection.batch_execute("SET statement_timeout = 0")?;
            }
            Ok(connection)
        };
        Ok(Self {
            location,
            connection: connect().map_err(|error: Error| error.at(location))?,
        })
    }

    /// Asks this store something. An error says which of the two it was.
    fn ask<T>(&mut self, question: impl FnOnce(&mut AnyConnection) -> Result<T>) -> Result<T> {
        question(&mut self.connection).map_err(|error| error.at(self.location))
    }
}

/// A table, whatever its rows are. Keys grow; only in `documents` can rows share one, and those are never parted.
trait Table {
    fn name(&self) -> &'static str;

    fn count(&self, connection: &mut AnyConnection) -> Result<u64>;

    /// The largest key.
    fn last(&self, connection: &mut AnyConnection) -> Result<Option<i64>>;

    /// The last key of the page that comes behind the key `after`; none if no key up to `until` does.
    fn page_end(&self, connection: &mut AnyConnection, after: i64, until: i64) -> Result<Option<i64>>;

    /// Copies the rows behind `after` and up to `until` in one transaction, and tells how many those are.
    fn copy(&self, source: &mut Side<'_>, target: &mut Side<'_>, after: i64, until: i64) -> Result<u64>;

    /// Adds the rows behind `after` and up to `until` to a hash, and tells how many those are.
    fn hash(&self, connection: &mut AnyConnection, after: i64, until: i64, hash: &mut blake3::Hasher) -> Result<u64>;
}

/// Makes a [`Table`] of each table, from its columns, its key, and what there is to know of a row's size beforehand.
macro_rules! copied {
    ($($row:ident = $table:ident($($column:ident: $type:ty),+), key($key:ident: $key_type:ty), order($order:expr), size($size:literal);)+) => {$(
        #[derive(Insertable, Queryable)]
        #[diesel(table_name = $table, treat_none_as_default_value = false)]
        struct $row {
            $($column: $type,)+
        }

        impl $row {
            fn load(connection: &mut AnyConnection, after: i64, until: i64) -> Result<Vec<Self>> {
                Ok($table::table
                    .filter($table::$key.gt(narrow!(after, $key_type)))
                    .filter($table::$key.le(narrow!(until, $key_type)))
                    .order($order)
                    .select(($($table::$column,)+))
                    .load(connection)?)
            }

            fn insert(rows: &[Self], connection: &mut AnyConnection) -> Result<()> {
                match connection {
                    AnyConnection::Sqlite(connection) => {
                        for row in rows {
                            diesel::insert_into($table::table).values(row).execute(connection)?;
                        }
                    }
                    // COPY takes the ids that it is given, which INSERT does not.
                    AnyConnection::Postgres(connection) => {
                        diesel::copy_from($table::table).from_insertable(rows).execute(connection)?;
                    }
                }
                Ok(())
            }
        }

        impl Table for $table::table {
            fn name(&self) -> &'static str {
                stringify!($table)
            }

            fn count(&self, connection: &mut AnyConnection) -> Result<u64> {
                let count: i64 = $table::table.count().get_result(connection)?;
                Ok(u64::try_from(count).unwrap_or_default())
            }

            fn last(&self, connection: &mut AnyConnection) -> Result<Option<i64>> {
                let last: Option<$key_type> = $table::table.select(max($table::$key)).get_result(connection)?;
                Ok(last.map(i64::from))
            }

            fn page_end(&self, connection: &mut AnyConnection, after: i64, until: i64) -> Result<Option<i64>> {
                let rows: Vec<($key_type, i64)> = $table::table
                    .filter($table::$key.gt(narrow!(after, $key_type)))
                    .filter($table::$key.le(narrow!(until, $key_type)))
                    .order($order)
                    .limit(PAGE)
                    .select(($table::$key, sql::<BigInt>(concat!("CAST(", $size, " AS BIGINT)"))))
                    .load(connection)?;
                Ok(end_of(rows.into_iter().map(|(key, size)| (i64::from(key), size))))
            }

            fn copy(&self, source: &mut Side<'_>, target: &mut Side<'_>, after: i64, until: i64) -> Result<u64> {
                let rows = source.ask(|connection| $row::load(connection, after, until))?;
                target.ask(|connection| connection.transaction(|connection| $row::insert(&rows, connection)))?;
                Ok(rows.len() as u64)
            }

            fn hash(
                &self,
                connection: &mut AnyConnection,
                after: i64,
                until: i64,
                hash: &mut blake3::Hasher,
            ) -> Result<u64> {
                let rows = $row::load(connection, after, until)?;
                for row in &rows {
                    $(row.$column.add_to(hash);)+
                }
                Ok(rows.len() as u64)
            }
        }
    )+};
}

/// A key as its column has it. The ends of what is asked for lie beyond all keys.
macro_rules! narrow {
    ($key:expr, $type:ty) => {
        <$type>::try_from($key).unwrap_or(if $key < 0 { <$type>::MIN } else { <$type>::MAX })
    };
}

copied! {
    EncryptionRow = encryption(id: i32, state: i16, index_key: Vec<u8>), key(id: i32), order(encryption::id), size("0");

    AccountRow = accounts(
        id: i64,
        name: String,
        password_hash: String,
        credential_version: i64,
        enabled: bool,
        create_time: i64,
        update_time: i64
    ), key(id: i64), order(accounts::id), size("0");

    CustomerRow = customers(
        id: i64,
        account_id: i64,
        email_key: String,
        public_id: String,
        reference: String,
        profile: Vec<u8>,
        data_key: Option<Vec<u8>>,
        status: i16,
        status_version: i64,
        revision: i64,
        create_time: i64,
        update_time: i64
    ), key(id: i64), order(customers::id), size("0");

    DocumentRow = documents(
        customer_id: i64,
        kind: i16,
        content: Vec<u8>,
        upload_time: i64
    ), key(customer_id: i64), order((documents::customer_id, documents::kind)), size("length(content)");

    StatusChangeRow = status_changes(
        position: i64,
        account_id: i64,
        customer_id: i64,
        version: i64,
        from_status: Option<i16>,
        to_status: i16,
        actor: String,
        face: i16,
        request_id: String,
        change_time: i64,
        kind: i16,
        reason: Option<String>,
        epoch: i64,
        xid: i64
    ), key(position: i64), order(status_changes::position), size("0");

    ErasureRow = erasures(
        customer_id: i64,
        account_id: i64,
        public_id: String,
        actor: String,
        face: i16,
        request_id: String,
        erase_time: i64
    ), key(customer_id: i64), order(erasures::customer_id), size("0");

    IdempotencyKeyRow = idempotency_keys(
        id: i64,
        account_id: i64,
        key: String,
        content: Vec<u8>,
        operation: i16,
        key_time: i64,
        customer_id: i64,
        created: bool,
        reference: String,
        profile: Option<Vec<u8>>,
        status: i16,
        status_version: i64,
        revision: i64,
        update_time: i64
    ), key(id: i64), order(idempotency_keys::id), size("0");

    AuditBlockRow = audit_blocks(
        id: i64,
        account_id: i64,
        number: i64,
        epoch: i64,
        xid: i64,
        position: i64,
        entries: Vec<u8>,
        hash: Vec<u8>,
        seal_time: i64
    ), key(id: i64), order(audit_blocks::id), size("length(entries)");

    WebhookRow = webhooks(
        id: i64,
        account_id: i64,
        public_id: String,
        url: String,
        secret: Vec<u8>,
        old_secret: Option<Vec<u8>>,
        old_secret_until: i64,
        create_time: i64,
        epoch: i64,
        xid: i64,
        position: i64,
        lease_holder: String,
        lease_until: i64,
        failures: i32,
        pause_until: i64
    ), key(id: i64), order(webhooks::id), size("0");

    WebhookDeliveryRow = webhook_deliveries(
        id: i64,
        webhook_id: i64,
        position: i64,
        customer_id: i64,
        attempts: i32,
        first_time: i64,
        next_time: i64,
        parked: bool,
        last_error: String
    ), key(id: i64), order(webhook_deliveries::id), size("0");

    ApiTokenRow = api_tokens(
        id: i64,
        account_id: i64,
        public_id: String,
        hash: Vec<u8>,
        scopes: i16,
        label: String,
        create_time: i64,
        expire_time: Option<i64>,
        revoke_time: Option<i64>,
        use_time: Option<i64>
    ), key(id: i64), order(api_tokens::id), size("0");
}

/// All tables of a store but those that are the database's own, each behind those that it refers to. Of `feed`,
/// [`carry_feed`] takes what is the store's; `attempts` tells of transactions of the source's server.
const TABLES: [&dyn Table; 11] = [
    &encryption::table,
    &accounts::table,
    &customers::table,
    &documents::table,
    &status_changes::table,
    &erasures::table,
    &idempotency_keys::table,
    &audit_blocks::table,
    &webhooks::table,
    &webhook_deliveries::table,
    &api_tokens::table,
];

/// The last key of a page, of the keys and sizes of rows.
fn end_of(rows: impl Iterator<Item = (i64, i64)>) -> Option<i64> {
    let mut bytes = 0;
    rows.take_while(|(_, size)| {
        let begins_within = bytes < PAGE_BYTES;
        bytes += size;
        begins_within
    })
    .last()
    .map(|(key, _)| key)
}

/// What is compared of a table.
#[derive(PartialEq, Eq)]
struct Digest {
    rows: u64,
    hash: blake3::Hash,
}

/// Reads a table up to the key `until`, and tells after each page how many rows that were.
fn digest(table: &dyn Table, side: &mut Side<'_>, until: i64, mut read: impl FnMut(u64)) -> Result<Digest> {
    side.ask(|connection| {
        let mut hash = blake3::Hasher::new();
        let (mut rows, mut after) = (0, i64::MIN);
        while let Some(end) = table.page_end(connection, after, until)? {
            let page = table.hash(connection, after, end, &mut hash)?;
            rows += page;
            after = end;
            read(page);
        }
        Ok(Digest {
            rows,
            hash: hash.finalize(),
        })
    })
}

/// Reads a table in both stores, up to the key `until`.
fn digest_both(
    table: &dyn Table,
    (source, target): (&mut Side<'_>, &mut Side<'_>),
    until: i64,
    stage: CopyStage,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(Digest, Digest)> {
    let mut so_far = CopyProgress {
        stage,
        table: table.name(),
        done: 0,
        total: target.ask(|connection| table.count(connection))?.saturating_mul(2),
    };
    progress(so_far);
    let mut read = |rows| {
        so_far.done += rows;
        progress(so_far);
    };
    Ok((
        digest(table, source, until, &mut read)?,
        digest(table, target, until, &mut read)?,
    ))
}

/// Makes sure that what the target holds of a table is a beginning of what the source holds.
fn refuse_foreign(
    table: &dyn Table,
    source: &mut Side<'_>,
    target: &mut Side<'_>,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<()> {
    let Some(last) = target.ask(|connection| table.last(connection))? else {
        return Ok(());
    };
    let to = target.location;
    let (theirs, ours) = digest_both(table, (source, target), last, CopyStage::Comparing, progress)?;
    match theirs == ours {
        true => Ok(()),
        false => Err(Error::Differs(format!(
            "{to} holds {} that are not those of the source: nothing was copied; copy to an empty database",
            table.name()
        ))),
    }
}

/// Copies what the target does not have yet of a table.
fn copy_table(
    table: &dyn Table,
    source: &mut Side<'_>,
    target: &mut Side<'_>,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<()> {
    let mut so_far = CopyProgress {
        stage: CopyStage::Copying,
        table: table.name(),
        done: target.ask(|connection| table.count(connection))?,
        total: source.ask(|connection| table.count(connection))?,
    };
    progress(so_far);
    let mut after = target.ask(|connection| table.last(connection))?.unwrap_or(i64::MIN);
    while let Some(end) = source.ask(|connection| table.page_end(connection, after, i64::MAX))? {
        so_far.done += table.copy(source, target, after, end)?;
        after = end;
        progress(so_far);
    }
    Ok(())
}

/// Finds a table to be the same in both stores.
fn verify(
    table: &dyn Table,
    source: &mut Side<'_>,
    target: &mut Side<'_>,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<CopiedTable> {
    let (theirs, ours) = digest_both(table, (source, target), i64::MAX, CopyStage::Verifying, progress)?;
    if theirs != ours {
        return Err(Error::Differs(format!(
            "the {} of the two stores differ ({} of the source, {} of the copy): stop all gateways on both, and copy again",
            table.name(),
            theirs.rows,
            ours.rows
        )));
    }
    Ok(CopiedTable {
        name: table.name(),
        rows: ours.rows,
        checksum: ours.hash.to_hex().to_string(),
    })
}

/// The tables whose keys the database makes up, and the columns of these.
const NUMBERED: [(&dyn Table, &str); 8] = [
    (&accounts::table, "id"),
    (&customers::table, "id"),
    (&status_changes::table, "position"),
    (&idempotency_keys::table, "id"),
    (&audit_blocks::table, "id"),
    (&webhooks::table, "id"),
    (&webhook_deliveries::table, "id"),
    (&api_tokens::table, "id"),
];

/// Makes sure that the target gives no id again that was ever given in the source, not even that of a customer who was
/// erased and was the last one: its history is still there.
fn keep_ids_used(source: &mut Side<'_>, target: &mut Side<'_>) -> Result<()> {
    for (table, column) in NUMBERED {
        let used = source.ask(|connection| last_used(connection, table, column))?;
        target.ask(|connection| {
            // Never back: the target may have given more.
            let used = used.max(last_used(connection, table, column)?);
            connection.transaction(|connection| go_on_behind(connection, table.name(), column, used))
        })?;
    }
    Ok(())
}

/// The largest number that a column has ever been given; 0 if none.
fn last_used(connection: &mut AnyConnection, table: &dyn Table, column: &str) -> Result<i64> {
    let name = table.name();
    let counter = match connection {
        // Only for AUTOINCREMENT is there a row.
        AnyConnection::Sqlite(_) => format!("(SELECT seq FROM sqlite_sequence WHERE name = '{name}')"),
        // Null for whoever may read the tables only.
        AnyConnection::Postgres(_) => format!(
            "(SELECT last_value FROM pg_sequences
               WHERE to_regclass(format('%I.%I', schemaname, sequencename))
                     = pg_get_serial_sequence('{name}', '{column}')::regclass)"
        ),
    };
    let counter: Option<i64> = diesel::select(sql::<Nullable<BigInt>>(&counter)).get_result(connection)?;
    let mut used = vec![counter, table.last(connection)?];
    if name == customers::table.name() {
        used.push(erasures::table.last(connection)?);
        used.push(
            status_changes::table
                .select(max(status_changes::customer_id))
                .get_result(connection)?,
        );
    }
    Ok(used.into_iter().flatten().max().unwrap_or(0).max(0))
}

/// Makes a column count on behind a number.
fn go_on_behind(connection: &mut AnyConnection, table: &str, column: &str, used: i64) -> Result<()> {
    match connection {
        // It counts behind the largest that is there, and nothing is ever deleted of it.
        AnyConnection::Sqlite(_) if table == "status_changes" => Ok(()),
        AnyConnection::Sqlite(connection) => Ok(connection.batch_execute(&format!(
            "UPDATE sqlite_sequence SET seq = {used} WHERE name = '{table}';
             INSERT INTO sqlite_sequence (name, seq)
             SELECT '{table}', {used} WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '{table}')"
        ))?),
        AnyConnection::Postgres(connection) => Ok(connection.batch_execute(&format!(
            "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), greatest({used}, 1), {used} > 0)"
        ))?),
    }
}

/// Gives the target the name that the source has in cursors, and a later epoch than any of the source's: cursors from before
/// the copy go on behind it, and what is written there comes behind all that was copied. Numbers of transactions mean nothing
/// on another server.
fn carry_feed(source: &mut Side<'_>, target: &mut Side<'_>) -> Result<()> {
    let (name, epoch): (String, i64) =
        source.ask(|connection| Ok(feed::table.select((feed::name, feed::epoch)).first(connection)?))?;
    let written: Option<i64> = source.ask(|connection| {
        Ok(status_changes::table
            .select(max(status_changes::epoch))
            .get_result(connection)?)
    })?;
    let next = epoch.max(written.unwrap_or_default()) + 1;
    target.ask(|connection| {
        connection.transaction(|connection| {
            let epoch: i64 = feed::table.select(feed::epoch).first(connection)?;
            // Never back: the target may have gone on since an earlier copy.
            let next = next.max(epoch);
            diesel::update(feed::table)
                .set((feed::name.eq(&name), feed::epoch.eq(next)))
                .execute(connection)?;
            if let AnyConnection::Postgres(connection) = connection {
                connection.batch_execute(&format!(
                    "ALTER TABLE status_changes ALTER COLUMN epoch SET DEFAULT {next}"
                ))?;
            }
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_by_bytes_and_has_a_row_at_least() {
        let end = |sizes: &[i64]| end_of((1..).zip(sizes.iter().copied()));
        assert_eq!(end(&[]), None);
        assert_eq!(end(&[0, 0, 0]), Some(3));
        assert_eq!(end(&[PAGE_BYTES * 2, 1]), Some(1));
        assert_eq!(end(&[PAGE_BYTES - 1, PAGE_BYTES, 1]), Some(2));
    }
}
