//! Credentials over the wire: what is refused, that all refusals look the same, and that a change holds on the next
//! request everywhere.

use std::{net::SocketAddr, sync::Barrier};

use base64::{Engine, prelude::BASE64_STANDARD};
use proto::{
    Client, Refusal,
    v1::{GetStatusRequest, UpdateStatusRequest},
};
use tonic::{Code, Request, Status, transport::Endpoint};

use crate::support::{Backend, Connection, Database, Gateway, Reply, dcams};

const EMAIL: &str = "canary@example.com";
const PASSWORD: &str = "right canary";

/// A database with the account `shop` and a customer.
fn shop(backend: Backend) -> Database {
    let database = backend.database();
    create(&database, "shop", PASSWORD);
    let customers = database.file("customers.csv", format!("email\n{EMAIL}\n"));
    let import = ["customer", "import", customers.to_str().unwrap(), "--account", "shop"];
    dcams(&database, &import, "").ok();
    database
}

fn create(database: &Database, name: &str, password: &str) {
    dcams(database, &["account", "create", name, "--password-stdin"], password).ok();
}

/// A legacy request that sets the customer's status.
fn update(user: &str, pass: &str, email: &str) -> String {
    format!(
        r#"{{"user":"{user}","pass":"{pass}","service":"updateStatus","target":{{"email":"{email}","status":"PASS"}}}}"#
    )
}

/// Posts a body as a proxy does for a client at an address.
fn post_from(gateway: &Gateway, client: &str, body: &str) -> Reply {
    let request = format!(
        "POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nX-Forwarded-For: {client}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Connection::open(gateway.rest).exchange(request.as_bytes())
}

/// A reply without what is different in each: the date and the name of the request.
fn without_date_and_id(reply: &Reply) -> (u16, Vec<String>, String) {
    let head = reply.head.lines().map(str::to_ascii_lowercase);
    let head = head.filter(|line| !line.starts_with("date:") && !line.starts_with("x-request-id:"));
    (reply.status, head.collect(), reply.text().to_owned())
}

/// A connection to the gRPC face of a gateway.
struct Grpc {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Grpc {
    fn open(gateway: &Gateway) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let address: SocketAddr = gateway.grpc.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self {
            runtime,
            client: proto::client(channel),
        }
    }

    /// Sets the customer's status.
    fn update(&self, user: &str, pass: &str, email: &str) -> Result<(), Status> {
        let message = UpdateStatusRequest {
            email: email.to_owned(),
            status: proto::v1::Status::Pass.into(),
            ..UpdateStatusRequest::default()
        };
        let call = async { self.client.clone().update_status(signed(message, user, pass)).await };
        self.runtime.block_on(call).map(drop)
    }

    /// Reads the customer's status.
    fn get(&self, user: &str, pass: &str, email: &str) -> Result<(), Status> {
        let message = GetStatusRequest {
            email: email.to_owned(),
        };
        let call = async { self.client.clone().get_status(signed(message, user, pass)).await };
        self.runtime.block_on(call).map(drop)
    }
}

/// A call with credentials.
fn signed<T>(message: T, user: &str, pass: &str) -> Request<T> {
    let mut request = Request::new(message);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{pass}")));
    request.metadata_mut().insert("authorization", basic.parse().unwrap());
    request
}

/// A gateway, with a connection open to each of its faces.
struct Faces {
    rest: Connection,
    grpc: Grpc,
    _gateway: Gateway,
}

impl Faces {
    fn open(database: &Database) -> Self {
        let gateway = Gateway::start(database, &[]);
        Self {
            rest: Connection::open(gateway.rest),
            grpc: Grpc::open(&gateway),
            _gateway: gateway,
        }
    }

    /// Checks that the credentials are taken, over both faces.
    #[track_caller]
    fn accepts(&mut self, pass: &str, when: &str) {
        let reply = self.rest.post(update("shop", pass, EMAIL));
        assert_eq!(reply.status, 200, "{when}: {reply:?}");
        self.grpc.update("shop", pass, EMAIL).expect(when);
        self.grpc.get("shop", pass, EMAIL).expect(when);
    }

    /// Checks that the credentials are refused, over both faces, whatever else there is to say.
    #[track_caller]
    fn refuses(&mut self, pass: &str, when: &str) {
        for email in [EMAIL, "unknown@example.com", "no address", ""] {
            let reply = self.rest.post(update("shop", pass, email));
            assert_eq!(reply.status, 401, "{when}, {email:?}: {reply:?}");
            let status = self.grpc.update("shop", pass, email).expect_err(when);
            assert_eq!(status.code(), Code::Unauthenticated, "{when}, {email:?}: {status:?}");
        }
        let status = self.grpc.get("shop", pass, EMAIL).expect_err(when);
        assert_eq!(status.code(), Code::Unauthenticated, "{when}: {status:?}");
    }
}

#[test]
fn whatever_is_wrong_with_credentials_is_refused_with_the_same_bytes() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        create(&database, "closed", PASSWORD);
        dcams(&database, &["account", "disable", "closed"], "").ok();
        let gateway = Gateway::start(&database, &[]);
        let grpc = Grpc::open(&gateway);

        let wrong = [
            ("shop", "wrong"),
            ("nobody", PASSWORD),
            ("closed", PASSWORD),
            ("closed", "wrong"),
        ];
        let (first, others) = wrong.split_first().unwrap();
        let rest = |(user, pass): (&str, &str)| without_date_and_id(&gateway.post(update(user, pass, EMAIL)));
        let expected = rest(*first);
        assert_eq!(
            (expected.0, expected.2.as_str()),
            (
                401,
                r#"{"result":"Error","message":"Either your username or password is incorrect"}"#
            ),
            "{backend}"
        );
        let rpc = |(user, pass): (&str, &str)| {
            let status = grpc.update(user, pass, EMAIL).unwrap_err();
            let mut metadata = status.metadata().clone();
            metadata.remove("x-request-id");
            metadata.remove("date");
            (
                status.code(),
                status.message().to_owned(),
                status.details().to_vec(),
                format!("{metadata:?}"),
            )
        };
        let expected_rpc = rpc(*first);
        for other in others {
            assert_eq!(rest(*other), expected, "{backend}: {other:?}");
            assert_eq!(rpc(*other), expected_rpc, "{backend}: {other:?}");
        }
        assert_eq!(gateway.post(update("shop", PASSWORD, EMAIL)).status, 200, "{backend}");
    }
}

