//! The master keys: where they come from, and what `keys` does with them.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{shop, takes};
use crate::support::{Backend, Database, Gateway, Output, dcams, program, run};

/// A line of a ring.
fn key(number: u32) -> String {
    run(
        program().args(["keys", "generate", "--number", &number.to_string()]),
        "",
    )
    .ok()
}

/// A file of master keys, for its owner only.
fn ring(database: &Database, name: &str, numbers: &[u32]) -> PathBuf {
    let path = database.file(name, numbers.iter().map(|number| key(*number)).collect::<String>());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Runs a command on a store with a file of keys.
fn with(keys: &Path, database: &Database, arguments: &[&str]) -> Output {
    dcams(
        database,
        &[arguments, &["--key-file", keys.to_str().unwrap()]].concat(),
        "",
    )
}

const CUSTOMERS: &str = "email,fn,ln\na@example.com,Canary,Lee\nb@example.com,Canary,Lee\n";

const SHOW: [&str; 5] = ["customer", "show", "a@example.com", "--account", "shop"];

/// On free ports, so that nothing else on the machine is in the way.
const SERVE: [&str; 7] = [
    "serve",
    "--rest-addr",
    "127.0.0.1:0",
    "--grpc-addr",
    "127.0.0.1:0",
    "--ops-addr",
    "127.0.0.1:0",
];

/// Whether a text stands in what the database holds.
fn stores(database: &Database, text: &str) -> bool {
    let profile = match database.backend {
        Backend::Sqlite => "CAST(profile AS TEXT)",
        Backend::Postgres => "encode(profile, 'escape')",
    };
    let found =
        format!("(SELECT count(*) FROM customers WHERE {profile} LIKE '%{text}%' OR email_key LIKE '%{text}%')");
    database.session().number(&found) > 0
}

#[test]
fn a_new_key_has_the_number_that_is_asked_for_or_the_next_one() {
    let database = Backend::Sqlite.database();
    let number = |arguments: &[&str]| {
        let arguments = [&["keys", "generate"], arguments].concat();
        let line = run(program().args(&arguments).current_dir(database.path("")), "").ok();
        let (number, key) = line.strip_suffix('\n').unwrap().split_once(':').unwrap();
        assert_eq!(key.len(), 44, "32 bytes in Base64");
        number.parse::<u32>().unwrap()
    };
    assert_eq!(number(&[]), 1);
    assert_eq!(number(&["--number", "7"]), 7);
    let keys = ring(&database, "keys", &[3, 2]);
    assert_eq!(number(&["--key-file", keys.to_str().unwrap()]), 4);
    assert_eq!(number(&["--key-file", keys.to_str().unwrap(), "--number", "7"]), 7);
    assert_eq!(number(&["--key-command", "cat keys"]), 4);
    // A file that is going to be one.
    database.file("empty", "# none yet\n\n");
    for name in ["empty", "absent"] {
        assert_eq!(number(&["--key-file", name]), 1);
    }
    assert_ne!(key(1), key(1));
    assert!(!database.path("dcams.db").exists(), "it needs no store");

    let last = ring(&database, "last", &[u32::MAX]);
    let line = with(&last, &database, &["keys", "generate"]).fails(1);
    assert_eq!(line, "there is no larger number: see --number");
}

#[test]
fn keys_come_from_a_file_a_variable_or_a_command() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let keys = ring(&database, "keys", &[1]);
        let text = std::fs::read_to_string(&keys).unwrap();
        with(&keys, &database, &["account", "create", "shop"]).ok();
        let run_with = |variable: &str, value: &str, arguments: &[&str]| {
            let mut command = program();
            command
                .args(["--store", &database.url, "account", "list"])
                .args(arguments);
            if !variable.is_empty() {
                command.env(variable, value);
            }
            run(command.current_dir(database.path("")), "")
        };
        for output in [
            run_with("DCAMS_KEY_FILE", "keys", &[]),
            run_with("DCAMS_KEYS", &text, &[]),
            run_with("DCAMS_KEY_COMMAND", "echo '# mine'; cat keys", &[]),
            run_with("", "", &["--key-command", "cat keys"]),
            run_with("", "", &["--key-file", "keys"]),
        ] {
            assert!(output.ok().starts_with("shop "));
        }
        let line = run_with("", "", &[]).fails(1);
        assert!(
            line.ends_with("the store is encrypted, and no key was given: see --key-file"),
            "{line}"
        );

        // None wins over another.
        for output in [
            run_with("DCAMS_KEYS", &text, &["--key-file", "keys"]),
            run_with("DCAMS_KEY_FILE", "keys", &["--key-command", "cat keys"]),
            run_with("DCAMS_KEYS", &text, &["--key-command", "cat keys"]),
        ] {
            let line = output.fails(2);
            assert!(line.contains("only one can be used"), "{line}");
        }
    }
}

