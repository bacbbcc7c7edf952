//! The history: pages of it in order, at a time, for the living and the erased.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use store::{Email, Error, FeedItem, HistoryQuery, NewCustomer, Principal, Status, StatusChange, Store, Whose};

use super::{Bench, account, key, origin, soon};
use crate::support::Backend;

on_both![
    Bench::run;
    the_pages_of_a_customer_have_every_row_once,
    the_pages_of_an_account_have_every_row_once_also_at_one_time,
    a_range_of_times_has_its_beginning_and_not_its_end,
    an_erased_customer_is_found_by_its_public_id_and_has_no_address_any_more,
    a_page_token_is_good_for_its_own_query_only,
    nobody_sees_the_history_of_another_account,
    the_status_at_a_time_is_the_one_that_was_set_last_before,
];

fn of(whose: Whose) -> HistoryQuery {
    HistoryQuery {
        whose,
        since: None,
        until: None,
        latest_first: false,
    }
}

fn named(email: &str) -> Whose {
    Whose::Email(key(email))
}

/// All pages of a query, each of at most `most` changes.
async fn pages(store: &Store, principal: Principal, query: &HistoryQuery, most: u32) -> Vec<Vec<FeedItem>> {
    let mut pages = Vec::new();
    let mut token = None;
    loop {
        let page = store
            .changes(principal, query.clone(), token, most, soon())
            .await
            .unwrap();
        assert!(page.changes.len() <= most as usize);
        pages.push(page.changes);
        token = page.next;
        if token.is_none() {
            return pages;
        }
    }
}

impl Bench {
    async fn all(&self, query: &HistoryQuery) -> Vec<StatusChange> {
        let pages = pages(&self.store, self.shop, query, 1_000).await;
        pages.concat().into_iter().map(|item| item.change).collect()
    }

    /// Erases a customer of the shop.
    pub(super) async fn forget(&self, email: &str) -> store::Erasure {
        let erase = store::Erase {
            principal: self.shop,
            email: key(email),
            key: None,
            origin: origin("erase"),
        };
        self.store.erase_customer(erase, soon()).await.unwrap()
    }

    /// Gives each row of the history a time of its own: its number, in seconds.
    fn spread_times(&self) {
        self.database
            .session()
            .execute("UPDATE status_changes SET change_time = position * 1000000");
    }
}

/// A second of the time that [`Bench::spread_times`] counts in.
fn second(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(number)
}

