//! What came twice is made once, and what depends on something is made only if that is so.

use std::time::Duration;

use store::{Change, Condition, Customer, Erase, Error, IdempotencyKey, NewCustomer, Put, Registered, Result, Status};
use tokio::task::JoinSet;

use super::{Bench, STATUSES, account, begin, full_profile, image, key, new_customer, origin, soon, with_images};

on_both![
    Bench::each;
    the_same_change_again_is_answered_as_the_first_time,
    the_same_registration_again_is_answered_as_the_first_time,
    the_same_erasure_again_is_answered_as_the_first_time,
    a_key_with_other_content_is_refused_and_changes_nothing,
    what_was_refused_leaves_no_key,
    a_key_belongs_to_its_account,
    a_key_is_forgotten_after_a_day,
    nothing_of_an_erased_customer_stays_with_its_keys,
    of_many_with_the_same_key_at_once_one_is_made,
    a_change_with_an_etag_is_made_if_nobody_was_faster,
    a_change_that_expects_a_status_is_made_if_it_is_so,
    a_registration_with_an_etag_is_made_if_nobody_was_faster,
    of_many_who_expect_the_same_at_once_one_wins,
    a_customer_that_was_registered_anew_has_new_etags,
    each_of_a_batch_is_judged_alone,
    a_reason_is_recorded,
];

const EMAIL: &str = "a@example.com";

fn id(text: &str) -> Option<IdempotencyKey> {
    Some(text.parse().unwrap())
}

impl Bench {
    async fn set_with(&self, text: &str, status: Status) -> Result<Customer> {
        let change = Change {
            key: id(text),
            ..self.change(EMAIL, status)
        };
        self.store.set_status(change, soon()).await
    }

    async fn put_with(&self, text: &str, new: NewCustomer) -> Result<Registered> {
        let put = Put {
            key: id(text),
            ..self.wanted(new)
        };
        self.store.put_customer(put, soon()).await
    }

    async fn set_if(&self, condition: Condition, status: Status) -> Result<Customer> {
        let change = Change {
            condition,
            ..self.change(EMAIL, status)
        };
        self.store.set_status(change, soon()).await
    }

    fn erase_with(&self, text: &str) -> Erase {
        Erase {
            principal: self.shop,
            email: key(EMAIL),
            key: id(text),
            origin: origin("erase"),
        }
    }
}

fn tagged(etag: String) -> Condition {
    Condition {
        etag: Some(etag),
        status: None,
    }
}

