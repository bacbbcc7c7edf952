//! What goes wrong outside of the program is said in one line, without secrets, and ends it with 1.

use std::net::TcpListener;

use crate::support::{Backend, Output, program, run};

fn list(store: &str) -> Output {
    run(program().args(["account", "list", "--store", store]), "")
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_server_that_cannot_be_reached_is_one_line() {
    let port = closed_port();
    let line = list(&format!("postgres://user@127.0.0.1:{port}/data")).fails(1);
    assert!(
        line.starts_with(&format!("the store postgres://127.0.0.1:{port}/data: ")),
        "{line}"
    );
    assert!(line.contains("Connection refused"), "{line}");

    // Nor does a gateway start.
    let mut serve = program();
    serve.args(["serve", "--store", &format!("postgres://user@127.0.0.1:{port}/data")]);
    for listener in ["--rest-addr", "--grpc-addr", "--ops-addr"] {
        serve.args([listener, "127.0.0.1:0"]);
    }
    let line = run(&mut serve, "").fails(1);
    assert!(line.contains("Connection refused"), "{line}");
}

#[test]
fn a_host_and_a_database_that_are_not_there_are_named() {
    let line = list("postgres://user@nowhere.invalid/data").fails(1);
    assert!(line.contains("nowhere.invalid"), "{line}");

    let database = Backend::Postgres.database();
    let server = database.url.rsplit_once('/').unwrap().0;
    let line = list(&format!("{server}/nowhere")).fails(1);
    assert!(line.contains(r#"database "nowhere" does not exist"#), "{line}");
}

#[test]
fn a_file_that_cannot_be_made_or_is_no_database_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/dcams.db");
    let line = list(&format!("sqlite://{}", path.display())).fails(1);
    assert!(line.contains("No such file or directory"), "{line}");

    let path = folder.path().join("letter.db");
    let content = "Dear database, ".repeat(1_000);
    std::fs::write(&path, &content).unwrap();
    let line = list(&format!("sqlite://{}", path.display())).fails(1);
    assert!(line.ends_with("file is not a database"), "{line}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);

    let line = list(&format!("sqlite://{}", folder.path().display())).fails(1);
    assert!(line.contains("unable to open database file"), "{line}");
}

#[test]
fn a_password_in_a_url_is_never_printed() {
    let port = closed_port();
    let server = Backend::Postgres.database();
    let there = server.url.strip_prefix("postgres://postgres@").unwrap();
    let (place, _) = there.split_once('/').unwrap();
    for url in [
        // Nobody there; no such user; no such database.
        format!("postgres://user:canary@127.0.0.1:{port}/data"),
        format!("postgres://127.0.0.1:{port}/data?user=user&password=canary"),
        format!("postgres://127.0.0.1:{port}/data?password=x@canary"),
        format!("postgres://user:canary@{there}"),
        format!("postgres://postgres:canary@{place}/nowhere"),
        format!("postgres://postgres@{place}/nowhere?password=canary"),
        // A password that would have had to be written in another way.
        format!("postgres://user:x@canary@127.0.0.1:{port}/data"),
        format!("postgres://user:x/canary@127.0.0.1:{port}/data"),
        format!("postgres://user:canary/x@127.0.0.1:{port}/data"),
        format!("postgres://user:x?canary@127.0.0.1:{port}/data"),
        format!("postgres://user:canary?x@127.0.0.1:{port}/data"),
        format!("postgres://user:x#canary@127.0.0.1:{port}/data"),
        format!("postgres://user:%canary@127.0.0.1:{port}/data"),
        "postgres://user:canary@[::1/data".to_owned(),
        format!("postgres://127.0.0.1:{port}/data?canary"),
        format!("postgres://127.0.0.1:{port}/data?password=can=canary"),
        // A URL that is wrong, or stands where none belongs.
        format!("postgers://user:canary@127.0.0.1:{port}/data"),
        format!("//user:canary@127.0.0.1:{port}/data"),
    ] {
        let commands: [&[&str]; 4] = [
            &["account", "list", "--store", &url],
            &["migrate", "--check", "--store", &url],
            &["account", "list", &url],
            &["serve", "--log", "trace", "--store", &url],
        ];
        for arguments in commands {
            let mut command = program();
            command.args(arguments);
            for listener in ["REST", "GRPC", "OPS"] {
                command.env(format!("DCAMS_{listener}_ADDR"), "127.0.0.1:0");
            }
            let output = run(&mut command, "");
            assert_ne!(output.code, 0, "{arguments:?}");
            assert!(!format!("{output:?}").contains("canary"), "{arguments:?}: {output:?}");
            assert_eq!(output.err.lines().count(), 1, "{arguments:?}: {output:?}");
        }
        let output = run(program().args(["account", "list"]).env("DCAMS_STORE", &url), "");
        assert!(!format!("{output:?}").contains("canary"), "{url}: {output:?}");
        let help = run(program().arg("--help").env("DCAMS_STORE", &url), "").ok();
        assert!(!help.contains("canary"), "{help}");
    }
}

#[test]
fn a_reader_that_goes_away_has_enough() {
    let unread = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = program();
        command.args(arguments).stdout(writer);
        let output = command.stderr(std::process::Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [
        &["completions", "bash"][..],
        &["config", "show"],
        &["openapi"],
        &["man"],
    ] {
        assert_eq!(unread(arguments), (Some(0), String::new()), "{arguments:?}");
    }
    // A gateway that cannot tell where it serves does not.
    let database = Backend::Sqlite.database();
    let (code, said) = unread(&[
        "serve",
        "--store",
        &database.url,
        "--rest-addr",
        "127.0.0.1:0",
        "--grpc-addr",
        "127.0.0.1:0",
        "--ops-addr",
        "127.0.0.1:0",
    ]);
    assert_eq!((code, said.contains("standard output")), (Some(1), true), "{said}");
}
