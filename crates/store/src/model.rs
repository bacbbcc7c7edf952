//! The types that a store speaks in.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Email, EmailKey, Field, statements::Row};

/// The verification status of a customer. The numbers are those of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Status {
    /// Verified.
    Pass = 1,
    /// Not decided; a new customer begins here.
    Pending = 2,
    /// Refused.
    Fail = 3,
}

/// The text is none of `PASS`, `PENDING`, `FAIL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the status is none of PASS, PENDING, FAIL")]
pub struct InvalidStatus;

impl Status {
    /// The status as it is written everywhere: upper case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Pending => "PENDING",
            Self::Fail => "FAIL",
        }
    }

    pub(crate) fn from_number(number: i16) -> Option<Self> {
        [Self::Pass, Self::Pending, Self::Fail]
            .into_iter()
            .find(|status| *status as i16 == number)
    }
}

/// Reads a status in any letter case.
impl FromStr for Status {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        [Self::Pass, Self::Pending, Self::Fail]
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text.trim()))
            .ok_or(InvalidStatus)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a change came in. The numbers are those of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Face {
    /// The JSON endpoint.
    Rest = 1,
    /// The RPCs.
    Grpc = 2,
    /// The command line.
    Cli = 3,
}

impl Face {
    /// The face as the history shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::Cli => "cli",
        }
    }

    pub(crate) fn from_number(number: i16) -> Option<Self> {
        [Self::Rest, Self::Grpc, Self::Cli]
            .into_iter()
            .find(|face| *face as i16 == number)
    }
}

/// The name of an account, which is the user name of its credentials: 1 to 128 bytes, no `:`, no control character, no
/// white space at its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountName(String);

/// The text cannot name an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account's name has 1 to 128 bytes, no ':', no control character and no white space at its ends")]
pub struct InvalidAccountName;

impl AccountName {
    /// The most bytes that a name may have.
    pub const MAX_BYTES: usize = 128;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = InvalidAccountName;

    fn from_str(text: &str) -> Result<Self, InvalidAccountName> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len()) && text.trim().len() == text.len();
        if !fits || text.chars().any(|c| c == ':' || c.is_control()) {
            return Err(InvalidAccountName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// On whose behalf something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The account whose customers are seen.
    pub account: i64,
    /// What gives the right to.
    pub authority: Authority,
}

/// What gives the right to act for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Credentials that were verified at this credential version. They hold while the account is enabled and at that
    /// version; the store checks it in the transaction of the operation.
    Credentials {
        /// The account's credential version when they were verified.
        version: i64,
    },
    /// Whoever runs the command line beside the database.
    Operator,
}

/// Where a change comes from: what the history keeps of its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name of the account, or of the tool, that asked for it.
    pub actor: String,
    /// Where it came in.
    pub face: Face,
    /// The id of the request.
    pub request_id: String,
}

/// What must be so for a change to be made; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The etag that the customer must have.
    pub etag: Option<String>,
    /// The status that the customer must have.
    pub status: Option<Status>,
}

impl Condition {
    /// Whether it holds for what is stored.
    pub(crate) fn holds(&self, row: &Row) -> bool {
        row.is_tagged(self.etag.as_deref()) && self.status.is_none_or(|status| status as i16 == row.status)
    }
}

/// A key that a caller makes up for a change, so that the same again is not made twice: 1 to 128 printable ASCII
/// characters, no space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The text cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 128 printable ASCII characters, and no space")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The most characters that a key may have.
    pub const MAX: usize = 128;

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        if !(1..=Self::MAX).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidIdempotencyKey);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A change of status that is asked for.
#[derive(Clone, Debug)]
pub struct Change {
    /// On whose behalf.
    pub principal: Principal,
    /// Which customer.
    pub email: EmailKey,
    /// The status to set.
    pub status: Status,
    /// What must be so before.
    pub condition: Condition,
    /// Why, for the history; it outlives the customer's erasure. At most [`Change::REASON`] characters, none of them a control
    /// character.
    pub reason: Option<String>,
    /// What the caller calls the change.
    pub key: Option<IdempotencyKey>,
    /// Where it comes from.
    pub origin: Origin,
}

