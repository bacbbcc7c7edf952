//! The sealed history: whatever is done to a row or a block afterwards is found, and named.

use store::{Audited, Fault, Head, Status, Tampering, verify};

use super::{Bench, account, location, new_customer, origin, soon};
use crate::support::Backend;

on_both![
    Bench::run;
    a_history_that_nobody_touched_fits,
    a_row_that_was_changed_in_any_column_is_named,
    a_row_that_was_removed_is_named,
    a_row_that_was_slipped_in_is_named,
    rows_that_were_moved_are_named,
    a_row_that_another_account_was_given_is_named,
    a_block_that_was_changed_or_swapped_or_is_gone_is_named,
    a_chain_that_was_cut_or_made_anew_is_found_by_a_head_that_was_noted,
    what_was_sealed_of_an_erased_customer_still_fits,
    rows_wait_until_a_block_is_worth_it,
    what_several_seal_at_once_is_sealed_once,
    rows_that_are_not_committed_hold_back_those_behind_them,
    an_audit_goes_on_behind_a_fault_with_the_next_account,
];

/// How many rows a block has at most.
const BLOCK: usize = 1_000;

impl Bench {
    /// Seals so many rows of the shop, which is to be all there are.
    async fn seal(&self, rows: u64) {
        self.seal_of(self.shop.account, rows).await;
    }

    async fn seal_of(&self, account: i64, rows: u64) {
        let mut sealed = 0;
        let deadline = soon();
        while sealed < rows {
            assert!(
                std::time::Instant::now() < deadline,
                "{sealed} of {rows} rows are sealed"
            );
            // On PostgreSQL a transaction of any other test holds rows back until it ends.
            sealed += self.store.seal(account, true, deadline).await.unwrap().rows;
        }
        assert_eq!(sealed, rows);
        assert!(self.all_sealed().await);
    }

    /// Whether no row of any account waits.
    async fn all_sealed(&self) -> bool {
        self.store.unsealed_accounts(0, soon()).await.unwrap().0.is_empty()
    }

    /// What an audit finds, which is to have no fault.
    #[track_caller]
    fn fits(&self) -> Audited {
        let audited = self.audit(&[]);
        assert_eq!(audited.fault, None);
        audited
    }

    /// What an audit of the shop finds.
    #[track_caller]
    fn audit(&self, heads: &[Head]) -> Audited {
        let shop = "shop".parse().unwrap();
        let mut audited = verify(&location(&self.database), Some(&shop), heads, |_| {}).unwrap();
        assert_eq!((audited.len(), &*audited[0].account), (1, "shop"));
        audited.remove(0)
    }

    fn execute(&self, sql: &str) {
        self.database.session().execute(sql);
    }

    /// The fault that there is after some SQL, which is undone then.
    #[track_caller]
    fn fault_after(&self, sql: &str, undo: &str) -> Fault {
        self.execute(sql);
        let fault = self.audit(&[]).fault;
        self.execute(undo);
        assert_eq!(self.audit(&[]).fault, None, "not undone: {sql}");
        fault.unwrap_or_else(|| panic!("not found: {sql}"))
    }

    /// The public id and the version of a row.
    fn row(&self, position: i64) -> (String, i64) {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            public_id: String,
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            version: i64,
        }
        let rows: Vec<Row> = self.database.session().rows(&format!(
            "SELECT c.public_id, CAST(s.version AS BIGINT) AS version
             FROM status_changes s JOIN customers c ON c.id = s.customer_id WHERE s.position = {position}"
        ));
        let Row { public_id, version } = rows.into_iter().next().unwrap();
        (public_id, version)
    }

    /// The fault of a row that is there.
    fn fault_of(&self, what: Tampering, position: i64, block: i64) -> Fault {
        let (customer_id, version) = self.row(position);
        Fault::Row {
            what,
            customer_id,
            version,
            sequence: Some(position),
            block,
        }
    }

    /// A shop with three customers, and nine rows in three blocks.
    async fn sealed_thrice(&self) {
        let emails = ["a@example.com", "b@example.com", "c@example.com"];
        self.register(&emails).await;
        self.seal(3).await;
        for (status, rows) in [(Status::Pass, 6), (Status::Fail, 9)] {
            for email in emails {
                self.set(email, status).await.unwrap();
            }
            // All in one block: as in `seal_of`.
            let deadline = soon();
            let settled = async || self.store.feed(self.shop, store::Place::default(), 99, deadline).await;
            while settled().await.unwrap().len() < rows {
                assert!(std::time::Instant::now() < deadline, "the rows do not settle");
            }
            self.seal(3).await;
        }
        assert_eq!(self.fits().blocks, 3);
    }
}