fn expecting(status: Status) -> Condition {
    Condition {
        etag: None,
        status: Some(status),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: &Result<T>, error: &Error) {
    let refused = answer.as_ref().map_err(ToString::to_string).map(|_| ());
    assert_eq!(refused, Err(error.to_string()), "{answer:?}");
}

async fn the_same_change_again_is_answered_as_the_first_time(bench: Bench) {
    bench.register(&[EMAIL]).await;
    let first = bench.set_with("k", Status::Pass).await.unwrap();
    assert_eq!(first.status, Status::Pass);
    // Whatever became of the customer since.
    bench.set(EMAIL, Status::Fail).await.unwrap();
    let named = NewCustomer {
        profile: full_profile(),
        ..new_customer(EMAIL)
    };
    bench.put(named).await.unwrap();
    let history = bench.whole_history(EMAIL).await;
    for store in [bench.store.clone(), bench.another(&crate::store::patient())] {
        let change = Change {
            key: id("k"),
            origin: origin("another"),
            ..bench.change(EMAIL, Status::Pass)
        };
        assert_eq!(store.set_status(change, soon()).await.unwrap(), first);
    }
    assert_eq!(bench.whole_history(EMAIL).await, history);
    // A change that changed nothing is remembered too.
    let first = bench.set_with("same", Status::Fail).await.unwrap();
    bench.set(EMAIL, Status::Pass).await.unwrap();
    assert_eq!(bench.set_with("same", Status::Fail).await.unwrap(), first);
    assert_eq!(bench.customer(EMAIL).await.status, Status::Pass);
}

async fn the_same_registration_again_is_answered_as_the_first_time(bench: Bench) {
    let new = || NewCustomer {
        reference: "0042".to_owned(),
        profile: full_profile(),
        ..with_images(EMAIL, &image(1, 2_000), &image(2, 2_000))
    };
    let first = bench.put_with("k", new()).await.unwrap();
    assert!(first.created);
    bench.set(EMAIL, Status::Fail).await.unwrap();
    let mut moved = new_customer(EMAIL);
    moved.profile.city = "Elsewhere".to_owned();
    let second = bench.put_with("k2", moved.clone()).await.unwrap();
    assert!(!second.created);
    assert_eq!(bench.put_with("k", new()).await.unwrap(), first);
    assert_eq!(bench.put_with("k2", moved).await.unwrap(), second);
    assert_eq!(bench.customer(EMAIL).await, second.customer);
    assert_eq!(bench.whole_history(EMAIL).await.len(), 2);
}

async fn the_same_erasure_again_is_answered_as_the_first_time(bench: Bench) {
    bench.register(&[EMAIL]).await;
    let first = bench.store.erase_customer(bench.erase_with("k"), soon()).await.unwrap();
    // Somebody registers the address anew: that customer is another one.
    bench.register(&[EMAIL]).await;
    let again = bench.store.erase_customer(bench.erase_with("k"), soon()).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(bench.whole_history(EMAIL).await.len(), 1);
}

async fn a_key_with_other_content_is_refused_and_changes_nothing(bench: Bench) {
    bench.register(&[EMAIL, "b@example.com"]).await;
    bench.set_with("k", Status::Pass).await.unwrap();
    let etag = bench.customer(EMAIL).await.etag();
    let change = |status| Change {
        key: id("k"),
        ..bench.change(EMAIL, status)
    };
    let others = [
        change(Status::Fail),
        Change {
            email: key("b@example.com"),
            ..change(Status::Pass)
        },
        Change {
            reason: Some("why".to_owned()),
            ..change(Status::Pass)
        },
        Change {
            condition: tagged(etag),
            ..change(Status::Pass)
        },
        Change {
            condition: expecting(Status::Pass),
            ..change(Status::Pass)
        },
    ];
    for other in others {
        refused(&bench.store.set_status(other, soon()).await, &Error::KeyReused);
    }
    refused(
        &bench.put_with("k", new_customer("c@example.com")).await,
        &Error::KeyReused,
    );
    refused(
        &bench.store.erase_customer(bench.erase_with("k"), soon()).await,
        &Error::KeyReused,
    );
    assert_eq!(bench.whole_history(EMAIL).await.len(), 2);
    assert_eq!(bench.whole_history("b@example.com").await.len(), 1);
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 2);
}

async fn what_was_refused_leaves_no_key(bench: Bench) {
    refused(&bench.set_with("k", Status::Pass).await, &Error::CustomerNotFound);
    bench.register(&[EMAIL]).await;
    let change = Change {
        key: id("k"),
        condition: expecting(Status::Fail),
        ..bench.change(EMAIL, Status::Pass)
    };
    refused(&bench.store.set_status(change, soon()).await, &Error::Conflict);
    assert_eq!(bench.set_with("k", Status::Pass).await.unwrap().status, Status::Pass);
}

async fn a_key_belongs_to_its_account(bench: Bench) {
    bench.register(&[EMAIL]).await;
    bench.set_with("k", Status::Pass).await.unwrap();
    let other = account(&bench.store, "other").await;
    let put = Put {
        principal: other,
        key: id("k"),
        ..bench.wanted(new_customer(EMAIL))
    };
    assert!(bench.store.put_customer(put, soon()).await.unwrap().created);
}

