//! A stop that nobody notices: not ready first, then no new connections, and what is under way ends.

use std::{
    error::Error as _,
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use proto::v1::{Status as S, UpdateStatusRequest, UpdateStatusResponse};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::http2::{ACK, GOAWAY, PING, Raw, frame};
use crate::{
    grpc::{
        client::Client,
        feed::{generated, with},
    },
    support::{Backend, Connection, Database, Gateway, eventually, post},
};

const CREDENTIALS: &str = "USERNAME:PASSWORD";
const READ: &str =
    r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#;

fn update(client: &Client, email: &str, status: S) -> Result<UpdateStatusResponse, Status> {
    let message = UpdateStatusRequest {
        email: email.to_owned(),
        status: status.into(),
        ..UpdateStatusRequest::default()
    };
    let answer = client.block_on(generated(client).update_status(with(CREDENTIALS, message)));
    answer.map(tonic::Response::into_inner)
}

fn health(client: &Client) -> ServingStatus {
    let (connection, origin) = client.transport();
    let mut health = HealthClient::with_origin(connection, origin);
    let answer = client.block_on(health.check(HealthCheckRequest::default()));
    answer.unwrap().into_inner().status()
}

#[test]
fn a_gateway_that_will_stop_says_that_it_is_not_ready_and_serves_on() {
    for backend in Backend::BOTH {
        let database = backend.database();
        // Longer than the test waits for anything.
        let mut gateway = Gateway::start(&database, &["--demo", "--drain-delay", "600"]);
        let grpc = gateway.grpc.unwrap();
        let mut kept = Connection::open(gateway.rest);
        let reply = kept.post(READ);
        assert_eq!((reply.status, reply.header("connection")), (200, None));
        let client = Client::bare(grpc);
        assert_eq!(health(&client), ServingStatus::Serving);

        gateway.signal("TERM");
        eventually("it is not ready", || gateway.get("/readyz").status == 503);
        assert_eq!(gateway.get("/healthz").status, 200);
        assert_eq!(health(&client), ServingStatus::NotServing);
        // Old connections and new ones are served, and those of HTTP/1 end in order.
        for mut connection in [kept, Connection::open(gateway.rest)] {
            let reply = connection.post(READ);
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
            assert!(connection.is_closed());
        }
        update(&client, "test@veratad.com", S::Fail).unwrap();
        update(&Client::bare(grpc), "test@veratad.com", S::Pass).unwrap();

        // Who asks again does not want to wait.
        gateway.signal("TERM");
        let output = gateway.end();
        assert_eq!(output.code, 0, "{output:?}");
        assert!(!output.err.contains("at once"), "{output:?}");
        assert!(TcpStream::connect(grpc).is_err());
    }
}

#[test]
fn a_grpc_client_is_told_to_go_away_and_its_call_is_answered() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let mut gateway = Gateway::start(&database, &["--demo"]);
        let mut idle = Raw::greet(gateway.grpc.unwrap(), &[]);
        let client = Client::bare(gateway.grpc.unwrap());
        let mut session = database.session();
        session.hold_customers();
        thread::scope(|scope| {
            let call = scope.spawn(|| update(&client, "test@veratad.com", S::Fail));
            eventually("the call is under way", || {
                let metrics = gateway.get("/metrics");
                metrics
                    .text()
                    .lines()
                    .any(|line| line == "dcams_write_batch_size_count 1")
            });
            gateway.signal("TERM");
            let mut told = 0;
            while let Some(got) = idle.next() {
                match got.kind {
                    GOAWAY => told += 1,
                    // Once it is answered, the server knows that everything before it has arrived.
                    PING if got.flags & ACK == 0 => {
                        std::io::Write::write_all(&mut idle.0, &frame(PING, ACK, 0, &got.payload)).unwrap();
                    }
                    _ => {}
                }
            }
            assert_eq!(told, 2, "one to begin with, and one with the last stream");
            session.release();
            call.join().unwrap().unwrap();
        });
        let output = gateway.end();
        assert_eq!(output.code, 0, "{output:?}");
        assert!(!output.err.contains("did not end in time"), "{output:?}");
    }
}

/// What is known of where gateways are. A client tries one after the other.
struct Addresses {
    rest: Mutex<[SocketAddr; 2]>,
    grpc: Mutex<[SocketAddr; 2]>,
}

/// What the clients have done.
#[derive(Default)]
struct Done {
    is_over: AtomicBool,
    requests: [AtomicUsize; CLIENTS * 2],
    closes: AtomicUsize,
}

/// How many clients each face has.
const CLIENTS: usize = 3;

/// How often a client tries again when its connection is closed, or it is not let in.
const TRIES: usize = 50;

