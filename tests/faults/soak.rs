//! A gateway under steady load for a long time: it answers all, and grows in nothing.

use std::{
    env, fs,
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    faults::{
        either,
        ledger::{Attempt, Fate, Stored, verify},
        load::{CLIENTS, Client, create_account, register},
        seed, tell,
    },
    support::{Backend, Gateway, memory, program},
};

/// What share of the load that the gateway can bear it gets, in percent.
const SHARE: u32 = 70;

/// What was measured of the process.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Since the beginning, in seconds.
    at: f64,
    /// Its memory, in KiB.
    memory: f64,
    descriptors: usize,
}

/// What a process may grow by.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// In the time that is looked at, in KiB, by the line that fits its samples best.
    memory: f64,
    descriptors: usize,
}

/// Looks at the last two thirds of the samples; gives by how many KiB the memory grew a minute, and by how many in all.
fn growth(samples: &[Sample], bounds: Bounds) -> Result<(f64, f64), String> {
    let samples = &samples[samples.len() / 3..];
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (at, memory) = (mean(|sample| sample.at), mean(|sample| sample.memory));
    let (mut over, mut under) = (0.0, 0.0);
    for sample in samples {
        over += (sample.at - at) * (sample.memory - memory);
        under += (sample.at - at).powi(2);
    }
    let slope = over / under;
    let grown = slope * (samples[samples.len() - 1].at - samples[0].at);
    if grown > bounds.memory {
        return Err(format!(
            "the memory grew by {grown:.0} KiB, {:.0} a minute",
            slope * 60.0
        ));
    }
    let most = samples.iter().map(|sample| sample.descriptors).max().unwrap();
    let least = samples.iter().map(|sample| sample.descriptors).min().unwrap();
    if most - least > bounds.descriptors {
        return Err(format!("from {least} to {most} descriptors"));
    }
    Ok((slope * 60.0, grown))
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Changes statuses for so long, at most so often a second if that is said, and gives what was sent; meanwhile `watch` is
/// called, about twenty times a second at most.
fn load(
    gateway: &Gateway,
    round: usize,
    time: Duration,
    rate: Option<f64>,
    mut watch: impl FnMut(Duration),
) -> Vec<(String, Attempt)> {
    let (began, sent, ended) = (Instant::now(), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (sent, ended) = (&sent, &ended);
                scope.spawn(move || {
                    let mut client = Client::new(gateway.rest, round, number);
                    let mut mine = Vec::new();
                    while !ended.load(Ordering::Relaxed) {
                        let turn = sent.fetch_add(1, Ordering::Relaxed);
                        // Each has its moment, and none is made up for by a crowd later.
                        if let Some(due) = rate.map(|rate| Duration::from_secs_f64(turn as f64 / rate)) {
                            thread::sleep(due.saturating_sub(began.elapsed()));
                        }
                        let step = client.step().expect("the gateway is there");
                        assert_eq!(step.attempt.fate, Fate::Made, "{:?}", step.reply);
                        mine.push((step.email, step.attempt));
                    }
                    mine
                })
            })
            .collect();
        while began.elapsed() < time {
            watch(began.elapsed());
            thread::sleep((time / 100).clamp(Duration::from_millis(50), Duration::from_secs(5)));
        }
        ended.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn a_gateway_under_load_for_long_does_not_grow() {
    let name = "soak on sqlite";
    seed(name);
    // Of the long form a shorter one can be asked for, in minutes.
    let minutes = env::var("FAULTS_SOAK_MINUTES")
        .ok()
        .map(|minutes| minutes.parse().expect("a number of minutes"));
    let long = Duration::from_secs(60 * minutes.unwrap_or(30));
    let time = either(Duration::from_secs(8), long);
    let database = Backend::Sqlite.database();
    create_account(&database, program);
    let mut sent = register(&database, program);
    let gateway = Gateway::start(&database, &[]);

    let measured = either(Duration::from_secs(2), Duration::from_secs(20));
    let warm = load(&gateway, 0, measured, None, |_| ());
    let rate = warm.len() as f64 / measured.as_secs_f64() * f64::from(SHARE) / 100.0;
    let mut samples = Vec::new();
    let steady = load(&gateway, 1, time, Some(rate), |at| {
        samples.push(Sample {
            at: at.as_secs_f64(),
            memory: memory::now(gateway.pid()) as f64,
            descriptors: descriptors(gateway.pid()),
        });
    });
    let requests = steady.len();
    for (email, attempt) in warm.into_iter().chain(steady) {
        sent.get_mut(&email).unwrap().push(attempt);
    }
    // What SQLite and the allocator keep comes in the first minutes; the short form has only those.
    let bounds = Bounds {
        memory: either(16.0, 8.0) * 1_024.0,
        descriptors: 8,
    };
    let (slope, grown) = growth(&samples, bounds).unwrap_or_else(|fault| panic!("{fault}: {samples:?}"));
    let last = samples[samples.len() - 1];
    verify(&Stored::of(&mut database.session()), &sent).unwrap_or_else(|fault| panic!("{fault}"));

    // The check is one that fails: with somebody who opens connections and never closes them.
    let mut kept = Vec::new();
    let mut leaking = Vec::new();
    load(&gateway, 2, Duration::from_secs(2), Some(rate), |at| {
        kept.push(TcpStream::connect(gateway.rest).unwrap());
        leaking.push(Sample {
            at: at.as_secs_f64(),
            memory: memory::now(gateway.pid()) as f64,
            descriptors: descriptors(gateway.pid()),
        });
    });
    let fault = growth(&leaking, bounds).expect_err("a leak is found");
    assert!(fault.ends_with("descriptors"), "{fault}");
    tell(&format!(
        "{name}: {} s at {rate:.0} changes a second, {SHARE} % of what was measured: {requests} requests, 0 errors, 0 lost; \
         memory {:.0} MiB at the end, {slope:.0} KiB a minute over the last two thirds ({grown:.0} KiB); {} descriptors at \
         the end",
        time.as_secs(),
        last.memory / 1_024.0,
        last.descriptors
    ));
}

#[test]
fn memory_that_grows_is_found() {
    let bounds = Bounds {
        memory: 8_192.0,
        descriptors: 8,
    };
    let samples = |memory: fn(usize) -> f64| -> Vec<Sample> {
        let sample = |number| Sample {
            at: number as f64 * 60.0,
            memory: memory(number),
            descriptors: 40 + number % 3,
        };
        (0..30).map(sample).collect()
    };
    // What comes at first, and what goes up and down, is no growth.
    assert!(growth(&samples(|at| 50_000.0 + 20_000.0 * (at.min(9) as f64 / 9.0)), bounds).is_ok());
    assert!(growth(&samples(|at| 50_000.0 + 9_000.0 * (at % 2) as f64), bounds).is_ok());
    let fault = growth(&samples(|at| 50_000.0 + 500.0 * at as f64), bounds).unwrap_err();
    assert!(fault.contains("500 a minute"), "{fault}");
}
