//! Registering and changing customers in one step: what becomes of each field, and that nobody is registered twice.

use std::{collections::HashMap, num::NonZeroUsize, time::Instant};

use store::{Authority, Customer, Error, Field, NewCustomer, Principal, Profile, Put, Settings, Status};
use tokio::task::JoinSet;

use super::{
    Bench, STATUSES, account, begin, credentials, full_profile, image, key, new_customer, origin, soon, with_images,
};
use crate::support::Backend;

on_both![
    Bench::each;
    a_new_customer_is_pending_and_its_history_begins_from_nothing,
    what_is_empty_keeps_what_is_stored,
    what_is_to_be_cleared_is_cleared_and_nothing_else,
    an_address_keeps_the_spelling_that_it_was_registered_with,
    images_are_stored_replaced_and_cleared,
    the_same_again_changes_nothing,
    the_same_image_again_is_a_change,
    accounts_do_not_share_customers,
    credentials_that_no_longer_hold_register_nobody,
    a_registration_whose_deadline_has_passed_is_not_made,
    what_cannot_be_read_is_not_written_over,
    of_many_who_register_the_same_customers_at_once_each_is_registered_once,
    registrations_and_changes_of_one_customer_are_made_in_the_order_they_came_in,
    a_registration_is_made_although_its_caller_went_away,
];

fn full(email: &str) -> NewCustomer {
    NewCustomer {
        reference: "0042".to_owned(),
        profile: full_profile(),
        ..new_customer(email)
    }
}

fn with_city(email: &str, city: &str) -> NewCustomer {
    NewCustomer {
        profile: Profile {
            city: city.to_owned(),
            ..Profile::default()
        },
        ..new_customer(email)
    }
}

async fn a_new_customer_is_pending_and_its_history_begins_from_nothing(bench: Bench) {
    let made = bench.put(full("Zoë@Example.com")).await.unwrap();
    assert!(made.created);
    let customer = bench.customer("zoë@example.com").await;
    assert_eq!(made.customer, customer, "what is stored was returned");
    assert_eq!((customer.status, customer.revision), (Status::Pending, 1));
    assert_eq!(customer.reference, "0042");
    let expected = Profile {
        email: "Zoë@Example.com".to_owned(),
        ..full_profile()
    };
    assert!(customer.profile == expected, "every attribute is kept as it was given");
    assert_eq!(customer.create_time, customer.update_time);

    let history = bench.whole_history("zoë@example.com").await;
    let [begin] = &history[..] else { panic!("{history:?}") };
    assert_eq!((begin.version, begin.from, begin.to), (1, None, Status::Pending));
    assert_eq!(begin.origin, origin("request"));
    assert_eq!(begin.time, customer.create_time);
}

async fn what_is_empty_keeps_what_is_stored(bench: Bench) {
    let before = bench.put(full("a@example.com")).await.unwrap().customer;
    let after = bench.put(with_city("a@example.com", "Neustadt")).await.unwrap();
    assert!(!after.created);
    let expected = Customer {
        profile: Profile {
            city: "Neustadt".to_owned(),
            ..before.profile.clone()
        },
        revision: before.revision + 1,
        update_time: after.customer.update_time,
        ..before.clone()
    };
    assert_eq!(after.customer, expected, "the city alone is new");
    assert!(after.customer.update_time > before.update_time);
    assert_eq!(bench.customer("a@example.com").await, after.customer);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
}

async fn what_is_to_be_cleared_is_cleared_and_nothing_else(bench: Bench) {
    let before = bench.put(full("a@example.com")).await.unwrap().customer;
    let mut new = NewCustomer {
        profile: Profile {
            city: "Neustadt".to_owned(),
            state: "NS".to_owned(),
            ..Profile::default()
        },
        ..new_customer("a@example.com")
    };
    new.restrict(&[Field::City, Field::Phone, Field::Reference]);
    let after = bench.put(new).await.unwrap().customer;
    let expected = Profile {
        city: "Neustadt".to_owned(),
        phone: String::new(),
        ..before.profile
    };
    assert!(
        after.profile == expected,
        "the city is new, the phone is gone, the state stays"
    );
    assert_eq!(after.reference, "");
    assert_eq!(bench.customer("a@example.com").await, after);
}

async fn an_address_keeps_the_spelling_that_it_was_registered_with(bench: Bench) {
    bench.put(new_customer("José@Bücher.example")).await.unwrap();
    for same in ["JOSE\u{301}@bücher.example", "josé@XN--BCHER-KVA.example"] {
        let again = bench.put(with_city(same, same)).await.unwrap();
        assert!(!again.created, "{same}");
        assert_eq!(again.customer.profile.email, "José@Bücher.example");
        assert_eq!(again.customer.profile.city, same);
    }
}

