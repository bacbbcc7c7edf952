//! API tokens: what each is good for, that it stops at once, and what is told of it.

use proto::v1::{
    CreateOrUpdateCustomerRequest, Documents, EraseCustomerRequest, GetDocumentImagesRequest, GetStatusAtRequest,
    GetStatusRequest, ListStatusChangesRequest, Status as S, StatusChange, UpdateStatusRequest,
    WatchStatusChangesRequest,
};
use tonic::{Code, Request, Status};

use super::{
    client::Client,
    errors::{Refused, check},
    feed::{generated, with},
    prepare, served, served_with,
};
use crate::support::{Backend, Database, Gateway, dcams, eventually, until};

const EMAIL: &str = "test@veratad.com";
const CREDENTIALS: &str = "USERNAME:PASSWORD";

/// Makes a token, and gives its id and all of it.
pub fn token(database: &Database, arguments: &[&str]) -> (String, String) {
    let create = [&["account", "token", "create", "USERNAME"], arguments].concat();
    let out = dcams(database, &create, "").ok();
    let token = out.lines().find_map(|line| line.strip_prefix("token: ")).unwrap();
    let id = token.split('_').nth(1).unwrap();
    assert!(
        out.contains(&format!("token {id} of account USERNAME created")),
        "{out}"
    );
    (id.to_owned(), token.to_owned())
}

/// A request with a token.
pub fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn get(client: &Client, token: &str) -> Result<(), Status> {
    let message = GetStatusRequest {
        email: EMAIL.to_owned(),
    };
    client
        .block_on(generated(client).get_status(bearing(token, message)))
        .map(drop)
}

fn set(client: &Client, token: &str, status: S) -> Result<(), Status> {
    let message = UpdateStatusRequest {
        email: EMAIL.to_owned(),
        status: status.into(),
        ..UpdateStatusRequest::default()
    };
    client
        .block_on(generated(client).update_status(bearing(token, message)))
        .map(drop)
}

/// Does what an operation is asked for, and tells how it ended.
type Operation = fn(&Client, &str) -> Result<(), Status>;

/// Every operation, and the scopes of which it needs all.
const OPERATIONS: [(&str, &[&str], Operation); 11] = [
    ("GetStatus", &["read"], get),
    ("GetStatusAt", &["read"], |client, token| {
        let message = GetStatusAtRequest {
            email: EMAIL.to_owned(),
            time: Some(std::time::SystemTime::now().into()),
        };
        client
            .block_on(generated(client).get_status_at(bearing(token, message)))
            .map(drop)
    }),
    ("ListStatusChanges", &["read"], |client, token| {
        let message = ListStatusChangesRequest::default();
        client
            .block_on(generated(client).list_status_changes(bearing(token, message)))
            .map(drop)
    }),
    ("WatchStatusChanges", &["read"], |client, token| {
        let message = WatchStatusChangesRequest::default();
        client.block_on(async {
            let answer = generated(client).watch_status_changes(bearing(token, message)).await?;
            answer.into_inner().message().await.map(drop)
        })
    }),
    ("UpdateStatus", &["write"], |client, token| set(client, token, S::Pass)),
    ("CreateOrUpdateCustomer", &["write"], |client, token| {
        put(client, token, CreateOrUpdateCustomerRequest::default())
    }),
    (
        "CreateOrUpdateCustomer of an image",
        &["write", "documents"],
        |client, token| {
            put(
                client,
                token,
                CreateOrUpdateCustomerRequest {
                    documents: Some(Documents {
                        front: b"%PDF-1.7".as_slice().into(),
                        ..Documents::default()
                    }),
                    ..CreateOrUpdateCustomerRequest::default()
                },
            )
        },
    ),
    (
        "CreateOrUpdateCustomer that clears images",
        &["write", "documents"],
        |client, token| put(client, token, masked("documents")),
    ),
    (
        "CreateOrUpdateCustomer of an image that is not asked for",
        &["write"],
        |client, token| {
            put(
                client,
                token,
                CreateOrUpdateCustomerRequest {
                    documents: Some(Documents {
                        back: b"%PDF-1.7".as_slice().into(),
                        ..Documents::default()
                    }),
                    ..masked("city")
                },
            )
        },
    ),
    ("GetDocumentImages", &["documents"], |client, token| {
        let message = GetDocumentImagesRequest {
            email: EMAIL.to_owned(),
        };
        client
            .block_on(generated(client).get_document_images(bearing(token, message)))
            .map(drop)
    }),
    ("EraseCustomer", &["admin"], |client, token| {
        let message = EraseCustomerRequest {
            email: EMAIL.to_owned(),
            ..EraseCustomerRequest::default()
        };
        client
            .block_on(generated(client).erase_customer(bearing(token, message)))
            .map(drop)
    }),
];

