//! Traces: from the caller's over both faces into the store, and what becomes of them when nobody takes them.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};

use crate::{
    grpc::client::{Client, Metadata},
    support::{
        Backend, Connection, Database, Gateway,
        collector::{Collector, attribute, hex},
        eventually, post,
        tls::Authority,
        until,
    },
};

const CALLER: &str = "00f067aa0ba902b7";

fn prepared(backend: Backend) -> Database {
    let database = backend.database();
    database.create_account("shop", "secret");
    database.import("shop", "email,fn\nann@example.com,Ann\n");
    database
}

fn body(service: &str, pass: &str) -> String {
    format!(
        r#"{{"user":"shop","pass":"{pass}","service":"{service}","target":{{"email":"ann@example.com","status":"PASS"}}}}"#
    )
}

/// The trace of that number.
fn trace(number: u8) -> String {
    format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}")
}

/// Sends a request that says that it is part of a trace.
fn send(face: &Gateway, body: &str, trace: &str, flags: &str) -> u16 {
    let request = String::from_utf8(post(body.as_bytes())).unwrap();
    let headers =
        format!("\r\ntraceparent: 00-{trace}-{CALLER}-{flags}\r\ntracestate: vendor=7\r\nX-Request-Id: traced\r\n\r\n");
    let request = request.replacen("\r\n\r\n", &headers, 1);
    Connection::open(face.rest).exchange(request.as_bytes()).status
}

/// The span of that name, once it has come.
fn named(collector: &Collector, trace: &str, name: &str) -> Span {
    until(name, || {
        collector.spans(trace).into_iter().find(|span| span.name == name)
    })
}

const REST: &str = "POST /v3/stable/api/storage";
const UPDATE: &str = "dcams.storage.v1.StorageService/UpdateStatus";
const READ: &str = "dcams.storage.v1.StorageService/GetStatus";

#[test]
fn a_request_is_one_trace_from_its_head_to_its_transaction() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        let collector = Collector::start();
        let url = collector.url();
        let flags = ["--otlp-endpoint", &*url];
        let gateway = Gateway::start(&database, &[&flags[..], &["--trusted-proxy", "127.0.0.1"]].concat());
        let facade = Gateway::facade(&gateway, &flags);
        let system = match backend {
            Backend::Sqlite => "sqlite",
            Backend::Postgres => "postgresql",
        };
        for (number, face) in [(1, &gateway), (2, &facade)] {
            let trace = trace(number);
            assert_eq!(send(face, &body("updateStatus", "secret"), &trace, "01"), 200);
            let [rest, call, queue, transaction] =
                [REST, UPDATE, "store.queue", "store.transaction"].map(|name| named(&collector, &trace, name));
            assert_eq!(hex(&rest.parent_span_id), CALLER, "{backend}");
            assert_eq!(call.parent_span_id, rest.span_id, "{backend}");
            assert_eq!(transaction.parent_span_id, call.span_id, "{backend}");
            assert_eq!(queue.trace_id, transaction.trace_id);
            for (span, key, value) in [
                (&rest, "http.response.status_code", "200"),
                (&rest, "dcams.service", "updateStatus"),
                (&rest, "dcams.account", "shop"),
                (&rest, "dcams.request_id", "traced"),
                (&call, "rpc.response.status_code", "Ok"),
                (&call, "dcams.account", "shop"),
                (&call, "dcams.face", "rest"),
                (&call, "dcams.request_id", "traced"),
                (&transaction, "db.operation.batch.size", "1"),
                (&transaction, "db.system.name", system),
            ] {
                assert_eq!(attribute(span, key).as_deref(), Some(value), "{backend} {key}");
            }
            assert_eq!((rest.kind(), call.kind()), (SpanKind::Server, SpanKind::Server));
            assert_eq!(rest.trace_state, "vendor=7");
            // One lies in the other. Clocks of this machine are one.
            assert!(rest.start_time_unix_nano <= call.start_time_unix_nano);
            assert!(call.start_time_unix_nano <= queue.start_time_unix_nano);
            assert!(transaction.start_time_unix_nano <= transaction.end_time_unix_nano);
            assert!(transaction.end_time_unix_nano <= call.end_time_unix_nano);
            assert!(call.end_time_unix_nano <= rest.end_time_unix_nano);
        }
        let resources = collector.resources();
        let is = |key: &str, value: &str| resources.contains(&(key.to_owned(), value.to_owned()));
        assert!(
            is("service.name", "dcams-gateway") && is("service.version", env!("CARGO_PKG_VERSION")),
            "{resources:?}"
        );
    }
}

