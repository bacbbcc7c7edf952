//! Imports: what they create, what they keep, and that they are all or nothing.

use std::time::Instant;

use store::{Change, Error, Imported, NewCustomer, Profile, Status};
use tokio::task::JoinSet;

use super::{Bench, STATUSES, account, full_profile, new_customer, origin, soon};

on_both![
    Bench::each;
    a_new_customer_is_pending_and_its_history_begins_from_nothing,
    a_new_customer_may_begin_with_a_status,
    what_is_empty_keeps_what_is_stored,
    a_change_of_status_is_recorded,
    an_import_that_changes_nothing_leaves_no_trace,
    the_same_address_twice_adds_up,
    new_customers_are_registered_in_the_order_in_which_they_are_given,
    addresses_that_differ_in_letter_case_or_unicode_form_are_one_customer,
    accounts_do_not_share_customers,
    an_import_that_fails_imports_nothing,
    an_unknown_account_gets_no_customers,
    an_import_whose_deadline_has_passed_imports_nothing,
    imports_of_the_same_customers_at_once_create_each_once,
    an_import_and_changes_of_the_same_customers_at_once_lose_nothing,
];

fn with_status(email: &str, status: Status) -> NewCustomer {
    NewCustomer {
        status: Some(status),
        ..new_customer(email)
    }
}

async fn a_new_customer_is_pending_and_its_history_begins_from_nothing(bench: Bench) {
    let new = NewCustomer {
        reference: "0042".to_owned(),
        profile: full_profile(),
        ..new_customer("Zoë@Example.com")
    };
    let imported = bench.import(vec![new]).await.unwrap();
    assert_eq!(imported, Imported { created: 1, updated: 0 });

    let customer = bench.customer("zoë@example.com").await;
    assert_eq!(customer.status, Status::Pending);
    assert_eq!(customer.reference, "0042");
    let expected = Profile {
        email: "Zoë@Example.com".to_owned(),
        ..full_profile()
    };
    assert!(customer.profile == expected, "every attribute is kept as it was given");
    assert_eq!(customer.create_time, customer.update_time);

    let history = bench.whole_history("zoë@example.com").await;
    let [begin] = &history[..] else { panic!("{history:?}") };
    assert_eq!((begin.from, begin.to), (None, Status::Pending));
    assert_eq!(begin.origin, origin("import"));
    assert_eq!(begin.time, customer.create_time);
}

async fn a_new_customer_may_begin_with_a_status(bench: Bench) {
    bench
        .import(vec![with_status("a@example.com", Status::Fail)])
        .await
        .unwrap();
    let history = bench.whole_history("a@example.com").await;
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].from, history[0].to), (None, Status::Fail));
}

async fn what_is_empty_keeps_what_is_stored(bench: Bench) {
    let first = NewCustomer {
        reference: "0042".to_owned(),
        profile: full_profile(),
        ..with_status("a@example.com", Status::Pass)
    };
    bench.import(vec![first]).await.unwrap();
    let before = bench.customer("a@example.com").await;

    let second = NewCustomer {
        profile: Profile {
            city: "Neustadt".to_owned(),
            ..Profile::default()
        },
        ..new_customer("a@example.com")
    };
    let imported = bench.import(vec![second]).await.unwrap();

    assert_eq!(imported, Imported { created: 0, updated: 1 });
    let after = bench.customer("a@example.com").await;
    let expected = Profile {
        email: "a@example.com".to_owned(),
        city: "Neustadt".to_owned(),
        ..full_profile()
    };
    assert!(after.profile == expected, "the city alone is new");
    assert_eq!((after.reference.as_str(), after.status), ("0042", Status::Pass));
    assert_eq!((after.id, after.revision), (before.id, before.revision + 1));
    assert!(after.update_time > before.update_time);
    assert_eq!(after.create_time, before.create_time);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
}

async fn a_change_of_status_is_recorded(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    bench
        .import(vec![with_status("a@example.com", Status::Pass)])
        .await
        .unwrap();
    let history = bench.whole_history("a@example.com").await;
    let last = history.last().unwrap();
    assert_eq!(
        (last.version, last.from, last.to),
        (2, Some(Status::Pending), Status::Pass)
    );
    assert_eq!(last.origin, origin("import"));
    assert_eq!(bench.customer("a@example.com").await.revision, 2);
}

async fn an_import_that_changes_nothing_leaves_no_trace(bench: Bench) {
    let same = || NewCustomer {
        profile: full_profile(),
        ..with_status("a@example.com", Status::Pass)
    };
    bench.import(vec![same()]).await.unwrap();
    let before = bench.customer("a@example.com").await;
    assert_eq!(bench.import(vec![same()]).await.unwrap().updated, 1);
    assert_eq!(bench.customer("a@example.com").await, before);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
}

async fn the_same_address_twice_adds_up(bench: Bench) {
    let first = NewCustomer {
        reference: "first".to_owned(),
        profile: Profile {
            first_name: "First".to_owned(),
            city: "Altstadt".to_owned(),
            ..Profile::default()
        },
        ..with_status("a@example.com", Status::Fail)
    };
    let second = NewCustomer {
        profile: Profile {
            city: "Neustadt".to_owned(),
            ..Profile::default()
        },
        ..new_customer("A@example.com")
    };
    let imported = bench.import(vec![first, second]).await.unwrap();
    assert_eq!(imported, Imported { created: 1, updated: 0 });
    let customer = bench.customer("a@example.com").await;
    let expected = Profile {
        email: "a@example.com".to_owned(),
        first_name: "First".to_owned(),
        city: "Neustadt".to_owned(),
        ..Profile::default()
    };
    assert!(
        customer.profile == expected,
        "the later one counts where it says something"
    );
    assert_eq!((customer.reference.as_str(), customer.status), ("first", Status::Fail));
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
}

