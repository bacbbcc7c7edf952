//! API tokens: what acts for an account without its password, and what each may do.
//!
//! A token holds while its account is enabled, until it is revoked, and until it expires. To revoke one adds to the account's
//! credential version, which every operation compares in its own transaction: so that holds on the next request of every
//! gateway, and the statements of the hot path know nothing of tokens. All else that was verified of the account is then
//! verified anew, once. When a token expires is known beforehand, and for whoever remembers it to see to.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use diesel::{Connection, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, RunQueryDsl};

use crate::{
    AccountName, Error, Result, Store,
    accounts::id_of,
    connection, encryption,
    model::{self, micros},
    schema::{accounts, api_tokens},
};

/// A kind of operation that a token may be good for. The numbers are those of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Read customers, their statuses and the history.
    Read = 1,
    /// Set statuses, register customers and change them.
    Write = 2,
    /// Read and write the images of documents.
    Documents = 4,
    /// Erase customers.
    Admin = 8,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Documents, Self::Admin];

    /// The scope as it is written everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Documents => "documents",
            Self::Admin => "admin",
        }
    }
}

/// The text is none of `read`, `write`, `documents`, `admin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of read, write, documents, admin")]
pub struct InvalidScope;

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or(InvalidScope)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope: what a password is good for.
    pub const ALL: Self = Self(15);

    /// Whether the scope is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// Whether all of the others are among them.
    pub const fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The set as a number, for whoever keeps it and does not look at it.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set behind a number that [`Self::bits`] gave.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    fn from_number(number: i16) -> Result<Self> {
        u8::try_from(number)
            .ok()
            .filter(|bits| (1..=Self::ALL.0).contains(bits))
            .map(Self)
            .ok_or_else(|| Error::Internal(format!("{number} is no set of scopes")))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u8))
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(scope as u8)
    }
}

/// As `read,write`.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes = Scope::ALL.into_iter().filter(|scope| self.contains(*scope));
        f.pad(&scopes.map(Scope::as_str).collect::<Vec<_>>().join(","))
    }
}

/// The hash of a token.
pub type TokenHash = [u8; 32];

/// A token that is to be known.
#[derive(Clone)]
pub struct NewToken {
    /// What it is called.
    pub id: String,
    /// Its hash.
    pub hash: TokenHash,
    /// What it may do; one scope at least.
    pub scopes: Scopes,
    /// What it is for, in the words of who made it; may be empty. At most [`Token::LABEL`] characters.
    pub label: String,
    /// From when on it no longer counts.
    pub expires: Option<SystemTime>,
}

/// What there is to tell of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is called.
    pub id: String,
    /// What it may do.
    pub scopes: Scopes,
    /// What it is for.
    pub label: String,
    /// When it was made.
    pub created: SystemTime,
    /// From when on it no longer counts, or did not.
    pub expires: Option<SystemTime>,
    /// When it was revoked.
    pub revoked: Option<SystemTime>,
    /// About when it was last used, see [`Store::note_token_use`].
    pub used: Option<SystemTime>,
}

impl Token {
    /// The most characters of a label.
    pub const LABEL: usize = 100;
}

/// What it takes to judge a token that was presented.
#[derive(Clone)]
pub struct StoredToken {
    /// The row of the account; never shown outside.
    pub account: i64,
    /// The name of the account.
    pub account_name: String,
    /// The account's credential version.
    pub credential_version: i64,
    /// Whether the account is enabled and the token was not revoked.
    pub valid: bool,
    /// Its hash.
    pub hash: TokenHash,
    /// What it may do.
    pub scopes: Scopes,
    /// From when on it no longer counts.
    pub expires: Option<SystemTime>,
    /// About when it was last used.
    pub used: Option<SystemTime>,
}

/// Without the hash, as of an account.
impl fmt::Debug for StoredToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredToken")
            .field("account", &self.account)
            .field("valid", &self.valid)
            .finish_non_exhaustive()
    }
}

/// How old what is known of a token's last use may become before it is written anew.
const USE_KEPT: Duration = Duration::from_secs(60 * 60);

