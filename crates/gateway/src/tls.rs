//! TLS: certificates and keys out of PEM files, handshakes with clients, and who they are by their certificates.

mod files;
mod server;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use grpc::CertificateAccount;
use metrics::Counter;
use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use self::files::{Pem, Source};
pub(crate) use self::{
    files::{Loaded, USABLE, load},
    server::{Connector, Server},
};
use crate::{
    cli::{ClientAccount, TlsOptions},
    listener::Protocol,
};

/// When the certificate of the faces ends, as seconds since 1970.
pub(crate) const EXPIRY: &str = "dcams_tls_certificate_expiry_seconds";

/// How many handshakes came to nothing, by listener.
pub(crate) const FAILURES: &str = "dcams_tls_handshake_failures_total";

/// The files of the faces.
pub(crate) struct Faces {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Faces {
    /// None without TLS.
    pub(crate) fn of(options: &TlsOptions) -> Option<Self> {
        // Each of the two needs the other on the command line.
        Some(Self {
            cert: options.tls_cert.clone()?,
            key: options.tls_key.clone()?,
            client_ca: options.tls_client_ca.clone(),
        })
    }
}

/// What is spoken with clients: the same certificate on both faces, what comes behind the handshake by face.
#[derive(Clone)]
pub(crate) struct Configs {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl Source for Faces {
    type Made = Configs;
    type Pems = (Pem, Pem, Option<Pem>);

    fn name(&self) -> String {
        "the TLS certificate".to_owned()
    }

    fn label(&self) -> &'static str {
        "faces"
    }

    fn read(&self) -> anyhow::Result<Self::Pems> {
        let client_ca = self.client_ca.as_ref().map(Pem::read).transpose()?;
        Ok((Pem::read(&self.cert)?, Pem::read(&self.key)?, client_ca))
    }

    fn make(&self, (cert, key, client_ca): &Self::Pems) -> anyhow::Result<Configs> {
        let (chain, secret) = pair(cert, key)?;
        let expiry = expiry(cert, &chain)?;
        let provider = provider();
        let config = |protocol: &[u8], authorities: Option<RootCertStore>| {
            let builder =
                ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
            let is_mutual = authorities.is_some();
            let builder = match authorities {
                Some(authorities) => {
                    let authorities = Arc::new(authorities);
                    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider));
                    builder.with_client_cert_verifier(verifier.build()?)
                }
                None => builder.with_no_client_auth(),
            };
            let mut config = builder
                .with_single_cert(chain.clone(), secret.clone_key())
                .map_err(|error| unfit(&error, cert, key))?;
            config.alpn_protocols = vec![protocol.to_vec()];
            if is_mutual {
                // Who resumes a session does not show a certificate again, be it out of date by then.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            anyhow::Ok(Arc::new(config))
        };
        let configs = Configs {
            http1: config(b"http/1.1", None)?,
            http2: config(b"h2", client_ca.as_ref().map(authorities).transpose()?)?,
        };
        let until = jiff::Timestamp::from_second(expiry)?;
        if until < jiff::Timestamp::now() {
            tracing::warn!("the TLS certificate {cert} has been out of date since {until}: clients will refuse it");
        } else {
            tracing::info!("the TLS certificate {cert} is good until {until}");
        }
        #[allow(clippy::cast_precision_loss)] // exact for another 285 million years
        metrics::gauge!(EXPIRY).set(expiry as f64);
        Ok(configs)
    }
}

/// Makes the handshakes of a listener.
#[derive(Clone)]
pub(crate) struct Acceptor {
    configs: watch::Receiver<Configs>,
    protocol: Protocol,
    /// How long a handshake may take.
    pub(crate) patience: Duration,
    accounts: Arc<[ClientAccount]>,
    failures: Counter,
}

impl Acceptor {
    pub(crate) fn new(
        configs: watch::Receiver<Configs>,
        protocol: Protocol,
        options: &TlsOptions,
        listener: &str,
    ) -> Self {
        Self {
            configs,
            protocol,
            patience: options.tls_handshake_timeout,
            accounts: options.tls_client_accounts.clone().into(),
            failures: metrics::counter!(FAILURES, "listener" => listener.to_ascii_lowercase()),
        }
    }

