//! Seals the history: what was written is chained in blocks by hashes, off the path of those who write, so that a row that
//! is changed, removed or slipped in later is found.
//!
//! A block holds an entry for each of its rows, in the order of the feed, and a hash of these and of the block before. To
//! hide a change from here is to make that block, and every one behind it, anew: whoever has noted the hash of one of those
//! elsewhere finds that too. No key is needed to check, and no hash has personal data in it: what is sealed of a customer
//! who is erased still fits.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use diesel::{
    Connection, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, RunQueryDsl, SelectableHelper,
    connection::SimpleConnection,
    dsl::{count_star, sql},
    sql_types::{BigInt, Bool, Nullable},
};

use crate::{
    AccountName, Error, Location, Migrate, Place, Result, Settings, Store,
    connection::{AnyConnection, Connector},
    feed::{self, ChangeRow},
    hash::Value,
    migrations, model,
    schema::{
        accounts, audit_blocks,
        status_changes::{self, dsl},
    },
};

/// The most rows of a block.
const BLOCK: usize = 1_000;

/// The most blocks that are made in one transaction.
const AT_ONCE: usize = 8;

/// How long rows wait for more of them, so that a block is worth it. Until then a change of them is not found.
const WAIT: Duration = Duration::from_secs(60);

/// How many accounts are looked at in one query.
const ACCOUNTS: i64 = 500;

/// How many bytes of a row's hash an entry has.
const DIGEST: usize = 16;

/// The bytes of an entry: customer, version and the beginning of the row's hash.
const ENTRY: usize = 8 + 8 + DIGEST;

/// The bytes of a block's hash.
const HASH: usize = 32;

/// Before the first row of any account. The least number of all is none that PostgreSQL reads as one.
const BEGINNING: Place = Place {
    epoch: -i64::MAX,
    xid: -i64::MAX,
    position: -i64::MAX,
};

/// What was sealed of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// How many rows.
    pub rows: u64,
    /// Whether there may be more that could be sealed now.
    pub more: bool,
}

impl Store {
    /// Accounts with rows that are not sealed, behind the one with the id `after`, and the last account that was looked at;
    /// none when that was the last of all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unsealed_accounts(&self, after: i64, deadline: Instant) -> Result<(Vec<i64>, Option<i64>)> {
        self.pool
            .read(deadline, move |connection| {
                // The last row, and the last that is sealed: each is the end of an index.
                let looked: Vec<(i64, Option<i64>, Option<i64>)> = accounts::table
                    .filter(accounts::id.gt(after))
                    .order(accounts::id)
                    .limit(ACCOUNTS)
                    .select((
                        accounts::id,
                        sql::<Nullable<BigInt>>(
                            "(SELECT s.position FROM status_changes s WHERE s.account_id = accounts.id
                              ORDER BY s.epoch DESC, s.xid DESC, s.position DESC LIMIT 1)",
                        ),
                        sql::<Nullable<BigInt>>(
                            "(SELECT b.position FROM audit_blocks b WHERE b.account_id = accounts.id
                              ORDER BY b.number DESC LIMIT 1)",
                        ),
                    ))
                    .load(connection)?;
                let last = (looked.len() as i64 == ACCOUNTS).then(|| looked.last().map(|(id, ..)| *id));
                let unsealed = looked.iter().filter(|(_, row, sealed)| row != sealed);
                Ok((unsealed.map(|(id, ..)| *id).collect(), last.flatten()))
            })
            .await
    }

    /// Seals the next rows of an account, a few blocks at a time, if they are as many as a block has, if they have waited for
    /// long enough, or if it is to be done `now`. When another gateway does so at the same moment, one of the two does
    /// nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn seal(&self, account: i64, now: bool, deadline: Instant) -> Result<Sealed> {
        let blocks = self
            .pool
            .read(deadline, move |connection| next_blocks(connection, account, now))
            .await?;
        if blocks.is_empty() {
            return Ok(Sealed::default());
        }
        let rows: usize = blocks.iter().map(|block| block.entries.len() / ENTRY).sum();
        let inserted = self
            .pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    for block in &blocks {
                        diesel::insert_into(audit_blocks::table)
                            .values(block)
                            .execute(connection)?;
                    }
                    Ok(())
                })
            })
            .await;
        match inserted {
            Ok(()) => Ok(Sealed {
                rows: rows as u64,
                more: rows == BLOCK * AT_ONCE,
            }),
            // Another was first: its blocks have the numbers.
            Err(Error::Collision(_)) => Ok(Sealed { rows: 0, more: true }),
            Err(error) => Err(error),
        }
    }
}

