//! A gRPC client that knows no proto file: what it can say, it has learnt from reflection.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::StreamBody;
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage, ServiceDescriptor, Value};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Runtime,
    task::AbortHandle,
};
use tokio_stream::StreamExt;
use tonic::{
    Status,
    body::Body,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The service that is tested.
pub const SERVICE: &str = "dcams.storage.v1.StorageService";

/// `user:pass` as the value of `authorization`.
pub fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

/// A connection, and what reflection has told over it.
pub struct Client {
    runtime: Runtime,
    connection: Connection,
    origin: Uri,
    pub pool: DescriptorPool,
}

/// What a call has besides its message.
#[derive(Default)]
pub struct Metadata {
    headers: HeaderMap,
    gzip: bool,
}

impl Metadata {
    /// Credentials, as `user:pass`.
    pub fn of(credentials: &str) -> Self {
        Self::default().with("authorization", &basic(credentials))
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub fn gzip(mut self) -> Self {
        self.gzip = true;
        self
    }
}

/// The answer to a call.
#[derive(Debug)]
pub struct Answer {
    pub message: DynamicMessage,
    pub headers: HeaderMap,
}

impl Answer {
    /// A field of the answer's customer, as text.
    pub fn customer(&self, field: &str) -> String {
        let customer = self.message.get_field_by_name("customer").unwrap();
        let customer = customer.as_message().unwrap();
        let descriptor = customer.descriptor().get_field_by_name(field).unwrap();
        match (customer.get_field(&descriptor).as_ref(), descriptor.kind().as_enum()) {
            (Value::String(text), _) => text.clone(),
            (Value::EnumNumber(number), Some(names)) => names.get_value(*number).unwrap().name().to_owned(),
            (other, _) => panic!("{field} is {other:?}"),
        }
    }
}

impl Client {
    /// Connects, and asks for every service that there is and for all that it is made of.
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::bare(address);
        let mut learnt = super::reflection::v1::learn(&client);
        // A file after those it imports.
        while let Some(at) = learnt.iter().position(|file| {
            let known = |name: &String| client.pool.get_file_by_name(name).is_some();
            !known(&file.name().to_owned()) && file.dependency.iter().all(known)
        }) {
            client.pool.add_file_descriptor_proto(learnt.swap_remove(at)).unwrap();
        }
        client
    }

    /// Connects, and knows nothing yet.
    pub fn bare(address: SocketAddr) -> Self {
        Self::with_window(address, None)
    }

    /// The same, of a server that may not be there any more.
    pub fn try_bare(address: SocketAddr) -> Option<Self> {
        Self::try_with_window(address, None)
    }

    /// The same, with no more room for what a stream has sent and nobody has read than this.
    pub fn with_window(address: SocketAddr, window: Option<u32>) -> Self {
        Self::try_with_window(address, window).unwrap()
    }

    fn try_with_window(address: SocketAddr, window: Option<u32>) -> Option<Self> {
        let runtime = runtime();
        let connection = runtime.block_on(async { speak(tcp(address).await?, window).await })?;
        Some(Self::on(runtime, connection, &format!("http://{address}")))
    }

    /// Connects over TLS to `localhost`, and knows nothing yet.
    pub fn secure(address: SocketAddr, config: rustls::ClientConfig) -> Self {
        let runtime = runtime();
        let connection = runtime.block_on(async {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let name = "localhost".try_into().unwrap();
            let stream = connector.connect(name, tcp(address).await.unwrap()).await.unwrap();
            speak(stream, None).await.unwrap()
        });
        Self::on(runtime, connection, &format!("https://{address}"))
    }

    fn on(runtime: Runtime, connection: Connection, origin: &str) -> Self {
        Self {
            runtime,
            connection,
            origin: origin.parse().unwrap(),
            pool: DescriptorPool::new(),
        }
    }

    /// What a generated client is made from.
    pub fn transport(&self) -> (Connection, Uri) {
        (self.connection.clone(), self.origin.clone())
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn service(&self) -> ServiceDescriptor {
        self.pool.get_service_by_name(SERVICE).unwrap()
    }

    fn method(&self, name: &str) -> MethodDescriptor {
        self.service().methods().find(|method| method.name() == name).unwrap()
    }

    /// Calls a method with a message of these fields.
    pub fn call(&self, method: &str, fields: &[(&str, &str)], metadata: Metadata) -> Result<Answer, Status> {
        self.call_with(method, self.request(method, fields).encode_to_vec(), metadata)
    }

    /// What a method takes, with these fields; a status is given by its name.
    pub fn request(&self, method: &str, fields: &[(&str, &str)]) -> DynamicMessage {
        let mut message = DynamicMessage::new(self.method(method).input());
        for (name, text) in fields {
            let field = message.descriptor().get_field_by_name(name).unwrap();
            let value = match field.kind().as_enum() {
                Some(names) => Value::EnumNumber(names.get_value_by_name(text).unwrap().number()),
                None => Value::String((*text).to_owned()),
            };
            message.set_field(&field, value);
        }
        message
    }

    /// Calls a method with a message of these bytes, be they one or not.
    pub fn call_with(&self, method: &str, message: Vec<u8>, metadata: Metadata) -> Result<Answer, Status> {
        let mut grpc = tonic::client::Grpc::with_origin(self.connection.clone(), self.origin.clone())
            .max_decoding_message_size(usize::MAX);
        if metadata.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(metadata.headers);
        let path = format!("/{SERVICE}/{method}").parse().unwrap();
        let response = self.block_on(async {
            grpc.ready().await.unwrap();
            grpc.unary(request, path, Raw).await
        })?;
        let headers = response.metadata().clone().into_headers();
        let message = DynamicMessage::decode(self.method(method).output(), &*response.into_inner()).unwrap();
        Ok(Answer { message, headers })
    }

    /// Begins a call with a message of so many bytes, sends the first of them and no more, until the answer is dropped.
    pub fn begin(&self, method: &str, message: usize, sent: usize) -> Begun {
        let mut begun = vec![0];
        begun.extend_from_slice(&u32::try_from(message).unwrap().to_be_bytes());
        begun.resize(begun.len() + sent, 0);
        let frames = tokio_stream::once(Ok::<_, Status>(Frame::data(begun.into()))).chain(tokio_stream::pending());
        let request = Request::post(format!("{}{SERVICE}/{method}", self.origin))
            .header("content-type", "application/grpc")
            .body(Body::new(StreamBody::new(frames)))
            .unwrap();
        let mut connection = self.connection.clone();
        let call = self
            .runtime
            .spawn(async move { connection.0.send_request(request).await });
        Begun(call.abort_handle())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn tcp(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).await.ok()?;
    // As every gRPC client does; a large message otherwise waits for an acknowledgement at every window.
    stream.set_nodelay(true).unwrap();
    Some(stream)
}

async fn speak<S>(stream: S, window: Option<u32>) -> Option<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(driver);
    Some(Connection(sender))
}

/// A call that does not end; when this is dropped, it is cancelled.
pub struct Begun(AbortHandle);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An HTTP/2 connection and nothing more: no deadline of a client's own stands in the way of the server's answer.
#[derive(Clone)]
pub struct Connection(SendRequest<Body>);

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Messages as their bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).into()))
    }
}
