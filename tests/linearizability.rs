//! Every customer behaves as one register: what clients saw of sets, conditional sets and reads through two gateways at once
//! can be put in one order, in which each lies between its call and its answer. Databases and gateways fail meanwhile.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proto::v1::{
    GetStatusRequest, Status as Verification, UpdateStatusRequest, storage_service_client::StorageServiceClient,
};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

use crate::support::{Backend, Cluster, Database, Durability, Gateway};

const CLIENTS: u64 = 8;
const CUSTOMERS: u64 = 4;

/// How many operations a run has at least.
const OPERATIONS: u64 = 3_000;

/// A customer as a client sees it: its status, and how often it was changed.
type State = (i32, u64);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Read,
    Set(i32),
    /// To set the second if the first is the status.
    SetIfStatus(i32, i32),
    /// To set the second if the customer was changed so often.
    SetIfChanged(u64, i32),
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Seen(State),
    Conflict,
    /// There was none: it may have been done, or be done at any time, or never.
    Open,
}

/// What a client did.
#[derive(Clone, Copy, Debug)]
struct Operation {
    call: Call,
    answer: Answer,
    began: Instant,
    ended: Instant,
}

impl Operation {
    /// What the customer is after this, if it comes to its answer there.
    fn after(&self, state: State) -> Option<State> {
        let set = |status| {
            if status == state.0 {
                state
            } else {
                (status, state.1 + 1)
            }
        };
        let (next, holds) = match self.call {
            Call::Read => (state, true),
            Call::Set(status) => (set(status), true),
            Call::SetIfStatus(expected, status) => (set(status), state.0 == expected),
            Call::SetIfChanged(expected, status) => (set(status), state.1 == expected),
        };
        match self.answer {
            Answer::Open => Some(if holds { next } else { state }),
            Answer::Conflict => (!holds).then_some(state),
            // An answer that had to be looked up does not always know how often.
            Answer::Seen((status, 0)) => (holds && status == next.0).then_some(next),
            Answer::Seen(seen) => (holds && seen == next).then_some(next),
        }
    }
}

/// Looks for an order of all operations that explains their answers; that of Wing and Gong, with what was tried
/// remembered: <https://www.cs.cmu.edu/~wing/publications/WingGong93.pdf>. Tells how many can be explained if not all can.
fn check(operations: &[Operation], first: State) -> Result<(), usize> {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.began);
    let needed = operations
        .iter()
        .filter(|operation| operation.answer != Answer::Open)
        .count();
    let mut tried = HashSet::new();
    let mut best = 0;
    let mut stack = vec![(vec![0_u64; operations.len().div_ceil(64)], first, 0)];
    while let Some((done, state, count)) = stack.pop() {
        if count == needed {
            return Ok(());
        }
        if !tried.insert((done.clone(), state)) {
            continue;
        }
        best = best.max(count);
        let is_done = |number: usize| done[number / 64] >> (number % 64) & 1 == 1;
        // What began behind the first end cannot come before it.
        let mut end = None;
        let mut next = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            if end.is_some_and(|end| operation.began > end) {
                break;
            }
            if is_done(number) {
                continue;
            }
            if operation.answer != Answer::Open {
                end = Some(end.map_or(operation.ended, |end: Instant| end.min(operation.ended)));
            }
            if let Some(after) = operation.after(state) {
                next.push((number, operation, after));
            }
        }
        for (number, operation, after) in next.into_iter().rev() {
            if end.is_some_and(|end| operation.began > end) || (operation.answer == Answer::Open && after == state) {
                continue;
            }
            let mut done = done.clone();
            done[number / 64] |= 1 << (number % 64);
            stack.push((done, after, count + usize::from(operation.answer != Answer::Open)));
        }
    }
    Err(best)
}

/// Numbers that look random, and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// What a run shares.
struct Run {
    gateways: [SocketAddr; 2],
    stop: AtomicBool,
    done: AtomicU64,
    /// Whether reads are answered with what the same client read before, as a cache that is never told would.
    stale: bool,
}

fn email(customer: u64) -> String {
    format!("{customer}@example.com")
}