/// A block as it is stored.
#[derive(Insertable, Queryable)]
#[diesel(table_name = audit_blocks)]
struct Block {
    account_id: i64,
    number: i64,
    epoch: i64,
    xid: i64,
    position: i64,
    entries: Vec<u8>,
    hash: Vec<u8>,
    seal_time: i64,
}

impl Block {
    /// Where its last row stands.
    fn place(&self) -> Place {
        Place {
            epoch: self.epoch,
            xid: self.xid,
            position: self.position,
        }
    }

    /// What its hash must be behind a block with another one; none in the first.
    fn hash_behind(&self, before: Option<&[u8]>) -> [u8; HASH] {
        let mut hash = blake3::Hasher::new_derive_key("dcams 2026-11-25 block of the history");
        before.map(<[u8]>::to_vec).add_to(&mut hash);
        for number in [
            self.account_id,
            self.number,
            self.epoch,
            self.xid,
            self.position,
            self.seal_time,
        ] {
            number.add_to(&mut hash);
        }
        self.entries.add_to(&mut hash);
        hash.finalize().into()
    }
}

/// The columns of a [`Block`], in its order.
const COLUMNS: (
    audit_blocks::account_id,
    audit_blocks::number,
    audit_blocks::epoch,
    audit_blocks::xid,
    audit_blocks::position,
    audit_blocks::entries,
    audit_blocks::hash,
    audit_blocks::seal_time,
) = (
    audit_blocks::account_id,
    audit_blocks::number,
    audit_blocks::epoch,
    audit_blocks::xid,
    audit_blocks::position,
    audit_blocks::entries,
    audit_blocks::hash,
    audit_blocks::seal_time,
);

/// The entry of a row.
fn entry(row: &ChangeRow) -> [u8; ENTRY] {
    let mut hash = blake3::Hasher::new_derive_key("dcams 2026-11-25 row of the history");
    // Not the epoch and the transaction, which nobody is shown: they say where the row stands, as its entry does.
    row.position.add_to(&mut hash);
    row.account_id.add_to(&mut hash);
    row.customer_id.add_to(&mut hash);
    row.version.add_to(&mut hash);
    row.from_status.add_to(&mut hash);
    row.to_status.add_to(&mut hash);
    row.actor.add_to(&mut hash);
    row.face.add_to(&mut hash);
    row.request_id.add_to(&mut hash);
    row.change_time.add_to(&mut hash);
    row.kind.add_to(&mut hash);
    row.reason.add_to(&mut hash);
    let mut entry = [0; ENTRY];
    entry[..8].copy_from_slice(&row.customer_id.to_be_bytes());
    entry[8..16].copy_from_slice(&row.version.to_be_bytes());
    hash.finalize_xof().fill(&mut entry[16..]);
    entry
}

/// The customer and the version of an entry.
fn names(entry: &[u8]) -> (i64, i64) {
    let number = |at: usize| {
        entry
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, i64::from_be_bytes)
    };
    (number(0), number(8))
}

fn place(row: &ChangeRow) -> Place {
    Place {
        epoch: row.epoch,
        xid: row.xid,
        position: row.position,
    }
}

/// The blocks that an account is to have next; none if its rows wait for more, or if there are none.
fn next_blocks(connection: &mut AnyConnection, account: i64, now: bool) -> Result<Vec<Block>> {
    let last: Option<Block> = audit_blocks::table
        .filter(audit_blocks::account_id.eq(account))
        .order(audit_blocks::number.desc())
        .select(COLUMNS)
        .first(connection)
        .optional()?;
    let after = last.as_ref().map_or_else(Place::default, Block::place);
    let settled = feed::ranges(connection, after)?;
    let most = u32::try_from(BLOCK * AT_ONCE).unwrap_or(u32::MAX);
    let rows = feed::rows_within(connection, account, settled, most)?;
    let seal_time = model::now();
    let waited = last.as_ref().is_none_or(|last| {
        // A clock that went back does not keep rows waiting.
        let since = seal_time.abs_diff(last.seal_time);
        u128::from(since) >= WAIT.as_micros()
    });
    let (mut number, mut before) = last.map_or((0, None), |last| (last.number, Some(last.hash)));
    let mut blocks = Vec::new();
    for rows in rows.chunks(BLOCK) {
        let Some(end) = rows.last().filter(|_| now || waited || rows.len() == BLOCK) else {
            break;
        };
        number += 1;
        let mut block = Block {
            account_id: account,
            number,
            epoch: end.epoch,
            xid: end.xid,
            position: end.position,
            entries: rows.iter().flat_map(entry).collect(),
            hash: Vec::new(),
            seal_time,
        };
        block.hash = block.hash_behind(before.as_deref()).into();
        before = Some(block.hash.clone());
        blocks.push(block);
    }
    Ok(blocks)
}

