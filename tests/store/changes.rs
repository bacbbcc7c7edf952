//! Changes of status: what they return, what they record, and what happens to those that wait.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use store::{Authority, Change, Customer, Error, Principal, Result, Settings, Status};
use tokio::task::JoinSet;

use super::{Bench, STATUSES, account, begin, credentials, origin, poll_once, soon};

on_both![
    Bench::each;
    a_change_returns_the_customer_as_it_is_afterwards,
    a_change_is_recorded_with_its_cause,
    a_change_that_cannot_be_recorded_is_not_made,
    the_same_status_again_succeeds_and_records_nothing,
    an_unknown_customer_is_not_found,
    a_customer_of_another_account_is_not_found,
    credentials_that_no_longer_hold_are_refused_before_anything_is_looked_up,
    an_operator_may_change_customers_of_a_disabled_account,
    a_change_whose_deadline_has_passed_is_not_made,
    a_change_whose_deadline_passes_in_the_queue_is_not_made,
    many_changes_of_few_customers_are_all_answered_and_recorded,
    each_change_of_a_batch_is_judged_alone,
    changes_of_one_customer_are_made_in_the_order_they_came_in,
    a_change_beyond_the_queue_is_refused_at_once_and_the_rest_is_made,
    a_change_is_made_although_its_caller_went_away,
];

/// One change in a transaction, and one worker for all customers: what waits is where the test expects it.
fn one_by_one() -> Settings {
    Settings {
        batch: NonZeroUsize::MIN,
        writers: Some(NonZeroUsize::MIN),
        ..crate::store::patient()
    }
}

async fn a_change_returns_the_customer_as_it_is_afterwards(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let before = bench.customer("a@example.com").await;

    let after = bench.set("A@Example.com", Status::Pass).await.unwrap();

    assert_eq!(after.status, Status::Pass);
    assert_eq!(after.revision, before.revision + 1);
    assert!(after.update_time > before.update_time);
    let expected = Customer {
        status: after.status,
        revision: after.revision,
        update_time: after.update_time,
        ..before
    };
    assert_eq!(after, expected, "nothing else changed");
    assert_eq!(
        bench.customer("a@example.com").await,
        after,
        "what is stored was returned"
    );
}

async fn a_change_is_recorded_with_its_cause(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let changed = bench.set("a@example.com", Status::Fail).await.unwrap();

    let history = bench.whole_history("a@example.com").await;

    let [_, change] = &history[..] else {
        panic!("{history:?}")
    };
    assert_eq!((change.from, change.to), (Some(Status::Pending), Status::Fail));
    assert_eq!(change.version, 2);
    assert_eq!(change.origin, origin("request"));
    assert_eq!(change.time, changed.update_time);
}

async fn a_change_that_cannot_be_recorded_is_not_made(bench: Bench) {
    bench.register(&["damaged@example.com", "sound@example.com"]).await;
    let before = bench.customer("damaged@example.com").await;
    // The number of the next change is taken.
    bench.database.session().execute(&format!(
        "INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face, request_id,
                                     change_time) VALUES ({}, {}, 2, 2, 2, '', 1, '', 0)",
        bench.shop.account, before.id
    ));

    let mut hold = bench.database.session().holding_customers();
    // All in one batch: the first is what the writer has in hand, and waits with.
    let first = begin(bench.set("sound@example.com", Status::Pass)).await;
    let damaged = begin(bench.set("damaged@example.com", Status::Pass)).await;
    let sound = begin(bench.set("sound@example.com", Status::Fail)).await;
    hold.release();

    assert!(first.await.is_ok());
    assert!(damaged.await.is_err());
    assert_eq!(bench.customer("damaged@example.com").await, before);
    assert!(sound.await.is_ok(), "the others are made");
    assert_eq!(bench.whole_history("sound@example.com").await.len(), 3);
}

async fn the_same_status_again_succeeds_and_records_nothing(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let first = bench.set("a@example.com", Status::Pass).await.unwrap();
    let again = bench.set("a@example.com", Status::Pass).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(bench.customer("a@example.com").await, first);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 2);
}

async fn an_unknown_customer_is_not_found(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let answer = bench.set("b@example.com", Status::Pass).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
}