/// One client: does one operation after the other, on any customer through any gateway.
async fn client(run: Arc<Run>, mut random: Random) -> Vec<(u64, Operation)> {
    let channels = run.gateways.map(|address| {
        Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy()
    });
    let mut seen: BTreeMap<u64, State> = BTreeMap::new();
    let mut operations = Vec::new();
    while !run.stop.load(Ordering::Relaxed) {
        let customer = random.below(CUSTOMERS);
        let status = i32::try_from(random.below(3)).unwrap() + 1;
        let call = match (random.below(10), seen.get(&customer)) {
            (0..4, _) => Call::Set(status),
            (4..6, _) => Call::SetIfStatus(i32::try_from(random.below(3)).unwrap() + 1, status),
            (6..8, Some((_, changed))) => Call::SetIfChanged(*changed, status),
            _ => Call::Read,
        };
        // Some have too little time on purpose: what became of them is not known.
        let time = match random.below(20) {
            0 => Duration::from_micros(500 + random.below(3_000)),
            _ => Duration::from_secs(5),
        };
        let channel = channels[usize::try_from(random.below(2)).unwrap()].clone();
        let began = Instant::now();
        let answer = ask(channel, customer, call, time).await;
        let ended = Instant::now();
        run.done.fetch_add(1, Ordering::Relaxed);
        let mut answer = match answer {
            // Nothing was done, and the service says so.
            None => continue,
            Some(Answer::Open) if call == Call::Read => continue,
            Some(answer) => answer,
        };
        if let Answer::Seen(state) = answer {
            let before = seen.insert(customer, state);
            if run.stale && call == Call::Read {
                answer = Answer::Seen(before.unwrap_or(state));
            }
        }
        operations.push((
            customer,
            Operation {
                call,
                answer,
                began,
                ended,
            },
        ));
    }
    operations
}

/// Makes a call. None if the service says that nothing was done.
async fn ask(channel: Channel, customer: u64, call: Call, time: Duration) -> Option<Answer> {
    // Without what the product's own client makes of a lost connection.
    let mut client = StorageServiceClient::new(channel);
    let email = email(customer);
    let signed = |mut request: Request<UpdateStatusRequest>| {
        sign(&mut request, time);
        request
    };
    let update = |status| UpdateStatusRequest {
        email: email.clone(),
        status,
        ..UpdateStatusRequest::default()
    };
    let answer = match call {
        Call::Read => {
            let mut request = Request::new(GetStatusRequest { email });
            sign(&mut request, time);
            client
                .get_status(request)
                .await
                .map(|answer| answer.into_inner().customer)
        }
        Call::Set(status) => set(&mut client, signed(Request::new(update(status)))).await,
        Call::SetIfStatus(expected_status, status) => {
            let message = UpdateStatusRequest {
                expected_status,
                ..update(status)
            };
            set(&mut client, signed(Request::new(message))).await
        }
        Call::SetIfChanged(changed, status) => {
            let message = UpdateStatusRequest {
                etag: format!("{}-{changed}", prefix(&mut client, &email).await?),
                ..update(status)
            };
            set(&mut client, signed(Request::new(message))).await
        }
    };
    match answer {
        Ok(customer) => {
            let customer = customer.unwrap();
            let changed = customer.etag.rsplit_once('-').unwrap().1.parse().unwrap();
            Some(Answer::Seen((customer.status, changed)))
        }
        Err(status) if status.code() == Code::Aborted => Some(Answer::Conflict),
        Err(status) if status.code() == Code::DeadlineExceeded || status.details().is_empty() => Some(Answer::Open),
        Err(status) => {
            assert!(
                matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
                "{status:?}"
            );
            None
        }
    }
}

/// The part of an etag that belongs to the customer and stays.
async fn prefix(client: &mut StorageServiceClient<Channel>, email: &str) -> Option<String> {
    let mut request = Request::new(GetStatusRequest {
        email: email.to_owned(),
    });
    sign(&mut request, Duration::from_secs(5));
    let customer = client.get_status(request).await.ok()?.into_inner().customer?;
    Some(customer.etag.rsplit_once('-')?.0.to_owned())
}

async fn set(
    client: &mut StorageServiceClient<Channel>,
    request: Request<UpdateStatusRequest>,
) -> Result<Option<proto::v1::Customer>, tonic::Status> {
    Ok(client.update_status(request).await?.into_inner().customer)
}

fn sign<T>(request: &mut Request<T>, time: Duration) {
    // shop:pass
    let credentials = "Basic c2hvcDpwYXNz".parse().unwrap();
    request.metadata_mut().insert("authorization", credentials);
    request.set_timeout(time);
}

/// A database with the customers.
fn prepare(database: &Database) {
    database.create_account("shop", "pass");
    let rows: String = (0..CUSTOMERS).map(|customer| email(customer) + "\n").collect();
    database.import("shop", &format!("email\n{rows}"));
}

