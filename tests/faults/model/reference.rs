//! A store that is nothing but lists in memory, written from what a store promises and not from how one is made.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use store::{Error, Status};

use super::operations::{Address, Attributes, FIELDS, IMAGES, Op, Right, TEXTS, Tag, Who, Whose};

/// What a store answers, with nothing in it that a store chooses by itself: customers are numbered in the order in which the
/// model registered them, and times are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Count(u64),
    Customer(View),
    Registered {
        customer: View,
        created: bool,
    },
    Imported {
        created: u64,
        updated: u64,
    },
    Erased {
        customer: usize,
        rows: u64,
    },
    Documents {
        customer: View,
        bytes: [usize; 2],
    },
    Changes(Vec<RowView>),
    Customers(Vec<View>),
    Account {
        version: i64,
        enabled: bool,
    },
    /// The account of a token that was revoked.
    Revoked(Option<u8>),
    /// Numbers of tokens, and whether they were revoked.
    Tokens(Vec<(usize, bool)>),
    Refused(String),
}

/// A customer, as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub number: usize,
    pub email: String,
    pub texts: Vec<String>,
    pub status: Status,
    pub revision: i64,
}

/// A row of the history, as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowView {
    pub customer: usize,
    pub version: i64,
    pub from: Option<Status>,
    pub to: Status,
    pub erased: bool,
    pub request: String,
    pub reason: Option<String>,
    /// The customer as it is now; none where it is not told, or erased.
    pub now: Option<View>,
}

/// When the rows of the history were made, by customer and version: what a store says, and the model believes.
pub type Times = HashMap<(usize, i64), SystemTime>;

/// What the model does wrong, to show that the test finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// What comes again with the same key is made again.
    ForgetsKeys,
    /// Whatever the etag.
    IgnoresEtags,
    /// The same status again is a change.
    RecordsTheSame,
    /// What is empty empties.
    Blanks,
    /// Credentials hold although they were changed.
    NeverStale,
    /// A change may be seen from the microsecond after it.
    LateByOne,
}

struct Account {
    version: i64,
    enabled: bool,
}

#[derive(Clone)]
struct Customer {
    account: u8,
    address: u8,
    /// The address as it was registered.
    email: &'static str,
    texts: [u8; 9],
    images: [u8; 2],
    status: Status,
    revision: i64,
    version: i64,
    /// When it was registered.
    step: usize,
    erased: bool,
}

struct Row {
    step: usize,
    customer: usize,
    version: i64,
    from: Option<Status>,
    to: Status,
    erased: bool,
    request: String,
    reason: Option<u8>,
}

/// What was done under an idempotency key.
struct Kept {
    op: Op,
    customer: usize,
    answer: Answer,
}

pub struct Reference {
    flaw: Flaw,
    accounts: Vec<Account>,
    customers: Vec<Customer>,
    rows: Vec<Row>,
    keys: HashMap<(u8, u8), Kept>,
    /// Operations with keys, for those that repeat them.
    asked: Vec<Op>,
    tokens: Vec<(u8, bool)>,
    step: usize,
}

fn refused(error: &Error) -> Answer {
    Answer::Refused(error.to_string())
}

impl Reference {
    pub fn new(flaw: Flaw, accounts: u8) -> Self {
        let account = |_| Account {
            version: 1,
            enabled: true,
        };
        Self {
            flaw,
            accounts: (0..accounts).map(account).collect(),
            customers: Vec::new(),
            rows: Vec::new(),
            keys: HashMap::new(),
            asked: Vec::new(),
            tokens: Vec::new(),
            step: 0,
        }
    }

