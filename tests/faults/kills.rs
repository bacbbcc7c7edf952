//! A gateway that is killed under load loses no acknowledged change.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, Nullable, Text},
};
use serde_json::{Value, json};

use crate::{
    faults::{Random, either, seed},
    support::{Backend, Connection, Database, Gateway, dcams, post, until},
};

const CLIENTS: usize = 8;

/// How many customers each client has for itself.
const CUSTOMERS: usize = 3;

/// The most requests that are acknowledged before the gateway is killed.
const MOST: u64 = 400;

/// The statuses by their numbers in the database, less one.
const STATUSES: [&str; 3] = ["PASS", "PENDING", "FAIL"];

#[test]
fn a_killed_gateway_loses_no_acknowledged_change_on_sqlite() {
    survive(Backend::Sqlite, either(50, 500));
}

#[test]
fn a_killed_gateway_loses_no_acknowledged_change_on_postgresql() {
    survive(Backend::Postgres, either(50, 500));
}

/// A request that was sent, as the client remembers it.
#[derive(Clone, Debug)]
struct Attempt {
    request_id: String,
    status: i32,
    acknowledged: bool,
}

/// What was sent for each customer, in order.
type Sent = BTreeMap<String, Vec<Attempt>>;

/// A row of the history.
#[derive(Clone, Debug, QueryableByName)]
struct Change {
    #[diesel(sql_type = Text)]
    email: String,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Nullable<Integer>)]
    from_status: Option<i32>,
    #[diesel(sql_type = Integer)]
    to_status: i32,
    #[diesel(sql_type = Text)]
    request_id: String,
}

/// A customer as it is now.
#[derive(Clone, Debug, QueryableByName)]
struct Customer {
    #[diesel(sql_type = Text)]
    email: String,
    #[diesel(sql_type = Integer)]
    status: i32,
    #[diesel(sql_type = BigInt)]
    status_version: i64,
}

/// What the database holds.
#[derive(Clone, Debug)]
struct Stored {
    customers: Vec<Customer>,
    changes: Vec<Change>,
}

impl Stored {
    fn of(database: &Database) -> Self {
        let mut session = database.session();
        Self {
            customers: session.rows(
                "SELECT email_key AS email, CAST(status AS INTEGER) AS status, status_version FROM customers ORDER BY id",
            ),
            changes: session.rows(
                "SELECT c.email_key AS email, h.version, CAST(h.from_status AS INTEGER) AS from_status,
                        CAST(h.to_status AS INTEGER) AS to_status, h.request_id
                 FROM status_changes h LEFT JOIN customers c ON c.id = h.customer_id ORDER BY h.customer_id, h.version",
            ),
        }
    }
}

/// Whether the database holds what was acknowledged, what may have been made of the rest, and nothing else.
fn verify(stored: &Stored, sent: &Sent) -> Result<(), String> {
    let known = stored.customers.iter().map(|customer| &customer.email);
    if !known.clone().eq(sent.keys()) {
        return Err("the customers are not those that were registered".to_owned());
    }
    let rows: usize = known.map(|email| history(stored, email).count()).sum();
    if rows != stored.changes.len() {
        return Err("the history tells of nobody".to_owned());
    }
    for customer in &stored.customers {
        let email = &customer.email;
        verify_one(customer, history(stored, email), &sent[email]).map_err(|fault| format!("{email}: {fault}"))?;
    }
    Ok(())
}

fn history<'a>(stored: &'a Stored, email: &'a str) -> impl Iterator<Item = &'a Change> + Clone {
    stored.changes.iter().filter(move |change| change.email == email)
}

fn verify_one<'a>(
    customer: &Customer,
    history: impl Iterator<Item = &'a Change> + Clone,
    sent: &[Attempt],
) -> Result<(), String> {
    let mut status = None;
    let mut version = 0;
    for change in history.clone() {
        version += 1;
        if change.version != version {
            return Err(format!("version {version} is missing before {change:?}"));
        }
        if change.from_status != status || status == Some(change.to_status) {
            return Err(format!("{change:?} does not follow {status:?}"));
        }
        status = Some(change.to_status);
    }
    if (status, version) != (Some(customer.status), customer.status_version) {
        return Err(format!("{customer:?} is not what the history leads to"));
    }
    // The first row is the registration. Each one after it is an attempt, in their order, and only one that was not
    // acknowledged may be left out.
    let mut attempts = sent.iter();
    for change in history.skip(1) {
        let made = attempts.find(|attempt| attempt.acknowledged || attempt.request_id == change.request_id);
        match made {
            Some(attempt) if attempt.request_id == change.request_id && attempt.status == change.to_status => {}
            Some(attempt) => return Err(format!("{attempt:?} is lost, or {change:?} is wrong")),
            None => return Err(format!("nobody asked for {change:?}")),
        }
    }
    match attempts.find(|attempt| attempt.acknowledged) {
        Some(attempt) => Err(format!("{attempt:?} is lost")),
        None => Ok(()),
    }
}

