//! Does the work of so many requests: `instructions CASE COUNT`. `.ci/instructions` counts what it costs.
//!
//! Without `grpc` and `store`: a build of those, with SQLite and OpenSSL, takes longer than CI has for this.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
};

use axum::{Router, body::Body};
use base64::{Engine, prelude::BASE64_STANDARD};
use credentials::{Account, Credentials, Settings};
use http::{Request, Response, header::HeaderMap};
use http_body_util::{BodyExt, Full};
use prost::Message;
use proto::{
    Client, Reason,
    v1::{
        CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, Customer, EraseCustomerRequest,
        EraseCustomerResponse, GetDocumentImagesRequest, GetDocumentImagesResponse, GetStatusAtRequest,
        GetStatusAtResponse, GetStatusRequest, GetStatusResponse, ListStatusChangesRequest, ListStatusChangesResponse,
        UpdateStatusRequest, UpdateStatusResponse, WatchStatusChangesRequest, WatchStatusChangesResponse,
        storage_service_server::{StorageService, StorageServiceServer},
    },
};
use secrecy::SecretString;
use tonic::{Status, codegen::BoxStream};
use tower::{ServiceExt, service_fn};

const USER: &str = "USERNAME";
const PASSWORD: &str = "PASSWORD";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn main() {
    let mut arguments = env::args().skip(1);
    let case = arguments.next().expect("a case");
    let count: u32 = arguments.next().and_then(|count| count.parse().ok()).expect("a count");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = match &*case {
            "translation" => canned(),
            "call" => served().await,
            other => panic!("there is no case {other}"),
        };
        let facade = rest::router(
            client,
            proto::Gate::default(),
            rest::Settings::default(),
            proto::Budget::default(),
            proto::Telemetry::default(),
        );
        for _ in 0..count {
            ask(&facade).await;
        }
    });
}

/// Posts the sample of the vendor's documentation, and takes the reply.
async fn ask(facade: &Router) {
    let request = Request::post(rest::PATHS[0])
        .header("content-type", "application/json")
        .body(Body::from(rest::SAMPLE))
        .unwrap();
    let response = facade.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(br#"{"result":"Success","reference":"888888812","target":{"fn":"John""#));
}

fn john() -> Customer {
    Customer {
        email: "test@veratad.com".to_owned(),
        first_name: "John".to_owned(),
        last_name: "Smith".to_owned(),
        address: "123 Main St".to_owned(),
        city: "Stratford".to_owned(),
        state: "CT".to_owned(),
        zip: "06614".to_owned(),
        date_of_birth: "19700101".to_owned(),
        phone: "2015106000".to_owned(),
        reference: "888888812".to_owned(),
        status: proto::v1::Status::Pass.into(),
        etag: "0123abcd-7".to_owned(),
        ..Customer::default()
    }
}

/// A service that is bytes: what is counted is the facade, and its client.
fn canned() -> Client {
    let message = UpdateStatusResponse { customer: Some(john()) }.encode_to_vec();
    let head = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat();
    let answer = [head, message].concat();
    proto::client(service_fn(move |request: Request<tonic::body::Body>| {
        let answer = answer.clone();
        async move {
            request.into_body().collect().await?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let body = Full::from(answer).with_trailers(async move { Some(Ok(trailers)) });
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Status>(response.body(tonic::body::Body::new(body)).unwrap())
        }
    }))
}

/// The generated server in this process, before a service that looks only whether the credentials hold.
async fn served() -> Client {
    let credentials = Credentials::new(Settings::default());
    let password = SecretString::from(PASSWORD);
    let account = Account {
        id: 1,
        version: 1,
        hash: credentials::hash(&password).unwrap(),
        enabled: true,
    };
    credentials.verify(USER, &password, HERE, Some(account)).await.unwrap();
    proto::client(StorageServiceServer::new(Service(credentials)))
}

struct Service(Credentials);

type Answer<T> = Result<tonic::Response<T>, Status>;

/// What no request here asks for.
macro_rules! unused {
    ($($name:ident: $request:ty => $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl StorageService for Service {
            type WatchStatusChangesStream = BoxStream<WatchStatusChangesResponse>;

            async fn update_status(&self, request: tonic::Request<UpdateStatusRequest>) -> Answer<UpdateStatusResponse> {
                let header = request.metadata().get("authorization").expect("there are credentials").as_bytes();
                let decoded = BASE64_STANDARD.decode(&header["Basic ".len()..]).unwrap();
                let decoded = String::from_utf8(decoded).unwrap();
                let (user, password) = decoded.split_once(':').unwrap();
                match self.0.remembered(user, &SecretString::from(password), HERE) {
                    Ok(Some(_)) => Ok(UpdateStatusResponse { customer: Some(john()) }.into()),
                    _ => Err(Reason::BadCredentials.into()),
                }
            }

            $(async fn $name(&self, _: tonic::Request<$request>) -> Answer<$response> {
                Err(Reason::Internal.into())
            })*
        }
    };
}

unused! {
    get_status: GetStatusRequest => GetStatusResponse,
    create_or_update_customer: CreateOrUpdateCustomerRequest => CreateOrUpdateCustomerResponse,
    get_document_images: GetDocumentImagesRequest => GetDocumentImagesResponse,
    erase_customer: EraseCustomerRequest => EraseCustomerResponse,
    list_status_changes: ListStatusChangesRequest => ListStatusChangesResponse,
    get_status_at: GetStatusAtRequest => GetStatusAtResponse,
    watch_status_changes: WatchStatusChangesRequest => Self::WatchStatusChangesStream,
}