async fn a_history_that_nobody_touched_fits(bench: Bench) {
    let audited = bench.fits();
    assert_eq!((audited.blocks, audited.rows, audited.unsealed), (0, 0, 0));
    assert_eq!(audited.head, None);
    bench.seal(0).await;

    let emails: Vec<String> = (0..2_500).map(|number| format!("c{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert_eq!(bench.fits().unsealed, 2_500);
    bench.seal(2_500).await;
    bench.set("c0@example.com", Status::Pass).await.unwrap();
    let audited = bench.fits();
    assert_eq!((audited.blocks, audited.rows, audited.unsealed), (3, 2_500, 1));
    let head = audited.head.unwrap();
    assert_eq!((&*head.account, head.number), ("shop", 3));

    bench.seal(1).await;
    let audited = bench.audit(&[head]);
    assert_eq!((audited.blocks, audited.rows, audited.unsealed), (4, 2_501, 0));
    assert_eq!(audited.fault, None);

    let mut last = store::AuditProgress::default();
    let all = verify(&location(&bench.database), None, &[], |progress| {
        assert!(progress.done >= last.done && progress.done <= progress.total);
        last = progress;
    })
    .unwrap();
    assert_eq!(all, [audited]);
    assert_eq!((last.done, last.total), (4, 4));
    let nobody = "nobody".parse().unwrap();
    let unknown = verify(&location(&bench.database), Some(&nobody), &[], |_| {});
    assert!(matches!(unknown, Err(store::Error::AccountNotFound)));
}

async fn a_row_that_was_changed_in_any_column_is_named(bench: Bench) {
    bench.sealed_thrice().await;
    let expected = bench.fault_of(Tampering::Changed, 5, 2);
    for (column, value, before) in [
        ("to_status", "3", "1"),
        ("from_status", "NULL", "2"),
        ("from_status", "3", "2"),
        ("actor", "'somebody'", "'shop'"),
        ("face", "1", "2"),
        ("request_id", "''", "'request'"),
        ("kind", "2", "1"),
        ("reason", "''", "NULL"),
        ("reason", "'x'", "NULL"),
        ("change_time", "change_time + 1", "change_time - 1"),
    ] {
        let set = |value: &str| format!("UPDATE status_changes SET {column} = {value} WHERE position = 5");
        assert_eq!(bench.fault_after(&set(value), &set(before)), expected, "{column}");
    }
    // Of two, the first.
    let both = |value: &str| format!("UPDATE status_changes SET actor = '{value}' WHERE position IN (5, 9)");
    assert_eq!(bench.fault_after(&both("x"), &both("shop")), expected);
    let audited = {
        bench.execute(&both("x"));
        bench.audit(&[])
    };
    assert_eq!((audited.blocks, audited.rows, audited.head), (1, 3, None));
    // Where a row stands is shown as well.
    bench.execute(&both("shop"));
    let update = update(bench.database.backend);
    let fault = bench.fault_after(
        &format!("{update} SET position = 99 WHERE position = 9"),
        &format!("{update} SET position = 9 WHERE position = 99"),
    );
    assert!(
        matches!(
            fault,
            Fault::Row {
                what: Tampering::Changed,
                sequence: Some(99),
                block: 3,
                ..
            }
        ),
        "{fault}"
    );
}

/// What lets a test change the number of a row.
fn update(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => "UPDATE status_changes",
        Backend::Postgres => {
            "ALTER TABLE status_changes ALTER COLUMN position SET GENERATED BY DEFAULT; UPDATE status_changes"
        }
    }
}

/// Keeps a row, and removes it.
fn take_out(position: i64) -> String {
    format!(
        "DROP TABLE IF EXISTS taken; CREATE TABLE taken AS SELECT * FROM status_changes WHERE position = {position};
         DELETE FROM status_changes WHERE position = {position}"
    )
}

/// Puts back the row that was removed.
fn put_back(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => "INSERT INTO status_changes SELECT * FROM taken; DROP TABLE taken",
        Backend::Postgres => "INSERT INTO status_changes OVERRIDING SYSTEM VALUE SELECT * FROM taken; DROP TABLE taken",
    }
}

