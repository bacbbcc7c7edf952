//! Authorities and certificates of a test's own, and connections that trust them.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{Connection, Database};

/// How many authorities there are.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The names of every gateway.
pub const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A connection over TLS.
pub type Secure = Connection<StreamOwned<ClientConnection, TcpStream>>;

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Identity {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // One that is called like another would be taken for it, until the signatures do not fit.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("Authority {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 2100)
    }

    /// The same, which ends with the beginning of a year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        self.sign(KeyPair::generate().unwrap(), names, year)
    }

    /// Another certificate for the key of one that there is.
    pub fn renew(&self, identity: &Identity, names: &[&str], year: i32) -> Identity {
        self.sign(KeyPair::from_pem(&identity.key).unwrap(), names, year)
    }

    fn sign(&self, key: KeyPair, names: &[&str], year: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Identity {
            cert: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts this authority, and what it says that it speaks.
    pub fn client(&self, protocol: &str) -> ClientConfig {
        self.config(protocol, ALL_VERSIONS, None)
    }

    /// The same, which knows one version of TLS.
    pub fn client_of(&self, protocol: &str, version: &'static SupportedProtocolVersion) -> ClientConfig {
        self.config(protocol, &[version], None)
    }

    /// The same, with a certificate of its own.
    pub fn client_with(&self, protocol: &str, identity: &Identity) -> ClientConfig {
        self.config(protocol, ALL_VERSIONS, Some(identity))
    }

    /// A server with that certificate, for clients who have one of this authority.
    pub fn server(&self, protocol: &str, identity: &Identity) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider))
            .build()
            .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![identity.der()], identity.secret())
            .unwrap();
        config.alpn_protocols = vec![protocol.into()];
        config
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn config(
        &self,
        protocol: &str,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.der()], identity.secret())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.into()];
        config
    }
}

impl Identity {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// Writes both into the test's folder, and gives their paths.
    pub fn write(&self, database: &Database, name: &str) -> (String, String) {
        let path = |path: PathBuf| path.display().to_string();
        (
            path(database.file(&format!("{name}.pem"), &self.cert)),
            path(database.file(&format!("{name}.key"), &self.key)),
        )
    }

    /// Makes a folder with both as `tls.crt` and `tls.key`, as a secret is mounted.
    pub fn mount(&self, folder: &Path) {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("tls.crt"), &self.cert).unwrap();
        std::fs::write(folder.join("tls.key"), &self.key).unwrap();
    }
}

/// Makes a handshake with `localhost`.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Secure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    // A test fails rather than hangs.
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let name = "localhost".try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(Connection::on(StreamOwned::new(connection, stream)))
}

impl Secure {
    /// The certificate that the server has shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.stream().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// What was agreed to speak.
    pub fn protocol(&self) -> String {
        String::from_utf8(self.stream().conn.alpn_protocol().unwrap().to_vec()).unwrap()
    }
}
