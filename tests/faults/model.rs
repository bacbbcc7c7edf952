//! Stores beside a model: random operations, many at once, and the same answers from SQLite, from PostgreSQL and from lists in
//! memory.
//!
//! What is asked for at once is asked of different customers, so that its order is no matter; it meets in the batches of the
//! group commit, and half of it comes through another gateway's handle. A sequence that is answered differently is made shorter
//! until nothing can be left out, and printed.

mod operations;
mod reference;
mod subject;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use tokio::runtime::Runtime;

use self::{
    operations::{ACCOUNTS, Op, sequences},
    reference::{Answer, Flaw, Reference},
    subject::Subject,
};
use super::{Random, either, seed, tell};
use crate::support::{Backend, Cluster, Database, Durability};

type Steps = Vec<Vec<Op>>;

/// Stores that are compared with the model, and what came of it.
struct Trial {
    runtime: Runtime,
    subjects: RefCell<Vec<Subject>>,
    flaw: Flaw,
    /// How often each kind of answer was given, by the model.
    answers: RefCell<BTreeMap<String, usize>>,
    operations: Cell<usize>,
    batches: Cell<usize>,
    largest: Cell<usize>,
}

impl Trial {
    fn of(subjects: Vec<Subject>, flaw: Flaw) -> Self {
        Self {
            runtime: Runtime::new().unwrap(),
            subjects: RefCell::new(subjects),
            flaw,
            answers: RefCell::default(),
            operations: Cell::new(0),
            batches: Cell::new(0),
            largest: Cell::new(0),
        }
    }

    /// Draws sequences until so many operations were compared. Gives what was answered differently, and the shortest sequence
    /// that was found to bring it about.
    fn run(&self, seed: u64, operations: usize, longest: usize) -> Result<(), (String, Steps)> {
        let mut random = Random(seed);
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&random.next().to_le_bytes());
        }
        let config = Config {
            failure_persistence: None,
            max_shrink_iters: 400,
            max_shrink_time: 120_000,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        while self.operations.get() < operations {
            let sequence = sequences(longest).new_tree(&mut runner).unwrap();
            let outcome = runner.run_one(sequence, |steps| self.compare(&steps).map_err(TestCaseError::fail));
            match outcome {
                Ok(_) => {}
                Err(TestError::Fail(reason, steps)) => return Err((reason.to_string(), steps)),
                Err(TestError::Abort(reason)) => panic!("{reason}"),
            }
        }
        Ok(())
    }

    /// Does a sequence from the beginning.
    fn compare(&self, steps: &Steps) -> Result<(), String> {
        let subjects = &mut *self.subjects.borrow_mut();
        self.runtime.block_on(async {
            let mut model = Reference::new(self.flaw, ACCOUNTS);
            for subject in subjects.iter_mut() {
                subject.begin().await;
            }
            for step in steps {
                let mut left = step.clone();
                while !left.is_empty() {
                    let (batch, rest) = take(&left, &model);
                    self.step(batch, &mut model, subjects).await?;
                    left = rest;
                }
            }
            Ok(())
        })
    }

    /// Does operations all at once.
    async fn step(&self, batch: Vec<Op>, model: &mut Reference, subjects: &mut [Subject]) -> Result<(), String> {
        let first = self.operations.get();
        self.operations.set(first + batch.len());
        self.batches.set(self.batches.get() + 1);
        self.largest.set(self.largest.get().max(batch.len()));
        model.next_step();
        let before: Vec<_> = batch
            .iter()
            .map(|op| op.who().and_then(|who| model.version(who)))
            .collect();
        let mut asked = Vec::new();
        let mut written = Vec::new();
        for (number, op) in batch.into_iter().enumerate() {
            let request = match model.token_of(&op) {
                Some(token) => token.to_string(),
                None => format!("request-{}", first + number),
            };
            written.push(model.write(&op, &request));
            asked.push((op, request));
        }
        let answers = ask(subjects, &asked, &before, model).await;
        for (subject, answers) in subjects.iter_mut().zip(answers) {
            for ((answer, written), (op, _)) in answers.iter().zip(&written).zip(&asked) {
                let expected = model.read(op, &subject.times).unwrap_or_else(|| written.clone());
                if *answer != expected {
                    let name = subject.name();
                    return Err(format!("{op:?}\n{name} answers {answer:?}\nand the model {expected:?}"));
                }
                *self.answers.borrow_mut().entry(kind(answer)).or_default() += 1;
            }
            if let Some(fault) = subject.faults().first() {
                return Err(format!("{}, after {asked:?}: {fault}", subject.name()));
            }
        }
        Ok(())
    }
}

