//! Master keys on the command line: where they come from, what needs them, and how a store gets others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Backend, Connection, Database, Gateway, Output, dcams, post, program, run};

/// A ring of one new key, as the program makes it.
fn ring(database: &Database, name: &str) -> PathBuf {
    let line = dcams(database, &["keys", "generate"], "").ok();
    assert!(line.starts_with("1:") && line.len() == 47, "{line}");
    let file = database.file(name, line);
    run(Command::new("chmod").arg("600").arg(&file), "").ok();
    file
}

fn with_file(database: &Database, file: &Path, arguments: &[&str]) -> Output {
    dcams(
        database,
        &[&["--key-file", file.to_str().unwrap()], arguments].concat(),
        "",
    )
}

fn post_sample(gateway: &Gateway) -> u16 {
    let body = r#"{"user":"shop","pass":"secret","service":"updateStatus","target":{"email":"a@example.com","status":"PASS"}}"#;
    Connection::open(gateway.rest).exchange(&post(body.as_bytes())).status
}

#[test]
fn a_store_that_was_made_with_a_key_opens_with_that_key_only() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let (file, other) = (ring(&database, "keys"), ring(&database, "other"));
        with_file(&database, &file, &["account", "create", "shop"]).ok();
        let line = dcams(&database, &["account", "list"], "").fails(1);
        assert!(
            line.ends_with("the store is encrypted, and no key was given: see --key-file"),
            "{line}"
        );
        let line = with_file(&database, &other, &["account", "list"]).fails(1);
        assert!(
            line.ends_with("the master keys are not those that the store was encrypted with"),
            "{line}"
        );
        with_file(&database, &file, &["account", "list"]).ok();
    }
}

#[test]
fn keys_come_from_a_file_a_variable_or_a_command() {
    let database = Backend::Sqlite.database();
    let file = ring(&database, "keys");
    with_file(&database, &file, &["account", "create", "shop"]).ok();
    let list = |change: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = program();
        command.args(["--store", &database.url, "account", "list"]);
        change(&mut command);
        run(&mut command, "")
    };
    let text = fs::read_to_string(&file).unwrap();
    let cat = format!("cat '{}'", file.display());
    list(&|command| command.env("DCAMS_KEYS", &text)).ok();
    list(&|command| command.env("DCAMS_KEY_FILE", &file)).ok();
    list(&|command| command.args(["--key-command", &cat])).ok();
    list(&|command| command.env("DCAMS_KEY_COMMAND", &cat)).ok();

    // One of them, and what is no ring is not quoted.
    list(&|command| command.env("DCAMS_KEYS", &text).args(["--key-command", &cat])).fails(2);
    for (variable, value) in [
        ("DCAMS_KEYS", "canary"),
        ("DCAMS_KEY_FILE", "/absent"),
        ("DCAMS_KEY_COMMAND", "echo canary; exit 3"),
        ("DCAMS_KEY_COMMAND", "echo canary"),
    ] {
        let line = list(&|command| command.env(variable, value)).fails(1);
        assert!(
            !line.contains("canary") || line.contains("echo canary"),
            "{variable}: {line}"
        );
    }
}

#[test]
fn a_clear_store_is_encrypted_by_a_command_and_then_needs_its_key() {
    for backend in Backend::BOTH {
        let database = super::shop(backend);
        database.import("shop", "email,ln\na@example.com,Canaryname\n");
        let file = ring(&database, "keys");
        let line = with_file(&database, &file, &["account", "list"]).fails(1);
        assert!(line.ends_with("run `dcams-gateway keys encrypt`"), "{line}");
        let said = with_file(&database, &file, &["keys", "encrypt"]).ok();
        assert_eq!(
            said,
            "the store is encrypted; customers that were in clear text before: 1\n"
        );
        with_file(&database, &file, &["keys", "encrypt"]).ok();
        let show = ["customer", "show", "A@example.com", "--account", "shop"];
        assert!(
            with_file(&database, &file, &show).ok().contains("Canaryname"),
            "{backend}"
        );
        dcams(&database, &show, "").fails(1);
        if backend == Backend::Sqlite {
            let bytes = fs::read(database.path(Database::FILE)).unwrap();
            assert!(!bytes.windows(10).any(|bytes| bytes == b"Canaryname"));
        }
    }
}

#[test]
fn a_key_is_rotated_while_a_gateway_serves() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let file = ring(&database, "keys");
        let path = file.to_str().unwrap();
        dcams(
            &database,
            &["--key-file", path, "account", "create", "shop", "--password-stdin"],
            "secret",
        )
        .ok();
        let customers = database.file("customers.csv", "email\na@example.com\n");
        let import = ["customer", "import", customers.to_str().unwrap(), "--account", "shop"];
        with_file(&database, &file, &import).ok();
        let gateway = Gateway::start(&database, &["--key-file", path]);
        assert_eq!(post_sample(&gateway), 200);

        // The next key, behind the first, in the file that the gateway was started with.
        let next = with_file(&database, &file, &["keys", "generate"]).ok();
        assert!(next.starts_with("2:"), "{next}");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}{next}")).unwrap();
        let said = with_file(&database, &file, &["keys", "rotate"]).ok();
        assert_eq!(said, "all keys are wrapped by master key 2; 1 of them anew\n");
        assert_eq!(
            post_sample(&gateway),
            200,
            "{backend}: a gateway that knew the first key only"
        );
        gateway.stop().ok();

        // The first one is not needed any more.
        fs::write(&file, next).unwrap();
        let show = ["customer", "show", "a@example.com", "--account", "shop"];
        with_file(&database, &file, &show).ok();
    }
}

#[test]
fn whoever_serves_in_clear_text_is_told_so_once() {
    let database = super::shop(Backend::Sqlite);
    let log = Gateway::start(&database, &[]).stop().err;
    assert_eq!(log.matches("stored in clear text").count(), 1, "{log}");
    let keyed = Backend::Sqlite.database().encrypted();
    let log = Gateway::start(&keyed, &[]).stop().err;
    assert!(!log.contains("clear text"), "{log}");
}
