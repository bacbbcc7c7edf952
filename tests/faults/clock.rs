//! A wall clock that steps back and forth by hours under load turns no history around, and upsets no timer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, Text},
};
use proto::v1::{GetStatusAtRequest, storage_service_client::StorageServiceClient};
use tonic::{Request, transport::Endpoint};

use crate::{
    faults::{
        Random, either,
        ledger::{Fate, Stored, verify},
        load::{CLIENTS, Client, create_account, register, try_status},
        seed,
        shim::Shim,
        tell,
    },
    support::{Backend, Connection, Gateway, Ground, dcams, program},
};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const HOUR: i64 = 3_600 * 1_000_000_000;

/// How far the clock is off at most.
const HOURS: i64 = 12;

/// How many failed logins are enough for a user to be refused without a look.
const FAILURES: usize = 50;

/// When a customer was changed, in microseconds since 1970.
#[derive(Clone, Debug, QueryableByName)]
struct Timed {
    #[diesel(sql_type = Text)]
    email: String,
    #[diesel(sql_type = Integer)]
    to_status: i32,
    #[diesel(sql_type = BigInt)]
    change_time: i64,
}

/// How often a time is before the one that it follows.
fn steps_back<'a>(times: impl Iterator<Item = &'a Timed> + Clone) -> usize {
    let later = times.clone().skip(1);
    times
        .zip(later)
        .filter(|(before, after)| after.change_time < before.change_time)
        .count()
}

