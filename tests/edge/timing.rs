//! How long a login takes that is refused: the same whatever is wrong with it.

use std::time::{Duration, Instant};

use crate::support::{Backend, Connection, Gateway, dcams};

/// After how many logins of each kind they are looked at. Of kinds that take the same time, one look in five finds otherwise by
/// chance at the first, and one in ten million at the last.
const LOOKS: [usize; 3] = [200, 600, 2_000];

/// Which orders the three kinds come in, one after the other.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]];

const KINDS: [&str; 3] = ["an unknown user", "a wrong password", "a disabled account"];

/// How probable it is that one of the first took longer than one of the others: 0.5 if nothing tells them apart.
fn auc(ones: &[Duration], others: &[Duration]) -> f64 {
    let mut all: Vec<_> = ones.iter().map(|time| (*time, true)).collect();
    all.extend(others.iter().map(|time| (*time, false)));
    all.sort_unstable();
    let (mut before, mut above) = (0_u64, 0_u64);
    for (_, is_one) in all {
        match is_one {
            true => above += before,
            false => before += 1,
        }
    }
    above as f64 / (ones.len() * others.len()) as f64
}

#[test]
fn an_order_is_told_from_none() {
    let times = |from: u64| (from..from + 100).map(Duration::from_millis).collect::<Vec<_>>();
    assert_eq!((auc(&times(100), &times(0)), auc(&times(0), &times(100))), (1.0, 0.0));
    let near = auc(&times(0), &times(0));
    assert!((0.49..=0.51).contains(&near), "{near}");
}

#[test]
fn how_long_a_refused_login_takes_does_not_tell_what_is_wrong_with_it() {
    for backend in Backend::BOTH {
        let database = backend.database();
        for name in ["shop", "closed"] {
            database.create_account(name, "right");
        }
        dcams(&database, &["account", "disable", "closed"], "").ok();
        // Nobody is blocked, and no guess is remembered.
        let unlimited = ["--login-failures-per-address", "0", "--login-failures-per-user", "0"];
        let gateway = Gateway::start(&database, &unlimited);
        let mut connection = Connection::open(gateway.rest);
        let mut times: [Vec<Duration>; 3] = Default::default();
        let mut refuse = |kind: usize, number: usize| {
            // As long as one another.
            let (user, pass) = match kind {
                0 => ("nobody", format!("{number:05}")),
                1 => ("shop", format!("{number:05}")),
                _ => ("closed", "right".to_owned()),
            };
            let body = format!(
                r#"{{"user":"{user}","pass":"{pass}","service":"getStatus","target":{{"email":"a@example.com"}}}}"#
            );
            let began = Instant::now();
            let status = connection.post(&body).status;
            let took = began.elapsed();
            assert_eq!(status, 401, "{backend}: {}", KINDS[kind]);
            took
        };
        loop {
            let number = times[0].len();
            for kind in ORDERS[number % ORDERS.len()] {
                times[kind].push(refuse(kind, number));
            }
            if !LOOKS.contains(&times[0].len()) {
                continue;
            }
            let told_apart: Vec<_> = [(0, 1), (0, 2), (1, 2)]
                .into_iter()
                .map(|(one, other)| (KINDS[one], KINDS[other], auc(&times[one], &times[other])))
                .filter(|(_, _, auc)| !(0.45..=0.55).contains(auc))
                .collect();
            if told_apart.is_empty() {
                break;
            }
            assert!(times[0].len() < LOOKS[2], "{backend}: {told_apart:?}");
        }
    }
}