/// The last block of an account, to be noted elsewhere: `ACCOUNT:NUMBER:HASH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The name of the account.
    pub account: String,
    /// The number of the block.
    pub number: i64,
    /// Its hash.
    pub hash: [u8; HASH],
}

/// The text is no head of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ACCOUNT:NUMBER:HASH is needed, as `audit verify` prints it")]
pub struct InvalidHead;

impl FromStr for Head {
    type Err = InvalidHead;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidHead> {
        let mut parts = text.rsplitn(3, ':');
        let (Some(hash), Some(number), Some(account)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidHead);
        };
        Ok(Self {
            account: account
                .parse::<AccountName>()
                .map_err(|_| InvalidHead)?
                .as_str()
                .to_owned(),
            number: number.parse().ok().filter(|number| *number > 0).ok_or(InvalidHead)?,
            hash: *blake3::Hash::from_hex(hash).map_err(|_| InvalidHead)?.as_bytes(),
        })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.account,
            self.number,
            blake3::Hash::from_bytes(self.hash).to_hex()
        )
    }
}

/// What was done to a row since it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// It holds something else.
    Changed,
    /// It is gone.
    Removed,
    /// It was not there.
    SlippedIn,
    /// It stands elsewhere.
    Moved,
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "was changed",
            Self::Removed => "was removed",
            Self::SlippedIn => "was slipped in",
            Self::Moved => "was moved",
        })
    }
}

/// The first thing of an account's history that is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A row.
    Row {
        /// What was done to it.
        what: Tampering,
        /// What the customer is, or was, called outside; empty where nothing tells any more.
        customer_id: String,
        /// The number of the row for the customer.
        version: i64,
        /// The number of the row in the store; none where it is gone.
        sequence: Option<i64>,
        /// The block that it is in, or would have to be in.
        block: i64,
    },
    /// The block with this number is gone.
    BlockMissing(i64),
    /// The block with this number does not fit the one before, or itself.
    BlockChanged(i64),
    /// The noted head of this number is not a block of the account.
    HeadMissing(i64),
    /// There is no such account, and its head was noted.
    AccountMissing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row {
                what,
                customer_id,
                version,
                sequence,
                block,
            } => {
                let customer = if customer_id.is_empty() { "unknown" } else { customer_id };
                write!(f, "the row of customer {customer}, version {version}, ")?;
                if let Some(sequence) = sequence {
                    write!(f, "sequence {sequence}, ")?;
                }
                write!(f, "{what} (block {block})")
            }
            Self::BlockMissing(number) => write!(f, "block {number} is missing"),
            Self::BlockChanged(number) => write!(f, "block {number} does not fit the chain"),
            Self::HeadMissing(number) => write!(f, "block {number} is not the one that was noted"),
            Self::AccountMissing => write!(f, "there is no such account"),
        }
    }
}

/// What an account's history was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The name of the account; its number where there is none any more.
    pub account: String,
    /// How many blocks fit, and everything in them.
    pub blocks: u64,
    /// How many rows these have.
    pub rows: u64,
    /// How many rows are not sealed yet; not counted where there is a fault.
    pub unsealed: u64,
    /// The last block, to be noted elsewhere.
    pub head: Option<Head>,
    /// What is wrong.
    pub fault: Option<Fault>,
}

/// How far an audit is, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditProgress {
    /// Those that were checked.
    pub done: u64,
    /// All there are.
    pub total: u64,
}

