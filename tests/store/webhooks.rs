//! Webhooks: leases, what is to be done, and what was given up.

use std::{collections::HashSet, time::Duration};

use store::{Delivery, DeliveryOutcome, Health, NewWebhook, Status, WebhookWork};

use super::{Bench, STATUSES, soon};
use crate::support::{Backend, eventually};

on_both![
    Bench::each;
    one_holder_at_a_time_has_a_webhook,
    what_a_holder_did_counts_while_it_has_the_lease_alone,
    changes_come_in_order_and_one_of_a_customer_that_failed_holds_up_the_others_of_it,
    a_receiver_that_is_down_never_has_more_than_a_thousand_changes_wait,
    what_was_tried_for_too_long_is_parked_and_holds_nothing_up,
    a_receiver_that_was_down_is_tried_with_little,
    to_record_the_same_again_does_no_harm,
    a_clock_that_went_back_keeps_nothing_waiting,
];

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

const NOW: Duration = Duration::ZERO;

impl Bench {
    /// A webhook of the shop that is sent what is changed from now on.
    async fn hook(&self) -> NewWebhook {
        if self.database.backend == Backend::Postgres {
            let late = "(SELECT count(*) FROM status_changes
                          WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint)";
            let mut session = self.database.session();
            eventually("the feed is up to date", || session.number(late) == 0);
        }
        let added = self
            .store
            .add_webhook(&"shop".parse().unwrap(), "https://example.com/", soon())
            .await;
        added.unwrap().unwrap()
    }

    async fn lease(&self, holder: &str, lease: Duration) -> Vec<i64> {
        self.store.lease_webhooks(holder, lease, soon()).await.unwrap()
    }

    async fn work(&self, webhook: i64, holder: &str) -> Option<WebhookWork> {
        self.store.webhook_work(webhook, holder, 64, 5, soon()).await.unwrap()
    }

    /// The work, once so much of it has come: on PostgreSQL a transaction elsewhere may keep it back for a moment.
    async fn work_of(&self, webhook: i64, deliveries: usize) -> WebhookWork {
        let deadline = soon();
        loop {
            let work = self.work(webhook, "a").await.unwrap();
            if work.deliveries.len() >= deliveries {
                assert_eq!(work.deliveries.len(), deliveries);
                return work;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{} deliveries",
                work.deliveries.len()
            );
        }
    }

    async fn record(&self, webhook: i64, holder: &str, outcomes: Vec<(Delivery, DeliveryOutcome)>) -> Option<u64> {
        let health = Health::default();
        let recorded = self
            .store
            .record_deliveries(webhook, holder, outcomes, health, LONG, soon());
        recorded.await.unwrap()
    }

    async fn set_all(&self, emails: &[&str], status: Status) {
        for email in emails {
            self.set(email, status).await.unwrap();
        }
    }
}

fn failed(retry: Duration) -> DeliveryOutcome {
    DeliveryOutcome::Failed {
        error: "why".to_owned(),
        retry,
    }
}

fn all(work: WebhookWork, outcome: &DeliveryOutcome) -> Vec<(Delivery, DeliveryOutcome)> {
    let of = |delivery: Delivery| match delivery.behind {
        true => (delivery, DeliveryOutcome::Waits),
        false => (delivery, outcome.clone()),
    };
    work.deliveries.into_iter().map(of).collect()
}

async fn one_holder_at_a_time_has_a_webhook(bench: Bench) {
    assert!(bench.lease("a", LONG).await.is_empty());
    bench.hook().await;
    let held = bench.lease("a", LONG).await;
    assert_eq!(held.len(), 1);
    assert!(bench.lease("b", LONG).await.is_empty());
    assert_eq!(bench.lease("a", LONG).await, held);
    assert!(bench.work(held[0], "a").await.is_some());
    assert!(bench.work(held[0], "b").await.is_none());

    // Given up, or at its end.
    bench.store.release_webhooks("b", soon()).await.unwrap();
    assert!(bench.lease("b", LONG).await.is_empty());
    bench.store.release_webhooks("a", soon()).await.unwrap();
    assert_eq!(bench.lease("b", NOW).await, held);
    assert!(bench.work(held[0], "b").await.is_none());
    assert_eq!(bench.lease("a", LONG).await, held);

    // Of two that ask at once one has it.
    bench.store.release_webhooks("a", soon()).await.unwrap();
    let another = bench.another(&crate::store::patient());
    let (a, b) = tokio::join!(bench.lease("a", LONG), another.lease_webhooks("b", LONG, soon()));
    assert_eq!(a.len() + b.unwrap().len(), 1);

    // Nobody has one whose account is disabled.
    bench.store.release_webhooks("a", soon()).await.unwrap();
    bench.store.release_webhooks("b", soon()).await.unwrap();
    let name = "shop".parse().unwrap();
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    assert!(bench.lease("a", LONG).await.is_empty());
}