async fn a_row_that_was_removed_is_named(bench: Bench) {
    bench.sealed_thrice().await;
    // The first of all, one in the middle, the last of a block, the last that is sealed.
    for (position, block) in [(1, 1), (5, 2), (6, 2), (9, 3)] {
        let (customer_id, version) = bench.row(position);
        let expected = Fault::Row {
            what: Tampering::Removed,
            customer_id,
            version,
            sequence: None,
            block,
        };
        let fault = bench.fault_after(&take_out(position), put_back(bench.database.backend));
        assert_eq!(fault, expected, "{position}");
    }
    // Also where nothing tells any more what the customer was called.
    bench.execute("DELETE FROM status_changes WHERE customer_id = 1; DELETE FROM customers WHERE id = 1");
    let fault = bench.audit(&[]).fault.unwrap();
    assert_eq!(
        fault.to_string(),
        "the row of customer unknown, version 1, was removed (block 1)"
    );
}

async fn a_row_that_was_slipped_in_is_named(bench: Bench) {
    bench.sealed_thrice().await;
    // A copy of another row of its customer: before all others, and before those of the epoch.
    let mut places = vec![(1, "-1", 1), (3, "epoch - 1", 1)];
    if bench.database.backend == Backend::Postgres {
        // And as if the same transaction had written it.
        places.push((5, "epoch", 2));
    }
    for (like, epoch, block) in places {
        let columns =
            "account_id, customer_id, from_status, to_status, actor, face, request_id, change_time, kind, reason";
        let sql = format!(
            "INSERT INTO status_changes (version, {columns}, epoch, xid)
             SELECT 77, {columns}, {epoch}, xid FROM status_changes WHERE position = {like}"
        );
        let fault = bench.fault_after(&sql, "DELETE FROM status_changes WHERE version = 77");
        let Fault::Row {
            what,
            version,
            block: at,
            ..
        } = fault
        else {
            panic!("{fault}");
        };
        assert_eq!((what, version, at), (Tampering::SlippedIn, 77, block), "{like} {epoch}");
    }
    // Between two, where a number was left free.
    let number = match bench.database.backend {
        Backend::Sqlite => "",
        Backend::Postgres => "OVERRIDING SYSTEM VALUE",
    };
    bench.execute(&format!(
        "INSERT INTO status_changes (position, account_id, customer_id, version, from_status, to_status, actor, face,
                                     request_id, change_time, kind, reason, epoch, xid) {number}
         SELECT -1, account_id, customer_id, 78, from_status, to_status, actor, face, request_id, change_time, kind, reason,
                epoch, xid FROM status_changes WHERE position = 6"
    ));
    let fault = bench.audit(&[]).fault.unwrap();
    let Fault::Row {
        what,
        version,
        sequence,
        customer_id,
        ..
    } = &fault
    else {
        panic!("{fault}");
    };
    assert_eq!((*what, *version, *sequence), (Tampering::SlippedIn, 78, Some(-1)));
    assert_eq!(*customer_id, bench.row(6).0);
}

async fn rows_that_were_moved_are_named(bench: Bench) {
    bench.sealed_thrice().await;
    // Where they stand in the feed: as if the fifth had been written after the sixth.
    let (before, moved) = match bench.database.backend {
        Backend::Sqlite => (
            "UPDATE status_changes SET xid = 0 WHERE position = 4",
            "UPDATE status_changes SET xid = 1 WHERE position = 4",
        ),
        Backend::Postgres => (
            "UPDATE status_changes SET xid = (SELECT min(xid) FROM status_changes WHERE position = 5) - 1 WHERE position = 4",
            "UPDATE status_changes SET xid = xid + 1000000 WHERE position = 4",
        ),
    };
    bench.execute(moved);
    let expected = bench.fault_of(Tampering::Moved, 4, 2);
    assert_eq!(bench.audit(&[]).fault, Some(expected));
    bench.execute(before);
    assert_eq!(bench.audit(&[]).fault, None);
    // And their numbers: each is then another row.
    let swap = format!(
        "{update} SET position = -5 WHERE position = 5; UPDATE status_changes SET position = 5 WHERE position = 6;
         UPDATE status_changes SET position = 6 WHERE position = -5",
        update = update(bench.database.backend)
    );
    let fault = bench.fault_after(&swap, &swap);
    assert!(
        matches!(
            fault,
            Fault::Row {
                what: Tampering::Changed,
                block: 2,
                ..
            }
        ),
        "{fault}"
    );
}

async fn a_row_that_another_account_was_given_is_named(bench: Bench) {
    bench.sealed_thrice().await;
    let other = account(&bench.store, "other").await.account;
    let give = |account: i64| format!("UPDATE status_changes SET account_id = {account} WHERE position = 5");
    let fault = bench.fault_after(&give(other), &give(bench.shop.account));
    assert_eq!(fault, bench.fault_of(Tampering::Changed, 5, 2));
}