/// Checks the history of an account, or of all, against what was sealed of it, and that the noted heads are among the
/// blocks. It only reads, needs no key, and can be done while gateways serve. It blocks.
///
/// # Errors
/// [`Error::AccountNotFound`]; [`Error::Schema`] when the schema is not up to date; those of the database.
pub fn verify(
    location: &Location,
    account: Option<&AccountName>,
    heads: &[Head],
    mut progress: impl FnMut(AuditProgress),
) -> Result<Vec<Audited>> {
    let connector = Connector::new(location.clone(), &Settings::default());
    migrations::run(&connector, Migrate::Check)?;
    let connection = &mut connector.connect()?;
    if let AnyConnection::Postgres(connection) = connection {
        // To count what is not sealed takes its time where nothing is.
        connection.batch_execute("SET statement_timeout = 0")?;
    }
    let chosen = chosen(connection, account)?;
    let mut so_far = AuditProgress::default();
    for (id, _) in &chosen {
        so_far.total += count(
            audit_blocks::table
                .filter(audit_blocks::account_id.eq(id))
                .select(count_star())
                .first(connection)?,
        );
    }
    progress(so_far);
    let mut audited = Vec::new();
    for (id, name) in &chosen {
        let noted: Vec<&Head> = heads.iter().filter(|head| head.account == *name).collect();
        let mut walk = Walk {
            account: *id,
            last: None,
            blocks: 0,
            rows: 0,
        };
        let before = so_far.done;
        let fault = walk.go(connection, &noted, |blocks| {
            so_far.done = before + blocks;
            // There may be more by now.
            so_far.total = so_far.total.max(so_far.done);
            progress(so_far);
        })?;
        audited.push(walk.end(connection, name, fault)?);
    }
    if account.is_none() {
        for head in heads {
            if !audited.iter().any(|account| account.account == head.account) {
                audited.push(Audited {
                    account: head.account.clone(),
                    blocks: 0,
                    rows: 0,
                    unsealed: 0,
                    head: None,
                    fault: Some(Fault::AccountMissing),
                });
            }
        }
    }
    Ok(audited)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The accounts that are meant: ids and names. Blocks of an account that is not there any more count as well.
fn chosen(connection: &mut AnyConnection, account: Option<&AccountName>) -> Result<Vec<(i64, String)>> {
    let all = accounts::table
        .order(accounts::id)
        .select((accounts::id, accounts::name));
    let mut chosen: Vec<(i64, String)> = match account {
        Some(name) => {
            let chosen = all.filter(accounts::name.eq(name.as_str())).load(connection)?;
            return if chosen.is_empty() {
                Err(Error::AccountNotFound)
            } else {
                Ok(chosen)
            };
        }
        None => all.load(connection)?,
    };
    let sealed: Vec<i64> = audit_blocks::table
        .select(audit_blocks::account_id)
        .distinct()
        .order(audit_blocks::account_id)
        .load(connection)?;
    for id in sealed {
        if !chosen.iter().any(|(known, _)| *known == id) {
            chosen.push((id, id.to_string()));
        }
    }
    Ok(chosen)
}

/// A check of an account, block by block.
struct Walk {
    account: i64,
    /// The last block that fits.
    last: Option<Block>,
    blocks: u64,
    rows: u64,
}

impl Walk {
    /// Goes through all blocks, as far as they and their rows are as they were sealed.
    fn go(
        &mut self,
        connection: &mut AnyConnection,
        heads: &[&Head],
        mut done: impl FnMut(u64),
    ) -> Result<Option<Fault>> {
        loop {
            let expected = self.last.as_ref().map_or(1, |last| last.number + 1);
            let next: Option<Block> = audit_blocks::table
                .filter(audit_blocks::account_id.eq(self.account))
                .filter(audit_blocks::number.gt(self.last.as_ref().map_or(i64::MIN, |last| last.number)))
                .order(audit_blocks::number)
                .select(COLUMNS)
                .first(connection)
                .optional()?;
            let Some(block) = next else {
                let beyond = heads.iter().find(|head| head.number >= expected);
                return Ok(beyond.map(|head| Fault::HeadMissing(head.number)));
            };
            if block.number != expected {
                return Ok(Some(Fault::BlockMissing(expected)));
            }
            let before = self.last.as_ref().map(|last| &*last.hash);
            if block.hash != block.hash_behind(before) || block.entries.is_empty() || block.entries.len() % ENTRY != 0 {
                return Ok(Some(Fault::BlockChanged(block.number)));
            }
            let noted = heads.iter().find(|head| head.number == block.number);
            if noted.is_some_and(|head| head.hash != *block.hash) {
                return Ok(Some(Fault::HeadMissing(block.number)));
            }
            if let Some(fault) = self.compare(connection, &block)? {
                return Ok(Some(fault));
            }
            self.blocks += 1;
            self.rows += (block.entries.len() / ENTRY) as u64;
            self.last = Some(block);
            done(self.blocks);
        }
    }

    /// The last place whose rows fit.
    fn place(&self) -> Place {
        self.last.as_ref().map_or(BEGINNING, Block::place)
    }

    /// Compares the rows of a block with its entries.
    fn compare(&self, connection: &mut AnyConnection, block: &Block) -> Result<Option<Fault>> {
        let entries: Vec<&[u8]> = block.entries.chunks_exact(ENTRY).collect();
        // One more than there should be.
        let most = u32::try_from(entries.len()).unwrap_or(u32::MAX).saturating_add(1);
        // Also what is not settled: a row of a block always was, and the server may be another one since.
        let behind = feed::all_ranges(connection, self.place());
        let mut rows = feed::rows_within(connection, self.account, behind, most)?;
        rows.retain(|row| place(row) <= block.place());
        for (at, sealed) in entries.iter().enumerate() {
            let Some(row) = rows.get(at) else {
                return self.lost(connection, block, sealed).map(Some);
            };
            let found = entry(row);
            if found == **sealed {
                continue;
            }
            let named = (row.customer_id, row.version);
            if named == names(sealed) {
                return fault(connection, Tampering::Changed, named, Some(row.position), block).map(Some);
            }
            // Whichever of the two does not belong here.
            return match entries.iter().any(|entry| names(entry) == named) {
                true => self.lost(connection, block, sealed),
                false => fault(connection, Tampering::SlippedIn, named, Some(row.position), block),
            }
            .map(Some);
        }
        match rows.get(entries.len()) {
            Some(row) => {
                let named = (row.customer_id, row.version);
                fault(connection, Tampering::SlippedIn, named, Some(row.position), block).map(Some)
            }
            None => Ok(None),
        }
    }

    /// What became of a row that is not where it was sealed.
    fn lost(&self, connection: &mut AnyConnection, block: &Block, sealed: &[u8]) -> Result<Fault> {
        let (customer, version) = names(sealed);
        let found: Option<ChangeRow> = dsl::status_changes
            .filter(dsl::customer_id.eq(customer))
            .filter(dsl::version.eq(version))
            .select(ChangeRow::as_select())
            .first(connection)
            .optional()?;
        let (what, sequence) = match &found {
            None => (Tampering::Removed, None),
            Some(row) if entry(row) == *sealed => (Tampering::Moved, Some(row.position)),
            Some(row) => (Tampering::Changed, Some(row.position)),
        };
        fault(connection, what, (customer, version), sequence, block)
    }

    /// What was found, once nothing more is looked at.
    fn end(self, connection: &mut AnyConnection, name: &str, fault: Option<Fault>) -> Result<Audited> {
        let unsealed = match fault {
            Some(_) => 0,
            None => {
                let Place { epoch, xid, position } = self.place();
                count(
                    status_changes::table
                        .filter(dsl::account_id.eq(self.account))
                        .filter(sql::<Bool>(&format!(
                            "(epoch, xid, position) > ({epoch}, {xid}, {position})"
                        )))
                        .select(count_star())
                        .first(connection)?,
                )
            }
        };
        let head = self.last.filter(|_| fault.is_none()).and_then(|block| {
            Some(Head {
                account: name.to_owned(),
                number: block.number,
                hash: block.hash.try_into().ok()?,
            })
        });
        Ok(Audited {
            account: name.to_owned(),
            blocks: self.blocks,
            rows: self.rows,
            unsealed,
            head,
            fault,
        })
    }
}

/// A fault of a row, with what its customer is called outside.
fn fault(
    connection: &mut AnyConnection,
    what: Tampering,
    (customer, version): (i64, i64),
    sequence: Option<i64>,
    block: &Block,
) -> Result<Fault> {
    let mut names = feed::public_ids(connection, [customer])?;
    Ok(Fault::Row {
        what,
        customer_id: names.remove(&customer).unwrap_or_default(),
        version,
        sequence,
        block: block.number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let head = Head {
            account: "shop".to_owned(),
            number: 17,
            hash: [0xa5; HASH],
        };
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        let hash = "a5".repeat(HASH);
        for text in [
            "".to_owned(),
            "shop".to_owned(),
            format!("17:{hash}"),
            format!("shop:0:{hash}"),
            format!("shop:x:{hash}"),
            format!("shop:17:{}", &hash[1..]),
            format!(":17:{hash}"),
        ] {
            assert_eq!(text.parse::<Head>(), Err(InvalidHead), "{text}");
        }
    }

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let row = ChangeRow {
            position: 1,
            account_id: 2,
            customer_id: 3,
            version: 4,
            from_status: Some(2),
            to_status: 1,
            actor: "shop".to_owned(),
            face: 2,
            request_id: "request".to_owned(),
            change_time: 5,
            kind: 1,
            reason: None,
            epoch: 6,
            xid: 7,
        };
        let sealed = entry(&row);
        assert_eq!(names(&sealed), (3, 4));
        let block = Block {
            account_id: 2,
            number: 1,
            epoch: 6,
            xid: 7,
            position: 1,
            entries: sealed.to_vec(),
            hash: Vec::new(),
            seal_time: 8,
        };
        assert_eq!(
            blake3::Hash::from_bytes(block.hash_behind(None)).to_hex().as_str(),
            "a8a7b010aa001619d4494a241ed3afe3bda68afbc84c500830f13e42b356cd48"
        );
    }
}