    /// What an operation comes to, by what there is now: which etag it means, and what it repeats.
    pub fn resolve(&self, op: &Op) -> Op {
        let tag = |who: Who, email: Address, tag: Tag| {
            let living = self.living(who.account, email);
            match (tag, living) {
                (Tag::Current, Some(number)) => Tag::Of(number, self.customers[number].revision),
                (Tag::Former, Some(number)) => Tag::Of(number, self.customers[number].revision - 1),
                (Tag::Current | Tag::Former, None) => Tag::Nonsense,
                (other, _) => other,
            }
        };
        let mut op = match op {
            Op::Repeat(back) if self.asked.is_empty() => return Op::Account { account: back % 2 },
            Op::Repeat(back) => self.asked[usize::from(*back) % self.asked.len()].clone(),
            other => other.clone(),
        };
        match &mut op {
            Op::Put {
                who, email, tag: of, ..
            }
            | Op::SetStatus {
                who, email, tag: of, ..
            } => {
                *of = tag(*who, *email, *of);
            }
            _ => {}
        }
        op
    }

    /// The number of the token that an operation makes or revokes.
    pub fn token_of(&self, op: &Op) -> Option<usize> {
        match op {
            Op::CreateToken { .. } => Some(self.tokens.len()),
            Op::RevokeToken { number } => Some(usize::from(*number) % self.tokens.len().max(1)),
            _ => None,
        }
    }

    /// Begins a step: what is written from now on is written at once, in whatever order.
    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// The customers that were registered in this step.
    pub fn registered_now(&self) -> impl Iterator<Item = (usize, u8, &'static str)> + '_ {
        let numbered = self.customers.iter().enumerate();
        numbered
            .filter(|(_, customer)| customer.step == self.step && !customer.erased)
            .map(|(number, customer)| (number, customer.account, customer.email))
    }

    /// Credentials that give the account its right: their version, or none for an operator.
    pub fn version(&self, who: Who) -> Option<i64> {
        let version = self.accounts[usize::from(who.account)].version;
        match who.right {
            Right::Current => Some(version),
            Right::Former => Some(version - 1),
            Right::Operator => None,
        }
    }

    /// How many customers there ever were.
    pub fn customers(&self) -> usize {
        self.customers.len()
    }

    /// The customer that has an address.
    pub fn living(&self, account: u8, email: Address) -> Option<usize> {
        let is =
            |customer: &Customer| (customer.account, customer.address) == (account, email.number) && !customer.erased;
        self.customers.iter().position(is)
    }

    /// When a customer's change with some number was made; none where there is no such customer.
    pub fn time_of(&self, times: &Times, account: u8, email: Address, change: u8) -> Option<SystemTime> {
        let number = self.living(account, email)?;
        let version = 1 + i64::from(change) % self.customers[number].version;
        times.get(&(number, version)).copied()
    }

    /// When some row of an account's history was made; none where there are none.
    pub fn time_of_row(&self, times: &Times, account: u8, row: u8) -> Option<SystemTime> {
        let rows: Vec<_> = self.rows_of(account).collect();
        let row = rows.get(usize::from(row) % rows.len().max(1))?;
        times.get(&(row.customer, row.version)).copied()
    }

    /// The step of a row of the history, and of a customer's registration.
    pub fn step_of(&self, customer: usize, version: i64) -> Option<usize> {
        let row = self
            .rows
            .iter()
            .find(|row| (row.customer, row.version) == (customer, version))?;
        Some(row.step)
    }

    fn rows_of(&self, account: u8) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .filter(move |row| self.customers[row.customer].account == account)
    }

    fn permit(&self, who: Who) -> Result<(), Error> {
        let enabled = self.accounts[usize::from(who.account)].enabled;
        match who.right {
            Right::Operator => Ok(()),
            Right::Current if enabled => Ok(()),
            Right::Former if self.flaw == Flaw::NeverStale => Ok(()),
            Right::Current | Right::Former => Err(Error::StaleCredentials),
        }
    }

    fn view(&self, number: usize) -> View {
        let customer = &self.customers[number];
        View {
            number,
            email: customer.email.trim().to_owned(),
            texts: customer
                .texts
                .iter()
                .map(|text| TEXTS[usize::from(*text)].to_owned())
                .collect(),
            status: customer.status,
            revision: customer.revision,
        }
    }

    fn row_view(&self, row: &Row, told: bool) -> RowView {
        let is_there = told && !self.customers[row.customer].erased;
        RowView {
            customer: row.customer,
            version: row.version,
            from: row.from,
            to: row.to,
            erased: row.erased,
            request: row.request.clone(),
            reason: row.reason.map(|reason| TEXTS[usize::from(reason)].to_owned()),
            now: is_there.then(|| self.view(row.customer)),
        }
    }