#[test]
fn a_disabled_account_is_refused_on_the_next_request_everywhere_and_an_enabled_one_is_back() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let mut gateways = [Faces::open(&database), Faces::open(&database)];
        for gateway in &mut gateways {
            gateway.accepts(PASSWORD, &format!("{backend}: at first"));
        }
        dcams(&database, &["account", "disable", "shop"], "").ok();
        for gateway in &mut gateways {
            gateway.refuses(PASSWORD, &format!("{backend}: disabled"));
        }
        dcams(&database, &["account", "enable", "shop"], "").ok();
        for gateway in &mut gateways {
            gateway.accepts(PASSWORD, &format!("{backend}: enabled"));
        }
    }
}

#[test]
fn a_new_password_counts_from_the_next_request_everywhere_and_the_old_one_no_longer() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let mut gateways = [Faces::open(&database), Faces::open(&database)];
        for gateway in &mut gateways {
            gateway.accepts(PASSWORD, &format!("{backend}: at first"));
        }
        let set = ["account", "set-password", "shop", "--password-stdin"];
        dcams(&database, &set, "second canary").ok();
        let [one, other] = &mut gateways;
        one.accepts("second canary", &format!("{backend}: the new one, before the old"));
        for gateway in [one, other] {
            gateway.refuses(PASSWORD, &format!("{backend}: the old one"));
            gateway.accepts("second canary", &format!("{backend}: the new one"));
        }
    }
}

#[test]
fn a_disabled_account_is_refused_before_its_input_is_judged() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let gateways = [Gateway::start(&database, &[]), Gateway::start(&database, &[])];
        let faulty = [
            update("shop", PASSWORD, "no address"),
            update("shop", PASSWORD, ""),
            update("shop", PASSWORD, EMAIL).replace("PASS\"}", "MAYBE\"}"),
            update("shop", PASSWORD, EMAIL).replace("updateStatus", "unknownService"),
            update("shop", PASSWORD, EMAIL).replace(r#""target""#, r#""elsewhere""#),
        ];
        for gateway in &gateways {
            for body in &faulty {
                let reply = gateway.post(body);
                assert_eq!(reply.status, 400, "{backend}: {body}: {reply:?}");
            }
        }
        // The very next request of each gateway carries another fault.
        for body in &faulty {
            dcams(&database, &["account", "disable", "shop"], "").ok();
            for gateway in &gateways {
                let reply = gateway.post(body);
                assert_eq!(reply.status, 401, "{backend}: {body}: {reply:?}");
            }
            dcams(&database, &["account", "enable", "shop"], "").ok();
            for gateway in &gateways {
                let reply = gateway.post(body);
                assert_eq!(reply.status, 400, "{backend}: {body}: {reply:?}");
            }
        }
    }
}

