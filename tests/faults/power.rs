//! A loss of power loses no acknowledged change on SQLite, and leaves no database that is damaged.
//!
//! What the program does to its files is recorded while clients change statuses. Then the power is cut, many times over, at
//! random points of the record: each cut leaves a disk as [`super::disk`] says, on which the database is opened.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use diesel::{QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_query, sql_types::Text};

use crate::{
    faults::{
        Random,
        disk::{Disk, Image, Syncs},
        either,
        ledger::{Attempt, Fate, Sent, Stored, verify},
        load::{CLIENTS, Client, create_account, register, see},
        seed,
        shim::{Log, Rule, Shim, call, errno, file},
        tell,
    },
    support::{Backend, Database, Gateway, Ground, Session, dcams, gateway::dcams_of, program},
};

/// The marks of the log: the account was made, the customers were, and from here on each what became of an attempt.
const CREATED: u64 = 1;
const REGISTERED: u64 = 2;
const FIRST: u64 = 3;

/// From here on the marks of accounts that are made while the gateway serves.
const OTHERS: u64 = 1 << 32;

/// How long the WAL is when the next one is made: SQLite then copies it into the database, as it does by itself from a
/// thousand pages on for whoever does not say otherwise, and the gateway's own connection begins it anew.
const CHECKPOINT: u64 = 1_100 * 1_024;

/// One cut in so many is looked at through the program as well.
const THROUGH_THE_PROGRAM: usize = 100;

/// What happens to the disk while it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Some syncs fail.
    FailedSyncs,
    /// The same, and nobody is told.
    UntoldSyncs,
}

/// An attempt, and the mark from which on its fate was known.
struct Marked {
    attempt: Attempt,
    mark: Option<u64>,
}

/// As many failed syncs tell something.
const ENOUGH_FAILED: usize = 10;

/// What the program did to its files, and what clients were told meanwhile.
struct Recording {
    /// What was on the disk before.
    base: Image,
    /// Whether the customers were there.
    is_registered: bool,
    log: Log,
    sent: BTreeMap<String, Vec<Marked>>,
}

/// What a cut left, and what clients knew at that moment.
struct Remains {
    image: Image,
    sent: Sent,
}