/// Kills the gateway so often, each time after a random number of acknowledged requests, and looks each time at what is
/// left.
fn survive(backend: Backend, kills: usize) {
    let seed = seed(&format!("kills on {backend}"));
    let mut random = Random(seed);

    let database = backend.database();
    dcams(&database, &["account", "create", "shop", "--password-stdin"], "secret").ok();
    let mut sent: Sent = (0..CLIENTS * CUSTOMERS)
        .map(|number| (email(number), Vec::new()))
        .collect();
    let content = sent.keys().fold(String::from("email\n"), |mut content, email| {
        writeln!(content, "{email}").unwrap();
        content
    });
    let file = database.file("customers.csv", content);
    dcams(
        &database,
        &["customer", "import", file.to_str().unwrap(), "--account", "shop"],
        "",
    )
    .ok();

    for round in 0..kills {
        let mut gateway = Gateway::start(&database, &[]);
        let acknowledged = 1 + random.next() % MOST;
        load(&gateway, round, acknowledged, &mut sent);
        assert_eq!(gateway.end().code, -1, "killed");
        wait_for_the_last_session(&database);

        let context = || format!("{backend}, seed {seed}, killed at {acknowledged} in round {round}");
        let stored = Stored::of(&database);
        verify(&stored, &sent).unwrap_or_else(|fault| panic!("{}: {fault}", context()));
        // The program sees the same, after whatever it did to recover.
        let gateway = Gateway::start(&database, &[]);
        let mut connection = Connection::open(gateway.rest);
        for customer in &stored.customers {
            let status = status_now(&mut connection, &customer.email);
            assert_eq!(status, customer.status, "{}: {}", context(), customer.email);
        }
    }
    let acknowledged = sent.values().flatten().filter(|attempt| attempt.acknowledged).count();
    assert!(acknowledged >= kills);
    let history = dcams(&database, &["customer", "history", &email(0), "--account", "shop"], "").ok();
    let stored = Stored::of(&database);
    assert_eq!(history.lines().count() - 1, self::history(&stored, &email(0)).count());

    // And the check is one that fails: with the row of an acknowledged change gone from this very database.
    let (of, lost) = sent
        .iter()
        .find_map(|(email, attempts)| Some((email, attempts.iter().rfind(|attempt| attempt.acknowledged)?)))
        .unwrap();
    let lost = &lost.request_id;
    database
        .session()
        .execute(&format!("DELETE FROM status_changes WHERE request_id = '{lost}'"));
    let fault = verify(&Stored::of(&database), &sent).unwrap_err();
    assert!(fault.starts_with(of.as_str()), "{fault}");
}

/// Sends updates from many clients until so many are acknowledged, then kills the gateway under them.
fn load(gateway: &Gateway, round: usize, acknowledged: u64, sent: &mut Sent) {
    let (report, reports) = channel();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let report = report.clone();
                scope.spawn(move || ask(gateway, round, client, &report))
            })
            .collect();
        for _ in 0..acknowledged {
            reports.recv_timeout(Duration::from_secs(60)).expect("no reply");
        }
        gateway.signal("KILL");
        for client in clients {
            for (email, attempt) in client.join().unwrap() {
                sent.get_mut(&email).unwrap().push(attempt);
            }
        }
    });
}

