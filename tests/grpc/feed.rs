//! `WatchStatusChanges`: what a consumer is sent, and why its stream ends.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use proto::v1::{
    Status as S, StatusChange, UpdateStatusRequest, WatchStatusChangesRequest, WatchStatusChangesResponse,
    storage_service_client::StorageServiceClient,
};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use super::{
    client::{Client, Connection, basic},
    errors::{Refused, check},
    prepare, served, served_with,
};
use crate::support::{Backend, Gateway, Ground, dcams, eventually, until};

const CREDENTIALS: &str = "USERNAME:PASSWORD";
const EMAIL: &str = "test@veratad.com";

/// How long a test waits for an answer before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream, from the side of its consumer.
pub struct Watching<'a> {
    client: &'a Client,
    stream: Streaming<WatchStatusChangesResponse>,
    /// The last one.
    pub cursor: String,
}

/// A client that was made from the contract.
pub fn generated(client: &Client) -> StorageServiceClient<Connection> {
    let (connection, origin) = client.transport();
    StorageServiceClient::with_origin(connection, origin)
}

/// A request with credentials.
pub fn with<T>(credentials: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = basic(credentials).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

impl<'a> Watching<'a> {
    fn begin(client: &'a Client, cursor: &str, only_new: bool) -> Result<Self, Status> {
        Self::begin_as(client, CREDENTIALS, cursor, only_new)
    }

    pub fn begin_as(client: &'a Client, credentials: &str, cursor: &str, only_new: bool) -> Result<Self, Status> {
        let message = WatchStatusChangesRequest {
            cursor: cursor.to_owned(),
            only_new,
        };
        let response = client.block_on(generated(client).watch_status_changes(with(credentials, message)))?;
        Ok(Self {
            client,
            stream: response.into_inner(),
            cursor: cursor.to_owned(),
        })
    }

    /// The changes of the next answer.
    pub fn next(&mut self) -> Result<Vec<StatusChange>, Status> {
        let next = async { tokio::time::timeout(PATIENCE, self.stream.message()).await };
        let answer = self.client.block_on(next).expect("no answer");
        let answer = answer?.expect("a stream ends with a status");
        assert!(answer.changes.len() <= 100);
        self.cursor = answer.cursor;
        Ok(answer.changes)
    }

    /// The next changes, so many.
    fn changes(&mut self, count: usize) -> Vec<StatusChange> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.extend(self.next().unwrap());
        }
        assert_eq!(changes.len(), count);
        changes
    }

    /// Why the stream ends.
    fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next() {
                return status;
            }
        }
    }
}

/// Sets the status of the sample's customer.
pub fn set(client: &Client, status: S) {
    let message = UpdateStatusRequest {
        email: EMAIL.to_owned(),
        status: status.into(),
        ..UpdateStatusRequest::default()
    };
    client
        .block_on(generated(client).update_status(with(CREDENTIALS, message)))
        .unwrap();
}

fn versions(changes: &[StatusChange]) -> Vec<i64> {
    changes.iter().map(|change| change.version).collect()
}

/// So many customers in a file.
fn csv(customers: usize) -> String {
    let mut csv = String::from("email\n");
    for number in 0..customers {
        writeln!(csv, "c{number:05}@example.com").unwrap();
    }
    csv
}

#[test]
fn a_stream_replays_from_the_start_and_follows() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        set(&client, S::Pass);
        let mut watching = Watching::begin(&client, "", false).unwrap();
        let replayed = watching.changes(2);
        let summary: Vec<_> = replayed
            .iter()
            .map(|change| {
                (
                    (change.version, change.from_status(), change.to_status()),
                    (&*change.email, &*change.reference, &*change.account),
                    (&*change.actor, change.face(), change.erased),
                )
            })
            .collect();
        let customer = ("Test@veratad.com", "888888812", "USERNAME");
        assert_eq!(
            summary,
            [
                (
                    (1, S::Unspecified, S::Pending),
                    customer,
                    ("operator", proto::v1::Face::Cli, false)
                ),
                (
                    (2, S::Pending, S::Pass),
                    customer,
                    ("USERNAME", proto::v1::Face::Grpc, false)
                ),
            ],
            "{backend}"
        );
        assert_eq!(replayed[0].customer_id, replayed[1].customer_id);
        assert!(replayed[0].sequence < replayed[1].sequence);
        assert!(
            replayed
                .iter()
                .all(|change| change.change_time.is_some() && !change.request_id.is_empty())
        );

        for (version, status) in (3..).zip([S::Fail, S::Pending, S::Pass]) {
            set(&client, status);
            let change = watching.changes(1).remove(0);
            assert_eq!((change.version, change.to_status()), (version, status), "{backend}");
        }
    }
}