/// What is wrong with what a cut left.
#[derive(Debug)]
enum Fault {
    Lost(String),
    Corrupt(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "lost: {what}"),
            Self::Corrupt(what) => write!(f, "damaged: {what}"),
        }
    }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Recording {
    /// Records gateways that are started and stopped in turn, each after so many acknowledged changes, on what a cut left, or
    /// from an empty folder on.
    fn make(before: Option<Remains>, sessions: &[usize], trouble: Trouble, random: &mut Random) -> Self {
        let (_ground, database) = Ground::new(Backend::Sqlite);
        let folder = database.path("volume");
        let shim = Shim::on(&folder, &database.path(""), true);
        let under = || shim.under(program());
        let is_registered = before.is_some();
        let (base, known) = match before {
            Some(Remains { image, sent }) => {
                for (name, content) in &image {
                    std::fs::write(folder.join(name), content).unwrap();
                }
                (image, sent)
            }
            None => {
                create_account(&database, under);
                shim.marker().mark(CREATED);
                let sent = register(&database, under);
                shim.marker().mark(REGISTERED);
                (Image::new(), sent)
            }
        };
        let known = known.into_iter().map(|(email, attempts)| {
            let marked = |attempt: Attempt| Marked {
                mark: (attempt.fate != Fate::Open).then_some(0),
                attempt,
            };
            (email, attempts.into_iter().map(marked).collect())
        });
        let mut sent: BTreeMap<String, Vec<Marked>> = known.collect();
        let (next, others) = (AtomicU64::new(FIRST), AtomicU64::new(OTHERS));
        for &acknowledged in sessions {
            let gateway = Gateway::start_of(under(), &database, ANY, &[]);
            let mut changes = |acknowledged| {
                let round = (random.next() >> 32) as usize;
                let ended = AtomicBool::new(false);
                thread::scope(|scope| {
                    let (shim, database, others, ended) = (&shim, &database, &others, &ended);
                    if trouble == Trouble::None {
                        scope.spawn(move || administer(shim, database, others, ended));
                    } else {
                        let random = Random(random.next());
                        scope.spawn(move || fail_syncs(shim, trouble, random, ended));
                    }
                    for (email, marked) in load(shim, &gateway, round, acknowledged, &next) {
                        sent.get_mut(&email).unwrap().push(marked);
                    }
                    ended.store(true, Ordering::Relaxed);
                });
            };
            changes(acknowledged);
            if trouble == Trouble::None {
                // All of a WAL is copied only where nobody writes meanwhile: then the next change begins it anew.
                while !is_long(&database) {
                    changes(100);
                }
                make_account(&shim, &database, &others);
                changes(100);
            }
            // Many changes may share a sync: so many syncs fail as the test needs.
            while trouble != Trouble::None && failed_syncs(&shim.log()) <= ENOUGH_FAILED {
                changes(100);
            }
            shim.disarm();
            assert_eq!(gateway.stop().code, 0);
        }
        assert_eq!(shim.retried_syncs(), 0, "a failed sync was made again");
        Self {
            base,
            is_registered,
            log: shim.log(),
            sent,
        }
    }

    /// What clients knew when these marks were there.
    fn known(&self, marks: &HashSet<u64>) -> Sent {
        let known = |marked: &Marked| Attempt {
            fate: match marked.mark {
                Some(mark) if marks.contains(&mark) => marked.attempt.fate,
                _ => Fate::Open,
            },
            ..marked.attempt.clone()
        };
        let attempts = |(email, sent): (&String, &Vec<Marked>)| (email.clone(), sent.iter().map(known).collect());
        self.sent.iter().map(attempts).collect()
    }

    /// Cuts the power so often, each time at a random point, and hands over what is left: with the marks that were there, and
    /// the number of the cut.
    fn cut(&self, syncs: Syncs, cuts: usize, random: &mut Random, mut look: impl FnMut(usize, &HashSet<u64>, Remains)) {
        let mut points: Vec<_> = (0..cuts).map(|_| random.below(self.log.records.len() + 1)).collect();
        points.sort_unstable();
        let mut disk = Disk::with(&self.base, syncs);
        let mut marks = HashSet::from([0]);
        if self.is_registered {
            marks.extend([CREATED, REGISTERED]);
        }
        let mut played = 0;
        for (number, point) in points.into_iter().enumerate() {
            for record in &self.log.records[played..point] {
                disk.play(&self.log, record, random);
                if record.call == call::MARK {
                    marks.insert(record.offset);
                }
            }
            played = point;
            let remains = Remains {
                image: disk.cut(random),
                sent: self.known(&marks),
            };
            look(number, &marks, remains);
        }
    }

    /// How often the WAL was copied into the database, and how often it was begun anew.
    fn checkpoints(&self) -> (usize, usize) {
        let (mut copied, mut begun, mut is_new) = (0, 0, false);
        for record in &self.log.records {
            match (record.call, record.file) {
                (call::SYNC, file::MAIN) => copied += 1,
                (call::OPEN, file::WAL) => is_new |= record.created,
                (call::WRITE, file::WAL) if record.offset == 0 => {
                    begun += usize::from(!is_new);
                    is_new = false;
                }
                _ => {}
            }
        }
        (copied, begun)
    }
}

/// Whether so much is in the WAL that whoever commits next copies it.
fn is_long(database: &Database) -> bool {
    let wal = database.path("volume").join(format!("{}-wal", Database::FILE));
    std::fs::metadata(&wal).is_ok_and(|wal| wal.len() > CHECKPOINT)
}

/// Makes an account by a command, while the gateway serves.
fn make_account(shim: &Shim, database: &Database, next: &AtomicU64) {
    let mark = next.fetch_add(1, Ordering::Relaxed);
    // Of another name than those of the recording that this one goes on with.
    let name = format!("other-{}", uuid::Uuid::new_v4());
    let arguments = ["account", "create", &name, "--password-stdin"];
    dcams_of(shim.under(program()), database, &arguments, "secret").ok();
    shim.marker().mark(mark);
}

