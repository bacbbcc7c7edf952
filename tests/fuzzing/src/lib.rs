//! What every input must come to, as checks that take any bytes and panic where something does not hold.
//!
//! `tests/fuzz` looks for such bytes with libFuzzer; the tests check what is in `corpus/`, and a little that is made of it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod basic;
mod cursor;
mod email;
mod facade;
mod json;
mod server;
mod tree;

use std::path::PathBuf;

/// A kind of input.
pub struct Target {
    /// What it is called on the command line, and in `corpus/`.
    pub name: &'static str,
    /// Panics unless all is as it must be.
    pub check: fn(&[u8]),
    /// What such inputs are made of, for who makes them without a fuzzer.
    pub words: &'static [&'static str],
}

/// All that there are.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "json",
        check: json::check,
        words: tree::WORDS,
    },
    Target {
        name: "email",
        check: email::check,
        words: email::WORDS,
    },
    Target {
        name: "basic",
        check: basic::check,
        words: basic::WORDS,
    },
    Target {
        name: "cursor",
        check: cursor::check,
        words: cursor::WORDS,
    },
    Target {
        name: "facade",
        check: facade::check,
        words: tree::WORDS,
    },
];

impl Target {
    /// The inputs that are kept, with the names of their files.
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name);
        let mut inputs: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.display().to_string(), std::fs::read(&path).unwrap())
            })
            .collect();
        inputs.sort();
        inputs
    }
}
