//! A real store under the model test: asks it what an operation says, and puts its answers as the model puts them.

use std::{
    collections::HashMap,
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};
use store::{
    Account, AccountName, Authority, Change, Condition, Customer, Documents, Email, EmailKey, Erase, Erasure, Face,
    FeedItem, HistoryQuery, IdempotencyKey, Imported, Keys, Location, Migrate, NewCustomer, NewToken, Origin, Place,
    Principal, Profile, Put, Registered, Result, Scope, Settings, StatusChange, Store, Token,
};

use super::{
    operations::{ACCOUNTS, Address, Attributes, FIELDS, IMAGES, Op, TEXTS, Tag, Whose},
    reference::{Answer, Reference, RowView, Times, View, moved},
};
use crate::{store::patient, support::Database};

/// How long the feed may hold back what was answered already: while something else writes on the server.
const HELD_BACK: Duration = Duration::from_secs(10);

/// A store on a database of its own, which two gateways have open. A run of the test has accounts of its own in it.
pub struct Subject {
    database: Database,
    key: Option<SecretString>,
    stores: Vec<Store>,
    run: u32,
    accounts: Vec<i64>,
    /// The model's numbers of the customers, by what they are called outside.
    numbers: HashMap<String, usize>,
    /// What they are called outside, by number.
    names: Vec<Option<String>>,
    pub times: Times,
    places: HashMap<(usize, i64), Place>,
    /// When a revision of a customer was made.
    stamps: HashMap<(usize, i64), SystemTime>,
    /// What holds of every answer, whatever the model says, and did not.
    faults: Vec<String>,
}

/// What a store answered.
enum Raw {
    Done,
    Count(u64),
    Customer(Customer),
    Registered(Registered),
    Imported(Imported),
    Erased(Erasure),
    /// Beside the images, how many bytes they take as they are stored.
    Documents(Customer, Documents, u64),
    History(Vec<StatusChange>),
    Changes(Vec<FeedItem>),
    Customers(Vec<Customer>),
    Account(Account),
    Revoked(Option<String>),
    Tokens(Vec<Token>),
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key(address: Address) -> EmailKey {
    Email::parse(address.written()).unwrap().key().clone()
}

fn id(key: Option<u8>) -> Option<IdempotencyKey> {
    key.map(|key| format!("key-{key}").parse().unwrap())
}

fn origin(request: &str) -> Origin {
    Origin {
        actor: "somebody".to_owned(),
        face: Face::Grpc,
        request_id: request.to_owned(),
    }
}

/// Bytes of which each image has others.
fn image(number: u8) -> Vec<u8> {
    let length = IMAGES[usize::from(number)];
    (0..length).map(|at| (at * (usize::from(number) + 1)) as u8).collect()
}

fn new_customer(email: Address, new: &Attributes) -> NewCustomer {
    let text = |field: usize| TEXTS[usize::from(new.texts[field])].to_owned();
    let mut customer = NewCustomer {
        reference: text(8),
        profile: Profile {
            email: String::new(),
            first_name: text(0),
            last_name: text(1),
            address: text(2),
            city: text(3),
            state: text(4),
            zip: text(5),
            date_of_birth: text(6),
            phone: text(7),
        },
        documents: Documents {
            front: image(new.images[0]).into(),
            back: image(new.images[1]).into(),
        },
        status: new.status,
        ..NewCustomer::new(Email::parse(email.written()).unwrap())
    };
    if new.mask.is_some() {
        let fields = FIELDS.into_iter().chain([store::Field::Front, store::Field::Back]);
        let named = fields
            .enumerate()
            .filter(|(number, _)| new.masked(*number) == Some(true));
        customer.restrict(&named.map(|(_, field)| field).collect::<Vec<_>>());
    }
    customer
}

impl Subject {
    pub fn open(database: Database, encrypted: bool) -> Self {
        let mut subject = Self {
            database,
            key: encrypted.then(|| Keys::generate(1)),
            stores: Vec::new(),
            run: 0,
            accounts: Vec::new(),
            numbers: HashMap::new(),
            names: Vec::new(),
            times: HashMap::new(),
            places: HashMap::new(),
            stamps: HashMap::new(),
            faults: Vec::new(),
        };
        subject.stores = vec![subject.another(), subject.another()];
        subject
    }