#[test]
fn a_stream_goes_on_behind_its_cursor_or_with_what_is_new() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let mut first = Watching::begin(&client, "", false).unwrap();
        assert_eq!(versions(&first.changes(1)), [1]);
        let behind_one = first.cursor.clone();
        set(&client, S::Pass);
        set(&client, S::Fail);
        // On PostgreSQL, other tests' transactions may hold them back for a while; what is held back counts as new.
        assert_eq!(versions(&first.changes(2)), [2, 3]);
        // What comes at once of a stream with only new changes is its cursor.
        let mut new = Watching::begin(&client, "", true).unwrap();
        assert_eq!(new.next().unwrap(), [], "{backend}");
        let begun = new.cursor.clone();
        set(&client, S::Pending);
        assert_eq!(versions(&new.changes(1)), [4], "{backend}");

        let mut resumed = Watching::begin(&client, &behind_one, false).unwrap();
        assert_eq!(versions(&resumed.changes(3)), [2, 3, 4], "{backend}");
        let mut resumed = Watching::begin(&client, &begun, false).unwrap();
        assert_eq!(versions(&resumed.changes(1)), [4], "{backend}");
        // A cursor says where to begin, whatever else does.
        let mut resumed = Watching::begin(&client, &new.cursor, true).unwrap();
        set(&client, S::Pass);
        assert_eq!(versions(&resumed.changes(1)), [5], "{backend}");
    }
}

#[test]
fn an_account_sees_its_own_changes_only_and_an_erasure_takes_the_address_out() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        served.database.create_account("other", "PASSWORD");
        served.database.import("other", &csv(3));
        let mut watching = Watching::begin(&client, "", false).unwrap();
        assert_eq!(versions(&watching.changes(1)), [1]);
        let mut other = Watching::begin_as(&client, "other:PASSWORD", "", false).unwrap();
        let emails: Vec<_> = other.changes(3).into_iter().map(|change| change.email).collect();
        assert_eq!(
            emails,
            ["c00000@example.com", "c00001@example.com", "c00002@example.com"]
        );

        let erase = ["customer", "erase", "c00001@example.com", "--account", "other", "--yes"];
        dcams(&served.database, &erase, "").ok();
        let mut again = Watching::begin_as(&client, "other:PASSWORD", "", false).unwrap();
        let replayed = again.next().unwrap();
        assert_eq!(replayed[1].email, "", "{backend}");
        assert_eq!(
            replayed[1].customer_id.len(),
            replayed[0].customer_id.len(),
            "{backend}"
        );
    }
}

#[test]
fn a_stream_with_nothing_to_send_has_a_heartbeat_with_the_cursor() {
    for backend in Backend::BOTH {
        let (served, client) = served_with(backend, &["--heartbeat", "1s"]);
        let mut watching = Watching::begin(&client, "", false).unwrap();
        watching.changes(1);
        let cursor = watching.cursor.clone();
        for _ in 0..2 {
            assert_eq!(watching.next().unwrap(), []);
            assert_eq!(watching.cursor, cursor, "{backend}");
        }
        set(&client, S::Pass);
        assert_eq!(versions(&watching.changes(1)), [2], "{backend}");
        let metrics = served.gateway.get("/metrics");
        let value = |name: &str| {
            let line = metrics
                .text()
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned();
            line.rsplit_once(' ').unwrap().1.to_owned()
        };
        assert_eq!(value("dcams_feed_streams "), "1");
        assert_eq!(value("dcams_feed_changes_sent_total "), "2");
        // The first was replayed.
        assert_eq!(value("dcams_feed_lag_seconds_count "), "1");
    }
}

#[test]
fn what_is_no_cursor_of_this_store_is_an_invalid_field() {
    let (foreign_gateway, foreign) = served(Backend::Sqlite);
    let mut watching = Watching::begin(&foreign, "", false).unwrap();
    watching.changes(1);
    let foreign = watching.cursor.clone();
    drop(foreign_gateway);
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let mut watching = Watching::begin(&client, "", false).unwrap();
        watching.changes(1);
        let cut = &watching.cursor[..watching.cursor.len() - 4];
        let long = format!("{}AAAA", watching.cursor);
        for cursor in [&*foreign, "nonsense", "!", cut, &long, &"A".repeat(10_000)] {
            let expected = Refused {
                fields: vec!["cursor"],
                ..Refused::new(Code::InvalidArgument, "INVALID_FIELD")
            };
            check(&Watching::begin(&client, cursor, false).err().unwrap(), &expected);
            // Whoever has no credentials is not told.
            let status = Watching::begin_as(&client, "USERNAME:wrong", cursor, false)
                .err()
                .unwrap();
            check(&status, &Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS"));
        }
    }
}