/// Makes accounts while changes are made, once the WAL is long.
fn administer(shim: &Shim, database: &Database, next: &AtomicU64, ended: &AtomicBool) {
    let mut made_at: Option<Instant> = None;
    while !ended.load(Ordering::Relaxed) {
        if is_long(database) && made_at.is_none_or(|at| at.elapsed() > Duration::from_millis(300)) {
            make_account(shim, database, next);
            made_at = Some(Instant::now());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How many syncs have failed.
fn failed_syncs(log: &Log) -> usize {
    let failed = log
        .records
        .iter()
        .filter(|record| record.call == call::SYNC && record.failed);
    failed.count()
}

/// Makes a few syncs fail, again and again.
fn fail_syncs(shim: &Shim, trouble: Trouble, mut random: Random, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let rule = Rule {
            calls: call::SYNC,
            files: file::KEPT,
            first: 1 + random.next() % 60,
            count: 1 + random.next() % 4,
            error: if trouble == Trouble::UntoldSyncs { 0 } else { errno::EIO },
            growing: false,
        };
        shim.arm(0, rule);
        while !ended.load(Ordering::Relaxed) && shim.seen(0) < rule.first + rule.count {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends updates from many clients until so many are acknowledged, and marks each in the log when its reply is there.
fn load(shim: &Shim, gateway: &Gateway, round: usize, acknowledged: usize, next: &AtomicU64) -> Vec<(String, Marked)> {
    let made = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let made = &made;
                scope.spawn(move || {
                    let mut marker = shim.marker();
                    let mut client = Client::new(gateway.rest, round, number);
                    let mut sent = Vec::new();
                    while made.load(Ordering::Relaxed) < acknowledged {
                        let step = client.step().expect("the gateway is there");
                        let is_made = step.attempt.fate == Fate::Made;
                        let mark = (step.attempt.fate != Fate::Open).then(|| {
                            let mark = next.fetch_add(1, Ordering::Relaxed);
                            marker.mark(mark);
                            mark
                        });
                        made.fetch_add(is_made.into(), Ordering::Relaxed);
                        let attempt = step.attempt;
                        sent.push((step.email, Marked { attempt, mark }));
                    }
                    sent
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// Puts what a cut left where it can be opened.
fn lay(image: &Image, garbage: Option<u8>) -> Database {
    let database = Backend::Sqlite.database();
    for (name, content) in image {
        database.file(name, content);
    }
    // The index of the WAL may be there as well, with anything in it.
    if let Some(garbage) = garbage {
        database.file(&format!("{}-shm", Database::FILE), vec![garbage; 32_768]);
    }
    database
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

/// Opens what is left past the program, and looks whether it is sound and whether anything is lost.
fn judge(database: &Database, marks: &HashSet<u64>, sent: &Sent) -> Result<(), Fault> {
    let mut session = database.session();
    let Session::Sqlite(connection) = &mut session else {
        unreachable!("a file");
    };
    let lines: Vec<Line> = connection
        .batch_execute("PRAGMA synchronous = OFF")
        .and_then(|()| sql_query("PRAGMA integrity_check").load(connection))
        .map_err(|error| Fault::Corrupt(error.to_string()))?;
    if lines.len() != 1 || lines[0].integrity_check != "ok" {
        return Err(Fault::Corrupt(lines[0].integrity_check.clone()));
    }
    let mut number = |sql: &str| session.number(&format!("(SELECT count(*) FROM {sql})"));
    let has = |is: bool, what: &str| is.then_some(()).ok_or_else(|| Fault::Lost(what.to_owned()));
    let tables = number("sqlite_master WHERE name IN ('accounts', 'customers', 'status_changes')");
    if marks.contains(&CREATED) {
        let others = marks.iter().filter(|mark| **mark >= OTHERS).count();
        has(tables == 3 && number("accounts") > others as i64, "an account")?;
    }
    if !marks.contains(&REGISTERED) {
        let customers = if tables == 3 { number("customers") } else { 0 };
        return has(
            [0, sent.len() as i64].contains(&customers),
            "some of the customers, and not all",
        );
    }
    verify(&Stored::of(&mut session), sent).map_err(Fault::Lost)
}

/// The program goes on with what is left.
fn go_on(database: &Database, marks: &HashSet<u64>, mut sent: Sent, context: &str) {
    if !marks.contains(&REGISTERED) {
        dcams(database, &["account", "create", "other", "--password-stdin"], "secret").ok();
        return;
    }
    let gateway = Gateway::start(database, &[]);
    let mut client = Client::new(gateway.rest, usize::MAX, 0);
    for _ in 0..3 {
        let step = client.step().expect(context);
        assert_eq!(step.attempt.fate, Fate::Made, "{context}");
        sent.get_mut(&step.email).unwrap().push(step.attempt);
    }
    let stored = Stored::of(&mut database.session());
    verify(&stored, &sent).unwrap_or_else(|fault| panic!("{context}, and after three changes more: {fault}"));
    see(&gateway, &stored, context);
    assert_eq!(gateway.stop().code, 0, "{context}");
    dcams(database, &["audit", "verify"], "").ok();
}

/// What became of cuts.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    through_the_program: usize,
    lost: usize,
    corrupt: usize,
    /// What was wrong first.
    first: Option<String>,
}

impl Tally {
    /// Cuts the power and counts what is wrong after it; with `goes_on`, the program is started on some of what is left. Gives
    /// what the last cut with customers left.
    fn add(
        &mut self,
        recording: &Recording,
        syncs: Syncs,
        cuts: usize,
        random: &mut Random,
        goes_on: bool,
    ) -> Option<Remains> {
        let mut garbage = Random(random.next());
        let mut last = None;
        recording.cut(syncs, cuts, random, |number, marks, remains| {
            let garbage = garbage.next().is_multiple_of(2).then_some(garbage.next() as u8);
            self.cuts += 1;
            match judge(&lay(&remains.image, garbage), marks, &remains.sent) {
                Ok(()) => {}
                Err(fault) => {
                    match fault {
                        Fault::Lost(_) => self.lost += 1,
                        Fault::Corrupt(_) => self.corrupt += 1,
                    }
                    self.first.get_or_insert_with(|| format!("cut {number}: {fault}"));
                }
            }
            if goes_on && number % THROUGH_THE_PROGRAM == THROUGH_THE_PROGRAM / 2 {
                self.through_the_program += 1;
                let context = format!("cut {number}");
                go_on(&lay(&remains.image, garbage), marks, remains.sent.clone(), &context);
            }
            if marks.contains(&REGISTERED) {
                last = Some(remains);
            }
        });
        last
    }
}

#[test]
fn a_loss_of_power_loses_no_acknowledged_change() {
    let name = "power cuts on sqlite";
    let mut random = Random(seed(name));
    let (cuts, recordings) = either((1_000, 2), (20_000, 20));
    let mut tally = Tally::default();
    let (mut changes, mut checkpoints, mut restarts) = (0, 0, 0);
    let mut before = None;
    let mut first = None;
    for number in 0..recordings {
        // So many changes in one process that its own thread makes a checkpoint, in a few of the long form.
        let sessions: &[usize] = if number % 5 == 4 { &[200, 17_000] } else { &[200, 400] };
        // Each goes on with what the last cut of the one before has left.
        let recording = Recording::make(before, sessions, Trouble::None, &mut random);
        changes += recording
            .sent
            .values()
            .flatten()
            .filter(|marked| marked.mark.is_some_and(|mark| mark > 0))
            .count();
        let (copied, begun) = recording.checkpoints();
        (checkpoints, restarts) = (checkpoints + copied, restarts + begun);
        before = tally.add(&recording, Syncs::Done, cuts / recordings, &mut random, true);
        assert_eq!((tally.lost, tally.corrupt), (0, 0), "{tally:?}");
        first.get_or_insert(recording);
    }
    assert!(restarts > 0, "no WAL was begun anew in {checkpoints} checkpoints");

    // The check is one that fails: without the syncs of commits changes are lost, and without any the database is damaged.
    let first = first.unwrap();
    let (mut normal, mut ignored) = (Tally::default(), Tally::default());
    normal.add(&first, Syncs::AsNormal, cuts / 10, &mut random, false);
    ignored.add(&first, Syncs::Ignored, cuts / 10, &mut random, false);
    tell(&format!(
        "{name}: {changes} changes, {checkpoints} checkpoints and {restarts} new beginnings of the WAL recorded; {} cuts, {} of them looked at through the program: \
         {} lost, {} damaged; as with synchronous=NORMAL: {} cuts, {} lost, {} damaged; with no syncs: {} cuts, {} lost, \
         {} damaged",
        tally.cuts,
        tally.through_the_program,
        tally.lost,
        tally.corrupt,
        normal.cuts,
        normal.lost,
        normal.corrupt,
        ignored.cuts,
        ignored.lost,
        ignored.corrupt
    ));
    assert!(normal.lost > normal.cuts / 10, "{normal:?}");
    assert_eq!(normal.corrupt, 0, "{normal:?}");
    assert!(ignored.corrupt > 0, "{ignored:?}");
}

#[test]
fn a_failed_sync_is_not_taken_for_one_that_was_done() {
    let name = "failed syncs and power cuts on sqlite";
    let mut random = Random(seed(name));
    let cuts = either(200, 5_000);
    let recording = Recording::make(None, &[either(400, 4_000)], Trouble::FailedSyncs, &mut random);
    let mut told = Tally::default();
    told.add(&recording, Syncs::Done, cuts, &mut random, true);

    // And where nobody is told of them, changes are lost.
    let untold = Recording::make(None, &[400], Trouble::UntoldSyncs, &mut random);
    let mut lies = Tally::default();
    lies.add(&untold, Syncs::Done, cuts, &mut random, false);
    let [failed, unsaid] = [&recording, &untold].map(|recording| failed_syncs(&recording.log));
    tell(&format!(
        "{name}: {failed} syncs failed; {} cuts: {} lost, {} damaged; when nobody is told, of {unsaid}: {} cuts, {} lost, {} damaged",
        told.cuts, told.lost, told.corrupt, lies.cuts, lies.lost, lies.corrupt
    ));
    assert!(failed.min(unsaid) > ENOUGH_FAILED, "{failed} and {unsaid} syncs failed");
    assert_eq!((told.lost, told.corrupt), (0, 0), "{told:?}");
    assert!(lies.lost > 0, "{lies:?}");
}