    fn another(&self) -> Store {
        let keys = self.key.as_ref().map(|key| {
            let key = key.expose_secret().to_owned();
            Keys::load(move || Ok(SecretString::from(key.clone()))).unwrap()
        });
        let location = Location::from_str(&self.database.url).unwrap();
        let settings = Settings {
            readers: std::num::NonZeroUsize::new(2).unwrap(),
            // A busy machine may take its time to start a backend of PostgreSQL's.
            checkout: Duration::from_secs(60),
            ..patient()
        };
        Store::open(&location, Migrate::Auto, &settings, keys.as_ref()).unwrap()
    }

    /// How it is called where it differs from the model.
    pub fn name(&self) -> String {
        let clear = self.key.as_ref().map_or("in clear text", |_| "encrypted");
        format!("{} {clear}", self.database.backend)
    }

    fn account(&self, number: u8) -> AccountName {
        format!("shop-{}-{number}", self.run).parse().unwrap()
    }

    /// Begins anew, with accounts that have no customers.
    pub async fn begin(&mut self) {
        self.run += 1;
        self.accounts.clear();
        self.numbers.clear();
        self.names.clear();
        self.times.clear();
        self.places.clear();
        self.stamps.clear();
        let store = self.stores[0].clone();
        for number in 0..ACCOUNTS {
            let name = self.account(number);
            store
                .create_account(&name, "hash".to_owned(), deadline())
                .await
                .unwrap();
            self.accounts
                .push(store.account(name.as_str(), deadline()).await.unwrap().id);
        }
        // Images are counted over all accounts.
        while store.expire_documents(later(), 1_000, deadline()).await.unwrap() > 0 {}
    }

    /// Does the operations all at once, and gives the answer to each. The model has done them already.
    pub async fn ask(&mut self, ops: &[(Op, String)], before: &[Option<i64>], model: &Reference) -> Vec<Answer> {
        for (op, _) in ops {
            match op {
                Op::Reopen => {
                    self.stores.remove(0);
                    self.stores.push(self.another());
                }
                Op::StatusAt { who, .. } | Op::Changes { who, .. } | Op::Feed { who, .. } => {
                    self.learn(who.account, model).await;
                }
                _ => {}
            }
        }
        let mut asked = Vec::new();
        for (number, (op, request)) in ops.iter().enumerate() {
            let asking = Asking {
                store: self.stores[number % self.stores.len()].clone(),
                principal: self.principal(op, before[number]),
                tag: self.tag(op),
                moments: self.moments(op, model),
                whose: self.whose(op, model),
                behind: self.behind(op, model),
                rows: self.expected_rows(op, model),
                accounts: (0..ACCOUNTS).map(|number| self.account(number)).collect(),
                tokens: self.run,
            };
            let (op, request) = (op.clone(), request.clone());
            asked.push(tokio::spawn(async move { asking.ask(&op, &request).await }));
        }
        let mut raw = Vec::new();
        for answer in asked {
            raw.push(answer.await.unwrap());
        }
        self.meet(model).await;
        let answers = raw.into_iter().zip(ops).map(|(raw, (op, _))| match raw {
            Ok(raw) => self.put_plainly(raw, op, model),
            Err(error) => Answer::Refused(error.to_string()),
        });
        answers.collect()
    }

    /// What did not hold, since the last time that was asked.
    pub fn faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Learns what the customers that the model has just registered are called here.
    async fn meet(&mut self, model: &Reference) {
        for (number, account, email) in model.registered_now() {
            let operator = Principal {
                account: self.accounts[usize::from(account)],
                authority: Authority::Operator,
            };
            let email = Email::parse(email).unwrap().key().clone();
            // One that is not there shows in what was answered.
            let Ok(customer) = self.stores[0].customer(operator, email, deadline()).await else {
                continue;
            };
            self.names.resize(model.customers(), None);
            self.names[number] = Some(customer.public_id.clone());
            if self.numbers.insert(customer.public_id, number).is_some() {
                self.faults.push(format!("customer {number} has the id of another one"));
            }
        }
    }

