//! Encryption at rest: when a store is encrypted, that nothing personal is to be read in it, that whoever changes it is
//! found out, and that its master key can be changed under load.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Text},
};
use store::{
    Authority, Customer, Encryption, Error, Migrate, NewCustomer, Principal, Profile, Put, Settings, Status, Store,
};
use tokio::task::{JoinSet, block_in_place};

use super::{
    Bench, Ring, STATUSES, account, block_on, credentials, full_profile, image, key, location, new_customer, origin,
    soon, try_open, with_images,
};
use crate::support::{Backend, Database, until};

on_both![
    Bench::run;
    a_store_that_holds_customers_in_clear_text_is_refused_with_a_key,
    a_store_without_customers_becomes_encrypted_and_is_then_refused_without_its_key,
    a_gateway_without_a_key_does_not_write_to_a_store_that_became_encrypted,
    of_many_that_open_an_empty_store_with_a_key_all_read_each_other,
    a_clear_store_is_encrypted_with_all_that_it_holds,
    an_encryption_that_was_interrupted_goes_on_where_it_ended,
    an_encryption_beside_gateways_that_write_leaves_no_clear_text,
    what_is_in_clear_text_is_found_by_the_search,
];

mod of_a_sealed_store {
    use super::*;

    on_both![
        Bench::sealed;
        nothing_personal_is_to_be_read,
        a_value_that_was_changed_is_refused,
        values_that_were_swapped_are_refused,
        a_customer_that_was_moved_to_another_account_is_refused,
        a_rotation_goes_unnoticed_under_load,
        nobody_is_registered_under_an_old_key_after_a_rotation,
        a_store_whose_source_lacks_the_new_key_works_once_it_has_it,
        a_rotation_that_was_interrupted_can_be_made_again,
    ];
}

