//! What is said when the gateway cannot do what it is asked: a store that is gone, slow or broken, too much at once, a body
//! that does not come.

use std::{sync::mpsc, thread};

use super::{
    Configuration, Deployment, Row, compare,
    configuration::Facade,
    documented::{JOHN, SAMPLE},
    everywhere, posted,
    transcript::{entry, transcript},
};
use crate::support::{Connection, Database, Ground, eventually, post};

fn prepare(database: &Database) {
    database.create_account("USERNAME", "PASSWORD");
    database.import("USERNAME", JOHN);
}

fn sample(name: &'static str) -> Vec<Row> {
    posted([(name, SAMPLE)])
}

#[test]
fn a_store_that_is_down_is_unavailable_and_serves_again_when_it_is_back() {
    let transcripts = Configuration::ALL.map(|configuration| {
        let (ground, database) = Ground::new(configuration.backend);
        prepare(&database);
        let deployment = Deployment::start(configuration, database, &[]);
        let away = ground.take_away();
        let answers = transcript(deployment.face().rest, &sample("the store is down"));
        away.bring_back();
        eventually("it serves again", || deployment.face().post(SAMPLE).status == 200);
        (configuration, answers)
    });
    compare("store_down", &transcripts);
}

#[test]
fn a_facade_whose_upstream_is_gone_says_what_one_says_whose_store_is_down() {
    let configuration = Configuration::ALL[1];
    assert_eq!(configuration.facade, Facade::Far);
    let deployment = Deployment::start(configuration, configuration.backend.database(), &[]);
    let facade = deployment.without_upstream();
    let answers = transcript(facade.rest, &sample("the store is down"));
    compare("store_down", &[(configuration, answers)]);
}

#[test]
fn a_full_queue_is_unavailable_at_once() {
    const CALLERS: usize = 6;
    let narrow = ["--write-queue", "1", "--write-batch", "1", "--writers", "1"];
    everywhere("queue_full", &narrow, prepare, |deployment| {
        let blocked = deployment.database.session().holding_customers();
        let rest = deployment.face().rest;
        let (replies, arrived) = mpsc::channel();
        for _ in 0..CALLERS {
            let replies = replies.clone();
            thread::spawn(move || replies.send(Connection::open(rest).post(SAMPLE)));
        }
        // One is being written and one waits, at most: the others must be refused while these hang.
        let refused: Vec<_> = arrived.iter().take(CALLERS - 2).collect();
        drop(blocked);
        assert!(arrived.iter().take(2).any(|reply| reply.status == 200));
        assert!(refused.iter().all(|reply| reply.body == refused[0].body));
        entry(
            "one change is written, another one waits",
            &post(SAMPLE.as_bytes()),
            &refused[0],
        )
    });
}

#[test]
fn a_deadline_that_passes_is_a_timeout() {
    everywhere("deadline", &[], prepare, |deployment| {
        let _blocked = deployment.database.session().holding_customers();
        transcript(
            deployment.face().rest,
            &sample("a change that cannot be written in five seconds"),
        )
    });
}

#[test]
fn a_body_that_does_not_come_is_a_timeout() {
    let whole = post(SAMPLE.as_bytes());
    let rows: [Row; 1] = [(
        "the last bytes of the body do not come",
        whole[..whole.len() - 10].to_vec(),
    )];
    everywhere("body_timeout", &[], prepare, |deployment| {
        transcript(deployment.face().rest, &rows)
    });
}

#[test]
fn too_many_failed_logins_are_throttled() {
    let wrong = SAMPLE.replace("PASSWORD", "wrong");
    let rows = posted([("the eleventh password within a minute, all of them wrong", &*wrong)]);
    everywhere("throttled", &[], prepare, |deployment| {
        for number in 0..10 {
            let guess = SAMPLE.replace("PASSWORD", &format!("guess {number}"));
            assert_eq!(deployment.face().post(guess).status, 401);
        }
        transcript(deployment.face().rest, &rows)
    });
}

#[test]
fn a_defect_is_an_internal_error_and_says_no_more() {
    everywhere("internal", &[], prepare, |deployment| {
        deployment.database.session().execute("DROP TABLE status_changes");
        transcript(deployment.face().rest, &sample("the history is gone"))
    });
}
