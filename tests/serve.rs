//! Starting, listening, probing and stopping.

use std::{
    collections::BTreeSet,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    contract::documented::SAMPLE,
    support::{Backend, Cluster, Connection, Database, Durability, Gateway, Reply, dcams, post, program, run, until},
};

/// The reply to the seed document's sample request.
pub const SAMPLE_REPLY: &str = r#"{"result":"Success","reference":"888888812","target":{"fn":"John","ln":"Smith","addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"test@veratad.com","phone":"2015106000","status":"PASS"}}"#;

/// How long a thing may take that is done at once; the program's own patience is longer everywhere.
const AT_ONCE: Duration = Duration::from_secs(4);

fn update(status: &str) -> String {
    SAMPLE.replace("PASS\"\n", &format!("{status}\"\n"))
}

fn status(gateway: &Gateway) -> String {
    let body = SAMPLE.replace("updateStatus", "getStatus");
    let reply: Value = serde_json::from_slice(&gateway.post(body).body).unwrap();
    reply["status"].as_str().unwrap().to_owned()
}

/// The value of a metric that has no labels.
fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.get("/metrics");
    let mut lines = text.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Sends an update that a lock holds up, and returns when the gateway has begun to write it.
fn send_held_update(gateway: &Gateway, status: &str) -> Connection {
    send_held_update_over(gateway, gateway, status)
}

/// The same, over a facade in front of the gateway.
fn send_held_update_over(facade: &Gateway, gateway: &Gateway, status: &str) -> Connection {
    const BEGUN: &str = "dcams_write_batch_size_count";
    let before = metric(gateway, BEGUN);
    let mut connection = Connection::open(facade.rest);
    connection.send(&post(update(status).as_bytes())).unwrap();
    until("the update is under way", || {
        (metric(gateway, BEGUN) > before).then_some(())
    });
    connection
}

fn until_refused(address: SocketAddr) {
    until("new connections are refused", || TcpStream::connect(address).err());
}

#[test]
fn the_banner_tells_the_ports_that_were_given_for_port_0() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &[]);
        let (rest, grpc, ops) = (gateway.rest, gateway.grpc.unwrap(), gateway.ops);
        assert_eq!(
            gateway.banner,
            format!(
                "dcams-gateway {} is ready\n  REST   http://{rest}/v3/stable/api/storage\n  ops    http://{ops}\n  gRPC   \
                 {grpc}\n  store  {}\n",
                env!("CARGO_PKG_VERSION"),
                database.url.replace("postgres@", ""),
            )
        );
        let ports = BTreeSet::from([rest, grpc, ops]);
        assert_eq!(ports.len(), 3);
        for address in ports {
            assert_ne!(address.port(), 0);
            TcpStream::connect(address).unwrap();
        }
        let output = gateway.stop();
        assert_eq!((output.code, &*output.out), (0, ""), "{output:?}");
    }
}

#[test]
fn there_are_as_many_worker_threads_as_are_asked_for() {
    let workers = |flags: &[&str]| {
        let gateway = Gateway::start(&Backend::Sqlite.database(), flags);
        let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
        let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
        names.filter(|name| name == "tokio-rt-worker\n").count()
    };
    // Threads for what blocks have the same name: some more than that may be there.
    let many = std::thread::available_parallelism().unwrap().get() + 10;
    assert!(workers(&["--worker-threads", &many.to_string()]) >= many);
    assert!((1..many).contains(&workers(&[])));
}