    /// Does what an operation asks for, if that is to write.
    pub fn write(&mut self, op: &Op, request: &str) -> Answer {
        if op.key().is_some() {
            self.asked.push(op.clone());
        }
        match self.try_write(op, request) {
            Ok(answer) => answer,
            Err(error) => refused(&error),
        }
    }

    fn try_write(&mut self, op: &Op, request: &str) -> Result<Answer, Error> {
        match op {
            Op::Put { who, .. } | Op::SetStatus { who, .. } | Op::Erase { who, .. } => {
                self.permit(*who)?;
                if let Some(kept) = op
                    .key()
                    .filter(|_| self.flaw != Flaw::ForgetsKeys)
                    .and_then(|key| self.keys.get(&key))
                {
                    return self.repeated(op, kept);
                }
                let (answer, customer) = self.change(op, request)?;
                if let Some(key) = op.key() {
                    let kept = Kept {
                        op: op.clone(),
                        customer,
                        answer: answer.clone(),
                    };
                    self.keys.insert(key, kept);
                }
                Ok(answer)
            }
            Op::Import { account, new } => {
                let (mut created, mut updated) = (0, 0);
                for (email, new) in merged(new) {
                    match self.put(*account, email, &new, request).1 {
                        true => created += 1,
                        false => updated += 1,
                    }
                }
                Ok(Answer::Imported { created, updated })
            }
            Op::SetPassword { account } => {
                self.accounts[usize::from(*account)].version += 1;
                Ok(Answer::Done)
            }
            Op::SetEnabled { account, enabled } => {
                let account = &mut self.accounts[usize::from(*account)];
                account.version += i64::from(account.enabled != *enabled);
                account.enabled = *enabled;
                Ok(Answer::Done)
            }
            Op::CreateToken { account } => {
                self.tokens.push((*account, false));
                Ok(Answer::Done)
            }
            Op::RevokeToken { number } => {
                let count = self.tokens.len();
                let Some((account, revoked)) = self.tokens.get_mut(usize::from(*number) % count.max(1)) else {
                    return Ok(Answer::Revoked(None));
                };
                self.accounts[usize::from(*account)].version += i64::from(!*revoked);
                *revoked = true;
                Ok(Answer::Revoked(Some(*account)))
            }
            Op::ExpireDocuments => {
                let mut count = 0;
                for customer in self.customers.iter_mut().filter(|customer| !customer.erased) {
                    count += customer.images.iter().filter(|image| **image != 0).count() as u64;
                    customer.images = [0, 0];
                }
                Ok(Answer::Count(count))
            }
            // None of them is a day old.
            Op::ExpireKeys => Ok(Answer::Count(0)),
            _ => Ok(Answer::Done),
        }
    }

    /// What was answered the first time, if the same is asked for.
    fn repeated(&self, op: &Op, kept: &Kept) -> Result<Answer, Error> {
        if !is_same(op, &kept.op) {
            return Err(Error::KeyReused);
        }
        let is_gone = self.customers[kept.customer].erased && !matches!(op, Op::Erase { .. });
        match is_gone {
            true => Err(Error::CustomerNotFound),
            false => Ok(kept.answer.clone()),
        }
    }

