//! Swagger UI as a person uses it: in a browser, from `/docs`, with the sample of the seed document.

use serde_json::Value;

use crate::{
    contract::documented::{JOHN, READ, SAMPLE},
    support::{Backend, Browser, Connection, Database, Gateway, Reply},
};

/// The reply to the sample, as the seed document shows it.
const EXPECTED: &str = r#"{"result":"Success","reference":"888888812","target":{"fn":"John","ln":"Smith","addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"test@veratad.com","phone":"2015106000","status":"PASS"}}"#;

fn served(backend: Backend, arguments: &[&str]) -> (Database, Gateway) {
    let database = backend.database();
    database.create_account("USERNAME", "PASSWORD");
    database.import("USERNAME", JOHN);
    let gateway = Gateway::start(&database, arguments);
    (database, gateway)
}

/// Posts to the JSON endpoint on the ops listener.
fn post(gateway: &Gateway, body: &str) -> Reply {
    Connection::open(gateway.ops).post(body)
}

#[test]
fn the_sample_is_sent_from_swagger_ui_and_its_reply_is_shown() {
    for backend in Backend::BOTH {
        let (_database, gateway) = served(backend, &[]);
        let mut browser = Browser::start();
        browser.open(gateway.ops, "/docs");

        browser.click(".opblock-post .try-out__btn");
        browser.fill(".opblock-post textarea.body-param__text", SAMPLE);
        browser.click(".opblock-post button.execute");

        let status = browser.text(".live-responses-table tbody .response-col_status");
        assert!(status.trim_start().starts_with("200"), "{backend}: {status}");
        let shown = browser.text(".live-responses-table tbody .highlight-code pre");
        let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{backend}: {error}: {shown}"));
        assert_eq!(shown.to_string(), EXPECTED, "{backend}");
        // It was no show: the store has it.
        assert!(gateway.post(READ).text().contains(r#""status":"PASS""#), "{backend}");

        // All came from the listener, and the browser had nothing against it.
        let here = format!("http://{}/", gateway.ops);
        let requested = browser.requested();
        let sent = format!("{here}v3/stable/api/storage");
        assert!(requested.contains(&sent), "{backend}: {requested:?}");
        for url in requested {
            assert!(url.starts_with(&here) || url.starts_with("data:"), "{backend}: {url}");
        }
        assert_eq!(browser.complaints(), [""; 0], "{backend}");
    }
}

#[test]
fn an_error_is_shown_in_swagger_ui_with_its_reason() {
    let (_database, gateway) = served(Backend::Sqlite, &[]);
    let mut browser = Browser::start();
    browser.open(gateway.ops, "/docs");
    browser.click(".opblock-post .try-out__btn");
    browser.fill(
        ".opblock-post textarea.body-param__text",
        &SAMPLE.replace("PASSWORD", "wrong"),
    );
    browser.click(".opblock-post button.execute");
    let status = browser.text(".live-responses-table tbody .response-col_status");
    assert!(status.trim_start().starts_with("401"), "{status}");
    let shown = browser.text(".live-responses-table tbody");
    assert!(
        shown.contains("Either your username or password is incorrect"),
        "{shown}"
    );
    assert!(shown.contains("x-error-reason: BAD_CREDENTIALS"), "{shown}");
}

#[test]
fn the_endpoint_beside_the_pages_is_the_one_of_the_json_listener() {
    for backend in Backend::BOTH {
        let (_database, gateway) = served(backend, &[]);
        for body in [SAMPLE, READ, "{}", "nonsense", &SAMPLE.replace("PASSWORD", "wrong")] {
            let (here, there) = (post(&gateway, body), gateway.post(body));
            assert_eq!(
                (here.status, here.body),
                (there.status, there.body),
                "{backend}: {body}"
            );
        }
        // What is counted against an address is counted once, whichever listener it came by.
        for attempt in 0..10 {
            let guess = SAMPLE.replace("PASSWORD", &format!("guess-{attempt}"));
            let reply = if attempt % 2 == 0 {
                post(&gateway, &guess)
            } else {
                gateway.post(&guess)
            };
            assert!([401, 429].contains(&reply.status), "{backend}: {}", reply.status);
        }
        let reply = post(&gateway, &SAMPLE.replace("PASSWORD", "another guess"));
        assert_eq!(reply.status, 429, "{backend}");

        let unknown = gateway.get("/nowhere");
        assert_eq!((unknown.status, unknown.text()), (404, ""), "{backend}");
        assert_eq!(gateway.get("/v3/stable/api/storage").status, 405, "{backend}");
    }
}

#[test]
fn without_sending_the_ops_listener_has_the_documents_alone() {
    let (_database, gateway) = served(Backend::Sqlite, &["--docs-send", "false"]);
    assert_eq!(post(&gateway, SAMPLE).status, 404);
    let document: Value = serde_json::from_str(gateway.get("/openapi.json").text()).unwrap();
    let servers = document["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0]["url"], format!("http://{}", gateway.rest));

    let mut browser = Browser::start();
    browser.open(gateway.ops, "/docs");
    browser.text(".opblock-post .opblock-body");
    let buttons = browser.evaluate("document.querySelectorAll('.try-out__btn, button.execute').length");
    assert_eq!(buttons, 0);
}

#[test]
fn a_page_is_packed_for_those_who_take_it_and_plain_for_the_others() {
    let (_database, gateway) = served(Backend::Sqlite, &[]);
    let get = |name: &str, encodings: &str| {
        let request = format!("GET /docs/{name} HTTP/1.1\r\nHost: ops\r\n{encodings}\r\n");
        Connection::open(gateway.ops).exchange(request.as_bytes())
    };
    for name in ["", "swagger-ui.css", "swagger-ui-bundle.js"] {
        let plain = get(name, "");
        assert_eq!(plain.status, 200, "{name}");
        assert_eq!(plain.header("content-encoding"), None, "{name}");
        assert!(std::str::from_utf8(&plain.body).is_ok(), "{name}");

        let packed = get(name, "Accept-Encoding: gzip, deflate, br\r\n");
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{name}");
        assert!(packed.body.len() < plain.body.len(), "{name}");
        for reply in [&plain, &packed] {
            assert_eq!(reply.header("vary"), Some("accept-encoding"), "{name}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{name}");
            let policy = reply.header("content-security-policy").unwrap();
            for rule in ["default-src 'self';", "frame-ancestors 'none'"] {
                assert!(policy.contains(rule), "{name}: {policy}");
            }
        }
    }
}