#[test]
fn gateways_that_are_restarted_in_turn_fail_no_request() {
    let database = Backend::Postgres.database();
    database.create_account("USERNAME", "PASSWORD");
    let rows: String = (0..CLIENTS * 2)
        .map(|number| format!("c{number}@example.com\n"))
        .collect();
    database.import("USERNAME", &format!("email\n{rows}"));
    let mut gateways = [Gateway::start(&database, &[]), Gateway::start(&database, &[])];
    let addresses = Addresses {
        rest: Mutex::new([gateways[0].rest, gateways[1].rest]),
        grpc: Mutex::new([gateways[0].grpc.unwrap(), gateways[1].grpc.unwrap()]),
    };
    let done = Done::default();
    thread::scope(|scope| {
        let (addresses, done) = (&addresses, &done);
        for number in 0..CLIENTS {
            scope.spawn(move || legacy_client(number, addresses, done));
            scope.spawn(move || grpc_client(number + CLIENTS, addresses, done));
        }
        // Whatever fails here, the clients come to an end.
        let restarts = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _round in 0..2 {
                for (which, gateway) in gateways.iter_mut().enumerate() {
                    all_go_on(done);
                    let new = restarted(gateway, &database);
                    addresses.rest.lock().unwrap()[which] = new.rest;
                    addresses.grpc.lock().unwrap()[which] = new.grpc.unwrap();
                    *gateway = new;
                }
            }
            all_go_on(done);
        }));
        done.is_over.store(true, Ordering::Relaxed);
        restarts.unwrap();
    });
    assert!(
        done.closes.load(Ordering::Relaxed) > 0,
        "no client has noticed anything"
    );
}

/// Waits until each client has been answered a few times more.
fn all_go_on(done: &Done) {
    let count = || {
        done.requests
            .each_ref()
            .map(|requests| requests.load(Ordering::Relaxed))
    };
    let before = count();
    eventually("every client is served", || {
        std::iter::zip(before, count()).all(|(before, now)| now >= before + 20)
    });
}

/// Stops a gateway, which has to end in order, and gives the one that takes its place.
fn restarted(gateway: &mut Gateway, database: &Database) -> Gateway {
    gateway.signal("TERM");
    let output = gateway.end();
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!output.err.contains("did not end in time"), "{output:?}");
    Gateway::start(database, &[])
}

/// A client of the JSON endpoint that keeps its connection, and tries again when that is closed and for no other reason.
fn legacy_client(number: usize, addresses: &Addresses, done: &Done) {
    let mut kept: Option<Connection> = None;
    let mut place = number;
    for status in ["PASS", "FAIL", "PENDING"].iter().cycle() {
        let body = format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{{"email":"c{number}@example.com","status":"{status}"}}}}"#
        );
        let reply = (0..TRIES).find_map(|_| {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => {
                    let address = addresses.rest.lock().unwrap()[place % 2];
                    place += 1;
                    Connection::over(TcpStream::connect(address).ok()?)
                }
            };
            match connection.try_exchange(&post(body.as_bytes())) {
                Ok(reply) => {
                    kept = (reply.header("connection") != Some("close")).then_some(connection);
                    Some(reply)
                }
                Err(_) => {
                    done.closes.fetch_add(1, Ordering::Relaxed);
                    None
                }
            }
        });
        let reply = reply.expect("every connection was closed");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            reply.text().ends_with(&format!("\"status\":\"{status}\"}}}}")),
            "{}",
            reply.text()
        );
        done.requests[number].fetch_add(1, Ordering::Relaxed);
        if done.is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The same over gRPC.
fn grpc_client(number: usize, addresses: &Addresses, done: &Done) {
    let mut kept: Option<Client> = None;
    let mut place = number;
    for status in [S::Pass, S::Fail, S::Pending].into_iter().cycle() {
        let answer = (0..TRIES).find_map(|_| {
            let client = match kept.take() {
                Some(client) => client,
                None => {
                    let address = addresses.grpc.lock().unwrap()[place % 2];
                    place += 1;
                    Client::try_bare(address)?
                }
            };
            match update(&client, &format!("c{number}@example.com"), status) {
                Err(error) if is_of_the_connection(&error) => {
                    done.closes.fetch_add(1, Ordering::Relaxed);
                    None
                }
                answer => {
                    kept = Some(client);
                    Some(answer)
                }
            }
        });
        let customer = answer.expect("every connection was closed").unwrap().customer.unwrap();
        assert_eq!(customer.status(), status);
        done.requests[number].fetch_add(1, Ordering::Relaxed);
        if done.is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Whether it is the connection that failed, and not the server that has answered.
fn is_of_the_connection(status: &Status) -> bool {
    let unsent = status.code() == Code::Unknown && status.message().starts_with("Service was not ready");
    unsent || status.source().is_some()
}