async fn a_block_that_was_changed_or_swapped_or_is_gone_is_named(bench: Bench) {
    bench.sealed_thrice().await;
    let block = |set: &str, number: i64| format!("UPDATE audit_blocks SET {set} WHERE number = {number}");
    for (set, undo) in [
        ("position = position - 1", "position = position + 1"),
        ("position = position + 1", "position = position - 1"),
        ("epoch = epoch + 1", "epoch = epoch - 1"),
        ("xid = xid + 1", "xid = xid - 1"),
        ("seal_time = seal_time - 1", "seal_time = seal_time + 1"),
    ] {
        let fault = bench.fault_after(&block(set, 2), &block(undo, 2));
        assert_eq!(fault, Fault::BlockChanged(2), "{set}");
    }
    bench.execute("CREATE TABLE kept AS SELECT * FROM audit_blocks");
    let undo = match bench.database.backend {
        Backend::Sqlite => "DELETE FROM audit_blocks; INSERT INTO audit_blocks SELECT * FROM kept",
        Backend::Postgres => {
            "DELETE FROM audit_blocks; INSERT INTO audit_blocks OVERRIDING SYSTEM VALUE SELECT * FROM kept"
        }
    };
    let entries = "entries = (SELECT entries FROM kept WHERE number = 1)";
    let hash = "hash = (SELECT hash FROM kept WHERE number = 1)";
    let swap = "UPDATE audit_blocks SET number = -number WHERE number > 1;
                UPDATE audit_blocks SET number = 5 + number WHERE number < 0";
    for (sql, fault) in [
        (block(entries, 2), Fault::BlockChanged(2)),
        (block(hash, 3), Fault::BlockChanged(3)),
        (swap.to_owned(), Fault::BlockChanged(2)),
        (
            "DELETE FROM audit_blocks WHERE number = 1".to_owned(),
            Fault::BlockMissing(1),
        ),
        (
            "DELETE FROM audit_blocks WHERE number = 2".to_owned(),
            Fault::BlockMissing(2),
        ),
        (block("number = 0", 1), Fault::BlockMissing(1)),
        (
            format!(
                "{}; {}",
                block("number = number + 10", 3),
                block("number = number + 10", 2)
            ),
            Fault::BlockMissing(2),
        ),
        (block("account_id = 99", 2), Fault::BlockMissing(2)),
    ] {
        assert_eq!(bench.fault_after(&sql, undo), fault, "{sql}");
    }
    // A row, and its entry as well: what is done to a block shows first.
    let sql = format!(
        "UPDATE status_changes SET actor = 'x' WHERE position = 1; {}",
        block("entries = hash", 1)
    );
    let undo = format!("UPDATE status_changes SET actor = 'shop' WHERE position = 1; {undo}");
    assert_eq!(bench.fault_after(&sql, &undo), Fault::BlockChanged(1));
}

async fn a_chain_that_was_cut_or_made_anew_is_found_by_a_head_that_was_noted(bench: Bench) {
    bench.sealed_thrice().await;
    let head = bench.fits().head.unwrap();
    assert_eq!(head.number, 3);
    let heads = [head.clone()];
    assert_eq!(bench.audit(&heads).fault, None);

    // The last block goes, and its rows are as if they had never been sealed: by itself that fits.
    bench.execute("DELETE FROM audit_blocks WHERE number = 3");
    assert_eq!(bench.fits().unsealed, 3);
    assert_eq!(bench.audit(&heads).fault, Some(Fault::HeadMissing(3)));
    // With another history sealed in its place it fits as well.
    bench.execute("UPDATE status_changes SET to_status = 1 WHERE position = 9");
    bench.seal(3).await;
    assert_ne!(bench.fits().head.unwrap(), head);
    assert_eq!(bench.audit(&heads).fault, Some(Fault::HeadMissing(3)));
    // All of them.
    bench.execute("DELETE FROM audit_blocks");
    bench.seal(9).await;
    assert_eq!(bench.fits().blocks, 1);
    assert_eq!(bench.audit(&heads).fault, Some(Fault::HeadMissing(3)));

    let nobody = Head {
        account: "nobody".to_owned(),
        ..head
    };
    let all = verify(&location(&bench.database), None, &[nobody], |_| {}).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(
        (&*all[1].account, &all[1].fault),
        ("nobody", &Some(Fault::AccountMissing))
    );
}

async fn what_was_sealed_of_an_erased_customer_still_fits(bench: Bench) {
    bench.sealed_thrice().await;
    let erased = bench.forget("b@example.com").await;
    let audited = bench.fits();
    assert_eq!(audited.rows, 9);
    bench.seal(audited.unsealed).await;
    bench.fits();
    // Its rows are still named by what it was called.
    bench.execute("UPDATE status_changes SET face = 1 WHERE position = 5");
    let fault = bench.audit(&[]).fault.unwrap();
    assert!(fault.to_string().contains(&erased.public_id), "{fault}");
}

