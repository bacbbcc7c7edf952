//! Does the work of so many requests: `instructions CASE COUNT`. `.ci/instructions` counts what it costs.
//!
//! Without `grpc` and `store`: a build of those, with SQLite and OpenSSL, takes longer than CI has for this.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod service;

use std::{env, sync::Arc};

use axum::{Router, body::Body};
use http::{Request, Response, header::HeaderMap};
use http_body_util::{BodyExt, Full};
use prost::Message;
use proto::{
    Client,
    v1::{Customer, UpdateStatusResponse, storage_service_server::StorageServiceServer},
};
use service::Service;
use tonic::Status;
use tower::{ServiceExt, service_fn};

const USER: &str = "USERNAME";
const PASSWORD: &str = "PASSWORD";

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
    service::john("test@veratad.com", "888888812")
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

/// A service in this process, which looks only whether the credentials hold.
async fn served() -> Client {
    let service = Arc::new(Service::guarded(john(), USER, PASSWORD).await);
    proto::client(StorageServiceServer::from_arc(Arc::clone(&service))).near(service)
}
