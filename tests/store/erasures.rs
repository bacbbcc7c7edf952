//! Erasures: what is gone, and what stays as proof.

use std::time::{Instant, SystemTime};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, SmallInt, Text},
};
use store::{Authority, Erasure, Error, Face, Field, NewCustomer, Principal, Profile, Result, Status};

use super::{Bench, account, block_on, full_profile, image, key, new_customer, origin, soon, with_images};
use crate::support::Backend;

on_both![
    Bench::each;
    what_is_erased_is_gone_and_its_history_stays,
    an_erased_customer_is_not_found,
    the_same_address_can_be_registered_anew_under_another_id,
    who_may_not_erase_erases_nothing,
    others_are_not_touched,
    an_erasure_and_changes_of_the_same_customer_at_once_leave_no_remains,
];

impl Bench {
    async fn erase(&self, email: &str) -> Result<Erasure> {
        self.store
            .erase_customer(
                store::Erase {
                    principal: self.shop,
                    email: key(email),
                    key: None,
                    origin: origin("erase"),
                },
                soon(),
            )
            .await
    }
}

fn full(email: &str) -> NewCustomer {
    NewCustomer {
        reference: "0042".to_owned(),
        profile: full_profile(),
        ..with_images(email, &image(1, 3_000), &image(2, 3_000))
    }
}

/// A row of `erasures`.
#[derive(QueryableByName)]
struct Proof {
    #[diesel(sql_type = BigInt)]
    customer_id: i64,
    #[diesel(sql_type = BigInt)]
    account_id: i64,
    #[diesel(sql_type = Text)]
    public_id: String,
    #[diesel(sql_type = Text)]
    actor: String,
    #[diesel(sql_type = SmallInt)]
    face: i16,
    #[diesel(sql_type = Text)]
    request_id: String,
}

async fn what_is_erased_is_gone_and_its_history_stays(bench: Bench) {
    let before = bench.put(full("a@example.com")).await.unwrap().customer;
    bench.set("a@example.com", Status::Pass).await.unwrap();
    bench.set("a@example.com", Status::Fail).await.unwrap();

    let erasure = bench.erase("A@Example.com").await.unwrap();
    assert_eq!(erasure.public_id, before.public_id);
    assert_eq!(erasure.status_changes, 4, "with the one that tells of the erasure");
    assert!(erasure.time >= before.update_time && erasure.time <= SystemTime::now());

    let mut sql = bench.database.session();
    assert_eq!(sql.number("(SELECT count(*) FROM customers)"), 0);
    assert_eq!(sql.number("(SELECT count(*) FROM documents)"), 0);
    let history = format!(
        "(SELECT count(*) FROM status_changes WHERE customer_id = {})",
        before.id
    );
    assert_eq!(sql.number(&history), 4);
    assert_eq!(
        sql.number(&format!(
            "{history} - (SELECT count(*) FROM status_changes WHERE kind = 1)"
        )),
        1
    );
    let proof: Vec<Proof> = sql.rows("SELECT * FROM erasures");
    let [proof] = &proof[..] else {
        panic!("{} rows", proof.len())
    };
    assert_eq!((proof.customer_id, proof.account_id), (before.id, bench.shop.account));
    assert_eq!((&proof.public_id, &*proof.actor), (&before.public_id, "shop"));
    assert_eq!((proof.face, &*proof.request_id), (Face::Grpc as i16, "erase"));
}

async fn an_erased_customer_is_not_found(bench: Bench) {
    bench.put(full("a@example.com")).await.unwrap();
    bench.erase("a@example.com").await.unwrap();
    let (store, shop) = (&bench.store, bench.shop);
    let email = || key("a@example.com");
    for answer in [
        store.customer(shop, email(), soon()).await.map(drop),
        store.documents(shop, email(), soon()).await.map(drop),
        store.document_bytes(shop, email(), soon()).await.map(drop),
        store.history(shop, email(), 10, soon()).await.map(drop),
        bench.set("a@example.com", Status::Pass).await.map(drop),
        bench.erase("a@example.com").await.map(drop),
    ] {
        assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    }
    assert!(store.customers(shop.account, 0, 10, soon()).await.unwrap().is_empty());
    assert_eq!(store.customer_count(shop.account, soon()).await.unwrap(), 0);
}

async fn the_same_address_can_be_registered_anew_under_another_id(bench: Bench) {
    let mut last = 0;
    for _ in 0..3 {
        let made = bench.put(new_customer("a@example.com")).await.unwrap();
        assert!(made.created);
        assert!(made.customer.id > last);
        last = made.customer.id;
        assert!(made.customer.profile.last_name.is_empty(), "nothing comes back");
        let documents = bench.documents("a@example.com").await;
        assert!(documents.front.is_empty() && documents.back.is_empty());
        assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
        bench.put(full("a@example.com")).await.unwrap();
        bench.erase("a@example.com").await.unwrap();
    }
    let mut sql = bench.database.session();
    assert_eq!(sql.number("(SELECT count(*) FROM erasures)"), 3);
    assert_eq!(sql.number("(SELECT count(*) FROM status_changes)"), 6);
}

