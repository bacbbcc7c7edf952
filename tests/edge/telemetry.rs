//! What a gateway tells of the requests that it serves: lines in the log, metrics, and what is made of these.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    grpc::client::{Client, Metadata},
    support::{
        Backend, Connection, Database, Gateway, eventually, post,
        tls::{Authority, NAMES},
    },
};

const CUSTOMER: &str = "email,fn,ln,dob\nann@example.com,Ann,Lee,19800131\n";

fn prepared(backend: Backend) -> Database {
    let database = backend.database();
    database.create_account("shop", "secret");
    database.import("shop", CUSTOMER);
    database
}

fn body(user: &str, pass: &str, service: &str, email: &str) -> String {
    format!(
        r#"{{"user":"{user}","pass":"{pass}","service":"{service}","target":{{"email":"{email}","status":"PASS"}}}}"#
    )
}

/// A request to the JSON endpoint that has this id.
fn named(id: &str, request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8(request.to_vec()).unwrap();
    let (first, rest) = request.split_once("\r\n").unwrap();
    format!("{first}\r\nX-Request-Id: {id}\r\n{rest}").into()
}

/// The lines of requests in a log of JSON, without what differs from run to run.
fn lines(log: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    for line in log.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["message"] != "request" {
            continue;
        }
        let line = line.as_object_mut().unwrap();
        assert_eq!(line["level"], "INFO");
        let duration = line.remove("duration_ms").unwrap();
        assert!((0.0..60_000.0).contains(&duration.as_f64().unwrap()), "{duration}");
        assert!(line.remove("timestamp").is_some());
        for other in ["message", "level", "target"] {
            line.remove(other);
        }
        lines.push(Value::Object(line.clone()));
    }
    lines
}

/// A line as it should be: what is empty is not there.
fn line(id: &str, account: &str, face: &str, service: &str, status: u16, code: &str, reason: &str) -> Value {
    let mut line = serde_json::Map::new();
    line.insert("request_id".to_owned(), id.into());
    for (key, value) in [("account", account), ("face", face), ("service", service)] {
        if !value.is_empty() {
            line.insert(key.to_owned(), value.into());
        }
    }
    if status != 0 {
        line.insert("status".to_owned(), status.into());
    }
    line.insert("code".to_owned(), code.into());
    if !reason.is_empty() {
        line.insert("reason".to_owned(), reason.into());
    }
    Value::Object(line)
}

fn sorted(mut lines: Vec<Value>) -> Vec<String> {
    lines.sort_by_key(|line| line["request_id"].as_str().unwrap().to_owned());
    let by_key = |line: &Value| {
        let fields: BTreeMap<_, _> = line.as_object().unwrap().iter().collect();
        format!("{fields:?}")
    };
    lines.iter().map(by_key).collect()
}

