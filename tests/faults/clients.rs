//! Clients on both faces that find out what became of each change that they asked for, whatever fails on the way.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use proto::v1::{
    ListStatusChangesRequest, UpdateStatusRequest, UpdateStatusResponse, storage_service_client::StorageServiceClient,
};
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    faults::{
        ledger::{Attempt, Fate, Sent},
        load::{CUSTOMERS, STATUSES, body, email, fate},
    },
    grpc::feed::with,
    support::{Connection, Gateway, eventually, post},
};

const CREDENTIALS: &str = "shop:secret";

/// How long a client tries to find out what became of a change before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client finds out what became of a change when it was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It makes another change, and then sends the first one again with its idempotency key.
    Keyed,
    /// It sends the same again until it is answered: nobody else changes its customers.
    Repeating,
    /// It makes another change, and then looks for the first one in the history.
    Asking,
    /// As with a key, but without one. It does wrong, and has what it asked for made twice.
    Careless,
}

/// A change that is asked for.
#[derive(Clone, Debug)]
struct Wanted {
    email: String,
    status: i32,
    request_id: String,
}

/// What came back, and the customer's revision after a change that was made.
type Answer = (Fate, u64);

/// A face of a gateway, and the way to it.
enum Face {
    Rest {
        address: SocketAddr,
        connection: Option<Connection>,
    },
    Grpc(StorageServiceClient<Channel>),
}

impl Face {
    fn set(&mut self, runtime: &Runtime, wanted: &Wanted, key: bool) -> Answer {
        match self {
            Self::Rest { address, connection } => {
                // Nothing was sent.
                let Some(mut open) = connection
                    .take()
                    .or_else(|| TcpStream::connect(*address).ok().map(Connection::over))
                else {
                    return (Fate::Refused, 0);
                };
                let Ok(reply) = open.try_exchange(&wanted.posted(key)) else {
                    return (Fate::Open, 0);
                };
                // One that is old is closed behind its reply.
                if reply.header("connection") != Some("close") {
                    *connection = Some(open);
                }
                let etag = reply.header("etag").unwrap_or_default().trim_matches('"').to_owned();
                (fate(&reply), revision(&etag))
            }
            Self::Grpc(client) => {
                let answer = runtime.block_on(client.update_status(wanted.message(key)));
                let customer = answer.map(|answer: tonic::Response<UpdateStatusResponse>| answer.into_inner().customer);
                match customer {
                    Ok(customer) => (Fate::Made, revision(&customer.unwrap().etag)),
                    Err(status) => (fate_of(&status), 0),
                }
            }
        }
    }
}

impl Wanted {
    /// As a request of the JSON endpoint.
    fn posted(&self, key: bool) -> Vec<u8> {
        let name = STATUSES[usize::try_from(self.status).unwrap() - 1];
        let body = body("updateStatus", json!({ "email": self.email, "status": name }));
        let id = &self.request_id;
        let key = if key {
            format!("Idempotency-Key: {id}\r\n")
        } else {
            String::new()
        };
        String::from_utf8(post(body.as_bytes()))
            .unwrap()
            .replacen("\r\n", &format!("\r\nX-Request-Id: {id}\r\n{key}"), 1)
            .into_bytes()
    }

    /// As a call.
    fn message(&self, key: bool) -> Request<UpdateStatusRequest> {
        let message = UpdateStatusRequest {
            email: self.email.clone(),
            status: self.status,
            idempotency_key: if key { self.request_id.clone() } else { String::new() },
            ..UpdateStatusRequest::default()
        };
        let mut request = with(CREDENTIALS, message);
        request
            .metadata_mut()
            .insert("x-request-id", self.request_id.parse().unwrap());
        request
    }

    fn attempt(self, fate: Fate) -> (String, Attempt) {
        let Self {
            email,
            status,
            request_id,
        } = self;
        (
            email,
            Attempt {
                request_id,
                status,
                fate,
            },
        )
    }
}

/// How often the customer was changed that has this etag.
fn revision(etag: &str) -> u64 {
    etag.rsplit_once('-').map_or(0, |(_, number)| number.parse().unwrap())
}

/// What an error says of a change. What has no details is not from the service.
fn fate_of(status: &Status) -> Fate {
    match status.code() {
        Code::DeadlineExceeded => Fate::Open,
        _ if status.details().is_empty() => Fate::Open,
        Code::Unavailable | Code::ResourceExhausted => Fate::Refused,
        _ => panic!("no clear answer: {status:?}"),
    }
}

/// What the clients of a round share.
pub struct Board {
    stop: AtomicBool,
    /// How often each client was told that a change was made.
    made: Vec<AtomicUsize>,
    /// How long a client waits that was refused.
    pause: Duration,
}