    fn change(&mut self, op: &Op, request: &str) -> Result<(Answer, usize), Error> {
        match op {
            Op::Put {
                who, email, new, tag, ..
            } => {
                match self.living(who.account, *email) {
                    None if *tag != Tag::Any => return Err(Error::Conflict),
                    None => {}
                    Some(number) => self.compare(number, *tag)?,
                }
                let (number, created) = self.put(who.account, *email, new, request);
                let customer = self.view(number);
                Ok((Answer::Registered { customer, created }, number))
            }
            Op::SetStatus {
                who,
                email,
                status,
                tag,
                expects,
                reason,
                ..
            } => {
                let number = self.living(who.account, *email).ok_or(Error::CustomerNotFound)?;
                self.compare(number, *tag)?;
                if expects.is_some_and(|expected| expected != self.customers[number].status) {
                    return Err(Error::Conflict);
                }
                if self.customers[number].status != *status || self.flaw == Flaw::RecordsTheSame {
                    self.customers[number].revision += 1;
                    self.set_status(number, *status, request, *reason);
                }
                Ok((Answer::Customer(self.view(number)), number))
            }
            Op::Erase { who, email, .. } => {
                let number = self.living(who.account, *email).ok_or(Error::CustomerNotFound)?;
                let customer = &mut self.customers[number];
                customer.erased = true;
                customer.version += 1;
                let (version, status) = (customer.version, customer.status);
                self.record(number, version, Some(status), status, true, request, None);
                let rows = u64::try_from(version).unwrap();
                Ok((Answer::Erased { customer: number, rows }, number))
            }
            _ => unreachable!("nothing else has a key"),
        }
    }

    fn compare(&self, number: usize, tag: Tag) -> Result<(), Error> {
        match tag {
            Tag::Any => Ok(()),
            _ if self.flaw == Flaw::IgnoresEtags => Ok(()),
            Tag::Of(of, revision) if (of, revision) == (number, self.customers[number].revision) => Ok(()),
            _ => Err(Error::Conflict),
        }
    }

    /// Registers a customer or changes it, and tells which it was.
    fn put(&mut self, account: u8, email: Address, new: &Attributes, request: &str) -> (usize, bool) {
        let Some(number) = self.living(account, email) else {
            let number = self.customers.len();
            let none = Customer {
                account,
                address: email.number,
                email: email.written(),
                texts: [0; 9],
                images: [0; 2],
                status: new.status.unwrap_or(Status::Pending),
                revision: 1,
                version: 1,
                step: self.step,
                erased: false,
            };
            let customer = Customer {
                texts: std::array::from_fn(|field| self.laid_over(0, new.texts[field], new.masked(field))),
                images: std::array::from_fn(|side| {
                    self.laid_over(0, new.images[side], new.masked(FIELDS.len() + side))
                }),
                ..none
            };
            let status = customer.status;
            self.customers.push(customer);
            self.record(number, 1, None, status, false, request, None);
            return (number, true);
        };
        let stored = self.customers[number].clone();
        let texts =
            std::array::from_fn(|field| self.laid_over(stored.texts[field], new.texts[field], new.masked(field)));
        let images = std::array::from_fn(|side| {
            self.laid_over(stored.images[side], new.images[side], new.masked(FIELDS.len() + side))
        });
        // An image is never compared with the one that is stored.
        let sends_images = (0..2).any(|side| match new.masked(FIELDS.len() + side) {
            Some(masked) => masked,
            None => new.images[side] != 0,
        });
        let status = new.status.unwrap_or(stored.status);
        if texts != stored.texts || sends_images || status != stored.status {
            let customer = &mut self.customers[number];
            (customer.texts, customer.images) = (texts, images);
            customer.revision += 1;
            if status != stored.status {
                self.set_status(number, status, request, None);
            }
        }
        (number, false)
    }

    /// What becomes of a field by what is stored, what is new, and whether a mask names it.
    fn laid_over(&self, stored: u8, new: u8, masked: Option<bool>) -> u8 {
        match masked {
            Some(true) => new,
            Some(false) => stored,
            None if new == 0 && self.flaw != Flaw::Blanks => stored,
            None => new,
        }
    }

    fn set_status(&mut self, number: usize, status: Status, request: &str, reason: Option<u8>) {
        let customer = &mut self.customers[number];
        let from = std::mem::replace(&mut customer.status, status);
        customer.version += 1;
        let version = customer.version;
        self.record(number, version, Some(from), status, false, request, reason);
    }

    #[expect(clippy::too_many_arguments, reason = "they are the columns of a row")]
    fn record(
        &mut self,
        customer: usize,
        version: i64,
        from: Option<Status>,
        to: Status,
        erased: bool,
        request: &str,
        reason: Option<u8>,
    ) {
        let (step, request) = (self.step, request.to_owned());
        self.rows.push(Row {
            step,
            customer,
            version,
            from,
            to,
            erased,
            request,
            reason,
        });
    }

