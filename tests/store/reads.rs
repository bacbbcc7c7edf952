//! Reads: customers, their history, and whether credentials still hold.

use std::time::Instant;

use metrics_exporter_prometheus::PrometheusBuilder;
use store::{Authority, Error, Principal, Settings, Status};

use super::{Bench, STATUSES, account, credentials, key, patient, soon};

on_both![
    Bench::each;
    a_customer_is_found_by_any_form_of_its_address,
    a_customer_is_found_by_its_own_account_alone,
    a_read_with_credentials_that_no_longer_hold_is_refused_before_anything_is_looked_up,
    an_operator_may_read_of_a_disabled_account,
    a_history_holds_the_last_changes_oldest_first,
    a_history_is_that_of_one_customer,
    a_read_whose_deadline_has_passed_is_refused,
    a_read_for_which_there_is_no_room_is_refused_and_counted,
    an_open_store_gives_a_sign_of_life,
];

async fn a_customer_is_found_by_any_form_of_its_address(bench: Bench) {
    bench.register(&["José+Tag@Example.com"]).await;
    for form in [
        "José+Tag@Example.com",
        "josé+tag@example.com",
        "JOSE\u{301}+TAG@EXAMPLE.COM",
    ] {
        let customer = bench.customer(form).await;
        assert_eq!(customer.profile.email, "José+Tag@Example.com", "{form}");
    }
    for other in ["josé@example.com", "jose+tag@example.com", "josé+tag@example.org"] {
        let answer = bench.store.customer(bench.shop, key(other), soon()).await;
        assert!(matches!(answer, Err(Error::CustomerNotFound)), "{other}: {answer:?}");
    }
}

async fn a_customer_is_found_by_its_own_account_alone(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let other = account(&bench.store, "other").await;
    let answer = bench.store.customer(other, key("a@example.com"), soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
    let answer = bench.store.history(other, key("a@example.com"), 1, soon()).await;
    assert!(matches!(answer, Err(Error::CustomerNotFound)), "{answer:?}");
}

async fn a_read_with_credentials_that_no_longer_hold_is_refused_before_anything_is_looked_up(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let name = "shop".parse().unwrap();
    let refused = async |principal: Principal| {
        let answer = bench.store.confirm(principal, soon()).await;
        assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
        for email in ["a@example.com", "unknown@example.com"] {
            let answer = bench.store.customer(principal, key(email), soon()).await;
            assert!(matches!(answer, Err(Error::StaleCredentials)), "{email}: {answer:?}");
            let answer = bench.store.history(principal, key(email), 1, soon()).await;
            assert!(matches!(answer, Err(Error::StaleCredentials)), "{email}: {answer:?}");
        }
    };

    bench.store.confirm(bench.shop, soon()).await.unwrap();
    bench
        .store
        .set_password(&name, "other".to_owned(), soon())
        .await
        .unwrap();
    refused(bench.shop).await;
    let renewed = credentials(&bench.store, "shop").await;
    bench.store.confirm(renewed, soon()).await.unwrap();
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    refused(renewed).await;
    refused(credentials(&bench.store, "shop").await).await;
    refused(Principal { account: 0, ..renewed }).await;
}

async fn an_operator_may_read_of_a_disabled_account(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let name = "shop".parse().unwrap();
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    let operator = Principal {
        authority: Authority::Operator,
        ..bench.shop
    };
    bench.store.confirm(operator, soon()).await.unwrap();
    let customer = bench
        .store
        .customer(operator, key("a@example.com"), soon())
        .await
        .unwrap();
    assert_eq!(customer.status, Status::Pending);
    let history = bench
        .store
        .history(operator, key("a@example.com"), 10, soon())
        .await
        .unwrap();
    assert_eq!(history.len(), 1);
}

async fn a_history_holds_the_last_changes_oldest_first(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    // The first is another than the status that the customer has.
    for number in 0..9 {
        bench.set("a@example.com", STATUSES[number % 3]).await.unwrap();
    }
    assert_eq!(bench.whole_history("a@example.com").await.len(), 10);
    for (limit, versions) in [
        (0, vec![]),
        (1, vec![10]),
        (3, vec![8, 9, 10]),
        (11, (1..=10).collect()),
    ] {
        let history = bench
            .store
            .history(bench.shop, key("a@example.com"), limit, soon())
            .await;
        let read: Vec<_> = history.unwrap().iter().map(|change| change.version).collect();
        assert_eq!(read, versions, "of {limit}");
    }
}

async fn a_history_is_that_of_one_customer(bench: Bench) {
    bench.register(&["a@example.com", "b@example.com"]).await;
    bench.set("a@example.com", Status::Pass).await.unwrap();
    bench.set("b@example.com", Status::Fail).await.unwrap();
    for (email, last) in [("a@example.com", Status::Pass), ("b@example.com", Status::Fail)] {
        let statuses: Vec<_> = bench
            .whole_history(email)
            .await
            .iter()
            .map(|change| change.to)
            .collect();
        assert_eq!(statuses, [Status::Pending, last], "{email}");
    }
}

async fn a_read_whose_deadline_has_passed_is_refused(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let passed = Instant::now();
    let answer = bench.store.customer(bench.shop, key("a@example.com"), passed).await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    let answer = bench.store.ping(passed).await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
}

async fn a_read_for_which_there_is_no_room_is_refused_and_counted(bench: Bench) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let settings = Settings {
        read_queue: 0,
        ..patient()
    };
    let store = metrics::with_local_recorder(&recorder, || bench.another(&settings));
    let answer = store.confirm(bench.shop, soon()).await;
    assert!(matches!(answer, Err(Error::Full)), "{answer:?}");
    let metrics = recorder.handle().render();
    let refused = "dcams_pool_refused_total{cause=\"full\"} 1\n";
    assert!(metrics.contains(refused), "{metrics}");
    // How busy the store is does not decide whether it is there.
    store.ping(soon()).await.unwrap();
}

async fn an_open_store_gives_a_sign_of_life(bench: Bench) {
    bench.store.ping(soon()).await.unwrap();
}