#[test]
fn a_call_over_grpc_and_a_read_are_traced_too() {
    for backend in Backend::BOTH {
        let database = prepared(backend);
        let collector = Collector::start();
        let gateway = Gateway::start(&database, &["--otlp-endpoint", &collector.url()]);
        let client = Client::connect(gateway.grpc.unwrap());
        let traced = |number, credentials: &str| {
            let parent = format!("00-{}-{CALLER}-01", trace(number));
            let metadata = Metadata::of(credentials).with("traceparent", &parent);
            client.call("GetStatus", &[("email", "ann@example.com")], metadata)
        };
        traced(1, "shop:secret").unwrap();
        let call = named(&collector, &trace(1), READ);
        assert_eq!(hex(&call.parent_span_id), CALLER);
        let query = named(&collector, &trace(1), "store.query");
        assert_eq!(query.parent_span_id, call.span_id, "{backend}");

        traced(2, "shop:wrong").unwrap_err();
        let refused = named(&collector, &trace(2), READ);
        assert_eq!(attribute(&refused, "dcams.reason").as_deref(), Some("BAD_CREDENTIALS"));
        assert_eq!(attribute(&refused, "dcams.account"), None);
        // That is no fault of ours.
        assert_ne!(refused.status.unwrap_or_default().code(), StatusCode::Error);
    }
}

#[test]
fn who_sends_a_traceparent_decides_and_for_others_a_share_is_taken() {
    let database = prepared(Backend::Sqlite);
    let collector = Collector::start();
    let with_share = |share| {
        Gateway::start(
            &database,
            &["--otlp-endpoint", &collector.url(), "--trace-ratio", share],
        )
    };
    let gateway = with_share("0");
    assert_eq!(gateway.post(body("getStatus", "secret")).status, 200);
    assert_eq!(send(&gateway, &body("getStatus", "secret"), &trace(1), "00"), 200);
    assert_eq!(send(&gateway, &body("getStatus", "secret"), &trace(2), "01"), 200);
    // What is no traceparent is none.
    assert_eq!(send(&gateway, &body("getStatus", "secret"), "nonsense", "01"), 200);
    // All that there is has been sent when it has stopped.
    gateway.stop();
    let spans = collector.all();
    assert!(
        !spans.is_empty() && spans.iter().all(|span| hex(&span.trace_id) == trace(2)),
        "{spans:?}"
    );

    let gateway = with_share("0.5");
    let mut connection = Connection::open(gateway.rest);
    for _ in 0..400 {
        connection.exchange(b"GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n");
    }
    drop(connection);
    gateway.stop();
    // Two hundred; that it is less than a hundred or more than three hundred happens once in 10^23 times.
    let taken = collector.all().len() - spans.len();
    assert!((100..300).contains(&taken), "{taken}");
}

#[test]
fn a_facade_without_traces_hands_on_those_of_its_caller() {
    let database = prepared(Backend::Sqlite);
    let collector = Collector::start();
    let gateway = Gateway::start(&database, &["--otlp-endpoint", &collector.url()]);
    let facade = Gateway::facade(&gateway, &[]);
    assert_eq!(send(&facade, &body("getStatus", "secret"), &trace(1), "01"), 200);
    let call = named(&collector, &trace(1), READ);
    assert_eq!(hex(&call.parent_span_id), CALLER);
    assert_eq!(call.trace_state, "vendor=7");
}

/// The value of a series of the metrics.
fn value(gateway: &Gateway, series: &str) -> f64 {
    let metrics = gateway.get("/metrics");
    let mut lines = metrics.text().lines();
    lines
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        .unwrap()
}