async fn a_customer_of_another_account_is_not_found(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let before = bench.customer("a@example.com").await;
    let change = Change {
        principal: account(&bench.store, "other").await,
        ..bench.change("a@example.com", Status::Pass)
    };
    let answer = bench.store.set_status(change, soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    assert_eq!(bench.customer("a@example.com").await, before);
}

async fn credentials_that_no_longer_hold_are_refused_before_anything_is_looked_up(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let name = "shop".parse().unwrap();
    let refused = async |principal: Principal| {
        for email in ["a@example.com", "unknown@example.com"] {
            let change = Change {
                principal,
                ..bench.change(email, Status::Pass)
            };
            let answer = bench.store.set_status(change, soon()).await;
            assert!(matches!(answer, Err(Error::StaleCredentials)), "{email}: {answer:?}");
        }
    };

    bench
        .store
        .set_password(&name, "other".to_owned(), soon())
        .await
        .unwrap();
    refused(bench.shop).await;

    let renewed = credentials(&bench.store, "shop").await;
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    refused(renewed).await;
    // Nor does it help to know the version of the disabled account, nor to name an account that is not there.
    refused(credentials(&bench.store, "shop").await).await;
    for authority in [Authority::Operator, renewed.authority] {
        refused(Principal { account: 0, authority }).await;
    }

    bench.store.set_account_enabled(&name, true, soon()).await.unwrap();
    refused(renewed).await;
    let bench = Bench {
        shop: credentials(&bench.store, "shop").await,
        ..bench
    };
    bench.set("a@example.com", Status::Pass).await.unwrap();
    assert_eq!(bench.whole_history("a@example.com").await.len(), 2);
}

async fn an_operator_may_change_customers_of_a_disabled_account(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let name = "shop".parse().unwrap();
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    let bench = Bench {
        shop: Principal {
            authority: Authority::Operator,
            ..bench.shop
        },
        ..bench
    };
    assert_eq!(
        bench.set("a@example.com", Status::Pass).await.unwrap().status,
        Status::Pass
    );
    assert_eq!(bench.whole_history("a@example.com").await.len(), 2);
}

async fn a_change_whose_deadline_has_passed_is_not_made(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let change = bench.change("a@example.com", Status::Pass);
    let answer = bench.store.set_status(change, Instant::now()).await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    assert_eq!(bench.customer("a@example.com").await.status, Status::Pending);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
}

async fn a_change_whose_deadline_passes_in_the_queue_is_not_made(bench: Bench) {
    bench.register(&["a@example.com", "b@example.com"]).await;
    let store = bench.another(&one_by_one());

    let mut hold = bench.database.session().holding_customers();
    let first = begin(store.set_status(bench.change("a@example.com", Status::Pass), soon())).await;
    let deadline = Instant::now() + Duration::from_millis(5);
    let second = begin(store.set_status(bench.change("b@example.com", Status::Pass), deadline)).await;
    // What is waited for is nothing else but that moment.
    tokio::time::sleep_until(deadline.into()).await;
    hold.release();

    assert!(first.await.is_ok());
    let answer = second.await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    assert_eq!(bench.whole_history("b@example.com").await.len(), 1);
}

async fn many_changes_of_few_customers_are_all_answered_and_recorded(bench: Bench) {
    const TASKS: usize = 64;
    const CHANGES: usize = 200;
    let emails: Vec<_> = (0..10).map(|number| format!("{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let changes: Vec<_> = (0..CHANGES)
            .map(|number| Change {
                origin: origin(&format!("{task}-{number}")),
                ..bench.change(
                    &emails[(task + number) % emails.len()],
                    STATUSES[(task + number / 7) % 3],
                )
            })
            .collect();
        let store = bench.store.clone();
        tasks.spawn(async move {
            for change in changes {
                let wanted = change.status;
                assert_eq!(store.set_status(change, soon()).await.unwrap().status, wanted);
            }
        });
    }
    tasks.join_all().await;

    let mut requests = HashSet::new();
    for email in &emails {
        let history = bench.whole_history(email).await;
        assert!(
            history.len() > CHANGES,
            "{email} was changed only {} times",
            history.len()
        );
        assert_eq!(bench.customer(email).await.revision, history.len() as i64);
        for change in &history[1..] {
            assert!(
                requests.insert(change.origin.request_id.clone()),
                "{change:?} is there twice"
            );
        }
    }
}

async fn each_change_of_a_batch_is_judged_alone(bench: Bench) {
    bench
        .register(&["a@example.com", "b@example.com", "c@example.com"])
        .await;
    let other = account(&bench.store, "other").await;
    let stale = Principal {
        authority: Authority::Credentials { version: 0 },
        ..bench.shop
    };
    let with = |principal, email| Change {
        principal,
        ..bench.change(email, Status::Pass)
    };
    let store = bench.another(&Settings {
        writers: Some(NonZeroUsize::MIN),
        ..crate::store::patient()
    });

    let mut hold = bench.database.session().holding_customers();
    // The writer waits with the first; all others are a batch when it comes back.
    let first = begin(store.set_status(with(bench.shop, "c@example.com"), soon())).await;
    let mut answers = Vec::new();
    for change in [
        with(bench.shop, "unknown@example.com"),
        with(bench.shop, "a@example.com"),
        with(stale, "b@example.com"),
        with(stale, "unknown@example.com"),
        with(other, "b@example.com"),
        with(Principal { account: 0, ..stale }, "b@example.com"),
        with(bench.shop, "b@example.com"),
    ] {
        answers.push(begin(store.set_status(change, soon())).await);
    }
    hold.release();

    assert!(first.await.is_ok());
    let mut said = Vec::new();
    for answer in answers {
        said.push(match answer.await {
            Ok(customer) => customer.profile.email,
            Err(error) => error.to_string(),
        });
    }
    let (not_found, stale) = (Error::CustomerNotFound.to_string(), Error::StaleCredentials.to_string());
    assert_eq!(
        said,
        [
            &not_found,
            "a@example.com",
            &stale,
            &stale,
            &not_found,
            &stale,
            "b@example.com"
        ]
    );
    for email in ["a@example.com", "b@example.com", "c@example.com"] {
        assert_eq!(bench.whole_history(email).await.len(), 2, "{email}");
    }
}

async fn changes_of_one_customer_are_made_in_the_order_they_came_in(bench: Bench) {
    bench
        .register(&["hot@example.com", "a@example.com", "b@example.com"])
        .await;
    // Smaller than the number of changes, so that they meet the end of more than one batch.
    let store = bench.another(&Settings {
        batch: 7.try_into().unwrap(),
        ..crate::store::patient()
    });
    let statuses: Vec<_> = (0..60).map(|number| STATUSES[number % 3]).collect();

    let mut hold = bench.database.session().holding_customers();
    let mut calls = Vec::new();
    for (number, status) in statuses.iter().enumerate() {
        let change = Change {
            origin: origin(&number.to_string()),
            ..bench.change("hot@example.com", *status)
        };
        calls.push(begin(store.set_status(change, soon())).await);
        let cold = ["a@example.com", "b@example.com"][number % 2];
        calls.push(begin(store.set_status(bench.change(cold, *status), soon())).await);
    }
    hold.release();
    for call in calls {
        call.await.unwrap();
    }

    let history = bench.whole_history("hot@example.com").await;
    let made: Vec<_> = history[1..]
        .iter()
        .map(|change| (change.origin.request_id.clone(), change.to))
        .collect();
    let asked: Vec<_> = statuses
        .into_iter()
        .enumerate()
        .map(|(number, status)| (number.to_string(), status))
        .collect();
    assert_eq!(made, asked);
}

async fn a_change_beyond_the_queue_is_refused_at_once_and_the_rest_is_made(bench: Bench) {
    const QUEUE: usize = 2;
    let emails: Vec<_> = (0..10).map(|number| format!("{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let store = bench.another(&Settings {
        write_queue: QUEUE,
        ..one_by_one()
    });

    let mut hold = bench.database.session().holding_customers();
    let mut waiting = Vec::new();
    for email in &emails {
        let mut call: Pin<Box<dyn Future<Output = Result<Customer>>>> =
            Box::pin(store.set_status(bench.change(email, Status::Pass), soon()));
        match poll_once(&mut call).await {
            Poll::Pending => waiting.push((email, call)),
            Poll::Ready(answer) => assert!(matches!(answer, Err(Error::Full)), "{answer:?}"),
        }
    }
    // The writer may have one in hand.
    assert!((QUEUE..=QUEUE + 1).contains(&waiting.len()), "{} wait", waiting.len());
    hold.release();

    let mut made = HashSet::new();
    for (email, call) in waiting {
        assert_eq!(call.await.unwrap().status, Status::Pass);
        made.insert(email);
    }
    for email in &emails {
        let changed = bench.whole_history(email).await.len() == 2;
        assert_eq!(changed, made.contains(email), "{email}");
    }
    let again = store.set_status(bench.change(&emails[9], Status::Fail), soon()).await;
    assert!(again.is_ok(), "there is room again: {again:?}");
}

async fn a_change_is_made_although_its_caller_went_away(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let mut hold = bench.database.session().holding_customers();
    let abandoned = begin(bench.set("a@example.com", Status::Pass)).await;
    drop(abandoned);
    let next = begin(bench.set("a@example.com", Status::Fail)).await;
    hold.release();
    next.await.unwrap();
    let history = bench.whole_history("a@example.com").await;
    let statuses: Vec<_> = history.iter().map(|change| change.to).collect();
    assert_eq!(statuses, [Status::Pending, Status::Pass, Status::Fail]);
}