#[test]
fn addresses_are_taken_from_the_environment_and_a_flag_wins() {
    let database = Backend::Sqlite.database();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, flag) in [
        ("DCAMS_REST_ADDR", "--rest-addr"),
        ("DCAMS_GRPC_ADDR", "--grpc-addr"),
        ("DCAMS_OPS_ADDR", "--ops-addr"),
    ] {
        let mut command = program();
        command.env("DCAMS_STORE", &database.url);
        for name in ["DCAMS_REST_ADDR", "DCAMS_GRPC_ADDR", "DCAMS_OPS_ADDR"] {
            command.env(name, "127.0.0.1:0");
        }
        let line = run(command.arg("serve").env(variable, &address), "").fails(1);
        assert!(line.starts_with(&format!("cannot listen on {address} ")), "{line}");
        // With the flag it gets past the listeners, and fails for the store.
        command.args([flag, "127.0.0.1:0", "--store", "sqlite://absent/dcams.db"]);
        let line = run(&mut command, "").fails(1);
        assert!(line.starts_with("the store sqlite://absent/dcams.db: "), "{line}");
    }
}

#[test]
fn an_occupied_port_is_one_line() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let flags = ["--rest-addr", "--grpc-addr", "--ops-addr"];
        for (occupied, name) in flags.into_iter().zip(["REST", "gRPC", "ops"]) {
            let mut arguments = vec!["serve"];
            for flag in flags {
                arguments.extend([flag, if flag == occupied { &address } else { "127.0.0.1:0" }]);
            }
            let line = dcams(&database, &arguments, "").fails(1);
            assert!(
                line.starts_with(&format!("cannot listen on {address} ({name}): ")),
                "{line}"
            );
        }
    }
}

#[test]
fn a_demo_is_served_on_loopback_only() {
    for backend in Backend::BOTH {
        let database = backend.database();
        for public in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            for flag in ["--rest-addr", "--grpc-addr", "--ops-addr"] {
                let line = dcams(&database, &["serve", "--demo", flag, public], "").fails(1);
                assert!(line.contains("loopback only"), "{line}");
            }
        }
        // Refused before anything was made.
        let line = dcams(&database, &["migrate", "--check"], "").fails(1);
        assert!(line.contains("not up to date"), "{line}");
    }
}

#[test]
fn the_demo_answers_the_sample_request_with_the_sample_reply() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &["--demo"]);
        assert!(gateway.banner.contains("This is a demo"), "{}", gateway.banner);
        assert_eq!(status(&gateway), "PENDING");
        let reply = gateway.post(SAMPLE);
        assert_eq!((reply.status, reply.text()), (200, SAMPLE_REPLY));
        assert_eq!(status(&gateway), "PASS");
    }
}

/// curl may be missing; the line is then taken apart by the shell all the same, and its parts are sent by us.
#[test]
fn the_curl_line_of_the_demo_works_as_it_is_printed() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &["--demo"]);
        let line = gateway
            .banner
            .lines()
            .find(|line| line.trim().starts_with("curl "))
            .unwrap();
        let stand_in = r#"command -v curl >/dev/null || curl() { printf '%s\n' "$@"; }"#;
        let mut shell = Command::new("sh");
        let out = run(&mut shell, &format!("{stand_in}\n{line}\n")).ok();
        let reply = match out.strip_prefix("-d\n") {
            None => out,
            Some(parts) => {
                let (body, url) = parts.trim_end().split_once('\n').unwrap();
                assert_eq!(url, format!("http://{}/v3/stable/api/storage", gateway.rest));
                gateway.post(body).text().to_owned()
            }
        };
        assert_eq!(reply, SAMPLE_REPLY);
    }
}

#[test]
fn a_second_demo_keeps_what_the_first_one_had() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let first = Gateway::start(&database, &["--demo"]);
        assert_eq!(first.post(update("FAIL")).status, 200);
        assert_eq!(first.stop().code, 0);
        let second = Gateway::start(&database, &["--demo"]);
        assert_eq!(status(&second), "FAIL");
        assert_eq!(second.stop().code, 0);
        let of = ["test@veratad.com", "--account", "USERNAME"];
        let history = dcams(&database, &[&["customer", "history"], &of[..]].concat(), "").ok();
        assert_eq!(history.lines().count(), 3, "{history}");
    }
}

