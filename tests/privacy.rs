//! Personal data and passwords stay out of logs, metrics, traces and errors.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    grpc::client::{Client, Metadata, basic},
    support::{Backend, Connection, Database, Gateway, Ground, Reply, collector::Collector, dcams, eventually, post},
};

/// What a customer is told by; each stands nowhere else.
const CUSTOMER: [(&str, &str); 10] = [
    ("email", "canary-email@canary-domain.example"),
    ("reference", "canary-reference"),
    ("fn", "canary-given"),
    ("ln", "canary-family"),
    ("addr", "canary-street 1"),
    ("city", "canary-city"),
    ("state", "canary-state"),
    ("zip", "canary-zip"),
    ("dob", "19130607"),
    ("phone", "canary-phone"),
];

const EMAIL: &str = CUSTOMER[0].1;
const PASSWORD: &str = "canary-password";

/// The mark of every canary but the date of birth, also of those that only requests bring along.
const MARK: &str = "canary";

/// Everything that was said where personal data must not be.
#[derive(Default)]
struct Heard {
    said: Vec<(String, String)>,
    /// What was made up on the way, and is a secret as well.
    secrets: Vec<String>,
}

impl Heard {
    fn note(&mut self, place: &str, text: impl AsRef<[u8]>) {
        let text = String::from_utf8_lossy(text.as_ref()).into_owned();
        self.said.push((place.to_owned(), text));
    }

    /// An answer that is an error: all of it must be clean.
    fn note_error(&mut self, request: &str, reply: &Reply) {
        assert!(reply.status >= 400, "{request}: {}", reply.head);
        self.note(
            request,
            format!("{}{}", reply.head, String::from_utf8_lossy(&reply.body)),
        );
    }

    fn check(&self) {
        let credentials = basic(&format!("USERNAME:{PASSWORD}"));
        let encoded = credentials.strip_prefix("Basic ").unwrap();
        let born = CUSTOMER[8].1;
        let known = [MARK, born, encoded, &*BASE64_STANDARD.encode(MARK)];
        let made_up = self.secrets.iter().map(String::as_str);
        let secrets: Vec<_> = known.into_iter().chain(made_up).collect();
        for (place, text) in &self.said {
            let lower = text.to_lowercase();
            for secret in &secrets {
                assert!(!lower.contains(&secret.to_lowercase()), "{secret} in {place}: {text}");
            }
        }
    }
}

fn prepare(database: &Database) {
    database.create_account("USERNAME", PASSWORD);
    let columns = CUSTOMER.map(|(name, _)| name).join(",");
    let values = CUSTOMER.map(|(_, value)| value).join(",");
    database.import("USERNAME", &format!("{columns}\n{values}\n"));
}

fn sample(id: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"user":"USERNAME","pass":"{PASSWORD}","service":"updateStatus","target":{{"email":"{EMAIL}","status":"PASS"}}}}"#
    );
    let head = format!("Host: dcams\r\nX-Request-Id: {id}");
    String::from_utf8(post(body.as_bytes()))
        .unwrap()
        .replace("Host: dcams", &head)
        .into()
}

/// Requests that are refused, each with canaries where a client may put them.
fn refused() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"user":"USERNAME","pass":"canary-wrong","service":"getStatus","target":{"email":"canary-email@canary-domain.example"}}"#,
        r#"{"user":"canary-user","pass":"canary-password","service":"getStatus","target":{"email":"canary-email@canary-domain.example"}}"#,
        r#"{"user":{"canary":1},"pass":"canary-password","service":"getStatus"}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"canary-service"}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"getStatus","target":"canary-target"}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"getStatus","target":{"email":"canary is no address"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"getStatus","target":{"email":"canary-nobody@canary-domain.example"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"updateStatus","target":{"email":"canary-email@canary-domain.example","status":"canary-status"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"updateStatus","target":{"email":"canary-email@canary-domain.example","ssn":"canary-ssn"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"getStatus","canary-key":1,"canary-key":2}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"createOrUpdateCustomer","target":{"email":"canary is no address","fn":"canary"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"createOrUpdateCustomer","target":{"email":"canary-email@canary-domain.example","dob":"canary"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"createOrUpdateCustomer","target":{"email":"canary-email@canary-domain.example","ln":["canary"]}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"createOrUpdateCustomer","target":{"email":"canary-email@canary-domain.example","documents":{"front":"canary?"}}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"createOrUpdateCustomer","target":{"email":"canary-email@canary-domain.example","documents":{"back":"Y2FuYXJ5"}}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"getDocumentImages","target":{"email":"canary-nobody@canary-domain.example"}}"#,
        r#"{"user":"USERNAME","pass":"canary-password","service":"getSta"#,
        "user=USERNAME&pass=canary-password&email=canary-email@canary-domain.example",
    ];
    let mut requests: Vec<_> = bodies.iter().map(|body| post(body.as_bytes())).collect();
    requests.push(post(b"{\"user\":\"canary-\xff\"}"));
    requests.push(post("canary ".repeat(10_000).as_bytes()));
    for head in [
        "GET /canary-path?email=canary-email@canary-domain.example HTTP/1.1\r\nHost: canary-host",
        "GET /v3/stable/api/storage?pass=canary-password HTTP/1.1\r\nHost: dcams\r\nCookie: canary-cookie",
        "CANARY /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nAuthorization: Basic canary",
        "POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nContent-Encoding: canary\r\nContent-Length: 0",
        "POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nX-Request-Id: canary@id\r\nContent-Length: 0",
        "POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nX-Forwarded-For: canary-address\r\nContent-Length: 0",
        "canary-nonsense",
        "POST /v3/stable/api/storage HTTP/1.1\r\ncanary-header",
    ] {
        requests.push(format!("{head}\r\n\r\n").into());
    }
    requests
}