async fn images_are_stored_replaced_and_cleared(bench: Bench) {
    let (front, back, other) = (image(1, 5_000), image(2, 700), image(3, 20));
    let made = bench.put(with_images("a@example.com", &front, &back)).await.unwrap();
    assert!(made.created);
    let stored = bench.documents("a@example.com").await;
    assert!(stored.front == front && stored.back == back);

    bench.put(with_city("a@example.com", "Neustadt")).await.unwrap();
    let stored = bench.documents("a@example.com").await;
    assert!(
        stored.front == front && stored.back == back,
        "who names no image keeps them"
    );

    bench.put(with_images("a@example.com", &[], &other)).await.unwrap();
    let stored = bench.documents("a@example.com").await;
    assert!(stored.front == front && stored.back == other);

    let mut cleared = new_customer("a@example.com");
    cleared.restrict(&[Field::Front]);
    let after = bench.put(cleared).await.unwrap().customer;
    let stored = bench.documents("a@example.com").await;
    assert!(stored.front.is_empty() && stored.back == other);
    assert_eq!(after.revision, 4);
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM documents)"), 1);
}

async fn the_same_again_changes_nothing(bench: Bench) {
    let first = bench.put(full("a@example.com")).await.unwrap().customer;
    for _ in 0..2 {
        let again = bench.put(full("a@example.com")).await.unwrap();
        assert!(!again.created);
        assert_eq!(again.customer, first);
    }
    assert_eq!(bench.customer("a@example.com").await, first);
    assert_eq!(bench.whole_history("a@example.com").await.len(), 1);
}

async fn the_same_image_again_is_a_change(bench: Bench) {
    let front = image(1, 100);
    for revision in 1..4 {
        let made = bench.put(with_images("a@example.com", &front, &[])).await.unwrap();
        assert_eq!(made.customer.revision, revision);
    }
    assert!(bench.documents("a@example.com").await.front == front);
}

async fn accounts_do_not_share_customers(bench: Bench) {
    let other = account(&bench.store, "other").await;
    let ours = bench.put(with_city("a@example.com", "Ours")).await.unwrap();
    let put = Put {
        principal: other,
        ..bench.wanted(with_city("a@example.com", "Theirs"))
    };
    let theirs = bench.store.put_customer(put, soon()).await.unwrap();
    assert!(ours.created && theirs.created);
    assert_ne!(ours.customer.id, theirs.customer.id);
    assert_ne!(ours.customer.public_id, theirs.customer.public_id);
    assert_eq!(bench.customer("a@example.com").await.profile.city, "Ours");
}

async fn credentials_that_no_longer_hold_register_nobody(bench: Bench) {
    let before = bench.put(full("a@example.com")).await.unwrap().customer;
    let name = "shop".parse().unwrap();
    let refused = async |principal: Principal| {
        for email in ["a@example.com", "new@example.com"] {
            let put = Put {
                principal,
                ..bench.wanted(with_city(email, "Neustadt"))
            };
            let answer = bench.store.put_customer(put, soon()).await;
            assert!(matches!(answer, Err(Error::StaleCredentials)), "{answer:?}");
        }
    };
    bench
        .store
        .set_password(&name, "other".to_owned(), soon())
        .await
        .unwrap();
    refused(bench.shop).await;
    let renewed = credentials(&bench.store, "shop").await;
    bench.store.set_account_enabled(&name, false, soon()).await.unwrap();
    refused(renewed).await;
    refused(credentials(&bench.store, "shop").await).await;
    for authority in [Authority::Operator, renewed.authority] {
        refused(Principal { account: 0, authority }).await;
    }

    let operator = Principal {
        authority: Authority::Operator,
        ..bench.shop
    };
    let read = bench.store.customer(operator, key("a@example.com"), soon()).await;
    assert_eq!(read.unwrap(), before);
    let read = bench.store.customer(operator, key("new@example.com"), soon()).await;
    assert!(matches!(read, Err(Error::CustomerNotFound)), "{read:?}");
}

async fn a_registration_whose_deadline_has_passed_is_not_made(bench: Bench) {
    let put = bench.wanted(full("a@example.com"));
    let answer = bench.store.put_customer(put, Instant::now()).await;
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    assert_eq!(bench.database.session().number("(SELECT count(*) FROM customers)"), 0);
}

async fn what_cannot_be_read_is_not_written_over(bench: Bench) {
    bench.put(full("a@example.com")).await.unwrap();
    let record = bench.database.backend.bytes(b"no record");
    let mut sql = bench.database.session();
    sql.execute(&format!("UPDATE customers SET profile = {record}"));
    let mut hold = bench.database.session().holding_customers();
    let damaged = begin(bench.put(with_city("a@example.com", "Neustadt"))).await;
    let sound = begin(bench.put(with_city("b@example.com", "Neustadt"))).await;
    hold.release();
    let answer = damaged.await;
    assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
    assert!(sound.await.unwrap().created, "the others are made");
    let kept = format!("(SELECT count(*) FROM customers WHERE profile = {record} AND revision = 1)");
    assert_eq!(sql.number(&kept), 1);
}

