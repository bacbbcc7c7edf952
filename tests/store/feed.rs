//! The order of the feed, over rows as copies, other servers and late transactions leave them.

use store::{Error, Place, Status};

use super::{Bench, block_on, soon};
use crate::support::{Backend, Cluster, Database, Durability, eventually};

on_both! { alone;
    pages_of_any_size_are_the_whole_feed_in_its_order,
    the_end_is_behind_all_that_is_there,
    a_cursor_is_a_place_of_its_own_store_only,
}

/// Runs a test on a bench that has its server for itself: whatever runs on it anywhere holds the feed back.
fn alone(backend: Backend, test: impl AsyncFnOnce(Bench)) {
    let cluster = (backend == Backend::Postgres).then(|| Cluster::start(Durability::None));
    let database = cluster.as_ref().map_or_else(|| backend.database(), Database::on);
    block_on(async {
        test(Bench::on(database).await).await;
    });
}

/// Gives the account rows of two epochs, the second of which is `last`, and tells where they are, in the order of the feed.
fn rows(bench: &Bench, last: i64) -> Vec<Place> {
    let mut session = bench.database.session();
    let mut values = Vec::new();
    for (number, (epoch, xid)) in [(1, 5), (0, 9), (1, 3), (0, 0), (0, 0), (1, 3), (0, 7), (1, 2)]
        .iter()
        .enumerate()
    {
        values.push(format!(
            "({}, {}, 1, 2, 'a', 2, 'r', 1, {}, {xid})",
            bench.shop.account,
            1_000 + number,
            epoch + last - 1,
        ));
    }
    session.execute(&format!(
        "INSERT INTO status_changes
             (account_id, customer_id, version, to_status, actor, face, request_id, change_time, epoch, xid)
         VALUES {}",
        values.join(", ")
    ));
    let mut places: Vec<_> = [
        (0, 0, 4),
        (0, 0, 5),
        (0, 7, 7),
        (0, 9, 2),
        (1, 2, 8),
        (1, 3, 3),
        (1, 3, 6),
        (1, 5, 1),
    ]
    .map(|(epoch, xid, position)| Place { epoch, xid, position })
    .to_vec();
    // They are numbered from what the database begins with.
    let first = session.number("(SELECT min(position) FROM status_changes)");
    for place in &mut places {
        place.position += first - 1;
        place.epoch += last - 1;
    }
    places
}

async fn read(bench: &Bench, most: u32) -> Vec<Place> {
    let mut places = Vec::new();
    let mut after = Place::default();
    loop {
        let page = bench.store.feed(bench.shop, after, most, soon()).await.unwrap();
        let Some(last) = page.last() else { return places };
        assert!(page.len() <= most as usize);
        after = last.change.place;
        places.extend(page.iter().map(|item| item.change.place));
    }
}

async fn pages_of_any_size_are_the_whole_feed_in_its_order(bench: Bench) {
    // The epoch of a store that was never on another server.
    let places = rows(&bench, 1);
    for most in 1..=9 {
        assert_eq!(read(&bench, most).await, places, "pages of {most}");
    }
    // From any place, also one that has no row.
    for (count, place) in places.iter().enumerate() {
        let page = bench.store.feed(bench.shop, *place, 100, soon()).await.unwrap();
        assert_eq!(page.len(), places.len() - count - 1);
    }
    let between = Place {
        epoch: 0,
        xid: 8,
        position: i64::MAX,
    };
    let page = bench.store.feed(bench.shop, between, 100, soon()).await.unwrap();
    assert_eq!(page.len(), 5);

    if bench.database.backend == Backend::Postgres {
        // On another server, whose transactions count from anywhere: what is of a former epoch is settled.
        let mut session = bench.database.session();
        session.execute("UPDATE status_changes SET xid = xid + 4000000000000 WHERE epoch = 1 AND xid > 2");
        assert_eq!(read(&bench, 3).await.len(), 5);
        session.execute("UPDATE feed SET epoch = 2");
        assert_eq!(read(&bench, 3).await.len(), places.len());
    }
}

