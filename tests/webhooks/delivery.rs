//! What arrives, whatever the receiver does.

use std::time::{Duration, Instant, SystemTime};

use super::{
    FAST, Hook, Receiver, metric, pending,
    receiver::{Answer, LOOK, check},
    register, set, shop, with_account,
};
use crate::support::{Backend, Gateway, dcams, eventually, program, run};

const STATUSES: [&str; 3] = ["PASS", "FAIL", "PENDING"];

#[test]
fn a_change_arrives_as_the_vendor_has_it_and_signed() {
    for (backend, sealed) in [
        (Backend::Sqlite, false),
        (Backend::Sqlite, true),
        (Backend::Postgres, false),
        (Backend::Postgres, true),
    ] {
        let database = backend.database();
        let database = with_account(if sealed { database.encrypted() } else { database });
        let receiver = Receiver::start();
        database.import(
            "shop",
            "email,reference,fn,ln,addr,city,state,zip,dob,phone\nJane@Example.com,ref-1,Jane,\"O\"\"Neil\",1 St,Town,CA,00001,19700101,1\n",
        );
        let hook = Hook::add(&database, &receiver.url());
        let gateway = Gateway::start(&database, &FAST);
        set(&gateway, "jane@example.com", "PASS");
        let first = &receiver.has_taken(1)[0];
        check(first, &hook.secret);
        assert_eq!(first.signatures.len(), 1);
        assert_eq!(
            first.body,
            r#"{"fn":"Jane","ln":"O\"Neil","addr":"1 St","city":"Town","state":"CA","zip":"00001","dob":"19700101","email":"Jane@Example.com","reference":"ref-1","status":"PASS"}"#
        );
        // The same again is no change; what was registered before the webhook is not sent.
        set(&gateway, "jane@example.com", "PASS");
        set(&gateway, "jane@example.com", "FAIL");
        receiver.has_taken(2);
        assert_eq!(receiver.statuses("Jane@Example.com"), ["PASS", "FAIL"]);
        let list = || dcams(&database, &["webhook", "list"], "").ok();
        eventually("nothing is behind", || list().contains("behind 0 pending 0 parked 0"));
        assert_eq!(list().lines().count(), 1, "{}", list());
        assert_eq!(
            metric(&gateway, r#"dcams_webhook_deliveries_total{outcome="delivered"}"#),
            2.0
        );
        assert_eq!(receiver.count(), 2);
        gateway.stop();
    }
}

#[test]
fn of_an_erased_customer_only_the_status_arrives() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let receiver = Receiver::start();
        register(&database, &["a@example.com", "b@example.com"]);
        let hook = Hook::add(&database, &receiver.url());
        for status in ["PASS", "FAIL"] {
            let arguments = ["customer", "set-status", "a@example.com", status, "--account", "shop"];
            dcams(&database, &arguments, "").ok();
        }
        dcams(
            &database,
            &["customer", "erase", "a@example.com", "--account", "shop", "--yes"],
            "",
        )
        .ok();
        let gateway = Gateway::start(&database, &FAST);
        set(&gateway, "b@example.com", "PASS");
        let taken = receiver.has_taken(3);
        for request in &taken {
            check(request, &hook.secret);
        }
        assert_eq!(receiver.statuses(""), ["PASS", "FAIL"]);
        assert_eq!(receiver.statuses("b@example.com"), ["PASS"]);
        assert_eq!(receiver.count(), 3);
    }
}

/// For an hour of test time nothing is taken; then the receiver fails in every way, now and then; and then it is well.
#[test]
fn every_change_arrives_in_order_after_a_bad_hour() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let receiver = Receiver::start();
        let emails: Vec<String> = (0..12).map(|number| format!("c{number}@example.com")).collect();
        register(&database, &emails.iter().map(String::as_str).collect::<Vec<_>>());
        Hook::add(&database, &receiver.url());
        receiver.answers(|_| Answer::Status(500));
        let gateway = Gateway::start(&database, &FAST);
        let round = |rounds: std::ops::Range<usize>| {
            for number in rounds {
                for email in &emails {
                    set(&gateway, email, STATUSES[number % 3]);
                }
            }
        };
        let began = Instant::now();
        round(0..4);
        receiver.has(5);
        eventually("an hour of test time", || {
            std::thread::sleep(LOOK);
            began.elapsed() > Duration::from_secs(1)
        });
        assert!(receiver.taken().is_empty());
        let list = dcams(&database, &["webhook", "list"], "").ok();
        assert!(
            list.contains("the last try failed: the receiver answered 500"),
            "{list}"
        );

        let mut number = 0;
        receiver.answers(move |_| {
            number += 1;
            match number % 23 {
                3 | 11 => Answer::Status(503),
                7 => Answer::Close,
                13 => Answer::Never,
                17 => Answer::Redirect("http://127.0.0.1:1/".to_owned()),
                _ => Answer::Status(200),
            }
        });
        round(4..8);
        receiver.has_taken(12 * 8);
        for email in &emails {
            let expected: Vec<&str> = (0..8).map(|number| STATUSES[number % 3]).collect();
            assert_eq!(receiver.statuses(email), expected, "{backend}: {email}");
        }
        receiver.answers(|_| Answer::Status(200));
        eventually("nothing waits", || pending(&database) == 0);
        assert_eq!(metric(&gateway, "dcams_webhook_parked_total"), 0.0);
        assert!(receiver.most() <= 16, "{}", receiver.most());
    }
}