    /// Learns when and where the rows of an account were made.
    async fn learn(&mut self, account: u8, model: &Reference) {
        let operator = Principal {
            account: self.accounts[usize::from(account)],
            authority: Authority::Operator,
        };
        let query = HistoryQuery {
            whose: store::Whose::Account,
            since: None,
            until: None,
            latest_first: false,
        };
        let all = self.stores[0]
            .changes(operator, query, None, u32::MAX - 1, deadline())
            .await;
        let all = all.unwrap().changes;
        self.rows(all.into_iter().map(|item| (item.change, None)).collect(), model);
    }

    fn principal(&self, op: &Op, version: Option<i64>) -> Principal {
        let account = match op {
            Op::Import { account, .. } | Op::Customers { account, .. } => *account,
            other => other.who().map_or(0, |who| who.account),
        };
        Principal {
            account: self.accounts[usize::from(account)],
            authority: version.map_or(Authority::Operator, |version| Authority::Credentials { version }),
        }
    }

    fn tag(&self, op: &Op) -> Option<String> {
        let (Op::Put { tag, .. } | Op::SetStatus { tag, .. }) = op else {
            return None;
        };
        match tag {
            Tag::Any => None,
            Tag::Of(number, revision) => {
                let name = self.names.get(*number).cloned().flatten().unwrap_or_default();
                Some(format!("{}-{revision}", name.get(..8).unwrap_or_default()))
            }
            _ => Some("nonsense".to_owned()),
        }
    }

    fn moments(&self, op: &Op, model: &Reference) -> [Option<SystemTime>; 2] {
        match op {
            Op::StatusAt {
                who,
                email,
                change,
                offset,
            } => {
                let time = model.time_of(&self.times, who.account, *email, *change);
                [time.map(|time| moved(time, *offset)), None]
            }
            Op::Changes { who, since, until, .. } => {
                [*since, *until].map(|row| model.time_of_row(&self.times, who.account, row?))
            }
            _ => [None, None],
        }
    }

    fn whose(&self, op: &Op, model: &Reference) -> store::Whose {
        let Op::Changes { whose, .. } = op else {
            return store::Whose::Account;
        };
        match whose {
            Whose::Account => store::Whose::Account,
            Whose::Email(email) => store::Whose::Email(key(*email)),
            Whose::Id(number) => {
                let name = model
                    .numbered(*number)
                    .and_then(|number| self.names.get(number)?.clone());
                store::Whose::Id(name.unwrap_or_else(|| "nobody".to_owned()))
            }
        }
    }

    fn behind(&self, op: &Op, model: &Reference) -> Place {
        let Op::Feed { who, after, .. } = op else {
            return Place::default();
        };
        let rows = model.feed_up_to(who.account, *after);
        let places = rows.iter().filter_map(|row| self.places.get(row).copied());
        places.max().unwrap_or_default()
    }

    fn expected_rows(&self, op: &Op, model: &Reference) -> usize {
        match op {
            Op::Feed { .. } => match model.read(op, &self.times) {
                Some(Answer::Changes(rows)) => rows.len(),
                _ => 0,
            },
            _ => 0,
        }
    }

