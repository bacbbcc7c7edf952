//! A gateway that is killed under load loses no acknowledged change, and is soon ready again.

use std::{
    sync::mpsc::{Sender, channel},
    time::{Duration, Instant},
};

use diesel::{QueryableByName, sql_types::BigInt};

use crate::{
    faults::{
        Random, either,
        ledger::{Attempt, Fate, Sent, Stored, finds_a_loss, history, verify},
        load::{CLIENTS, Client, create_account, email, register, see},
        seed, tell,
    },
    support::{Backend, Database, Gateway, dcams, program, until},
};

#[test]
fn a_killed_gateway_loses_no_acknowledged_change_on_sqlite() {
    survive(Backend::Sqlite, either(50, 500));
}

#[test]
fn a_killed_gateway_loses_no_acknowledged_change_on_postgresql() {
    survive(Backend::Postgres, either(50, 500));
}

/// Kills the gateway so often, each time after a random number of acknowledged requests, and looks each time at what is
/// left: past the program, and through the one that is started next.
fn survive(backend: Backend, kills: usize) {
    let name = format!("kills on {backend}");
    let seed = seed(&name);
    let mut random = Random(seed);

    let database = backend.database();
    create_account(&database, program);
    let mut sent = register(&database, program);
    let mut left = Stored::of(&mut database.session());
    let mut starts = Vec::new();
    // The most requests that are acknowledged before a kill.
    let most = either(200, 400);
    for round in 0..kills {
        let (gateway, time) = start(&database);
        starts.push(time);
        let acknowledged = 1 + random.next() % most;
        let context = || format!("{backend}, seed {seed}, killed at {acknowledged} in round {round}");
        // The program sees what is left, after whatever it did to recover.
        see(&gateway, &left, &context());
        let mut gateway = gateway;
        load(&gateway, round, acknowledged, &mut sent);
        assert_eq!(gateway.end().code, -1, "killed");
        wait_for_the_last_session(&database);
        left = Stored::of(&mut database.session());
        verify(&left, &sent).unwrap_or_else(|fault| panic!("{}: {fault}", context()));
    }
    let (gateway, time) = start(&database);
    // The first start had nothing to recover.
    starts[0] = time;
    see(&gateway, &left, "the last kill");
    drop(gateway);

    let acknowledged = sent
        .values()
        .flatten()
        .filter(|attempt| attempt.fate == Fate::Made)
        .count();
    assert!(acknowledged >= kills);
    let told = dcams(
        &database,
        &[
            "customer",
            "history",
            &email(0),
            "--account",
            "shop",
            "--limit",
            "1000000",
        ],
        "",
    )
    .ok();
    assert_eq!(told.lines().count() - 1, history(&left, &email(0)).count());
    starts.sort();
    let ms = |time: Duration| time.as_millis();
    let (fastest, median, slowest) = (starts[0], starts[starts.len() / 2], starts[starts.len() - 1]);
    tell(&format!(
        "{name}: {kills} kills, {acknowledged} changes acknowledged, 0 lost; ready again after {} ms at least, {} in the \
         median, {} at most",
        ms(fastest),
        ms(median),
        ms(slowest)
    ));
    // Whoever tests beside this one has the machine as well: only the long form, which runs alone, can ask for this.
    let bound = either(Duration::from_secs(60), Duration::from_secs(2));
    assert!(slowest < bound, "{backend}: ready again after {slowest:?} only");

    // And the check is one that fails: with the row of an acknowledged change gone from this very database.
    finds_a_loss(&mut database.session(), &sent);
}

/// Starts a gateway, and tells how long it took until it was ready.
fn start(database: &Database) -> (Gateway, Duration) {
    let began = Instant::now();
    let gateway = Gateway::start(database, &[]);
    until("it is ready", || (gateway.get("/readyz").status == 200).then_some(()));
    (gateway, began.elapsed())
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

/// One client, until the gateway is gone.
fn ask(gateway: &Gateway, round: usize, client: usize, report: &Sender<()>) -> Vec<(String, Attempt)> {
    let mut client = Client::new(gateway.rest, round, client);
    let mut sent = Vec::new();
    while let Some(step) = client.step() {
        sent.push((step.email, step.attempt));
        let Some(reply) = step.reply else {
            break;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
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
