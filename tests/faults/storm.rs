//! Clients that lose many replies, and ask again and again at once: each change is made once, none is lost, the work goes on
//! meanwhile, and afterwards all is as before.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    faults::{
        Random,
        clients::{Board, Client, Manner, tally, work},
        either,
        ledger::{Sent, Stored, finds_a_loss, verify},
        load::{CLIENTS, create_account, register, see},
        seed, tell,
    },
    support::{Backend, Database, Gateway, Proxy, eventually, program},
};

/// One reply of so many is lost.
const LOST_ONE_OF: u64 = 5;

/// Ways to both faces of a gateway.
struct Ways {
    rest: Proxy,
    grpc: Proxy,
}

impl Ways {
    fn to(gateway: &Gateway) -> Self {
        Self {
            rest: Proxy::before(gateway.rest.port()),
            grpc: Proxy::before(gateway.grpc.unwrap().port()),
        }
    }

    fn lose(&self, one_of: Option<u64>, random: &mut Random) {
        self.rest.lose_replies(one_of, random.next());
        self.grpc.lose_replies(one_of, random.next());
    }

    /// Clients of these manners, in turn.
    fn clients(&self, runtime: &Runtime, manners: &[Manner]) -> Vec<Client> {
        let [rest, grpc] = [&self.rest, &self.grpc].map(|way| ([127, 0, 0, 1], way.port()).into());
        (0..CLIENTS)
            .map(|number| Client::new(runtime, number, manners[number / 2 % manners.len()], rest, grpc))
            .collect()
    }
}

fn prepared(backend: Backend) -> (Database, Sent) {
    let database = backend.database();
    create_account(&database, program);
    let sent = register(&database, program);
    (database, sent)
}

/// How many changes are acknowledged in a second.
fn goodput(board: &Board, time: Duration) -> f64 {
    let (began, before) = (Instant::now(), board.made());
    thread::sleep(time);
    (board.made() - before) as f64 / began.elapsed().as_secs_f64()
}

fn metric(gateway: &Gateway, name: &str) -> String {
    let metrics = gateway.get("/metrics");
    let line = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).to_owned()
}

fn weather(backend: Backend) {
    let name = format!("a storm on {backend}");
    let mut random = Random(seed(&name));
    let (database, mut sent) = prepared(backend);
    let gateway = Gateway::start(&database, &[]);
    let ways = Ways::to(&gateway);
    let runtime = Runtime::new().unwrap();
    let mut clients = ways.clients(&runtime, &[Manner::Keyed, Manner::Repeating, Manner::Asking]);

    let calm = either(Duration::from_secs(1), Duration::from_secs(10));
    let storm = either(Duration::from_secs(3), Duration::from_secs(120));
    // Who is refused asks again at once.
    let (before, during, lost, replies, after) = work(&runtime, &mut clients, Duration::ZERO, &mut sent, |board| {
        board.reach(100);
        let before = goodput(board, calm);
        ways.lose(Some(LOST_ONE_OF), &mut random);
        let during = goodput(board, storm);
        let lost = ways.rest.losses() + ways.grpc.losses();
        let replies = ways.rest.replies() + ways.grpc.replies();
        ways.lose(None, &mut random);
        board.all_write_again();
        (before, during, lost, replies, goodput(board, calm))
    });
    let stored = Stored::of(&mut database.session());
    verify(&stored, &sent).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    see(&gateway, &stored, &name);
    // Each change has one row, and each row is of a change.
    let made: usize = sent
        .values()
        .flatten()
        .filter(|attempt| attempt.fate == crate::faults::ledger::Fate::Made)
        .count();
    assert_eq!(made + sent.len(), stored.changes.len());

    let tally = tally(&clients);
    tell(&format!(
        "{name}: {lost} of {replies} replies lost; {made} changes, each made once and none lost: {tally:?}; {before:.0} \
         acknowledged a second before, {during:.0} in the storm, {after:.0} after it"
    ));
    let share = lost as f64 / replies as f64;
    assert!((0.1..0.3).contains(&share), "{lost} of {replies} replies were lost");
    assert!(tally.found_made > 0, "{tally:?}");
    // In the short form others have the machine as well.
    let (least, as_before) = either((0.02, 0.2), (0.1, 0.7));
    assert!(
        during > before * least,
        "{during} a second in the storm, {before} before"
    );
    assert!(
        after > before * as_before,
        "{after} a second after the storm, {before} before"
    );
    // Nothing of it is left.
    drop(clients);
    eventually("no call is left", || metric(&gateway, "dcams_calls_under_way") == "0");
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.stop().code, 0);
    finds_a_loss(&mut database.session(), &sent);
}

#[test]
fn a_storm_of_retries_makes_each_change_once_on_sqlite() {
    weather(Backend::Sqlite);
}

#[test]
fn a_storm_of_retries_makes_each_change_once_on_postgresql() {
    weather(Backend::Postgres);
}

/// The check is one that fails: who sends a change again without a key, and after another one, has it made twice.
#[test]
fn without_a_key_a_change_is_made_twice_and_the_check_says_so() {
    let (database, mut sent) = prepared(Backend::Sqlite);
    let gateway = Gateway::start(&database, &[]);
    let ways = Ways::to(&gateway);
    let runtime = Runtime::new().unwrap();
    let mut clients = ways.clients(&runtime, &[Manner::Careless]);
    ways.lose(Some(LOST_ONE_OF), &mut Random(seed("a storm without keys")));
    work(&runtime, &mut clients, Duration::ZERO, &mut sent, |board| {
        board.reach(300)
    });
    verify(&Stored::of(&mut database.session()), &sent).unwrap_err();
}
