//! Accounts: each is there once, and its credential version tells that its credentials are others.

use store::{AccountName, Error};

use super::{Bench, account, soon};

on_both![
    Bench::run;
    a_new_account_is_enabled_and_keeps_its_hash,
    a_name_is_taken_once,
    a_name_is_taken_once_also_when_many_want_it_at_once,
    accounts_are_listed_by_name,
    every_change_of_the_credentials_raises_their_version,
    an_account_that_is_not_there_cannot_be_changed,
];

fn name(name: &str) -> AccountName {
    name.parse().unwrap()
}

async fn a_new_account_is_enabled_and_keeps_its_hash(bench: Bench) {
    bench
        .store
        .create_account(&name("Åpothek 7"), "a hash".to_owned(), soon())
        .await
        .unwrap();
    let account = bench.store.account("Åpothek 7", soon()).await.unwrap();
    assert_eq!(account.name, "Åpothek 7");
    assert_eq!(account.password_hash, "a hash");
    assert!(account.enabled);
    for other in ["åpothek 7", "Åpothek", "Åpothek 7 ", "A\u{30a}pothek 7"] {
        let answer = bench.store.account(other, soon()).await;
        assert!(matches!(answer, Err(Error::AccountNotFound)), "{other}: {answer:?}");
    }
}

async fn a_name_is_taken_once(bench: Bench) {
    let answer = bench
        .store
        .create_account(&name("shop"), "other".to_owned(), soon())
        .await;
    assert!(matches!(answer, Err(Error::AccountExists)), "{answer:?}");
    let account = bench.store.account("shop", soon()).await.unwrap();
    assert_eq!(account.password_hash, "hash");
    bench.store.confirm(bench.shop, soon()).await.unwrap();
}

async fn a_name_is_taken_once_also_when_many_want_it_at_once(bench: Bench) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let store = bench.store.clone();
        tasks.spawn(async move { store.create_account(&name("new"), number.to_string(), soon()).await });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    for answer in answers {
        assert!(matches!(answer, Ok(()) | Err(Error::AccountExists)), "{answer:?}");
    }
}

async fn accounts_are_listed_by_name(bench: Bench) {
    for name in ["b", "a", "B", "ä"] {
        account(&bench.store, name).await;
    }
    bench
        .store
        .set_account_enabled(&name("a"), false, soon())
        .await
        .unwrap();
    let accounts = bench.store.accounts(soon()).await.unwrap();
    let listed: Vec<_> = accounts
        .iter()
        .map(|account| (account.name.as_str(), account.enabled))
        .collect();
    assert_eq!(
        listed,
        [("B", true), ("a", false), ("b", true), ("shop", true), ("ä", true)]
    );
}

async fn every_change_of_the_credentials_raises_their_version(bench: Bench) {
    let (store, shop) = (&bench.store, name("shop"));
    let state = async || {
        let account = store.account("shop", soon()).await.unwrap();
        (account.credential_version, account.enabled, account.password_hash)
    };
    let (first, ..) = state().await;

    store.set_account_enabled(&shop, false, soon()).await.unwrap();
    assert_eq!(state().await, (first + 1, false, "hash".to_owned()));
    store.set_account_enabled(&shop, false, soon()).await.unwrap();
    assert_eq!(
        state().await,
        (first + 1, false, "hash".to_owned()),
        "it was disabled already"
    );

    store.set_password(&shop, "other".to_owned(), soon()).await.unwrap();
    assert_eq!(state().await, (first + 2, false, "other".to_owned()));
    store.set_password(&shop, "other".to_owned(), soon()).await.unwrap();
    assert_eq!(state().await, (first + 3, false, "other".to_owned()));

    store.set_account_enabled(&shop, true, soon()).await.unwrap();
    assert_eq!(state().await, (first + 4, true, "other".to_owned()));
    store.set_account_enabled(&shop, true, soon()).await.unwrap();
    assert_eq!(
        state().await,
        (first + 4, true, "other".to_owned()),
        "it was enabled already"
    );
}

async fn an_account_that_is_not_there_cannot_be_changed(bench: Bench) {
    let nobody = name("nobody");
    for answer in [
        bench.store.set_password(&nobody, "hash".to_owned(), soon()).await,
        bench.store.set_account_enabled(&nobody, false, soon()).await,
        bench.store.set_account_enabled(&nobody, true, soon()).await,
        bench.store.account("nobody", soon()).await.map(drop),
    ] {
        assert!(matches!(answer, Err(Error::AccountNotFound)), "{answer:?}");
    }
    assert_eq!(bench.store.accounts(soon()).await.unwrap().len(), 1);
}
