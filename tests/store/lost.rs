//! Connections to PostgreSQL that are lost at the worst moment: it is found out what became of the write, which is made
//! once.

use std::time::{Duration, Instant};

use store::{Change, Condition, Error, Status, Store};

use super::{Bench, block_on, key, location, new_customer, origin, soon};
use crate::support::{Backend, Cluster, Database, Durability, Loss, Proxy, eventually};

const EMAIL: &str = "lost@example.com";

/// A bench, and a store on its database that reaches it through a proxy.
async fn bench() -> (Bench, Store, Proxy) {
    // A server of its own: a proxy stands before nobody else's connections.
    let cluster = Box::leak(Box::new(Cluster::start(Durability::None)));
    let bench = Bench::on(Database::on(cluster)).await;
    bench.register(&[EMAIL]).await;
    let proxy = Proxy::before(cluster.port());
    let (there, here) = (format!(":{}/", cluster.port()), format!(":{}/", proxy.port()));
    let url = bench.database.url.replace(&there, &here);
    let store = Store::open(
        &url.parse().unwrap(),
        store::Migrate::Check,
        &crate::store::patient(),
        None,
    )
    .unwrap();
    assert_ne!(location(&bench.database), url.parse().unwrap());
    (bench, store, proxy)
}

fn change(bench: &Bench, status: Status, request: &str) -> Change {
    Change {
        origin: origin(request),
        ..bench.change(EMAIL, status)
    }
}

/// The ids of the requests in the history of the customer.
async fn requests(bench: &Bench) -> Vec<String> {
    let history = bench.whole_history(EMAIL).await;
    history
        .into_iter()
        .skip(1)
        .map(|change| change.origin.request_id)
        .collect()
}

#[test]
fn a_change_of_status_is_made_once_whatever_is_lost() {
    block_on(async {
        let (bench, store, proxy) = bench().await;
        let mut made = Vec::new();
        for (number, loss) in [Loss::Request, Loss::Reply, Loss::Late, Loss::Reply, Loss::Request]
            .into_iter()
            .enumerate()
        {
            let status = [Status::Pass, Status::Fail][number % 2];
            let request = format!("{number}-{loss:?}");
            proxy.lose(loss, request.as_bytes());
            let before = bench.customer(EMAIL).await;
            let answer = store
                .set_status(change(&bench, status, &request), soon())
                .await
                .unwrap();
            assert_eq!(proxy.losses(), number + 1, "{loss:?}");
            assert_eq!(answer, bench.customer(EMAIL).await, "{loss:?}");
            assert_eq!(
                (answer.status, answer.revision),
                (status, before.revision + 1),
                "{loss:?}"
            );
            made.push(request);
            assert_eq!(requests(&bench).await, made, "{loss:?}");
        }
        // What was late comes too late.
        proxy.release();
        let stopped = bench.set(EMAIL, Status::Pending).await.unwrap();
        made.push("request".to_owned());
        assert_eq!(requests(&bench).await, made);
        assert_eq!(stopped, bench.customer(EMAIL).await);
    });
}

#[test]
fn a_condition_is_judged_once_whatever_is_lost() {
    block_on(async {
        let (bench, store, proxy) = bench().await;
        for (number, loss) in [Loss::Request, Loss::Reply, Loss::Late].into_iter().enumerate() {
            let before = bench.customer(EMAIL).await;
            let status = [Status::Pass, Status::Fail][number % 2];
            let wanted = |request: &str| Change {
                condition: Condition {
                    etag: Some(before.etag()),
                    status: None,
                },
                ..change(&bench, status, request)
            };
            let request = format!("won-{loss:?}");
            proxy.lose(loss, request.as_bytes());
            let answer = store.set_status(wanted(&request), soon()).await.unwrap();
            assert_eq!(answer.revision, before.revision + 1);

            let request = format!("lost-{loss:?}");
            proxy.lose(loss, request.as_bytes());
            let answer = store.set_status(wanted(&request), soon()).await;
            assert!(matches!(answer, Err(Error::Conflict)), "{loss:?}: {answer:?}");
            assert_eq!(proxy.losses(), 2 * number + 2);
        }
    });
}

#[test]
fn a_registration_is_made_once_whatever_is_lost() {
    block_on(async {
        let (bench, store, proxy) = bench().await;
        for (number, loss) in [Loss::Request, Loss::Reply, Loss::Late].into_iter().enumerate() {
            let email = format!("{number}@example.com");
            proxy.lose(loss, b"COMMIT");
            let put = store::Put {
                key: Some(format!("key-{number}").parse().unwrap()),
                ..bench.wanted(new_customer(&email))
            };
            let answer = store.put_customer(put, soon()).await.unwrap();
            assert!(answer.created, "{loss:?}");
            assert_eq!(proxy.losses(), number + 1);
            assert_eq!(bench.whole_history(&email).await.len(), 1, "{loss:?}");
            assert_eq!(bench.customer(&email).await, answer.customer, "{loss:?}");
        }
    });
}