async fn a_key_is_forgotten_after_a_day(bench: Bench) {
    bench.register(&[EMAIL]).await;
    bench.set_with("k", Status::Pass).await.unwrap();
    bench.set_with("young", Status::Pass).await.unwrap();
    let day = Duration::from_secs(24 * 60 * 60).as_micros();
    let mut sql = bench.database.session();
    sql.execute(&format!(
        "UPDATE idempotency_keys SET key_time = key_time - {day} WHERE key = 'k'"
    ));
    // It is not known any more, deleted or not.
    assert_eq!(bench.set_with("k", Status::Fail).await.unwrap().status, Status::Fail);
    assert_eq!(sql.number("(SELECT count(*) FROM idempotency_keys)"), 2);
    assert_eq!(bench.store.expire_keys(soon()).await.unwrap(), 0);
    sql.execute(&format!(
        "UPDATE idempotency_keys SET key_time = key_time - {day} WHERE key = 'k'"
    ));
    assert_eq!(bench.store.expire_keys(soon()).await.unwrap(), 1);
    assert_eq!(
        sql.number("(SELECT count(*) FROM idempotency_keys WHERE key = 'young')"),
        1
    );
}

async fn nothing_of_an_erased_customer_stays_with_its_keys(bench: Bench) {
    let new = NewCustomer {
        reference: "0042".to_owned(),
        profile: full_profile(),
        ..new_customer(EMAIL)
    };
    bench.put_with("k", new.clone()).await.unwrap();
    bench.store.erase_customer(bench.erase_with("e"), soon()).await.unwrap();
    let left = "(SELECT count(*) FROM idempotency_keys WHERE profile IS NOT NULL OR reference <> '')";
    assert_eq!(bench.database.session().number(left), 0);
    // It is not registered anew by a repetition.
    refused(&bench.put_with("k", new).await, &Error::CustomerNotFound);
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 0);
}

async fn of_many_with_the_same_key_at_once_one_is_made(bench: Bench) {
    let stores = [bench.store.clone(), bench.another(&crate::store::patient())];
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let put = Put {
                key: id(&format!("k{round}")),
                ..bench.wanted(new_customer(&format!("{round}@example.com")))
            };
            let store = stores[task % 2].clone();
            tasks.spawn(async move { store.put_customer(put, soon()).await.unwrap() });
        }
        let answers = tasks.join_all().await;
        assert!(answers.iter().all(|answer| answer == &answers[0] && answer.created));

        // Of other customers, one has it and the others are refused.
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let put = Put {
                key: id(&format!("one{round}")),
                ..bench.wanted(new_customer(&format!("{round}-{task}@example.com")))
            };
            let store = stores[task % 2].clone();
            tasks.spawn(async move { store.put_customer(put, soon()).await });
        }
        let answers = tasks.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.is_err()) {
            refused(answer, &Error::KeyReused);
        }
    }
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 20);
}

async fn a_change_with_an_etag_is_made_if_nobody_was_faster(bench: Bench) {
    bench.register(&[EMAIL]).await;
    let etag = bench.customer(EMAIL).await.etag();
    let changed = bench.set_if(tagged(etag.clone()), Status::Pass).await.unwrap();
    assert_ne!(changed.etag(), etag);
    for status in STATUSES {
        refused(&bench.set_if(tagged(etag.clone()), status).await, &Error::Conflict);
    }
    refused(
        &bench.set_if(tagged("nonsense".to_owned()), Status::Fail).await,
        &Error::Conflict,
    );
    // The same status again changes nothing, and the etag stays.
    let same = bench.set_if(tagged(changed.etag()), Status::Pass).await.unwrap();
    assert_eq!(same, changed);
    assert_eq!(bench.whole_history(EMAIL).await.len(), 2);
    let unknown = Change {
        condition: tagged(etag),
        ..bench.change("unknown@example.com", Status::Pass)
    };
    refused(&bench.store.set_status(unknown, soon()).await, &Error::CustomerNotFound);
}

async fn a_change_that_expects_a_status_is_made_if_it_is_so(bench: Bench) {
    bench.register(&[EMAIL]).await;
    refused(
        &bench.set_if(expecting(Status::Pass), Status::Fail).await,
        &Error::Conflict,
    );
    bench.set_if(expecting(Status::Pending), Status::Fail).await.unwrap();
    bench.set_if(expecting(Status::Fail), Status::Fail).await.unwrap();
    let both = |status| Condition {
        status: Some(status),
        etag: None,
    };
    let etag = bench.customer(EMAIL).await.etag();
    let wrong = Condition {
        etag: Some(etag.clone()),
        ..both(Status::Pass)
    };
    refused(&bench.set_if(wrong, Status::Pass).await, &Error::Conflict);
    let right = Condition {
        etag: Some(etag),
        ..both(Status::Fail)
    };
    bench.set_if(right, Status::Pass).await.unwrap();
    assert_eq!(bench.whole_history(EMAIL).await.len(), 3);
}

