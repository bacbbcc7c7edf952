//! Faults that the program must survive with nothing lost, what its inputs may not do to it, and its store beside a model.
//!
//! Each has a short form, which every run of the tests has, and a long one: `tests/long` runs those. Each run prints the seed
//! of what it draws at random, and `FAULTS_SEED` repeats it.

mod clients;
mod clock;
mod disk;
mod errors;
mod failover;
mod inputs;
mod json_cases;
mod kills;
mod ledger;
mod load;
mod model;
mod postgres;
mod postgres_disk;
mod power;
mod shim;
mod soak;
mod storm;
mod wire;

use std::{
    env,
    hash::{BuildHasher, RandomState},
    io::{Write, stderr},
};

pub(crate) use crate::support::Random;

/// What a test does in its short form, and what it does when the long forms are asked for.
pub(crate) fn either<T>(short: T, long: T) -> T {
    match env::var("FAULTS").as_deref() {
        Ok("long") => long,
        Ok(other) => panic!("FAULTS is `long` or is not set, but it is {other}"),
        Err(_) => short,
    }
}

/// The seed of this run of the test `name`: the one that is asked for, or another each time.
pub(crate) fn seed(name: &str) -> u64 {
    let seed = match env::var("FAULTS_SEED") {
        Ok(seed) => seed.parse().expect("FAULTS_SEED is a number"),
        Err(_) => RandomState::new().hash_one(name),
    };
    tell(&format!("{name}: FAULTS_SEED={seed}"));
    seed
}

/// Writes a line past the harness, which keeps what a test that passes prints: its seed, and the figures that it found.
pub(crate) fn tell(line: &str) {
    writeln!(stderr(), "{line}").expect("stderr can be written to");
}