/// One client: changes the status of its customers in turn until the gateway is gone.
fn ask(gateway: &Gateway, round: usize, client: usize, report: &Sender<()>) -> Vec<(String, Attempt)> {
    let mut connection = Connection::open(gateway.rest);
    let mut customers: Vec<_> = (0..CUSTOMERS)
        .map(|number| (email(client * CUSTOMERS + number), None))
        .collect();
    let mut sent = Vec::new();
    for number in 0.. {
        let (email, last) = &mut customers[number % CUSTOMERS];
        let Some(before) = last.or_else(|| try_status(&mut connection, email)) else {
            break;
        };
        let status = before % 3 + 1;
        let request_id = format!("r{round}-c{client}-n{number}");
        let name = STATUSES[usize::try_from(status).unwrap() - 1];
        let body = body("updateStatus", json!({ "email": *email, "status": name }));
        let head = format!("\r\nX-Request-Id: {request_id}\r\n");
        let request = String::from_utf8(post(body.as_bytes()))
            .unwrap()
            .replacen("\r\n", &head, 1);
        let reply = connection.try_exchange(request.as_bytes());
        let acknowledged = reply.is_ok();
        sent.push((
            email.clone(),
            Attempt {
                request_id,
                status,
                acknowledged,
            },
        ));
        let Ok(reply) = reply else {
            break;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
        *last = Some(status);
        // Nobody counts any more once the gateway is killed.
        let _ = report.send(());
    }
    sent
}

/// A server goes on with what a killed client has asked for: the test waits until that is done too.
fn wait_for_the_last_session(database: &Database) {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    if database.backend == Backend::Postgres {
        let mut session = database.session();
        until("the server ends the sessions of the killed gateway", || {
            let sessions: Vec<Count> = session.rows(
                "SELECT count(*) AS count FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            );
            (sessions[0].count == 0).then_some(())
        });
    }
}

/// Numbered so that the order of the addresses is that of the numbers.
fn email(number: usize) -> String {
    format!("c{number:03}@example.com")
}

fn body(service: &str, target: Value) -> String {
    json!({ "user": "shop", "pass": "secret", "service": service, "target": target }).to_string()
}

fn status_now(connection: &mut Connection, email: &str) -> i32 {
    try_status(connection, email).unwrap()
}

/// The status that the program tells; none when it is gone.
fn try_status(connection: &mut Connection, email: &str) -> Option<i32> {
    let reply = connection
        .try_exchange(&post(body("getStatus", json!({ "email": email })).as_bytes()))
        .ok()?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply: Value = serde_json::from_slice(&reply.body).unwrap();
    let at = STATUSES.iter().position(|status| reply["status"] == *status).unwrap();
    Some(i32::try_from(at).unwrap() + 1)
}

/// What the check says of a sound database after something was done to it, or to what was sent.
fn verdict(spoil: impl FnOnce(&mut Stored, &mut Vec<Attempt>)) -> Result<(), String> {
    let attempt = |id: &str, status, acknowledged| Attempt {
        request_id: id.to_owned(),
        status,
        acknowledged,
    };
    let change = |version, from_status, to_status, id: &str| Change {
        email: email(0),
        version,
        from_status,
        to_status,
        request_id: id.to_owned(),
    };
    // Pending at first; `b` was lost on the way, `d` was made although nobody heard of it.
    let mut attempts = vec![
        attempt("a", 3, true),
        attempt("b", 1, false),
        attempt("c", 1, true),
        attempt("d", 2, false),
    ];
    let mut stored = Stored {
        customers: vec![Customer {
            email: email(0),
            status: 2,
            status_version: 4,
        }],
        changes: vec![
            change(1, None, 2, "import"),
            change(2, Some(2), 3, "a"),
            change(3, Some(3), 1, "c"),
            change(4, Some(1), 2, "d"),
        ],
    };
    spoil(&mut stored, &mut attempts);
    verify(&stored, &Sent::from([(email(0), attempts)]))
}

#[test]
fn the_check_accepts_what_may_be() {
    assert_eq!(verdict(|_, _| {}), Ok(()));
    // Nor need the last attempt have been made.
    let without = verdict(|stored, _| {
        stored.changes.pop();
        stored.customers[0].status = 1;
        stored.customers[0].status_version = 3;
    });
    assert_eq!(without, Ok(()));
}

#[test]
fn the_check_finds_every_kind_of_loss() {
    type Spoil = fn(&mut Stored, &mut Vec<Attempt>);
    let cases: [(&str, Spoil); 11] = [
        ("a change without its row", |stored, _| {
            stored.changes.pop();
        }),
        ("a row without its change", |stored, _| stored.customers[0].status = 1),
        ("a row too few", |stored, _| {
            stored.changes.remove(1);
        }),
        ("a version twice", |stored, _| stored.changes[2].version = 2),
        ("a broken chain", |stored, _| stored.changes[2].from_status = Some(2)),
        ("a change to the same", |stored, _| {
            stored.changes[3].to_status = 1;
            stored.customers[0].status = 1;
        }),
        ("a version that does not count", |stored, _| {
            stored.customers[0].status_version = 5
        }),
        ("a lost acknowledged change, all else sound", |stored, _| {
            stored.changes.truncate(2);
            stored.customers[0].status = 3;
            stored.customers[0].status_version = 2;
        }),
        ("a change that nobody asked for", |_, attempts| {
            attempts.pop();
        }),
        ("the change of another request", |stored, _| {
            stored.changes[1].request_id = "b".to_owned()
        }),
        ("a row of a customer that is not there", |stored, _| {
            stored.changes[3].email = email(1);
            stored.customers[0].status = 1;
            stored.customers[0].status_version = 3;
        }),
    ];
    for (case, spoil) in cases {
        assert!(verdict(spoil).is_err(), "{case}");
    }
}