async fn a_registration_with_an_etag_is_made_if_nobody_was_faster(bench: Bench) {
    let put = |etag: &str, city: &str| {
        let mut new = new_customer(EMAIL);
        city.clone_into(&mut new.profile.city);
        let put = Put {
            etag: Some(etag.to_owned()),
            ..bench.wanted(new)
        };
        bench.store.put_customer(put, soon())
    };
    refused(&put("0-1", "Nowhere").await, &Error::Conflict);
    bench.register(&[EMAIL]).await;
    let etag = bench.customer(EMAIL).await.etag();
    let changed = put(&etag, "Here").await.unwrap().customer;
    refused(&put(&etag, "There").await, &Error::Conflict);
    assert_eq!(bench.customer(EMAIL).await, changed);
}

async fn of_many_who_expect_the_same_at_once_one_wins(bench: Bench) {
    bench.register(&[EMAIL]).await;
    let stores = [bench.store.clone(), bench.another(&crate::store::patient())];
    for round in 0..10 {
        let etag = bench.customer(EMAIL).await.etag();
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            let change = Change {
                condition: tagged(etag.clone()),
                ..bench.change(EMAIL, STATUSES[round % 2])
            };
            let store = stores[task % 2].clone();
            tasks.spawn(async move { store.set_status(change, soon()).await });
        }
        let answers = tasks.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.is_err()) {
            refused(answer, &Error::Conflict);
        }
    }
    assert_eq!(bench.whole_history(EMAIL).await.len(), 11);
}

async fn a_customer_that_was_registered_anew_has_new_etags(bench: Bench) {
    bench.register(&[EMAIL]).await;
    let etag = bench.customer(EMAIL).await.etag();
    bench.store.erase_customer(bench.erase_with("e"), soon()).await.unwrap();
    bench.register(&[EMAIL]).await;
    refused(&bench.set_if(tagged(etag), Status::Pass).await, &Error::Conflict);
}

async fn each_of_a_batch_is_judged_alone(bench: Bench) {
    bench
        .register(&[EMAIL, "b@example.com", "c@example.com", "d@example.com"])
        .await;
    let mut hold = bench.database.session().holding_customers();
    let first = begin(
        bench
            .store
            .set_status(bench.change("d@example.com", Status::Pass), soon()),
    )
    .await;
    let (mut made, mut lost) = (Vec::new(), Vec::new());
    for email in [EMAIL, "b@example.com", "c@example.com"] {
        let change = |status, condition| Change {
            condition,
            ..bench.change(email, status)
        };
        made.push(
            begin(
                bench
                    .store
                    .set_status(change(Status::Pass, expecting(Status::Pending)), soon()),
            )
            .await,
        );
        lost.push(
            begin(
                bench
                    .store
                    .set_status(change(Status::Fail, expecting(Status::Pending)), soon()),
            )
            .await,
        );
    }
    hold.release();
    first.await.unwrap();
    for answer in made {
        assert_eq!(answer.await.unwrap().status, Status::Pass);
    }
    for answer in lost {
        refused(&answer.await, &Error::Conflict);
    }
}

async fn a_reason_is_recorded(bench: Bench) {
    bench.register(&[EMAIL]).await;
    for text in [None, Some("id")] {
        let change = Change {
            reason: Some("documents checked".to_owned()),
            key: text.and_then(id),
            ..bench.change(EMAIL, text.map_or(Status::Pass, |_| Status::Fail))
        };
        bench.store.set_status(change, soon()).await.unwrap();
    }
    let reasons: Vec<_> = bench
        .whole_history(EMAIL)
        .await
        .into_iter()
        .map(|change| change.reason)
        .collect();
    let said = Some("documents checked".to_owned());
    assert_eq!(reasons, [None, said.clone(), said]);
}
