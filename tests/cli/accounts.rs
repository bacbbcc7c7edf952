//! `account`: who may sign in.

use std::path::Path;

use diesel::{QueryableByName, sql_types::Text};

use super::{shop, takes};
use crate::support::{Backend, Database, Gateway, dcams, program, run};

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = Text)]
    password_hash: String,
}

fn stored_hash(database: &Database) -> String {
    let mut rows: Vec<Stored> = database.session().rows("SELECT password_hash FROM accounts");
    assert_eq!(rows.len(), 1);
    rows.remove(0).password_hash
}

/// The password in what a command printed.
fn shown_password(out: &str) -> &str {
    let shown: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("password: ")).collect();
    assert_eq!(shown.len(), 1, "{out}");
    shown[0]
}

#[test]
fn a_made_up_password_is_shown_once_and_signs_in() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let out = dcams(&database, &["account", "create", "shop"], "").ok();
        let password = shown_password(&out);
        assert_eq!(out, format!("account shop created\npassword: {password}\n"));

        assert!(stored_hash(&database).starts_with("$argon2id$"));
        assert!(!stored_hash(&database).contains(password));
        let list = dcams(&database, &["account", "list"], "").ok();
        assert!(!list.contains(password), "{list}");
        let gateway = Gateway::start(&database, &[]);
        assert!(takes(&gateway, "shop", password));
        assert!(!takes(&gateway, "shop", "another"));
    }
}

#[test]
fn a_password_on_standard_input_is_its_first_line_without_the_line_end() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let longest = "p".repeat(1_024);
        let cases = [
            ("bare", "pass word", "pass word"),
            ("unix", "pass word\n", "pass word"),
            ("windows", "pass word\r\n", "pass word"),
            ("lines", "first\nsecond\n", "first"),
            ("spaces", " päss \n", " päss "),
            ("longest", &format!("{longest}\r\n"), &longest),
        ];
        for (name, input, _) in cases {
            let out = dcams(&database, &["account", "create", name, "--password-stdin"], input).ok();
            assert_eq!(out, format!("account {name} created\n"));
        }
        let gateway = Gateway::start(&database, &[]);
        for (name, _, password) in cases {
            assert!(takes(&gateway, name, password), "{name}");
        }
        assert!(!takes(&gateway, "windows", "pass word\r"));
    }
}

#[test]
fn a_password_that_no_face_would_take_is_refused() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for input in [
            "",
            "\n",
            "\r\n",
            &"p".repeat(1_025),
            &format!("{}\n", "p".repeat(1_025)),
        ] {
            for command in ["create", "set-password"] {
                let name = if command == "create" { "new" } else { "shop" };
                let line = dcams(&database, &["account", command, name, "--password-stdin"], input).fails(1);
                assert_eq!(line, "a password has 1 to 1024 bytes");
            }
        }
        let list = dcams(&database, &["account", "list"], "").ok();
        assert_eq!(list.lines().count(), 1, "{list}");
        assert!(takes(&Gateway::start(&database, &[]), "shop", "secret"));
    }
}

#[test]
fn an_account_that_exists_is_left_as_it_is() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for arguments in [&["--password-stdin"][..], &[]] {
            let create = [&["account", "create", "shop"], arguments].concat();
            assert_eq!(
                dcams(&database, &create, "other").fails(1),
                "shop: the account exists already"
            );
        }
        let gateway = Gateway::start(&database, &[]);
        assert!(takes(&gateway, "shop", "secret"));
        assert!(!takes(&gateway, "shop", "other"));
    }
}

#[test]
fn a_name_that_cannot_stand_in_credentials_is_refused() {
    for backend in Backend::BOTH {
        let database = backend.database();
        for name in ["", "a:b", " a", "a\t", "a\nb", &"n".repeat(129)] {
            let line = dcams(&database, &["account", "create", name], "").err;
            assert!(line.contains("1 to 128 bytes, no ':'"), "{name:?}: {line}");
        }
        assert_eq!(dcams(&database, &["account", "create", "a:b"], "").code, 2);
        let longest = "n".repeat(128);
        dcams(&database, &["account", "create", &longest], "").ok();
        let list = dcams(&database, &["account", "list"], "").ok();
        assert_eq!(list.split_whitespace().next(), Some(&*longest));
        assert_eq!(list.lines().count(), 1);
    }
}

