//! PostgreSQL that is stopped, killed, restarted or cut off under load: nothing acknowledged is lost, whatever was left open
//! becomes known, and changes are made again as soon as it is back.

use std::{thread, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    faults::{
        Random,
        clients::{Client, tally, work},
        either,
        ledger::{Fate, Stored, finds_a_loss, verify},
        load::{CLIENTS, create_account, register, see},
        seed, tell,
    },
    support::{Cluster, Database, Durability, Fall, Gateway, Proxy, eventually, program},
};

/// What happens to the server, or to the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The server goes down, and comes back after a while.
    Down(Fall),
    /// It comes back at once.
    Restart,
    /// It ends every session.
    Ended,
    /// All connections are cut, and new ones are served at once.
    Cut,
    /// Nothing goes through for a while.
    Stall,
    /// Nothing goes through, then all connections are cut, and no new one is to be had for a while. What was sent before comes to
    /// the server late, when the gateway has long gone on.
    Partition,
}

const FAULTS: [Fault; 8] = [
    Fault::Down(Fall::Fast),
    Fault::Down(Fall::Immediate),
    Fault::Down(Fall::Killed),
    Fault::Restart,
    Fault::Ended,
    Fault::Cut,
    Fault::Stall,
    Fault::Partition,
];

/// How long a call may take: shorter than some outages, so that some outcomes are not told.
const DEADLINE: Duration = Duration::from_secs(1);

/// How long a client waits that was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a fault lasts: shorter than the deadline of a call, or longer.
fn duration(random: &mut Random) -> Duration {
    Duration::from_millis(50) + DEADLINE * u32::try_from(random.below(180)).unwrap() / 100
}

/// Makes it happen, and gives what is to be done later, when changes are made again.
fn strike<'a>(
    fault: Fault,
    cluster: &Cluster,
    proxy: &'a Proxy,
    database: &Database,
    random: &mut Random,
) -> Box<dyn FnOnce() + 'a> {
    let time = duration(random);
    match fault {
        Fault::Down(how) => {
            let outage = cluster.fall(how);
            thread::sleep(time);
            outage.end();
        }
        Fault::Restart => cluster.fall(Fall::Fast).end(),
        Fault::Ended => {
            let ended = database.session().number(
                "(SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid())",
            );
            assert!(ended >= 2, "{ended} sessions");
        }
        Fault::Cut => proxy.cut(),
        Fault::Stall => {
            proxy.hold();
            thread::sleep(time);
            proxy.let_go();
        }
        Fault::Partition => {
            proxy.hold();
            // Longer than a call may take, so that there is always an outcome that is not told.
            thread::sleep(DEADLINE + time / 4);
            proxy.refuse(true);
            proxy.cut();
            thread::sleep(duration(random));
            proxy.refuse(false);
            return Box::new(|| proxy.let_go());
        }
    }
    Box::new(|| {})
}

#[test]
fn nothing_is_lost_whatever_becomes_of_postgresql() {
    let name = "outages of postgresql";
    let mut random = Random(seed(name));
    let cluster = Cluster::start(Durability::Full);
    let database = Database::on(&cluster);
    create_account(&database, program);
    let mut sent = register(&database, program);
    let proxy = Proxy::before(cluster.port());
    let (there, here) = (format!(":{}/", cluster.port()), format!(":{}/", proxy.port()));
    let through = Database::at(database.url.replace(&there, &here));
    assert_ne!(through.url, database.url);
    let deadline = format!("{}ms", DEADLINE.as_millis());
    let gateway = Gateway::start(&through, &["--deadline", &deadline]);
    let runtime = Runtime::new().unwrap();
    let mut clients = Client::crew(&runtime, CLIENTS, &[&gateway]);

    let rounds = either(1, 12);
    let mut slowest = [Duration::ZERO; FAULTS.len()];
    for round in 0..rounds {
        for (fault, slowest) in FAULTS.into_iter().zip(&mut slowest) {
            let context = format!("{fault:?} in round {round}");
            let pause = Duration::from_millis(random.next() % 300);
            let again = work(&runtime, &mut clients, PAUSE, &mut sent, |board| {
                board.reach(100);
                thread::sleep(pause);
                let later = strike(fault, &cluster, &proxy, &database, &mut random);
                let again = board.all_write_again();
                later();
                board.reach(100);
                again
            });
            *slowest = again.max(*slowest);
            eventually("the gateway is ready", || gateway.get("/readyz").status == 200);
            let stored = Stored::of(&mut database.session());
            verify(&stored, &sent).unwrap_or_else(|fault| panic!("{context}: {fault}"));
            see(&gateway, &stored, &context);
        }
    }
    let tally = tally(&clients);
    let times: Vec<_> = FAULTS
        .iter()
        .zip(&slowest)
        .map(|(fault, time)| format!("{fault:?} {} ms", time.as_millis()))
        .collect();
    tell(&format!(
        "{name}: {} faults, {tally:?}, 0 acknowledged and lost, 0 refused and made, 0 left open; all clients write again at most \
         after: {}",
        rounds * FAULTS.len(),
        times.join(", ")
    ));
    let open = sent
        .values()
        .flatten()
        .filter(|attempt| attempt.fate == Fate::Open)
        .count();
    assert_eq!(open, 0);
    assert!(
        tally.found_made + tally.found_not_made > 0,
        "no outcome was open: {tally:?}"
    );
    // Whoever tests beside this one has the machine as well: only the long form, which runs alone, can ask for this.
    let bound = either(Duration::from_secs(30), Duration::from_secs(2));
    assert!(slowest.iter().all(|time| *time < bound), "{times:?}");
    assert_eq!(gateway.stop().code, 0);
    finds_a_loss(&mut database.session(), &sent);
}
