//! Seals the history: what was written is chained in blocks by hashes, off the path of those who write, so that a row that
//! is changed, removed or slipped in later is found.
//!
//! A block holds an entry for each of its rows, in the order of the feed, and a hash of these and of the block before. To
//! hide a change from here is to make that block, and every one behind it, anew: whoever has noted the hash of one of those
//! elsewhere finds that too. No key is needed to check, and no hash has personal data in it: what is sealed of a customer
//! who is erased still fits.

mod verify;

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use diesel::{
    Connection, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, RunQueryDsl, Selectable,
    SelectableHelper,
    dsl::sql,
    sql_types::{BigInt, Nullable},
};

pub use self::verify::{AuditProgress, Audited, Fault, Head, InvalidHead, Tampering, verify};
use crate::{
    Error, Place, Result, Store,
    connection::AnyConnection,
    feed::{self, ChangeRow},
    hash::Value,
    model,
    schema::{accounts, audit_blocks},
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
#[derive(Insertable, Queryable, Selectable)]
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

/// What the hashes of rows begin with.
static ROW: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("dcams 2026-11-25 row of the history"));

/// The entry of a row.
fn entry(row: &ChangeRow) -> [u8; ENTRY] {
    let mut hash = blake3::Hasher::new_from_context_key(&ROW);
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

/// The blocks that an account is to have next; none if its rows wait for more, or if there are none.
fn next_blocks(connection: &mut AnyConnection, account: i64, now: bool) -> Result<Vec<Block>> {
    let last: Option<Block> = audit_blocks::table
        .filter(audit_blocks::account_id.eq(account))
        .order(audit_blocks::number.desc())
        .select(Block::as_select())
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(verify::names(&sealed), (3, 4));
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
