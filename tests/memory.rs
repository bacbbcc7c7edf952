//! Large bodies: what they may take of memory, and what becomes of those for which there is none.

use std::{sync::Arc, thread};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::support::{Backend, Connection, Gateway, Reply, memory, post};

/// How many clients send at once, each a body of 20 MiB.
const CLIENTS: usize = 64;
const BODY: usize = 20 * 1024 * 1024;

/// The most memory that the README allows a gateway with the default budget of 128 MiB, in MiB.
const MOST_MIB: u64 = 768;

#[test]
fn many_large_bodies_at_once_stay_within_the_documented_memory() {
    for database in [
        Backend::Sqlite.database(),
        Backend::Sqlite.database().encrypted(),
        Backend::Postgres.database().encrypted(),
    ] {
        let backend = database.backend;
        database.create_account("USERNAME", "PASSWORD");
        let gateway = Gateway::start(&database, &[]);
        let body = Arc::new(large_body());
        let replies = at_once(&gateway, &body);
        let count = |status| replies.iter().flatten().filter(|reply| reply.status == status).count();
        let (served, refused) = (count(200), count(503));
        assert_eq!(
            served + refused,
            CLIENTS,
            "{backend}: {served} served, {refused} refused"
        );
        assert!(
            served >= 4,
            "{backend}: {served} were served, and the budget has room for six"
        );
        assert!(refused > 0, "{backend}: nobody was refused, so nothing was bounded");
        for reply in replies.iter().flatten().filter(|reply| reply.status == 503) {
            assert_eq!(reply.header("retry-after"), Some("1"), "{backend}: {}", reply.head);
        }
        let peak = memory::peak(gateway.pid()) / 1024;
        eprintln!("{backend}: {served} served, {refused} refused, peak {peak} MiB");
        assert!(peak <= MOST_MIB, "{backend}: a peak of {peak} MiB");
        // And when the storm is over, one is served.
        assert_eq!(Connection::open(gateway.rest).exchange(&body).status, 200);

        // What was stored is asked for by all at once.
        let ask = r#"{"user":"USERNAME","pass":"PASSWORD","service":"getDocumentImages","target":{"email":"large@example.com"}}"#;
        let replies = at_once(&gateway, &Arc::new(post(ask.as_bytes())));
        let statuses: Vec<u16> = replies.iter().flatten().map(|reply| reply.status).collect();
        assert_eq!(statuses.len(), CLIENTS, "{backend}: {statuses:?}");
        assert!(statuses.contains(&200), "{backend}: {statuses:?}");
        assert!(
            statuses.iter().all(|status| [200, 503].contains(status)),
            "{backend}: {statuses:?}"
        );
        let peak = memory::peak(gateway.pid()) / 1024;
        assert!(peak <= MOST_MIB, "{backend}: a peak of {peak} MiB after the replies");
    }
}

/// Sends a request from many clients at once, and gives the replies that came.
fn at_once(gateway: &Gateway, request: &Arc<Vec<u8>>) -> Vec<Option<Reply>> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (request, rest) = (Arc::clone(request), gateway.rest);
                scope.spawn(move || {
                    let mut connection = Connection::open(rest);
                    // A refusal comes before all was sent, and the connection may be closed meanwhile.
                    let _ = connection.send(&request);
                    connection.receive().ok()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// A request of nearly 20 MiB: a customer with two images.
fn large_body() -> Vec<u8> {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(BODY / 2 / 4 * 3 - 300, 0x5a);
    let image = BASE64_STANDARD.encode(image);
    post(
        format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"large@example.com","documents":{{"front":"{image}","back":"{image}"}}}}}}"#
        )
        .as_bytes(),
    )
}
