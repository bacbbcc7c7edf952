//! What bounds the work that callers make: of all together, and of each account.

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Instant,
};

use proto::v1::{GetStatusRequest, WatchStatusChangesRequest, WatchStatusChangesResponse};
use tonic::{Code, Status, Streaming};

use crate::{
    grpc::{
        client::Client,
        errors::{Refused, check},
        feed::{generated, with},
    },
    support::{Backend, Connection, Database, Gateway, Reply, dcams, eventually, until},
};

const EMAIL: &str = "jane@example.com";

/// A database with two accounts, of which each has the customer.
fn shops(backend: Backend) -> Database {
    let database = backend.database();
    for name in ["shop", "other"] {
        database.create_account(name, "secret");
        database.import(name, &format!("email\n{EMAIL}\n"));
    }
    database
}

fn body(user: &str, pass: &str, service: &str) -> String {
    format!(
        r#"{{"user":"{user}","pass":"{pass}","service":"{service}","target":{{"email":"{EMAIL}","status":"PASS"}}}}"#
    )
}

fn get(client: &Client, credentials: &str) -> Result<(), Status> {
    let message = GetStatusRequest {
        email: EMAIL.to_owned(),
    };
    client
        .block_on(generated(client).get_status(with(credentials, message)))
        .map(drop)
}

fn watch(client: &Client, credentials: &str) -> Result<Streaming<WatchStatusChangesResponse>, Status> {
    let message = WatchStatusChangesRequest::default();
    let stream = client.block_on(generated(client).watch_status_changes(with(credentials, message)))?;
    Ok(stream.into_inner())
}

fn exhausted(reason: &str) -> Refused<'_> {
    Refused {
        retries: true,
        ..Refused::new(Code::ResourceExhausted, reason)
    }
}

#[track_caller]
fn check_rest(reply: &Reply, status: u16, reason: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("x-error-reason"), Some(reason));
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1, "{reply:?}");
}

#[test]
fn an_account_that_asks_too_often_is_refused_over_both_faces_and_no_other_is() {
    const RATE: u64 = 1;
    const BURST: u64 = 3;
    const CALLERS: u64 = 8;
    for backend in Backend::BOTH {
        let database = shops(backend);
        let gateway = Gateway::start(&database, &["--account-rate", "1", "--account-burst", "3"]);
        let client = Client::connect(gateway.grpc.unwrap());
        // Before the clock runs: a password is hashed now.
        assert_eq!(gateway.post(body("other", "secret", "getStatus")).status, 200);
        let began = Instant::now();
        let replies = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let mut connection = Connection::open(gateway.rest);
                    for _ in 0..CALLERS {
                        let reply = connection.post(body("shop", "secret", "getStatus"));
                        replies.lock().unwrap().push(reply);
                    }
                });
            }
        });
        let replies = replies.into_inner().unwrap();
        let accepted = replies.iter().filter(|reply| reply.status == 200).count() as u64;
        let most = BURST + RATE * (began.elapsed().as_secs() + 1);
        assert!((BURST..=most).contains(&accepted), "{backend}: {accepted} of {most}");
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
        assert!(!refused.is_empty(), "{backend}: {accepted} were accepted");
        for reply in refused {
            check_rest(reply, 429, "THROTTLED");
            assert_eq!(reply.text(), r#"{"result":"Error","message":"Too many requests"}"#);
        }
        // Both faces count together: now and then the next one would be welcome.
        let refused = (0..100).find_map(|_| get(&client, "shop:secret").err());
        let refused = refused.unwrap_or_else(|| panic!("{backend}: nothing was refused"));
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert_eq!(proto::Refusal::from(&refused).reason, proto::Reason::Throttled);
        assert!(proto::Refusal::from(&refused).retry_after.is_some());

        get(&client, "other:secret").unwrap();
        // Who has no right is not told how busy the account is.
        assert_eq!(gateway.post(body("shop", "wrong", "getStatus")).status, 401);
    }
}

#[test]
fn without_a_rate_an_account_may_ask_as_often_as_it_likes() {
    let gateway = Gateway::start(&shops(Backend::Sqlite), &["--account-rate", "0"]);
    let mut connection = Connection::open(gateway.rest);
    for _ in 0..200 {
        assert_eq!(connection.post(body("shop", "secret", "getStatus")).status, 200);
    }
}

