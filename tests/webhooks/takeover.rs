//! One gateway at a time delivers, and another goes on where it ended.

use super::{FAST, Hook, Receiver, receiver::Answer, register, set, shop};
use crate::support::{Backend, Gateway, dcams, eventually};

const STATUSES: [&str; 2] = ["PASS", "FAIL"];

#[test]
fn of_two_gateways_one_delivers_and_the_other_takes_over_after_a_kill() {
    let database = shop(Backend::Postgres);
    let receiver = Receiver::start();
    let emails: Vec<String> = (0..8).map(|number| format!("c{number}@example.com")).collect();
    register(&database, &emails.iter().map(String::as_str).collect::<Vec<_>>());
    Hook::add(&database, &receiver.url());
    let first = Gateway::start(&database, &FAST);
    eventually("the first has the webhook", || {
        database
            .session()
            .number("(SELECT count(*) FROM webhooks WHERE lease_holder <> '')")
            == 1
    });
    let second = Gateway::start(&database, &FAST);
    let round = |gateway: &Gateway, rounds: std::ops::Range<usize>| {
        for number in rounds {
            for email in &emails {
                set(gateway, email, STATUSES[number % 2]);
            }
        }
    };
    round(&second, 0..10);
    receiver.has_taken(80);
    // While both live, no change comes twice.
    assert_eq!(receiver.count(), 80);
    assert_eq!(delivered(&first), 80);
    assert_eq!(delivered(&second), 0);

    // The first is killed while it delivers.
    receiver.answers(|_| Answer::Never);
    round(&second, 10..12);
    receiver.has(81);
    first.signal("KILL");
    receiver.answers(|_| Answer::Status(200));
    round(&second, 12..14);
    receiver.has_taken(8 * 14);
    for email in &emails {
        let expected: Vec<&str> = (0..14).map(|number| STATUSES[number % 2]).collect();
        assert_eq!(receiver.statuses(email), expected, "{email}");
    }
    assert!(delivered(&second) >= 32);
}

fn delivered(gateway: &Gateway) -> i64 {
    super::metric(gateway, r#"dcams_webhook_deliveries_total{outcome="delivered"}"#) as i64
}

/// One that is asked to stop ends at once, though its receiver hangs, and leaves its webhooks to others.
#[test]
fn a_gateway_that_stops_gives_its_webhooks_up() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let receiver = Receiver::start();
        register(&database, &["a@example.com"]);
        Hook::add(&database, &receiver.url());
        // With the lease and the waits of production.
        let first = Gateway::start(&database, &[]);
        receiver.answers(|_| Answer::Never);
        set(&first, "a@example.com", "PASS");
        set(&first, "a@example.com", "FAIL");
        receiver.has(1);
        let output = first.stop();
        assert_eq!(output.code, 0, "{output:?}");
        assert!(!output.err.contains("did not end in time"), "{output:?}");
        receiver.answers(|_| Answer::Status(200));
        assert_eq!(database.session().number("(SELECT max(lease_until) FROM webhooks)"), 0);
        let _second = Gateway::start(&database, &[]);
        receiver.has_taken(2);
        assert_eq!(receiver.statuses("a@example.com"), STATUSES);
    }
}

/// What was not written down when a gateway died is sent again, and nothing is left out.
#[test]
fn a_gateway_that_is_killed_again_and_again_leaves_nothing_out() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let receiver = Receiver::start();
        register(&database, &["a@example.com", "b@example.com"]);
        Hook::add(&database, &receiver.url());
        let mut number = 0;
        receiver.answers(move |_| {
            number += 1;
            Answer::Status(if number % 3 == 0 { 500 } else { 200 })
        });
        for round in 0..6 {
            let gateway = Gateway::start(&database, &FAST);
            let before = receiver.count();
            for email in ["a@example.com", "b@example.com"] {
                set(&gateway, email, STATUSES[round % 2]);
            }
            receiver.has(before + 1);
            gateway.signal("KILL");
        }
        let _gateway = Gateway::start(&database, &FAST);
        receiver.has_taken(12);
        for email in ["a@example.com", "b@example.com"] {
            let expected: Vec<&str> = (0..6).map(|round| STATUSES[round % 2]).collect();
            assert_eq!(receiver.statuses(email), expected, "{backend}: {email}");
        }
        let list = || dcams(&database, &["webhook", "list"], "").ok();
        eventually("nothing waits", || list().contains("behind 0 pending 0 parked 0"));
    }
}
