//! The history of statuses: who changed what when, and what a status was at a time.
//!
//! For a customer the number of a row grows with its time, so that a time is found by halving: what a page costs does not
//! grow with the history.

use std::time::{Instant, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SelectableHelper, dsl::sql,
    sql_types::Bool,
};

use crate::{
    EmailKey, Error, FeedItem, Principal, Result, StatusChange, Store,
    connection::{self, AnyConnection},
    customers::look,
    feed::{self, ChangeRow},
    hash::Value,
    model,
    schema::{customers, erasures, status_changes::dsl},
};

/// The first byte of a page token: how the rest is to be read.
const FORMAT: u8 = 1;

/// How many bytes of a page token say which query it is of.
const QUERY: usize = 8;

/// Whose changes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of all customers of the account, also of erased ones.
    Account,
    /// Those of the customer with this address.
    Email(EmailKey),
    /// Those of the customer that is, or was, called so outside.
    Id(String),
}

/// Which changes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Whose.
    pub whose: Whose,
    /// Only changes at this time or later.
    pub since: Option<SystemTime>,
    /// Only changes before this time.
    pub until: Option<SystemTime>,
    /// Whether the latest come first.
    pub latest_first: bool,
}

/// A page of changes: those of a customer by their versions, those of an account by their times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// The changes, with their customers as they are now.
    pub changes: Vec<FeedItem>,
    /// What asks for the next page; none when there is no more now.
    pub next: Option<String>,
}

impl Store {
    /// Reads changes, at most `most`: the first page, or the one that a token of the page before asks for.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`] and [`Error::InvalidPageToken`].
    pub async fn changes(
        &self,
        principal: Principal,
        query: HistoryQuery,
        token: Option<String>,
        most: u32,
        deadline: Instant,
    ) -> Result<HistoryPage> {
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                let customer = match &query.whose {
                    Whose::Email(email) => {
                        let email_key = sealing.index(principal.account, email);
                        Some(look(connection, &principal, &email_key)?.id)
                    }
                    Whose::Id(public_id) => {
                        feed::confirm(connection, &principal)?;
                        Some(by_public_id(connection, principal.account, public_id)?)
                    }
                    Whose::Account => {
                        feed::confirm(connection, &principal)?;
                        None
                    }
                };
                let range = Range::of(&query);
                let bound = range.bound_to(principal.account, customer);
                let after = token.as_deref().map(|token| read_token(token, bound)).transpose()?;
                let most = most.max(1);
                let mut rows = connection::by_index(connection, |connection| match customer {
                    Some(customer) => of_customer(connection, customer, &range, after, i64::from(most) + 1),
                    None => of_account(connection, principal.account, &range, after, i64::from(most) + 1),
                })?;
                let more = rows.len() > most as usize;
                rows.truncate(most as usize);
                let next = rows.last().filter(|_| more).map(|row| match customer {
                    Some(_) => make_token(bound, (row.version, 0)),
                    None => make_token(bound, (row.change_time, row.position)),
                });
                let changes = feed::named(connection, rows)?;
                Ok(HistoryPage {
                    changes: feed::with_customers(connection, &sealing, principal.account, changes)?,
                    next,
                })
            })
            .await
    }

    /// The last changes of a customer's status, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`].
    pub async fn history(
        &self,
        principal: Principal,
        email: EmailKey,
        limit: u32,
        deadline: Instant,
    ) -> Result<Vec<StatusChange>> {
        let email_key = self.sealing.index(principal.account, &email);
        self.pool
            .read(deadline, move |connection| {
                let customer = look(connection, &principal, &email_key)?.id;
                let mut rows = connection::by_index(connection, |connection| {
                    of_customer(connection, customer, &Range::LATEST, None, limit.into())
                })?;
                rows.reverse();
                feed::named(connection, rows)
            })
            .await
    }

    /// The change that had set a customer's status at a time.
    ///
    /// # Errors
    /// [`Error::StaleCredentials`] before [`Error::CustomerNotFound`], which is also said when the customer was registered
    /// later.
    pub async fn status_at(
        &self,
        principal: Principal,
        email: EmailKey,
        time: SystemTime,
        deadline: Instant,
    ) -> Result<FeedItem> {
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                let email_key = sealing.index(principal.account, &email);
                let row = look(connection, &principal, &email_key)?;
                let range = Range {
                    until: model::micros(time).saturating_add(1),
                    ..Range::LATEST
                };
                let rows = connection::by_index(connection, |connection| {
                    of_customer(connection, row.id, &range, None, 1)
                })?;
                let change = feed::named(connection, rows)?.pop().ok_or(Error::CustomerNotFound)?;
                Ok(FeedItem {
                    change,
                    customer: Some(row.open(&sealing, principal.account, &email_key)?),
                })
            })
            .await
    }
}

