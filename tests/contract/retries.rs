//! What a client sends again is done once, and what it makes depend on an etag is done only if that still holds.

use std::{collections::BTreeSet, sync::Mutex, thread};

use super::{
    documented::{JOHN, READ, SAMPLE},
    everywhere_on,
    family::PNG,
    transcript::{PUBLIC_ID, entry, public_id},
};
use crate::support::{Backend, Connection, Database, Gateway, Reply, post};

/// A request with headers: what it shows, the headers, the body.
type Row<'a> = (&'a str, &'a str, &'a str);

/// A posted body with more headers, each with its line end.
fn post_with(headers: &str, body: &str) -> Vec<u8> {
    let usual = String::from_utf8(post(body.as_bytes())).unwrap();
    usual.replacen("\r\n\r\n", &format!("\r\n{headers}\r\n"), 1).into()
}

fn prepare(database: &Database) {
    database.create_account("USERNAME", "PASSWORD");
    database.import("USERNAME", JOHN);
}

fn send(gateway: &Gateway, headers: &str, body: &str) -> Reply {
    Connection::open(gateway.rest).exchange(&post_with(headers, body))
}

/// Sends rows in which [`PUBLIC_ID`] stands for that part of the etags of the sample's customer, and says how many changes
/// the history has afterwards.
fn check(set_ups: &[fn(Database) -> Database], golden: &str, rows: &[Row]) {
    let link = ["--customer-link", "https://admin.example.com/customers/{id}"];
    for set_up in set_ups {
        everywhere_on(set_up, golden, &link, prepare, |deployment| {
            let etag = deployment.face().post(READ).header("etag").unwrap().to_owned();
            let entries = rows.iter().map(|(name, headers, body)| {
                let request = post_with(headers, body);
                let sent = String::from_utf8(request.clone())
                    .unwrap()
                    .replace(PUBLIC_ID, public_id(&etag));
                let reply = Connection::open(deployment.face().rest).exchange(sent.as_bytes());
                entry(name, &request, &reply)
            });
            let told = entries.collect::<Vec<_>>().join("\n");
            let rows = deployment
                .database
                .session()
                .number("(SELECT count(*) FROM status_changes)");
            format!("{told}\n===== rows of the history\n{rows}\n")
        });
    }
}

fn update(status: &str) -> String {
    SAMPLE.replace(r#""PASS""#, &format!("{status:?}"))
}

fn jane(rest: &str) -> String {
    format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"jane@example.com"{rest}}}}}"#
    )
}