async fn the_pages_of_a_customer_have_every_row_once(bench: Bench) {
    bench.register(&["a@example.com", "b@example.com"]).await;
    for status in [Status::Pass, Status::Fail, Status::Pending, Status::Pass, Status::Fail] {
        bench.set("a@example.com", status).await.unwrap();
        bench.set("b@example.com", status).await.unwrap();
    }
    let query = of(named(" A@Example.com"));
    let all = bench.all(&query).await;
    let versions: Vec<i64> = all.iter().map(|change| change.version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    assert_eq!(all, bench.whole_history("a@example.com").await);
    for most in 1..8 {
        let pages = pages(&bench.store, bench.shop, &query, most).await;
        assert_eq!(pages.len(), 6_usize.div_ceil(most as usize), "pages of {most}");
        let changes: Vec<_> = pages.concat().into_iter().map(|item| item.change).collect();
        assert_eq!(changes, all, "pages of {most}");
        let backwards = HistoryQuery {
            latest_first: true,
            ..query.clone()
        };
        let pages = self::pages(&bench.store, bench.shop, &backwards, most).await;
        let mut changes: Vec<_> = pages.concat().into_iter().map(|item| item.change).collect();
        changes.reverse();
        assert_eq!(changes, all, "pages of {most}, backwards");
    }
    // What is added while pages are read comes at the end.
    let first = bench
        .store
        .changes(bench.shop, query.clone(), None, 4, soon())
        .await
        .unwrap();
    bench.set("a@example.com", Status::Pass).await.unwrap();
    let second = bench
        .store
        .changes(bench.shop, query, first.next, 4, soon())
        .await
        .unwrap();
    let versions: Vec<i64> = second.changes.iter().map(|item| item.change.version).collect();
    assert_eq!(versions, [5, 6, 7]);
    assert_eq!(second.next, None);
}

async fn the_pages_of_an_account_have_every_row_once_also_at_one_time(bench: Bench) {
    let emails: Vec<String> = (0..30).map(|number| format!("c{number}@example.com")).collect();
    let emails: Vec<&str> = emails.iter().map(String::as_str).collect();
    // One transaction, and so one time.
    bench.register(&emails).await;
    for email in &emails[..10] {
        bench.set(email, Status::Pass).await.unwrap();
    }
    let other = account(&bench.store, "other").await;
    let new = vec![super::new_customer("c1@example.com")];
    bench
        .store
        .import(other.account, new, origin("import"), soon())
        .await
        .unwrap();

    let query = of(Whose::Account);
    let all = bench.all(&query).await;
    assert_eq!(all.len(), 40);
    let place = |change: &StatusChange| (change.time, change.place.position);
    assert!(all.is_sorted_by_key(place));
    for most in [1, 7, 30, 39, 40, 41] {
        for latest_first in [false, true] {
            let query = HistoryQuery {
                latest_first,
                ..query.clone()
            };
            let pages = pages(&bench.store, bench.shop, &query, most).await;
            assert_eq!(pages.len(), 40_usize.div_ceil(most as usize), "pages of {most}");
            let mut changes: Vec<_> = pages.concat().into_iter().map(|item| item.change).collect();
            if latest_first {
                changes.reverse();
            }
            assert_eq!(changes, all, "pages of {most}, {latest_first}");
        }
    }
    assert_eq!(pages(&bench.store, other, &query, 10).await.concat().len(), 1);
}

async fn a_range_of_times_has_its_beginning_and_not_its_end(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    for status in [Status::Pass, Status::Fail, Status::Pass, Status::Fail] {
        bench.set("a@example.com", status).await.unwrap();
    }
    bench.spread_times();
    for whose in [named("a@example.com"), Whose::Account] {
        for latest_first in [false, true] {
            for since in 0..8 {
                for until in 0..8 {
                    let query = HistoryQuery {
                        whose: whose.clone(),
                        since: Some(second(since)).filter(|_| since > 0),
                        until: Some(second(until)).filter(|_| until < 7),
                        latest_first,
                    };
                    let pages = pages(&bench.store, bench.shop, &query, 2).await;
                    let mut versions: Vec<u64> = pages
                        .concat()
                        .iter()
                        .map(|item| item.change.version.unsigned_abs())
                        .collect();
                    if latest_first {
                        versions.reverse();
                    }
                    let end = if until < 7 { until } else { 6 };
                    let expected: Vec<u64> = (since.max(1)..end.min(6)).collect();
                    assert_eq!(versions, expected, "{query:?}");
                }
            }
            // Between two times that the database can tell apart.
            let query = HistoryQuery {
                whose: whose.clone(),
                since: Some(second(2) + Duration::from_nanos(1)),
                until: Some(second(4) + Duration::from_nanos(1)),
                latest_first,
            };
            let mut versions: Vec<i64> = bench.all(&query).await.iter().map(|change| change.version).collect();
            versions.sort_unstable();
            assert_eq!(versions, [3, 4], "{query:?}");
        }
    }
}

async fn an_erased_customer_is_found_by_its_public_id_and_has_no_address_any_more(bench: Bench) {
    bench.register(&["a@example.com", "b@example.com"]).await;
    bench.set("a@example.com", Status::Fail).await.unwrap();
    let id = bench.customer("a@example.com").await.public_id;
    let by_id = of(Whose::Id(id.clone()));
    let before = bench.all(&by_id).await;
    assert_eq!(before.len(), 2);
    assert_eq!(before, bench.all(&of(named("a@example.com"))).await);
    bench.forget("a@example.com").await;
    bench.register(&["a@example.com"]).await;

    let found = pages(&bench.store, bench.shop, &by_id, 1_000).await.concat();
    // Whatever the erasure has added comes behind them.
    assert!(found.len() >= 2);
    for (item, before) in found.iter().zip(&before) {
        assert_eq!(&item.change, before);
    }
    assert!(
        found
            .iter()
            .all(|item| item.customer.is_none() && item.change.customer_id == id)
    );
    assert!(
        found[2..]
            .iter()
            .all(|item| item.change.erased && item.change.to == Status::Fail)
    );
    // The new customer begins anew, and all of them stand in the history of the account.
    assert_eq!(bench.all(&of(named("a@example.com"))).await.len(), 1);
    let ids: HashSet<String> = bench
        .all(&of(Whose::Account))
        .await
        .into_iter()
        .map(|change| change.customer_id)
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.contains(&id) && !ids.contains(""));
    for unknown in ["", "nonsense", "00000000000000000000000000000000"] {
        let query = of(Whose::Id(unknown.to_owned()));
        let found = bench.store.changes(bench.shop, query, None, 1, soon()).await;
        assert!(matches!(found, Err(Error::CustomerNotFound)), "{unknown}");
    }
}

