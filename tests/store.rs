//! What a store promises, written once and kept on both databases.

use std::{
    pin::Pin,
    str::FromStr,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use store::{
    Authority, Change, Customer, Documents, Email, EmailKey, Face, Keys, Location, Migrate, NewCustomer, Origin,
    Principal, Profile, Put, Registered, Result, Settings, Status, StatusChange, Store,
};

use crate::support::{Backend, Database};

/// Makes a test for each database of every function that is named: a failure then names the database. Each is given what
/// it needs by the function before the semicolon.
macro_rules! on_both {
    ($run:path; $($test:ident),* $(,)?) => {
        mod sqlite {
            use super::*;

            $(#[test] fn $test() { $run(crate::support::Backend::Sqlite, super::$test); })*
        }

        mod postgres {
            use super::*;

            $(#[test] fn $test() { $run(crate::support::Backend::Postgres, super::$test); })*
        }
    };
}

mod accounts;
mod audit;
mod changes;
mod copy;
mod documents;
mod encryption;
mod erasures;
mod feed;
mod history;
mod imports;
mod lost;
mod migrations;
mod outage;
mod puts;
mod reads;
mod retries;
mod shared;
mod sqlite_file;
mod tokens;
mod webhooks;

/// Every status there is.
pub(crate) const STATUSES: [Status; 3] = [Status::Pass, Status::Pending, Status::Fail];

/// An open store on a database of its own, in which the account `shop` has no customers yet.
struct Bench {
    database: Database,
    store: Store,
    shop: Principal,
    /// The master keys; none where the store is in clear text.
    ring: Option<Ring>,
}

impl Bench {
    /// Runs a test on a bench. A test that hangs fails.
    fn run(backend: Backend, test: impl AsyncFnOnce(Self)) {
        block_on(async {
            test(Self::on(backend.database()).await).await;
        });
    }

    /// Runs a test on a bench whose store is encrypted.
    fn sealed(backend: Backend, test: impl AsyncFnOnce(Self)) {
        block_on(async {
            test(Self::sealed_on(backend.database()).await).await;
        });
    }

    /// Runs a test twice: in clear text and encrypted.
    fn each(backend: Backend, test: impl AsyncFn(Self)) {
        Self::run(backend, &test);
        Self::sealed(backend, &test);
    }

    /// A bench on an empty database.
    async fn on(database: Database) -> Self {
        Self::with(database, None).await
    }

    /// A bench on an empty database, whose store is encrypted by a master key with the number 1.
    async fn sealed_on(database: Database) -> Self {
        Self::with(database, Some(Ring::new(1))).await
    }

    async fn with(database: Database, ring: Option<Ring>) -> Self {
        let store = open(&database, &patient(), ring.as_ref());
        let shop = account(&store, "shop").await;
        Self {
            database,
            store,
            shop,
            ring,
        }
    }

    /// Another store on the same database, as another gateway has it.
    fn another(&self, settings: &Settings) -> Store {
        open(&self.database, settings, self.ring.as_ref())
    }

    /// What registers or changes a customer of the shop.
    fn wanted(&self, new: NewCustomer) -> Put {
        Put {
            etag: None,
            key: None,
            principal: self.shop,
            new,
            origin: origin("request"),
            hold: None,
        }
    }

    /// Registers or changes a customer of the shop.
    async fn put(&self, new: NewCustomer) -> Result<Registered> {
        self.store.put_customer(self.wanted(new), soon()).await
    }

    /// The images of a customer of the shop.
    async fn documents(&self, email: &str) -> Documents {
        let (_, documents) = self.store.documents(self.shop, key(email), soon()).await.unwrap();
        documents
    }

    /// Registers customers of the shop, of whom nothing is known but their addresses.
    async fn register(&self, emails: &[&str]) {
        let new = emails.iter().map(|email| new_customer(email)).collect();
        self.import(new).await.unwrap();
    }

    /// Imports customers of the shop.
    async fn import(&self, new: Vec<NewCustomer>) -> Result<store::Imported> {
        self.store
            .import(self.shop.account, new, origin("import"), soon())
            .await
    }

    /// A change of status in the shop.
    fn change(&self, email: &str, status: Status) -> Change {
        Change {
            condition: store::Condition::default(),
            reason: None,
            key: None,
            principal: self.shop,
            email: key(email),
            status,
            origin: origin("request"),
        }
    }

    /// Sets the status of a customer of the shop.
    async fn set(&self, email: &str, status: Status) -> Result<Customer> {
        self.store.set_status(self.change(email, status), soon()).await
    }

    /// A customer of the shop.
    async fn customer(&self, email: &str) -> Customer {
        self.store.customer(self.shop, key(email), soon()).await.unwrap()
    }

    /// All changes of a customer of the shop.
    async fn history(&self, email: &str) -> Vec<StatusChange> {
        self.store
            .history(self.shop, key(email), u32::MAX, soon())
            .await
            .unwrap()
    }

    /// The history of a customer of the shop, once it is found to be whole: dense numbers, each change begins where the
    /// one before ended and is no earlier, and the last ends with the customer as it is.
    async fn whole_history(&self, email: &str) -> Vec<StatusChange> {
        let (customer, history) = (self.customer(email).await, self.history(email).await);
        let backend = self.database.backend;
        for (number, change) in (1..).zip(&history) {
            assert_eq!(change.version, number, "{backend}: a number of {email}");
        }
        assert_eq!(history[0].from, None, "{backend}: the beginning of {email}");
        for pair in history.windows(2) {
            let [before, after] = pair else { unreachable!() };
            assert_eq!(after.from, Some(before.to), "{backend}: {email} at {}", after.version);
            assert!(after.time >= before.time, "{backend}: {email} at {}", after.version);
        }
        let last = history.last().unwrap();
        assert_eq!(last.to, customer.status, "{backend}: the end of {email}");
        assert!(customer.update_time >= last.time, "{backend}: the end of {email}");
        history
    }
}

/// Master keys, as a file has them: a test can add to it and take from it, and stores that are open read it again.
#[derive(Clone)]
struct Ring {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Ring {
    /// A ring with a new key.
    fn new(number: u32) -> Self {
        let ring = Self { lines: Arc::default() };
        ring.add(number);
        ring
    }

    fn add(&self, number: u32) {
        let line = Keys::generate(number).expose_secret().to_owned();
        self.lines.lock().unwrap().push(line);
    }

    fn remove(&self, number: u32) {
        let line = format!("{number}:");
        self.lines.lock().unwrap().retain(|other| !other.starts_with(&line));
    }

    /// The keys, as one program reads them.
    fn keys(&self) -> Keys {
        let lines = Arc::clone(&self.lines);
        Keys::load(move || Ok(SecretString::from(lines.lock().unwrap().join("\n")))).unwrap()
    }
}

/// Runs a test. One that hangs fails.
fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(180), test)
                .await
                .expect("the test does not end");
        });
}