#[test]
fn a_gateway_in_earnest_warns_of_the_account_of_the_demo() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let log = || Gateway::start(&database, &[]).stop().err;
        let warning = "dcams-gateway account disable USERNAME";
        assert!(!log().contains(warning));
        assert_eq!(Gateway::start(&database, &["--demo"]).stop().code, 0);
        let log_now = log();
        assert!(
            log_now
                .lines()
                .any(|line| line.contains("WARN") && line.contains(warning)),
            "{log_now}"
        );
        dcams(&database, &["account", "disable", "USERNAME"], "").ok();
        assert!(!log().contains(warning));
    }
}

#[test]
fn a_signal_lets_the_request_under_way_end_and_takes_no_more() {
    for backend in Backend::BOTH {
        for signal in ["TERM", "INT"] {
            let database = backend.database();
            let mut gateway = Gateway::start(&database, &["--demo"]);
            // One that has been used, and one that has not.
            let mut kept = Connection::open(gateway.rest);
            assert_eq!(kept.post(SAMPLE).status, 200);
            let mut silent = Connection::open(gateway.rest);
            let mut session = database.session();
            session.hold_customers();
            let mut held = send_held_update(&gateway, "FAIL");

            gateway.signal(signal);
            until_refused(gateway.rest);
            until_refused(gateway.grpc.unwrap());
            assert!(kept.is_closed() && silent.is_closed());
            // The probes tell of it to the end.
            assert_eq!(gateway.get("/healthz").status, 200);
            assert_eq!(gateway.get("/readyz").status, 503);

            session.release();
            let reply = held.receive().unwrap();
            assert_eq!(
                (reply.status, reply.text()),
                (200, &*SAMPLE_REPLY.replace("PASS", "FAIL"))
            );
            assert!(held.is_closed());
            let output = gateway.end();
            assert_eq!(output.code, 0, "{output:?}");
            let show = ["customer", "show", "test@veratad.com", "--account", "USERNAME"];
            let shown = dcams(&database, &show, "").ok();
            assert!(shown.contains("status     FAIL"), "{shown}");
        }
    }
}

#[test]
fn what_does_not_end_in_time_is_cut_off() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let mut gateway = Gateway::start(&database, &["--demo", "--drain", "1"]);
        let mut session = database.session();
        session.hold_customers();
        let mut held = send_held_update(&gateway, "FAIL");
        let began = Instant::now();
        gateway.signal("TERM");
        // No reply, not even the one that it has no more time, which would come later.
        assert!(held.receive().is_err());
        let output = gateway.end();
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.err.contains("some work did not end in time"), "{output:?}");
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let mut gateway = Gateway::start(&database, &["--demo", "--drain", "600"]);
        let mut session = database.session();
        session.hold_customers();
        let mut held = send_held_update(&gateway, "FAIL");
        let began = Instant::now();
        gateway.signal("TERM");
        until_refused(gateway.rest);
        gateway.signal("INT");
        assert!(held.receive().is_err());
        let output = gateway.end();
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.err.contains("stopping at once"), "{output:?}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
}

#[test]
fn a_stop_leaves_the_sqlite_file_alone_behind() {
    let database = Backend::Sqlite.database();
    let files = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(database.path("")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let alone = BTreeSet::from(["dcams.db".to_owned()]);
    dcams(&database, &["account", "list"], "").ok();
    assert_eq!(files(), alone);
    let gateway = Gateway::start(&database, &["--demo"]);
    // Reads on every connection, and writes enough for a checkpoint.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.rest);
                for number in 0..300 {
                    let body = update(["PASS", "FAIL"][number % 2]);
                    assert_eq!(connection.post(body).status, 200);
                    assert_eq!(connection.post(SAMPLE.replace("updateStatus", "getStatus")).status, 200);
                }
            });
        }
    });
    assert!(files().contains("dcams.db-wal"));
    assert_eq!(gateway.stop().code, 0);
    assert_eq!(files(), alone);
}

