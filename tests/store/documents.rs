//! Images: none is lost or mixed up, and they expire.

use std::time::{Duration, SystemTime};

use store::{Error, Principal};

use super::{Bench, account, begin, image, key, new_customer, soon, with_images};
use crate::support::{Backend, until};

on_both![
    Bench::each;
    images_of_any_size_are_read_as_they_were_stored,
    a_customer_without_images_has_empty_ones,
    images_are_those_of_one_customer,
    images_are_read_with_credentials_that_hold,
    images_expire_in_batches_the_oldest_first,
    an_image_that_is_stored_anew_while_it_expires_stays,
];

async fn images_of_any_size_are_read_as_they_were_stored(bench: Bench) {
    for (number, size) in [1, 2, 1_023, 1_024, 1_000_000, 10 << 20].into_iter().enumerate() {
        let email = format!("{number}@example.com");
        let (front, back) = (image(number as u64, size), image(99, 1 + size / 2));
        bench.put(with_images(&email, &front, &back)).await.unwrap();

        let store = bench.another(&crate::store::patient());
        let (customer, documents) = store.documents(bench.shop, key(&email), soon()).await.unwrap();
        assert_eq!(customer, bench.customer(&email).await);
        assert!(documents.front == front && documents.back == back, "{size}");

        let stored = store.document_bytes(bench.shop, key(&email), soon()).await.unwrap();
        let given = (front.len() + back.len()) as u64;
        match store.is_encrypted() {
            false => assert_eq!(stored, given),
            true => assert!(stored > given && stored < given + 200, "{stored} of {given}"),
        }
    }
}

async fn a_customer_without_images_has_empty_ones(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let documents = bench.documents("a@example.com").await;
    assert!(documents.front.is_empty() && documents.back.is_empty());
    let bytes = bench
        .store
        .document_bytes(bench.shop, key("a@example.com"), soon())
        .await;
    assert_eq!(bytes.unwrap(), 0);
    let answer = bench.store.documents(bench.shop, key("b@example.com"), soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    let answer = bench
        .store
        .document_bytes(bench.shop, key("b@example.com"), soon())
        .await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
}

async fn images_are_those_of_one_customer(bench: Bench) {
    let (a, b) = (image(1, 300), image(2, 300));
    bench.put(with_images("a@example.com", &a, &b)).await.unwrap();
    bench.put(with_images("b@example.com", &b, &[])).await.unwrap();
    let documents = bench.documents("a@example.com").await;
    assert!(documents.front == a && documents.back == b);
    let documents = bench.documents("b@example.com").await;
    assert!(documents.front == b && documents.back.is_empty());
}

async fn images_are_read_with_credentials_that_hold(bench: Bench) {
    bench
        .put(with_images("a@example.com", &image(1, 300), &[]))
        .await
        .unwrap();
    let other = account(&bench.store, "other").await;
    let answer = bench.store.documents(other, key("a@example.com"), soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    let name = "shop".parse().unwrap();
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    for principal in [
        bench.shop,
        Principal {
            account: 0,
            ..bench.shop
        },
    ] {
        for email in ["a@example.com", "unknown@example.com"] {
            let answer = bench.store.documents(principal, key(email), soon()).await;
            assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
            let answer = bench.store.document_bytes(principal, key(email), soon()).await;
            assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
        }
    }
}

async fn images_expire_in_batches_the_oldest_first(bench: Bench) {
    for number in 0..5 {
        let email = format!("{number}@example.com");
        bench
            .put(with_images(&email, &image(1, 10), &image(2, 10)))
            .await
            .unwrap();
    }
    // The customers' images are 5, 4, 3, 2 and 1 hours old.
    let now = SystemTime::now();
    let mut sql = bench.database.session();
    for number in 0..5 {
        let customer = bench.customer(&format!("{number}@example.com")).await;
        let age = Duration::from_secs(3_600 * (5 - number));
        let then = (now - age).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        sql.execute(&format!(
            "UPDATE documents SET upload_time = {then} WHERE customer_id = {}",
            customer.id
        ));
    }
    let expire = |hours: u64, most| {
        bench.store.expire_documents(
            now - Duration::from_secs(3_600 * hours) + Duration::from_secs(1),
            most,
            soon(),
        )
    };
    let left = async || {
        let mut left = Vec::new();
        for number in 0..5 {
            let documents = bench.documents(&format!("{number}@example.com")).await;
            left.push(usize::from(!documents.front.is_empty()) + usize::from(!documents.back.is_empty()));
        }
        left
    };
    assert_eq!(expire(6, 100).await.unwrap(), 0);
    assert_eq!(expire(2, 3).await.unwrap(), 3);
    assert_eq!(left().await, [0, 1, 2, 2, 2]);
    assert_eq!(expire(2, 3).await.unwrap(), 3);
    assert_eq!(expire(2, 3).await.unwrap(), 2);
    assert_eq!(left().await, [0, 0, 0, 0, 2]);
    assert_eq!(expire(2, 3).await.unwrap(), 0);
    let customers = sql.number("(SELECT count(*) FROM customers)");
    assert_eq!(customers, 5, "customers do not expire");
}

async fn an_image_that_is_stored_anew_while_it_expires_stays(bench: Bench) {
    let front = image(1, 100);
    bench
        .put(with_images("a@example.com", &front, &image(2, 100)))
        .await
        .unwrap();
    let mut sql = bench.database.session();
    sql.execute("UPDATE documents SET upload_time = 1");
    // As a change that is not committed yet.
    match bench.database.backend {
        Backend::Sqlite => sql.execute("BEGIN IMMEDIATE"),
        Backend::Postgres => sql.execute("BEGIN"),
    }
    sql.execute("UPDATE documents SET upload_time = 9000000000000000 WHERE kind = 1");
    let expire = begin(bench.store.expire_documents(SystemTime::now(), 10, soon())).await;
    if bench.database.backend == Backend::Postgres {
        let mut watch = bench.database.session();
        until("it meets the lock", || {
            (watch.number("(SELECT count(*) FROM pg_locks WHERE NOT granted)") > 0).then_some(())
        });
    }
    sql.execute("COMMIT");
    assert_eq!(expire.await.unwrap(), 1);
    let documents = bench.documents("a@example.com").await;
    assert!(documents.front == front && documents.back.is_empty());
    // The customer is as good as any.
    bench.put(new_customer("a@example.com")).await.unwrap();
}
