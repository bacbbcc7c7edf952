//! A copy of a whole store: the same rows under the same ids on the other database, whatever came between.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::{QueryableByName, sql_types::Text};
use store::{
    CopiedTable, CopyProgress, CopyStage, Documents, Error, Keys, Location, Migrate, NewCustomer, Principal, Profile,
    Status, Store,
};

use super::{Bench, account, block_on, credentials, key, new_customer, open, origin, soon, try_open};
use crate::support::{Backend, Database};

on_both![
    to_the_other;
    a_copy_has_every_row_of_every_table,
    there_and_back_gives_the_same_rows,
    an_encrypted_store_is_copied_as_it_is_without_its_key,
    a_copy_that_was_interrupted_anywhere_goes_on_where_it_ended,
    a_copy_can_be_brought_up_to_date_with_what_was_added,
    a_cursor_from_before_the_copy_goes_on_behind_it,
    the_history_of_a_copy_fits_what_was_sealed,
    every_column_is_copied,
    a_target_with_anything_else_is_refused_untouched,
    an_id_that_was_ever_given_does_not_come_back,
    a_change_under_the_copy_is_found_at_the_end,
    a_source_with_an_old_schema_or_none_is_refused,
    large_images_go_a_few_at_a_time,
    an_empty_store_can_be_copied,
];

/// Runs a test with a database and an empty one of the other kind.
fn to_the_other(backend: Backend, test: impl FnOnce(Database, Database)) {
    test(backend.database(), other(backend).database());
}

fn other(backend: Backend) -> Backend {
    match backend {
        Backend::Sqlite => Backend::Postgres,
        Backend::Postgres => Backend::Sqlite,
    }
}

fn location(database: &Database) -> Location {
    database.url.parse().unwrap()
}

fn copy(from: &Database, to: &Database) -> store::Result<Vec<CopiedTable>> {
    store::copy(&location(from), &location(to), |_| {})
}

/// Copies, and is killed once `until` says so.
fn copy_until(from: &Database, to: &Database, mut until: impl FnMut(CopyProgress) -> bool) {
    let killed = catch_unwind(AssertUnwindSafe(|| {
        store::copy(&location(from), &location(to), |progress| {
            assert!(!until(progress), "killed");
        })
    }));
    assert!(killed.is_err(), "it ended before");
}

