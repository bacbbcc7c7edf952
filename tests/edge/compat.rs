//! `compat`: what it reports of deployments that keep the contract, and of some that do not.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use proto::Reason;

use crate::{
    contract::{
        configuration::{Configuration, Deployment},
        documented::{JOHN, READ},
        rows::{self, Expected, Row},
    },
    support::{Backend, Connection, Database, Gateway, Output, Reply, program, run},
};

const EMAIL: &str = "test@veratad.com";

/// Runs the program against a deployment, with the password on standard input.
fn compat(deployment: SocketAddr, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{deployment}");
    let mut command = program();
    command
        .args(["compat", "--url", &url, "--account", "USERNAME", "--password-stdin"])
        .args(arguments)
        .current_dir(folder.path());
    let output = run(&mut command, "PASSWORD\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    output
}

/// The names of the rows with that result.
fn named<'a>(output: &'a Output, result: &str) -> Vec<&'a str> {
    let lines = output.out.lines().filter_map(|line| line.strip_prefix(result));
    let names = lines.filter_map(|line| line.trim_start().split_once(' '));
    names.map(|(_, name)| name.trim()).collect()
}

/// The rows of the table whose replies are those of these reasons.
fn refused_with(reasons: &[Reason]) -> BTreeSet<&'static str> {
    let is_meant = |row: &Row| matches!(row.expected, Expected::Error(reason) if reasons.contains(&reason));
    let rows = rows::tables().into_iter().flatten().filter(is_meant);
    rows.map(|row| row.name).collect()
}

fn prepared(database: Database) -> Database {
    database.create_account("USERNAME", "PASSWORD");
    database.import("USERNAME", JOHN);
    database
}

#[test]
fn a_gateway_keeps_every_row() {
    for configuration in Configuration::ALL {
        let database = prepared(configuration.backend.database());
        let deployment = Deployment::start(
            configuration,
            database,
            &["--customer-link", "https://admin.example.com/customers/{id}"],
        );
        let face = deployment.face().rest;
        let changes = || {
            deployment
                .database
                .session()
                .number("(SELECT count(*) FROM status_changes)")
        };

        // What reads changes nothing.
        for arguments in [&[][..], &["--email", EMAIL]] {
            let before = changes();
            let output = compat(face, arguments);
            assert_eq!(named(&output, "FAIL"), [""; 0], "{configuration}: {}", output.out);
            assert!(named(&output, "pass").len() > 80, "{configuration}: {}", output.out);
            output.ok();
            assert_eq!(changes(), before, "{configuration}");
            let customers = deployment.database.session().number("(SELECT count(*) FROM customers)");
            assert_eq!(customers, 1, "{configuration}");
        }

        // A customer that is there has its status back in the end.
        let set = READ
            .replace("getStatus", "updateStatus")
            .replace("\"}}", "\",\"status\":\"FAIL\"}}");
        assert_eq!(deployment.face().post(set).status, 200);
        let before = changes();
        let output = compat(face, &["--email", EMAIL, "--write"]);
        assert_eq!(named(&output, "FAIL"), [""; 0], "{configuration}: {}", output.out);
        assert_eq!(named(&output, "skip").len(), 1, "{configuration}: {}", output.out);
        output.ok();
        assert!(changes() > before, "{configuration}");
        assert!(
            deployment.face().post(READ).text().contains(r#""status":"FAIL""#),
            "{configuration}"
        );

        // One that is not there is made; then there is nothing to skip.
        let output = compat(face, &["--email", "o'new@example.com", "--write"]);
        assert_eq!(named(&output, "FAIL"), [""; 0], "{configuration}: {}", output.out);
        assert_eq!(named(&output, "skip"), [""; 0], "{configuration}: {}", output.out);
        let customers = deployment.database.session().number("(SELECT count(*) FROM customers)");
        assert_eq!(customers, 2, "{configuration}");
        let out = output.ok();
        let total = out.lines().filter(|line| line.starts_with("pass ")).count();
        assert!(
            out.ends_with(&format!("rows: {total} pass, 0 fail, 0 skipped\n")),
            "{out}"
        );
    }
}

/// A deployment that is a gateway but for what it does to the head and the body of each reply.
fn tampering(gateway: SocketAddr, tamper: impl Fn(&str, Reply) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tamper = Arc::new(tamper);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, tamper) = (stream.unwrap(), Arc::clone(&tamper));
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut request = Vec::new();
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if let Some((name, value)) = line.split_once(':')
                        && name.eq_ignore_ascii_case("content-length")
                    {
                        length = value.trim().parse().unwrap();
                    }
                    request.extend(line.as_bytes());
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                request.extend(&body);
                let reply = Connection::open(gateway).exchange(&request);
                let sent = tamper(&String::from_utf8_lossy(&body), reply);
                // One request a connection.
                let _ = stream.get_mut().write_all(&sent);
            });
        }
    });
    address
}

