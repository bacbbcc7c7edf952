//! `explain`: the gRPC call that a legacy body becomes, and the error that it gets.

use std::{os::unix::fs::PermissionsExt, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    contract::{
        documented::{JOHN, READ, SAMPLE},
        family::PNG,
    },
    support::{Backend, Gateway, Output, program, run},
};

const SERVICE: &str = "dcams.storage.v1.StorageService";

/// Runs the program without a store, in a folder of its own that must stay as it is.
fn explain(arguments: &[&str], body: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        program().arg("explain").args(arguments).current_dir(folder.path()),
        body,
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    output
}

fn line(body: &str) -> String {
    let output = explain(&["-"], body);
    assert_eq!(output.err, "", "{body}");
    output.ok()
}

#[test]
fn the_sample_is_a_call_of_update_status() {
    assert_eq!(
        line(SAMPLE),
        "grpcurl -plaintext -H \"authorization: Basic $(printf %s USERNAME:\"$DCAMS_PASSWORD\" | base64 | tr -d '\\n')\" \
         -d '{\"email\":\"test@veratad.com\",\"status\":\"STATUS_PASS\"}' 127.0.0.1:50051 \
         dcams.storage.v1.StorageService/UpdateStatus\n"
    );
}

#[test]
fn every_service_is_explained_with_all_that_the_facade_makes_of_it() {
    let create = format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","reference":4711,"target":{{"fn":" Ann ","ln":"O'Brien","addr":"1 \"Elm\" St","city":"東京","state":"$HOME","zip":"02108","dob":19800229,"email":"ann@example.com","phone":"`id`","status":"PASS","documents":{{"front":"{PNG}"}}}}}}"#
    );
    let images = READ.replace("getStatus", "getDocumentImages");
    let flat =
        r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","email":" TEST@veratad.com ","status":"x"}"#;
    for (body, method, message) in [
        (
            SAMPLE,
            "UpdateStatus",
            json!({ "email": "test@veratad.com", "status": "STATUS_PASS" }),
        ),
        (flat, "GetStatus", json!({ "email": "TEST@veratad.com" })),
        (&images, "GetDocumentImages", json!({ "email": "test@veratad.com" })),
        (
            &create,
            "CreateOrUpdateCustomer",
            json!({
                "email": "ann@example.com",
                "first_name": "Ann",
                "last_name": "O'Brien",
                "address": "1 \"Elm\" St",
                "city": "東京",
                "state": "$HOME",
                "zip": "02108",
                "date_of_birth": "19800229",
                "phone": "`id`",
                "reference": "4711",
                "documents": { "front": PNG },
            }),
        ),
    ] {
        let line = line(body);
        assert!(
            !line.contains("PASSWORD\"") || line.contains("$DCAMS_PASSWORD"),
            "{line}"
        );
        let words = words(&line, "secret");
        let sent: Value =
            serde_json::from_str(&words[words.iter().position(|word| word == "-d").unwrap() + 1]).unwrap();
        assert_eq!(sent, message);
        assert_eq!(words.last().unwrap(), &format!("{SERVICE}/{method}"));
        let basic = format!("authorization: Basic {}", BASE64_STANDARD.encode("USERNAME:secret"));
        assert!(words.contains(&basic), "{words:?}");
    }
}