async fn the_end_is_behind_all_that_is_there(bench: Bench) {
    assert_eq!(
        bench.store.feed_end(bench.shop, soon()).await.unwrap(),
        Place::default()
    );
    let places = rows(&bench, -1);
    let end = bench.store.feed_end(bench.shop, soon()).await.unwrap();
    assert_eq!(Some(&end), places.last());
    assert_eq!(bench.store.feed(bench.shop, end, 100, soon()).await.unwrap(), []);

    bench.register(&["ann@example.com"]).await;
    let page = bench.store.feed(bench.shop, end, 100, soon()).await.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].customer.as_ref().unwrap().profile.email, "ann@example.com");
    let place = page[0].change.place;
    match bench.database.backend {
        Backend::Sqlite => assert_eq!(place.xid, 0),
        Backend::Postgres => assert!(place.epoch == 1 && place.xid > 5, "{place:?}"),
    }

    if bench.database.backend == Backend::Postgres {
        // A transaction that is open anywhere on the server holds back what came after it, and nothing is missed.
        let end = place;
        let mut session = bench.database.session();
        session.execute("BEGIN; SELECT pg_current_xact_id()");
        bench.register(&["bob@example.com"]).await;
        assert_eq!(bench.store.feed(bench.shop, end, 100, soon()).await.unwrap(), []);
        assert_eq!(bench.store.feed_end(bench.shop, soon()).await.unwrap(), end);
        session.release();
        assert_eq!(bench.store.feed(bench.shop, end, 100, soon()).await.unwrap().len(), 1);
    }
}

async fn a_cursor_is_a_place_of_its_own_store_only(bench: Bench) {
    let other = Bench::on(bench.database.backend.database()).await;
    bench.register(&["ann@example.com"]).await;
    let last = bench.history("ann@example.com").await[0].place;
    for place in [Place::default(), last] {
        let cursor = bench.store.cursor(place, soon()).await.unwrap();
        assert_eq!(bench.store.place(&cursor, soon()).await.unwrap(), place);
        let again = bench.another(&crate::store::patient());
        assert_eq!(again.place(&cursor, soon()).await.unwrap(), place);
        let foreign = other.store.place(&cursor, soon()).await;
        assert!(matches!(foreign, Err(Error::InvalidCursor)));
    }
    // Of a store that was set back to an earlier state: whoever waited there would miss what comes before it.
    for ahead in [
        Place {
            position: last.position + 1,
            ..last
        },
        Place {
            epoch: last.epoch + 1,
            ..last
        },
    ] {
        let cursor = bench.store.cursor(ahead, soon()).await.unwrap();
        let answer = bench.store.place(&cursor, soon()).await;
        assert!(matches!(answer, Err(Error::InvalidCursor)), "{ahead:?}: {answer:?}");
    }
}

#[test]
fn an_earlier_transaction_that_changes_a_customer_later_comes_later() {
    alone(Backend::Postgres, async |bench: Bench| {
        bench.register(&["ann@example.com"]).await;
        let mut session = bench.database.session();
        session.execute("BEGIN; SELECT pg_current_xact_id()");
        bench.set("ann@example.com", Status::Pass).await.unwrap();
        session.execute(
            "WITH changed AS (
                 UPDATE customers SET status = 3, status_version = status_version + 1, revision = revision + 1 RETURNING *
             )
             INSERT INTO status_changes (account_id, customer_id, version, from_status, to_status, actor, face, request_id,
                                         change_time)
             SELECT account_id, id, status_version, 1, 3, 'a', 2, 'r', update_time FROM changed;
             COMMIT",
        );
        let page = bench
            .store
            .feed(bench.shop, Place::default(), 100, soon())
            .await
            .unwrap();
        let versions: Vec<_> = page.iter().map(|item| item.change.version).collect();
        assert_eq!(versions, [1, 2, 3]);
    });
}

/// As a batch does it, whose statement began before the other one had ended.
#[test]
fn a_statement_that_waited_for_a_customer_comes_after_who_had_it() {
    alone(Backend::Postgres, async |bench: Bench| {
        bench.register(&["ann@example.com"]).await;
        let mut earlier = bench.database.session();
        earlier.execute("BEGIN; SELECT pg_current_xact_id()");
        let mut later = bench.database.session();
        later.execute("BEGIN; UPDATE customers SET revision = revision + 1");
        let xid = later.number("pg_current_xact_id()::text");
        let order = std::thread::spawn(move || {
            earlier.number(
                "(WITH locked AS MATERIALIZED (SELECT id FROM customers FOR UPDATE)
                  SELECT status_changes_order(count(*)) FROM locked)",
            )
        });
        let mut sql = bench.database.session();
        eventually("the statement waits", || {
            sql.number(
                "(SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%locked%')",
            ) == 1
        });
        later.execute("COMMIT");
        let order = order.join().unwrap();
        assert!(order >= xid, "{order} before {xid}");
    });
}