#[test]
fn without_a_collector_requests_are_served_and_one_line_says_so() {
    let database = prepared(Backend::Sqlite);
    // Nobody listens there now.
    let reserved = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{reserved}");
    let flags = ["--log-format", "json", "--otlp-endpoint", &*url];
    let gateway = Gateway::start(&database, &flags);
    let failed = || value(&gateway, r#"dcams_trace_spans_total{outcome="failed"}"#);
    let mut before = 0.0;
    for _ in 0..2 {
        assert_eq!(gateway.post(body("updateStatus", "secret")).status, 200);
        eventually("the spans are given up", || failed() > before);
        before = failed();
    }
    // From when there is one, it is sent what comes.
    let collector = Collector::start_at(reserved);
    assert_eq!(send(&gateway, &body("getStatus", "secret"), &trace(1), "01"), 200);
    eventually("it is sent", || {
        send(&gateway, &body("getStatus", "secret"), &trace(1), "01");
        !collector.spans(&trace(1)).is_empty()
    });
    let log = gateway.stop().err;
    let about = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(about("the collector does not take traces"), 1, "{log}");
    assert_eq!(about("the collector takes traces again"), 1, "{log}");
}

#[test]
fn a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end() {
    const REQUESTS: u32 = 12_000;
    const TOGETHER: u32 = 100;
    let database = prepared(Backend::Sqlite);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let holder = std::thread::spawn(move || {
        let (mut stream, _) = silent.accept().unwrap();
        // Takes all, and says nothing.
        let _ = std::io::copy(&mut stream.by_ref(), &mut std::io::sink());
    });
    let gateway = Gateway::start(&database, &["--otlp-endpoint", &url, "--log-requests", "none"]);
    let request = b"GET /nothing HTTP/1.1\r\nHost: d\r\n\r\n".repeat(TOGETHER as usize);
    let mut connection = Connection::open(gateway.rest);
    for _ in 0..REQUESTS / TOGETHER {
        connection.send(&request).unwrap();
        for _ in 0..TOGETHER {
            assert_eq!(connection.receive().unwrap().status, 404);
        }
    }
    drop(connection);
    // 8,192 wait; a few messages of 512 were given up meanwhile.
    let dropped = value(&gateway, r#"dcams_trace_spans_total{outcome="dropped"}"#);
    assert!(dropped > 0.0 && dropped <= f64::from(REQUESTS) - 8_192.0, "{dropped}");
    let began = Instant::now();
    let ended = gateway.stop();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    holder.join().unwrap();
}

#[test]
fn a_collector_may_be_behind_tls() {
    let database = prepared(Backend::Sqlite);
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = database.file("ca.pem", authority.pem()).display().to_string();
    let strange = database.file("strange.pem", other.pem()).display().to_string();
    let (cert, key) = authority.issue(&["gateway"]).write(&database, "own");
    let collector = Collector::start_with_tls(&authority.issue(&["localhost"]), &authority);
    let url = collector.url();
    let start = |flags: &[&str]| {
        let flags = [&["--log-format", "json", "--otlp-endpoint", &*url], flags].concat();
        Gateway::start(&database, &flags)
    };

    let gateway = start(&["--otlp-ca", &ca, "--otlp-cert", &cert, "--otlp-key", &key]);
    assert_eq!(send(&gateway, &body("updateStatus", "secret"), &trace(1), "01"), 200);
    named(&collector, &trace(1), "store.transaction");
    let metrics = gateway.get("/metrics");
    assert!(metrics.text().contains("dcams_tls_files_usable{files=\"collector\"} 1"));
    gateway.stop();

    // One that is not trusted, and one that does not trust: neither gets a span, and requests go on.
    for (number, flags) in [
        (
            2,
            ["--otlp-ca", &*strange, "--otlp-cert", &*cert, "--otlp-key", &*key].as_slice(),
        ),
        (3, ["--otlp-ca", &*ca].as_slice()),
    ] {
        let gateway = start(flags);
        assert_eq!(
            send(&gateway, &body("updateStatus", "secret"), &trace(number), "01"),
            200
        );
        eventually("the spans are given up", || {
            value(&gateway, r#"dcams_trace_spans_total{outcome="failed"}"#) > 0.0
        });
        let log = gateway.stop().err;
        assert!(log.contains("the collector does not take traces"), "{log}");
        assert!(collector.spans(&trace(number)).is_empty());
    }
}

#[test]
fn what_cannot_be_a_collector_is_said_at_once() {
    let database = Backend::Sqlite.database();
    let nothing = database.file("nothing.pem", "").display().to_string();
    let serve = |flags: &[&str]| {
        let addresses = ["serve", "--rest-addr", "127.0.0.1:0", "--ops-addr", "127.0.0.1:0"];
        crate::support::dcams(&database, &[&addresses, flags].concat(), "").fails(1)
    };
    for url in [
        "ftp://127.0.0.1:4317",
        "http://user:secret@127.0.0.1:4317",
        "https://127.0.0.1:4317/v1/traces",
    ] {
        assert_eq!(
            serve(&["--otlp-endpoint", url]),
            "--otlp-endpoint needs a URL of the form https://HOST:PORT or http://HOST:PORT"
        );
    }
    let line = serve(&["--otlp-endpoint", "http://localhost:1", "--otlp-ca", &nothing]);
    assert_eq!(line, "--otlp-ca and --otlp-cert need an --otlp-endpoint of https");
    let line = serve(&["--otlp-endpoint", "https://localhost:1", "--otlp-ca", &nothing]);
    assert!(
        line.starts_with("TLS to the collector: ") && line.contains("has no certificate"),
        "{line}"
    );
}