/// Requests of the JSON endpoint, each with the line that it is to have.
fn over_rest() -> Vec<(Vec<u8>, Value)> {
    let asked = |user, pass, service, email| post(body(user, pass, service, email).as_bytes());
    let good = |service, email| asked("shop", "secret", service, email);
    let with = |request: Vec<u8>, header: &str| -> Vec<u8> {
        String::from_utf8(request)
            .unwrap()
            .replacen("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"), 1)
            .into()
    };
    let large =
        body("shop", "secret", "getStatus", "ann@example.com").replacen('{', &format!("{{{}", " ".repeat(70_000)), 1);
    let large = post(large.as_bytes());
    let requests = [
        (
            good("updateStatus", "ann@example.com"),
            "shop",
            "updateStatus",
            200,
            "Ok",
            "",
        ),
        (good("getStatus", "ann@example.com"), "shop", "getStatus", 200, "Ok", ""),
        (
            good("createOrUpdateCustomer", "bob@example.com"),
            "shop",
            "createOrUpdateCustomer",
            200,
            "Ok",
            "",
        ),
        (
            good("getDocumentImages", "bob@example.com"),
            "shop",
            "getDocumentImages",
            200,
            "Ok",
            "",
        ),
        (
            good("getStatus", "eve@example.com"),
            "shop",
            "getStatus",
            404,
            "NotFound",
            "CUSTOMER_NOT_FOUND",
        ),
        (
            good("getStatus", "no address"),
            "shop",
            "getStatus",
            400,
            "InvalidArgument",
            "INVALID_EMAIL",
        ),
        (
            good("getSomething", "ann@example.com"),
            "shop",
            "",
            400,
            "InvalidArgument",
            "UNKNOWN_SERVICE",
        ),
        (
            with(good("updateStatus", "ann@example.com"), "If-Match: \"other\""),
            "shop",
            "updateStatus",
            409,
            "Aborted",
            "CONFLICT",
        ),
        // Here the name is one, and is not told all the same.
        (
            asked("shop", "wrong", "getStatus", "ann@example.com"),
            "",
            "getStatus",
            401,
            "Unauthenticated",
            "BAD_CREDENTIALS",
        ),
        (
            asked("secret", "secret", "getStatus", "a@b.c"),
            "",
            "getStatus",
            401,
            "Unauthenticated",
            "BAD_CREDENTIALS",
        ),
        (
            asked("a:b", "secret", "getStatus", "a@b.c"),
            "",
            "",
            401,
            "Unauthenticated",
            "BAD_CREDENTIALS",
        ),
        (post(b"{}"), "", "", 400, "InvalidArgument", "MISSING_INPUT"),
        (post(b"{"), "", "", 400, "InvalidArgument", "MALFORMED_BODY"),
        (large, "", "", 413, "ResourceExhausted", "BODY_TOO_LARGE"),
        (
            with(post(b"{}"), "Content-Encoding: br"),
            "",
            "",
            415,
            "Unimplemented",
            "UNSUPPORTED_ENCODING",
        ),
        (
            b"GET /v3/stable/api/storage HTTP/1.1\r\nHost: d\r\n\r\n".to_vec(),
            "",
            "",
            405,
            "Unimplemented",
            "METHOD_NOT_ALLOWED",
        ),
        (
            b"GET /ann@example.com HTTP/1.1\r\nHost: d\r\n\r\n".to_vec(),
            "",
            "",
            404,
            "Unimplemented",
            "UNKNOWN_PATH",
        ),
    ];
    let mut all = Vec::new();
    for (number, (request, account, service, status, code, reason)) in requests.into_iter().enumerate() {
        let id = format!("rest-{number:02}");
        let line = line(&id, account, "rest", service, status, code, reason);
        all.push((named(&id, &request), line));
    }
    all
}

/// Calls over gRPC, and the lines that they are to have.
fn over_grpc(client: &Client) -> Vec<Value> {
    let mut expected = Vec::new();
    let mut call = |method: &str, email: &str, credentials: &str, known: [&str; 4]| {
        let id = format!("grpc-{:02}", expected.len());
        let metadata = Metadata::of(credentials).with("x-request-id", Box::leak(id.clone().into_boxed_str()));
        let message = client.request("GetStatus", &[("email", email)]);
        let answer = client.call_with(method, prost_reflect::prost::Message::encode_to_vec(&message), metadata);
        let [account, service, code, reason] = known;
        let got = answer.map_or_else(|status| format!("{:?}", status.code()), |_| "Ok".to_owned());
        assert_eq!(got, code, "{id}");
        expected.push(line(&id, account, "grpc", service, 0, code, reason));
    };
    let good = "shop:secret";
    call("GetStatus", "ann@example.com", good, ["shop", "GetStatus", "Ok", ""]);
    call(
        "GetStatus",
        "eve@example.com",
        good,
        ["shop", "GetStatus", "NotFound", "CUSTOMER_NOT_FOUND"],
    );
    call(
        "GetStatus",
        "",
        good,
        ["shop", "GetStatus", "InvalidArgument", "MISSING_INPUT"],
    );
    call(
        "GetStatus",
        "ann@example.com",
        "shop:wrong",
        ["", "GetStatus", "Unauthenticated", "BAD_CREDENTIALS"],
    );
    call(
        "GetStatus",
        "ann@example.com",
        "secret:secret",
        ["", "GetStatus", "Unauthenticated", "BAD_CREDENTIALS"],
    );
    call(
        "Ann",
        "ann@example.com",
        good,
        ["", "", "Unimplemented", "UNKNOWN_PATH"],
    );
    expected
}