/// One customer that the receiver does not take holds up no other, is parked after a day of test time, and can be sent again.
#[test]
fn what_is_never_taken_is_parked_and_listed_and_can_be_sent_again() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let receiver = Receiver::start();
        let others: Vec<String> = (0..20).map(|number| format!("c{number}@example.com")).collect();
        register(
            &database,
            &others
                .iter()
                .map(String::as_str)
                .chain(["bad@example.com"])
                .collect::<Vec<_>>(),
        );
        let hook = Hook::add(&database, &receiver.url());
        receiver.answers(|request| match request.text("email") == "bad@example.com" {
            true => Answer::Status(400),
            false => Answer::Status(200),
        });
        // A day is a second.
        let gateway = Gateway::start(&database, &["--webhook-tempo=86400", "--webhook-lease=1500"]);
        set(&gateway, "bad@example.com", "PASS");
        set(&gateway, "bad@example.com", "FAIL");
        receiver.has(3);
        for email in &others {
            set(&gateway, email, "PASS");
        }
        receiver.has_taken(20);
        let parked = || hook.command(&database, "parked", &[]);
        eventually("both are parked", || parked().lines().count() == 2);
        let list = dcams(&database, &["webhook", "list"], "").ok();
        assert!(list.contains("behind 0 pending 0 parked 2"), "{list}");
        assert_eq!(metric(&gateway, "dcams_webhook_parked_total"), 2.0);
        let listed = parked();
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0].contains(" PASS ") && lines[1].contains(" FAIL "), "{listed}");
        assert!(lines[0].ends_with(": the receiver answered 400"), "{listed}");

        receiver.answers(|_| Answer::Status(200));
        let sequence = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        let again = hook.command(&database, "resend", &["--sequence", &sequence(lines[1])]);
        assert_eq!(again, "changes that are tried again: 1\n");
        receiver.has_taken(21);
        assert_eq!(receiver.statuses("bad@example.com"), ["FAIL"]);
        assert_eq!(
            hook.command(&database, "resend", &["--all"]),
            "changes that are tried again: 1\n"
        );
        receiver.has_taken(22);
        eventually("nothing is parked", || parked().is_empty());
        assert_eq!(
            hook.command(&database, "resend", &["--all"]),
            "changes that are tried again: 0\n"
        );
        let arguments = ["webhook", "resend", &hook.id, "--sequence", &sequence(lines[0])];
        let line = dcams(&database, &arguments, "").fails(1);
        assert!(line.starts_with("no parked change"), "{line}");

        // Each was sent under the same id at every try.
        let mut ids: Vec<String> = receiver.requests().into_iter().map(|request| request.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 22);
    }
}

#[test]
fn a_redirect_is_not_followed() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let (receiver, elsewhere) = (Receiver::start(), Receiver::start());
        register(&database, &["a@example.com"]);
        let hook = Hook::add(&database, &receiver.url());
        let to = elsewhere.url();
        receiver.answers(move |_| Answer::Redirect(to.clone()));
        let line = dcams(&database, &["webhook", "test", &hook.id], "").fails(1);
        assert_eq!(line, "the receiver answered 307");
        let gateway = Gateway::start(&database, &FAST);
        set(&gateway, "a@example.com", "PASS");
        receiver.has(4);
        receiver.answers(|_| Answer::Status(200));
        receiver.has_taken(1);
        assert_eq!(elsewhere.count(), 0);
    }
}

#[test]
fn addresses_that_are_not_public_are_refused_also_when_they_are_stored() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let add = |url: &str, flags: &[&str]| {
            let arguments = [&["webhook", "add", url, "--account", "shop"], flags].concat();
            dcams(&database, &arguments, "")
        };
        for url in [
            "https://10.0.0.1/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest",
        ] {
            let line = add(url, &[]).fails(1);
            assert!(line.contains("--webhook-allow-private"), "{line}");
        }
        let line = add("http://example.com/", &["--webhook-allow-private"]).fails(1);
        assert!(line.contains("https://"), "{line}");
        let output = add("https://user:canary@example.com/", &[]);
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");
        output.fails(1);
        assert_eq!(database.session().number("(SELECT count(*) FROM webhooks)"), 0);

        // What was allowed once is looked at again with every delivery.
        let receiver = Receiver::start();
        register(&database, &["a@example.com"]);
        let hook = Hook::add(&database, &receiver.url());
        let url = receiver.url().replace("http://127.0.0.1", "https://10.0.0.1");
        database
            .session()
            .execute(&format!("UPDATE webhooks SET url = '{url}'"));
        let line = dcams(&database, &["webhook", "test", &hook.id], "").fails(1);
        assert!(line.contains("not a public one"), "{line}");
        let gateway = Gateway::start(&database, &FAST);
        set(&gateway, "a@example.com", "PASS");
        let list = || dcams(&database, &["webhook", "list"], "").ok();
        eventually("the delivery fails", || {
            list().contains("the address is not a public one")
        });
        assert_eq!(receiver.count(), 0);
    }
}

