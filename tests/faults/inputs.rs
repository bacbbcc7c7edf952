//! Inputs that mean harm: those that are kept, and others that are made of them; and whether the checks can fail.
//!
//! What is looked for here for seconds, `tests/fuzz` looks for with a fuzzer that follows the branches of the program.

use std::{
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use fuzz::TARGETS;

use super::{Random, either, seed, tell};

/// The most bytes of an input that is made.
const MOST: usize = 4_096;

impl Random {
    /// Another input, made of one that there is: parts of it changed, left out, doubled, or put in from elsewhere.
    fn change(&mut self, inputs: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.below(input.len() + 1);
            let end = at + self.below((input.len() - at).min(16) + 1);
            let put: Vec<u8> = match self.below(6) {
                0 => vec![],
                1 => vec![self.next() as u8],
                2 => input[at..end].repeat(2),
                3 => words[self.below(words.len())].as_bytes().to_vec(),
                4 => input[at..end].iter().map(|byte| byte ^ 1 << self.below(8)).collect(),
                _ => {
                    let other = &inputs[self.below(inputs.len())];
                    let from = self.below(other.len() + 1);
                    other[from..from + self.below(other.len() - from + 1)].to_vec()
                }
            };
            input.splice(at..end, put);
        }
        input.truncate(MOST);
        input
    }
}

#[test]
fn no_input_comes_to_what_it_must_not() {
    let seed = seed("inputs");
    let time = either(Duration::from_secs(2), Duration::from_secs(120));
    for target in TARGETS {
        let kept = target.corpus();
        assert!(!kept.is_empty(), "{} has no corpus", target.name);
        for (name, input) in &kept {
            check(&target, input, name);
        }
        let mut random = Random(seed);
        let mut inputs: Vec<_> = kept.into_iter().map(|(_, input)| input).collect();
        // Those that are kept stay: without them all that is made would in time be far from anything that is understood.
        let kept = inputs.len();
        inputs.extend(inputs.clone());
        let (until, mut count) = (Instant::now() + time, 0);
        while Instant::now() < until {
            let input = random.change(&inputs, target.words);
            check(&target, &input, &format!("FAULTS_SEED={seed}"));
            count += 1;
            // Some go on, so that what is made gets far from what is kept.
            if count % 64 == 0 {
                let at = kept + random.below(kept);
                inputs[at] = input;
            }
        }
        tell(&format!("inputs: {} held for {count} made of {kept}", target.name));
        assert!(count > 20, "{} is too slow to be tested: {count}", target.name);
    }
}

#[track_caller]
fn check(target: &fuzz::Target, input: &[u8], of: &str) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    assert!(
        outcome.is_ok(),
        "{} of {of}: {:?}",
        target.name,
        String::from_utf8_lossy(input)
    );
}