#[test]
fn every_request_has_a_line_that_says_whose_it_was_and_what_became_of_it() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        let flags = ["--log-format", "json", "--log-requests", "all"];
        let gateway = Gateway::start(&database, &[&flags[..], &["--trusted-proxy", "127.0.0.1"]].concat());
        let facade = Gateway::facade(&gateway, &flags);
        let lines_of_calls = over_grpc(&Client::connect(gateway.grpc.unwrap()));
        let mut expected = Vec::new();
        for (request, line) in over_rest() {
            let status = u64::from(Connection::open(gateway.rest).exchange(&request).status);
            assert_eq!(status, line["status"].as_u64().unwrap(), "{line}");
            expected.push(line);
        }
        expected.extend(lines_of_calls);
        // A request that a facade elsewhere has made a call of is told at both ends, under one id.
        let mut far = Vec::new();
        for (request, mut line) in over_rest() {
            let id = line["request_id"].as_str().unwrap().replace("rest", "far");
            let request = String::from_utf8(request).unwrap().replacen("rest-", "far-", 1);
            line["request_id"] = id.into();
            assert_eq!(
                u64::from(Connection::open(facade.rest).exchange(request.as_bytes()).status),
                line["status"].as_u64().unwrap(),
                "{line}"
            );
            far.push(line);
        }
        assert_eq!(sorted(lines(&facade.stop().err)), sorted(far), "{backend}");
        let told = lines(&gateway.stop().err);
        let (of_facade, told): (Vec<_>, Vec<_>) = told
            .into_iter()
            .partition(|line| line["request_id"].as_str().unwrap().starts_with("far-"));
        assert_eq!(sorted(told), sorted(expected), "{backend}");
        // All but those that the facade refused by itself. It asks for the status of nobody where it has a refusal of its own.
        let got: Vec<_> = of_facade
            .iter()
            .map(|line| {
                format!(
                    "{} {}",
                    line["request_id"].as_str().unwrap(),
                    line["service"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            got,
            [
                "far-00 UpdateStatus",
                "far-01 GetStatus",
                "far-02 CreateOrUpdateCustomer",
                "far-03 GetDocumentImages",
                "far-04 GetStatus",
                "far-05 GetStatus",
                "far-06 GetStatus",
                "far-07 UpdateStatus",
                "far-08 GetStatus",
                "far-09 GetStatus",
            ],
            "{backend}"
        );
        for line in &of_facade {
            assert_eq!(line["face"], "rest");
            let is_known = line["account"] == "shop";
            assert_eq!(is_known, line["code"] != "Unauthenticated", "{line}");
        }
    }
}

#[test]
fn which_requests_have_a_line_is_a_setting() {
    let database = prepared(Backend::Sqlite);
    let good = post(body("shop", "secret", "getStatus", "ann@example.com").as_bytes());
    let bad = post(b"{");
    for (flags, expected) in [
        (&[][..], &["bad"][..]),
        (&["--log-requests", "errors"], &["bad"]),
        (&["--log-requests", "none"], &[]),
        (&["--log-requests", "all"], &["good", "bad"]),
        // They are messages of the level info.
        (&["--log-requests", "all", "--log", "warn"], &[]),
    ] {
        let gateway = Gateway::start(&database, &[&["--log-format", "json"], flags].concat());
        let mut connection = Connection::open(gateway.rest);
        assert_eq!(connection.exchange(&named("good", &good)).status, 200);
        assert_eq!(connection.exchange(&named("bad", &bad)).status, 400);
        drop(connection);
        let told = lines(&gateway.stop().err);
        let ids: Vec<_> = told.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{flags:?}");
    }
}

#[test]
fn people_get_a_line_that_they_can_read() {
    let database = prepared(Backend::Sqlite);
    let gateway = Gateway::start(&database, &["--log-requests", "all"]);
    let good = post(body("shop", "secret", "getStatus", "ann@example.com").as_bytes());
    Connection::open(gateway.rest).exchange(&named("readable", &good));
    let log = gateway.stop().err;
    let line = log.lines().find(|line| line.contains("readable")).unwrap();
    let shown = r#"INFO dcams::request: request request_id="readable" account="shop" face="rest" service="getStatus" status=200 code=Ok duration_ms="#;
    assert!(line.contains(shown), "{line}");
}

#[test]
fn a_client_that_goes_away_is_told_of_too() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        let gateway = Gateway::start(&database, &["--log-format", "json"]);
        let mut holder = database.session().holding_customers();
        let begun = "dcams_write_batch_size_count";
        let request = post(body("shop", "secret", "updateStatus", "ann@example.com").as_bytes());
        let mut connection = Connection::open(gateway.rest);
        connection.send(&named("gone", &request)).unwrap();
        eventually("it is written", || value(&gateway, begun) > 0.0);
        drop(connection);
        let none = r#"dcams_rest_requests_total{service="updateStatus",status="none"}"#;
        eventually("it is told", || value(&gateway, none) > 0.0);
        holder.release();
        let told = lines(&gateway.stop().err);
        let expected = line("gone", "", "rest", "updateStatus", 0, "Cancelled", "");
        assert_eq!(told, [expected], "{backend}");
    }
}