#[test]
fn readiness_follows_the_database_and_liveness_does_not() {
    let cluster = Cluster::start(Durability::None);
    let database = Database::on(&cluster);
    let gateway = Gateway::start(&database, &["--demo"]);
    assert_eq!(gateway.post(SAMPLE).status, 200);
    for round in 0..2 {
        assert_eq!(gateway.get("/readyz").status, 200);
        let outage = cluster.stop();
        until("the gateway is not ready", || {
            (gateway.get("/readyz").status == 503).then_some(())
        });
        assert_eq!(gateway.get("/healthz").status, 200);
        // Once with writes that fail meanwhile, once without.
        if round == 0 {
            assert_unavailable(&gateway.post(SAMPLE));
        }
        outage.end();
        until("the gateway is ready", || {
            (gateway.get("/readyz").status == 200).then_some(())
        });
        assert_eq!(gateway.get("/healthz").status, 200);
        // The writer finds out that its connection is gone by using it, and does not repeat a change that may have been
        // made: that is left to the caller.
        until("an update is made", || {
            let reply = gateway.post(update(["FAIL", "PENDING"][round]));
            if reply.status == 200 {
                return Some(());
            }
            assert_unavailable(&reply);
            None
        });
        assert_eq!(status(&gateway), ["FAIL", "PENDING"][round]);
    }
    assert_eq!(gateway.stop().code, 0);
}

fn assert_unavailable(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.text(), reply.header("x-error-reason")),
        (
            503,
            r#"{"result":"Error","message":"The service is unavailable"}"#,
            Some("UNAVAILABLE")
        )
    );
    let seconds: u64 = reply.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!(seconds >= 1);
}

#[test]
fn the_probes_answer_in_plain_text_and_to_nothing_else() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &[]);
        let answer = |path: &str| {
            let reply = gateway.get(path);
            (reply.status, reply.text().to_owned())
        };
        assert_eq!(answer("/healthz"), (200, "ok\n".to_owned()));
        assert_eq!(answer("/readyz"), (200, "ready\n".to_owned()));
        assert_eq!(answer("/").0, 404);
        // And only on their own listener.
        for path in ["/healthz", "/readyz", "/metrics"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: rest\r\n\r\n");
            assert_eq!(Connection::open(gateway.rest).exchange(request.as_bytes()).status, 404);
        }
    }
}

#[test]
fn the_metrics_are_prometheus_text() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &["--demo"]);
        assert_eq!(gateway.post(SAMPLE).status, 200);
        let reply = gateway.get("/metrics");
        assert_eq!(reply.status, 200);
        assert!(
            reply.header("content-type").unwrap().starts_with("text/plain"),
            "{}",
            reply.head
        );
        for line in reply
            .text()
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(
                ["dcams_", "process_"].iter().any(|name| series.starts_with(name)),
                "{line}"
            );
            value.parse::<f64>().unwrap();
        }
        assert!(
            reply
                .text()
                .contains("dcams_calls_total{face=\"rest\",operation=\"UpdateStatus\",code=\"Ok\"} 1\n"),
            "{}",
            reply.text()
        );
    }
}

/// An address that is free now, on a loopback address that nobody else is given one on.
fn reserved() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 77, high, low), 0)).unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn a_facade_waits_for_its_upstream() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let address = reserved();
        let facade = Gateway::facade_of(address, &[]);
        assert!(
            facade
                .banner
                .ends_with(&format!("  calls  gRPC at http://{address}/\n")),
            "{}",
            facade.banner
        );
        for round in 0..2 {
            assert_unavailable(&facade.post(SAMPLE));
            assert_eq!(facade.get("/readyz").status, 503);
            assert_eq!(facade.get("/healthz").status, 200);

            let upstream = Gateway::start_at(&database, address, &["--demo"]);
            until("the facade is ready", || {
                (facade.get("/readyz").status == 200).then_some(())
            });
            let reply = facade.post(SAMPLE);
            assert_eq!((reply.status, reply.text()), (200, SAMPLE_REPLY), "round {round}");
            // And when it goes away, the facade says so and waits again.
            assert_eq!(upstream.stop().code, 0);
            until("the facade is not ready", || {
                (facade.get("/readyz").status == 503).then_some(())
            });
        }
        assert_eq!(facade.stop().code, 0);
    }
}