/// The arguments that grpcurl gets when a shell runs the line: something of that name that prints them stands in for it.
fn words(line: &str, password: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let stand_in = folder.path().join("grpcurl");
    std::fs::write(&stand_in, "#!/bin/sh\nprintf '%s\\0' \"$@\"\n").unwrap();
    std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("PATH", path)
        .env("DCAMS_PASSWORD", password);
    let out = run(&mut shell, "").ok();
    out.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn what_a_shell_would_read_something_into_arrives_as_it_is() {
    let user = r#"it's $(id) `id` \"x\" ;&"#;
    let body = SAMPLE.replace("USERNAME", user).replace("test@", "o'brien@");
    let password = "p%s\\n:'\"$x word";
    let words = words(&line(&body), password);
    let user: String = serde_json::from_str(&format!("\"{user}\"")).unwrap();
    let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
    assert!(words.contains(&format!("authorization: Basic {basic}")), "{words:?}");
    assert!(
        words.contains(&r#"{"email":"o'brien@veratad.com","status":"STATUS_PASS"}"#.to_owned()),
        "{words:?}"
    );
}

#[test]
fn the_password_is_nowhere_in_what_is_printed() {
    let body = SAMPLE.replace("PASSWORD", "hunter2-hunter2");
    let encoded = BASE64_STANDARD.encode("USERNAME:hunter2-hunter2");
    let bad = body.replace("test@", "test");
    for body in [&body, &bad] {
        for arguments in [&["-"][..], &["-", "--log", "trace"]] {
            let output = explain(arguments, body);
            for told in [&output.out, &output.err] {
                assert!(!told.contains("hunter2") && !told.contains(&encoded), "{told}");
            }
        }
    }
}

#[test]
fn a_file_is_explained_for_another_address() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body.json");
    std::fs::write(&file, READ).unwrap();
    let file = file.to_str().unwrap();
    let far = explain(&[file, "--grpc-addr", "dcams.example.com:443"], "").ok();
    assert!(far.starts_with("grpcurl -H "), "{far}");
    assert!(far.contains(" dcams.example.com:443 "), "{far}");
    let plain = explain(&[file, "--grpc-addr", "dcams.example.com:80", "--plaintext"], "").ok();
    assert!(plain.starts_with("grpcurl -plaintext -H "), "{plain}");

    let missing = explain(&["nowhere.json"], "").fails(1);
    assert!(missing.contains("nowhere.json"), "{missing}");
}

#[test]
fn a_bad_body_is_answered_with_the_reply_that_a_gateway_gives_it() {
    let database = Backend::Sqlite.database();
    database.create_account("USERNAME", "PASSWORD");
    database.import("USERNAME", JOHN);
    let gateway = Gateway::start(&database, &[]);
    let put = |rest: &str| {
        format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"test@veratad.com"{rest}}}}}"#
        )
    };
    let no_image = BASE64_STANDARD.encode("this is no image");
    for body in [
        "",
        "nonsense",
        "[]",
        "{}",
        &SAMPLE.replace("\"pass\"", "\"user\""),
        &SAMPLE.replace("updateStatus", "deleteStatus"),
        &SAMPLE.replace("USERNAME", "a:b"),
        &SAMPLE.replace("USERNAME", &"x".repeat(129)),
        &SAMPLE.replace("test@veratad.com", ""),
        &SAMPLE.replace("test@veratad.com", "test"),
        &SAMPLE.replace("\"PASS\"", "\"MAYBE\""),
        &SAMPLE.replace("\"PASS\"", "null"),
        &READ.replace("test@veratad.com", "a b@veratad.com"),
        &put(r#","dob":"19800230""#),
        &put(r#","fn":7"#),
        &put(&format!(r#","city":"{}""#, "x".repeat(101))),
        &put(r#","documents":{"front":"?"}"#),
        &put(&format!(r#","documents":{{"back":"{no_image}"}}"#)),
        &READ.replace("getStatus", &format!("getStatus\",\"x\":\"{}", "x".repeat(70_000))),
    ] {
        let output = explain(&["-"], body);
        let reply = gateway.post(body);
        assert_ne!(reply.status, 200);
        assert_eq!(output.code, 1, "{body:.200}");
        assert_eq!(output.err, "error: the request is refused; nothing is called\n");
        let (head, told) = output.out.split_once("\n\n").unwrap();
        assert_eq!(told, format!("{}\n", reply.text()), "{body:.200}");
        let expected: Vec<&str> = reply
            .head
            .lines()
            .filter(|line| !line.is_empty())
            .filter(|line| {
                !["date:", "x-request-id:", "content-length:"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .collect();
        let head: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with("content-length:"))
            .collect();
        assert_eq!(head, expected, "{body:.200}");
    }
}

#[test]
fn large_images_go_into_a_file() {
    let image = BASE64_STANDARD.encode([b"\x89PNG\r\n\x1a\n".to_vec(), vec![7; 300_000]].concat());
    let body = format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"ann@example.com","documents":{{"back":"{image}"}}}}}}"#
    );
    let output = explain(&["-"], &body);
    assert!(
        output
            .out
            .contains(&format!("\"back\":\"<{} characters of Base64>\"", image.len())),
        "{output:?}"
    );
    assert!(output.err.contains("--message"), "{output:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("the message's.json");
    std::fs::write(
        &file,
        "something longer that was there before, for everybody to read".repeat(10_000),
    )
    .unwrap();
    let output = explain(&["-", "--message", file.to_str().unwrap()], &body);
    assert_eq!(output.err, "");
    let line = output.ok();
    assert!(line.contains(" -d @ "), "{line}");
    assert!(line.len() < 1_000, "{line}");
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({ "email": "ann@example.com", "documents": { "back": image } })
    );
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // The redirection is sound: the stand-in for grpcurl leaves its input unread.
    assert_eq!(
        words(&line, "x").last().unwrap(),
        &format!("{SERVICE}/CreateOrUpdateCustomer")
    );
}

#[test]
fn the_line_is_run_by_grpcurl() {
    if Command::new("grpcurl").arg("--version").output().is_err() {
        eprintln!("NOT TESTED: grpcurl is not on this machine; a stand-in has shown what it would be given");
        return;
    }
    for backend in Backend::BOTH {
        let database = backend.database();
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", JOHN);
        let gateway = Gateway::start(&database, &[]);
        let address = gateway.grpc.unwrap().to_string();
        let file = database.path("message.json");
        let call = |body: &str, arguments: &[&str]| {
            let arguments = [&["-", "--grpc-addr", &address], arguments].concat();
            let line = explain(&arguments, body).ok();
            let mut shell = Command::new("sh");
            run(shell.args(["-c", &line]).env("DCAMS_PASSWORD", "PASSWORD"), "").ok()
        };
        let updated = call(SAMPLE, &[]);
        assert!(updated.contains(r#""status": "STATUS_PASS""#), "{backend}: {updated}");
        assert!(gateway.post(READ).text().contains(r#""status":"PASS""#), "{backend}");
        let put = format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"o'brien@example.com","ln":"O'Brien","documents":{{"front":"{PNG}"}}}}}}"#
        );
        let created = call(&put, &["--message", file.to_str().unwrap()]);
        assert!(created.contains(r#""created": true"#), "{backend}: {created}");
        let images = READ
            .replace("getStatus", "getDocumentImages")
            .replace("test@veratad.com", "o'brien@example.com");
        let images = call(&images, &[]);
        assert!(images.contains(PNG), "{backend}: {images}");
    }
}