#[test]
fn a_stream_ends_when_its_credentials_do() {
    let expected = Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS");
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        for credentials in ["USERNAME:wrong", "nobody:PASSWORD"] {
            let status = Watching::begin_as(&client, credentials, "", false).err().unwrap();
            check(&status, &expected);
        }
        let mut watching = Watching::begin(&client, "", false).unwrap();
        watching.changes(1);
        let change = ["account", "set-password", "USERNAME", "--password-stdin"];
        dcams(&served.database, &change, "NEW").ok();
        check(&watching.end(), &expected);
        let mut watching = Watching::begin_as(&client, "USERNAME:NEW", &watching.cursor, true).unwrap();
        dcams(&served.database, &["account", "disable", "USERNAME"], "").ok();
        check(&watching.end(), &expected);
    }
}

#[test]
fn a_stream_ends_when_the_server_stops_which_does_not_wait_for_it() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let mut watching = Watching::begin(&client, "", false).unwrap();
        watching.changes(1);
        served.gateway.signal("TERM");
        let expected = Refused {
            retries: true,
            ..Refused::new(Code::Unavailable, "UNAVAILABLE")
        };
        check(&watching.end(), &expected);
        let stopped = served.gateway.stop();
        assert_eq!(stopped.code, 0);
        assert!(!stopped.err.contains("did not end in time"), "{}", stopped.err);

        // Another gateway on the store goes on where it was.
        let gateway = Gateway::start(&served.database, &[]);
        let client = Client::bare(gateway.grpc.unwrap());
        set(&client, S::Pass);
        let mut watching = Watching::begin(&client, &watching.cursor, false).unwrap();
        assert_eq!(versions(&watching.changes(1)), [2], "{backend}");
    }
}

#[test]
fn one_stream_too_many_is_refused_until_one_ends() {
    for backend in Backend::BOTH {
        let (_served, client) = served_with(backend, &["--streams", "2"]);
        let first = Watching::begin(&client, "", false).unwrap();
        let mut second = Watching::begin(&client, "", false).unwrap();
        let expected = Refused {
            retries: true,
            ..Refused::new(Code::ResourceExhausted, "UNAVAILABLE")
        };
        check(&Watching::begin(&client, "", false).err().unwrap(), &expected);
        drop(first);
        let mut third = until("the place of a stream that was left", || {
            Watching::begin(&client, "", false).ok()
        });
        for watching in [&mut second, &mut third] {
            assert_eq!(versions(&watching.changes(1)), [1], "{backend}");
        }
    }
}

#[test]
fn a_consumer_that_does_not_read_is_left_with_the_cursor_to_go_on_from() {
    const CUSTOMERS: usize = 6_000;

    for backend in Backend::BOTH {
        let (served, client) = served_with(backend, &["--slow-consumer", "1s"]);
        served.database.import("USERNAME", &csv(CUSTOMERS));
        let narrow = Client::with_window(served.gateway.grpc.unwrap(), Some(65_535));
        let mut watching = Watching::begin(&narrow, "", false).unwrap();
        let mut seen = watching.next().unwrap();
        eventually("the stream is given up", || {
            served.gateway.get("/metrics").text().contains("dcams_feed_streams 0\n")
        });
        // What was on its way still comes.
        let status = loop {
            match watching.next() {
                Ok(changes) => seen.extend(changes),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Aborted, "{backend}: {status:?}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.domain, &*info.reason), ("dcams.storage", "TOO_SLOW"));
        assert_eq!(info.metadata["cursor"], watching.cursor, "{backend}");
        assert!(seen.len() < CUSTOMERS, "{backend}");

        let mut resumed = Watching::begin(&client, &info.metadata["cursor"], false).unwrap();
        seen.extend(resumed.changes(CUSTOMERS + 1 - seen.len()));
        let customers: BTreeSet<_> = seen.iter().map(|change| &change.customer_id).collect();
        assert_eq!(customers.len(), CUSTOMERS + 1, "{backend}: each once");
    }
}

#[test]
fn a_stream_outlives_a_short_outage_of_the_store() {
    let (ground, database) = Ground::new(Backend::Postgres);
    prepare(&database);
    let gateway = Gateway::start(&database, &["--heartbeat", "1s"]);
    let client = Client::bare(gateway.grpc.unwrap());
    let mut watching = Watching::begin(&client, "", false).unwrap();
    watching.changes(1);
    let away = ground.take_away();
    // It goes on to live.
    assert_eq!(watching.next().unwrap(), []);
    away.bring_back();
    let set = ["customer", "set-status", EMAIL, "PASS", "--account", "USERNAME"];
    dcams(&database, &set, "").ok();
    assert_eq!(versions(&watching.changes(1)), [2]);
}
