//! A disk that is full, and calls to it that fail: the answers are clear, nothing is acknowledged that is not there, reads go
//! on, and the gateway serves again without a restart.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    faults::{
        Random, either,
        ledger::{Fate, Sent, Stored, verify},
        load::{CLIENTS, Client, create_account, register, see},
        seed,
        shim::{Rule, Shim, call, errno, file},
        tell,
    },
    support::{Backend, Database, Gateway, Ground, eventually, gateway::dcams_of, program},
};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The longest that a call may take: short, for what waits for an outage to end.
const DEADLINE: &str = "300ms";

/// How many clients change statuses while something fails, and how often each.
const FEW: usize = 2;
const EACH: usize = 4;

/// A store under the shim, and what its clients know.
struct Bench {
    database: Database,
    shim: Shim,
    sent: Sent,
    rounds: usize,
    _ground: Ground,
}

/// How the attempts of a round ended.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    made: usize,
    refused: usize,
    open: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.made += other.made;
        self.refused += other.refused;
        self.open += other.open;
    }
}

impl Bench {
    fn new() -> Self {
        let (ground, database) = Ground::new(Backend::Sqlite);
        let shim = Shim::on(&database.path("volume"), &database.path(""), false);
        create_account(&database, program);
        let sent = register(&database, program);
        Self {
            database,
            shim,
            sent,
            rounds: 0,
            _ground: ground,
        }
    }

    fn start(&self) -> Gateway {
        Gateway::start_of(
            self.shim.under(program()),
            &self.database,
            ANY,
            &["--deadline", DEADLINE],
        )
    }

    /// Changes statuses, a few times by a few clients at once.
    fn change(&mut self, gateway: &Gateway, clients: usize, each: usize) -> Tally {
        let round = self.rounds;
        self.rounds += 1;
        let mut tally = Tally::default();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..clients)
                .map(|number| {
                    scope.spawn(move || {
                        let mut client = Client::new(gateway.rest, round, number);
                        (0..each).map_while(|_| client.step()).collect::<Vec<_>>()
                    })
                })
                .collect();
            for step in clients.into_iter().flat_map(|client| client.join().unwrap()) {
                match step.attempt.fate {
                    Fate::Made => tally.made += 1,
                    Fate::Refused => tally.refused += 1,
                    Fate::Open => tally.open += 1,
                }
                self.sent.get_mut(&step.email).unwrap().push(step.attempt);
            }
        });
        tally
    }

    /// Asks until a change is made again, and tells how long that took; the gateway is ready then.
    fn recover(&mut self, gateway: &Gateway) -> Duration {
        let began = Instant::now();
        eventually("a change is made", || self.change(gateway, 1, 1).made == 1);
        let time = began.elapsed();
        eventually("the gateway is ready", || gateway.get("/readyz").status == 200);
        time
    }

    /// The database holds what was acknowledged, nothing that was refused, and the program tells the same.
    fn verify(&self, gateway: &Gateway, context: &str) {
        let stored = Stored::of(&mut self.database.session());
        verify(&stored, &self.sent).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        see(gateway, &stored, context);
        assert_eq!(self.shim.retried_syncs(), 0, "{context}: a failed sync was made again");
    }

    /// How many calls of a kind a round makes.
    fn count(&mut self, gateway: &Gateway, calls: u8, files: u8) -> u64 {
        self.shim.arm(0, nth(calls, files, u64::MAX, 0));
        let tally = self.change(gateway, FEW, EACH);
        assert_eq!(tally.made, FEW * EACH, "{tally:?}");
        self.shim.seen(0)
    }
}

/// Calls that fail with an I/O error, from the one with this number.
fn nth(calls: u8, files: u8, first: u64, count: u64) -> Rule {
    Rule {
        calls,
        files,
        first,
        count,
        error: errno::EIO,
        growing: false,
    }
}

/// A disk that is full: nothing can be made, nor grow.
const FULL: Rule = Rule {
    calls: call::WRITE | call::OPEN,
    files: file::KEPT,
    first: 1,
    count: u64::MAX,
    error: errno::ENOSPC,
    growing: true,
};