async fn a_page_token_is_good_for_its_own_query_only(bench: Bench) {
    bench.register(&["a@example.com", "b@example.com"]).await;
    for email in ["a@example.com", "b@example.com"] {
        bench.set(email, Status::Pass).await.unwrap();
    }
    let other = account(&bench.store, "other").await;
    let queries = [
        of(named("a@example.com")),
        of(named("b@example.com")),
        of(Whose::Account),
        HistoryQuery {
            since: Some(second(1)),
            ..of(Whose::Account)
        },
        HistoryQuery {
            until: Some(SystemTime::now() + Duration::from_secs(60)),
            ..of(Whose::Account)
        },
        HistoryQuery {
            latest_first: true,
            ..of(Whose::Account)
        },
    ];
    let mut tokens = Vec::new();
    for query in &queries {
        let page = bench.store.changes(bench.shop, query.clone(), None, 1, soon()).await;
        tokens.push(page.unwrap().next.unwrap());
    }
    for (token, of) in tokens.iter().zip(&queries) {
        for query in &queries {
            let page = bench
                .store
                .changes(bench.shop, query.clone(), Some(token.clone()), 1, soon())
                .await;
            match page {
                Ok(_) => assert_eq!(query, of),
                Err(Error::InvalidPageToken) => assert_ne!(query, of),
                Err(error) => panic!("{error:?}"),
            }
        }
        let theirs = bench
            .store
            .changes(other, of.clone(), Some(token.clone()), 1, soon())
            .await;
        assert!(matches!(theirs, Err(Error::InvalidPageToken | Error::CustomerNotFound)));
    }
    for spoilt in ["x", "", "AAAA", &tokens[0][1..], &format!("{}=", tokens[0])] {
        let page = bench
            .store
            .changes(bench.shop, queries[0].clone(), Some(spoilt.to_owned()), 1, soon())
            .await;
        assert!(matches!(page, Err(Error::InvalidPageToken)), "{spoilt}");
    }
    // The same customer by its public id is the same query; and the size of a page is none of it.
    let id = bench.customer("a@example.com").await.public_id;
    let page = bench
        .store
        .changes(bench.shop, of(Whose::Id(id)), Some(tokens[0].clone()), 7, soon())
        .await
        .unwrap();
    assert_eq!((page.changes.len(), page.next), (1, None));
}