/// Asks all stores, two at the same time.
async fn ask(
    subjects: &mut [Subject],
    asked: &[(Op, String)],
    before: &[Option<i64>],
    model: &Reference,
) -> Vec<Vec<Answer>> {
    match subjects {
        [one, other] => {
            let (one, other) = tokio::join!(one.ask(asked, before, model), other.ask(asked, before, model));
            vec![one, other]
        }
        [one] => vec![one.ask(asked, before, model).await],
        _ => unreachable!("there are one or two"),
    }
}

/// Of what is left of a step, what can be asked for at once, as the model understands it now; and the rest.
fn take(left: &[Op], model: &Reference) -> (Vec<Op>, Vec<Op>) {
    let (mut batch, mut rest) = (Vec::new(), Vec::new());
    let (mut customers, mut keys) = (HashSet::new(), HashSet::new());
    let mut is_full = false;
    for op in left {
        let resolved = model.resolve(op);
        let fits = !is_full
            && match resolved.customers() {
                None => batch.is_empty(),
                Some(of) => {
                    of.iter().all(|customer| !customers.contains(customer))
                        && resolved.key().is_none_or(|key| keys.insert(key))
                }
            };
        if !fits {
            rest.push(op.clone());
            continue;
        }
        match resolved.customers() {
            None => is_full = true,
            Some(of) => customers.extend(of),
        }
        batch.push(resolved);
    }
    (batch, rest)
}

/// What kind of answer it is: its name, or why it was refused.
fn kind(answer: &Answer) -> String {
    match answer {
        Answer::Refused(why) => why.clone(),
        other => format!("{other:?}")
            .split([' ', '('])
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// What has to occur among the answers, or the test did not test it.
const KINDS: [&str; 16] = [
    "Account",
    "Changes",
    "Count",
    "Customer",
    "Customers",
    "Documents",
    "Done",
    "Erased",
    "Imported",
    "Registered",
    "Revoked",
    "Tokens",
    "no such customer",
    "the credentials are no longer valid",
    "the customer was changed by someone else",
    "the idempotency key was already used",
];

#[test]
fn sqlite_postgres_and_a_model_answer_alike() {
    let seed = seed("model");
    let begun = Instant::now();
    let cluster = Cluster::start(Durability::None);
    // In clear text and encrypted: half the operations each.
    let mut told = BTreeMap::new();
    let (mut operations, mut batches, mut largest) = (0, 0, 0);
    for encrypted in [false, true] {
        let databases = [Backend::Sqlite.database(), Database::on(&cluster)];
        let subjects = databases.map(|database| Subject::open(database, encrypted)).into();
        let trial = Trial::of(subjects, Flaw::None);
        if let Err((reason, steps)) = trial.run(seed, either(5_000, 500_000), 80) {
            panic!("with FAULTS_SEED={seed}, encrypted: {encrypted}: {reason}\nafter {steps:#?}");
        }
        operations += trial.operations.get();
        batches += trial.batches.get();
        largest = largest.max(trial.largest.get());
        for (kind, count) in trial.answers.into_inner() {
            *told.entry(kind).or_insert(0) += count;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    tell(&format!(
        "model: {operations} operations in {batches} batches of at most {largest}, each on both databases, none answered \
         differently, in {seconds:.0} s; answers: {told:?}"
    ));
    for kind in KINDS {
        assert!(told.contains_key(kind), "no answer was: {kind}");
    }
    assert_eq!(told.len(), KINDS.len(), "an answer that nobody expects: {told:?}");
}

#[test]
fn a_model_that_is_wrong_is_found_out() {
    let seed = seed("model with flaws");
    for flaw in [
        Flaw::ForgetsKeys,
        Flaw::IgnoresEtags,
        Flaw::RecordsTheSame,
        Flaw::Blanks,
        Flaw::NeverStale,
        Flaw::LateByOne,
    ] {
        let trial = Trial::of(vec![Subject::open(Backend::Sqlite.database(), false)], flaw);
        let (reason, steps) = trial.run(seed, 10_000, 12).expect_err("it was not found out");
        let shortest: usize = steps.iter().map(Vec::len).sum();
        tell(&format!(
            "model that is wrong ({flaw:?}): found out, and shortened to {shortest} operations"
        ));
        assert!(
            shortest <= 12,
            "{flaw:?} takes {shortest} operations: {reason}\n{steps:#?}"
        );
    }
}