#[test]
fn a_clock_that_steps_turns_no_history_around() {
    let name = "clock steps on sqlite";
    let mut random = Random(seed(name));
    let (_ground, database) = Ground::new(Backend::Sqlite);
    let shim = Shim::on(&database.path("volume"), &database.path(""), false);
    create_account(&database, program);
    let mut sent = register(&database, program);
    // Longer than the test takes, and shorter than the hours that seem to pass.
    let flags = ["--idle-timeout", "1h"];
    let gateway = Gateway::start_of(shim.under(program()), &database, ANY, &flags);
    let mut idle = Connection::open(gateway.rest);
    let first = sent.keys().next().unwrap().clone();
    try_status(&mut idle, &first).unwrap();

    let acknowledged = either(1_500, 300_000);
    let (made, ended, slowest) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    let mut steps = 0;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (gateway, made, slowest) = (&gateway, &made, &slowest);
                scope.spawn(move || {
                    let mut client = Client::new(gateway.rest, 0, number);
                    let mut sent = Vec::new();
                    while made.fetch_add(1, Ordering::Relaxed) < acknowledged {
                        let began = Instant::now();
                        sent.push(client.step().expect("the gateway is there"));
                        slowest.fetch_max(began.elapsed().as_millis() as usize, Ordering::Relaxed);
                    }
                    sent
                })
            })
            .collect();
        let stepping = scope.spawn(|| {
            let mut steps = 0_i64;
            let mut at = 0;
            while !ended.load(Ordering::Relaxed) {
                // Every few changes, so that there are some between two steps.
                let now = made.load(Ordering::Relaxed);
                if now >= at {
                    // Later on the whole, so that not all changes have the latest time that there was.
                    let ahead = (random.next() % (2 * HOURS as u64 * 3_600)) as i64 - HOURS * 3_600 + steps * 600;
                    shim.set_clock(ahead * 1_000_000_000);
                    steps += 1;
                    at = now + 20;
                }
                thread::sleep(Duration::from_millis(1));
            }
            steps
        });
        for step in clients.into_iter().flat_map(|client| client.join().unwrap()) {
            // No deadline passed early, and nobody was refused.
            assert_eq!(step.attempt.fate, Fate::Made, "{:?}", step.reply);
            sent.get_mut(&step.email).unwrap().push(step.attempt);
        }
        ended.store(true, Ordering::Relaxed);
        steps = stepping.join().unwrap();
    });

    // A connection that was idle while hours seemed to pass is open still.
    shim.set_clock(HOURS * HOUR);
    try_status(&mut idle, &first).expect("the idle connection is open");
    assert_eq!(gateway.get("/readyz").status, 200);

    let stored = Stored::of(&mut database.session());
    verify(&stored, &sent).unwrap_or_else(|fault| panic!("{fault}"));
    let rows = |order: &str| -> Vec<Timed> {
        database.session().rows(&format!(
            "SELECT c.email_key AS email, CAST(h.to_status AS INTEGER) AS to_status, h.change_time
             FROM status_changes h JOIN customers c ON c.id = h.customer_id ORDER BY {order}"
        ))
    };
    let rows_in_order = rows("h.customer_id, h.version");
    let mut histories: BTreeMap<&str, Vec<&Timed>> = BTreeMap::new();
    for row in &rows_in_order {
        histories.entry(&row.email).or_default().push(row);
    }
    for (email, history) in &histories {
        assert_eq!(
            steps_back(history.iter().copied()),
            0,
            "{email}: its history goes back in time"
        );
    }
    // The steps were seen: of all customers together the times do go back, which is how this check fails.
    let all = rows("h.position");
    let back = steps_back(all.iter());
    assert!(back > 0, "no step was seen in {} changes", all.len());
    let held = rows_in_order
        .windows(2)
        .filter(|two| two[0].email == two[1].email && two[0].change_time == two[1].change_time)
        .count();

    let asked = ask_for_times(&gateway, &histories, &mut random);
    shim.set_clock(-HOURS * HOUR);
    dcams(&database, &["audit", "verify"], "").ok();

    // Whoever guesses passwords is not let in early by a clock that goes on, nor kept out for longer by one that goes back.
    shim.set_clock(0);
    let guess = |password: usize| {
        let body = r#"{"user":"shop","pass":"N","service":"getStatus","target":{"email":"c000@example.com"}}"#;
        gateway.post(body.replace('N', &password.to_string()))
    };
    let enough = (0..FAILURES)
        .find(|password| guess(*password).status == 429)
        .expect("a guess too many");
    for hours in [HOURS, -HOURS] {
        shim.set_clock(hours * HOUR);
        let reply = guess(enough + 1);
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(reply.status, 429, "{hours} hours on by the wall clock");
        assert!((1..=60).contains(&wait), "{hours} hours on by the wall clock: {wait} s");
    }
    tell(&format!(
        "{name}: {steps} steps of up to {HOURS} hours either way under {} changes: 0 lost, 0 histories that go back ({held} \
         changes have the time of the one before), {back} steps back seen, {asked} times asked for; slowest reply {} ms",
        sent.values().flatten().count(),
        slowest.load(Ordering::Relaxed)
    ));
}

/// Asks the gateway for the status at times of the history, and tells how often.
fn ask_for_times(gateway: &Gateway, histories: &BTreeMap<&str, Vec<&Timed>>, random: &mut Random) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::try_from(format!("http://{}", gateway.grpc.unwrap())).unwrap();
        let mut client = StorageServiceClient::new(endpoint.connect().await.unwrap());
        let mut asked = 0;
        for (email, history) in histories {
            for _ in 0..either(4, 400) {
                let at = history[random.below(history.len())].change_time;
                // Of several that were made at one time it is the last.
                let expected = history.iter().rfind(|row| row.change_time <= at).unwrap().to_status;
                let mut request = Request::new(GetStatusAtRequest {
                    email: (*email).to_owned(),
                    time: Some((SystemTime::UNIX_EPOCH + Duration::from_micros(at as u64)).into()),
                });
                request.metadata_mut().insert("authorization", BASIC.parse().unwrap());
                let answer = client.get_status_at(request).await.unwrap().into_inner();
                assert_eq!(answer.status, expected, "{email} at {at}");
                asked += 1;
            }
        }
        asked
    })
}

/// `shop:secret`.
const BASIC: &str = "Basic c2hvcDpzZWNyZXQ=";