/// A reply as bytes, on a connection that is closed behind it.
fn bytes(head: &str, body: &str) -> Vec<u8> {
    let mut lines = head.trim_end().lines();
    let mut sent = format!("{}\r\n", lines.next().unwrap());
    for line in lines.filter(|line| !line.starts_with("content-length") && !line.starts_with("connection")) {
        sent.push_str(&format!("{line}\r\n"));
    }
    sent.push_str(&format!(
        "content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ));
    sent.into()
}

fn wrong(tamper: impl Fn(&str, Reply) -> Vec<u8> + Send + Sync + 'static) -> Output {
    let database = prepared(Backend::Sqlite.database());
    let gateway = Gateway::start(&database, &[]);
    compat(tampering(gateway.rest, tamper), &["--email", EMAIL, "--write"])
}

#[track_caller]
fn fails_with(output: &Output, rows: &BTreeSet<&str>) {
    let failed: BTreeSet<&str> = named(output, "FAIL").into_iter().collect();
    assert_eq!(&failed, rows, "{}", output.out);
    assert_eq!(output.code, 1);
    let passed = named(output, "pass").len();
    let line = format!(
        "error: {} of {} rows are answered otherwise than documented\n",
        rows.len(),
        rows.len() + passed
    );
    assert_eq!(output.err, line);
}

#[test]
fn a_wrong_message_fails_the_rows_that_get_it_and_no_other() {
    let output = wrong(|_, reply| bytes(&reply.head, &reply.text().replace("is incorrect", "is wrong")));
    fails_with(&output, &refused_with(&[Reason::BadCredentials]));
    let expected = "FAIL    vendor   401: the password is wrong\n          body: differs from byte 65 on\n            \
                    expected  …e\":\"Either your username or password is incorrect\"}\n            got       …e\":\"Either your \
                    username or password is wrong\"}\n";
    assert!(output.out.contains(expected), "{}", output.out);
}

#[test]
fn a_wrong_status_fails_the_rows_that_get_it_and_no_other() {
    let output = wrong(|_, reply| bytes(&reply.head.replace("404 Not Found", "400 Bad Request"), reply.text()));
    fails_with(&output, &refused_with(&[Reason::CustomerNotFound, Reason::UnknownPath]));
    assert!(output.out.contains("status: differs from byte 2 on"), "{}", output.out);
}

#[test]
fn keys_in_another_order_fail_the_rows_that_have_them() {
    let output = wrong(|body, reply| {
        let text = reply.text();
        match body.contains(r#""service":"getDocumentImages""#) && reply.status == 200 {
            true => bytes(
                &reply.head,
                &text
                    .replace(r#""result":"Success","#, "")
                    .replace("}}}", r#"}},"result":"Success"}"#),
            ),
            false => bytes(&reply.head, text),
        }
    });
    let images = rows::family()
        .into_iter()
        .filter(|row| row.expected == Expected::Images);
    fails_with(&output, &images.map(|row| row.name).collect());
}

#[test]
fn a_header_that_lacks_everywhere_is_a_row_of_its_own() {
    let output = wrong(|_, reply| {
        let head: String = reply
            .head
            .lines()
            .filter(|line| !line.starts_with("x-request-id") && !line.starts_with("cache-control"))
            .map(|line| format!("{line}\n"))
            .collect();
        bytes(&head, reply.text())
    });
    let failed = named(&output, "FAIL");
    assert_eq!(failed.len(), 2, "{}", output.out);
    assert!(failed[0].starts_with("every reply has X-Request-Id"), "{failed:?}");
    assert!(
        failed[1].starts_with("every reply has Cache-Control: no-store"),
        "{failed:?}"
    );
}

#[test]
fn a_deployment_that_writes_on_a_read_is_found_and_one_that_does_not_answer_too() {
    // `getStatus` with a status sets it, as a hasty reading of the documentation has it.
    let database = prepared(Backend::Sqlite.database());
    let gateway = Gateway::start(&database, &[]);
    let face = gateway.rest;
    let address = tampering(face, move |body, reply| {
        if body.contains("getStatus") && body.contains("FAIL") && reply.status == 200 {
            let set = body.replace("getStatus", "updateStatus");
            assert_eq!(Connection::open(face).post(set).status, 200);
            let read = Connection::open(face).post(READ);
            return bytes(&read.head, read.text());
        }
        match body.contains("deleteStatus") && reply.status == 400 {
            true => Vec::new(),
            false => bytes(&reply.head, reply.text()),
        }
    });
    let output = compat(address, &["--email", EMAIL, "--write"]);
    let failed = named(&output, "FAIL");
    assert!(
        failed.contains(&"getStatus with a status in target changes nothing"),
        "{}",
        output.out
    );
    assert!(failed.contains(&"the status is what it was"), "{}", output.out);
    assert!(failed.contains(&"another service"), "{}", output.out);
    assert!(output.out.contains("reply: differs from byte 0 on"), "{}", output.out);
    assert_eq!(output.code, 1);
}

#[test]
fn a_password_that_comes_back_is_not_printed() {
    let output = wrong(|body, reply| bytes(&reply.head, &format!("{}{body}", reply.text())));
    assert_eq!(output.code, 1);
    assert!(output.out.contains("********"), "{}", output.out);
    for told in [&output.out, &output.err] {
        assert!(!told.contains("PASSWORD"), "{told}");
    }
}

#[test]
fn what_stands_in_the_way_of_a_run_is_said_in_one_line() {
    let database = prepared(Backend::Sqlite.database());
    let gateway = Gateway::start(&database, &[]);
    let nobody = compat(gateway.rest, &["--email", "nobody@example.com"]).fails(1);
    assert!(nobody.contains("--write"), "{nobody}");

    let url = format!("http://{}", gateway.rest);
    let started = |arguments: &[&str], input: &str| {
        let arguments = [&["compat", "--account", "USERNAME"], arguments].concat();
        run(program().args(arguments), input)
    };
    let refused = started(&["--url", &url, "--password-stdin"], "wrong\n").fails(1);
    assert!(refused.contains("refuses the password of USERNAME"), "{refused}");
    let missing = started(&["--url", &url], "").fails(1);
    assert!(missing.contains("DCAMS_PASSWORD"), "{missing}");
    let secret = started(&["--url", "http://a:secret@127.0.0.1:1/"], "").fails(1);
    assert!(!secret.contains("secret"), "{secret}");

    // An address that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = started(&["--url", &format!("http://{free}"), "--password-stdin"], "PASSWORD").fails(1);
    assert!(gone.contains("does not answer"), "{gone}");
    for arguments in [&["--url", "nonsense"][..], &["--url", &url, "--write"]] {
        started(arguments, "").fails(2);
    }
}

#[test]
fn the_password_may_come_from_the_environment_and_the_url_may_name_the_endpoint() {
    let database = prepared(Backend::Sqlite.database());
    let gateway = Gateway::start(&database, &[]);
    let url = format!("http://{}/v3/stable/api/storage", gateway.rest);
    let mut command = program();
    command
        .args(["compat", "--url", &url, "--account", "USERNAME", "--email", EMAIL])
        .env("DCAMS_PASSWORD", "PASSWORD");
    run(&mut command, "").ok();
}