#[test]
fn any_write_or_sync_may_fail() {
    let name = "failed writes and syncs on sqlite";
    let mut random = Random(seed(name));
    let mut bench = Bench::new();
    let gateway = bench.start();
    bench.change(&gateway, CLIENTS, 6);
    let (mut rounds, mut failed, mut tally, mut slowest) = (0, 0, Tally::default(), Duration::ZERO);
    for calls in [call::WRITE, call::SYNC] {
        let most = bench.count(&gateway, calls, file::KEPT);
        assert!(most >= 3, "{most} calls");
        // One call, or a few in a row: that the writer tries again must not be what saves it.
        for count in [1, 3] {
            let stride = either((most / 8).max(1), 1);
            let mut first = 1 + random.next() % stride;
            while first <= most {
                let context = format!("{count} failed calls of kind {calls} from number {first}");
                bench.shim.arm(0, nth(calls, file::KEPT, first, count));
                tally.add(bench.change(&gateway, FEW, EACH));
                bench.shim.disarm();
                failed += bench.shim.failed(0);
                slowest = slowest.max(bench.recover(&gateway));
                bench.verify(&gateway, &context);
                rounds += 1;
                first += stride;
            }
        }
    }
    tell(&format!(
        "{name}: {rounds} rounds, {failed} calls failed: {tally:?}, 0 acknowledged and lost, 0 refused and made; a change \
         is made again after {} ms at most",
        slowest.as_millis()
    ));
    assert!(failed > rounds / 2, "{failed} calls failed in {rounds} rounds");
    assert_eq!(gateway.stop().code, 0);
}

#[test]
fn a_commit_that_fails_is_made_once_or_not_acknowledged() {
    let mut bench = Bench::new();
    let mut gateway = bench.start();
    bench.change(&gateway, CLIENTS, 3);
    // It fails once: the change is made once more, and acknowledged then.
    bench.shim.arm(0, nth(call::SYNC, file::WAL, 1, 1));
    let tally = bench.change(&gateway, 1, 1);
    assert_eq!((tally.made, bench.shim.failed(0)), (1, 1), "{tally:?}");
    bench.verify(&gateway, "a commit that failed once");

    for round in 0..either(4, 100) {
        let context = format!("a commit that fails until nobody waits, round {round}");
        bench.shim.arm(0, nth(call::SYNC, file::WAL, 1, u64::MAX));
        // What became of it cannot be known.
        let tally = bench.change(&gateway, 1, 1);
        assert_eq!((tally.made, tally.refused, tally.open), (0, 0, 1), "{context}");
        eventually("the gateway is not ready", || gateway.get("/readyz").status == 503);
        // What comes then does not wait, and is refused: nothing of it may be there.
        let tally = bench.change(&gateway, 1, 3);
        assert_eq!(tally.made, 0, "{context}: {tally:?}");
        if round % 2 == 0 {
            bench.shim.disarm();
            bench.recover(&gateway);
        } else {
            // The process ends before the disk works again: what it left in the WAL is found by the next one.
            gateway.signal("KILL");
            assert_eq!(gateway.end().code, -1, "killed");
            bench.shim.disarm();
            gateway = bench.start();
        }
        let tally = bench.change(&gateway, FEW, 3);
        assert_eq!(tally.made, FEW * 3, "{context}: {tally:?}");
        bench.verify(&gateway, &context);
    }

    // The check is one that fails: a gateway that is told that its syncs were made, and is not refused.
    let tally = bench.change(&gateway, 1, 1);
    assert_eq!(tally.made, 1);
    let attempt = bench.sent.values_mut().find_map(|sent| sent.last_mut()).unwrap();
    let was = std::mem::replace(&mut attempt.fate, Fate::Refused);
    assert_eq!(was, Fate::Made);
    assert!(verify(&Stored::of(&mut bench.database.session()), &bench.sent).is_err());
}

#[test]
fn a_full_disk_refuses_changes_and_serves_again_when_there_is_space() {
    let name = "a full disk on sqlite";
    let mut random = Random(seed(name));
    let mut bench = Bench::new();
    let mut gateway = bench.start();
    bench.change(&gateway, CLIENTS, 3);
    let (mut tally, mut slowest) = (Tally::default(), Duration::ZERO);
    let rounds = either(6, 300);
    for round in 0..rounds {
        let context = format!("disk full, round {round}");
        let first = 1 + random.next() % 20;
        bench.shim.arm(0, Rule { first, ..FULL });
        // Until it is full, and known to be: what is in the WAL's file already can be written over.
        let mut during = Tally::default();
        eventually("the gateway is not ready", || {
            during.add(bench.change(&gateway, CLIENTS, 3));
            gateway.get("/readyz").status == 503
        });
        assert!(during.refused + during.open > 0, "{context}: {during:?}");
        during.add(bench.change(&gateway, FEW, 2));
        tally.add(during);
        // Reads go on.
        let stored = Stored::of(&mut bench.database.session());
        see(&gateway, &stored, &context);
        if random.next().is_multiple_of(3) {
            gateway.signal("KILL");
            assert_eq!(gateway.end().code, -1, "killed");
            bench.shim.disarm();
            gateway = bench.start();
        } else {
            bench.shim.disarm();
            slowest = slowest.max(bench.recover(&gateway));
        }
        let after = bench.change(&gateway, FEW, 3);
        assert_eq!(after.made, FEW * 3, "{context}: {after:?}");
        bench.verify(&gateway, &context);
    }
    tell(&format!(
        "{name}: {rounds} times, {tally:?} meanwhile, 0 acknowledged and lost, 0 refused and made; a change is made again after {} ms \
         at most",
        slowest.as_millis()
    ));
    // In the short form others have the machine as well.
    assert!(
        slowest < either(Duration::from_secs(30), Duration::from_secs(2)),
        "{slowest:?}"
    );
    assert_eq!(gateway.stop().code, 0);
}