async fn what_a_holder_did_counts_while_it_has_the_lease_alone(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    bench.hook().await;
    bench.set("a@example.com", Status::Pass).await.unwrap();
    let webhook = bench.lease("a", LONG).await[0];
    let work = bench.work_of(webhook, 1).await;
    let done = all(work, &DeliveryOutcome::Done);
    assert_eq!(bench.record(webhook, "b", done.clone()).await, None);
    bench.work_of(webhook, 1).await;
    bench.lease("a", NOW).await;
    assert_eq!(bench.record(webhook, "a", done.clone()).await, None);
    bench.lease("a", LONG).await;
    bench.work_of(webhook, 1).await;
    assert_eq!(bench.record(webhook, "a", done).await, Some(0));
    bench.work_of(webhook, 0).await;
}

async fn changes_come_in_order_and_one_of_a_customer_that_failed_holds_up_the_others_of_it(bench: Bench) {
    let emails = ["a@example.com", "b@example.com"];
    bench.register(&emails).await;
    bench.hook().await;
    bench.set_all(&emails, Status::Pass).await;
    let webhook = bench.lease("a", LONG).await[0];
    let work = bench.work_of(webhook, 2).await;
    let (a, b) = (work.deliveries[0].clone(), work.deliveries[1].clone());
    assert_eq!(a.item.customer.as_ref().unwrap().profile.email, "a@example.com");
    assert!(work.lag > Duration::ZERO);
    bench
        .record(
            webhook,
            "a",
            vec![(a.clone(), failed(LONG)), (b, DeliveryOutcome::Done)],
        )
        .await;
    bench.set_all(&emails, Status::Fail).await;
    let work = bench.work_of(webhook, 2).await;
    let behind: Vec<bool> = work.deliveries.iter().map(|delivery| delivery.behind).collect();
    assert_eq!(behind, [true, false]);
    bench.record(webhook, "a", all(work, &DeliveryOutcome::Done)).await;
    // The first is not due, and the second stands behind it.
    bench.work_of(webhook, 0).await;
    bench
        .database
        .session()
        .execute("UPDATE webhook_deliveries SET next_time = 0 WHERE attempts = 1");
    for status in [Status::Pass, Status::Fail] {
        let work = bench.work_of(webhook, 1).await;
        assert_eq!(work.deliveries[0].item.change.to, status);
        assert_eq!(work.deliveries[0].item.change.customer, a.item.change.customer);
        bench.record(webhook, "a", all(work, &DeliveryOutcome::Done)).await;
    }
    bench.work_of(webhook, 0).await;
}

async fn a_receiver_that_is_down_never_has_more_than_a_thousand_changes_wait(bench: Bench) {
    let emails: Vec<String> = (0..1_100).map(|number| format!("c{number}@example.com")).collect();
    bench.hook().await;
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let webhook = bench.lease("a", LONG).await[0];
    let pending = |bench: &Bench| {
        bench
            .database
            .session()
            .number("(SELECT count(*) FROM webhook_deliveries)")
    };
    let deadline = soon();
    while pending(&bench) < 1_000 {
        assert!(std::time::Instant::now() < deadline);
        let work = bench.work(webhook, "a").await.unwrap();
        bench.record(webhook, "a", all(work, &failed(LONG))).await;
    }
    bench.work_of(webhook, 0).await;
    assert_eq!(pending(&bench), 1_000);
    let state = &bench.store.webhooks(None, soon()).await.unwrap()[0];
    assert_eq!((state.behind, state.pending, state.parked), (100, 1_000, 0));
    assert_eq!(state.last_error.as_deref(), Some("why"));

    // None is lost: they come in the order of the feed.
    bench
        .database
        .session()
        .execute("UPDATE webhook_deliveries SET next_time = 0");
    let mut seen = HashSet::new();
    while seen.len() < 1_100 {
        assert!(std::time::Instant::now() < deadline);
        let work = bench.work(webhook, "a").await.unwrap();
        for delivery in &work.deliveries {
            assert!(seen.insert(delivery.item.change.customer));
        }
        bench.record(webhook, "a", all(work, &DeliveryOutcome::Done)).await;
    }
    assert_eq!(pending(&bench), 0);
}