/// The sample with canaries in the headers that make the terms of a change.
fn on_terms() -> [Vec<u8>; 3] {
    [
        "If-Match: canary",
        "If-Match: \"canary\"",
        "Idempotency-Key: canary key",
    ]
    .map(|header| {
        let request = String::from_utf8(sample("privacy-terms")).unwrap();
        request.replacen("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"), 1).into()
    })
}

/// Sends what is refused over the REST face, and what is served.
fn over_rest(gateway: &Gateway, heard: &mut Heard) {
    let served = Connection::open(gateway.rest).exchange(&sample("privacy-served"));
    // The canaries are real: a customer's own reply has them all.
    for (name, canary) in CUSTOMER {
        assert!(served.text().contains(canary), "{name}");
    }
    heard.note("the head of a success", &served.head);
    // And an image is one: it goes in, and comes back.
    let image = BASE64_STANDARD.encode(format!("%PDF-x{MARK}"));
    let ask = |service: &str, rest: &str| {
        let body = format!(
            r#"{{"user":"USERNAME","pass":"{PASSWORD}","service":"{service}","target":{{"email":"{EMAIL}"{rest}}}}}"#
        );
        Connection::open(gateway.rest).exchange(&post(body.as_bytes()))
    };
    let put = ask(
        "createOrUpdateCustomer",
        &format!(r#","documents":{{"front":"{image}"}}"#),
    );
    let images = ask("getDocumentImages", "");
    assert!(images.text().contains(&image), "{}", images.text());
    for served in [put, images] {
        assert_eq!(served.status, 200);
        heard.note("the head of a success", served.head);
    }
    for request in refused().into_iter().chain(on_terms()) {
        let shown = String::from_utf8_lossy(&request).chars().take(200).collect::<String>();
        heard.note_error(&shown, &Connection::open(gateway.rest).exchange(&request));
    }
}

fn over_grpc(client: &Client, heard: &mut Heard) {
    let status = |email: &str, metadata: Metadata| {
        let fields = [("email", email), ("status", "STATUS_PASS")];
        client.call("UpdateStatus", &fields, metadata)
    };
    let good = || Metadata::of(&format!("USERNAME:{PASSWORD}"));
    assert_eq!(status(EMAIL, good()).unwrap().customer("last_name"), CUSTOMER[3].1);
    let terms = |more: &[(&str, &str)]| {
        let fields = [&[("email", EMAIL), ("status", "STATUS_PENDING")], more].concat();
        client.call("UpdateStatus", &fields, good())
    };
    let because = ("reason", "canary-reason");
    terms(&[because]).unwrap();
    for refused in [
        terms(&[("reason", "canary\u{7}")]),
        terms(&[because, ("etag", "canary-etag")]),
        terms(&[because, ("idempotency_key", "canary key")]),
        status(EMAIL, Metadata::of("USERNAME:canary-wrong")),
        status(EMAIL, Metadata::of("canary-user:canary-password")),
        status(EMAIL, Metadata::default().with("authorization", "canary-authorization")),
        status(EMAIL, Metadata::default().with("x-request-id", "canary@id")),
        status("canary is no address", good()),
        status("canary-nobody@canary-domain.example", good()),
        status(&"canary".repeat(20_000), good()),
        client.call_with("UpdateStatus", b"\x0a\x7fcanary".to_vec(), good()),
        client.call_with("UpdateStatus", b"\x0a\x07canary\xff".to_vec(), good()),
    ] {
        let status = refused.unwrap_err();
        heard.note("a gRPC status", format!("{status:?}"));
        heard.note("the details of a gRPC status", status.details());
    }
}

/// Makes a token, uses it, and has it refused in every way. Gives the secret of one that was good.
fn with_tokens(database: &Database, client: &Client, heard: &mut Heard) -> String {
    let logged = ["--log", "trace"];
    let mut token = |scope: &str| {
        let create = [
            "account", "token", "create", "USERNAME", "--label", "a label", "--scope", scope,
        ];
        let output = dcams(database, &[&create[..], &logged].concat(), "");
        assert_eq!(output.code, 0, "{output:?}");
        heard.note("the log of a token that is made", &output.err);
        let token = output.out.split("token: ").nth(1).unwrap().trim_end();
        token.to_owned()
    };
    let (token, reads) = (token("read,write"), token("read"));
    let update = |token: &str, email: &str| {
        let fields = [("email", email), ("status", "STATUS_PASS")];
        let metadata = Metadata::default().with("authorization", &format!("Bearer {token}"));
        client.call("UpdateStatus", &fields, metadata)
    };
    assert_eq!(update(&token, EMAIL).unwrap().customer("last_name"), CUSTOMER[3].1);
    let id = &token[6..22];
    let output = dcams(
        database,
        &[&["account", "token", "revoke", id], &logged[..]].concat(),
        "",
    );
    assert_eq!(output.code, 0, "{output:?}");
    heard.note(
        "the log of a token that is revoked",
        format!("{}{}", output.out, output.err),
    );
    for refused in [
        update(&token, EMAIL),
        update(&reads, EMAIL),
        update(&format!("{}canary", &token[..81]), EMAIL),
        update("canary-token", EMAIL),
        update(&token.replace("dcams", "canary"), EMAIL),
    ] {
        let status = refused.unwrap_err();
        heard.note("a gRPC status", format!("{status:?}"));
        heard.note("the details of a gRPC status", status.details());
    }
    let list = dcams(
        database,
        &[&["account", "token", "list", "USERNAME"], &logged[..]].concat(),
        "",
    );
    heard.note("the list of tokens", format!("{}{}", list.out, list.err));
    token[23..].to_owned()
}

fn over_the_command_line(database: &Database, heard: &mut Heard) {
    let good = "canary-good@canary-domain.example,canary-given,19130607";
    let files = [
        // No header: its place is taken by somebody's data.
        ("no_header.csv", format!("{good}\n{good}\n")),
        (
            "bad.csv",
            format!(
                "email,fn,dob\n{good}\ncanary is no address,canary,\ncanary@canary.example,canary,19130699\n\
                 canary@canary.example,canary\u{7},\ncanary@canary.example,canary,,canary\n"
            ),
        ),
        (
            "quote.csv",
            format!("email,fn,dob\n\"canary{}", "canary,".repeat(100_000)),
        ),
        (
            "bad.ndjson",
            "{\"email\":\"canary is no address\"}\n{\"canary-key\":1}\n[\"canary\"]\n{\"email\":\"canary\n\
             {\"email\":\"canary@canary.example\",\"status\":\"canary\"}\n\
             {\"email\":\"canary@canary.example\",\"ln\":[\"canary\"]}\n"
                .to_owned(),
        ),
    ];
    for (name, content) in files {
        let file = database.file(name, content);
        let arguments = ["customer", "import", file.to_str().unwrap(), "--account", "USERNAME"];
        let logged = ["--log", "trace"];
        let output = dcams(database, &[&arguments[..], &logged].concat(), "");
        assert_eq!(output.code, 1, "{name}: {output:?}");
        assert!(!output.err.is_empty());
        heard.note(name, format!("{}{}", output.out, output.err));
    }
    for command in ["show", "history"] {
        for email in ["canary is no address", "canary-nobody@canary-domain.example"] {
            let arguments = ["customer", command, email, "--account", "USERNAME", "--log", "trace"];
            let output = dcams(database, &arguments, "");
            assert_eq!(output.code, 1, "{output:?}");
            heard.note(command, format!("{}{}", output.out, output.err));
        }
    }
    let arguments = [
        "account",
        "set-password",
        "USERNAME",
        "--password-stdin",
        "--log",
        "trace",
    ];
    let output = dcams(database, &arguments, PASSWORD);
    assert_eq!(output.code, 0, "{output:?}");
    heard.note("set-password", format!("{}{}", output.out, output.err));
}

/// Serves with the most talkative log of a format, lets everything go wrong that can, and listens.
fn listen(backend: Backend, format: &str, set_up: fn(Database) -> Database) {
    let mut heard = Heard::default();
    let (ground, database) = Ground::new(backend);
    let database = set_up(database);
    prepare(&database);
    let collector = Collector::start();
    let url = collector.url();
    let logged = ["--log", "trace", "--log-format", format, "--log-requests", "all"];
    let told = [&logged[..], &["--otlp-endpoint", &*url]].concat();
    // So that the facade learns what it may tell.
    let gateway = Gateway::start(&database, &[&told[..], &["--trusted-proxy", "127.0.0.1"]].concat());
    let facade = Gateway::facade(&gateway, &told);
    let client = Client::connect(gateway.grpc.unwrap());

    // The store fails first: a file that was written once stays open.
    let away = ground.take_away();
    for (face, id) in [(&gateway, "privacy-outage-near"), (&facade, "privacy-outage-far")] {
        heard.note_error(id, &Connection::open(face.rest).exchange(&sample(id)));
    }
    let outage = Metadata::of(&format!("USERNAME:{PASSWORD}")).with("x-request-id", "privacy-outage-grpc");
    let status = client
        .call("UpdateStatus", &[("email", EMAIL), ("status", "STATUS_PASS")], outage)
        .unwrap_err();
    heard.note("a gRPC status", format!("{status:?}"));
    away.bring_back();
    eventually("it serves again", || {
        Connection::open(gateway.rest).exchange(&sample("privacy-again")).status == 200
    });

    over_rest(&gateway, &mut heard);
    over_rest(&facade, &mut heard);
    over_grpc(&client, &mut heard);
    let secret = with_tokens(&database, &client, &mut heard);
    heard.secrets.push(secret);
    over_the_command_line(&database, &mut heard);

    let mut neighbour = database.session();
    let record = r#"{"email":"canary-email", canary"#;
    let bytes = match backend {
        Backend::Sqlite => format!("CAST('{record}' AS BLOB)"),
        Backend::Postgres => format!("convert_to('{record}', 'UTF8')"),
    };
    for (id, damage) in [
        ("privacy-profile", &*format!("UPDATE customers SET profile = {bytes}")),
        ("privacy-table", "ALTER TABLE customers RENAME TO canaries"),
    ] {
        neighbour.execute(damage);
        heard.note_error(id, &Connection::open(facade.rest).exchange(&sample(id)));
    }

    for served in [&gateway, &facade] {
        heard.note("the metrics", served.get("/metrics").text());
        heard.note("the banner", &served.banner);
    }
    for (served, name) in [(facade, "facade"), (gateway, "gateway")] {
        let output = served.stop();
        // What is looked for could be there: the log is full, in its format, and knows the requests by their ids.
        assert!(output.err.lines().all(|line| format != "json" || line.starts_with('{')));
        let ids: &[&str] = match name {
            "facade" => &["privacy-table"],
            _ => &[
                "privacy-outage-near",
                "privacy-outage-far",
                "privacy-outage-grpc",
                "privacy-profile",
                "privacy-table",
            ],
        };
        for id in ids {
            assert!(output.err.contains(id), "{id} in the log of the {name}: {}", output.err);
        }
        // Also the line of a request that was served, and of one that was refused.
        for what in ["privacy-served", "USERNAME", "BAD_CREDENTIALS", "CUSTOMER_NOT_FOUND"] {
            assert!(
                output.err.contains(what),
                "{what} in the log of the {name}: {}",
                output.err
            );
        }
        heard.note(&format!("the log of the {name}"), output.err);
        heard.note("standard output", output.out);
    }
    let traces = collector.everything();
    for what in [
        "privacy-served",
        "USERNAME",
        "BAD_CREDENTIALS",
        "UNKNOWN_PATH",
        "store.transaction",
    ] {
        assert!(traces.contains(what), "{what} in the traces");
    }
    heard.note("the traces", traces);
    heard.check();
}

#[test]
fn no_personal_data_is_logged_measured_or_told_in_an_error() {
    for backend in Backend::BOTH {
        listen(backend, "pretty", |database| database);
    }
}

#[test]
fn no_personal_data_is_in_a_log_of_json_of_an_encrypted_store() {
    for backend in Backend::BOTH {
        listen(backend, "json", Database::encrypted);
    }
}