fn masked(path: &str) -> CreateOrUpdateCustomerRequest {
    CreateOrUpdateCustomerRequest {
        field_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..CreateOrUpdateCustomerRequest::default()
    }
}

fn put(client: &Client, token: &str, message: CreateOrUpdateCustomerRequest) -> Result<(), Status> {
    let message = CreateOrUpdateCustomerRequest {
        email: EMAIL.to_owned(),
        ..message
    };
    client
        .block_on(generated(client).create_or_update_customer(bearing(token, message)))
        .map(drop)
}

fn permission_denied() -> Refused<'static> {
    Refused::new(Code::PermissionDenied, "PERMISSION_DENIED")
}

fn bad_credentials() -> Refused<'static> {
    Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS")
}

/// The history of the customer.
fn history(client: &Client) -> Vec<StatusChange> {
    let message = with(CREDENTIALS, ListStatusChangesRequest::default());
    let list = client.block_on(generated(client).list_status_changes(message));
    list.unwrap().into_inner().changes
}

#[test]
fn each_operation_needs_its_scopes_and_no_others() {
    const SCOPES: [&str; 4] = ["read", "write", "documents", "admin"];
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        // Every set of scopes but the empty one.
        for set in 1_u32..16 {
            let scopes: Vec<_> = (0..4).filter(|at| set & 1 << at != 0).map(|at| SCOPES[at]).collect();
            let (_, token) = token(&served.database, &["--scope", &scopes.join(",")]);
            // The last one erases the customer.
            for (operation, needed, call) in OPERATIONS {
                let result = call(&client, &token);
                if needed.iter().all(|scope| scopes.contains(scope)) {
                    assert!(result.is_ok(), "{backend}: {operation} by {scopes:?}: {result:?}");
                } else {
                    check(&result.unwrap_err(), &permission_denied());
                }
            }
            if scopes.contains(&"admin") {
                served.database.import("USERNAME", &format!("email\n{EMAIL}\n"));
            }
        }
    }
}

#[test]
fn a_scope_is_missed_before_the_input_is_judged_and_after_the_token_is() {
    let (served, client) = served(Backend::Sqlite);
    let (id, reads) = token(&served.database, &["--scope", "read"]);
    let faulty = |token: &str| {
        let message = UpdateStatusRequest::default();
        client
            .block_on(generated(&client).update_status(bearing(token, message)))
            .map(drop)
            .unwrap_err()
    };
    check(&faulty(&reads), &permission_denied());
    dcams(&served.database, &["account", "token", "revoke", &id], "").ok();
    check(&faulty(&reads), &bad_credentials());
}