/// What opening a store was refused with.
#[track_caller]
fn refused(database: &Database, ring: Option<&Ring>) -> String {
    match try_open(database, Migrate::Auto, &crate::store::patient(), ring) {
        Err(Error::Keys(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("the store was opened"),
    }
}

fn open(database: &Database, ring: &Ring) -> Store {
    super::open(database, &crate::store::patient(), Some(ring))
}

fn encryption(database: &Database, ring: &Ring) -> Encryption {
    Encryption::open(&location(database), &crate::store::patient(), &ring.keys()).unwrap()
}

/// Encrypts a store, and tells how many customers it encrypted.
fn encrypt(database: &Database, ring: &Ring) -> store::Result<u64> {
    block_in_place(|| encryption(database, ring).encrypt(|_| {}))
}

fn rotate(database: &Database, ring: &Ring) -> store::Result<u64> {
    block_in_place(|| encryption(database, ring).rotate(|_| {}))
}

/// The shop's right after its credentials were made stale.
fn operator(bench: &Bench) -> Principal {
    Principal {
        authority: Authority::Operator,
        ..bench.shop
    }
}

const FRONT: &[u8] = b"FrontImageCanary";
const BACK: &[u8] = b"BackImageCanary";

fn personal(email: &str) -> NewCustomer {
    NewCustomer {
        reference: "0042".to_owned(),
        profile: canaries(),
        ..with_images(email, FRONT, BACK)
    }
}

fn canaries() -> Profile {
    Profile {
        email: String::new(),
        first_name: "FirstNameCanary".to_owned(),
        last_name: "LastNameCanary".to_owned(),
        address: "77 AddressCanary".to_owned(),
        city: "CityCanary".to_owned(),
        state: "StateCanary".to_owned(),
        zip: "ZipCanary".to_owned(),
        date_of_birth: "19870605".to_owned(),
        phone: "00491234567890".to_owned(),
    }
}

/// Those personal values of `personal("EmailCanary@example.com")` that are found in some bytes: as they are, in
/// hexadecimal digits, or in Base64.
fn found(bytes: &[u8]) -> BTreeSet<String> {
    let Profile {
        first_name,
        last_name,
        address,
        city,
        state,
        zip,
        date_of_birth,
        phone,
        ..
    } = canaries();
    let values = [first_name, last_name, address, city, state, zip, date_of_birth, phone];
    let values = values.map(String::into_bytes).into_iter().chain([
        b"EmailCanary@example.com".to_vec(),
        b"emailcanary@example.com".to_vec(),
        FRONT.to_vec(),
        BACK.to_vec(),
    ]);
    let contains = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    values
        .filter(|value| {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            // Wherever in the text it begins: its first and last letters are those of its neighbours too.
            let base64 = (0..3).any(|shift| {
                let text = BASE64_STANDARD.encode([&vec![0; shift][..], value].concat());
                contains(&text.as_bytes()[shift + 1..text.len() - 4])
            });
            contains(value) || contains(hex.as_bytes()) || contains(hex.to_uppercase().as_bytes()) || base64
        })
        .map(|value| String::from_utf8(value).unwrap())
        .collect()
}

async fn a_store_that_holds_customers_in_clear_text_is_refused_with_a_key(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let message = refused(&bench.database, Some(&Ring::new(1)));
    assert!(
        message.contains("clear text") && message.contains("keys encrypt"),
        "{message}"
    );
    bench.set("a@example.com", Status::Pass).await.unwrap();
}

async fn a_store_without_customers_becomes_encrypted_and_is_then_refused_without_its_key(bench: Bench) {
    assert!(!bench.store.is_encrypted());
    let ring = Ring::new(1);
    let store = open(&bench.database, &ring);
    assert!(store.is_encrypted());
    let message = refused(&bench.database, None);
    assert!(
        message.contains("encrypted") && message.contains("--key-file"),
        "{message}"
    );
    // Another number, and another key with the same number.
    for other in [Ring::new(2), Ring::new(1)] {
        match try_open(&bench.database, Migrate::Auto, &crate::store::patient(), Some(&other)) {
            Err(Error::Keys(_)) => {}
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("the store was opened with another key"),
        }
    }
    assert!(open(&bench.database, &ring).is_encrypted());
}

async fn a_gateway_without_a_key_does_not_write_to_a_store_that_became_encrypted(bench: Bench) {
    open(&bench.database, &Ring::new(1));
    not_served(&bench).await;
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 0);
}

/// A gateway that opened the store in clear text neither writes nor reads, whatever right it has.
async fn not_served(bench: &Bench) {
    let unavailable = |answer: store::Result<()>| {
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    };
    for principal in [bench.shop, operator(bench)] {
        let put = Put {
            principal,
            ..bench.wanted(personal("EmailCanary@example.com"))
        };
        unavailable(bench.store.put_customer(put, soon()).await.map(drop));
    }
    unavailable(bench.import(vec![personal("EmailCanary@example.com")]).await.map(drop));
    unavailable(bench.store.account("shop", soon()).await.map(drop));
    let answer = bench.set("EmailCanary@example.com", Status::Pass).await;
    assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
    let answer = bench.store.customer(bench.shop, key("EmailCanary@example.com"), soon());
    assert!(matches!(answer.await, Err(Error::StaleCredentials)));
}

async fn of_many_that_open_an_empty_store_with_a_key_all_read_each_other(bench: Bench) {
    const GATEWAYS: usize = 6;
    let database = bench.database.backend.database();
    let ring = Ring::new(1);
    let barrier = Barrier::new(GATEWAYS);
    let stores: Vec<Store> = block_in_place(|| {
        std::thread::scope(|scope| {
            let gateways: Vec<_> = (0..GATEWAYS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        open(&database, &ring)
                    })
                })
                .collect();
            gateways.into_iter().map(|gateway| gateway.join().unwrap()).collect()
        })
    });
    let shop = account(&stores[0], "shop").await;
    for (number, store) in stores.iter().enumerate() {
        let put = Put {
            principal: shop,
            ..bench.wanted(personal(&format!("{number}@example.com")))
        };
        store.put_customer(put, soon()).await.unwrap();
    }
    for store in &stores {
        for number in 0..GATEWAYS {
            let email = key(&format!("{number}@example.com"));
            let (customer, documents) = store.documents(shop, email, soon()).await.unwrap();
            assert_eq!(customer.profile.last_name, "LastNameCanary");
            assert!(documents.front == FRONT && documents.back == BACK);
        }
    }
}