#[test]
fn a_facade_whose_upstream_dies_under_a_request_does_not_say_that_nothing_was_done() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let upstream = Gateway::start(&database, &["--demo"]);
        let facade = Gateway::facade(&upstream, &[]);
        assert_eq!(facade.post(SAMPLE).status, 200);
        let mut session = database.session();
        session.hold_customers();
        let mut connection = send_held_update_over(&facade, &upstream, "FAIL");
        upstream.signal("KILL");
        // It may have been.
        let reply = connection.receive().unwrap();
        assert_eq!((reply.status, reply.header("x-error-reason")), (504, Some("TIMEOUT")));
    }
}

#[test]
fn an_upstream_that_is_no_url_is_one_line() {
    for (url, code) in [
        ("localhost:50051", 1),
        ("ftp://localhost", 1),
        ("/path", 1),
        ("http://", 2),
        ("", 2),
        ("http://a b", 2),
    ] {
        let mut command = program();
        command.args([
            "serve",
            "--rest-addr",
            "127.0.0.1:0",
            "--ops-addr",
            "127.0.0.1:0",
            "--upstream",
            url,
        ]);
        let line = run(&mut command, "").fails(code);
        assert!(line.contains("--upstream"), "{url}: {line}");
    }
}

#[test]
fn the_json_endpoint_speaks_http_1_and_nothing_else() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &["--demo"]);
        // A client of HTTP/1.0 gets its reply, and the connection is closed.
        let request = String::from_utf8(post(SAMPLE.as_bytes()))
            .unwrap()
            .replace("HTTP/1.1", "HTTP/1.0");
        let mut old = Connection::open(gateway.rest);
        let reply = old.exchange(request.as_bytes());
        assert_eq!((reply.status, reply.text()), (200, SAMPLE_REPLY));
        assert!(reply.head.starts_with("HTTP/1.0 200 "), "{}", reply.head);
        assert!(old.is_closed());

        for preface in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "POST / HTTP/3.0\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(gateway.rest).unwrap();
            std::io::Write::write_all(&mut stream, preface.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // A reset is as good as an end.
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8(answer).unwrap();
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{preface:?}: {answer}"
            );
        }
    }
}

#[test]
fn one_connection_more_than_may_be_is_closed_at_once() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &["--demo", "--max-connections", "2"]);
        let mut kept = [Connection::open(gateway.rest), Connection::open(gateway.rest)];
        for connection in &mut kept {
            assert_eq!(connection.post(SAMPLE).status, 200);
        }
        assert!(Connection::open(gateway.rest).is_closed());
        // Those that are there are served on, and the other listeners have bounds of their own.
        assert_eq!(kept[0].post(SAMPLE).status, 200);
        assert_eq!(gateway.get("/healthz").status, 200);
        // One that ends makes room.
        drop(kept);
        let reply = until("there is room", || {
            Connection::open(gateway.rest)
                .try_exchange(&post(SAMPLE.as_bytes()))
                .ok()
        });
        assert_eq!(reply.status, 200);
    }
}

#[test]
fn the_log_is_json_when_that_is_asked_for() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let gateway = Gateway::start(&database, &["--demo", "--log-format", "json"]);
        let log = gateway.stop().err;
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let levels: Vec<Value> = lines.map(|line| line["level"].clone()).collect();
        // That data is in clear text; that it stops, and has stopped.
        assert_eq!(levels, [json!("WARN"), json!("INFO"), json!("INFO")], "{log}");
    }
}