impl Store {
    /// Makes a token known.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn create_token(&self, of: &AccountName, new: NewToken, deadline: Instant) -> Result<()> {
        let of = of.as_str().to_owned();
        self.pool
            .write(deadline, move |connection| {
                let account = id_of(connection, &of)?;
                diesel::insert_into(api_tokens::table)
                    .values((
                        api_tokens::account_id.eq(account),
                        api_tokens::public_id.eq(&new.id),
                        api_tokens::hash.eq(new.hash.as_slice()),
                        api_tokens::scopes.eq(i16::from(new.scopes.0)),
                        api_tokens::label.eq(&new.label),
                        api_tokens::create_time.eq(model::now()),
                        api_tokens::expire_time.eq(new.expires.map(micros)),
                    ))
                    .execute(connection)?;
                Ok(())
            })
            .await
    }

    /// All tokens of an account, the oldest first, also those that no longer count.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`].
    pub async fn tokens(&self, of: &AccountName, deadline: Instant) -> Result<Vec<Token>> {
        type Row = (String, i16, String, i64, Option<i64>, Option<i64>, Option<i64>);

        let account = self.account(of.as_str(), deadline).await?.id;
        self.pool
            .read(deadline, move |connection| {
                let rows: Vec<Row> = api_tokens::table
                    .filter(api_tokens::account_id.eq(account))
                    .order(api_tokens::id)
                    .select((
                        api_tokens::public_id,
                        api_tokens::scopes,
                        api_tokens::label,
                        api_tokens::create_time,
                        api_tokens::expire_time,
                        api_tokens::revoke_time,
                        api_tokens::use_time,
                    ))
                    .load(connection)?;
                let token = |(id, scopes, label, created, expires, revoked, used): Row| {
                    Ok(Token {
                        id,
                        scopes: Scopes::from_number(scopes)?,
                        label,
                        created: model::time(created),
                        expires: expires.map(model::time),
                        revoked: revoked.map(model::time),
                        used: used.map(model::time),
                    })
                };
                rows.into_iter().map(token).collect()
            })
            .await
    }

    /// Revokes a token, for good. Gives the name of its account; none if there is no such token. It succeeds when that was
    /// done already.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn revoke_token(&self, called: &str, deadline: Instant) -> Result<Option<String>> {
        let called = called.to_owned();
        self.pool
            .write(deadline, move |connection| {
                connection.transaction(|connection| {
                    connection::take_write_lock(connection)?;
                    let found: Option<(i64, String)> = api_tokens::table
                        .inner_join(accounts::table.on(accounts::id.eq(api_tokens::account_id)))
                        .filter(api_tokens::public_id.eq(&called))
                        .select((accounts::id, accounts::name))
                        .first(connection)
                        .optional()?;
                    let Some((account, name)) = found else {
                        return Ok(None);
                    };
                    let now = model::now();
                    let revoked = diesel::update(api_tokens::table.filter(api_tokens::public_id.eq(&called)))
                        .filter(api_tokens::revoke_time.is_null())
                        .set(api_tokens::revoke_time.eq(now))
                        .execute(connection)?;
                    if revoked > 0 {
                        diesel::update(accounts::table.filter(accounts::id.eq(account)))
                            .set((
                                accounts::credential_version.eq(accounts::credential_version + 1_i64),
                                accounts::update_time.eq(now),
                            ))
                            .execute(connection)?;
                    }
                    Ok(Some(name))
                })
            })
            .await
    }

    /// What is known of the token that is called so, whether it counts or not.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store has been encrypted since it was opened.
    pub async fn token(&self, called: &str, deadline: Instant) -> Result<Option<StoredToken>> {
        type Row = (
            (i64, String, i64, bool),
            (Vec<u8>, i16, Option<i64>, Option<i64>, Option<i64>),
        );

        let called = called.to_owned();
        let sealing = self.sealing.clone();
        self.pool
            .read(deadline, move |connection| {
                encryption::confirm(connection, &sealing)?;
                let row: Option<Row> = api_tokens::table
                    .inner_join(accounts::table.on(accounts::id.eq(api_tokens::account_id)))
                    .filter(api_tokens::public_id.eq(&called))
                    .select((
                        (
                            accounts::id,
                            accounts::name,
                            accounts::credential_version,
                            accounts::enabled,
                        ),
                        (
                            api_tokens::hash,
                            api_tokens::scopes,
                            api_tokens::expire_time,
                            api_tokens::revoke_time,
                            api_tokens::use_time,
                        ),
                    ))
                    .first(connection)
                    .optional()?;
                let Some(((account, account_name, credential_version, enabled), token)) = row else {
                    return Ok(None);
                };
                let (hash, scopes, expires, revoked, used) = token;
                Ok(Some(StoredToken {
                    account,
                    account_name,
                    credential_version,
                    valid: enabled && revoked.is_none(),
                    hash: hash
                        .try_into()
                        .map_err(|_| Error::Internal("the hash of a token cannot be read".to_owned()))?,
                    scopes: Scopes::from_number(scopes)?,
                    expires: expires.map(model::time),
                    used: used.map(model::time),
                }))
            })
            .await
    }

    /// Notes that a token is in use, unless that was noted in the last hour. `known` is when it was last.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_token_use(&self, called: &str, known: Option<SystemTime>, deadline: Instant) -> Result<()> {
        let now = SystemTime::now();
        // What is noted of a time to come, by another clock, stays.
        if known.is_some_and(|used| now.duration_since(used).is_ok_and(|age| age < USE_KEPT) || used > now) {
            return Ok(());
        }
        let called = called.to_owned();
        self.pool
            .write(deadline, move |connection| {
                diesel::update(api_tokens::table.filter(api_tokens::public_id.eq(&called)))
                    .set(api_tokens::use_time.eq(micros(now)))
                    .execute(connection)?;
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_written_by_their_names() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert_eq!(Scopes::from(scope).to_string(), scope.as_str());
        }
        for text in ["", "Read", "all", "read,write"] {
            assert_eq!(text.parse::<Scope>(), Err(InvalidScope), "{text}");
        }
        assert_eq!(Scopes::ALL, Scope::ALL.into_iter().collect());
        assert_eq!(Scopes::ALL.to_string(), "read,write,documents,admin");
    }

    #[test]
    fn a_set_includes_its_parts_and_nothing_else() {
        let both: Scopes = [Scope::Read, Scope::Admin].into_iter().collect();
        assert!(both.contains(Scope::Read) && both.contains(Scope::Admin));
        assert!(!both.contains(Scope::Write) && !both.contains(Scope::Documents));
        assert!(both.include(Scope::Read.into()) && both.include(both));
        assert!(!both.include(Scopes::ALL) && Scopes::ALL.include(both));
    }

    #[test]
    fn a_number_that_is_no_set_is_a_damaged_database() {
        assert_eq!(Scopes::from_number(9).unwrap().to_string(), "read,admin");
        for number in [0, 16, -1, 256] {
            assert!(Scopes::from_number(number).is_err(), "{number}");
        }
    }
}
