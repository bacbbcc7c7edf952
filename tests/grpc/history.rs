//! `ListStatusChanges` and `GetStatusAt`, on both stores.

use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use tonic::{Code, Status};

use super::{
    client::{Answer, Client, Metadata},
    errors::{Refused, check},
    served,
};
use crate::support::{Backend, dcams};

const EMAIL: &str = "test@veratad.com";

/// A call with its fields; times are told in seconds and nanoseconds.
#[derive(Clone, Default)]
struct Call<'a> {
    texts: Vec<(&'a str, &'a str)>,
    times: Vec<(&'a str, (i64, i32))>,
    page_size: i32,
}

impl<'a> Call<'a> {
    fn of(email: &'a str) -> Self {
        Self {
            texts: vec![("email", email)],
            ..Self::default()
        }
    }

    fn with(mut self, name: &'a str, text: &'a str) -> Self {
        self.texts.push((name, text));
        self
    }

    fn at(mut self, name: &'a str, seconds: i64, nanos: i32) -> Self {
        self.times.push((name, (seconds, nanos)));
        self
    }

    fn pages(mut self, size: i32) -> Self {
        self.page_size = size;
        self
    }

    fn send(&self, client: &Client, method: &str) -> Result<Answer, Status> {
        self.send_as(client, method, "USERNAME:PASSWORD")
    }

    fn send_as(&self, client: &Client, method: &str, credentials: &str) -> Result<Answer, Status> {
        let mut message = client.request(method, &self.texts);
        for (name, (seconds, nanos)) in &self.times {
            let kind = client.pool.get_message_by_name("google.protobuf.Timestamp").unwrap();
            let mut time = DynamicMessage::new(kind);
            time.set_field_by_name("seconds", Value::I64(*seconds));
            time.set_field_by_name("nanos", Value::I32(*nanos));
            message.set_field_by_name(name, Value::Message(time));
        }
        if self.page_size != 0 {
            message.set_field_by_name("page_size", Value::I32(self.page_size));
        }
        client.call_with(method, message.encode_to_vec(), Metadata::of(credentials))
    }

    /// The changes of a page, and what asks for the next.
    #[track_caller]
    fn list(&self, client: &Client) -> (Vec<DynamicMessage>, String) {
        let answer = self.send(client, "ListStatusChanges").unwrap();
        let changes = answer.message.get_field_by_name("changes").unwrap();
        let changes = changes.as_list().unwrap().iter();
        let token = answer.message.get_field_by_name("next_page_token").unwrap();
        (
            changes.map(|change| change.as_message().unwrap().clone()).collect(),
            token.as_str().unwrap().to_owned(),
        )
    }
}

/// A field of a change, as text.
fn field(change: &DynamicMessage, name: &str) -> String {
    let descriptor = change.descriptor().get_field_by_name(name).unwrap();
    match (change.get_field(&descriptor).as_ref(), descriptor.kind().as_enum()) {
        (Value::String(text), _) => text.clone(),
        (Value::I64(number), _) => number.to_string(),
        (Value::Bool(is), _) => is.to_string(),
        (Value::EnumNumber(number), Some(names)) => names.get_value(*number).unwrap().name().to_owned(),
        (other, _) => panic!("{name} is {other:?}"),
    }
}

fn fields(changes: &[DynamicMessage], name: &str) -> Vec<String> {
    changes.iter().map(|change| field(change, name)).collect()
}

/// When a change was made.
fn time(change: &DynamicMessage) -> (i64, i32) {
    let time = change.get_field_by_name("change_time").unwrap();
    let time = time.as_message().unwrap();
    (
        time.get_field_by_name("seconds").unwrap().as_i64().unwrap(),
        time.get_field_by_name("nanos").unwrap().as_i32().unwrap(),
    )
}

fn set(client: &Client, status: &str) {
    let metadata = Metadata::of("USERNAME:PASSWORD").with("x-request-id", "order-7");
    let fields = [("email", EMAIL), ("status", status)];
    client.call("UpdateStatus", &fields, metadata).unwrap();
}