/// The settings of a store that refuses nothing because the machine is busy with other tests. While the server is away a test
/// waits for every connection as long as that.
pub(crate) fn patient() -> Settings {
    Settings {
        queue_wait: Duration::from_secs(60),
        checkout: Duration::from_secs(3),
        ..Settings::default()
    }
}

/// Opens the store on a database.
fn open(database: &Database, settings: &Settings, ring: Option<&Ring>) -> Store {
    try_open(database, Migrate::Auto, settings, ring).unwrap()
}

fn try_open(database: &Database, migrate: Migrate, settings: &Settings, ring: Option<&Ring>) -> Result<Store> {
    let keys = ring.map(Ring::keys);
    Store::open(&location(database), migrate, settings, keys.as_ref())
}

fn location(database: &Database) -> Location {
    Location::from_str(&database.url).unwrap()
}

/// Creates an account, and gives what its credentials allow.
async fn account(store: &Store, name: &str) -> Principal {
    store
        .create_account(&name.parse().unwrap(), "hash".to_owned(), soon())
        .await
        .unwrap();
    credentials(store, name).await
}

/// What the credentials of an account allow as they are now.
async fn credentials(store: &Store, name: &str) -> Principal {
    let account = store.account(name, soon()).await.unwrap();
    Principal {
        account: account.id,
        authority: Authority::Credentials {
            version: account.credential_version,
        },
    }
}

/// A deadline that no operation here is meant to meet.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key(email: &str) -> EmailKey {
    Email::parse(email).unwrap().key().clone()
}

fn origin(request_id: &str) -> Origin {
    Origin {
        actor: "shop".to_owned(),
        face: Face::Grpc,
        request_id: request_id.to_owned(),
    }
}

/// A customer of whom nothing is known but the address.
fn new_customer(email: &str) -> NewCustomer {
    NewCustomer::new(Email::parse(email).unwrap())
}

/// Every attribute of a customer but the address.
fn full_profile() -> Profile {
    Profile {
        email: String::new(),
        first_name: "Zoë".to_owned(),
        last_name: "Canary".to_owned(),
        address: "1 Test \"Street\"".to_owned(),
        city: "Teststadt".to_owned(),
        state: "TS".to_owned(),
        zip: "00001".to_owned(),
        date_of_birth: "20000229".to_owned(),
        phone: "0005550100".to_owned(),
    }
}

/// Bytes as an image has them, of which no two images have the same: they are told by their seeds.
fn image(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// A customer with both images.
fn with_images(email: &str, front: &[u8], back: &[u8]) -> NewCustomer {
    NewCustomer {
        documents: Documents {
            front: front.to_vec().into(),
            back: back.to_vec().into(),
        },
        ..new_customer(email)
    }
}

/// Begins a call that is not answered at once: it is queued when this returns.
async fn begin<'a, T>(call: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    let mut call: Pin<Box<dyn Future<Output = T> + 'a>> = Box::pin(call);
    assert!(poll_once(&mut call).await.is_pending(), "the call was answered at once");
    call
}

/// Lets a call go as far as it can without waiting.
async fn poll_once<T>(call: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Poll<T> {
    std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await
}

/// Asks again until the store answers, for as long as any store may take to recover.
async fn recovered(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.ping(deadline).await {
        assert!(Instant::now() < deadline, "the store does not recover: {error}");
        tokio::task::yield_now().await;
    }
}
