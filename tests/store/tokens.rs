//! API tokens: what is kept of them, and that to revoke one holds everywhere at once.

use std::time::{Duration, SystemTime};

use store::{AccountName, Error, NewToken, Scope, Scopes, Status, Store, StoredToken, Token};

use super::{Bench, account, credentials, soon};

on_both![
    Bench::run;
    what_is_known_of_a_token_is_what_was_said_of_it,
    a_token_is_listed_with_its_account_and_no_other,
    a_token_of_an_account_that_is_not_there_is_not_made,
    a_revoked_token_is_not_valid_and_what_was_verified_before_no_longer_holds_anywhere,
    to_revoke_a_token_again_changes_nothing,
    a_token_of_a_disabled_account_is_not_valid,
    the_use_of_a_token_is_noted_once_an_hour,
];

fn name(name: &str) -> AccountName {
    name.parse().unwrap()
}

fn new(id: &str, scopes: impl IntoIterator<Item = Scope>) -> NewToken {
    NewToken {
        id: id.to_owned(),
        hash: [7; 32],
        scopes: scopes.into_iter().collect(),
        label: String::new(),
        expires: None,
    }
}

async fn create(bench: &Bench, of: &str, new: NewToken) {
    bench.store.create_token(&name(of), new, soon()).await.unwrap();
}

async fn token(store: &Store, id: &str) -> StoredToken {
    store.token(id, soon()).await.unwrap().unwrap()
}

async fn listed(bench: &Bench, of: &str) -> Vec<Token> {
    bench.store.tokens(&name(of), soon()).await.unwrap()
}

async fn what_is_known_of_a_token_is_what_was_said_of_it(bench: Bench) {
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(5_000_000_000);
    create(
        &bench,
        "shop",
        NewToken {
            hash: std::array::from_fn(|at| at as u8),
            label: "für die Prüfer".to_owned(),
            expires: Some(expires),
            ..new("first", [Scope::Read, Scope::Admin])
        },
    )
    .await;
    let known = token(&bench.store, "first").await;
    assert_eq!(known.account, bench.shop.account);
    assert_eq!(known.account_name, "shop");
    assert_eq!(known.credential_version, 1);
    assert!(known.valid);
    assert_eq!(known.hash, std::array::from_fn(|at| at as u8));
    assert_eq!(known.scopes.to_string(), "read,admin");
    assert_eq!((known.expires, known.used), (Some(expires), None));

    let listed = listed(&bench, "shop").await.remove(0);
    assert_eq!((&*listed.id, &*listed.label), ("first", "für die Prüfer"));
    assert_eq!((listed.scopes, listed.expires), (known.scopes, known.expires));
    assert_eq!((listed.revoked, listed.used), (None, None));
    assert!(listed.created <= SystemTime::now());
    for other in ["", "First", "first ", "second"] {
        assert!(bench.store.token(other, soon()).await.unwrap().is_none(), "{other}");
    }
    let again = bench
        .store
        .create_token(&name("shop"), new("first", Scope::ALL), soon())
        .await;
    assert!(matches!(again, Err(Error::Collision(_))), "{again:?}");
}

async fn a_token_is_listed_with_its_account_and_no_other(bench: Bench) {
    account(&bench.store, "other").await;
    for id in ["b", "a", "c"] {
        create(&bench, "shop", new(id, [Scope::Read])).await;
    }
    create(&bench, "other", new("d", [Scope::Read])).await;
    let ids = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(ids(listed(&bench, "shop").await), ["b", "a", "c"]);
    assert_eq!(ids(listed(&bench, "other").await), ["d"]);
}

async fn a_token_of_an_account_that_is_not_there_is_not_made(bench: Bench) {
    let made = bench
        .store
        .create_token(&name("nobody"), new("first", Scope::ALL), soon())
        .await;
    assert!(matches!(made, Err(Error::AccountNotFound)), "{made:?}");
    let listed = bench.store.tokens(&name("nobody"), soon()).await;
    assert!(matches!(listed, Err(Error::AccountNotFound)), "{listed:?}");
    assert!(bench.store.token("first", soon()).await.unwrap().is_none());
}

async fn a_revoked_token_is_not_valid_and_what_was_verified_before_no_longer_holds_anywhere(bench: Bench) {
    bench.register(&["jane@example.com"]).await;
    create(&bench, "shop", new("first", Scope::ALL)).await;
    create(&bench, "shop", new("second", Scope::ALL)).await;
    let another = bench.another(&crate::store::patient());
    another.confirm(bench.shop, soon()).await.unwrap();

    let revoked = bench.store.revoke_token("first", soon()).await.unwrap();
    assert_eq!(revoked.as_deref(), Some("shop"));
    for store in [&bench.store, &another] {
        assert!(!token(store, "first").await.valid);
        assert!(token(store, "second").await.valid);
        let stale = store.confirm(bench.shop, soon()).await;
        assert!(matches!(stale, Err(Error::StaleCredentials)), "{stale:?}");
        let change = store
            .set_status(bench.change("jane@example.com", Status::Pass), soon())
            .await;
        assert!(matches!(change, Err(Error::StaleCredentials)), "{change:?}");
        // What is verified now holds.
        let anew = credentials(store, "shop").await;
        assert_eq!(token(store, "second").await.credential_version, 2);
        store.confirm(anew, soon()).await.unwrap();
    }
    assert!(listed(&bench, "shop").await[0].revoked.is_some());
}

async fn to_revoke_a_token_again_changes_nothing(bench: Bench) {
    create(&bench, "shop", new("first", [Scope::Write])).await;
    let revoke = async || bench.store.revoke_token("first", soon()).await.unwrap();
    assert!(revoke().await.is_some());
    let before = (listed(&bench, "shop").await, credentials(&bench.store, "shop").await);
    assert!(revoke().await.is_some());
    let after = (listed(&bench, "shop").await, credentials(&bench.store, "shop").await);
    assert_eq!(after, before);
    assert!(bench.store.revoke_token("nobody's", soon()).await.unwrap().is_none());
}

async fn a_token_of_a_disabled_account_is_not_valid(bench: Bench) {
    create(&bench, "shop", new("first", Scope::ALL)).await;
    let enable = async |enabled| {
        let shop = name("shop");
        bench.store.set_account_enabled(&shop, enabled, soon()).await.unwrap();
        token(&bench.store, "first").await
    };
    assert!(!enable(false).await.valid);
    let again = enable(true).await;
    assert!(again.valid);
    assert_eq!((again.credential_version, again.scopes), (3, Scopes::ALL));
}

async fn the_use_of_a_token_is_noted_once_an_hour(bench: Bench) {
    create(&bench, "shop", new("first", Scope::ALL)).await;
    let note = async |known| {
        bench.store.note_token_use("first", known, soon()).await.unwrap();
        token(&bench.store, "first").await.used
    };
    let first = note(None).await;
    assert!(first.is_some_and(|used| used <= SystemTime::now()));
    assert_eq!(note(first).await, first);
    let minutes = |minutes: u64| Some(SystemTime::now() - Duration::from_secs(60 * minutes));
    assert_eq!(note(minutes(59)).await, first);
    assert!(note(minutes(61)).await > first);
    bench.store.note_token_use("nobody's", None, soon()).await.unwrap();
}