impl Board {
    fn new(clients: usize, pause: Duration) -> Self {
        Self {
            stop: AtomicBool::new(false),
            made: (0..clients).map(|_| AtomicUsize::new(0)).collect(),
            pause,
        }
    }

    fn counts(&self) -> Vec<usize> {
        self.made.iter().map(|made| made.load(Relaxed)).collect()
    }

    /// How many changes were acknowledged.
    pub fn made(&self) -> usize {
        self.counts().iter().sum()
    }

    /// Waits until so many more are acknowledged.
    pub fn reach(&self, more: usize) {
        let goal = self.made() + more;
        eventually("the clients go on", || {
            thread::sleep(Duration::from_millis(1));
            self.made() >= goal
        });
    }

    /// Waits until each client has one more acknowledged, and tells how long that took.
    pub fn all_write_again(&self) -> Duration {
        let (began, before) = (Instant::now(), self.counts());
        eventually("every client writes again", || {
            thread::sleep(Duration::from_millis(1));
            self.counts().iter().zip(&before).all(|(now, before)| now > before)
        });
        began.elapsed()
    }
}

/// How requests ended, and what came of those of which the client was not told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub made: usize,
    pub refused: usize,
    /// Of which it was found out later that they were made.
    pub found_made: usize,
    /// Of which it was found out later that they never were.
    pub found_not_made: usize,
}

/// A client, and the customers that it has for itself.
pub struct Client {
    face: Face,
    /// For what it asks the history.
    grpc: StorageServiceClient<Channel>,
    manner: Manner,
    name: String,
    customers: Vec<(String, i32)>,
    number: usize,
    attempts: Vec<(String, Attempt)>,
    pub tally: Tally,
}