/// TLS is checked: what is not trusted, or is of another name, is sent nothing.
#[test]
fn a_receiver_with_tls_is_sent_nothing_unless_it_is_trusted() {
    let database = shop(Backend::Sqlite);
    for (name, trusted, taken) in [
        ("localhost", true, true),
        ("localhost", false, false),
        ("other.example", true, false),
    ] {
        let (receiver, certificate) = Receiver::start_with_tls(name);
        let file = database.file("ca.pem", certificate);
        let hook = Hook::add(&database, &receiver.url());
        let mut command = program();
        command.args(database.arguments()).args(["webhook", "test", &hook.id]);
        if trusted {
            command.env("SSL_CERT_FILE", file);
        }
        let output = run(&mut command, "");
        match taken {
            true => {
                assert_eq!(output.ok(), "the receiver answered 204\n");
                check(&receiver.requests()[0], &hook.secret);
            }
            false => {
                let line = output.fails(1);
                assert!(line.starts_with("the TLS connection failed"), "{line}");
                assert_eq!(receiver.count(), 0);
            }
        }
    }
}

#[test]
fn without_certificates_of_the_system_what_needs_none_still_arrives() {
    let database = shop(Backend::Sqlite);
    let plain = Receiver::start();
    let (with_tls, _) = Receiver::start_with_tls("localhost");
    let test = |receiver: &Receiver| {
        let hook = Hook::add(&database, &receiver.url());
        let mut command = program();
        command.args(database.arguments()).args(["webhook", "test", &hook.id]);
        let nowhere = database.path("nowhere");
        run(command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere), "")
    };
    let output = test(&plain);
    assert!(output.err.contains("the system has no certificates"), "{output:?}");
    output.ok();
    let output = test(&with_tls);
    assert!(output.err.contains("error: the TLS connection failed"), "{output:?}");
    assert_eq!((plain.count(), with_tls.count()), (1, 0));
}

#[test]
fn commands_name_what_there_is_not() {
    let database = shop(Backend::Sqlite);
    for command in ["remove", "rotate", "test", "parked"] {
        let line = dcams(&database, &["webhook", command, "wh_0"], "").fails(1);
        assert_eq!(line, "there is no webhook wh_0");
    }
    let line = dcams(&database, &["webhook", "resend", "wh_0", "--all"], "").fails(1);
    assert_eq!(line, "there is no webhook wh_0");
    dcams(&database, &["webhook", "resend", "wh_0"], "").fails(2);
    dcams(
        &database,
        &["webhook", "resend", "wh_0", "--all", "--sequence", "1"],
        "",
    )
    .fails(2);
    let line = dcams(
        &database,
        &["webhook", "add", "https://example.com/", "--account", "none"],
        "",
    )
    .fails(1);
    assert_eq!(line, "none: no such account");
    for _ in 0..10 {
        Hook::add(&database, "https://example.com/");
    }
    let line = dcams(
        &database,
        &["webhook", "add", "https://example.com/", "--account", "shop"],
        "",
    )
    .fails(1);
    assert_eq!(line, "shop: an account has at most 10 webhooks");
}

#[test]
fn a_webhook_that_is_removed_gets_nothing_more_and_one_of_a_disabled_account_waits() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let (gone, waits) = (Receiver::start(), Receiver::start());
        register(&database, &["a@example.com"]);
        let hook = Hook::add(&database, &gone.url());
        Hook::add(&database, &waits.url());
        gone.answers(|_| Answer::Status(500));
        let gateway = Gateway::start(&database, &FAST);
        set(&gateway, "a@example.com", "PASS");
        gone.has(1);
        waits.has_taken(1);
        hook.command(&database, "remove", &[]);
        assert_eq!(
            database.session().number("(SELECT count(*) FROM webhook_deliveries)"),
            0
        );
        dcams(&database, &["account", "disable", "shop"], "").ok();
        let list = dcams(&database, &["webhook", "list", "--account", "shop"], "").ok();
        assert!(
            list.contains("the account is disabled") && !list.contains(&hook.id),
            "{list}"
        );
        // Its lease ends, and then nobody takes it.
        eventually("nobody has the webhook", || {
            std::thread::sleep(LOOK);
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_micros();
            let until = database.session().number("(SELECT max(lease_until) FROM webhooks)");
            i64::try_from(now).unwrap() > until
        });
        let sent = gone.count();
        let arguments = ["customer", "set-status", "a@example.com", "FAIL", "--account", "shop"];
        dcams(&database, &arguments, "").ok();
        dcams(&database, &["account", "enable", "shop"], "").ok();
        waits.has_taken(2);
        assert_eq!(gone.count(), sent);
    }
}