#[test]
fn accounts_are_listed_by_name_with_their_state() {
    for backend in Backend::BOTH {
        let database = backend.database();
        assert_eq!(dcams(&database, &["account", "list"], "").ok(), "");
        for name in ["zoo", "Ärzte", "market"] {
            dcams(&database, &["account", "create", name], "").ok();
        }
        dcams(&database, &["account", "disable", "market"], "").ok();

        let list = dcams(&database, &["account", "list"], "").ok();
        let lines: Vec<_> = list.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
        for (_, created) in &lines {
            let created: jiff::Timestamp = created.parse().unwrap();
            assert!(jiff::Timestamp::now().duration_since(created).as_secs() < 600);
        }
        let lines: Vec<_> = lines.iter().map(|(line, _)| *line).collect();
        assert_eq!(
            lines,
            [
                "market                           disabled created",
                "zoo                              enabled  created",
                "Ärzte                            enabled  created",
            ]
        );
    }
}

#[test]
fn a_disabled_account_is_refused_until_it_is_enabled() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let gateway = Gateway::start(&database, &[]);
        assert!(takes(&gateway, "shop", "secret"));
        // Twice: it is so already.
        for _ in 0..2 {
            let out = dcams(&database, &["account", "disable", "shop"], "").ok();
            assert_eq!(out, "account shop is disabled\n");
            assert!(!takes(&gateway, "shop", "secret"));
        }
        for _ in 0..2 {
            let out = dcams(&database, &["account", "enable", "shop"], "").ok();
            assert_eq!(out, "account shop is enabled\n");
            assert!(takes(&gateway, "shop", "secret"));
        }
    }
}

#[test]
fn a_new_password_replaces_the_old_one() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let gateway = Gateway::start(&database, &[]);
        assert!(takes(&gateway, "shop", "secret"));

        let out = dcams(
            &database,
            &["account", "set-password", "shop", "--password-stdin"],
            "given\r\n",
        )
        .ok();
        assert_eq!(out, "the password of account shop is changed\n");
        assert!(takes(&gateway, "shop", "given"));
        assert!(!takes(&gateway, "shop", "secret"));

        let out = dcams(&database, &["account", "set-password", "shop"], "").ok();
        let password = shown_password(&out);
        assert_eq!(
            out,
            format!("the password of account shop is changed\npassword: {password}\n")
        );
        assert!(takes(&gateway, "shop", password));
        assert!(!takes(&gateway, "shop", "given"));
    }
}

#[test]
fn an_unknown_account_is_said_to_be_unknown() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for command in ["disable", "enable", "set-password"] {
            let line = dcams(&database, &["account", command, "nobody"], "").fails(1);
            assert_eq!(line, "nobody: no such account");
        }
        assert_eq!(dcams(&database, &["account", "list"], "").ok().lines().count(), 1);
    }
}

#[test]
fn without_a_store_on_the_command_line_the_file_is_made_in_the_current_folder_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let command = |arguments: &[&str]| run(program().args(arguments).current_dir(folder.path()), "");
    command(&["account", "create", "shop"]).ok();
    let file = folder.path().join("dcams.db");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(command(&["account", "list"]).ok().starts_with("shop "));
}

#[test]
fn the_environment_names_the_store_and_a_flag_wins_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let url = |path: &Path| format!("sqlite://{}", path.display());
    let (one, other) = (path("one.db"), path("other.db"));
    let create = |arguments: &[&str]| {
        let mut command = program();
        command.env("DCAMS_STORE", url(&one)).args(arguments);
        run(command.current_dir(folder.path()), "").ok()
    };
    create(&["account", "create", "here"]);
    assert!(one.exists() && !path("dcams.db").exists());

    // A global flag is taken before and after the command.
    create(&["--store", &url(&other), "account", "create", "there"]);
    assert!(create(&["account", "list", "--store", &url(&other)]).starts_with("there "));
    assert!(create(&["account", "list"]).starts_with("here "));
}
