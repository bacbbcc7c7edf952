//! The generated server before a service that stores nothing: it looks whether the credentials hold, and always has the same
//! answer.

use std::net::{IpAddr, Ipv4Addr};

use base64::{Engine, prelude::BASE64_STANDARD};
use credentials::{Account, Credentials, Settings};
use proto::{
    Reason,
    v1::{
        CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, Customer, EraseCustomerRequest,
        EraseCustomerResponse, GetDocumentImagesRequest, GetDocumentImagesResponse, GetStatusAtRequest,
        GetStatusAtResponse, GetStatusRequest, GetStatusResponse, ListStatusChangesRequest, ListStatusChangesResponse,
        UpdateStatusRequest, UpdateStatusResponse, WatchStatusChangesRequest, WatchStatusChangesResponse,
        storage_service_server::StorageService,
    },
};
use secrecy::SecretString;
use tonic::{Status, codegen::BoxStream};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct Service {
    customer: Customer,
    credentials: Option<Credentials>,
}

impl Service {
    /// One that asks nobody who they are. The benchmark has it, and what counts instructions does not.
    #[allow(dead_code)]
    pub(crate) fn open(customer: Customer) -> Self {
        Self {
            customer,
            credentials: None,
        }
    }

    /// One that knows a password already.
    pub(crate) async fn guarded(customer: Customer, user: &str, password: &str) -> Self {
        let credentials = Credentials::new(Settings::default());
        let password = SecretString::from(password);
        let account = Account {
            id: 1,
            version: 1,
            hash: credentials::hash(&password).unwrap(),
            enabled: true,
        };
        credentials.verify(user, &password, HERE, Some(account)).await.unwrap();
        Self {
            customer,
            credentials: Some(credentials),
        }
    }

    fn admits(&self, metadata: &tonic::metadata::MetadataMap) -> bool {
        let Some(credentials) = &self.credentials else {
            return true;
        };
        let header = metadata.get("authorization").expect("there are credentials").as_bytes();
        let decoded = BASE64_STANDARD.decode(&header["Basic ".len()..]).unwrap();
        let decoded = String::from_utf8(decoded).unwrap();
        let (user, password) = decoded.split_once(':').unwrap();
        matches!(
            credentials.remembered(user, &SecretString::from(password), HERE),
            Ok(Some(_))
        )
    }
}

type Answer<T> = Result<tonic::Response<T>, Status>;

/// What no request here asks for.
macro_rules! unused {
    ($($name:ident: $request:ty => $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl StorageService for Service {
            type WatchStatusChangesStream = BoxStream<WatchStatusChangesResponse>;

            async fn update_status(&self, request: tonic::Request<UpdateStatusRequest>) -> Answer<UpdateStatusResponse> {
                match self.admits(request.metadata()) {
                    true => Ok(UpdateStatusResponse { customer: Some(self.customer.clone()) }.into()),
                    false => Err(Reason::BadCredentials.into()),
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

/// The customer of the vendor's documentation, under that address and reference.
pub(crate) fn john(email: &str, reference: &str) -> Customer {
    Customer {
        email: email.to_owned(),
        first_name: "John".to_owned(),
        last_name: "Smith".to_owned(),
        address: "123 Main St".to_owned(),
        city: "Stratford".to_owned(),
        state: "CT".to_owned(),
        zip: "06614".to_owned(),
        date_of_birth: "19700101".to_owned(),
        phone: "2015106000".to_owned(),
        reference: reference.to_owned(),
        status: proto::v1::Status::Pass.into(),
        etag: "0123abcd-7".to_owned(),
        ..Customer::default()
    }
}