async fn what_was_tried_for_too_long_is_parked_and_holds_nothing_up(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    let hook = bench.hook().await;
    for status in [Status::Pass, Status::Fail] {
        bench.set("a@example.com", status).await.unwrap();
    }
    let webhook = bench.lease("a", LONG).await[0];
    let work = bench.work_of(webhook, 2).await;
    let outcomes = work.deliveries.into_iter().zip([failed(NOW), DeliveryOutcome::Waits]);
    let health = Health::default();
    let parked = bench
        .store
        .record_deliveries(webhook, "a", outcomes.collect(), health.clone(), NOW, soon())
        .await;
    // The second has waited for as long, if behind the first.
    assert_eq!(parked.unwrap(), Some(2));

    let listed = bench.store.parked_deliveries(&hook.id, soon()).await.unwrap().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[1].change.to, listed[1].attempts), (Status::Fail, 0));
    assert_eq!(
        (listed[0].change.to, listed[0].attempts, &*listed[0].last_error),
        (Status::Pass, 1, "why")
    );
    let sequence = listed[0].change.place.position;
    let resend = async |sequence| bench.store.resend_parked(&hook.id, sequence, soon()).await.unwrap();
    assert_eq!(resend(Some(sequence + 2)).await, Some(0));
    assert_eq!(resend(Some(sequence)).await, Some(1));
    assert_eq!(bench.store.resend_parked("wh_0", None, soon()).await.unwrap(), None);
    let work = bench.work_of(webhook, 1).await;
    assert_eq!(
        (work.deliveries[0].attempts, work.deliveries[0].item.change.to),
        (0, Status::Pass)
    );
    bench.record(webhook, "a", all(work, &DeliveryOutcome::Done)).await;
    assert_eq!(resend(None).await, Some(1));
    assert_eq!(resend(None).await, Some(0));
}

async fn a_receiver_that_was_down_is_tried_with_little(bench: Bench) {
    let emails = ["a@example.com", "b@example.com", "c@example.com", "d@example.com"];
    bench.register(&emails).await;
    let hook = bench.hook().await;
    bench.set_all(&emails, Status::Pass).await;
    let webhook = bench.lease("a", LONG).await[0];
    let work = bench.work_of(webhook, 4).await;
    let down = |pause| Health { failures: 5, pause };
    let outcomes = all(work, &failed(LONG));
    let record = bench
        .store
        .record_deliveries(webhook, "a", outcomes, down(LONG), LONG, soon());
    record.await.unwrap();
    bench.set_all(&emails, Status::Fail).await;
    let work = bench.work_of(webhook, 0).await;
    assert!(work.pause > LONG / 2 && work.failures == 5);
    let state = &bench
        .store
        .webhooks(Some(&"shop".parse().unwrap()), soon())
        .await
        .unwrap()[0];
    assert!(state.paused_until.is_some() && state.oldest.is_some());

    // When the pause is over: one that waits, though it is not due, and a new one.
    let record = bench
        .store
        .record_deliveries(webhook, "a", Vec::new(), down(NOW), LONG, soon());
    record.await.unwrap();
    let work = bench.work_of(webhook, 2).await;
    assert_eq!(
        work.deliveries
            .iter()
            .map(|delivery| delivery.attempts)
            .collect::<Vec<_>>(),
        [1, 0]
    );

    // Or when its operator says that it is.
    assert!(bench.store.wake_webhook(&hook.id, soon()).await.unwrap());
    let work = bench.work_of(webhook, 4).await;
    assert!(work.failures == 0 && work.deliveries.iter().all(|delivery| delivery.behind));
}

async fn to_record_the_same_again_does_no_harm(bench: Bench) {
    let emails = ["a@example.com", "b@example.com"];
    bench.register(&emails).await;
    bench.hook().await;
    for status in STATUSES {
        bench.set_all(&emails, status).await;
    }
    let webhook = bench.lease("a", LONG).await[0];
    // The customers were PENDING, so that the second change of each was one as well.
    let work = bench.work_of(webhook, 6).await;
    let outcomes: Vec<_> = all(work, &failed(LONG));
    for _ in 0..2 {
        assert_eq!(bench.record(webhook, "a", outcomes.clone()).await, Some(0));
    }
    let waiting = bench
        .database
        .session()
        .number("(SELECT count(*) FROM webhook_deliveries)");
    assert_eq!(waiting, 6);
}

async fn a_clock_that_went_back_keeps_nothing_waiting(bench: Bench) {
    bench.register(&["a@example.com"]).await;
    bench.hook().await;
    bench.set("a@example.com", Status::Pass).await.unwrap();
    let webhook = bench.lease("a", LONG).await[0];
    let work = bench.work_of(webhook, 1).await;
    bench.record(webhook, "a", all(work, &failed(LONG))).await;
    bench.work_of(webhook, 0).await;
    // All this was written by a clock that was ten hours ahead.
    let mut session = bench.database.session();
    session.execute(
        "UPDATE webhook_deliveries SET next_time = next_time + 36000000000;
         UPDATE webhooks SET lease_until = lease_until + 36000000000, pause_until = lease_until + 36000000000",
    );
    assert_eq!(bench.lease("b", LONG).await, [webhook]);
    let work = bench.work(webhook, "b").await.unwrap();
    assert_eq!((work.pause, work.deliveries.len()), (Duration::ZERO, 1));
}