    fn put_plainly(&mut self, raw: Raw, op: &Op, model: &Reference) -> Answer {
        match raw {
            Raw::Done => Answer::Done,
            Raw::Count(count) => Answer::Count(count),
            Raw::Customer(customer) => Answer::Customer(self.view(&customer)),
            Raw::Registered(Registered { customer, created }) => Answer::Registered {
                customer: self.view(&customer),
                created,
            },
            Raw::Imported(Imported { created, updated }) => Answer::Imported { created, updated },
            Raw::Erased(erasure) => Answer::Erased {
                customer: self.number(&erasure.public_id),
                rows: erasure.status_changes,
            },
            Raw::Documents(customer, documents, stored) => {
                let sides = [&documents.front, &documents.back];
                if sides
                    .into_iter()
                    .any(|side| !(0..4).any(|number| side[..] == image(number)[..]))
                {
                    self.faults.push("an image is none that was sent".to_owned());
                }
                let bytes = sides.map(|side| side.len());
                let (sum, stored) = (bytes.iter().sum::<usize>(), usize::try_from(stored).unwrap());
                if stored < sum || (self.key.is_none() && stored != sum) {
                    self.faults.push(format!("{sum} bytes of images take {stored}"));
                }
                Answer::Documents {
                    customer: self.view(&customer),
                    bytes,
                }
            }
            Raw::History(rows) => Answer::Changes(self.rows(rows.into_iter().map(|row| (row, None)).collect(), model)),
            Raw::Changes(items) => {
                let mut rows: Vec<_> = items.into_iter().map(|item| (item.change, item.customer)).collect();
                let reverse = matches!(op, Op::Changes { latest_first: true, .. });
                if reverse {
                    rows.reverse();
                }
                let mut rows = self.rows(rows, model);
                self.order(&mut rows, |row| (row.customer, row.version), model);
                if reverse {
                    rows.reverse();
                }
                Answer::Changes(rows)
            }
            Raw::Customers(customers) => {
                let mut views: Vec<_> = customers.iter().map(|customer| self.view(customer)).collect();
                self.order(&mut views, |view| (view.number, 1), model);
                Answer::Customers(views)
            }
            Raw::Account(account) => Answer::Account {
                version: account.credential_version,
                enabled: account.enabled,
            },
            Raw::Revoked(name) => Answer::Revoked(name.map(|name| {
                (0..ACCOUNTS)
                    .find(|number| self.account(*number).as_str() == name)
                    .unwrap()
            })),
            Raw::Tokens(tokens) => {
                let number = |token: &Token| token.id.rsplit('-').next().unwrap().parse().unwrap();
                Answer::Tokens(
                    tokens
                        .iter()
                        .map(|token| (number(token), token.revoked.is_some()))
                        .collect(),
                )
            }
        }
    }

    /// Looks whether rows, or customers, come in the order of the steps that made them, and puts those of one step in the
    /// model's order.
    fn order<T>(&mut self, all: &mut [T], of: impl Fn(&T) -> (usize, i64), model: &Reference) {
        let step = |one: &T| {
            let (customer, version) = of(one);
            model.step_of(customer, version)
        };
        if !all.is_sorted_by_key(&step) {
            self.faults.push("what was made later comes earlier".to_owned());
        }
        // Of one customer they have to be in order by themselves.
        all.sort_by_key(|one| (step(one), of(one).0));
    }

    fn number(&self, public_id: &str) -> usize {
        self.numbers.get(public_id).copied().unwrap_or(usize::MAX)
    }

    fn view(&mut self, customer: &Customer) -> View {
        let number = self.number(&customer.public_id);
        let stamp = customer.update_time;
        let before = self.stamps.get(&(number, customer.revision - 1)).copied();
        let known = *self.stamps.entry((number, customer.revision)).or_insert(stamp);
        if known != stamp || stamp < customer.create_time || before.is_some_and(|before| before > stamp) {
            let told = format!(
                "revision {} of customer {number} was made at {stamp:?}",
                customer.revision
            );
            self.faults
                .push(format!("{told}, but is told of as {known:?}, behind {before:?}"));
        }
        let profile = &customer.profile;
        let texts = [
            &profile.first_name,
            &profile.last_name,
            &profile.address,
            &profile.city,
            &profile.state,
            &profile.zip,
            &profile.date_of_birth,
            &profile.phone,
            &customer.reference,
        ];
        View {
            number,
            email: profile.email.clone(),
            texts: texts.map(Clone::clone).to_vec(),
            status: customer.status,
            revision: customer.revision,
        }
    }