/// The times that are asked for, as the database has them, and the direction.
struct Range {
    /// The first.
    since: i64,
    /// The first that is no longer meant.
    until: i64,
    latest_first: bool,
}

impl Range {
    /// All times, the latest first.
    const LATEST: Self = Self {
        since: i64::MIN,
        until: i64::MAX,
        latest_first: true,
    };

    fn of(query: &HistoryQuery) -> Self {
        Self {
            since: query.since.map_or(i64::MIN, rounded_up),
            until: query.until.map_or(i64::MAX, rounded_up),
            latest_first: query.latest_first,
        }
    }

    /// What names a query in its tokens. Nobody can tell from it what was asked for.
    fn bound_to(&self, account: i64, customer: Option<i64>) -> [u8; QUERY] {
        let mut hash = blake3::Hasher::new_derive_key("dcams 2026-11-25 page tokens of the history");
        account.add_to(&mut hash);
        customer.add_to(&mut hash);
        self.since.add_to(&mut hash);
        self.until.add_to(&mut hash);
        self.latest_first.add_to(&mut hash);
        let mut bound = [0; QUERY];
        hash.finalize_xof().fill(&mut bound);
        bound
    }
}

/// The first time of the database that is not before a time.
fn rounded_up(time: SystemTime) -> i64 {
    let micros = model::micros(time);
    micros.saturating_add(i64::from(model::time(micros) < time))
}

/// What asks for the rows behind one, which is told by two numbers.
fn make_token(bound: [u8; QUERY], (one, two): (i64, i64)) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&bound);
    bytes.extend_from_slice(&one.to_be_bytes());
    bytes.extend_from_slice(&two.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The two numbers of a token, if it is of this query.
fn read_token(token: &str, bound: [u8; QUERY]) -> Result<(i64, i64)> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let numbers = bytes
        .as_deref()
        .and_then(|bytes| bytes.strip_prefix(&[FORMAT])?.strip_prefix(&bound))
        .and_then(|rest| <[u8; 16]>::try_from(rest).ok())
        .map(u128::from_be_bytes)
        .ok_or(Error::InvalidPageToken)?;
    // The upper half, and the lower one.
    Ok(((numbers >> 64) as i64, numbers as i64))
}

/// The id of a customer that is, or was, called so.
fn by_public_id(connection: &mut AnyConnection, account: i64, public_id: &str) -> Result<i64> {
    // The account is compared here: one more condition, and PostgreSQL may read all its customers to look for it.
    let living: Option<(i64, i64)> = customers::table
        .filter(customers::public_id.eq(public_id))
        .select((customers::account_id, customers::id))
        .first(connection)
        .optional()?;
    let found = match living {
        Some(found) => Some(found),
        None => erasures::table
            .filter(erasures::public_id.eq(public_id))
            .select((erasures::account_id, erasures::customer_id))
            .first(connection)
            .optional()?,
    };
    found
        .filter(|(of, _)| *of == account)
        .map(|(_, id)| id)
        .ok_or(Error::CustomerNotFound)
}