impl Client {
    /// The client with this number, which reaches a gateway by these addresses; its customers are registered and new. `name`
    /// must be that of no other: it names its requests.
    pub fn new(runtime: &Runtime, number: usize, manner: Manner, rest: SocketAddr, grpc: SocketAddr) -> Self {
        let _entered = runtime.enter();
        let endpoint = Endpoint::from_shared(format!("http://{grpc}")).unwrap();
        let grpc = StorageServiceClient::new(endpoint.connect_lazy());
        let face = if number.is_multiple_of(2) {
            Face::Rest {
                address: rest,
                connection: None,
            }
        } else {
            Face::Grpc(grpc.clone())
        };
        Self {
            face,
            grpc,
            manner,
            name: format!("c{number}"),
            // PENDING, as whoever is registered.
            customers: (0..CUSTOMERS)
                .map(|customer| (email(number * CUSTOMERS + customer), 2))
                .collect(),
            number: 0,
            attempts: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Clients of every manner but the careless on both faces, spread over gateways.
    pub fn crew(runtime: &Runtime, count: usize, gateways: &[&Gateway]) -> Vec<Self> {
        (0..count)
            .map(|number| {
                let manner = [Manner::Keyed, Manner::Repeating, Manner::Asking][number / 2 % 3];
                let gateway = gateways[(number + number / 2) % gateways.len()];
                Self::new(runtime, number, manner, gateway.rest, gateway.grpc.unwrap())
            })
            .collect()
    }

    /// Changes the customers in turn until the board says that it is over. Then everything that was asked for has become known.
    pub fn run(&mut self, runtime: &Runtime, board: &Board, at: usize) {
        while !board.stop.load(Relaxed) {
            let turn = self.number % CUSTOMERS;
            let (_, before) = self.customers[turn];
            let wanted = self.wanted(turn, before % 3 + 1);
            match self.send(runtime, &wanted, board, at).0 {
                Fate::Made => {
                    self.tally.made += 1;
                    self.settle(turn, wanted, Fate::Made);
                }
                Fate::Refused => {
                    self.tally.refused += 1;
                    self.attempts.push(wanted.attempt(Fate::Refused));
                    thread::sleep(board.pause);
                }
                Fate::Open => self.find_out(runtime, board, at, turn, wanted),
            }
        }
    }

    fn wanted(&mut self, turn: usize, status: i32) -> Wanted {
        self.number += 1;
        Wanted {
            email: self.customers[turn].0.clone(),
            status,
            request_id: format!("{}-n{}", self.name, self.number),
        }
    }

    fn send(&mut self, runtime: &Runtime, wanted: &Wanted, board: &Board, at: usize) -> Answer {
        let answer = self.face.set(runtime, wanted, self.manner == Manner::Keyed);
        if answer.0 == Fate::Made {
            board.made[at].fetch_add(1, Relaxed);
        }
        answer
    }

    /// Remembers what became of a change.
    fn settle(&mut self, turn: usize, wanted: Wanted, fate: Fate) {
        if fate == Fate::Made {
            self.customers[turn].1 = wanted.status;
        }
        self.attempts.push(wanted.attempt(fate));
    }

    /// Sends a change until it is made, and gives the customer's revision.
    fn insist(&mut self, runtime: &Runtime, board: &Board, at: usize, wanted: &Wanted) -> u64 {
        let began = Instant::now();
        loop {
            match self.send(runtime, wanted, board, at) {
                (Fate::Made, revision) => return revision,
                (Fate::Refused | Fate::Open, _) => thread::sleep(board.pause),
            }
            assert!(began.elapsed() < PATIENCE, "{wanted:?} did not become known");
        }
    }

    /// Finds out what became of a change.
    fn find_out(&mut self, runtime: &Runtime, board: &Board, at: usize, turn: usize, wanted: Wanted) {
        // Neither what the customer was before, nor what it may have become.
        let (_, before) = self.customers[turn];
        match self.manner {
            Manner::Repeating => {
                self.insist(runtime, board, at, &wanted);
                self.tally.found_made += 1;
                self.settle(turn, wanted, Fate::Made);
            }
            Manner::Keyed | Manner::Careless => {
                let other = self.wanted(turn, (before + 1) % 3 + 1);
                let later = self.insist(runtime, board, at, &other);
                let revision = self.insist(runtime, board, at, &wanted);
                if revision < later {
                    self.tally.found_made += 1;
                    self.settle(turn, wanted, Fate::Made);
                    self.settle(turn, other, Fate::Made);
                } else {
                    // It had not been made: it was now.
                    self.tally.found_not_made += 1;
                    self.settle(turn, other, Fate::Made);
                    self.settle(turn, wanted, Fate::Made);
                }
            }
            Manner::Asking => {
                let other = self.wanted(turn, (before + 1) % 3 + 1);
                self.insist(runtime, board, at, &other);
                let fate = match self.history(runtime, &wanted.email).contains(&wanted.request_id) {
                    true => Fate::Made,
                    false => Fate::Refused,
                };
                self.tally.found_made += usize::from(fate == Fate::Made);
                self.tally.found_not_made += usize::from(fate == Fate::Refused);
                self.settle(turn, wanted, fate);
                self.settle(turn, other, Fate::Made);
            }
        }
    }

    /// The ids of the requests in the history of a customer.
    fn history(&mut self, runtime: &Runtime, email: &str) -> BTreeSet<String> {
        let began = Instant::now();
        let (mut ids, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let message = ListStatusChangesRequest {
                email: email.to_owned(),
                page_size: 1_000,
                page_token: page_token.clone(),
                ..ListStatusChangesRequest::default()
            };
            match runtime.block_on(self.grpc.list_status_changes(with(CREDENTIALS, message))) {
                Ok(answer) => {
                    let page = answer.into_inner();
                    ids.extend(page.changes.into_iter().map(|change| change.request_id));
                    page_token = page.next_page_token;
                    if page_token.is_empty() {
                        return ids;
                    }
                }
                Err(status) => {
                    assert!(began.elapsed() < PATIENCE, "no history of {email}: {status:?}");
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

/// Ends the work when this is dropped: also when what is done meanwhile has failed.
struct Stop<'a>(&'a Board);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

/// Lets clients work while `trouble` is made, and adds what they sent to `sent`. Afterwards nothing is open.
pub fn work<T>(
    runtime: &Runtime,
    clients: &mut [Client],
    pause: Duration,
    sent: &mut Sent,
    trouble: impl FnOnce(&Board) -> T,
) -> T {
    let board = Board::new(clients.len(), pause);
    let result = thread::scope(|scope| {
        for (at, client) in clients.iter_mut().enumerate() {
            let board = &board;
            scope.spawn(move || client.run(runtime, board, at));
        }
        let _stop = Stop(&board);
        trouble(&board)
    });
    for (email, attempt) in clients.iter_mut().flat_map(|client| client.attempts.drain(..)) {
        sent.get_mut(&email).unwrap().push(attempt);
    }
    result
}

/// What the clients have come to, all together.
pub fn tally(clients: &[Client]) -> Tally {
    clients.iter().fold(Tally::default(), |all, client| Tally {
        made: all.made + client.tally.made,
        refused: all.refused + client.tally.refused,
        found_made: all.found_made + client.tally.found_made,
        found_not_made: all.found_not_made + client.tally.found_not_made,
    })
}