    fn rows(&mut self, rows: Vec<(StatusChange, Option<Customer>)>, model: &Reference) -> Vec<RowView> {
        let mut views = Vec::with_capacity(rows.len());
        for (row, customer) in rows {
            let number = self.number(&row.customer_id);
            let name = (number, row.version);
            let known = (
                *self.times.entry(name).or_insert(row.time),
                *self.places.entry(name).or_insert(row.place),
            );
            let before = self.times.get(&(number, row.version - 1));
            if known != (row.time, row.place) || before.is_some_and(|before| *before > row.time) {
                self.faults.push(format!("the row {name:?} is told of in two ways"));
            }
            if row.origin != origin(&row.origin.request_id) || model.step_of(number, row.version).is_none() {
                self.faults.push(format!("nobody made the row {name:?}"));
            }
            views.push(RowView {
                customer: number,
                version: row.version,
                from: row.from,
                to: row.to,
                erased: row.erased,
                request: row.origin.request_id,
                reason: row.reason,
                now: customer.map(|customer| self.view(&customer)),
            });
        }
        views
    }
}

/// A time that nothing was stored after.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3_600)
}

/// What it takes to ask one operation of a store, apart from the others.
struct Asking {
    store: Store,
    principal: Principal,
    tag: Option<String>,
    moments: [Option<SystemTime>; 2],
    whose: store::Whose,
    behind: Place,
    /// How many rows there are to come.
    rows: usize,
    accounts: Vec<AccountName>,
    /// What tells the tokens of this run from those of others.
    tokens: u32,
}

impl Asking {
    async fn ask(self, op: &Op, request: &str) -> Result<Raw> {
        let (store, principal) = (&self.store, self.principal);
        let account = |number: u8| &self.accounts[usize::from(number)];
        Ok(match op {
            Op::Put { email, new, key, .. } => {
                let put = Put {
                    principal,
                    new: new_customer(*email, new),
                    etag: self.tag,
                    key: id(*key),
                    origin: origin(request),
                    hold: None,
                };
                Raw::Registered(store.put_customer(put, deadline()).await?)
            }
            Op::SetStatus {
                email,
                status,
                expects,
                reason,
                key: named,
                ..
            } => {
                let change = Change {
                    condition: Condition {
                        etag: self.tag,
                        status: *expects,
                    },
                    reason: reason.map(|reason| TEXTS[usize::from(reason)].to_owned()),
                    key: id(*named),
                    ..Change::new(principal, key(*email), *status, origin(request))
                };
                Raw::Customer(store.set_status(change, deadline()).await?)
            }
            Op::Erase { email, key: named, .. } => {
                let erase = Erase {
                    principal,
                    email: key(*email),
                    key: id(*named),
                    origin: origin(request),
                };
                Raw::Erased(store.erase_customer(erase, deadline()).await?)
            }
            Op::Import { new, .. } => {
                let new = new.iter().map(|(email, new)| new_customer(*email, new)).collect();
                Raw::Imported(
                    store
                        .import(principal.account, new, origin(request), deadline())
                        .await?,
                )
            }
            Op::Get { email, .. } => Raw::Customer(store.customer(principal, key(*email), deadline()).await?),
            Op::Documents { email, .. } => {
                let bytes = store.document_bytes(principal, key(*email), deadline()).await?;
                let (customer, documents) = store.documents(principal, key(*email), deadline()).await?;
                Raw::Documents(customer, documents, bytes)
            }
            Op::History { email, limit, .. } => Raw::History(
                store
                    .history(principal, key(*email), (*limit).into(), deadline())
                    .await?,
            ),
            Op::StatusAt { email, .. } => {
                let time = self.moments[0].unwrap_or_else(later);
                Raw::Changes(vec![store.status_at(principal, key(*email), time, deadline()).await?])
            }
            Op::Changes { latest_first, page, .. } => {
                let query = HistoryQuery {
                    whose: self.whose.clone(),
                    since: self.moments[0],
                    until: self.moments[1],
                    latest_first: *latest_first,
                };
                Raw::Changes(self.pages(&query, (*page).into()).await?)
            }
            Op::Feed { page, .. } => Raw::Changes(self.feed((*page).into()).await?),
            Op::Customers { page, .. } => {
                let mut all: Vec<Customer> = Vec::new();
                loop {
                    let after = all.last().map_or(0, |customer| customer.id);
                    let page = store
                        .customers(principal.account, after, (*page).into(), deadline())
                        .await?;
                    if page.is_empty() {
                        break;
                    }
                    all.extend(page);
                }
                let count = store.customer_count(principal.account, deadline()).await?;
                assert_eq!(usize::try_from(count).unwrap(), all.len(), "the count of customers");
                Raw::Customers(all)
            }
            Op::Confirm { .. } => {
                store.confirm(principal, deadline()).await?;
                Raw::Done
            }
            Op::Account { account: of } => Raw::Account(store.account(account(*of).as_str(), deadline()).await?),
            Op::SetPassword { account: of } => {
                store
                    .set_password(account(*of), "another".to_owned(), deadline())
                    .await?;
                Raw::Done
            }
            Op::SetEnabled { account: of, enabled } => {
                store.set_account_enabled(account(*of), *enabled, deadline()).await?;
                Raw::Done
            }
            Op::CreateToken { account: of } => {
                let token = NewToken {
                    id: self.token(request),
                    hash: [0; 32],
                    scopes: Scope::Read.into(),
                    label: String::new(),
                    expires: None,
                };
                store.create_token(account(*of), token, deadline()).await?;
                Raw::Done
            }
            Op::RevokeToken { .. } => Raw::Revoked(store.revoke_token(&self.token(request), deadline()).await?),
            Op::Tokens { account: of } => Raw::Tokens(store.tokens(account(*of), deadline()).await?),
            Op::ExpireDocuments => {
                let mut count = 0;
                loop {
                    // Two at a time, so that there are several batches.
                    match store.expire_documents(later(), 2, deadline()).await? {
                        0 => break Raw::Count(count),
                        some => count += some,
                    }
                }
            }
            Op::ExpireKeys => Raw::Count(store.expire_keys(deadline()).await?),
            Op::Reopen => Raw::Done,
            Op::Repeat(_) => unreachable!("it is resolved"),
        })
    }