#[test]
fn one_call_too_many_is_refused_at_once_and_there_is_room_again() {
    for backend in Backend::BOTH {
        let database = shops(backend);
        let gateway = Gateway::start(&database, &["--max-calls", "1"]);
        let client = Client::connect(gateway.grpc.unwrap());
        let blocked = database.session().holding_customers();
        let (rest, (reply, arrived)) = (gateway.rest, mpsc::channel());
        let caller = thread::spawn(move || {
            // Until it is the one: a read below may have been before it.
            let update = || Connection::open(rest).post(body("shop", "secret", "updateStatus"));
            let taken = until("the change is taken", || {
                Some(update()).filter(|reply| reply.status != 503)
            });
            reply.send(taken).unwrap();
        });
        // It is under way once others are refused. These are reads, which nothing holds up.
        let read = || gateway.post(body("other", "secret", "getStatus"));
        eventually("the call is under way", || read().status == 503);
        check_rest(&read(), 503, "UNAVAILABLE");
        check(&get(&client, "other:secret").unwrap_err(), &exhausted("UNAVAILABLE"));
        assert!(arrived.try_recv().is_err(), "{backend}: the call ended");
        drop(blocked);
        assert_eq!(arrived.recv().unwrap().status, 200, "{backend}");
        caller.join().unwrap();
        assert_eq!(read().status, 200, "{backend}");
        get(&client, "other:secret").unwrap();
    }
}

#[test]
fn streams_that_have_begun_are_no_calls() {
    let database = shops(Backend::Sqlite);
    let gateway = Gateway::start(&database, &["--max-calls", "1"]);
    let client = Client::connect(gateway.grpc.unwrap());
    let streams: Vec<_> = (0..4).map(|_| watch(&client, "shop:secret").unwrap()).collect();
    get(&client, "shop:secret").unwrap();
    assert_eq!(streams.len(), 4);
}

#[test]
fn an_account_has_so_many_streams_and_no_more() {
    for backend in Backend::BOTH {
        let database = shops(backend);
        let gateway = Gateway::start(&database, &["--streams-per-account", "2", "--streams", "4"]);
        let client = Client::connect(gateway.grpc.unwrap());
        let mut mine: Vec<_> = (0..2).map(|_| watch(&client, "shop:secret").unwrap()).collect();
        let refused = |credentials: &str| watch(&client, credentials).map(drop).unwrap_err();
        check(&refused("shop:secret"), &exhausted("THROTTLED"));
        let others: Vec<_> = (0..2).map(|_| watch(&client, "other:secret").unwrap()).collect();
        // All of them together have so many.
        check(&refused("other:secret"), &exhausted("UNAVAILABLE"));
        mine.pop();
        eventually("the seat is free again", || match watch(&client, "shop:secret") {
            Ok(stream) => {
                mine.push(stream);
                true
            }
            Err(_) => false,
        });
        check(&refused("shop:secret"), &exhausted("UNAVAILABLE"));
        drop(others);
        eventually("the others have left", || {
            proto::Refusal::from(&refused("shop:secret")).reason == proto::Reason::Throttled
        });
    }
}

#[test]
fn how_many_failed_logins_block_is_a_setting() {
    let database = shops(Backend::Sqlite);
    let guess = |gateway: &Gateway, number: u32| {
        gateway
            .post(body("shop", &format!("wrong {number}"), "getStatus"))
            .status
    };
    let strict = Gateway::start(
        &database,
        &[
            "--login-failures-per-address",
            "2",
            "--login-block",
            "1h",
            "--login-block-limit",
            "1h",
        ],
    );
    assert_eq!([0, 1, 2].map(|number| guess(&strict, number)), [401, 401, 429]);
    let reply = strict.post(body("shop", "secret", "getStatus"));
    check_rest(&reply, 429, "THROTTLED");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&wait), "{wait}");
    let none = ["--login-failures-per-address", "0", "--login-failures-per-user", "0"];
    let lax = Gateway::start(&database, &none);
    assert!((0..40).all(|number| guess(&lax, number) == 401));
    assert_eq!(lax.post(body("shop", "secret", "getStatus")).status, 200);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let database = Backend::Sqlite.database();
    for (flag, value) in [
        ("--max-calls", "0"),
        ("--lag-limit", "0ms"),
        ("--queue-wait", "0ms"),
        ("--queue-wait", "1"),
        ("--account-rate", "-1"),
        ("--account-rate", "1000001"),
        ("--account-burst", "0"),
        ("--streams-per-account", "0"),
        ("--login-failures-per-address", "many"),
        ("--login-failures-per-user", "-1"),
        ("--login-block", "0s"),
        ("--login-block-limit", "1"),
    ] {
        let line = dcams(&database, &["serve", &format!("{flag}={value}")], "").fails(2);
        assert!(line.contains(flag), "{line}");
    }
}
