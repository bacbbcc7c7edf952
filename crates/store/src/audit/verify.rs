//! Checks the history against what was sealed of it.

use std::{fmt, str::FromStr};

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SelectableHelper,
    connection::SimpleConnection,
    dsl::{count_star, sql},
    sql_types::Bool,
};

use super::{Block, ENTRY, HASH, entry};
use crate::{
    AccountName, Error, Location, Migrate, Place, Result, Settings,
    connection::{AnyConnection, Connector},
    feed::{self, ChangeRow},
    migrations,
    schema::{
        accounts, audit_blocks,
        status_changes::{self, dsl},
    },
};

/// Before the first row of any account. The least number of all is none that PostgreSQL reads as one.
const BEGINNING: Place = Place {
    epoch: -i64::MAX,
    xid: -i64::MAX,
    position: -i64::MAX,
};

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
                .select(Block::as_select())
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

/// The customer and the version of an entry.
pub(super) fn names(entry: &[u8]) -> (i64, i64) {
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
}
