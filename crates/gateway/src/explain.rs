//! `explain`: shows the gRPC call that a legacy body becomes.
//!
//! The body is posted to the facade itself. Behind it stands a service that judges a call as the real one does, and then
//! only writes it down.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail};
use axum::{
    body::{Body, to_bytes},
    http::{
        Request as HttpRequest,
        header::{CONTENT_TYPE, DATE},
    },
};
use grpc::Judged;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions, prost::Message};
use proto::{
    Budget, Reason, Telemetry,
    v1::{
        CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, EraseCustomerRequest, EraseCustomerResponse,
        GetDocumentImagesRequest, GetDocumentImagesResponse, GetStatusAtRequest, GetStatusAtResponse, GetStatusRequest,
        GetStatusResponse, ListStatusChangesRequest, ListStatusChangesResponse, UpdateStatusRequest,
        UpdateStatusResponse, WatchStatusChangesRequest, WatchStatusChangesResponse,
        storage_service_server::{StorageService, StorageServiceServer},
    },
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use crate::{cli::ExplainOptions, peer::is_loopback, serve};

/// The most bytes of a message that stands in the line itself. A shell takes 128 KiB.
const INLINE: usize = 16 * 1024;

/// The most bytes of an answer with images, for grpcurl, which by itself takes 4 MiB.
const ANSWER: usize = 64 * 1024 * 1024;

/// The most bytes of a reply that refuses a request.
const REFUSAL: usize = 64 * 1024;

/// The variable that the line takes the password from.
const PASSWORD: &str = "DCAMS_PASSWORD";

pub(crate) async fn run(options: ExplainOptions) -> anyhow::Result<()> {
    let settings = serve::rest_settings(options.documents.limit);
    // One byte more than there may be: the facade then says so itself.
    let most = settings.document_body_limit as u64 + 1;
    let mut body = Vec::new();
    if options.file == Path::new("-") {
        io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut body)
            .context("standard input")?;
    } else {
        File::open(&options.file)
            .and_then(|file| file.take(most).read_to_end(&mut body))
            .with_context(|| options.file.display().to_string())?;
    }

    let recorder = Recorder {
        document_limit: options.documents.limit,
        heard: Arc::default(),
    };
    let service = StorageServiceServer::new(recorder.clone()).max_decoding_message_size(usize::MAX);
    let facade = rest::router(
        proto::client(service),
        proto::Gate::default(),
        settings,
        Budget::default(),
        Telemetry::default(),
    );
    let [path, _] = rest::PATHS;
    let request = HttpRequest::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))?;
    let Ok(reply) = facade.oneshot(request).await;

    let heard = recorder.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
    match heard {
        Some(heard) => show(&heard, &options),
        None => refuse(reply).await,
    }
}

/// Prints the line.
fn show(heard: &Heard, options: &ExplainOptions) -> anyhow::Result<()> {
    let mut message = as_json(heard).context("the message")?;
    let mut text = message.to_string();
    let mut from = String::new();
    let mut data = quote(&text);
    if let Some(path) = &options.message {
        write(path, &text).with_context(|| path.display().to_string())?;
        data = "@".to_owned();
        from = format!(" < {}", quote(&path.display().to_string()));
    } else if text.len() > INLINE {
        for image in ["front", "back"] {
            if let Some(place) = message.pointer_mut(&format!("/documents/{image}")) {
                let length = place.as_str().map_or(0, str::len);
                *place = json!(format!("<{length} characters of Base64>"));
            }
        }
        text = message.to_string();
        data = quote(&text);
        eprintln!(
            "the images are left out, so this line cannot be run: --message writes the whole message into a file"
        );
    }
    let plaintext = if options.plaintext || is_here(&options.grpc_addr) {
        " -plaintext"
    } else {
        ""
    };
    let room = match heard.method {
        "GetDocumentImages" => format!(" -max-msg-sz {ANSWER}"),
        _ => String::new(),
    };
    say!(
        "grpcurl{plaintext}{room} -H \"authorization: Basic $(printf %s {}:\"${PASSWORD}\" | base64 | tr -d '\\n')\" -d {data} {} \
         dcams.storage.v1.StorageService/{}{from}",
        quote(&heard.user),
        quote(&options.grpc_addr),
        heard.method
    )
}