#[test]
fn a_token_that_no_longer_counts_is_refused_on_the_next_request_of_every_gateway() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let second = Gateway::start(&served.database, &[]);
        let clients = [client, Client::connect(second.grpc.unwrap())];
        let (id, one) = token(&served.database, &["--scope", "read,write"]);
        let (_, other) = token(&served.database, &["--scope", "read,write"]);
        let accepts = |token: &str, when: &str| {
            for client in &clients {
                for result in [get(client, token), set(client, token, S::Pass)] {
                    assert!(result.is_ok(), "{backend}: {when}: {result:?}");
                }
            }
        };
        let refuses = |token: &str| {
            for client in &clients {
                for status in [get(client, token), set(client, token, S::Fail)].map(Result::unwrap_err) {
                    check(&status, &bad_credentials());
                    assert!(status.message().contains("revoked or expired"), "{status:?}");
                }
            }
        };
        accepts(&one, "at first");
        accepts(&other, "at first");
        dcams(&served.database, &["account", "token", "revoke", &id], "").ok();
        refuses(&one);
        accepts(&other, "after another was revoked");

        dcams(&served.database, &["account", "disable", "USERNAME"], "").ok();
        refuses(&other);
        dcams(&served.database, &["account", "enable", "USERNAME"], "").ok();
        accepts(&other, "enabled again");
        refuses(&one);
        // A password is none of a token's business.
        let set_password = ["account", "set-password", "USERNAME", "--password-stdin"];
        dcams(&served.database, &set_password, "another").ok();
        accepts(&other, "with another password");
    }
}

#[test]
fn a_token_expires_while_it_is_remembered() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let new_token = token;
        let (_, token) = new_token(&served.database, &["--scope", "read,write", "--expires", "1h"]);
        let stays = get(&client, &token);
        assert!(stays.is_ok(), "{backend}: {stays:?}");
        let (id, short) = new_token(&served.database, &["--scope", "read,write", "--expires", "2s"]);
        // It may have expired already, on a machine that is busy. Once it is refused, it stays so.
        eventually("the token expires", || get(&client, &short).is_err());
        check(&get(&client, &short).unwrap_err(), &bad_credentials());
        check(&set(&client, &short, S::Fail).unwrap_err(), &bad_credentials());
        let list = dcams(&served.database, &["account", "token", "list", "USERNAME"], "").ok();
        assert!(
            list.lines().any(|line| line.starts_with(&format!("{id} expired"))),
            "{list}"
        );
    }
}

#[test]
fn the_history_names_the_account_and_the_token() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let (id, token) = token(&served.database, &["--scope", "read,write,admin"]);
        set(&client, &token, S::Pass).unwrap();
        let message = EraseCustomerRequest {
            email: EMAIL.to_owned(),
            ..EraseCustomerRequest::default()
        };
        client
            .block_on(generated(&client).erase_customer(bearing(&token, message)))
            .unwrap();
        let changes = history(&client);
        assert_eq!(changes.len(), 3, "{backend}");
        for change in &changes[1..] {
            assert_eq!(change.actor, format!("USERNAME/{id}"), "{backend}");
            assert_eq!(change.account, "USERNAME", "{backend}");
        }
        // The same as the token is told it.
        let message = bearing(&token, ListStatusChangesRequest::default());
        let list = client.block_on(generated(&client).list_status_changes(message));
        assert!(list.unwrap().into_inner().changes == changes, "{backend}");
    }
}

#[test]
fn a_stream_goes_on_when_another_token_is_revoked_and_ends_when_its_own_is() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let (first, one) = token(&served.database, &["--scope", "read"]);
        let (second, other) = token(&served.database, &["--scope", "read"]);
        let watch = |request: Request<WatchStatusChangesRequest>| {
            client
                .block_on(generated(&client).watch_status_changes(request))
                .unwrap()
                .into_inner()
        };
        let message = || WatchStatusChangesRequest::default();
        let mut streams = [
            watch(bearing(&one, message())),
            watch(bearing(&other, message())),
            watch(with(CREDENTIALS, message())),
        ];
        for stream in &mut streams {
            client.block_on(stream.message()).unwrap().unwrap();
        }
        dcams(&served.database, &["account", "token", "revoke", &first], "").ok();
        let [mine, others @ ..] = &mut streams;
        check(
            &client.block_on(mine.message()).map(drop).unwrap_err(),
            &bad_credentials(),
        );
        super::update(&client).unwrap();
        for stream in others {
            let answer = client.block_on(stream.message()).unwrap().unwrap();
            assert_eq!(answer.changes.len(), 1, "{backend}");
        }
        dcams(&served.database, &["account", "token", "revoke", &second], "").ok();
        let end = client.block_on(streams[1].message()).map(drop).unwrap_err();
        check(&end, &bad_credentials());
    }
}