async fn a_clear_store_is_encrypted_with_all_that_it_holds(bench: Bench) {
    let other = account(&bench.store, "other").await;
    bench.put(personal("EmailCanary@example.com")).await.unwrap();
    bench.register(&["b@example.com"]).await;
    bench.set("EmailCanary@example.com", Status::Pass).await.unwrap();
    let put = Put {
        principal: other,
        ..bench.wanted(personal("EmailCanary@example.com"))
    };
    bench.store.put_customer(put, soon()).await.unwrap();
    // With a reply that is kept for whoever sends this again.
    let put = Put {
        key: Some("retry".parse().unwrap()),
        ..bench.wanted(personal("EmailCanary@example.com"))
    };
    bench.store.put_customer(put, soon()).await.unwrap();
    let keys = || {
        bench
            .database
            .session()
            .number("(SELECT count(*) FROM idempotency_keys)")
    };
    assert_eq!(keys(), 1);
    if bench.database.backend == Backend::Postgres {
        // What the planner knows of the columns quotes them.
        bench.database.session().execute("ANALYZE");
    }
    let emails = ["EmailCanary@example.com", "b@example.com"];
    let mut before = Vec::new();
    for email in emails {
        before.push((bench.customer(email).await, bench.history(email).await));
    }

    let ring = Ring::new(7);
    assert_eq!(encrypt(&bench.database, &ring).unwrap(), 3);
    assert_eq!(keys(), 0);
    assert_eq!(found(&bench.database.stolen()), BTreeSet::new());
    not_served(&bench).await;
    assert_eq!(found(&bench.database.stolen()), BTreeSet::new());
    if bench.database.backend == Backend::Postgres {
        let mut sql = bench.database.session();
        let quoted = "(SELECT count(*) FROM pg_stats WHERE schemaname = 'public'
                       AND coalesce(histogram_bounds::text, '') || coalesce(most_common_vals::text, '') ILIKE '%canary%')";
        assert_eq!(sql.number(quoted), 0);
    }

    let store = open(&bench.database, &ring);
    assert_eq!(encrypt(&bench.database, &ring).unwrap(), 0, "it was encrypted already");
    let shop = credentials(&store, "shop").await;
    for (email, (customer, history)) in emails.into_iter().zip(before) {
        assert_eq!(store.customer(shop, key(email), soon()).await.unwrap(), customer);
        assert_eq!(store.history(shop, key(email), 10, soon()).await.unwrap(), history);
    }
    let other = credentials(&store, "other").await;
    for principal in [shop, other] {
        let read = store.documents(principal, key("emailcanary@example.com"), soon()).await;
        let (customer, documents) = read.unwrap();
        assert!(documents.front == FRONT && documents.back == BACK);
        assert_eq!(customer.profile.email, "EmailCanary@example.com");
    }
    let put = Put {
        principal: shop,
        ..bench.wanted(new_customer("B@example.com"))
    };
    assert!(!store.put_customer(put, soon()).await.unwrap().created);
}

async fn an_encryption_that_was_interrupted_goes_on_where_it_ended(bench: Bench) {
    let customers = (0..1_200).map(|number| new_customer(&format!("{number}@example.com")));
    bench.import(customers.collect()).await.unwrap();
    bench.put(personal("EmailCanary@example.com")).await.unwrap();
    let mut sql = bench.database.session();
    let (set, clear) = match bench.database.backend {
        Backend::Sqlite => (
            "CREATE TRIGGER stop BEFORE UPDATE ON customers WHEN OLD.id = 1100 BEGIN SELECT RAISE(ABORT, 'stop'); END",
            "DROP TRIGGER stop",
        ),
        Backend::Postgres => (
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stop'; END $$;
             CREATE TRIGGER stop BEFORE UPDATE ON customers FOR EACH ROW WHEN (OLD.id = 1100) EXECUTE FUNCTION stop()",
            "DROP TRIGGER stop ON customers",
        ),
    };
    sql.execute(set);
    let ring = Ring::new(1);
    let answer = encrypt(&bench.database, &ring);
    assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
    let converted = "(SELECT count(*) FROM customers WHERE data_key IS NOT NULL)";
    assert_eq!(sql.number(converted), 1_000);
    sql.execute(clear);

    // Meanwhile nobody else can use it, and no other key can finish it.
    for ring in [Some(&ring), None] {
        let message = refused(&bench.database, ring);
        assert!(message.contains("keys encrypt"), "{message}");
    }
    not_served(&bench).await;
    for other in [Ring::new(1), Ring::new(2)] {
        let answer = encrypt(&bench.database, &other);
        assert!(matches!(answer, Err(Error::Keys(_))), "{answer:?}");
    }
    let answer = rotate(&bench.database, &ring);
    assert!(matches!(answer, Err(Error::Keys(_))), "{answer:?}");

    let mut said = Vec::new();
    let encrypted = block_in_place(|| encryption(&bench.database, &ring).encrypt(|progress| said.push(progress)));
    assert_eq!(encrypted.unwrap(), 201);
    let last = said.last().unwrap();
    assert_eq!((last.done, last.total), (1_201, 1_201));
    assert_eq!(said[0].done, 1_000, "what was done before is told");

    assert_eq!(found(&bench.database.stolen()), BTreeSet::new());
    let store = open(&bench.database, &ring);
    let customers = store.customers(bench.shop.account, 0, 2_000, soon()).await.unwrap();
    let emails: Vec<_> = customers.iter().map(|customer| &*customer.profile.email).collect();
    let mut expected: Vec<_> = (0..1_200).map(|number| format!("{number}@example.com")).collect();
    expected.push("EmailCanary@example.com".to_owned());
    assert_eq!(emails, expected);
    for email in [&*expected[0], &*expected[1_099], &*expected[1_200]] {
        store.customer(operator(&bench), key(email), soon()).await.unwrap();
    }
}