/// Lets clients work through two gateways while `trouble` is made, and gives what each customer has seen.
fn record(
    gateways: [SocketAddr; 2],
    seed: u64,
    stale: bool,
    trouble: impl FnOnce(&dyn Fn(u64)),
) -> BTreeMap<u64, Vec<Operation>> {
    let run = Arc::new(Run {
        gateways,
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        stale,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| runtime.spawn(client(Arc::clone(&run), Random(seed.wrapping_add(number)))))
        .collect();
    let reach = |operations: u64| {
        crate::support::eventually("the clients go on", || run.done.load(Ordering::Relaxed) >= operations);
    };
    trouble(&reach);
    run.stop.store(true, Ordering::Relaxed);
    let mut customers: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for client in clients {
        for (customer, operation) in runtime.block_on(client).unwrap() {
            customers.entry(customer).or_default().push(operation);
        }
    }
    customers
}

/// Every customer is registered once, and PENDING.
const FIRST: State = (Verification::Pending as i32, 1);

fn verify(customers: &BTreeMap<u64, Vec<Operation>>) -> Result<(), String> {
    for (customer, operations) in customers {
        check(operations, FIRST).map_err(|explained| {
            format!(
                "customer {customer}: {explained} of {} can be explained",
                operations.len()
            )
        })?;
    }
    Ok(())
}

fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

#[test]
fn customers_are_registers_on_postgresql_whatever_fails() {
    let seed = random_seed();
    println!("seed {seed}");
    let cluster = Cluster::start(Durability::Full);
    let database = Database::on(&cluster);
    prepare(&database);
    let survivor = Gateway::start(&database, &[]);
    let mut killed = Gateway::start(&database, &[]);
    let addresses = [survivor.grpc.unwrap(), killed.grpc.unwrap()];
    let customers = record(addresses, seed, false, |reach| {
        reach(OPERATIONS / 5);
        cluster.stop().end();
        reach(2 * OPERATIONS / 5);
        killed.signal("KILL");
        killed.end();
        killed = Gateway::start_at(&database, addresses[1], &[]);
        reach(3 * OPERATIONS / 5);
        cluster.stop().end();
        reach(OPERATIONS);
    });
    let open = customers
        .values()
        .flatten()
        .filter(|operation| operation.answer == Answer::Open)
        .count();
    assert!(open > 0, "some outcomes are not known");
    verify(&customers).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
}

#[test]
fn customers_are_registers_on_sqlite() {
    let seed = random_seed();
    println!("seed {seed}");
    let database = Backend::Sqlite.database();
    prepare(&database);
    let survivor = Gateway::start(&database, &[]);
    let mut killed = Gateway::start(&database, &[]);
    let addresses = [survivor.grpc.unwrap(), killed.grpc.unwrap()];
    let customers = record(addresses, seed, false, |reach| {
        reach(OPERATIONS / 2);
        killed.signal("KILL");
        killed.end();
        killed = Gateway::start_at(&database, addresses[1], &[]);
        reach(OPERATIONS);
    });
    verify(&customers).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
}

#[test]
fn a_stale_read_is_found() {
    let database = Backend::Sqlite.database();
    prepare(&database);
    let gateway = Gateway::start(&database, &[]);
    let address = gateway.grpc.unwrap();
    let customers = record([address; 2], 1, true, |reach| reach(OPERATIONS / 3));
    verify(&customers).unwrap_err();
}

#[test]
fn the_check_knows_what_a_register_can_do() {
    let start = Instant::now();
    let at = |time| start + Duration::from_millis(time);
    let operation = |call, answer, (began, ended)| Operation {
        call,
        answer,
        began: at(began),
        ended: at(ended),
    };
    let (read, seen) = (Call::Read, Answer::Seen);
    let checked = |operations: &[Operation]| check(operations, (2, 1)).is_ok();
    let set = operation(Call::Set(1), seen((1, 2)), (10, 20));
    assert!(checked(&[set, operation(read, seen((2, 1)), (0, 5))]));
    assert!(
        checked(&[set, operation(read, seen((2, 1)), (0, 15))]),
        "at the same time"
    );
    assert!(
        checked(&[set, operation(read, seen((1, 2)), (0, 15))]),
        "at the same time"
    );
    assert!(!checked(&[set, operation(read, seen((2, 1)), (21, 30))]), "stale");
    assert!(
        !checked(&[set, operation(read, seen((1, 2)), (0, 5))]),
        "from the future"
    );
    assert!(
        !checked(&[set, operation(read, seen((3, 2)), (30, 40))]),
        "from nowhere"
    );

    let open = operation(Call::Set(3), Answer::Open, (0, 5));
    assert!(
        checked(&[open, operation(read, seen((2, 1)), (6, 7))]),
        "it is not done yet"
    );
    assert!(
        checked(&[open, operation(read, seen((3, 2)), (60, 70))]),
        "it is done later"
    );
    let back = [
        operation(read, seen((3, 2)), (6, 7)),
        operation(read, seen((2, 1)), (8, 9)),
    ];
    assert!(!checked(&[open, back[0], back[1]]), "it is not undone");

    let won = operation(Call::SetIfStatus(2, 1), seen((1, 2)), (0, 10));
    let lost = operation(Call::SetIfStatus(2, 3), Answer::Conflict, (0, 10));
    assert!(checked(&[won, lost]));
    assert!(
        !checked(&[won, operation(Call::SetIfStatus(2, 3), seen((3, 2)), (0, 10))]),
        "two win"
    );
    assert!(!checked(&[lost]), "nobody wins");
    let late = operation(Call::SetIfChanged(1, 3), Answer::Conflict, (11, 12));
    assert!(checked(&[won, late]));
}