async fn nobody_sees_the_history_of_another_account(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let id = bench.customer("a@example.com").await.public_id;
    let other = account(&bench.store, "other").await;
    for whose in [named("a@example.com"), Whose::Id(id.clone())] {
        let found = bench.store.changes(other, of(whose), None, 10, soon()).await;
        assert!(matches!(found, Err(Error::CustomerNotFound)));
    }
    assert!(
        pages(&bench.store, other, &of(Whose::Account), 10)
            .await
            .concat()
            .is_empty()
    );
    let found = bench
        .store
        .status_at(other, key("a@example.com"), SystemTime::now(), soon())
        .await;
    assert!(matches!(found, Err(Error::CustomerNotFound)));

    // A right that was revoked is refused before anything is looked for.
    bench
        .store
        .set_account_enabled(&"shop".parse().unwrap(), false, soon())
        .await
        .unwrap();
    for whose in [
        named("a@example.com"),
        named("nobody@example.com"),
        Whose::Id(id),
        Whose::Id("nonsense".to_owned()),
        Whose::Account,
    ] {
        let found = bench
            .store
            .changes(bench.shop, of(whose), Some("nonsense".to_owned()), 10, soon())
            .await;
        assert!(matches!(found, Err(Error::StaleCredentials)));
    }
    let found = bench
        .store
        .status_at(bench.shop, key("nobody@example.com"), SystemTime::now(), soon())
        .await;
    assert!(matches!(found, Err(Error::StaleCredentials)));
}

async fn the_status_at_a_time_is_the_one_that_was_set_last_before(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let statuses = [Status::Pass, Status::Fail, Status::Pending, Status::Fail];
    for status in statuses {
        bench.set("a@example.com", status).await.unwrap();
    }
    bench.spread_times();
    let at = async |time| {
        bench
            .store
            .status_at(bench.shop, key("a@example.com"), time, soon())
            .await
    };
    for early in [
        SystemTime::UNIX_EPOCH - Duration::from_secs(1),
        second(0),
        second(1) - Duration::from_nanos(1),
    ] {
        assert!(matches!(at(early).await, Err(Error::CustomerNotFound)), "{early:?}");
    }
    let expected = [Status::Pending].into_iter().chain(statuses);
    for (number, status) in (1..).zip(expected) {
        for later in [0, 1, 999_999_999] {
            let item = at(second(number) + Duration::from_nanos(later)).await.unwrap();
            assert_eq!((item.change.to, item.change.version), (status, number as i64));
            assert_eq!(item.change.time, second(number));
            assert_eq!(item.customer.unwrap().profile.email, "a@example.com");
        }
    }
    let last = at(SystemTime::now() + Duration::from_secs(1_000_000_000))
        .await
        .unwrap();
    assert_eq!(last.change.version, 5);
    let nobody = bench
        .store
        .status_at(bench.shop, key("nobody@example.com"), SystemTime::now(), soon())
        .await;
    assert!(matches!(nobody, Err(Error::CustomerNotFound)));
}

#[test]
fn an_encrypted_store_shows_addresses_and_references() {
    for backend in Backend::BOTH {
        Bench::sealed(backend, async |bench| {
            let new = NewCustomer {
                reference: "0042".to_owned(),
                ..NewCustomer::new(Email::parse("Zoë@Example.com").unwrap())
            };
            bench.put(new).await.unwrap();
            let id = bench.customer("zoë@example.com").await.public_id;
            for whose in [named("zoë@example.com"), Whose::Id(id), Whose::Account] {
                let found = pages(&bench.store, bench.shop, &of(whose), 10).await.concat();
                let customer = found[0].customer.as_ref().unwrap();
                assert_eq!(customer.profile.email, "Zoë@Example.com");
                assert_eq!(customer.reference, "0042");
            }
            let item = bench
                .store
                .status_at(bench.shop, key("zoë@example.com"), SystemTime::now(), soon())
                .await
                .unwrap();
            assert_eq!(item.customer.unwrap().reference, "0042");
        });
    }
}