#[test]
fn an_erasure_is_made_once_whatever_is_lost() {
    block_on(async {
        let (bench, store, proxy) = bench().await;
        for (number, loss) in [Loss::Request, Loss::Reply, Loss::Late].into_iter().enumerate() {
            bench.put(new_customer(EMAIL)).await.unwrap();
            proxy.lose(loss, b"COMMIT");
            let erase = store::Erase {
                principal: bench.shop,
                email: key(EMAIL),
                key: None,
                origin: origin("erase"),
            };
            let erasure = store.erase_customer(erase, soon()).await.unwrap();
            assert_eq!(proxy.losses(), number + 1);
            assert_eq!(erasure.status_changes, 2, "{loss:?}");
            let erasures = bench.database.session().number("(SELECT count(*) FROM erasures)");
            assert_eq!(erasures, number as i64 + 1, "{loss:?}");
        }
    });
}

#[test]
fn what_is_lost_again_while_it_is_looked_up_is_not_taken_for_made() {
    block_on(async {
        let (bench, store, proxy) = bench().await;
        for (number, loss) in [Loss::Request, Loss::Reply].into_iter().enumerate() {
            let email = format!("{number}@example.com");
            proxy.lose(loss, b"COMMIT");
            // The statement that looks it up, and adds the row itself.
            proxy.lose(Loss::Reply, b"\"lost\"");
            let answer = store
                .put_customer(bench.wanted(new_customer(&email)), soon())
                .await
                .unwrap();
            assert_eq!(proxy.losses(), 4 * number + 2);
            assert!(answer.created, "{loss:?}");
            assert_eq!(bench.customer(&email).await, answer.customer, "{loss:?}");

            proxy.lose(loss, b"COMMIT");
            proxy.lose(Loss::Reply, b"\"lost\"");
            let erase = store::Erase {
                principal: bench.shop,
                email: key(&email),
                key: None,
                origin: origin("erase"),
            };
            store.erase_customer(erase, soon()).await.unwrap();
            let left = store.customer(bench.shop, key(&email), soon()).await;
            assert!(matches!(left, Err(Error::CustomerNotFound)), "{loss:?}: {left:?}");
        }
    });
}

#[test]
fn what_was_given_up_is_not_made_after_what_came_later() {
    block_on(async {
        let (bench, store, proxy) = bench().await;
        store
            .set_status(change(&bench, Status::Pass, "first"), soon())
            .await
            .unwrap();
        // It comes to the server late, and nobody can be asked what became of it while its caller waits.
        proxy.lose(Loss::Late, b"given-up");
        proxy.refuse(true);
        let short = Instant::now() + Duration::from_millis(500);
        let answer = store.set_status(change(&bench, Status::Fail, "given-up"), short).await;
        assert!(matches!(answer, Err(Error::Unknown(_))), "{answer:?}");
        assert_eq!(proxy.losses(), 1);
        proxy.refuse(false);
        store
            .set_status(change(&bench, Status::Pending, "later"), soon())
            .await
            .unwrap();

        let sessions = "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())";
        let mut session = bench.database.session();
        let before = session.number(sessions);
        proxy.release();
        eventually(
            "the server has seen what is late, and the end of its connection",
            || session.number(sessions) < before,
        );
        assert_eq!(requests(&bench).await, ["first", "later"]);
        assert_eq!(bench.customer(EMAIL).await.status, Status::Pending);
    });
}

#[test]
fn a_connection_that_was_idle_is_used_again() {
    block_on(async {
        let bench = Bench::on(Backend::Postgres.database()).await;
        let emails: Vec<_> = (0..10).map(|number| format!("{number}@example.com")).collect();
        bench
            .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        let mut sql = bench.database.session();
        let mut connections = async |status| {
            // Customers of both writers.
            for email in &emails {
                bench.set(email, status).await.unwrap();
            }
            sql.number(
                "(SELECT count(*) * 10000000000 + sum(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND query LIKE 'WITH input%')",
            )
        };
        let before = connections(Status::Pass).await;
        for status in [Status::Fail, Status::Pass] {
            // Longer than a connection may be idle without being asked for a sign of life.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            assert_eq!(connections(status).await, before);
        }
    });
}
