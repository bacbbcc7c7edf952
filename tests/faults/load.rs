//! Clients that change statuses and remember what they were told.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpStream},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    faults::ledger::{Attempt, Fate, Sent, Stored},
    support::{Connection, Database, Gateway, Reply, gateway::dcams_of, post},
};

pub const CLIENTS: usize = 8;

/// How many customers each client has for itself.
pub const CUSTOMERS: usize = 3;

/// The statuses by their numbers in the database, less one.
pub const STATUSES: [&str; 3] = ["PASS", "PENDING", "FAIL"];

/// Numbered so that the order of the addresses is that of the numbers.
pub fn email(number: usize) -> String {
    format!("c{number:03}@example.com")
}

/// Makes the account, each time by a new command.
pub fn create_account(database: &Database, command: impl Fn() -> Command) {
    dcams_of(
        command(),
        database,
        &["account", "create", "shop", "--password-stdin"],
        "secret",
    )
    .ok();
}

/// Registers the customers of all clients. Nothing was sent for them yet.
pub fn register(database: &Database, command: impl Fn() -> Command) -> Sent {
    let sent: Sent = (0..CLIENTS * CUSTOMERS)
        .map(|number| (email(number), Vec::new()))
        .collect();
    let content = sent.keys().fold(String::from("email\n"), |mut content, email| {
        writeln!(content, "{email}").unwrap();
        content
    });
    let file = database.file("customers.csv", content);
    let arguments = ["customer", "import", file.to_str().unwrap(), "--account", "shop"];
    dcams_of(command(), database, &arguments, "").ok();
    sent
}

/// A request of the shop.
pub fn body(service: &str, target: Value) -> String {
    json!({ "user": "shop", "pass": "secret", "service": service, "target": target }).to_string()
}

/// The status that the program tells; none when it is gone.
pub fn try_status(connection: &mut Connection, email: &str) -> Option<i32> {
    let reply = connection
        .try_exchange(&post(body("getStatus", json!({ "email": email })).as_bytes()))
        .ok()?;
    assert_eq!(reply.status, 200, "a read: {}", reply.text());
    let reply: Value = serde_json::from_slice(&reply.body).unwrap();
    let at = STATUSES.iter().position(|status| reply["status"] == *status).unwrap();
    Some(i32::try_from(at).unwrap() + 1)
}

/// The program tells what the database holds.
pub fn see(gateway: &Gateway, stored: &Stored, context: &str) {
    let mut connection = Connection::open(gateway.rest);
    for customer in &stored.customers {
        let status = try_status(&mut connection, &customer.email);
        assert_eq!(status, Some(customer.status), "{context}: {}", customer.email);
    }
}

/// One client, which changes the status of its customers in turn.
pub struct Client {
    rest: SocketAddr,
    connection: Connection,
    /// Whether the gateway closed it behind its last reply, as it does with one that is old.
    is_closed: bool,
    name: String,
    customers: Vec<(String, Option<i32>)>,
    number: usize,
}

/// What a client sent, and what came back; no reply when the gateway was gone.
pub struct Step {
    pub email: String,
    pub attempt: Attempt,
    pub reply: Option<Reply>,
}

impl Client {
    /// `round` and the number of the client must be those of no other: they name its requests.
    pub fn new(rest: SocketAddr, round: usize, client: usize) -> Self {
        Self {
            rest,
            connection: Connection::open(rest),
            is_closed: false,
            name: format!("r{round}-c{client}"),
            customers: (0..CUSTOMERS)
                .map(|number| (email(client * CUSTOMERS + number), None))
                .collect(),
            number: 0,
        }
    }

    /// Sends the next change, which is one from what the customer is known to be; none when the gateway is gone before.
    pub fn step(&mut self) -> Option<Step> {
        if std::mem::take(&mut self.is_closed) {
            self.connection = Connection::over(TcpStream::connect(self.rest).ok()?);
        }
        let number = self.number;
        self.number += 1;
        let (email, last) = &mut self.customers[number % CUSTOMERS];
        let before = last.or_else(|| try_status(&mut self.connection, email))?;
        let status = before % 3 + 1;
        let request_id = format!("{}-n{number}", self.name);
        let name = STATUSES[usize::try_from(status).unwrap() - 1];
        let body = body("updateStatus", json!({ "email": *email, "status": name }));
        let head = format!("\r\nX-Request-Id: {request_id}\r\n");
        let request = String::from_utf8(post(body.as_bytes()))
            .unwrap()
            .replacen("\r\n", &head, 1);
        let reply = self.connection.try_exchange(request.as_bytes()).ok();
        let fate = reply.as_ref().map_or(Fate::Open, fate);
        self.is_closed = reply
            .as_ref()
            .is_some_and(|reply| reply.header("connection") == Some("close"));
        // What it is now must be asked unless it is known.
        *last = (fate == Fate::Made).then_some(status);
        Some(Step {
            email: email.clone(),
            attempt: Attempt {
                request_id,
                status,
                fate,
            },
            reply,
        })
    }
}

/// What a reply says of a change.
pub fn fate(reply: &Reply) -> Fate {
    match (reply.status, reply.header("x-error-reason")) {
        (200, _) => Fate::Made,
        (_, Some("UNAVAILABLE" | "OVERLOADED")) => Fate::Refused,
        (_, Some("TIMEOUT")) => Fate::Open,
        _ => panic!("no clear reply: {} {}", reply.head, reply.text()),
    }
}