#[test]
fn changes_are_listed_with_all_that_is_known_of_them() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        set(&client, "STATUS_PASS");
        set(&client, "STATUS_PASS");
        set(&client, "STATUS_FAIL");
        let (changes, token) = Call::of(" TEST@veratad.com ").list(&client);
        assert_eq!(
            (changes.len(), &*token),
            (3, ""),
            "{backend}: the same again adds nothing"
        );
        assert_eq!(fields(&changes, "version"), ["1", "2", "3"]);
        assert_eq!(
            fields(&changes, "from_status"),
            ["STATUS_UNSPECIFIED", "STATUS_PENDING", "STATUS_PASS"]
        );
        assert_eq!(
            fields(&changes, "to_status"),
            ["STATUS_PENDING", "STATUS_PASS", "STATUS_FAIL"]
        );
        assert_eq!(fields(&changes, "actor"), ["operator", "USERNAME", "USERNAME"]);
        assert_eq!(fields(&changes, "face"), ["FACE_CLI", "FACE_GRPC", "FACE_GRPC"]);
        assert_eq!(fields(&changes, "request_id")[1..], ["order-7", "order-7"]);
        for change in &changes {
            for (name, value) in [
                ("email", "Test@veratad.com"),
                ("reference", "888888812"),
                ("account", "USERNAME"),
                ("reason", ""),
                ("erased", "false"),
            ] {
                assert_eq!(field(change, name), value, "{backend}: {name}");
            }
        }
        let id = field(&changes[0], "customer_id");
        assert_eq!(id.len(), 32);
        let by_id = Call::default().with("customer_id", &id);
        assert_eq!(by_id.list(&client).0, changes, "{backend}");
        assert_eq!(Call::default().list(&client).0, changes, "{backend}: the only customer");
    }
}

#[test]
fn pages_and_times_are_kept_to() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let statuses = ["STATUS_PASS", "STATUS_FAIL"];
        for number in 0..120 {
            set(&client, statuses[number % 2]);
        }
        served
            .database
            .session()
            .execute("UPDATE status_changes SET change_time = position * 1000000");
        for call in [Call::of(EMAIL), Call::default()] {
            let (first, token) = call.list(&client);
            assert_eq!(first.len(), 100, "{backend}: a page has 100 by itself");
            let (second, end) = call.clone().with("page_token", &token).list(&client);
            assert_eq!((second.len(), &*end), (21, ""), "{backend}");
            let all = [first, second].concat();
            assert_eq!(call.clone().pages(5_000).list(&client).0, all, "{backend}");
            assert_eq!(call.clone().pages(7).list(&client).0, all[..7], "{backend}");

            let (some, token) = call
                .clone()
                .at("start_time", 5, 0)
                .at("end_time", 15, 1)
                .pages(6)
                .list(&client);
            assert_eq!(some, all[4..10], "{backend}");
            let (rest, end) = call
                .clone()
                .at("start_time", 5, 0)
                .at("end_time", 15, 1)
                .pages(6)
                .with("page_token", &token)
                .list(&client);
            assert_eq!((&*rest, &*end), (&all[10..15], ""), "{backend}");
            let nothing = call.clone().at("start_time", 9, 0).at("end_time", 9, 0).list(&client);
            assert_eq!(nothing, (Vec::new(), String::new()), "{backend}");
        }
    }
}

#[test]
fn a_status_at_a_time_is_told_with_the_change_that_had_set_it() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        set(&client, "STATUS_PASS");
        set(&client, "STATUS_FAIL");
        let (changes, _) = Call::of(EMAIL).list(&client);
        let at = |(seconds, nanos)| Call::of(EMAIL).at("time", seconds, nanos).send(&client, "GetStatusAt");
        for change in &changes {
            let answer = at(time(change)).unwrap();
            let status = answer.message.get_field_by_name("status").unwrap().as_enum_number();
            let change_of = answer.message.get_field_by_name("change").unwrap();
            assert_eq!(change_of.as_message().unwrap(), change, "{backend}");
            let to = change.get_field_by_name("to_status").unwrap().as_enum_number();
            assert_eq!(status, to, "{backend}");
        }
        let (seconds, _) = time(&changes[0]);
        for early in [(seconds - 10, 0), (0, 0), (-62_135_596_800, 0)] {
            let expected = Refused {
                resource: Some("dcams.storage.v1.Customer"),
                ..Refused::new(Code::NotFound, "CUSTOMER_NOT_FOUND")
            };
            check(&at(early).unwrap_err(), &expected);
        }
        let last = at((253_402_300_799, 999_999_999)).unwrap();
        let change = last.message.get_field_by_name("change").unwrap();
        assert_eq!(field(change.as_message().unwrap(), "version"), "3", "{backend}");
    }
}