    /// What a token is called: what asks for one has the token's number for its request.
    fn token(&self, request: &str) -> String {
        format!("{}-{request}", self.tokens)
    }

    async fn pages(&self, query: &HistoryQuery, most: u32) -> Result<Vec<FeedItem>> {
        let (mut all, mut token) = (Vec::new(), None);
        loop {
            let page = self
                .store
                .changes(self.principal, query.clone(), token, most, deadline())
                .await?;
            let is_full = page.changes.len() == most as usize;
            assert!(page.changes.len() <= most as usize, "a page is too long");
            all.extend(page.changes);
            match page.next {
                Some(_) if !is_full => panic!("a page that is not the last one is too short"),
                Some(next) => token = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// The feed up to what the model knows. It is handed out only once whatever began earlier has ended, also what has
    /// nothing to do with it: so it is waited for, and nothing may come in another order meanwhile.
    async fn feed(&self, most: u32) -> Result<Vec<FeedItem>> {
        let until = Instant::now() + HELD_BACK;
        let (mut all, mut after) = (Vec::new(), self.behind);
        loop {
            let cursor = self.store.cursor(after, deadline()).await?;
            let after_again = self.store.place(&cursor, deadline()).await?;
            assert_eq!(after_again, after, "a cursor names its place");
            let page = self.store.feed(self.principal, after, most, deadline()).await?;
            assert!(page.len() <= most as usize, "a page is too long");
            match page.last() {
                Some(last) => after = last.change.place,
                None if all.len() >= self.rows || Instant::now() > until => break,
                None => tokio::task::yield_now().await,
            }
            all.extend(page);
        }
        let end = self.store.feed_end(self.principal, deadline()).await?;
        assert!(all.is_empty() || end == after, "the end of the feed is where it ends");
        Ok(all)
    }
}