async fn new_customers_are_registered_in_the_order_in_which_they_are_given(bench: Bench) {
    let given = ["m@example.com", "z@example.com", "a@example.com", "q@example.com"];
    bench.register(&given).await;
    let customers = bench.store.customers(bench.shop.account, 0, 10, soon()).await.unwrap();
    let registered: Vec<_> = customers
        .iter()
        .map(|customer| customer.profile.email.as_str())
        .collect();
    assert_eq!(registered, given);
}

async fn addresses_that_differ_in_letter_case_or_unicode_form_are_one_customer(bench: Bench) {
    bench.register(&["José@Bücher.example"]).await;
    let first = bench.customer("josé@bücher.example").await;
    for same in ["JOSE\u{301}@bücher.example", "josé@XN--BCHER-KVA.example"] {
        let imported = bench.import(vec![new_customer(same)]).await.unwrap();
        assert_eq!(imported, Imported { created: 0, updated: 1 }, "{same}");
        let customer = bench.customer("josé@bücher.example").await;
        assert_eq!(customer.id, first.id, "{same}");
        assert_eq!(customer.profile.email, "José@Bücher.example", "as it was registered");
    }
    bench.set("JOSÉ@BÜCHER.example", Status::Pass).await.unwrap();
    let other = bench.import(vec![new_customer("jose@bücher.example")]).await.unwrap();
    assert_eq!(other.created, 1, "a letter without its accent is another letter");
}

async fn accounts_do_not_share_customers(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let other = account(&bench.store, "other").await;
    let new = vec![with_status("a@example.com", Status::Fail)];
    let imported = bench.store.import(other.account, new, origin("import"), soon()).await;
    assert_eq!(imported.unwrap(), Imported { created: 1, updated: 0 });
    assert_eq!(bench.customer("a@example.com").await.status, Status::Pending);
}

async fn an_import_that_fails_imports_nothing(bench: Bench) {
    bench.register(&["a@example.com", "z@example.com"]).await;
    let before = bench.customer("a@example.com").await;
    // What cannot be read cannot be added to.
    let record = bench.database.backend.bytes(b"no record");
    let id = bench.customer("z@example.com").await.id;
    bench
        .database
        .session()
        .execute(&format!("UPDATE customers SET profile = {record} WHERE id = {id}"));

    let answer = bench
        .import(vec![
            with_status("a@example.com", Status::Pass),
            with_status("new@example.com", Status::Pass),
            with_status("z@example.com", Status::Pass),
        ])
        .await;

    assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
    assert_eq!(bench.customer("a@example.com").await, before);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
    let mut sql = bench.database.session();
    assert_eq!(sql.number("(SELECT count(*) FROM customers)"), 2);
    assert_eq!(sql.number("(SELECT count(*) FROM status_changes)"), 2);
}

async fn an_unknown_account_gets_no_customers(bench: Bench) {
    let new = vec![new_customer("a@example.com")];
    let answer = bench.store.import(0, new, origin("import"), soon()).await;
    assert!(matches!(answer, Err(Error::AccountNotFound)), "{answer:?}");
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 0);
}

async fn an_import_whose_deadline_has_passed_imports_nothing(bench: Bench) {
    let new = vec![new_customer("a@example.com")];
    let answer = bench
        .store
        .import(bench.shop.account, new, origin("import"), Instant::now())
        .await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 0);
}

async fn imports_of_the_same_customers_at_once_create_each_once(bench: Bench) {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = bench.another(&crate::store::patient());
        let new = (0..20)
            .map(|number| new_customer(&format!("{number}@example.com")))
            .collect();
        let account = bench.shop.account;
        tasks.spawn(async move { store.import(account, new, origin("import"), soon()).await.unwrap() });
    }
    let imported = tasks.join_all().await;
    assert_eq!(imported.iter().map(|imported| imported.created).sum::<u64>(), 20);
    assert_eq!(imported.iter().map(|imported| imported.updated).sum::<u64>(), 140);
    for number in 0..20 {
        assert_eq!(bench.whole_history(&format!("{number}@example.com")).await.len(), 1);
    }
}

async fn an_import_and_changes_of_the_same_customers_at_once_lose_nothing(bench: Bench) {
    const IMPORTS: usize = 30;
    let emails: Vec<_> = (0..20).map(|number| format!("{number}@example.com")).collect();
    // The ids run against the order of the addresses: locks taken in the one and in the other would meet in a circle.
    for email in emails.iter().rev() {
        bench.register(&[email]).await;
    }
    let imports = async {
        for number in 0..IMPORTS {
            let new = emails
                .iter()
                .map(|email| with_status(email, STATUSES[number % 3]))
                .collect();
            bench.import(new).await.unwrap();
        }
    };
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let changes: Vec<Change> = (0..100)
            .map(|number| {
                bench.change(
                    &emails[(task * 7 + number) % emails.len()],
                    STATUSES[(task + number) % 3],
                )
            })
            .collect();
        let store = bench.store.clone();
        tasks.spawn(async move {
            for change in changes {
                store.set_status(change, soon()).await.unwrap();
            }
        });
    }
    tokio::join!(imports, tasks.join_all());
    for email in &emails {
        let history = bench.whole_history(email).await;
        assert_eq!(bench.customer(email).await.revision, history.len() as i64, "{email}");
    }
}