#[test]
fn keys_that_cannot_be_had_are_one_line_that_does_not_quote_them() {
    let database = Backend::Sqlite.database();
    let fails = |arguments: &[&str]| {
        let output = dcams(&database, &[&["account", "list"], arguments].concat(), "");
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");
        output.fails(1)
    };
    let file = |name: &str, content: &[u8]| {
        let path = database.file(name, content);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    };
    file("wrong", b"1:canary");
    file("binary", b"1:canary\xff");
    file("large", &b"# canary\n".repeat(10_000));
    file("empty", b"");
    for (arguments, says) in [
        (["--key-file", "absent"], "the key file absent: No such file"),
        (["--key-file", "."], "the key file .: Is a directory"),
        (["--key-file", "wrong"], "line 1 of the master keys is not Base64"),
        (["--key-file", "binary"], "it is not text"),
        (["--key-file", "large"], "it has more than 65536 bytes"),
        (["--key-file", "empty"], "the master keys are empty"),
        (
            ["--key-command", "cat wrong; exit 3"],
            "the key command failed: exit status: 3",
        ),
        (
            ["--key-command", "cat wrong; echo 'access\ndenied' >&2; false"],
            "the key command failed: exit status: 1: access denied",
        ),
        (["--key-command", "kill $$"], "the key command failed: signal: 15"),
        (["--key-command", "true"], "the master keys are empty"),
        (["--key-command", "cat large"], "it has more than 65536 bytes"),
    ] {
        let line = fails(&arguments);
        assert!(line.contains(says), "{arguments:?}: {line}");
    }
    let empty = run(program().args(["account", "list"]).env("DCAMS_KEYS", ""), "").fails(1);
    assert!(empty.contains("the master keys are empty"), "{empty}");
    assert!(!database.path("dcams.db").exists());
}

#[test]
fn a_file_of_keys_that_others_can_read_is_warned_of() {
    let database = Backend::Sqlite.database();
    let keys = ring(&database, "keys", &[1]);
    for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        std::fs::set_permissions(&keys, PermissionsExt::from_mode(mode)).unwrap();
        let output = with(&keys, &database, &["account", "list"]);
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(
            output.err.contains("can be read by others"),
            warned,
            "{mode:o}: {output:?}"
        );
    }
}

#[test]
fn a_store_in_clear_text_and_a_key_do_not_go_together() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.import("shop", CUSTOMERS);
        let keys = ring(&database, "keys", &[1]);
        for arguments in [&SHOW[..], &["account", "list"], &["keys", "rotate"], &SERVE] {
            let line = with(&keys, &database, arguments).fails(1);
            assert!(
                line.ends_with(
                    "a key was given, and the store holds customers or webhooks in clear text: run `dcams-gateway keys encrypt`"
                ),
                "{line}"
            );
        }
        assert!(dcams(&database, &SHOW, "").ok().contains("Canary"));
        for command in ["encrypt", "rotate"] {
            let line = dcams(&database, &["keys", command], "").fails(1);
            assert!(line.starts_with("no key was given"), "{line}");
        }
    }
}

#[test]
fn a_store_in_clear_text_is_encrypted() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.import("shop", CUSTOMERS);
        assert!(stores(&database, "Canary") && stores(&database, "example.com"));
        let keys = ring(&database, "keys", &[1]);
        for encrypted in [2, 0] {
            assert_eq!(
                with(&keys, &database, &["keys", "encrypt"]).ok(),
                format!("the store is encrypted; {encrypted} of its customers were in clear text before\n")
            );
        }
        assert!(!stores(&database, "Canary") && !stores(&database, "example.com"));
        assert!(with(&keys, &database, &SHOW).ok().contains("Canary"));

        // Without the key, or with another of the same number, nobody gets in.
        let line = dcams(&database, &SHOW, "").fails(1);
        assert!(
            line.ends_with("the store is encrypted, and no key was given: see --key-file"),
            "{line}"
        );
        let other = ring(&database, "other", &[1]);
        for arguments in [&SHOW[..], &["keys", "encrypt"], &["keys", "rotate"]] {
            let line = with(&other, &database, arguments).fails(1);
            assert!(line.contains("key"), "{line}");
        }
        // The schema needs none.
        dcams(&database, &["migrate", "--check"], "").ok();
        let gateway = Gateway::start(&database, &["--key-file", keys.to_str().unwrap()]);
        assert!(takes(&gateway, "shop", "secret"));
        assert!(!gateway.stop().err.contains("clear text"));
    }
}

#[test]
fn a_gateway_without_a_key_says_once_that_data_is_in_clear_text() {
    let database = shop(Backend::Sqlite);
    let gateway = Gateway::start(&database, &[]);
    let facade = Gateway::facade(&gateway, &[]);
    assert!(!facade.stop().err.contains("clear text"));
    let log = gateway.stop().err;
    assert_eq!(log.matches("stored in clear text").count(), 1, "{log}");
    assert!(log.contains("keys generate") && log.contains("keys encrypt"), "{log}");
}

#[test]
fn the_master_key_is_changed_while_a_gateway_serves() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let keys = ring(&database, "keys", &[1]);
        let flag = ["--key-file", keys.to_str().unwrap()];
        let create = ["account", "create", "shop", "--password-stdin"];
        dcams(&database, &[&create[..], &flag].concat(), "secret").ok();
        let file = database.file("customers.csv", CUSTOMERS);
        let import = ["customer", "import", file.to_str().unwrap(), "--account", "shop"];
        with(&keys, &database, &import).ok();
        let gateway = Gateway::start(&database, &flag);

        let both = std::fs::read_to_string(&keys).unwrap() + &with(&keys, &database, &["keys", "generate"]).ok();
        std::fs::write(&keys, &both).unwrap();
        for rotated in [2, 0] {
            assert_eq!(
                with(&keys, &database, &["keys", "rotate"]).ok(),
                format!("all keys are wrapped by master key 2; {rotated} were wrapped by another before\n")
            );
        }
        // The gateway has read neither the customer nor the new key before.
        let body = r#"{"user":"shop","pass":"secret","service":"getStatus","target":{"email":"a@example.com"}}"#;
        let reply = gateway.post(body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().contains("Canary"));

        // The old key is needed no more.
        std::fs::write(&keys, both.lines().nth(1).unwrap()).unwrap();
        assert!(with(&keys, &database, &SHOW).ok().contains("Canary"));
    }
}
