//! Two stores on one database, at once or one after the other, as two gateways have them.

use store::{Change, Error, Status};
use tokio::task::JoinSet;

use super::{Bench, STATUSES, credentials, key, open, origin, soon};

on_both![
    Bench::each;
    changes_of_the_same_customers_through_two_stores_lose_nothing,
    credentials_that_one_store_changes_are_refused_by_the_other_at_once,
    what_one_store_has_changed_the_other_reads_at_once,
    what_was_changed_is_there_when_the_store_is_opened_again,
];

async fn changes_of_the_same_customers_through_two_stores_lose_nothing(bench: Bench) {
    let emails: Vec<_> = (0..10).map(|number| format!("{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let stores = [bench.store.clone(), bench.another(&crate::store::patient())];

    let mut tasks = JoinSet::new();
    for task in 0..32 {
        // The two go through the customers in opposite directions.
        let customer = |number| match task % 2 {
            0 => number % emails.len(),
            _ => emails.len() - 1 - number % emails.len(),
        };
        let changes: Vec<_> = (0..60)
            .map(|number| Change {
                origin: origin(&format!("{task}-{number}")),
                ..bench.change(&emails[customer(task + number)], STATUSES[(task / 2 + number / 7) % 3])
            })
            .collect();
        let store = stores[task % 2].clone();
        tasks.spawn(async move {
            for change in changes {
                let wanted = change.status;
                assert_eq!(store.set_status(change, soon()).await.unwrap().status, wanted);
            }
        });
    }
    tasks.join_all().await;

    let mut both = [false; 2];
    for email in &emails {
        let history = bench.whole_history(email).await;
        assert_eq!(bench.customer(email).await.revision, history.len() as i64, "{email}");
        for change in &history[1..] {
            let (task, _) = change.origin.request_id.split_once('-').unwrap();
            both[task.parse::<usize>().unwrap() % 2] = true;
        }
    }
    assert_eq!(both, [true; 2], "each store has changed something");
}

async fn credentials_that_one_store_changes_are_refused_by_the_other_at_once(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let other = bench.another(&crate::store::patient());
    let name = "shop".parse().unwrap();
    for round in 0..10 {
        let change = bench.change("a@example.com", STATUSES[round % 3]);
        let change = Change {
            principal: credentials(&bench.store, "shop").await,
            ..change
        };
        other.set_status(change.clone(), soon()).await.unwrap();
        bench
            .store
            .set_password(&name, round.to_string(), soon())
            .await
            .unwrap();
        let answer = other.set_status(change.clone(), soon()).await;
        assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
        let answer = other.confirm(change.principal, soon()).await;
        assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
    }
}

async fn what_one_store_has_changed_the_other_reads_at_once(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let other = bench.another(&crate::store::patient());
    for round in 0..30 {
        let changed = bench.set("a@example.com", STATUSES[round % 3]).await.unwrap();
        let read = other.customer(bench.shop, key("a@example.com"), soon()).await;
        assert_eq!(read.unwrap(), changed);
    }
}

async fn what_was_changed_is_there_when_the_store_is_opened_again(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let changed = bench.set("a@example.com", Status::Pass).await.unwrap();
    let Bench {
        database,
        store,
        shop,
        ring,
    } = bench;
    drop(store);
    let store = open(&database, &crate::store::patient(), ring.as_ref());
    let read = store.customer(shop, key("a@example.com"), soon()).await;
    assert_eq!(read.unwrap(), changed);
}