impl Change {
    /// The most characters of a reason.
    pub const REASON: usize = 200;

    /// A change that depends on nothing.
    pub fn new(principal: Principal, email: EmailKey, status: Status, origin: Origin) -> Self {
        Self {
            principal,
            email,
            status,
            condition: Condition::default(),
            reason: None,
            key: None,
            origin,
        }
    }
}

/// A customer that is to be erased.
#[derive(Clone, Debug)]
pub struct Erase {
    /// On whose behalf.
    pub principal: Principal,
    /// Which customer.
    pub email: EmailKey,
    /// What the caller calls the change.
    pub key: Option<IdempotencyKey>,
    /// Where it comes from.
    pub origin: Origin,
}

/// The personal attributes of a customer; what is not stored is empty.
///
/// Stored as one JSON record. A name here is a name on disk: add, and never rename.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// The address as it was registered.
    pub email: String,
    /// The given name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub first_name: String,
    /// The family name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_name: String,
    /// Street and house number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The city.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub city: String,
    /// The state or province.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// The postal code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zip: String,
    /// The date of birth as YYYYMMDD.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub date_of_birth: String,
    /// The telephone number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phone: String,
}

/// Personal data: never printed by accident.
impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Profile(..)")
    }
}

/// The images of a customer's identity document; what is not there is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Documents {
    /// The front side.
    pub front: Bytes,
    /// The back side.
    pub back: Bytes,
}

impl Documents {
    /// The number of the front side in the database.
    pub(crate) const FRONT: i16 = 1;

    /// The number of the back side in the database.
    pub(crate) const BACK: i16 = 2;

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.front.len() + self.back.len()
    }
}

/// Personal data: never printed by accident.
impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Documents(..)")
    }
}

/// A customer to be registered, or to be changed when it is there. What is empty keeps what is stored, unless it is to be
/// cleared.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// The address. A customer that is there keeps the spelling that it was registered with.
    pub email: Email,
    /// The account's own reference.
    pub reference: String,
    /// The personal attributes; its `email` is not looked at.
    pub profile: Profile,
    /// The images of the identity document.
    pub documents: Documents,
    /// The status; none keeps what is stored, and a new customer is then PENDING.
    pub status: Option<Status>,
    /// What is cleared if it is empty here.
    pub cleared: Vec<Field>,
}

impl NewCustomer {
    /// A customer of whom only the address is known.
    pub fn new(email: Email) -> Self {
        Self {
            email,
            reference: String::new(),
            profile: Profile::default(),
            documents: Documents::default(),
            status: None,
            cleared: Vec::new(),
        }
    }

    /// Leaves nothing to be written but `fields`, and these also where they are empty.
    pub fn restrict(&mut self, fields: &[Field]) {
        for field in Field::ALL {
            if !fields.contains(&field) {
                self.forget(field);
            }
        }
        self.cleared = fields.to_vec();
    }

    fn forget(&mut self, field: Field) {
        let text = match field {
            Field::FirstName => &mut self.profile.first_name,
            Field::LastName => &mut self.profile.last_name,
            Field::Address => &mut self.profile.address,
            Field::City => &mut self.profile.city,
            Field::State => &mut self.profile.state,
            Field::Zip => &mut self.profile.zip,
            Field::DateOfBirth => &mut self.profile.date_of_birth,
            Field::Phone => &mut self.profile.phone,
            Field::Reference => &mut self.reference,
            Field::Front => return self.documents.front.clear(),
            Field::Back => return self.documents.back.clear(),
        };
        text.clear();
    }
}