    /// Makes a handshake with the certificate of this moment, and tells for which account the client's certificate stands.
    /// The caller bounds the time.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(Box<TlsStream<TcpStream>>, Option<CertificateAccount>)> {
        let config = {
            let configs = self.configs.borrow();
            Arc::clone(match self.protocol {
                Protocol::Http1 => &configs.http1,
                Protocol::Http2 => &configs.http2,
            })
        };
        let stream = Box::new(TlsAcceptor::from(config).accept(stream).await?);
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let account = certificate.and_then(|certificate| account(certificate, &self.accounts));
        Ok((stream, account))
    }

    /// Counts a handshake that came to nothing.
    pub(crate) fn failed(&self) {
        self.failures.increment(1);
    }
}

/// The account that a verified certificate stands for: that of the first entry with one of its names.
fn account(certificate: &CertificateDer<'_>, accounts: &[ClientAccount]) -> Option<CertificateAccount> {
    if accounts.is_empty() {
        return None;
    }
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let alternative = certificate.subject_alternative_name().ok()?;
    let names: Vec<&GeneralName<'_>> = alternative
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::URI(_)))
        .collect();
    let has = |wanted: &str| {
        if names.is_empty() {
            let mut common = certificate.subject().iter_common_name();
            return common.any(|name| name.as_str().is_ok_and(|name| name == wanted));
        }
        names.iter().any(|name| match name {
            GeneralName::DNSName(name) => name.eq_ignore_ascii_case(wanted),
            GeneralName::URI(name) => *name == wanted,
            _ => false,
        })
    };
    let found = accounts.iter().find(|entry| has(&entry.name))?;
    Some(CertificateAccount(found.account.clone()))
}

/// Makes clients that ask for none use the cryptography of all TLS here. One that is there already does as well.
pub(crate) fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The cryptography of all TLS here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate with those that vouch for it, and its key.
fn pair(cert: &Pem, key: &Pem) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_slice(key.bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => anyhow!("{key} has no private key, or one that needs a passphrase"),
        // Its own text may quote the file.
        _ => anyhow!("{key} is not a PEM file"),
    })?;
    Ok((chain, key))
}

fn certificates(file: &Pem) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.bytes()).collect();
    let certificates = certificates.map_err(|_| anyhow!("{file} is not a PEM file"))?;
    if certificates.is_empty() {
        bail!("{file} has no certificate");
    }
    Ok(certificates)
}

/// The authorities that a file names.
fn authorities(file: &Pem) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = store.add(certificate);
        added.with_context(|| format!("{file} has a certificate that cannot be an authority"))?;
    }
    Ok(store)
}

/// When the first certificate of a chain ends, as seconds since 1970.
fn expiry(file: &Pem, chain: &[CertificateDer<'_>]) -> anyhow::Result<i64> {
    let first = chain.first().and_then(|first| X509Certificate::from_der(first).ok());
    let (_, certificate) = first.with_context(|| format!("{file} has a certificate that cannot be understood"))?;
    Ok(certificate.validity().not_after.timestamp())
}

/// Why a certificate and a key cannot be used.
fn unfit(error: &rustls::Error, cert: &Pem, key: &Pem) -> anyhow::Error {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            anyhow!("{key} is not the key of the certificate {cert}")
        }
        error => anyhow!("the certificate {cert} and its key cannot be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType], common: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name.push(DnType::CommonName, common);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        made.der().clone()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn a_certificate_stands_for_the_account_of_its_name() {
        let accounts =
            ["billing.internal=a", "spiffe://prod/shop=b", "Common Name=c"].map(|text| text.parse().unwrap());
        let of = |names: &[SanType], common: &str| {
            account(&certificate(names, common), &accounts).map(|account| account.0.to_string())
        };
        let uri = SanType::URI("spiffe://prod/shop".try_into().unwrap());
        assert_eq!(
            of(&[dns("x.internal"), dns("Billing.Internal")], "x").as_deref(),
            Some("a")
        );
        assert_eq!(of(std::slice::from_ref(&uri), "x").as_deref(), Some("b"));
        // The order is that of the flags.
        assert_eq!(of(&[uri, dns("billing.internal")], "x").as_deref(), Some("a"));
        assert_eq!(of(&[], "Common Name").as_deref(), Some("c"));
        // A common name is no name beside others, and none of them is a part of another.
        assert_eq!(of(&[dns("x.internal")], "Common Name"), None);
        assert_eq!(of(&[dns("*.internal"), dns("billing.internal.example")], "x"), None);
        assert_eq!(of(&[], "x"), None);
        assert!(account(&certificate(&[], "x"), &[]).is_none());
    }
}