    /// What is answered to an operation that only reads; none for the others. `times` are those of the store that is asked.
    pub fn read(&self, op: &Op, times: &Times) -> Option<Answer> {
        self.try_read(op, times)
            .map(|answer| answer.unwrap_or_else(|error| refused(&error)))
    }

    fn try_read(&self, op: &Op, times: &Times) -> Option<Result<Answer, Error>> {
        let found = |who: Who, email: Address| {
            self.permit(who)?;
            self.living(who.account, email).ok_or(Error::CustomerNotFound)
        };
        Some(match op {
            Op::Get { who, email } => found(*who, *email).map(|number| Answer::Customer(self.view(number))),
            Op::Documents { who, email } => found(*who, *email).map(|number| Answer::Documents {
                customer: self.view(number),
                bytes: self.customers[number].images.map(|image| IMAGES[usize::from(image)]),
            }),
            Op::History { who, email, limit } => found(*who, *email).map(|number| {
                let rows: Vec<_> = self.rows.iter().filter(|row| row.customer == number).collect();
                let last = &rows[rows.len().saturating_sub(usize::from(*limit))..];
                Answer::Changes(last.iter().map(|row| self.row_view(row, false)).collect())
            }),
            Op::StatusAt {
                who,
                email,
                change,
                offset,
            } => found(*who, *email).and_then(|number| {
                let time = self.time_of(times, who.account, *email, *change);
                let asked = moved(
                    time.ok_or_else(|| Error::Internal("its time is not known".to_owned()))?,
                    *offset,
                );
                let is_before = |row: &&Row| {
                    let time = times.get(&(row.customer, row.version));
                    row.customer == number
                        && time.is_some_and(|time| match self.flaw {
                            Flaw::LateByOne => *time < asked,
                            _ => *time <= asked,
                        })
                };
                let row = self.rows.iter().rev().find(is_before).ok_or(Error::CustomerNotFound)?;
                Ok(Answer::Changes(vec![self.row_view(row, true)]))
            }),
            Op::Changes {
                who,
                whose,
                since,
                until,
                latest_first,
                ..
            } => self.changes(*who, *whose, [*since, *until], *latest_first, times),
            Op::Feed { who, after, .. } => self.permit(*who).map(|()| {
                let mut rows = self.ordered(self.rows_of(who.account));
                rows.drain(..self.feed_up_to(who.account, *after).len());
                Answer::Changes(rows.into_iter().map(|row| self.row_view(row, true)).collect())
            }),
            Op::Customers { account, .. } => Ok(Answer::Customers(
                (0..self.customers.len())
                    .filter(|number| self.customers[*number].account == *account && !self.customers[*number].erased)
                    .map(|number| self.view(number))
                    .collect(),
            )),
            Op::Confirm { who } => self.permit(*who).map(|()| Answer::Done),
            Op::Account { account } => {
                let account = &self.accounts[usize::from(*account)];
                Ok(Answer::Account {
                    version: account.version,
                    enabled: account.enabled,
                })
            }
            Op::Tokens { account } => {
                let numbered = self.tokens.iter().enumerate();
                let of = numbered.filter(|(_, (of, _))| of == account);
                Ok(Answer::Tokens(
                    of.map(|(number, (_, revoked))| (number, *revoked)).collect(),
                ))
            }
            _ => return None,
        })
    }