#[test]
fn strange_tokens_are_slowed_down_at_their_address_and_lock_nobody_out() {
    for backend in Backend::BOTH {
        let (served, client) = served_with(backend, &["--trusted-proxy", "127.0.0.1"]);
        let (_, known) = token(&served.database, &["--scope", "read"]);
        let (_, new) = token(&served.database, &["--scope", "read"]);
        let from = |address: &str, token: &str| {
            let message = GetStatusRequest {
                email: EMAIL.to_owned(),
            };
            let mut request = bearing(token, message);
            request
                .metadata_mut()
                .insert("x-forwarded-for", address.parse().unwrap());
            client.block_on(generated(&client).get_status(request)).map(drop)
        };
        let (here, elsewhere) = ("192.0.2.1", "198.51.100.1");
        from(here, &known).unwrap();
        let strange = |number: u64| format!("dcams_{number:016x}_{number:064x}");
        for number in 0..10 {
            check(&from(here, &strange(number)).unwrap_err(), &bad_credentials());
        }
        let throttled = Refused {
            retries: true,
            ..Refused::new(Code::ResourceExhausted, "THROTTLED")
        };
        check(&from(here, &strange(10)).unwrap_err(), &throttled);
        check(&from(here, &new).unwrap_err(), &throttled);
        // Neither a token that is in use there, nor a password, nor anybody elsewhere.
        from(here, &known).unwrap();
        from(elsewhere, &new).unwrap();
        super::update(&client).unwrap();
        // Also when it has to be looked up again.
        let (id, _) = token(&served.database, &["--scope", "read"]);
        dcams(&served.database, &["account", "token", "revoke", &id], "").ok();
        from(here, &known).unwrap();
    }
}

#[test]
fn what_has_not_the_form_of_a_token_is_refused() {
    let (served, client) = served(Backend::Sqlite);
    let (_, token) = token(&served.database, &["--scope", "read"]);
    let with = |value: &str| {
        let message = GetStatusRequest {
            email: EMAIL.to_owned(),
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        client.block_on(generated(&client).get_status(request)).map(drop)
    };
    for good in [
        format!("Bearer {token}"),
        format!("bEARER   {token}"),
        format!("bearer {token} "),
    ] {
        with(&good).unwrap();
    }
    let upper = token.to_uppercase();
    for bad in [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer{token}"),
        format!("Bearer {upper}"),
        format!("Bearer {}", &token[..86]),
        format!("Bearer {token}0"),
        format!("Basic {token}"),
        format!("Token {token}"),
        token.clone(),
    ] {
        check(&with(&bad).unwrap_err(), &bad_credentials());
    }
}

#[test]
fn the_last_use_of_a_token_is_told() {
    for backend in Backend::BOTH {
        let database = backend.database();
        prepare(&database);
        let (id, token) = token(&database, &["--scope", "read"]);
        let line = || {
            let list = dcams(&database, &["account", "token", "list", "USERNAME"], "").ok();
            let line = list.lines().find(|line| line.starts_with(&id)).map(str::to_owned);
            line.unwrap_or_else(|| panic!("{list}"))
        };
        assert!(line().contains("used never"), "{backend}: {}", line());
        let gateway = Gateway::start(&database, &[]);
        let client = Client::connect(gateway.grpc.unwrap());
        get(&client, &token).unwrap();
        let used = until("its use is noted", || {
            Some(line()).filter(|line| !line.contains("used never"))
        });
        let created = used.split("created ").nth(1).unwrap().split(' ').next().unwrap();
        let used = used.split("used ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(used >= created, "{backend}: {used} and {created}");
    }
}