async fn rows_wait_until_a_block_is_worth_it(bench: Bench) {
    let seal = async || bench.store.seal(bench.shop.account, false, soon()).await.unwrap().rows;
    // As in `seal_of`.
    let sealed = async || {
        let deadline = soon();
        loop {
            match seal().await {
                0 => assert!(std::time::Instant::now() < deadline, "nothing is sealed"),
                rows => return rows,
            }
        }
    };
    assert!(bench.all_sealed().await);
    bench.register(&["a@example.com"]).await;
    // The first row of all waits for nothing.
    assert_eq!(
        bench.store.unsealed_accounts(0, soon()).await.unwrap(),
        (vec![bench.shop.account], None)
    );
    assert_eq!(sealed().await, 1);
    assert!(bench.all_sealed().await);

    bench.set("a@example.com", Status::Pass).await.unwrap();
    assert!(!bench.all_sealed().await);
    assert_eq!(seal().await, 0);
    // A minute later.
    bench.execute("UPDATE audit_blocks SET seal_time = seal_time - 60000000");
    assert_eq!(sealed().await, 1);
    // Or with enough of them; the rest waits again.
    let emails: Vec<String> = (0..BLOCK + 1).map(|number| format!("c{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert_eq!(sealed().await, BLOCK as u64);
    assert_eq!(seal().await, 0);
    bench.seal(1).await;
}

async fn what_several_seal_at_once_is_sealed_once(bench: Bench) {
    let emails: Vec<String> = (0..4_500).map(|number| format!("c{number}@example.com")).collect();
    bench
        .register(&emails.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let account = bench.shop.account;
    let sealers: Vec<_> = (0..4)
        .map(|_| {
            let store = bench.another(&crate::store::patient());
            tokio::spawn(async move {
                let mut rows = 0;
                while !store.unsealed_accounts(0, soon()).await.unwrap().0.is_empty() {
                    rows += store.seal(account, true, soon()).await.unwrap().rows;
                }
                rows
            })
        })
        .collect();
    let mut rows = 0;
    for sealer in sealers {
        rows += sealer.await.unwrap();
    }
    assert_eq!(rows, 4_500);
    let audited = bench.fits();
    assert_eq!((audited.rows, audited.unsealed, audited.blocks), (4_500, 0, 5));
}

async fn rows_that_are_not_committed_hold_back_those_behind_them(bench: Bench) {
    if bench.database.backend == Backend::Sqlite {
        // One writes at a time.
        return;
    }
    bench.register(&["a@example.com"]).await;
    bench.seal(1).await;
    let mut slow = bench.database.session();
    slow.execute(
        "BEGIN; INSERT INTO status_changes (account_id, customer_id, version, to_status, actor, face, request_id, change_time)
                VALUES (1, 99, 1, 1, 'shop', 2, 'slow', 1)",
    );
    bench.set("a@example.com", Status::Pass).await.unwrap();
    let sealed = bench.store.seal(bench.shop.account, true, soon()).await.unwrap();
    assert_eq!((sealed.rows, bench.fits().unsealed), (0, 1));
    slow.execute("COMMIT");
    bench.seal(2).await;
    assert_eq!(bench.fits().rows, 3);
}

async fn an_audit_goes_on_behind_a_fault_with_the_next_account(bench: Bench) {
    bench.sealed_thrice().await;
    let other = account(&bench.store, "other").await;
    let new = vec![new_customer("a@example.com")];
    bench
        .store
        .import(other.account, new, origin("import"), soon())
        .await
        .unwrap();
    bench.seal_of(other.account, 1).await;
    bench.execute("UPDATE status_changes SET actor = 'x' WHERE position = 2");
    let all = verify(&location(&bench.database), None, &[], |_| {}).unwrap();
    assert_eq!(all.len(), 2);
    assert!(all[0].fault.is_some() && all[0].blocks == 0);
    assert_eq!((&*all[1].account, all[1].rows, &all[1].fault), ("other", 1, &None));
}

#[test]
fn an_encrypted_store_is_checked_without_its_key() {
    for backend in Backend::BOTH {
        Bench::sealed(backend, async |bench| {
            bench.sealed_thrice().await;
            bench.execute("UPDATE status_changes SET reason = 'x' WHERE position = 4");
            let expected = bench.fault_of(Tampering::Changed, 4, 2);
            assert_eq!(bench.audit(&[]).fault, Some(expected));
        });
    }
}
