//! The budget, and what a call is answered however it comes, with the service on a store of its own and clients in this
//! process.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use credentials::Credentials;
use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use http_body_util::{BodyExt, Full};
use proto::{
    AUTHENTICATED, Budget, Client, FACE, Hold, Reason, Refusal,
    v1::{
        CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, Documents, GetDocumentImagesRequest,
        GetDocumentImagesResponse, GetStatusRequest, UpdateStatusRequest, storage_service_client::StorageServiceClient,
    },
};
use secrecy::SecretString;
use store::{Migrate, Store};
use tempfile::TempDir;
use tonic::{Extensions, Request, Response, Status, body::Body, codec::CompressionEncoding};

use crate::{
    Edge, Settings,
    budget::{Counted, Held, Sizes, Taken},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The service with a budget of 2 MiB.
struct Served {
    client: StorageServiceClient<Edge>,
    /// The one that the facade has.
    near: Client,
    budget: Budget,
    dir: TempDir,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let location = format!("sqlite://{}", dir.path().join("dcams.db").display());
    let location = location.parse().unwrap();
    let store = Store::open(&location, Migrate::Auto, &store::Settings::default(), None).unwrap();
    let hash = credentials::hash(&SecretString::from("PASSWORD")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    store
        .create_account(&"USERNAME".parse().unwrap(), hash, deadline)
        .await
        .unwrap();
    let budget = Budget::new(2 * MIB);
    let settings = Settings {
        document_limit: MIB,
        budget: budget.clone(),
        ..Settings::default()
    };
    let credentials = Credentials::new(credentials::Settings::default());
    let service = crate::service(store, credentials, &settings);
    Served {
        near: service.client(),
        client: StorageServiceClient::new(service),
        budget,
        dir,
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let authorization = "Basic VVNFUk5BTUU6UEFTU1dPUkQ=".parse().unwrap();
    request.metadata_mut().insert("authorization", authorization);
    request
}

/// A customer with an image of that size, which is compressed very well.
fn with_image(bytes: usize) -> Request<CreateOrUpdateCustomerRequest> {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(bytes, 0);
    request(CreateOrUpdateCustomerRequest {
        email: "jane@example.com".to_owned(),
        documents: Some(Documents {
            front: image.into(),
            back: Bytes::new(),
        }),
        ..CreateOrUpdateCustomerRequest::default()
    })
}

impl Served {
    async fn put(
        &self,
        request: Request<CreateOrUpdateCustomerRequest>,
    ) -> Result<Response<CreateOrUpdateCustomerResponse>, Status> {
        self.client.clone().create_or_update_customer(request).await
    }

    async fn images(&self) -> Result<Response<GetDocumentImagesResponse>, Status> {
        let email = "jane@example.com".to_owned();
        let request = request(GetDocumentImagesRequest { email });
        self.client.clone().get_document_images(request).await
    }

    /// Takes all but so much.
    fn leave(&self, bytes: usize) -> Hold {
        self.budget.take(2 * MIB - bytes).unwrap()
    }

    /// Waits until all of the budget was given back.
    async fn all_is_given_back(&self) {
        let began = Instant::now();
        while self.budget.take(2 * MIB).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "something is never given back"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Why a call was refused; its answer would be personal data, which is not printed.
#[track_caller]
fn refusal<T>(result: Result<T, Status>) -> Refusal {
    Refusal::from(&result.err().unwrap())
}

/// Checks the refusal while the budget is spent.
#[track_caller]
fn assert_overloaded<T>(result: Result<T, Status>) {
    let refusal = refusal(result);
    assert_eq!(refusal.reason, Reason::Overloaded);
    assert!(refusal.retry_after.is_some());
}

#[tokio::test]
async fn a_large_request_takes_its_part_of_the_budget_and_gives_it_back() {
    let served = served().await;
    let most = served.leave(512 * KIB);
    assert_overloaded(served.put(with_image(MIB)).await);
    // What fits is served, and what is small needs none.
    served.put(with_image(500 * KIB)).await.unwrap();
    drop(most);
    served.all_is_given_back().await;
    let all = served.leave(0);
    served.put(with_image(60 * KIB)).await.unwrap();
    assert_overloaded(served.put(with_image(70 * KIB)).await);
    drop(all);
    served.put(with_image(MIB)).await.unwrap();
    served.all_is_given_back().await;
}

#[tokio::test]
async fn a_request_that_the_facade_has_counted_is_not_counted_again() {
    let served = served().await;
    let all = served.leave(0);
    let mut counted = with_image(MIB);
    counted.extensions_mut().insert(all);
    served.put(counted).await.unwrap();
    served.all_is_given_back().await;
}

#[tokio::test]
async fn a_compressed_request_counts_as_what_it_may_inflate_to() {
    let mut served = served().await;
    served.client = served.client.send_compressed(CompressionEncoding::Gzip);
    // The image is a kilobyte when it is compressed.
    served.put(with_image(MIB)).await.unwrap();
    served.all_is_given_back().await;
    let _most = served.leave(512 * KIB);
    assert_overloaded(served.put(with_image(MIB)).await);
}

#[tokio::test]
async fn a_write_holds_its_part_also_when_its_caller_is_gone() {
    let served = served().await;
    let file = served.dir.path().join("dcams.db").display().to_string();
    let mut blocking = SqliteConnection::establish(&file).unwrap();
    blocking.batch_execute("BEGIN IMMEDIATE").unwrap();
    let mut impatient = with_image(MIB);
    impatient.set_timeout(Duration::from_millis(500));
    assert_eq!(refusal(served.put(impatient).await).reason, Reason::DeadlineExceeded);
    assert!(served.budget.take(3 * MIB / 2).is_err());
    blocking.batch_execute("ROLLBACK").unwrap();
    served.all_is_given_back().await;
}

#[tokio::test]
async fn a_reply_with_images_holds_its_part_as_long_as_the_facade_does() {
    let served = served().await;
    served.put(with_image(MIB)).await.unwrap();
    served.all_is_given_back().await;
    let response = served.images().await.unwrap();
    assert!(response.extensions().get::<Hold>().is_some());
    assert_eq!(response.get_ref().documents.as_ref().unwrap().front.len(), MIB);
    assert!(served.budget.take(MIB + 1).is_err());
    drop(response);
    served.all_is_given_back().await;

    let _most = served.leave(MIB - 1);
    assert_overloaded(served.images().await);
    // Neither the size nor the images are told to whom they are not known.
    let mut guess = request(GetDocumentImagesRequest {
        email: "jane@example.com".to_owned(),
    });
    guess.metadata_mut().remove("authorization");
    let refused = served.client.clone().get_document_images(guess).await;
    assert_eq!(refusal(refused).reason, Reason::BadCredentials);
}

/// All that a caller gets of an answer.
fn told<T: PartialEq>(answer: Result<Response<T>, Status>) -> impl PartialEq {
    let (metadata, message, status) = match answer {
        Ok(response) => {
            let (metadata, message, _) = response.into_parts();
            (metadata, Some(message), None)
        }
        Err(status) => {
            let said = (status.code(), status.message().to_owned(), status.details().to_vec());
            (status.metadata().clone(), None, Some(said))
        }
    };
    (message, status, metadata.contains_key(AUTHENTICATED))
}

#[tokio::test]
async fn a_call_that_comes_as_a_message_is_answered_as_one_that_comes_as_bytes() {
    let served = served().await;
    served.put(with_image(KIB)).await.unwrap();
    let (mut far, near) = (served.client, served.near);

    let named = |email: &str| GetStatusRequest {
        email: email.to_owned(),
    };
    let asked = |email: &str| request(named(email));
    let mut of_the_facade = asked("jane@example.com");
    of_the_facade.metadata_mut().insert(FACE, "rest".parse().unwrap());
    let mut of_nobody = asked("jane@example.com");
    of_nobody.metadata_mut().remove("authorization");
    let mut too_late = asked("jane@example.com");
    too_late.metadata_mut().insert("grpc-timeout", "0n".parse().unwrap());
    let requests = [
        (asked("jane@example.com"), None),
        (of_the_facade, None),
        (asked("john@example.com"), Some(Reason::CustomerNotFound)),
        (asked("x"), Some(Reason::InvalidEmail)),
        (asked(""), Some(Reason::MissingInput)),
        (of_nobody, Some(Reason::BadCredentials)),
        (too_late, Some(Reason::DeadlineExceeded)),
    ];
    for (number, (request, reason)) in requests.into_iter().enumerate() {
        let same = Request::from_parts(
            request.metadata().clone(),
            Extensions::default(),
            request.get_ref().clone(),
        );
        let answer = far.get_status(same).await;
        let refused = answer.as_ref().err().map(|status| Refusal::from(status).reason);
        assert_eq!(refused, reason, "{number}");
        // A message has no `Debug`: it is personal data.
        assert!(told(near.get_status(request).await) == told(answer), "{number}");
    }

    let update = |status: i32| {
        request(UpdateStatusRequest {
            email: "jane@example.com".to_owned(),
            status,
            ..Default::default()
        })
    };
    near.update_status(update(1)).await.unwrap();
    for status in [1, 0, 17] {
        let answer = far.update_status(update(status)).await;
        assert!(
            told(near.update_status(update(status)).await) == told(answer),
            "{status}"
        );
    }
}

#[tokio::test]
async fn only_one_operation_takes_large_messages() {
    let served = served().await;
    let update = |email: String| {
        request(UpdateStatusRequest {
            email,
            status: 1,
            ..Default::default()
        })
    };
    let refused = served.client.clone().update_status(update("x".repeat(65 * KIB))).await;
    assert_eq!(refusal(refused).reason, Reason::BodyTooLarge);
    let refused = served.client.clone().update_status(update("x".repeat(63 * KIB))).await;
    assert_eq!(refusal(refused).reason, Reason::InvalidEmail);
    let refused = served.put(with_image(3 * MIB)).await;
    assert_eq!(refusal(refused).reason, Reason::BodyTooLarge);
    served.all_is_given_back().await;
}

#[tokio::test]
async fn a_call_that_goes_on_after_its_message_is_ended_at_the_limit() {
    let budget = Budget::new(MIB);
    let sizes = Sizes {
        free: 64 * KIB,
        most: 512 * KIB,
    };
    let taken = Taken::default();
    let endless = vec![0; 4 * MIB];
    let body = Body::new(Full::new(Bytes::from(endless)));
    let status = Counted::new(body, budget.clone(), sizes, taken)
        .collect()
        .await
        .unwrap_err();
    assert_eq!(Refusal::from(&status).reason, Reason::BodyTooLarge);
    budget.take(MIB).unwrap();
}

#[tokio::test]
async fn a_reply_is_sent_in_parts_and_holds_its_own_until_the_end() {
    let budget = Budget::new(MIB);
    let hold = budget.take(MIB).unwrap();
    let reply: Bytes = (0..=u8::MAX).cycle().take(300 * KIB).collect();
    let body = Body::new(Full::new(reply.clone()));
    let mut body = Body::new(Held::new(body, hold, Duration::from_secs(10)));
    let mut sent = Vec::new();
    while let Some(frame) = body.frame().await {
        let part = frame.unwrap().into_data().unwrap();
        assert!(part.len() <= 64 * KIB);
        assert!(budget.take(1).is_err());
        sent.extend_from_slice(&part);
    }
    assert_eq!(sent, reply);
    drop(body);
    budget.take(MIB).unwrap();
}

#[tokio::test]
async fn a_reply_that_nobody_takes_is_given_up() {
    const UNREAD: Duration = Duration::from_millis(50);
    let budget = Budget::new(MIB);
    let hold = budget.take(MIB).unwrap();
    let body = Body::new(Full::new(Bytes::from(vec![0; 300 * KIB])));
    let mut body = Body::new(Held::new(body, hold, UNREAD));
    body.frame().await.unwrap().unwrap();
    let began = Instant::now();
    while budget.take(MIB).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it is never given up");
        tokio::time::sleep(UNREAD / 10).await;
    }
    assert!(!http_body::Body::is_end_stream(&body), "cut off is not ended");
    assert!(body.frame().await.unwrap().is_err());
}
