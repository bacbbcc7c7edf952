//! One type of client for a service in this process and for one across a network.

use std::sync::Arc;

use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Service, StdError},
};
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::{
    Reason,
    v1::{
        CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, GetDocumentImagesRequest,
        GetDocumentImagesResponse, GetStatusRequest, GetStatusResponse, UpdateStatusRequest, UpdateStatusResponse,
        storage_service_client::StorageServiceClient, storage_service_server::StorageService,
    },
};

/// A client of the storage service, near or far: of what legacy clients ask for.
#[derive(Clone)]
pub struct Client {
    transport: StorageServiceClient<Transport>,
    /// The service, if it is in this process.
    near: Option<Arc<dyn NearService>>,
}

/// A service in this process, as its clients there see it.
///
/// What they ask for most it takes as a message, and answers with one: to make bytes of both for a transport, and messages of
/// the bytes again, costs as much as to read the JSON and write it.
#[tonic::async_trait]
pub trait NearService: Send + Sync {
    /// Sets the status of a customer.
    async fn update_status(
        &self,
        request: Request<UpdateStatusRequest>,
    ) -> Result<Response<UpdateStatusResponse>, Status>;

    /// Reads the status of a customer.
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status>;
}

#[tonic::async_trait]
impl<S: StorageService> NearService for S {
    async fn update_status(
        &self,
        request: Request<UpdateStatusRequest>,
    ) -> Result<Response<UpdateStatusResponse>, Status> {
        StorageService::update_status(self, request).await
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        StorageService::get_status(self, request).await
    }
}

impl Client {
    /// The same client, of a service that is in this process.
    #[must_use]
    pub fn near(self, service: Arc<dyn NearService>) -> Self {
        Self {
            near: Some(service),
            ..self
        }
    }

    /// Sets the status of a customer.
    ///
    /// # Errors
    /// As the service says.
    pub async fn update_status(
        &self,
        request: Request<UpdateStatusRequest>,
    ) -> Result<Response<UpdateStatusResponse>, Status> {
        match &self.near {
            Some(service) => service.update_status(request).await,
            None => self.transport.clone().update_status(request).await,
        }
    }

    /// Reads the status of a customer.
    ///
    /// # Errors
    /// As the service says.
    pub async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        match &self.near {
            Some(service) => service.get_status(request).await,
            None => self.transport.clone().get_status(request).await,
        }
    }

    /// Registers a customer, or changes one.
    ///
    /// # Errors
    /// As the service says.
    pub async fn create_or_update_customer(
        &self,
        request: Request<CreateOrUpdateCustomerRequest>,
    ) -> Result<Response<CreateOrUpdateCustomerResponse>, Status> {
        self.transport.clone().create_or_update_customer(request).await
    }

    /// Reads the images of a customer's document.
    ///
    /// # Errors
    /// As the service says.
    pub async fn get_document_images(
        &self,
        request: Request<GetDocumentImagesRequest>,
    ) -> Result<Response<GetDocumentImagesResponse>, Status> {
        self.transport.clone().get_document_images(request).await
    }
}

/// What carries a call: a server in this process, or a channel to another.
pub type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// The most bytes of an answer: two images of a server that is set to three times the usual size, with all else. What bounds
/// an answer is the server; this keeps one that has lost its senses from filling the memory.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// A client that sends its calls over `transport`.
pub fn client<S>(transport: S) -> Client
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError>,
    S::Future: Send,
{
    let transport = BoxCloneSyncService::new(transport.map_err(|error| lost(error.into())));
    Client {
        transport: StorageServiceClient::new(transport).max_decoding_message_size(ANSWER_LIMIT),
        near: None,
    }
}

/// What it means that a transport failed: whoever is at its other end is not there, or went away before the answer. tonic
/// would call the second an unknown error, and so it is: a write may have been made. It is said as of a call that took too
/// long, since "unavailable" means that nothing was done.
fn lost(error: StdError) -> Status {
    match Status::from_error(error) {
        status if status.code() == Code::Unknown => Reason::DeadlineExceeded.into(),
        status => status,
    }
}
