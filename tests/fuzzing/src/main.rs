//! The checks under libFuzzer; `FUZZ_TARGET` says which.
#![no_main]
#![allow(clippy::expect_used)]

use std::sync::LazyLock;

static CHECK: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let target = dcams_fuzz::TARGETS.iter().find(|target| target.name == name);
    target.expect("there is no such target").check
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHECK(data));
