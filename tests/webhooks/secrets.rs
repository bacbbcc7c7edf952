//! What signs deliveries is known to whoever added the webhook, and to nobody else.

use std::os::unix::fs::PermissionsExt;

use super::{
    FAST, Hook, Receiver,
    receiver::{Answer, check},
    register, set, shop, with_account,
};
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::support::{Backend, Database, Gateway, dcams};

/// The secret and its bytes, as they may stand somewhere.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let base64 = secret.strip_prefix("whsec_").unwrap();
    let bytes = BASE64_STANDARD.decode(base64).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![base64.as_bytes().to_vec(), bytes, hex.into_bytes()]
}

/// A database to be used with a key, which nobody else can read.
fn sealed(database: Database) -> Database {
    let database = database.encrypted();
    std::fs::set_permissions(database.path(Database::KEYS), PermissionsExt::from_mode(0o600)).unwrap();
    database
}

#[track_caller]
fn absent(secret: &str, place: &str, text: &[u8]) {
    for form in forms(secret) {
        assert!(
            !text.windows(form.len()).any(|part| part == form),
            "the secret is in {place}"
        );
    }
}

#[test]
fn while_a_secret_is_replaced_both_sign() {
    for backend in Backend::BOTH {
        let database = with_account(sealed(backend.database()));
        let receiver = Receiver::start();
        register(&database, &["a@example.com"]);
        let hook = Hook::add(&database, &receiver.url());
        let gateway = Gateway::start(&database, &FAST);
        let said = hook.command(&database, "rotate", &[]);
        let new = said.lines().find_map(|line| line.strip_prefix("secret: ")).unwrap();
        assert_ne!(new, hook.secret);
        set(&gateway, "a@example.com", "PASS");
        let taken = receiver.has_taken(1);
        assert_eq!(
            taken[0].signatures,
            [taken[0].signature(new), taken[0].signature(&hook.secret)]
        );
        check(&taken[0], new);
        check(&taken[0], &hook.secret);

        // A day later.
        database.session().execute("UPDATE webhooks SET old_secret_until = 1");
        set(&gateway, "a@example.com", "FAIL");
        let taken = receiver.has_taken(2);
        assert_eq!(taken[1].signatures, [taken[1].signature(new)]);
    }
}

#[test]
fn a_secret_is_printed_once_and_stands_nowhere_in_clear_text() {
    for backend in Backend::BOTH {
        let database = with_account(sealed(backend.database()));
        let receiver = Receiver::start();
        register(&database, &["a@example.com"]);
        let hook = Hook::add(&database, &receiver.url());
        let gateway = Gateway::start(&database, &[&FAST[..], &["--log", "trace"]].concat());
        let mut fail = true;
        receiver.answers(move |_| Answer::Status(if std::mem::take(&mut fail) { 500 } else { 200 }));
        set(&gateway, "a@example.com", "PASS");
        receiver.has_taken(1);
        assert_eq!(hook.command(&database, "test", &[]), "the receiver answered 200\n");
        let sample = receiver.requests().pop().unwrap();
        check(&sample, &hook.secret);
        let mut heard = gateway.get("/metrics").text().to_owned();
        let output = gateway.stop();
        heard.push_str(&output.out);
        heard.push_str(&output.err);
        for command in [&["list"][..], &["parked", &hook.id], &["resend", &hook.id, "--all"]] {
            let output = dcams(&database, &[&["webhook", "--log", "trace"], command].concat(), "");
            heard.push_str(&output.out);
            heard.push_str(&output.err);
        }
        absent(&hook.secret, "what was printed", heard.as_bytes());
        assert!(!heard.contains("a@example.com"), "{heard}");
        absent(&hook.secret, "the store", &database.stolen());
    }
}

#[test]
fn the_secrets_of_a_store_that_is_encrypted_are_sealed_with_it_and_still_sign() {
    for backend in Backend::BOTH {
        for customers in [&["a@example.com"][..], &[]] {
            let database = shop(backend);
            let receiver = Receiver::start();
            let hook = Hook::add(&database, &receiver.url());
            let new = hook.command(&database, "rotate", &[]);
            let new = new.lines().find_map(|line| line.strip_prefix("secret: ")).unwrap();
            if !customers.is_empty() {
                register(&database, customers);
            }
            let database = sealed(database);
            // Nobody uses a store with a key by which it is not encrypted.
            let line = dcams(&database, &["webhook", "list"], "").fails(1);
            assert!(line.contains("keys encrypt"), "{line}");
            dcams(&database, &["keys", "encrypt"], "").ok();
            let stolen = database.stolen();
            absent(&hook.secret, "the store", &stolen);
            absent(new, "the store", &stolen);
            assert_eq!(hook.command(&database, "test", &[]), "the receiver answered 204\n");
            let sample = receiver.requests().pop().unwrap();
            check(&sample, &hook.secret);
            check(&sample, new);
        }
    }
}

#[test]
fn a_secret_that_was_moved_to_another_webhook_does_not_open() {
    for backend in Backend::BOTH {
        let database = with_account(sealed(backend.database()));
        let receiver = Receiver::start();
        let (first, second) = (
            Hook::add(&database, &receiver.url()),
            Hook::add(&database, &receiver.url()),
        );
        database.session().execute(&format!(
            "UPDATE webhooks SET secret = (SELECT secret FROM webhooks WHERE public_id = '{}') WHERE public_id = '{}'",
            first.id, second.id
        ));
        first.command(&database, "test", &[]);
        let line = dcams(&database, &["webhook", "test", &second.id], "").fails(1);
        assert!(line.contains("WebhookSecret"), "{line}");
        assert_eq!(receiver.count(), 1);
    }
}