/// The message as the JSON of protobuf.
fn as_json(heard: &Heard) -> anyhow::Result<Value> {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS)?;
    let name = format!("dcams.storage.v1.{}Request", heard.method);
    let descriptor = pool.get_message_by_name(&name).context("it is not in the contract")?;
    let message = DynamicMessage::decode(descriptor, &*heard.message)?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Writes a message with personal data, for its owner only.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // It may have been there before.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Prints the reply to a request that becomes no call.
async fn refuse(reply: axum::response::Response) -> anyhow::Result<()> {
    let (head, body) = reply.into_parts();
    say!("{:?} {}", head.version, head.status)?;
    for (name, value) in &head.headers {
        // These are new every time.
        if name != proto::REQUEST_ID && name != DATE {
            say!("{name}: {}", value.to_str().unwrap_or_default())?;
        }
    }
    let body = to_bytes(Body::new(body), REFUSAL).await.context("the reply")?;
    say!("\n{}", String::from_utf8_lossy(&body))?;
    bail!("the request is refused; nothing is called")
}

/// A word for a shell, whatever is in it.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Whether an address is on this machine, where a gateway speaks no TLS by default.
fn is_here(address: &str) -> bool {
    is_loopback(address.rsplit_once(':').map_or(address, |(host, _)| host))
}

/// A call that would have been made.
struct Heard {
    user: String,
    method: &'static str,
    message: Vec<u8>,
}

/// A service that writes down what it is asked, if it can be asked.
#[derive(Clone)]
struct Recorder {
    document_limit: usize,
    heard: Arc<Mutex<Option<Heard>>>,
}

impl Recorder {
    fn hear<M: Judged + Message, R>(&self, method: &'static str, request: &Request<M>) -> Result<Response<R>, Status> {
        let user = grpc::user(request)?;
        let message = request.get_ref();
        message.judge(self.document_limit)?;
        let heard = Heard {
            user,
            method,
            message: message.encode_to_vec(),
        };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
        // Nobody looks at it.
        Err(Reason::CustomerNotFound.into())
    }
}

/// What no legacy request becomes.
fn never<R>() -> Result<Response<R>, Status> {
    Err(Status::unimplemented("no legacy request asks for this"))
}

#[tonic::async_trait]
impl StorageService for Recorder {
    async fn update_status(
        &self,
        request: Request<UpdateStatusRequest>,
    ) -> Result<Response<UpdateStatusResponse>, Status> {
        self.hear("UpdateStatus", &request)
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.hear("GetStatus", &request)
    }

    async fn create_or_update_customer(
        &self,
        request: Request<CreateOrUpdateCustomerRequest>,
    ) -> Result<Response<CreateOrUpdateCustomerResponse>, Status> {
        self.hear("CreateOrUpdateCustomer", &request)
    }

    async fn get_document_images(
        &self,
        request: Request<GetDocumentImagesRequest>,
    ) -> Result<Response<GetDocumentImagesResponse>, Status> {
        self.hear("GetDocumentImages", &request)
    }

    async fn erase_customer(
        &self,
        _: Request<EraseCustomerRequest>,
    ) -> Result<Response<EraseCustomerResponse>, Status> {
        never()
    }

    async fn list_status_changes(
        &self,
        _: Request<ListStatusChangesRequest>,
    ) -> Result<Response<ListStatusChangesResponse>, Status> {
        never()
    }

    async fn get_status_at(&self, _: Request<GetStatusAtRequest>) -> Result<Response<GetStatusAtResponse>, Status> {
        never()
    }

    type WatchStatusChangesStream = tonic::codegen::BoxStream<WatchStatusChangesResponse>;

    async fn watch_status_changes(
        &self,
        _: Request<WatchStatusChangesRequest>,
    ) -> Result<Response<Self::WatchStatusChangesStream>, Status> {
        never()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_something_into_it() {
        for (word, quoted) in [
            ("shop", "shop"),
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(x)`y`", "'$(x)`y`'"),
            ("it's", r"'it'\''s'"),
            ("[::1]:1", "'[::1]:1'"),
            ("a\nb", "'a\nb'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn this_machine_is_known_by_its_address() {
        for (address, is) in [
            ("127.0.0.1:50051", true),
            ("[::1]:50051", true),
            ("localhost:1", true),
            ("10.0.0.1:50051", false),
            ("dcams.example.com:443", false),
            ("localhost.example.com:1", false),
        ] {
            assert_eq!(is_here(address), is, "{address}");
        }
    }
}
