//! TLS to another server.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{InvalidDnsNameError, ServerName},
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

use super::{
    authorities,
    files::{Pem, Source},
    pair, provider, unfit,
};

/// What is spoken behind the handshake.
const HTTP2: &[u8] = b"h2";

/// The files that are needed for it.
pub(crate) struct Server {
    /// What the server is called.
    pub(crate) name: &'static str,
    /// The authorities that it is checked against; none for those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The certificate of this program, and its key.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

impl Source for Server {
    type Made = Arc<ClientConfig>;
    type Pems = (Option<Pem>, Option<(Pem, Pem)>);

    fn name(&self) -> String {
        format!("the TLS certificate for the {}", self.name)
    }

    fn label(&self) -> &'static str {
        self.name
    }

    fn read(&self) -> anyhow::Result<Self::Pems> {
        let read = |(cert, key): &(PathBuf, PathBuf)| anyhow::Ok((Pem::read(cert)?, Pem::read(key)?));
        Ok((
            self.ca.as_ref().map(Pem::read).transpose()?,
            self.own.as_ref().map(read).transpose()?,
        ))
    }

    fn make(&self, (ca, own): &Self::Pems) -> anyhow::Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match ca {
            Some(ca) => builder.with_root_certificates(authorities(ca)?),
            None => builder.with_platform_verifier()?,
        };
        let mut config = match own {
            Some((cert, key)) => {
                let (chain, secret) = pair(cert, key)?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|error| unfit(&error, cert, key))?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Makes connections to a server, each with the certificates of its moment.
#[derive(Clone)]
pub(crate) struct Connector {
    name: &'static str,
    config: watch::Receiver<Arc<ClientConfig>>,
    /// Whether the last handshake failed. Every request begins a connection then; one line is enough for all.
    is_failing: Arc<AtomicBool>,
}

impl Connector {
    pub(crate) fn new(name: &'static str, config: watch::Receiver<Arc<ClientConfig>>) -> Self {
        Self {
            name,
            config,
            is_failing: Arc::default(),
        }
    }

    async fn connect(self, uri: Uri) -> io::Result<TlsStream<TcpStream>> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_: InvalidDnsNameError| io::ErrorKind::InvalidInput)?;
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        stream.set_nodelay(true)?;
        let config = Arc::clone(&self.config.borrow());
        let shaken = TlsConnector::from(config).connect(name, stream).await;
        let shaken = shaken.and_then(|stream| match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Ok(stream),
            _ => Err(io::Error::other("it speaks no HTTP/2")),
        });
        match &shaken {
            Ok(_) => self.is_failing.store(false, Ordering::Relaxed),
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "there is no TLS connection to the {}", self.name);
            }
            Err(_) => {}
        }
        shaken
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = self.clone().connect(uri);
        Box::pin(async move { connected.await.map(TokioIo::new) })
    }
}