/// Sends requests that are refused, all at once on a few connections.
fn flood(gateway: &Gateway, requests: usize) {
    const TOGETHER: usize = 100;
    let request = b"GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n".repeat(TOGETHER);
    let mut connection = Connection::open(gateway.rest);
    for _ in 0..requests / TOGETHER {
        connection.send(&request).unwrap();
        for _ in 0..TOGETHER {
            assert_eq!(connection.receive().unwrap().status, 404);
        }
    }
}

#[test]
fn whoever_sends_rubbish_does_not_decide_how_much_is_written() {
    let database = prepared(Backend::Sqlite);
    let gateway = Gateway::start(&database, &["--log-format", "json"]);
    let began = Instant::now();
    flood(&gateway, 5_000);
    // A thousand in each second that was begun, and perhaps a few more when one ends.
    let seconds = began.elapsed().as_secs() + 2;
    let dropped = value(&gateway, r#"dcams_log_lines_dropped_total{cause="too_many_refusals"}"#);
    let told = lines(&gateway.stop().err).len();
    assert!(told >= 1_000 && told as u64 <= 1_010 * seconds, "{told} in {seconds} s");
    assert_eq!(told as f64 + dropped, 5_000.0);
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let database = prepared(Backend::Sqlite);
    let mut gateway = Gateway::start_unheard(&database, &["--log-format", "json", "--log-requests", "all"]);
    flood(&gateway, 20_000);
    // A few hundred are in the pipe, 8,192 in memory.
    let dropped = value(&gateway, r#"dcams_log_lines_dropped_total{cause="slow_reader"}"#);
    assert!((5_000.0..12_000.0).contains(&dropped), "{dropped}");
    let good = body("shop", "secret", "updateStatus", "ann@example.com");
    assert_eq!(gateway.post(good).status, 200);
    gateway.signal("TERM");
    let began = Instant::now();
    assert_eq!(gateway.end().code, 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// The value of a series of the metrics; 0 where there is none.
fn value(gateway: &Gateway, series: &str) -> f64 {
    let metrics = gateway.get("/metrics");
    let mut lines = metrics.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn requests_are_counted_by_what_they_asked_for_and_what_they_got() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        let gateway = Gateway::start(&database, &[]);
        let client = Client::connect(gateway.grpc.unwrap());
        over_grpc(&client);
        for (request, _) in over_rest() {
            Connection::open(gateway.rest).exchange(&request);
        }
        let calls = |face: &str, operation: &str, code: &str| {
            let labels = format!(r#"{{face="{face}",operation="{operation}",code="{code}"}}"#);
            let counted = value(&gateway, &format!("dcams_calls_total{labels}"));
            assert_eq!(value(&gateway, &format!("dcams_call_seconds_count{labels}")), counted);
            counted
        };
        assert_eq!(calls("rest", "UpdateStatus", "Ok"), 1.0);
        assert_eq!(calls("rest", "UpdateStatus", "Aborted"), 1.0);
        assert_eq!(calls("rest", "GetStatus", "Unauthenticated"), 2.0);
        assert_eq!(calls("grpc", "GetStatus", "Unauthenticated"), 2.0);
        assert_eq!(calls("grpc", "GetStatus", "NotFound"), 1.0);
        assert_eq!(calls("grpc", "EraseCustomer", "Ok"), 0.0);
        assert_eq!(calls("grpc", "unknown", "Unimplemented"), 1.0);
        let requests = |service: &str, status: &str| {
            let series = format!(r#"dcams_rest_requests_total{{service="{service}",status="{status}"}}"#);
            value(&gateway, &series)
        };
        assert_eq!(requests("updateStatus", "200"), 1.0);
        assert_eq!(requests("updateStatus", "409"), 1.0);
        assert_eq!(requests("getStatus", "401"), 2.0);
        for (status, count) in [
            ("400", 3.0),
            ("401", 1.0),
            ("404", 1.0),
            ("405", 1.0),
            ("413", 1.0),
            ("415", 1.0),
        ] {
            assert_eq!(requests("none", status), count, "{status}");
        }
        assert_eq!(
            value(&gateway, r#"dcams_rest_request_seconds_count{service="getStatus"}"#),
            5.0
        );
    }
}

#[test]
fn what_is_tolerated_is_counted_for_accounts_whose_credentials_hold() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        let gateway = Gateway::start(&database, &["--trusted-proxy", "127.0.0.1"]);
        let trusted = Gateway::facade(&gateway, &[]);
        let other = Gateway::start(&database, &[]);
        let untrusted = Gateway::facade(&other, &[]);
        let flat = |pass: &str, email: &str| {
            format!(r#"{{"user":"shop","pass":"{pass}","service":"getStatus","email":"{email}"}}"#)
        };
        for (face, account) in [(&gateway, "shop"), (&trusted, "shop"), (&untrusted, ":unknown")] {
            let counted = |account: &str| {
                let series = format!(r#"dcams_tolerated_total{{kind="flat_email",account="{account}"}}"#);
                value(face, &series)
            };
            assert_eq!(counted(":unknown"), 0.0);
            assert_eq!(face.post(flat("secret", "ann@example.com")).status, 200);
            // The credentials hold, though nothing is found.
            assert_eq!(face.post(flat("secret", "eve@example.com")).status, 404);
            assert_eq!(face.post(flat("secret", "no address")).status, 400);
            assert_eq!(counted(account), 3.0, "{backend}");
            assert_eq!(face.post(flat("wrong", "ann@example.com")).status, 401);
            let unknown = if account == ":unknown" { 4.0 } else { 1.0 };
            assert_eq!(counted(":unknown"), unknown, "{backend}");
            // Nor when they do not hold any more.
            if account == "shop" {
                assert_eq!(counted(account), 3.0);
            }
        }
        dcams_disable(&database);
        assert_eq!(gateway.post(flat("secret", "ann@example.com")).status, 401);
        let unknown = r#"dcams_tolerated_total{kind="flat_email",account=":unknown"}"#;
        assert_eq!(value(&gateway, unknown), 2.0, "{backend}");
    }
}

fn dcams_disable(database: &Database) {
    crate::support::dcams(database, &["account", "disable", "shop"], "").ok();
}

#[test]
fn a_transaction_that_is_left_open_shows() {
    const HELD_BACK: &str = "dcams_feed_held_back_seconds";
    let database = prepared(Backend::Postgres);
    let mut neighbour = database.session();
    neighbour.execute("BEGIN; SELECT pg_current_xact_id()");
    let gateway = Gateway::start(&database, &[]);
    let update = body("shop", "secret", "updateStatus", "ann@example.com");
    assert_eq!(gateway.post(update).status, 200);
    eventually("it shows", || value(&gateway, HELD_BACK) > 0.0);
    neighbour.release();
    eventually("it is over", || value(&gateway, HELD_BACK) == 0.0);
}

/// The rows of the table of metrics: their names, with kind and labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = read("METRICS.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let labels = cells[2].split(", ").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
            assert!(!cells[3].is_empty(), "{row}");
            (cells[0].trim_end_matches('`').to_owned(), (cells[1].to_owned(), labels))
        })
        .collect();
    assert!(documented.len() > 30);
    documented
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The metrics that are shown, as [`documented`] has them.
fn shown(metrics: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut shown = BTreeMap::new();
    for line in metrics.lines() {
        if let Some(name_and_kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = name_and_kind.split_once(' ').unwrap();
            shown.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.is_empty() && !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            let base = base.filter(|base| shown.contains_key(*base)).unwrap_or(name);
            let (_, known) = shown.get_mut(base).unwrap_or_else(|| panic!("no type: {line}"));
            // No value in the test has a comma.
            for label in labels
                .trim_end_matches('}')
                .split(',')
                .filter(|label| !label.is_empty())
            {
                let (label, _) = label.split_once('=').unwrap();
                if label != "le" {
                    known.insert(label.to_owned());
                }
            }
        }
    }
    shown
}

#[test]
fn the_table_of_metrics_is_what_is_shown() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        // With all that makes for a metric. The collector need not be there.
        let flags = ["--otlp-endpoint", "http://127.0.0.1:9", "--retain-documents-for", "90d"];
        let gateway = Gateway::start(&database, &flags);
        assert_eq!(
            gateway
                .post(body("shop", "secret", "getStatus", "ann@example.com"))
                .status,
            200
        );
        // Nor can one gateway speak TLS and plain text.
        let (cert, key) = Authority::new().issue(&NAMES).write(&database, "server");
        let secured = Gateway::start(&database, &["--tls-cert", &cert, "--tls-key", &key]);
        let mut all = BTreeMap::new();
        for metrics in [gateway.get("/metrics"), secured.get("/metrics")] {
            for line in metrics.text().lines().filter(|line| line.starts_with("# TYPE ")) {
                let name = line.split(' ').nth(2).unwrap();
                let help = format!("# HELP {name} ");
                assert!(metrics.text().lines().any(|line| line.starts_with(&help)), "{help}");
            }
            for (name, (kind, labels)) in shown(metrics.text()) {
                let (_, known) = all.entry(name).or_insert((kind, BTreeSet::new()));
                known.extend(labels);
            }
        }
        assert_eq!(all, documented(), "{backend}");
        let facade = Gateway::facade(&gateway, &flags);
        let known = documented();
        for (name, what) in shown(facade.get("/metrics").text()) {
            assert_eq!(known.get(&name), Some(&what), "{name}");
        }
    }
}

/// The names in an expression that could be metrics.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("dcams_") || word.starts_with("process_"))
}

#[track_caller]
fn assert_documented(name: &str, documented: &BTreeMap<String, (String, BTreeSet<String>)>) {
    let histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| documented.get(name.strip_suffix(suffix)?))
        .filter(|(kind, _)| kind == "histogram");
    let other = documented.get(name).filter(|(kind, _)| kind != "histogram");
    assert!(histogram.or(other).is_some(), "{name} is not in METRICS.md");
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let documented = documented();
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/dcams-gateway.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert!(names(expression).next().is_some(), "{expression}");
            for name in names(expression) {
                assert_documented(name, &documented);
                asked.insert(name.to_owned());
            }
        }
    }
    // And nothing is left out that an operator may look for.
    for (name, (kind, _)) in &documented {
        let suffix = if kind == "histogram" { "_bucket" } else { "" };
        let is_shown = asked.contains(&format!("{name}{suffix}"));
        assert!(is_shown || name.starts_with("process_virtual"), "{name} is on no panel");
    }
}

#[test]
fn the_alerts_ask_for_what_there_is() {
    let documented = documented();
    let mut alerts = 0;
    for line in read("packaging/prometheus/alerts.yml").lines() {
        alerts += usize::from(line.trim().starts_with("- alert: "));
        for name in names(line.trim_start_matches('#')) {
            assert_documented(name, &documented);
        }
    }
    assert!(alerts > 10);
    for line in read("packaging/prometheus/alerts.test.yml").lines() {
        if let Some(series) = line.trim().strip_prefix("- series: ") {
            for name in names(series) {
                assert_documented(name, &documented);
            }
        }
    }
}