#[test]
fn faulty_input_is_named_by_its_field() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        set(&client, "STATUS_PASS");
        let (_, token) = Call::of(EMAIL).pages(1).list(&client);
        assert_ne!(token, "");
        let long = "x".repeat(65);
        let list = "ListStatusChanges";
        let at = "GetStatusAt";
        for (method, call, reason, at_fault) in [
            (list, Call::of("nonsense"), "INVALID_EMAIL", &["email"][..]),
            (
                list,
                Call::of(EMAIL).with("customer_id", "x"),
                "INVALID_FIELD",
                &["customer_id"],
            ),
            (
                list,
                Call::default().with("customer_id", &long),
                "INVALID_FIELD",
                &["customer_id"],
            ),
            (list, Call::of(EMAIL).pages(-1), "INVALID_FIELD", &["page_size"]),
            (
                list,
                Call::of(EMAIL).at("start_time", 0, -1),
                "INVALID_FIELD",
                &["start_time"],
            ),
            (
                list,
                Call::of(EMAIL).at("end_time", 253_402_300_800, 0),
                "INVALID_FIELD",
                &["end_time"],
            ),
            (
                list,
                Call::of(EMAIL).with("page_token", "nonsense"),
                "INVALID_FIELD",
                &["page_token"],
            ),
            // Of another query.
            (
                list,
                Call::default().with("page_token", &token),
                "INVALID_FIELD",
                &["page_token"],
            ),
            (
                list,
                Call::of(EMAIL).at("start_time", 1, 0).with("page_token", &token),
                "INVALID_FIELD",
                &["page_token"],
            ),
            (at, Call::default(), "MISSING_INPUT", &["email", "time"]),
            (at, Call::of(EMAIL), "MISSING_INPUT", &["time"]),
            (
                at,
                Call::of(EMAIL).at("time", 0, 1_000_000_000),
                "INVALID_FIELD",
                &["time"],
            ),
        ] {
            let status = call.send(&client, method).unwrap_err();
            let expected = Refused {
                fields: at_fault.to_vec(),
                ..Refused::new(Code::InvalidArgument, reason)
            };
            check(&status, &expected);
            // Nothing is learnt without credentials.
            let status = call.send_as(&client, method, "USERNAME:wrong").unwrap_err();
            check(&status, &Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS"));
        }
        let nobody = Refused {
            resource: Some("dcams.storage.v1.Customer"),
            ..Refused::new(Code::NotFound, "CUSTOMER_NOT_FOUND")
        };
        let unknown = Call::of("nobody@veratad.com");
        check(&unknown.send(&client, list).unwrap_err(), &nobody);
        check(&unknown.at("time", 1, 0).send(&client, at).unwrap_err(), &nobody);
        let unknown = Call::default().with("customer_id", "00000000000000000000000000000000");
        check(&unknown.send(&client, list).unwrap_err(), &nobody);
    }
}

#[test]
fn an_erased_customer_has_a_history_and_no_address() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        set(&client, "STATUS_PASS");
        let (before, _) = Call::of(EMAIL).list(&client);
        let id = field(&before[0], "customer_id");
        dcams(
            &served.database,
            &["customer", "erase", EMAIL, "--yes", "--account", "USERNAME"],
            "",
        )
        .ok();
        for call in [Call::default(), Call::default().with("customer_id", &id)] {
            let (after, _) = call.list(&client);
            assert_eq!(fields(&after[..2], "version"), ["1", "2"], "{backend}");
            assert!(fields(&after, "email").iter().all(String::is_empty), "{backend}");
            assert!(fields(&after, "reference").iter().all(String::is_empty), "{backend}");
            assert!(
                fields(&after[2..], "erased").iter().all(|erased| erased == "true"),
                "{backend}"
            );
        }
        let by_email = Call::of(EMAIL).send(&client, "ListStatusChanges").unwrap_err();
        assert_eq!(by_email.code(), Code::NotFound, "{backend}");
    }
}