/// What the target says about a copy that is refused, or has failed.
#[track_caller]
fn differs(from: &Database, to: &Database) -> String {
    match copy(from, to) {
        Err(Error::Differs(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// The columns of each table; those with a # are bytes.
const TABLES: [(&str, &str, &str); 11] = [
    ("encryption", "id", "id state #index_key"),
    (
        "accounts",
        "id",
        "id name password_hash credential_version enabled create_time update_time",
    ),
    (
        "customers",
        "id",
        "id account_id email_key public_id reference #profile #data_key status status_version revision create_time \
         update_time",
    ),
    (
        "documents",
        "customer_id, kind",
        "customer_id kind #content upload_time",
    ),
    (
        "status_changes",
        "position",
        "position account_id customer_id version from_status to_status actor face request_id change_time kind reason epoch xid",
    ),
    (
        "erasures",
        "customer_id",
        "customer_id account_id public_id actor face request_id erase_time",
    ),
    (
        "idempotency_keys",
        "id",
        "id account_id key #content operation key_time customer_id created reference #profile status status_version \
         revision update_time",
    ),
    (
        "audit_blocks",
        "id",
        "id account_id number epoch xid position #entries #hash seal_time",
    ),
    (
        "webhooks",
        "id",
        "id account_id public_id url #secret #old_secret old_secret_until create_time epoch xid position lease_holder \
         lease_until failures pause_until",
    ),
    (
        "webhook_deliveries",
        "id",
        "id webhook_id position customer_id attempts first_time next_time parked last_error",
    ),
    (
        "api_tokens",
        "id",
        "id account_id public_id #hash scopes label create_time expire_time revoke_time use_time",
    ),
];

/// The columns that are true or false.
const BOOLEANS: [&str; 3] = ["enabled", "created", "parked"];

/// All that a database holds, a line for each row, read past the program.
fn dump(database: &Database) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        line: String,
    }
    let mut sql = database.session();
    let mut lines = Vec::new();
    for (table, order, columns) in TABLES {
        let texts: Vec<_> = columns
            .split_whitespace()
            .map(|column| {
                let text = match (column.strip_prefix('#'), database.backend) {
                    (Some(bytes), Backend::Sqlite) => format!("lower(hex({bytes}))"),
                    (Some(bytes), Backend::Postgres) => format!("encode({bytes}, 'hex')"),
                    (None, _) if BOOLEANS.contains(&column) => format!("CAST(CAST({column} AS INTEGER) AS TEXT)"),
                    (None, _) => format!("CAST({column} AS TEXT)"),
                };
                let column = column.trim_start_matches('#');
                format!("CASE WHEN {column} IS NULL THEN 'null' ELSE '<' || {text} || '>' END")
            })
            .collect();
        let query = format!("SELECT {} AS line FROM {table} ORDER BY {order}", texts.join(" || "));
        let rows: Vec<Row> = sql.rows(&query);
        lines.extend(rows.into_iter().map(|row| format!("{table} {}", row.line)));
    }
    lines
}

#[track_caller]
fn assert_same(one: &Database, other: &Database) {
    let (one, other) = (dump(one), dump(other));
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
}

/// How many customers a filled store has: more than a page.
const CUSTOMERS: usize = 2_300;

/// Fills a store with all there can be in one.
async fn fill(store: &Store) {
    let shop = account(store, "shop").await;
    let other = account(store, "other").await;
    store
        .set_account_enabled(&"other".parse().unwrap(), false, soon())
        .await
        .unwrap();
    let customer = |number: usize| NewCustomer {
        reference: format!("{number:05}"),
        profile: Profile {
            first_name: "Zoë".to_owned(),
            address: format!("{number}, \"Łódź\" 'St'\\"),
            ..Profile::default()
        },
        documents: match number % 100 {
            0 => images(number, 3_000),
            1 => Documents {
                back: vec![0; 10].into(),
                ..Documents::default()
            },
            _ => Documents::default(),
        },
        ..new_customer(&email(number))
    };
    for numbers in (0..CUSTOMERS).collect::<Vec<_>>().chunks(500) {
        let new = numbers.iter().map(|number| customer(*number)).collect();
        store.import(shop.account, new, origin("import"), soon()).await.unwrap();
    }
    let new = vec![customer(0)];
    store
        .import(other.account, new, origin("import"), soon())
        .await
        .unwrap();
    for number in (0..40).map(|number| number * 50) {
        set(store, shop, number, Status::Pass).await;
        set(store, shop, number, Status::Fail).await;
    }
    for number in [100, 777, CUSTOMERS - 1] {
        erase(store, shop, &email(number)).await;
    }
    // One of them comes anew.
    let new = vec![customer(100)];
    store.import(shop.account, new, origin("import"), soon()).await.unwrap();
}

fn email(number: usize) -> String {
    format!("{number}@example.com")
}

/// Two images of any bytes, zeros among them.
fn images(number: usize, bytes: usize) -> Documents {
    let image = |side: usize| -> Vec<u8> { (0..bytes).map(|at| ((at * 7 + number + side) % 256) as u8).collect() };
    Documents {
        front: image(0).into(),
        back: image(1).into(),
    }
}

async fn set(store: &Store, principal: Principal, number: usize, status: Status) {
    let change = store::Change {
        condition: store::Condition::default(),
        reason: None,
        key: None,
        principal,
        email: key(&email(number)),
        status,
        origin: origin("request"),
    };
    store.set_status(change, soon()).await.unwrap();
}

async fn erase(store: &Store, principal: Principal, email: &str) {
    store
        .erase_customer(
            store::Erase {
                principal,
                email: key(email),
                key: None,
                origin: origin("erase"),
            },
            soon(),
        )
        .await
        .unwrap();
}

/// A store with all there can be in it, closed again.
fn filled(database: &Database) {
    block_on(async {
        let store = open(database, &crate::store::patient(), None);
        fill(&store).await;
        seal(&store, 1_000).await;
    });
    let (yes, no) = match database.backend {
        Backend::Sqlite => ("1", "0"),
        Backend::Postgres => ("true", "false"),
    };
    let bytes = |bytes: &[u8]| database.backend.bytes(bytes);
    let (some, none) = (bytes(&[0, 255, 7]), bytes(&[]));
    // What retries and webhooks leave behind, past the program.
    database.session().execute(
        &format!(
        "INSERT INTO idempotency_keys (account_id, key, content, operation, key_time, customer_id, created, reference,
                                       profile, status, status_version, revision, update_time)
         VALUES (1, 'one', {some}, 1, 2, 3, {yes}, '00042', {some}, 1, 4, 5, 6),
                (2, 'one', {none}, 3, 2, 3, {no}, '', NULL, 3, 4, 5, 6);
         INSERT INTO webhooks ({WEBHOOK_COLUMNS})
         VALUES (1, 'first', 'https://example.com/?a=\'\'b', {some}, NULL, 0, 1, 1, 2, 3, 'gateway', 4, 5, 6),
                (2, 'second', 'https://example.com/', {some}, {some}, 9, 1, 1, 2, 3, '', 0, 0, 0);
         INSERT INTO webhook_deliveries (webhook_id, position, customer_id, attempts, first_time, next_time, parked,
                                         last_error)
         VALUES (2, 7, 3, 1, 2, 3, {yes}, '500'), (2, 8, 3, 0, 0, 0, {no}, '');
         INSERT INTO api_tokens (account_id, public_id, hash, scopes, label, create_time, expire_time, revoke_time, use_time)
         VALUES (1, 'first', {some}, 15, 'a label', 1, 2, 3, 4), (2, 'second', {none}, 1, '', 1, NULL, NULL, NULL)"
    )
        .replace("\\'", "'"),
    );
}

/// Columns of `webhooks`, but for its key.
const WEBHOOK_COLUMNS: &str = "account_id, public_id, url, secret, old_secret, old_secret_until, create_time, epoch, xid, \
                               position, lease_holder, lease_until, failures, pause_until";

/// Seals the history of the account `shop` until so many rows of it are, or more.
async fn seal(store: &Store, rows: u64) {
    let shop = credentials(store, "shop").await;
    let (mut sealed, deadline) = (0, soon());
    while sealed < rows {
        assert!(
            std::time::Instant::now() < deadline,
            "{sealed} of {rows} rows are sealed"
        );
        // On PostgreSQL a transaction of any other test holds rows back until it ends.
        sealed += store.seal(shop.account, true, deadline).await.unwrap().rows;
    }
}

/// The last id that was given to a customer in a database.
fn newest(database: &Database) -> i64 {
    database.session().number("(SELECT max(id) FROM customers)")
}

fn a_copy_has_every_row_of_every_table(from: Database, to: Database) {
    filled(&from);
    let before = dump(&from);
    let mut seen: Vec<(CopyStage, &str)> = Vec::new();
    let tables = store::copy(&location(&from), &location(&to), |progress| {
        assert!(progress.done <= progress.total, "{progress:?}");
        let now = (progress.stage, progress.table);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    })
    .unwrap();
    assert_same(&from, &to);
    assert_eq!(dump(&from), before, "the source has changed");

    let stages = [CopyStage::Copying, CopyStage::Verifying];
    let all = stages.map(|stage| TABLES.map(|(table, _, _)| (stage, table))).concat();
    assert_eq!(seen, all);
    let counted: Vec<_> = tables.iter().map(|table| (table.name, table.rows)).collect();
    let there = TABLES.map(|(table, _, _)| {
        let rows = from.session().number(&format!("(SELECT count(*) FROM {table})"));
        (table, u64::try_from(rows).unwrap())
    });
    assert_eq!(counted, there);
    assert!(tables.iter().all(|table| table.checksum.len() == 64));
    assert_eq!(there[3].1 % 2, 1, "a customer with one image is among them");

    // Again, and nothing happens.
    assert_eq!(copy(&from, &to).unwrap(), tables);
    assert_same(&from, &to);

    // It works as a store.
    block_on(async {
        let store = open(&to, &crate::store::patient(), None);
        let shop = credentials(&store, "shop").await;
        let (customer, documents) = store.documents(shop, key(&email(200)), soon()).await.unwrap();
        assert_eq!(customer.reference, "00200");
        assert_eq!(documents.back, images(200, 3_000).back);
        let history = store.history(shop, key(&email(50)), 10, soon()).await.unwrap();
        assert_eq!(history.len(), 3);
        set(&store, shop, 50, Status::Pass).await;
    });
}

fn there_and_back_gives_the_same_rows(from: Database, to: Database) {
    filled(&from);
    let back = from.backend.database();
    let tables = copy(&from, &to).unwrap();
    assert_eq!(copy(&to, &back).unwrap(), tables);
    assert_same(&from, &back);
    // Between two of one kind as well.
    let alike = from.backend.database();
    assert_eq!(copy(&back, &alike).unwrap(), tables);
    assert_same(&from, &alike);
}

fn keys() -> Keys {
    Keys::load(|| Ok(format!("1:{}=", "A".repeat(43)).into())).unwrap()
}

fn sealed(database: &Database, keys: Option<&Keys>) -> store::Result<Store> {
    Store::open(&location(database), Migrate::Auto, &crate::store::patient(), keys)
}

fn an_encrypted_store_is_copied_as_it_is_without_its_key(from: Database, to: Database) {
    block_on(async {
        fill(&sealed(&from, Some(&keys())).unwrap()).await;
        copy(&from, &to).unwrap();
        assert_same(&from, &to);
        assert!(matches!(sealed(&to, None), Err(Error::Keys(_))));
        let store = sealed(&to, Some(&keys())).unwrap();
        let shop = credentials(&store, "shop").await;
        let (customer, documents) = store.documents(shop, key(&email(200)), soon()).await.unwrap();
        assert_eq!(customer.profile.first_name, "Zoë");
        assert_eq!(documents, images(200, 3_000));
    });
}

fn a_copy_that_was_interrupted_anywhere_goes_on_where_it_ended(from: Database, to: Database) {
    filled(&from);
    for (table, done) in [
        ("encryption", 0),
        ("accounts", 2),
        ("customers", 1_000),
        ("customers", 2_000),
        ("documents", 0),
        ("status_changes", 1_000),
        ("erasures", 0),
        ("erasures", 3),
        ("idempotency_keys", 2),
        ("audit_blocks", 1),
        ("webhook_deliveries", 0),
        ("api_tokens", 1),
    ] {
        let had = customers_in(&to);
        let mut began_with = None;
        copy_until(&from, &to, |progress| {
            let CopyProgress { stage, table: at, .. } = progress;
            if (stage, at) == (CopyStage::Copying, "customers") {
                began_with.get_or_insert(progress.done);
            }
            stage == CopyStage::Copying && at == table && progress.done >= done
        });
        // What is there is not copied again.
        assert_eq!(began_with.unwrap_or(had), had, "{table}");
    }
    copy_until(&from, &to, |progress| progress.stage == CopyStage::Verifying);
    copy(&from, &to).unwrap();
    assert_same(&from, &to);
}

/// How many customers a copy has so far; none before it has been begun.
fn customers_in(to: &Database) -> u64 {
    match try_open(to, Migrate::Check, &crate::store::patient(), None) {
        Ok(_) => to
            .session()
            .number("(SELECT count(*) FROM customers)")
            .try_into()
            .unwrap(),
        Err(_) => 0,
    }
}

fn a_copy_can_be_brought_up_to_date_with_what_was_added(from: Database, to: Database) {
    block_on(async {
        let bench = Bench::on(from).await;
        bench.register(&["a@example.com"]).await;
        copy(&bench.database, &to).unwrap();
        bench.register(&["b@example.com"]).await;
        account(&bench.store, "another").await;
        copy(&bench.database, &to).unwrap();
        assert_same(&bench.database, &to);
    });
}

fn a_target_with_anything_else_is_refused_untouched(from: Database, to: Database) {
    block_on(async {
        let bench = Bench::on(from).await;
        bench.register(&["a@example.com", "b@example.com"]).await;
        bench.set("a@example.com", Status::Pass).await.unwrap();
        let new = NewCustomer {
            documents: images(0, 100),
            ..new_customer("b@example.com")
        };
        bench.import(vec![new]).await.unwrap();
        copy(&bench.database, &to).unwrap();
        // Each would be written, were it not for what is wrong further on.
        bench.register(&["c@example.com"]).await;
        account(&bench.store, "another").await;

        for (table, sql, undo) in [
            (
                "accounts",
                "UPDATE accounts SET password_hash = 'x'",
                "UPDATE accounts SET password_hash = 'hash'",
            ),
            (
                "customers",
                "UPDATE customers SET reference = 'x' WHERE id = 1",
                "UPDATE customers SET reference = '' WHERE id = 1",
            ),
            (
                "documents",
                "UPDATE documents SET upload_time = upload_time + 1 WHERE kind = 1",
                "UPDATE documents SET upload_time = upload_time - 1 WHERE kind = 1",
            ),
            (
                "status_changes",
                "UPDATE status_changes SET request_id = 'x' WHERE position = 1",
                "UPDATE status_changes SET request_id = 'import' WHERE position = 1",
            ),
            (
                "erasures",
                "INSERT INTO erasures VALUES (99, 1, 'x', 'x', 1, 'x', 1)",
                "DELETE FROM erasures",
            ),
            (
                "encryption",
                "INSERT INTO encryption SELECT 1, 2, profile FROM customers WHERE id = 1",
                "DELETE FROM encryption",
            ),
        ] {
            to.session().execute(sql);
            let before = dump(&to);
            let message = differs(&bench.database, &to);
            let expected = format!("holds {table} that are not those of the source: nothing was copied");
            assert!(message.contains(&expected), "{message}");
            assert_eq!(dump(&to), before, "{table}");
            to.session().execute(undo);
        }
        copy(&bench.database, &to).unwrap();
        assert_same(&bench.database, &to);

        // The store of somebody else.
        let theirs = Bench::on(to.backend.database()).await;
        theirs.register(&["a@example.com"]).await;
        let before = dump(&theirs.database);
        let message = differs(&bench.database, &theirs.database);
        assert!(message.contains("holds accounts"), "{message}");
        assert_eq!(dump(&theirs.database), before);
        // And a store itself.
        let message = differs(&to, &to);
        assert!(message.contains("to itself"), "{message}");
    });
}

fn an_id_that_was_ever_given_does_not_come_back(from: Database, to: Database) {
    block_on(async {
        let bench = Bench::on(from).await;
        bench
            .register(&["a@example.com", "b@example.com", "c@example.com"])
            .await;
        let last = newest(&bench.database);
        erase(&bench.store, bench.shop, "c@example.com").await;
        // As if there were nothing left that tells of it but the source's own counter.
        bench.database.session().execute(&format!(
            "DELETE FROM erasures; DELETE FROM status_changes WHERE customer_id = {last}"
        ));
        copy(&bench.database, &to).unwrap();

        let copied = open(&to, &crate::store::patient(), None);
        let shop = credentials(&copied, "shop").await;
        let register = async |email: &str| {
            let new = vec![new_customer(email)];
            copied
                .import(shop.account, new, origin("import"), soon())
                .await
                .unwrap();
        };
        register("d@example.com").await;
        assert!(newest(&to) > last, "{} after {last}", newest(&to));
        assert!(account(&copied, "another").await.account > bench.shop.account);

        // By what is stored alone, as for one who may not see the counter.
        let last = newest(&to);
        erase(&copied, shop, "d@example.com").await;
        let third = bench.database.backend.database();
        drop(copied);
        to.session().execute(match to.backend {
            Backend::Sqlite => "DELETE FROM sqlite_sequence",
            Backend::Postgres => "SELECT setval(pg_get_serial_sequence('customers', 'id'), 1)",
        });
        copy(&to, &third).unwrap();
        assert_same(&to, &third);
        let copied = open(&third, &crate::store::patient(), None);
        let shop = credentials(&copied, "shop").await;
        let new = vec![new_customer("e@example.com")];
        copied
            .import(shop.account, new, origin("import"), soon())
            .await
            .unwrap();
        assert!(newest(&third) > last, "{} after {last}", newest(&third));
    });
}

fn a_change_under_the_copy_is_found_at_the_end(from: Database, to: Database) {
    filled(&from);
    let copied = |sql: &str, to: &Database| {
        let mut once = Some(());
        let result = store::copy(&location(&from), &location(to), |progress| {
            if progress.stage == CopyStage::Copying && progress.table == "erasures" && once.take().is_some() {
                from.session().execute(sql);
            }
        });
        match result {
            Err(Error::Differs(message)) => message,
            other => panic!("{other:?}"),
        }
    };
    let message = copied("UPDATE customers SET reference = 'canary' WHERE id = 5", &to);
    assert!(message.contains("the customers of the two stores differ"), "{message}");
    assert!(message.contains("stop all gateways"), "{message}");
    assert!(!message.contains("canary"), "{message}");

    // What was copied is not the source any more: it is not gone on with either.
    let message = differs(&from, &to);
    assert!(message.contains("copy to an empty database"), "{message}");
    let anew = to.backend.database();
    let message = copied("DELETE FROM documents WHERE customer_id = 1", &anew);
    assert!(message.contains("the documents of the two stores differ"), "{message}");
}

fn a_source_with_an_old_schema_or_none_is_refused(from: Database, to: Database) {
    let refused = || match copy(&from, &to) {
        Err(Error::Schema(message)) => message,
        other => panic!("{other:?}"),
    };
    let message = refused();
    match from.backend {
        Backend::Sqlite => {
            assert!(message.ends_with("there is no such file"), "{message}");
            assert!(!from.path(Database::FILE).exists());
        }
        Backend::Postgres => assert!(message.contains("not up to date"), "{message}"),
    }
    try_open(&from, Migrate::Auto, &crate::store::patient(), None).unwrap();
    from.session()
        .execute("DELETE FROM __diesel_schema_migrations WHERE version LIKE '20261124%'");
    let message = refused();
    assert!(message.contains("run `dcams-gateway migrate`"), "{message}");
    if to.backend == Backend::Sqlite {
        assert!(!to.path(Database::FILE).exists(), "the target was touched");
    }
}

fn large_images_go_a_few_at_a_time(from: Database, to: Database) {
    block_on(async {
        let bench = Bench::on(from).await;
        for number in 0..3 {
            let new = NewCustomer {
                documents: images(number, 10 * 1024 * 1024),
                ..new_customer(&email(number))
            };
            bench.import(vec![new]).await.unwrap();
        }
        let mut steps = Vec::new();
        store::copy(&location(&bench.database), &location(&to), |progress| {
            if progress.stage == CopyStage::Copying && progress.table == "documents" {
                steps.push(progress.done);
            }
        })
        .unwrap();
        // A page begins no image beyond 16 MiB, and no customer's images are parted.
        assert_eq!(steps, [0, 2, 4, 6]);
        let store = open(&to, &crate::store::patient(), None);
        let shop = credentials(&store, "shop").await;
        let (_, documents) = store.documents(shop, key(&email(2)), soon()).await.unwrap();
        assert!(documents == images(2, 10 * 1024 * 1024));
    });
}

fn an_empty_store_can_be_copied(from: Database, to: Database) {
    drop(open(&from, &crate::store::patient(), None));
    let tables = copy(&from, &to).unwrap();
    assert!(tables.iter().all(|table| table.rows == 0));
    // The first of everything is still the first.
    block_on(async {
        let bench = Bench::on(to).await;
        bench.register(&["a@example.com"]).await;
        assert_eq!((bench.shop.account, newest(&bench.database)), (1, 1));
    });
}

/// What a feed hands out behind a cursor: the numbers of the rows, and the cursor behind the last.
async fn follow(store: &Store, shop: Principal, cursor: &str) -> (Vec<i64>, String) {
    let mut place = store.place(cursor, soon()).await.unwrap();
    let mut rows = Vec::new();
    loop {
        let items = store.feed(shop, place, 7, soon()).await.unwrap();
        match items.last() {
            Some(last) => place = last.change.place,
            None => return (rows, store.cursor(place, soon()).await.unwrap()),
        }
        rows.extend(items.into_iter().map(|item| item.change.place.position));
    }
}

/// Sets a status, and waits until the feed has it.
async fn follow_new(store: &Store, shop: Principal, cursor: &str, status: Status) -> (i64, String) {
    set(store, shop, 0, status).await;
    let deadline = soon();
    loop {
        let (rows, after) = follow(store, shop, cursor).await;
        match rows[..] {
            [row] => return (row, after),
            [] => assert!(std::time::Instant::now() < deadline, "the feed has nothing new"),
            _ => panic!("{rows:?}"),
        }
    }
}

fn a_cursor_from_before_the_copy_goes_on_behind_it(from: Database, to: Database) {
    block_on(async {
        let bench = Bench::on(from).await;
        bench.register(&[&email(0), &email(1)]).await;
        for status in [Status::Pass, Status::Fail, Status::Pending, Status::Pass] {
            bench.set(&email(0), status).await.unwrap();
            bench.set(&email(1), status).await.unwrap();
        }
        let beginning = bench.store.cursor(store::Place::default(), soon()).await.unwrap();
        let deadline = soon();
        let (all, end) = loop {
            let (all, end) = follow(&bench.store, bench.shop, &beginning).await;
            if all.len() == 10 {
                break (all, end);
            }
            assert!(std::time::Instant::now() < deadline, "{all:?}");
        };
        let first = bench
            .store
            .feed(bench.shop, store::Place::default(), 4, soon())
            .await
            .unwrap();
        let half = bench.store.cursor(first[3].change.place, soon()).await.unwrap();
        let epoch = |database: &Database| database.session().number("(SELECT epoch FROM feed)");
        let before = epoch(&bench.database);

        copy(&bench.database, &to).unwrap();
        assert_eq!(epoch(&to), before + 1);
        assert_eq!(epoch(&bench.database), before, "the source has changed");
        // Again, and it is no later.
        copy(&bench.database, &to).unwrap();
        assert_eq!(epoch(&to), before + 1);

        let copied = open(&to, &crate::store::patient(), None);
        let shop = credentials(&copied, "shop").await;
        assert_eq!(follow(&copied, shop, &beginning).await.0, all);
        assert_eq!(follow(&copied, shop, &half).await, (all[4..].to_vec(), end.clone()));
        assert_eq!(follow(&copied, shop, &end).await, (Vec::new(), end.clone()));
        // What is written there comes behind all that was copied, and once.
        let (row, end) = follow_new(&copied, shop, &end, Status::Fail).await;
        assert!(!all.contains(&row));
        drop(copied);

        // And back.
        let back = bench.database.backend.database();
        copy(&to, &back).unwrap();
        assert_eq!(epoch(&back), epoch(&to) + 1);
        let copied = open(&back, &crate::store::patient(), None);
        let shop = credentials(&copied, "shop").await;
        assert_eq!(follow(&copied, shop, &end).await.0, [0; 0]);
        let rows = follow(&copied, shop, &half).await.0;
        assert_eq!(rows, [&all[4..], &[row]].concat());
        follow_new(&copied, shop, &end, Status::Pass).await;

        // A cursor of another store is none of this one's.
        let other = Bench::on(to.backend.database()).await;
        let refused = other.store.place(&end, soon()).await;
        assert!(matches!(refused, Err(Error::InvalidCursor)));
    });
}

fn the_history_of_a_copy_fits_what_was_sealed(from: Database, to: Database) {
    filled(&from);
    let audit = |database: &Database| store::verify(&location(database), None, &[], |_| {}).unwrap();
    let before = audit(&from);
    assert!(before[0].blocks > 0 && before[0].fault.is_none(), "{before:?}");
    copy(&from, &to).unwrap();
    assert_eq!(audit(&to), before);
    // The chain goes on.
    block_on(async {
        let store = open(&to, &crate::store::patient(), None);
        let shop = credentials(&store, "shop").await;
        set(&store, shop, 1, Status::Pass).await;
        seal(&store, before[0].unsealed + 1).await;
    });
    let after = audit(&to);
    assert_eq!(after[0].fault, None);
    assert_eq!(
        (after[0].rows, after[0].unsealed),
        (before[0].rows + before[0].unsealed + 1, 0)
    );
    let head = before[0].head.clone().unwrap();
    assert_eq!(store::verify(&location(&to), None, &[head], |_| {}).unwrap(), after);
}

/// Whatever a migration adds is missed by nobody.
fn every_column_is_copied(from: Database, _to: Database) {
    drop(open(&from, &crate::store::patient(), None));
    #[derive(QueryableByName)]
    struct Column {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let mut sql = from.session();
    let mut names = |query: String| -> Vec<String> {
        let mut names: Vec<String> = sql
            .rows::<Column>(&query)
            .into_iter()
            .map(|column| column.name)
            .collect();
        names.sort();
        names
    };
    let tables = names(match from.backend {
        Backend::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'".to_owned(),
        Backend::Postgres => "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public'".to_owned(),
    });
    for table in tables {
        let Some((_, _, columns)) = TABLES.iter().find(|(name, _, _)| *name == table) else {
            // What is known of the database, and what says how to go on in it.
            assert!(
                ["__diesel_schema_migrations", "attempts", "feed"].contains(&&*table),
                "{table}"
            );
            continue;
        };
        let there = names(match from.backend {
            Backend::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
            Backend::Postgres => {
                format!("SELECT column_name::text AS name FROM information_schema.columns WHERE table_name = '{table}'")
            }
        });
        let mut copied: Vec<&str> = columns
            .split_whitespace()
            .map(|name| name.trim_start_matches('#'))
            .collect();
        if (from.backend, &*table) == (Backend::Postgres, "status_changes") {
            // A transaction of the server that the store was copied from.
            copied.push("attempt");
        }
        copied.sort_unstable();
        assert_eq!(there, copied, "{table}");
    }
}