#[test]
fn guessing_is_slowed_down_for_that_user_at_that_address_alone() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        create(&database, "other", PASSWORD);
        let gateway = Gateway::start(&database, &["--trusted-proxy", "127.0.0.1"]);
        let (home, away) = ("192.0.2.1", "198.51.100.1");
        let right = |user, from| post_from(&gateway, from, &update(user, PASSWORD, EMAIL)).status;
        let guess = |number: u32| post_from(&gateway, away, &update("shop", &format!("wrong {number}"), EMAIL));

        for number in 0..10 {
            assert_eq!(guess(number).status, 401, "{backend}: {number}");
        }
        for reply in [guess(10), post_from(&gateway, away, &update("shop", PASSWORD, EMAIL))] {
            assert_eq!(reply.status, 429, "{backend}: {reply:?}");
            assert_eq!(reply.header("x-error-reason"), Some("THROTTLED"), "{backend}");
            assert_eq!(
                reply.text(),
                r#"{"result":"Error","message":"Too many requests"}"#,
                "{backend}"
            );
            let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{backend}: {wait}");
        }
        assert_eq!(right("shop", home), 200, "{backend}: the same user elsewhere");
        // That customer is not one of the other's, and so the other has got in.
        assert_eq!(right("other", away), 404, "{backend}: another user there");
    }
}

#[test]
fn an_owner_at_a_known_address_gets_in_while_others_guess_from_everywhere() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        create(&database, "other", PASSWORD);
        let gateway = Gateway::start(&database, &["--trusted-proxy", "127.0.0.1"]);
        let home = "192.0.2.1";
        let right = |user, from| post_from(&gateway, from, &update(user, PASSWORD, EMAIL)).status;
        assert_eq!(right("shop", home), 200, "{backend}: at first");

        // No more than nine from one address, so that only the user's own limit is met.
        let guesses = (0..30).map(|number| {
            let from = format!("198.51.100.{}", number / 9);
            post_from(&gateway, &from, &update("shop", &format!("wrong {number}"), EMAIL)).status
        });
        assert_eq!(guesses.filter(|status| *status == 401).count(), 30, "{backend}");

        assert_eq!(right("shop", "203.0.113.1"), 429, "{backend}: a stranger");
        assert_eq!(right("shop", home), 200, "{backend}: the owner");
        assert_eq!(right("other", "203.0.113.1"), 404, "{backend}: another user");
        let grpc = Grpc::open(&gateway);
        let status = grpc.get("shop", PASSWORD, EMAIL).unwrap_err();
        let refusal = Refusal::from(&status);
        assert_eq!(status.code(), Code::ResourceExhausted, "{backend}: {status:?}");
        assert_eq!(refusal.reason.name(), "THROTTLED", "{backend}: {status:?}");
        assert!(refusal.retry_after.is_some(), "{backend}: {status:?}");
    }
}

#[test]
fn a_worker_that_keeps_an_old_password_locks_nobody_out() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let gateway = Gateway::start(&database, &[]);
        let status = |password| gateway.post(update("shop", password, EMAIL)).status;
        assert_eq!(status(PASSWORD), 200, "{backend}");
        dcams(
            &database,
            &["account", "set-password", "shop", "--password-stdin"],
            "new password",
        )
        .ok();
        for number in 0..25 {
            assert_eq!(status(PASSWORD), 401, "{backend}: {number}");
        }
        assert_eq!(status("new password"), 200, "{backend}");
        assert_eq!(status(PASSWORD), 401, "{backend}");
    }
}

#[test]
fn many_connections_that_start_at_once_with_the_right_password_all_get_in() {
    const CLIENTS: usize = 64;
    for backend in Backend::BOTH {
        let database = shop(backend);
        let gateway = Gateway::start(&database, &[]);
        let (barrier, body) = (Barrier::new(CLIENTS), update("shop", PASSWORD, EMAIL));
        let statuses: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = Connection::open(gateway.rest);
                        barrier.wait();
                        connection.post(&body).status
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(statuses, [200; CLIENTS], "{backend}");
    }
}