#[test]
fn a_connection_that_cannot_be_opened_again_is_opened_later() {
    let name = "failed opens on sqlite";
    seed(name);
    let mut bench = Bench::new();
    let gateway = bench.start();
    bench.change(&gateway, CLIENTS, 3);
    let (mut failed, mut tally, mut slowest) = (0, Tally::default(), Duration::ZERO);
    let mut rounds = 0;
    for first in 1..=either(4, 8) {
        for count in either(vec![1, 8], vec![1, 2, 4, 8, 16, 32]) {
            let context = format!("{count} opens fail from number {first}");
            // A commit fails, so that the connection is closed; and to open the next one fails.
            bench
                .shim
                .arm(1, nth(call::OPEN, file::MAIN | file::WAL | file::SHARED, first, count));
            bench.shim.arm(0, nth(call::SYNC, file::WAL, 1, 1));
            tally.add(bench.change(&gateway, FEW, EACH));
            bench.shim.disarm();
            failed += bench.shim.failed(1);
            slowest = slowest.max(bench.recover(&gateway));
            bench.verify(&gateway, &context);
            rounds += 1;
        }
    }
    tell(&format!(
        "{name}: {rounds} rounds, {failed} opens failed: {tally:?}, 0 acknowledged and lost, 0 refused and made; a change \
         is made again after {} ms at most",
        slowest.as_millis()
    ));
    assert!(failed > 0);
    assert_eq!(gateway.stop().code, 0);
}

/// Runs a command of which a call fails: it ends well, or with one line of an error and nothing half done; and then it can
/// be run again.
#[test]
fn a_command_of_which_a_call_fails_says_so_and_can_be_run_again() {
    let name = "commands with failed calls on sqlite";
    let mut random = Random(seed(name));
    let create = |database: &Database, command: Command| {
        let arguments = ["account", "create", "shop", "--password-stdin"];
        dcams_of(command, database, &arguments, "secret")
    };
    let (mut rounds, mut failures, mut unknown) = (0, 0, 0);
    let kinds = [call::WRITE, call::SYNC, call::OPEN, call::TRUNCATE, call::UNLINK];
    for calls in kinds {
        for count in [1, u64::MAX] {
            let mut first = 1;
            loop {
                let (_ground, database) = Ground::new(Backend::Sqlite);
                let shim = Shim::on(&database.path("volume"), &database.path(""), false);
                shim.arm(0, nth(calls, file::KEPT | file::SHARED, first, count));
                let output = create(&database, shim.under(program()));
                let context = format!("{count} calls of kind {calls} from number {first}: {output:?}");
                let is_made = output.code == 0;
                if shim.failed(0) == 0 {
                    assert!(is_made, "{context}");
                    break;
                }
                rounds += 1;
                let mut is_known = true;
                if !is_made {
                    failures += 1;
                    let error = output.fails(1);
                    // What cannot be opened to be written is opened to be read.
                    let is_clear = ["disk I/O error", "unable to open", "cannot create", "readonly database"];
                    assert!(is_clear.iter().any(|text| error.contains(text)), "{context}");
                    is_known = !error.contains("it is not known");
                    unknown += usize::from(!is_known);
                }
                // Whoever closes a database moves the WAL into it, and syncs the WAL first, even after a sync of it that failed. That
                // vouches for nothing that was promised: it moves what was synced before.
                assert!(!is_known || shim.retried_syncs() == 0, "{context}");
                shim.disarm();
                // What was acknowledged is there, and what was refused is not.
                let again = create(&database, shim.under(program()));
                assert!(
                    !is_known || again.code == i32::from(is_made),
                    "{context}, then {again:?}"
                );
                assert_eq!(
                    database.session().number("(SELECT count(*) FROM accounts)"),
                    1,
                    "{context}"
                );
                // Of syncs there are few.
                let most = if calls == call::SYNC { 1 } else { 60 };
                first += either(1 + random.next() % most, 1);
            }
        }
    }
    tell(&format!(
        "{name}: {rounds} commands, {failures} of them failed, {unknown} with an open outcome, 0 said what \
         was not so"
    ));
    assert!(failures > 0 && unknown > 0, "{failures} failures, {unknown} unknown");
}
