//! The gRPC face: who calls, what is asked, what the store says to it.
//!
//! | file | what it is for |
//! |---|---|
//! | `edge` | what every call passes first and last: request id, deadline, limits, metrics |
//! | `budget` | what large messages take of the budget of memory |
//! | `calls` | how many calls may be under way |
//! | `access` | who calls, by a password, a token or a certificate, and operations that need that |
//! | `rates` | how many requests an account may make |
//! | `update_status`, `get_status`, `create_or_update_customer`, `get_document_images`, `erase_customer` | an operation each: take apart, call the store, put together |
//! | `watch_status_changes` | the streams of the feed: how many, how fast, until when |
//! | `customer_link` | where people can look at a customer |
//! | `telemetry` | what is told of a call: numbers, a line in the log, a span |
//! | `convert` | the store's types and the contract's, both ways |
//! | `judged` | what is said of a call before anything is looked up |
//! | `health` | `grpc.health.v1`, which asks the store |

mod access;
mod budget;
mod calls;
mod convert;
mod create_or_update_customer;
mod customer_link;
mod edge;
mod erase_customer;
mod get_document_images;
mod get_status;
mod get_status_at;
mod health;
mod judged;
mod list_status_changes;
mod rates;
mod telemetry;
#[cfg(test)]
mod tests;
mod update_status;
mod watch_status_changes;

use std::{sync::Arc, time::Duration};

use credentials::Credentials;
use proto::{
    Budget, Call, Gate, Telemetry,
    v1::{
        CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, EraseCustomerRequest, EraseCustomerResponse,
        GetDocumentImagesRequest, GetDocumentImagesResponse, GetStatusAtRequest, GetStatusAtResponse, GetStatusRequest,
        GetStatusResponse, ListStatusChangesRequest, ListStatusChangesResponse, UpdateStatusRequest,
        UpdateStatusResponse, WatchStatusChangesRequest, storage_service_server::StorageService,
    },
};
use store::Store;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

use crate::{budget::Sizes, calls::Calls, rates::Rates, watch_status_changes::Streams};
pub use access::CertificateAccount;
pub use customer_link::{CustomerLink, InvalidLink};
pub use edge::Edge;
pub use health::Readiness;
pub use judged::{Judged, user};
pub use rates::Rate;
pub use watch_status_changes::{Retiring, StreamSettings};

/// Limits of the gRPC face.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most bytes of a message, after decompression. That of `CreateOrUpdateCustomer` may have two images as well.
    pub message_limit: usize,
    /// The most bytes of an image.
    pub document_limit: usize,
    /// What messages over `message_limit` take from, and replies with images. The other face of the process shares it.
    pub budget: Budget,
    /// Where people can look at a customer.
    pub customer_link: CustomerLink,
    /// The deadline of a call that names none.
    pub deadline: Duration,
    /// The longest deadline that a call may name.
    pub deadline_limit: Duration,
    /// How long a client may leave a reply unread that holds a part of the budget.
    pub unread: Duration,
    /// How often an account may ask; none sets no limit.
    pub account_rate: Option<Rate>,
    /// The most calls at once; one more is refused. A call counts once its message is there, and a stream only until it has
    /// begun.
    pub calls: usize,
    /// How late the tasks of the process may be. While they are later, a call is refused unless few are under way.
    pub lag: Duration,
    /// The streams of `WatchStatusChanges`.
    pub streams: StreamSettings,
    /// Cancelled when the server stops: streams end then, which by themselves would not.
    pub stop: CancellationToken,
    /// What is told of calls, beside their metrics.
    pub telemetry: Telemetry,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_limit: 64 * 1024,
            document_limit: 10 * 1024 * 1024,
            budget: Budget::default(),
            customer_link: CustomerLink::default(),
            deadline: Duration::from_secs(5),
            deadline_limit: Duration::from_secs(10),
            unread: Duration::from_secs(10),
            account_rate: None,
            calls: 2_048,
            lag: Duration::from_millis(50),
            streams: StreamSettings::default(),
            stop: CancellationToken::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Settings {
    /// The sizes of a message of `CreateOrUpdateCustomer`.
    fn sizes(&self) -> Sizes {
        Sizes {
            free: self.message_limit,
            most: self.document_limit.saturating_mul(2).saturating_add(self.message_limit),
        }
    }
}

/// Makes the storage service, with all that a call must pass before it: for a client in this process as for one on a
/// network.
pub fn service(store: Store, credentials: Credentials, settings: &Settings) -> Edge {
    let calls = Calls::new(settings.calls, settings.lag);
    let gate = {
        let (calls, store) = (calls.clone(), store.clone());
        Gate::new(move |call| calls.are_too_many() || (call == Call::Change && !store.takes_changes()))
    };
    let service = Service {
        store,
        credentials,
        document_limit: settings.document_limit,
        customer_link: settings.customer_link.clone(),
        budget: settings.budget.clone(),
        calls,
        rates: Arc::new(Rates::new(settings.account_rate)),
        streams: Streams::new(settings),
    };
    Edge::new(service, gate, settings)
}

/// What the network sees: the storage service, health, and reflection in both its versions.
///
/// # Errors
/// When the descriptors of the contract cannot be read, which no build that passes its tests has.
pub fn routes(storage: Edge, readiness: Readiness) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors, which a client can print only if it knows them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(storage)
        .add_service(health::server(readiness))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare())
}

/// The operations of the contract.
#[derive(Clone)]
pub(crate) struct Service {
    store: Store,
    credentials: Credentials,
    document_limit: usize,
    customer_link: CustomerLink,
    budget: Budget,
    calls: Calls,
    rates: Arc<Rates>,
    streams: Streams,
}

#[tonic::async_trait]
impl StorageService for Service {
    async fn update_status(
        &self,
        request: Request<UpdateStatusRequest>,
    ) -> Result<Response<UpdateStatusResponse>, Status> {
        update_status::answer(self, request).await
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        get_status::answer(self, request).await
    }

    async fn create_or_update_customer(
        &self,
        request: Request<CreateOrUpdateCustomerRequest>,
    ) -> Result<Response<CreateOrUpdateCustomerResponse>, Status> {
        create_or_update_customer::answer(self, request).await
    }

    async fn get_document_images(
        &self,
        request: Request<GetDocumentImagesRequest>,
    ) -> Result<Response<GetDocumentImagesResponse>, Status> {
        get_document_images::answer(self, request).await
    }

    async fn erase_customer(
        &self,
        request: Request<EraseCustomerRequest>,
    ) -> Result<Response<EraseCustomerResponse>, Status> {
        erase_customer::answer(self, request).await
    }

    async fn list_status_changes(
        &self,
        request: Request<ListStatusChangesRequest>,
    ) -> Result<Response<ListStatusChangesResponse>, Status> {
        list_status_changes::answer(self, request).await
    }

    async fn get_status_at(
        &self,
        request: Request<GetStatusAtRequest>,
    ) -> Result<Response<GetStatusAtResponse>, Status> {
        get_status_at::answer(self, request).await
    }

    type WatchStatusChangesStream = watch_status_changes::Answers;

    async fn watch_status_changes(
        &self,
        request: Request<WatchStatusChangesRequest>,
    ) -> Result<Response<Self::WatchStatusChangesStream>, Status> {
        watch_status_changes::answer(self, request).await
    }
}