/// Rows of a customer by their versions, behind the one with the version that a token had.
fn of_customer(
    connection: &mut AnyConnection,
    customer: i64,
    range: &Range,
    after: Option<(i64, i64)>,
    most: i64,
) -> Result<Vec<ChangeRow>> {
    let mut first = match range.since {
        i64::MIN => i64::MIN,
        since => first_version_at(connection, customer, since)?,
    };
    let mut end = match range.until {
        i64::MAX => i64::MAX,
        until => first_version_at(connection, customer, until)?,
    };
    match after {
        Some((version, _)) if range.latest_first => end = end.min(version),
        Some((version, _)) => first = first.max(version.saturating_add(1)),
        None => {}
    }
    let rows = dsl::status_changes
        .filter(dsl::customer_id.eq(customer))
        .filter(dsl::version.ge(first).and(dsl::version.lt(end)))
        .limit(most)
        .select(ChangeRow::as_select());
    Ok(if range.latest_first {
        rows.order(dsl::version.desc()).load(connection)?
    } else {
        rows.order(dsl::version).load(connection)?
    })
}

/// The first version of a customer that was made at a time or later, be it there or still to come.
fn first_version_at(connection: &mut AnyConnection, customer: i64, time: i64) -> Result<i64> {
    let rows = dsl::status_changes.filter(dsl::customer_id.eq(customer));
    let last: Option<i64> = rows
        .order(dsl::version.desc())
        .select(dsl::version)
        .first(connection)
        .optional()?;
    // What is before `first` is too early, and what is not before `end` is not.
    let (mut first, mut end) = (1, last.unwrap_or_default().saturating_add(1));
    while first < end {
        let middle = first + (end - first) / 2;
        let found: Option<(i64, i64)> = rows
            .filter(dsl::version.ge(middle).and(dsl::version.lt(end)))
            .order(dsl::version)
            .select((dsl::version, dsl::change_time))
            .first(connection)
            .optional()?;
        match found {
            Some((version, change_time)) if change_time < time => first = version + 1,
            _ => end = middle,
        }
    }
    Ok(first)
}

/// Rows of an account by their times, behind the one with the time and the position that a token had.
fn of_account(
    connection: &mut AnyConnection,
    account: i64,
    range: &Range,
    after: Option<(i64, i64)>,
    most: i64,
) -> Result<Vec<ChangeRow>> {
    let behind = if range.latest_first { "<" } else { ">" };
    // Each is one range of the index. A comparison of pairs is none on SQLite.
    let parts = match after {
        None => vec!["1 = 1".to_owned()],
        Some((time, position)) => vec![
            format!("change_time = {time} AND position {behind} {position}"),
            format!("change_time {behind} {time}"),
        ],
    };
    let mut parts = parts.into_iter();
    let mut rows: Vec<ChangeRow> = Vec::new();
    while let Some(part) = parts.next().filter(|_| (rows.len() as i64) < most) {
        let some = dsl::status_changes
            .filter(dsl::account_id.eq(account))
            .filter(dsl::change_time.ge(range.since).and(dsl::change_time.lt(range.until)))
            .filter(sql::<Bool>(&format!("({part})")))
            .limit(most - rows.len() as i64)
            .select(ChangeRow::as_select());
        let some: Vec<ChangeRow> = if range.latest_first {
            some.order((dsl::change_time.desc(), dsl::position.desc()))
                .load(connection)?
        } else {
            some.order((dsl::change_time, dsl::position)).load(connection)?
        };
        rows.extend(some);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_token_is_read_by_its_own_query_only() {
        let range = |since| Range { since, ..Range::LATEST };
        let bound = range(1).bound_to(1, None);
        for numbers in [(0, 0), (-1, 1), (i64::MAX, i64::MIN)] {
            let token = make_token(bound, numbers);
            assert_eq!(read_token(&token, bound).unwrap(), numbers);
            for other in [
                range(2).bound_to(1, None),
                range(1).bound_to(2, None),
                range(1).bound_to(1, Some(1)),
            ] {
                assert!(matches!(read_token(&token, other), Err(Error::InvalidPageToken)));
            }
            for spoilt in ["", "a", &token[1..], &format!("{token}AAAA"), "é"] {
                assert!(
                    matches!(read_token(spoilt, bound), Err(Error::InvalidPageToken)),
                    "{spoilt}"
                );
            }
        }
    }

    #[test]
    fn times_between_those_of_the_database_are_rounded_up() {
        let at = |nanos| rounded_up(UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!([at(0), at(1), at(999), at(1_000), at(1_001)], [0, 1, 1, 1, 2]);
    }
}