async fn of_many_who_register_the_same_customers_at_once_each_is_registered_once(bench: Bench) {
    const CUSTOMERS: usize = 1_000;
    const EACH: usize = 10;
    let settings = Settings {
        write_queue: CUSTOMERS * EACH,
        ..crate::store::patient()
    };
    let stores = [bench.another(&settings), bench.another(&settings)];
    let mut tasks = JoinSet::new();
    for number in 0..CUSTOMERS * EACH {
        // The two go through the customers in opposite directions.
        let customer = match number % 2 {
            0 => number / 2 % CUSTOMERS,
            _ => CUSTOMERS - 1 - number / 2 % CUSTOMERS,
        };
        let put = bench.wanted(with_city(&format!("{customer}@example.com"), &number.to_string()));
        let store = stores[number % 2].clone();
        tasks.spawn(async move { (customer, store.put_customer(put, soon()).await.unwrap()) });
    }
    let mut created = HashMap::new();
    let mut revisions = HashMap::new();
    for (customer, made) in tasks.join_all().await {
        *created.entry(customer).or_insert(0) += u32::from(made.created);
        revisions
            .entry(customer)
            .or_insert_with(Vec::new)
            .push(made.customer.revision);
    }
    assert_eq!(created.len(), CUSTOMERS);
    for (customer, created) in created {
        assert_eq!(created, 1, "customer {customer}");
        let mut revisions = revisions.remove(&customer).unwrap();
        revisions.sort_unstable();
        assert_eq!(revisions, (1..=EACH as i64).collect::<Vec<_>>(), "customer {customer}");
    }
    let mut sql = bench.database.session();
    assert_eq!(sql.number("(SELECT count(*) FROM customers)"), CUSTOMERS as i64);
    assert_eq!(sql.number("(SELECT count(*) FROM status_changes)"), CUSTOMERS as i64);
    assert_eq!(sql.number("(SELECT min(revision) FROM customers)"), EACH as i64);
}

async fn registrations_and_changes_of_one_customer_are_made_in_the_order_they_came_in(bench: Bench) {
    bench.register(&["cold@example.com"]).await;
    // Smaller than the number of changes, so that they meet the end of more than one batch.
    let store = bench.another(&Settings {
        batch: 7.try_into().unwrap(),
        writers: Some(NonZeroUsize::MIN),
        ..crate::store::patient()
    });
    let mut hold = bench.database.session().holding_customers();
    let mut puts = Vec::new();
    let mut changes = Vec::new();
    for number in 0..40 {
        let put = bench.wanted(with_city("hot@example.com", &number.to_string()));
        puts.push(begin(store.put_customer(put, soon())).await);
        let change = store::Change {
            origin: origin(&number.to_string()),
            ..bench.change("hot@example.com", STATUSES[number % 3])
        };
        changes.push(begin(store.set_status(change, soon())).await);
        if number % 3 == 0 {
            let cold = bench.change("cold@example.com", STATUSES[number % 2]);
            changes.push(begin(store.set_status(cold, soon())).await);
        }
    }
    hold.release();
    for (number, put) in puts.into_iter().enumerate() {
        let made = put.await.unwrap();
        assert_eq!(made.created, number == 0);
        assert_eq!(made.customer.profile.city, number.to_string());
        // Each has seen the change of status before it.
        let before = match number {
            0 => Status::Pending,
            _ => STATUSES[(number - 1) % 3],
        };
        assert_eq!(made.customer.status, before, "{number}");
    }
    for change in changes {
        change.await.unwrap();
    }
    let history = bench.whole_history("hot@example.com").await;
    let made: Vec<_> = history[1..].iter().map(|change| change.to).collect();
    let asked: Vec<_> = (0..40).map(|number| STATUSES[number % 3]).collect();
    assert_eq!(made, asked);
}

async fn a_registration_is_made_although_its_caller_went_away(bench: Bench) {
    let mut hold = bench.database.session().holding_customers();
    let abandoned = begin(bench.put(full("a@example.com"))).await;
    drop(abandoned);
    let next = begin(bench.put(with_city("a@example.com", "Neustadt"))).await;
    hold.release();
    let next = next.await.unwrap();
    assert!(!next.created);
    assert_eq!(next.customer.profile.last_name, full_profile().last_name);
}

/// With scans forbidden, a planner calls what is small costly, and compiles it: that took ten times as long as the rest of a
/// registration.
#[test]
fn postgresql_compiles_no_statement() {
    Bench::run(Backend::Postgres, async |bench: Bench| {
        bench.register(&["imported@example.com"]).await;
        bench.database.session().execute(
            "CREATE TABLE seen (jit text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO seen VALUES (current_setting('jit')); RETURN NULL; END $$;
             CREATE TRIGGER see AFTER INSERT OR UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION see()",
        );
        // By the writer, which has scans forbidden, and by the pool.
        bench.put(new_customer("put@example.com")).await.unwrap();
        bench.set("put@example.com", Status::Pass).await.unwrap();
        bench.register(&["another@example.com"]).await;
        let mut session = bench.database.session();
        assert_eq!(session.number("(SELECT count(*) FROM seen WHERE jit = 'off')"), 3);
        assert_eq!(session.number("(SELECT count(*) FROM seen)"), 3);
    });
}