/// A customer that is to be registered or changed on somebody's behalf.
pub struct Put {
    /// On whose behalf.
    pub principal: Principal,
    /// The customer.
    pub new: NewCustomer,
    /// The etag that the customer must have; it must then be there.
    pub etag: Option<String>,
    /// What the caller calls the change.
    pub key: Option<IdempotencyKey>,
    /// Where it comes from.
    pub origin: Origin,
    /// Held until it is done, whether or not the caller still waits: what its images take of a budget of memory.
    pub hold: Option<Box<dyn Send + Sync>>,
}

/// What was registered or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The customer as it is now.
    pub customer: Customer,
    /// Whether it is new.
    pub created: bool,
}

/// A customer as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The row; never shown outside.
    pub id: i64,
    /// What the customer is called outside: random, and never used again.
    pub public_id: String,
    /// The account's own reference for the customer.
    pub reference: String,
    /// The personal attributes.
    pub profile: Profile,
    /// The verification status.
    pub status: Status,
    /// Grows with every change of the customer.
    pub revision: i64,
    /// When the customer was registered.
    pub create_time: SystemTime,
    /// When the customer was last changed.
    pub update_time: SystemTime,
}

impl Customer {
    /// Names this state of the customer: another one, also of another customer with the same address, has another.
    pub fn etag(&self) -> String {
        etag(&self.public_id, self.revision)
    }
}

/// How many characters of the public id an etag has. With them, a customer that was erased and registered anew does not
/// come to the etags that it had.
pub(crate) const ETAG_PREFIX: usize = 8;

/// What [`Customer::etag`] says of a row.
pub(crate) fn etag(public_id: &str, revision: i64) -> String {
    format!("{}-{revision}", public_id.get(..ETAG_PREFIX).unwrap_or(public_id))
}

/// A row of the history: a change of status, or the erasure of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// Where the row stands in the feed.
    pub place: Place,
    /// The row of the customer; never shown outside.
    pub customer: i64,
    /// What the customer is, or was, called outside.
    pub customer_id: String,
    /// The number of the row for this customer, dense from 1.
    pub version: i64,
    /// The status before; none when the customer was registered.
    pub from: Option<Status>,
    /// The status after.
    pub to: Status,
    /// Whether the customer was erased; the statuses are then both the last one.
    pub erased: bool,
    /// Where the change came from.
    pub origin: Origin,
    /// Why, as the caller put it.
    pub reason: Option<String>,
    /// When it was made.
    pub time: SystemTime,
}

/// Where a row of the history stands among all: the order in which whoever follows them misses none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Grows when the rows go on being written on another server.
    pub epoch: i64,
    /// The transaction that wrote it, on PostgreSQL.
    pub xid: i64,
    /// The number of the row.
    pub position: i64,
}

/// Work that somebody waits for until a deadline.
pub(crate) fn expired(deadline: Instant) -> bool {
    deadline <= Instant::now()
}

/// The time as the database keeps it: microseconds since 1970 UTC.
pub(crate) fn now() -> i64 {
    micros(SystemTime::now())
}

/// A time as the database keeps it.
pub(crate) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time of the database.
pub(crate) fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_any_letter_case() {
        assert_eq!("pAsS".parse(), Ok(Status::Pass));
        assert_eq!(" PENDING ".parse(), Ok(Status::Pending));
        assert_eq!("FAILED".parse::<Status>(), Err(InvalidStatus));
        assert_eq!("".parse::<Status>(), Err(InvalidStatus));
    }

    #[test]
    fn an_account_has_a_name_that_basic_credentials_can_carry() {
        assert!("shop 1".parse::<AccountName>().is_ok());
        for name in ["", " a", "a ", "a:b", "a\nb", &"a".repeat(129)] {
            assert!(name.parse::<AccountName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn personal_data_is_not_printed() {
        let profile = Profile {
            last_name: "canary".to_owned(),
            ..Profile::default()
        };
        assert!(!format!("{profile:?}").contains("canary"));
    }
}