#[test]
fn an_encryption_does_not_end_while_a_reader_keeps_the_clear_text_in_the_wal() {
    block_on(async {
        let bench = Bench::on(Backend::Sqlite.database()).await;
        bench.put(personal("EmailCanary@example.com")).await.unwrap();
        let mut reader = bench.database.session();
        reader.execute("BEGIN; SELECT count(*) FROM customers");
        let ring = Ring::new(1);
        let impatient = Settings {
            statement: Duration::from_millis(50),
            ..crate::store::patient()
        };
        let open = || Encryption::open(&location(&bench.database), &impatient, &ring.keys()).unwrap();
        let answer = block_in_place(|| open().encrypt(|_| {}));
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        refused(&bench.database, Some(&ring));
        reader.execute("COMMIT");
        assert_eq!(block_in_place(|| open().encrypt(|_| {})).unwrap(), 0);
        assert_eq!(found(&bench.database.stolen()), BTreeSet::new());
        super::open(&bench.database, &crate::store::patient(), Some(&ring));
    });
}

async fn an_encryption_beside_gateways_that_write_leaves_no_clear_text(bench: Bench) {
    bench
        .import(
            (0..600)
                .map(|number| new_customer(&format!("{number}@example.com")))
                .collect(),
        )
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    let written = Arc::new(AtomicBool::new(false));
    for task in 0..6_u32 {
        let store = bench.store.clone();
        let written = Arc::clone(&written);
        let principal = if task == 5 { operator(&bench) } else { bench.shop };
        let account = bench.shop.account;
        tasks.spawn(async move {
            for number in 0.. {
                let email = format!("new{}@example.com", number % 500);
                let answer = match task {
                    0 => {
                        let new = vec![personal(&email), personal(&format!("{number}@example.com"))];
                        store.import(account, new, origin("import"), soon()).await.map(drop)
                    }
                    _ => {
                        let put = Put {
                            etag: None,
                            key: None,
                            principal,
                            new: personal(&email),
                            origin: origin("put"),
                            hold: None,
                        };
                        store.put_customer(put, soon()).await.map(drop)
                    }
                };
                match answer {
                    Ok(()) => written.store(true, Ordering::Relaxed),
                    Err(Error::Unavailable(_) | Error::StaleCredentials) => return,
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    while !written.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    let ring = Ring::new(1);
    let encrypted = encrypt(&bench.database, &ring).unwrap();
    tasks.join_all().await;
    let mut sql = bench.database.session();
    assert_eq!(sql.number("(SELECT count(*) FROM customers)"), encrypted as i64);
    assert_eq!(sql.number("(SELECT count(*) FROM customers WHERE data_key IS NULL)"), 0);
    assert_eq!(found(&bench.database.stolen()), BTreeSet::new());
    let store = open(&bench.database, &ring);
    let customers = store.customers(bench.shop.account, 0, u32::MAX, soon()).await.unwrap();
    assert_eq!(customers.len() as u64, encrypted);
}

async fn what_is_in_clear_text_is_found_by_the_search(bench: Bench) {
    bench.put(personal("EmailCanary@example.com")).await.unwrap();
    assert_eq!(found(&bench.database.stolen()).len(), 12, "every value is found");
}

async fn nothing_personal_is_to_be_read(bench: Bench) {
    let none = BTreeSet::new();
    bench.put(personal("EmailCanary@example.com")).await.unwrap();
    bench.import(vec![personal("EmailCanary@example.com")]).await.unwrap();
    // Before anything was copied from the WAL.
    assert_eq!(found(&bench.database.stolen()), none);
    bench.set("EmailCanary@example.com", Status::Pass).await.unwrap();
    bench.documents("EmailCanary@example.com").await;
    bench.customer("EmailCanary@example.com").await;
    let mut changed = personal("EmailCanary@example.com");
    changed.profile.city = "Elsewhere".to_owned();
    bench.put(changed).await.unwrap();
    bench.put(personal("EmailCanary@example.com")).await.unwrap();
    assert_eq!(found(&bench.database.stolen()), none);
    let Bench { database, store, .. } = bench;
    drop(store);
    assert_eq!(found(&database.stolen()), none);
}

/// What a cell holds.
#[derive(Clone, PartialEq)]
enum Cell {
    Bytes(Vec<u8>),
    Text(String),
    Number(i64),
}

#[derive(QueryableByName)]
struct Bytes {
    #[diesel(sql_type = Binary)]
    value: Vec<u8>,
}

#[derive(QueryableByName)]
struct Words {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// A cell of the database: a table, a column, and which row.
struct Place {
    table: &'static str,
    column: &'static str,
    row: String,
}

impl Place {
    fn of(table: &'static str, column: &'static str, customer: i64, kind: i16) -> Self {
        let row = match table {
            "customers" => format!("id = {customer}"),
            _ => format!("customer_id = {customer} AND kind = {kind}"),
        };
        Self { table, column, row }
    }

    fn read(&self, database: &Database) -> Cell {
        let mut sql = database.session();
        let Self { table, column, row } = self;
        let query = format!("SELECT {column} AS value FROM {table} WHERE {row}");
        match *column {
            "public_id" | "email_key" => Cell::Text(sql.rows::<Words>(&query).remove(0).value),
            "account_id" => Cell::Number(sql.rows::<Number>(&query).remove(0).value),
            _ => Cell::Bytes(sql.rows::<Bytes>(&query).remove(0).value),
        }
    }

    fn write(&self, database: &Database, cell: &Cell) {
        let Self { table, column, row } = self;
        let value = match cell {
            Cell::Bytes(bytes) => database.backend.bytes(bytes),
            Cell::Text(text) => format!("'{text}'"),
            Cell::Number(number) => number.to_string(),
        };
        let mut sql = database.session();
        sql.execute(&format!("UPDATE {table} SET {column} = {value} WHERE {row}"));
    }
}

const SEALED: [(&str, &str); 5] = [
    ("customers", "profile"),
    ("customers", "data_key"),
    ("customers", "public_id"),
    ("customers", "email_key"),
    ("documents", "content"),
];

/// Two customers of the shop, with nothing in common.
async fn two(bench: &Bench) -> [Customer; 2] {
    let one = NewCustomer {
        profile: full_profile(),
        ..with_images("a@example.com", &image(1, 40), &image(2, 40))
    };
    let other = NewCustomer {
        profile: Profile {
            first_name: "Other".to_owned(),
            ..Profile::default()
        },
        ..with_images("b@example.com", &image(3, 40), &image(4, 40))
    };
    [
        bench.put(one).await.unwrap().customer,
        bench.put(other).await.unwrap().customer,
    ]
}

/// Reads what is stored of two customers in every way there is. What comes back is their own; tells how many answers were
/// errors.
async fn refusals(bench: &Bench, customers: &[Customer; 2]) -> usize {
    let mut errors = 0;
    for (customer, seeds) in customers.iter().zip([[1, 2], [3, 4]]) {
        let email = || key(&customer.profile.email);
        match bench.store.customer(bench.shop, email(), soon()).await {
            Ok(read) => assert_eq!(&read, customer),
            Err(Error::Internal(_) | Error::Keys(_) | Error::CustomerNotFound) => errors += 1,
            Err(error) => panic!("{error:?}"),
        }
        match bench.store.documents(bench.shop, email(), soon()).await {
            Ok((read, documents)) => {
                assert_eq!(&read, customer);
                assert!(documents.front == image(seeds[0], 40) && documents.back == image(seeds[1], 40));
            }
            Err(Error::Internal(_) | Error::Keys(_) | Error::CustomerNotFound) => errors += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    match bench.store.customers(bench.shop.account, 0, 10, soon()).await {
        Ok(read) => assert!(read.iter().all(|read| customers.contains(read))),
        Err(_) => errors += 1,
    }
    errors
}

async fn a_value_that_was_changed_is_refused(bench: Bench) {
    let customers = two(&bench).await;
    assert_eq!(refusals(&bench, &customers).await, 0);
    for (table, column) in SEALED {
        let place = Place::of(table, column, customers[0].id, 1);
        let original = place.read(&bench.database);
        let length = match &original {
            Cell::Bytes(bytes) => bytes.len(),
            Cell::Text(text) => text.len(),
            Cell::Number(_) => 0,
        };
        for at in 0..length {
            let mut changed = original.clone();
            match &mut changed {
                Cell::Bytes(bytes) => bytes[at] ^= 1 << (at % 8),
                Cell::Text(text) => {
                    let other = if &text[at..=at] == "0" { "1" } else { "0" };
                    text.replace_range(at..=at, other);
                }
                Cell::Number(_) => {}
            }
            place.write(&bench.database, &changed);
            assert!(refusals(&bench, &customers).await > 0, "{column} at {at}");
        }
        // Nor is it taken when some of it is missing.
        if let Cell::Bytes(bytes) = &original {
            for left in [0, 1, 5, bytes.len() - 1] {
                place.write(&bench.database, &Cell::Bytes(bytes[..left].to_vec()));
                assert!(refusals(&bench, &customers).await > 0, "{left} bytes of {column}");
            }
        }
        place.write(&bench.database, &original);
        assert_eq!(refusals(&bench, &customers).await, 0);
    }
    // Without its key it is not taken for clear text.
    let sql = format!("UPDATE customers SET data_key = NULL WHERE id = {}", customers[0].id);
    bench.database.session().execute(&sql);
    assert!(refusals(&bench, &customers).await > 0);
}

async fn values_that_were_swapped_are_refused(bench: Bench) {
    let customers = two(&bench).await;
    let swap = |columns: &[(&'static str, &'static str)], kinds: [i16; 2]| {
        for (table, column) in columns {
            let places = [0, 1].map(|one| Place::of(table, column, customers[one].id, kinds[one]));
            let cells = [places[0].read(&bench.database), places[1].read(&bench.database)];
            // An address is there once.
            if let Cell::Text(_) = cells[0] {
                places[0].write(&bench.database, &Cell::Text("between".to_owned()));
            }
            places[1].write(&bench.database, &cells[0]);
            places[0].write(&bench.database, &cells[1]);
        }
    };
    let [profile, data_key, public_id, email_key, content] = SEALED;
    for columns in [
        &[profile][..],
        &[data_key],
        &[public_id],
        &[email_key],
        &[content],
        &[profile, data_key],
        &[profile, content],
        &[profile, data_key, content],
        &[profile, data_key, email_key],
        &[profile, data_key, public_id],
        &[data_key, public_id, email_key],
    ] {
        swap(columns, [1, 1]);
        assert!(refusals(&bench, &customers).await > 0, "{columns:?}");
        // Whoever writes finds it out as well, and mends nothing.
        let unchanged = Place::of("customers", "profile", customers[0].id, 1).read(&bench.database);
        for customer in &customers {
            let mut change = new_customer(&customer.profile.email);
            change.profile.city = "Neustadt".to_owned();
            if columns != [content] {
                assert!(bench.put(change).await.is_err(), "{columns:?}");
            }
        }
        assert!(unchanged == Place::of("customers", "profile", customers[0].id, 1).read(&bench.database));
        swap(columns, [1, 1]);
        assert_eq!(refusals(&bench, &customers).await, 0);
    }
    // The front of one as the back of the other, and of the same.
    swap(&[content], [1, 2]);
    assert!(refusals(&bench, &customers).await > 0);
    swap(&[content], [1, 2]);
    for id in customers.each_ref().map(|customer| customer.id) {
        let turn = || {
            let [front, back] = [1, 2].map(|kind| Place::of("documents", "content", id, kind));
            let cells = [front.read(&bench.database), back.read(&bench.database)];
            front.write(&bench.database, &cells[1]);
            back.write(&bench.database, &cells[0]);
        };
        turn();
        assert!(refusals(&bench, &customers).await > 0);
        turn();
    }
    // All the images of one as those of the other.
    let mut sql = bench.database.session();
    let [one, other] = customers.each_ref().map(|customer| customer.id);
    let mut turn = || {
        for (from, to) in [(one, -1), (other, one), (-1, other)] {
            sql.execute(&format!(
                "UPDATE documents SET customer_id = {to} WHERE customer_id = {from}"
            ));
        }
    };
    turn();
    assert_eq!(refusals(&bench, &customers).await, 2);
    turn();
    assert_eq!(refusals(&bench, &customers).await, 0);
}

async fn a_customer_that_was_moved_to_another_account_is_refused(bench: Bench) {
    let customers = two(&bench).await;
    let other = account(&bench.store, "other").await;
    let place = Place::of("customers", "account_id", customers[0].id, 1);
    place.write(&bench.database, &Cell::Number(other.account));
    assert!(refusals(&bench, &customers).await > 0);
    let email = || key("a@example.com");
    let answer = bench.store.customer(other, email(), soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    let answer = bench.store.customers(other.account, 0, 10, soon()).await;
    assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
    // Nor does it help to put it where the other account looks for that address.
    let put = Put {
        principal: other,
        ..bench.wanted(new_customer("a@example.com"))
    };
    let theirs = bench.store.put_customer(put, soon()).await.unwrap().customer;
    let index = Place::of("customers", "email_key", theirs.id, 1);
    let found_by = index.read(&bench.database);
    index.write(&bench.database, &Cell::Text("elsewhere".to_owned()));
    Place::of("customers", "email_key", customers[0].id, 1).write(&bench.database, &found_by);
    let answer = bench.store.customer(other, email(), soon()).await;
    assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
}

/// How many keys are wrapped by the master key of a number.
fn wrapped_by(database: &Database, number: u32) -> i64 {
    let number = database.backend.bytes(&number.to_le_bytes());
    database.session().number(&format!(
        "((SELECT count(*) FROM customers WHERE substr(data_key, 2, 4) = {number})
          + (SELECT count(*) FROM encryption WHERE substr(index_key, 2, 4) = {number}))"
    ))
}

async fn a_rotation_goes_unnoticed_under_load(bench: Bench) {
    const CUSTOMERS: usize = 2_000;
    let ring = bench.ring.clone().unwrap();
    for part in 0..CUSTOMERS / 1_000 {
        let customers = (0..1_000).map(|number| personal(&format!("{}@example.com", part * 1_000 + number)));
        bench.import(customers.collect()).await.unwrap();
    }
    assert_eq!(wrapped_by(&bench.database, 1), CUSTOMERS as i64 + 1);

    let stores = [bench.store.clone(), bench.another(&crate::store::patient())];
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for task in 0..12 {
        let store = stores[task % 2].clone();
        let (shop, done) = (bench.shop, Arc::clone(&done));
        let change = bench.change("0@example.com", Status::Pass);
        tasks.spawn(async move {
            let mut calls = 0;
            for number in (0..).map(|number| number * 7 + task * 241) {
                let email = format!("{}@example.com", number % CUSTOMERS);
                match task / 2 % 3 {
                    0 => {
                        let change = store::Change {
                            email: key(&email),
                            status: STATUSES[number % 3],
                            ..change.clone()
                        };
                        store.set_status(change, soon()).await.unwrap();
                    }
                    1 => {
                        let put = Put {
                            etag: None,
                            key: None,
                            principal: shop,
                            new: personal(&match number % 2 {
                                0 => email,
                                _ => format!("new{number}@example.com"),
                            }),
                            origin: origin("put"),
                            hold: None,
                        };
                        store.put_customer(put, soon()).await.unwrap();
                    }
                    _ => {
                        let (customer, documents) = store.documents(shop, key(&email), soon()).await.unwrap();
                        assert_eq!(customer.profile.email, email);
                        assert!(documents.front == FRONT);
                    }
                }
                calls += 1;
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            calls
        });
    }
    ring.add(2);
    let rotated = rotate(&bench.database, &ring).unwrap();
    done.store(true, Ordering::Relaxed);
    let calls: usize = tasks.join_all().await.into_iter().sum();
    assert!(rotated >= CUSTOMERS as u64);
    assert!(calls > 100, "{calls} calls");
    assert_eq!(wrapped_by(&bench.database, 1), 0);

    // The old key is needed no more.
    ring.remove(1);
    let store = open(&bench.database, &ring);
    let customers = store.customers(bench.shop.account, 0, u32::MAX, soon()).await.unwrap();
    assert_eq!(
        customers.len() as i64,
        bench.database.session().number("(SELECT count(*) FROM customers)")
    );
    assert!(
        customers
            .iter()
            .all(|customer| customer.profile.last_name == "LastNameCanary")
    );
    assert_eq!(rotate(&bench.database, &ring).unwrap(), 0);
}

async fn nobody_is_registered_under_an_old_key_after_a_rotation(bench: Bench) {
    let ring = bench.ring.clone().unwrap();
    bench.register(&["a@example.com"]).await;
    ring.add(2);
    assert_eq!(rotate(&bench.database, &ring).unwrap(), 1);
    // This store has met no key that it does not know.
    bench.put(personal("new@example.com")).await.unwrap();
    bench.register(&["imported@example.com"]).await;
    assert_eq!(wrapped_by(&bench.database, 1), 0);
    assert_eq!(wrapped_by(&bench.database, 2), 4);
}

async fn a_store_whose_source_lacks_the_new_key_works_once_it_has_it(bench: Bench) {
    bench.put(personal("a@example.com")).await.unwrap();
    // A copy of the keys elsewhere, to which the new one comes later.
    let here = bench.ring.clone().unwrap();
    let there = Ring {
        lines: Arc::new(Mutex::new(here.lines.lock().unwrap().clone())),
    };
    there.add(2);
    rotate(&bench.database, &there).unwrap();

    let answer = bench.store.customer(bench.shop, key("a@example.com"), soon()).await;
    assert!(matches!(answer, Err(Error::Keys(_))), "{answer:?}");
    let answer = bench.put(personal("new@example.com")).await;
    assert!(matches!(answer, Err(Error::Keys(_))), "{answer:?}");
    let message = refused(&bench.database, Some(&here));
    assert!(message.contains('2'), "{message}");

    here.lines.lock().unwrap().clone_from(&there.lines.lock().unwrap());
    // It is read again within a second.
    let handle = tokio::runtime::Handle::current();
    block_in_place(|| {
        until("the key is found", || {
            let read = bench.store.customer(bench.shop, key("a@example.com"), soon());
            handle.block_on(read).ok()
        })
    });
    assert!(bench.put(personal("new@example.com")).await.unwrap().created);
    assert_eq!(wrapped_by(&bench.database, 1), 0);
}

async fn a_rotation_that_was_interrupted_can_be_made_again(bench: Bench) {
    let customers = (0..1_200).map(|number| new_customer(&format!("{number}@example.com")));
    bench.import(customers.collect()).await.unwrap();
    let ring = bench.ring.clone().unwrap();
    let mut sql = bench.database.session();
    let (set, clear) = match bench.database.backend {
        Backend::Sqlite => (
            "CREATE TRIGGER stop BEFORE UPDATE ON customers WHEN OLD.id = 1100 BEGIN SELECT RAISE(ABORT, 'stop'); END",
            "DROP TRIGGER stop",
        ),
        Backend::Postgres => (
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stop'; END $$;
             CREATE TRIGGER stop BEFORE UPDATE ON customers FOR EACH ROW WHEN (OLD.id = 1100) EXECUTE FUNCTION stop()",
            "DROP TRIGGER stop ON customers",
        ),
    };
    sql.execute(set);
    ring.add(2);
    rotate(&bench.database, &ring).unwrap_err();
    sql.execute(clear);
    assert_eq!(wrapped_by(&bench.database, 1), 200);
    for email in ["0@example.com", "1199@example.com"] {
        bench.customer(email).await;
    }
    assert_eq!(rotate(&bench.database, &ring).unwrap(), 200);
    assert_eq!(wrapped_by(&bench.database, 1), 0);
}