#[test]
fn what_is_sent_again_with_its_key_is_answered_as_the_first_time() {
    let (pass, fail, pending) = (update("PASS"), update("FAIL"), update("PENDING"));
    let nobody = pending.replace("test@", "nobody@");
    let wrong = pending.replace("PASSWORD", "wrong");
    let key = |key: &str| format!("Idempotency-Key: {key}\r\n");
    let (first, second, third, jane_key) = (key("order-1"), key("order-2"), key("order-3"), key("jane-1"));
    let image = jane(&format!(r#","documents":{{"front":"{PNG}"}}"#));
    check(
        // What is kept with a key is sealed in an encrypted store.
        &[|database| database, Database::encrypted],
        "retries",
        &[
            ("a change", &first, &pass),
            ("the same again: the first reply", &first, &pass),
            (
                "white space and the order of the keys are no content",
                &first,
                r#"{"target":{"status":"pass","email":" Test@veratad.com"},"service":"updateStatus","pass":"PASSWORD","user":"USERNAME"}"#,
            ),
            ("400: the same key with another status", &first, &fail),
            ("400: with another customer", &first, &pass.replace("test@", "other@")),
            ("400: with another service", &first, &jane("")),
            (
                "400: with a condition",
                &format!("{first}If-Match: \"<public id>-2\"\r\n"),
                &pass,
            ),
            ("another change", &second, &fail),
            (
                "the first one again: its reply, though the customer was changed since",
                &first,
                &pass,
            ),
            ("the customer is as it was", "", READ),
            (
                "a refused request leaves no key: the status is none",
                &third,
                &update("NONSENSE"),
            ),
            ("nor here: there is no such customer", &third, &nobody),
            ("nor here: the password is wrong", &third, &wrong),
            (
                "nor here: the customer has another etag",
                &format!("{third}If-Match: \"<public id>-1\"\r\n"),
                &pending,
            ),
            ("so it is free", &third, &pending),
            ("a customer is created", &jane_key, &image),
            ("and is created again, says the reply", &jane_key, &image),
            ("400: with another image", &jane_key, &image.replace("iVBOR", "/9j/O")),
            ("without a key it is there", "", &image),
            ("its key still tells of the first time", &jane_key, &image),
            ("400: a key with a space", &key("order 1"), &pass),
            ("400: a key that is empty", &key(""), &pass),
            ("400: a key that is too long", &key(&"x".repeat(129)), &pass),
            ("the longest key", &key(&"x".repeat(128)), &pass),
            ("400: two keys", &format!("{first}{second}"), &pass),
            ("400: createOrUpdateCustomer says the same", &key("order 1"), &image),
            ("401 before all of that", &key("order 1"), &wrong),
            ("a read has no key", &key("order 1"), READ),
        ],
    );
}

#[test]
fn a_change_with_an_etag_is_made_only_if_the_customer_still_has_it() {
    let (pass, fail, pending) = (update("PASS"), update("FAIL"), update("PENDING"));
    let if_match = |etag: &str| format!("If-Match: {etag}\r\n");
    let tag = |number: u64| if_match(&format!("\"{PUBLIC_ID}-{number}\""));
    let john = jane(r#","city":"Boston""#).replace("jane@example.com", "test@veratad.com");
    let keyed = |number: u64| format!("Idempotency-Key: order-1\r\n{}", tag(number));
    check(
        &[|database| database],
        "conditional_changes",
        &[
            ("the etag of a customer", "", READ),
            ("a change with it", &tag(1), &pass),
            ("409: the customer has another one now", &tag(1), &fail),
            ("409: also where the status is what it should be", &tag(1), &pass),
            (
                "409: a weak etag never matches",
                &if_match("W/\"<public id>-2\""),
                &fail,
            ),
            ("409: nor does another text", &if_match("\"nonsense\""), &fail),
            ("409: nor none", &if_match("\"\""), &fail),
            ("400: several", &if_match("\"<public id>-1\", \"<public id>-2\""), &fail),
            ("400: several headers", &(tag(1) + &tag(2)), &fail),
            ("400: no quotes", &if_match("<public id>-2"), &fail),
            ("400: nothing", &if_match(""), &fail),
            ("400: too long", &if_match(&format!("\"{}\"", "x".repeat(65))), &fail),
            (
                "401 before that: the etag is another one",
                &tag(1),
                &fail.replace("PASSWORD", "wrong"),
            ),
            (
                "401 before that: there is no etag",
                &if_match(""),
                &fail.replace("PASSWORD", "wrong"),
            ),
            ("404: nobody has it", &tag(2), &fail.replace("test@", "nobody@")),
            ("any will do", &if_match("*"), &fail),
            (
                "404: also nobody has any",
                &if_match("*"),
                &fail.replace("test@", "nobody@"),
            ),
            (
                "the same status again changes nothing, the etag neither",
                &tag(3),
                &fail,
            ),
            ("createOrUpdateCustomer with it", &tag(3), &john),
            (
                "409: the customer has another one now",
                &tag(3),
                &john.replace("Boston", "Salem"),
            ),
            ("409: nobody has it, and nobody is created", &tag(4), &jane("")),
            (
                "400: `*` cannot be said of one that may be new",
                &if_match("*"),
                &jane(""),
            ),
            (
                "404: nobody was created",
                "",
                &READ.replace("test@veratad.com", "jane@example.com"),
            ),
            ("with a key and an etag", &keyed(4), &pending),
            ("the same again: the key goes before the etag", &keyed(4), &pending),
            ("without the key the etag is an old one", &tag(4), &pending),
            ("a read has no condition", &if_match("nonsense"), READ),
        ],
    );
}

/// What many get who send the same to gateways on one database at once.
fn at_once(gateways: &[Gateway], clients: usize, headers: &str, body: &str) -> Vec<Reply> {
    let replies = Mutex::default();
    thread::scope(|scope| {
        for gateway in gateways.iter().cycle().take(clients) {
            let replies: &Mutex<Vec<_>> = &replies;
            scope.spawn(move || {
                let reply = send(gateway, headers, body);
                replies.lock().unwrap().push(reply);
            });
        }
    });
    replies.into_inner().unwrap()
}

/// Gateways on a database: two where that can be, as neither knows what the other is about.
fn gateways(database: &Database) -> Vec<Gateway> {
    let count = match database.backend {
        Backend::Sqlite => 1,
        Backend::Postgres => 2,
    };
    (0..count).map(|_| Gateway::start(database, &[])).collect()
}

#[test]
fn of_many_who_send_the_same_with_one_key_one_is_served_and_all_get_its_reply() {
    const ROUNDS: usize = 20;
    for backend in Backend::BOTH {
        let database = backend.database();
        prepare(&database);
        let gateways = gateways(&database);
        for round in 0..ROUNDS {
            let body = jane("").replace("jane@", &format!("jane{round}@"));
            let replies = at_once(&gateways, 8, &format!("Idempotency-Key: {round}\r\n"), &body);
            let told: BTreeSet<_> = replies
                .iter()
                .map(|reply| (reply.status, reply.header("etag"), reply.text()))
                .collect();
            assert_eq!(told.len(), 1, "{backend}: {told:?}");
            let (status, _, body) = told.first().unwrap();
            assert_eq!(*status, 200, "{backend}: {body}");
            assert!(body.contains(r#""type":"createCustomer""#), "{backend}: {body}");
        }
        let kept = database.session().number("(SELECT count(*) FROM customers)");
        assert_eq!(kept, ROUNDS as i64 + 1, "{backend}");
        let changes = database.session().number("(SELECT count(*) FROM status_changes)");
        assert_eq!(changes, kept, "{backend}");
    }
}

#[test]
fn of_many_who_change_what_they_have_all_seen_one_wins() {
    const ROUNDS: usize = 20;
    for backend in Backend::BOTH {
        let database = backend.database();
        prepare(&database);
        let gateways = gateways(&database);
        let mut etag = gateways[0].post(READ).header("etag").unwrap().to_owned();
        for round in 0..ROUNDS {
            let body = update(["PASS", "FAIL"][round % 2]);
            let mut replies = at_once(&gateways, 8, &format!("If-Match: {etag}\r\n"), &body);
            replies.sort_by_key(|reply| reply.status);
            let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409], "{backend}");
            let next = replies[0].header("etag").unwrap();
            assert_ne!(next, etag, "{backend}");
            etag = next.to_owned();
            assert_eq!(gateways[0].post(READ).header("etag"), Some(&*etag), "{backend}");
        }
        let changes = database.session().number("(SELECT count(*) FROM status_changes)");
        assert_eq!(changes, ROUNDS as i64 + 1, "{backend}");
    }
}