    fn changes(
        &self,
        who: Who,
        whose: Whose,
        times_of: [Option<u8>; 2],
        latest_first: bool,
        times: &Times,
    ) -> Result<Answer, Error> {
        self.permit(who)?;
        let customer = match whose {
            Whose::Account => None,
            Whose::Email(email) => Some(self.living(who.account, email)),
            Whose::Id(number) => Some(
                self.numbered(number)
                    .filter(|number| self.customers[*number].account == who.account),
            ),
        };
        let customer = match customer {
            Some(found) => Some(found.ok_or(Error::CustomerNotFound)?),
            None => None,
        };
        let [since, until] = times_of.map(|row| self.time_of_row(times, who.account, row?));
        let rows = self.rows_of(who.account).filter(|row| {
            let time = times.get(&(row.customer, row.version)).copied();
            customer.is_none_or(|customer| customer == row.customer)
                && since.is_none_or(|since| time.is_some_and(|time| time >= since))
                && until.is_none_or(|until| time.is_some_and(|time| time < until))
        });
        let mut rows = self.ordered(rows);
        if latest_first {
            rows.reverse();
        }
        Ok(Answer::Changes(
            rows.into_iter().map(|row| self.row_view(row, true)).collect(),
        ))
    }

    /// One of all customers that ever were.
    pub fn numbered(&self, number: u8) -> Option<usize> {
        (!self.customers.is_empty()).then(|| usize::from(number) % self.customers.len())
    }

    /// The rows of an account's feed, by customer and version, up to the one that is meant and all others of its step, since
    /// nothing orders those.
    pub fn feed_up_to(&self, account: u8, row: Option<u8>) -> Vec<(usize, i64)> {
        let rows = self.ordered(self.rows_of(account));
        let step = row.and_then(|row| Some(rows.get(usize::from(row) % rows.len().max(1))?.step));
        rows.into_iter()
            .take_while(|row| step.is_some_and(|step| row.step <= step))
            .map(|row| (row.customer, row.version))
            .collect()
    }

    /// By step, then by customer and version.
    fn ordered<'r>(&'r self, rows: impl Iterator<Item = &'r Row>) -> Vec<&'r Row> {
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| (row.step, row.customer, row.version));
        rows
    }
}

/// A time so many microseconds later.
pub fn moved(time: SystemTime, offset: i8) -> SystemTime {
    let by = Duration::from_micros(u64::from(offset.unsigned_abs()));
    if offset < 0 { time - by } else { time + by }
}

/// Whether two operations ask for the same. It is no matter who asks within the account, and how an address is written
/// matters only where it is written down.
fn is_same(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (
            Op::Put {
                email: e1,
                new: n1,
                tag: t1,
                ..
            },
            Op::Put {
                email: e2,
                new: n2,
                tag: t2,
                ..
            },
        ) => e1.number == e2.number && e1.written().trim() == e2.written().trim() && what(n1) == what(n2) && t1 == t2,
        (
            Op::SetStatus {
                email: e1,
                status: s1,
                tag: t1,
                expects: x1,
                reason: r1,
                ..
            },
            Op::SetStatus {
                email: e2,
                status: s2,
                tag: t2,
                expects: x2,
                reason: r2,
                ..
            },
        ) => e1.number == e2.number && s1 == s2 && t1 == t2 && x1 == x2 && r1 == r2,
        (Op::Erase { email: e1, .. }, Op::Erase { email: e2, .. }) => e1.number == e2.number,
        _ => false,
    }
}

/// What attributes come to once a mask has left out the others.
fn what(new: &Attributes) -> Attributes {
    let mut new = new.clone();
    if let Some(mask) = new.mask {
        for field in 0..FIELDS.len() {
            new.texts[field] *= (mask >> field & 1) as u8;
        }
        for side in 0..2 {
            new.images[side] *= (mask >> (FIELDS.len() + side) & 1) as u8;
        }
    }
    new
}

/// One of each address, in the order in which they came first; what is said twice counts as it was said last.
fn merged(new: &[(Address, Attributes)]) -> Vec<(Address, Attributes)> {
    let mut all: Vec<(Address, Attributes)> = Vec::new();
    for (email, later) in new {
        let Some((_, earlier)) = all.iter_mut().find(|(other, _)| other.number == email.number) else {
            all.push((*email, later.clone()));
            continue;
        };
        let texts = earlier.texts.iter_mut().zip(later.texts);
        let images = earlier.images.iter_mut().zip(later.images);
        for (earlier, later) in texts.chain(images).filter(|(_, later)| *later != 0) {
            *earlier = later;
        }
        earlier.status = later.status.or(earlier.status);
    }
    all
}
