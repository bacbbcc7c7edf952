//! `account token`: what makes a token, shows it and revokes it.

use super::shop;
use crate::support::{Backend, dcams};

const CREATE: [&str; 4] = ["account", "token", "create", "shop"];
const LIST: [&str; 4] = ["account", "token", "list", "shop"];

/// The token in what a command printed, and its id.
fn shown(out: &str) -> (&str, &str) {
    let (first, second) = out.trim_end().split_once('\n').unwrap();
    let token = second.strip_prefix("token: ").unwrap();
    let [prefix, id, secret] = token.split('_').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((prefix, id.len(), secret.len()), ("dcams", 16, 64), "{out}");
    assert_eq!(first, format!("token {id} of account shop created"));
    (token, id)
}

#[test]
fn a_token_is_shown_once_and_stored_as_a_hash() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let create = [
            &CREATE[..],
            &["--scope", "read,documents", "--label", " für die Prüfer "],
        ]
        .concat();
        let out = dcams(&database, &create, "").ok();
        let (token, id) = shown(&out);
        let secret = token.rsplit('_').next().unwrap();
        let list = dcams(&database, &LIST, "").ok();
        assert!(list.starts_with(&format!("{id} valid   read,documents")), "{list}");
        assert!(list.contains("expires never"), "{list}");
        assert!(list.ends_with(" für die Prüfer\n"), "{list}");
        assert!(!list.contains(secret), "{list}");
        let stolen = database.stolen();
        let stands_in = |text: &str| stolen.windows(text.len()).any(|window| window == text.as_bytes());
        // What is looked for could be there.
        assert!(stands_in(id), "{backend}");
        assert!(!stands_in(secret), "{backend}");
    }
}

#[test]
fn a_token_is_revoked_by_its_id_also_twice() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let create = [
            &CREATE[..],
            &["--scope", "read", "--scope", "admin", "--expires", "90d"],
        ]
        .concat();
        let out = dcams(&database, &create, "").ok();
        let (token, id) = shown(&out);
        for _ in 0..2 {
            let revoked = dcams(&database, &["account", "token", "revoke", id], "").ok();
            assert_eq!(revoked, format!("token {id} of account shop is revoked\n"));
        }
        let list = dcams(&database, &LIST, "").ok();
        assert!(list.starts_with(&format!("{id} revoked read,admin")), "{list}");
        assert!(!list.contains("expires never"), "{list}");
        // A whole token is not repeated.
        for unknown in ["0123456789abcdef", token] {
            let line = dcams(&database, &["account", "token", "revoke", unknown], "").fails(1);
            assert!(line.starts_with("there is no token of this id"), "{line}");
            assert!(!line.contains(token), "{line}");
        }
    }
}

#[test]
fn a_token_of_nothing_or_for_nothing_is_not_made() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let label = "x".repeat(101);
        for wrong in [
            &[][..],
            &["--scope", ""],
            &["--scope", "all"],
            &["--scope", "read,"],
            &["--scope", "read", "--expires", "0d"],
            &["--scope", "read", "--label", &label],
            &["--scope", "read", "--label", "a\nb"],
        ] {
            dcams(&database, &[&CREATE[..], wrong].concat(), "").fails(2);
        }
        assert_eq!(dcams(&database, &LIST, "").ok(), "");
        for command in [&["create", "nobody", "--scope", "read"][..], &["list", "nobody"]] {
            let line = dcams(&database, &[&["account", "token"], command].concat(), "").fails(1);
            assert_eq!(line, "nobody: no such account");
        }
    }
}