async fn who_may_not_erase_erases_nothing(bench: Bench) {
    let before = bench.put(full("a@example.com")).await.unwrap().customer;
    let other = account(&bench.store, "other").await;
    let erase = |principal, deadline| {
        bench.store.erase_customer(
            store::Erase {
                principal,
                email: key("a@example.com"),
                key: None,
                origin: origin("erase"),
            },
            deadline,
        )
    };
    let answer = erase(other, soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    let stale = Principal {
        authority: Authority::Credentials { version: 0 },
        ..bench.shop
    };
    for principal in [stale, Principal { account: 0, ..stale }] {
        let answer = erase(principal, soon()).await;
        assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
    }
    let answer = erase(bench.shop, Instant::now()).await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    assert_eq!(bench.customer("a@example.com").await, before);
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM erasures)"), 0);
}

async fn others_are_not_touched(bench: Bench) {
    bench.put(full("a@example.com")).await.unwrap();
    let other = bench.put(full("b@example.com")).await.unwrap().customer;
    bench.erase("a@example.com").await.unwrap();
    assert_eq!(bench.customer("b@example.com").await, other);
    assert!(bench.documents("b@example.com").await.front == image(1, 3_000));
    assert_eq!(bench.whole_history("b@example.com").await.len(), 1);
}

async fn an_erasure_and_changes_of_the_same_customer_at_once_leave_no_remains(bench: Bench) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let stores = [bench.store.clone(), bench.another(&crate::store::patient())];
        let shop = bench.shop;
        let puts: Vec<_> = (0..30).map(|_| bench.wanted(full("a@example.com"))).collect();
        tasks.spawn(async move {
            for (number, put) in puts.into_iter().enumerate() {
                let store = &stores[(task + number) % 2];
                store.put_customer(put, soon()).await.unwrap();
                match store
                    .erase_customer(
                        store::Erase {
                            principal: shop,
                            email: key("a@example.com"),
                            key: None,
                            origin: origin("erase"),
                        },
                        soon(),
                    )
                    .await
                {
                    Ok(_) | Err(Error::CustomerNotFound) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    tasks.join_all().await;
    let mut sql = bench.database.session();
    let orphans = "(SELECT count(*) FROM documents WHERE customer_id NOT IN (SELECT id FROM customers))";
    assert_eq!(sql.number(orphans), 0);
    let erased = sql.number("(SELECT count(*) FROM erasures)");
    let there = sql.number("(SELECT count(*) FROM customers)");
    // Each customer that ever was has one beginning.
    let begun = sql.number("(SELECT count(*) FROM status_changes WHERE version = 1)");
    assert_eq!(begun, erased + there);
}

/// What a customer was named and showed, at any time, is in no file once it is erased and the store closed.
#[test]
fn the_bytes_of_an_erased_customer_are_in_no_file() {
    block_on(async {
        let bench = Bench::on(Backend::Sqlite.database()).await;
        let named = |email: &str, name: &str, front: &[u8]| NewCustomer {
            profile: Profile {
                last_name: name.to_owned(),
                address: name.repeat(40),
                ..Profile::default()
            },
            ..with_images(email, front, &[])
        };
        let large = |name: &str| name.repeat(20_000).into_bytes();
        // Customers around it, so that its row moves from page to page.
        for number in 0..200 {
            bench
                .put(named(&format!("{number}@example.com"), "Somebody", b"image"))
                .await
                .unwrap();
            if number == 100 {
                let new = named("canary@example.com", "FirstCanary", &large("ImageCanary"));
                bench.put(new).await.unwrap();
            }
        }
        assert!(
            found(&bench.database.stolen(), b"FirstCanary"),
            "the search finds what is there"
        );
        assert!(
            found(&bench.database.stolen(), b"ImageCanary"),
            "the search finds what is there"
        );

        bench
            .put(named("canary@example.com", "SecondCanary", b"small"))
            .await
            .unwrap();
        let mut cleared = new_customer("canary@example.com");
        cleared.restrict(&[Field::Front]);
        bench.put(cleared).await.unwrap();
        bench.erase("canary@example.com").await.unwrap();

        let Bench { database, store, .. } = bench;
        drop(store);
        let files = database.stolen();
        assert!(found(&files, b"Somebody"));
        for canary in ["FirstCanary", "SecondCanary", "ImageCanary", "canary@example.com"] {
            assert!(!found(&files, canary.as_bytes()), "{canary}");
        }
    });
}

fn found(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
