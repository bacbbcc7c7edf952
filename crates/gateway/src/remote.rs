//! Servers of gRPC that this program is a client of: the upstream of a facade, and the collector of traces.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use http::Uri;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};

use crate::{
    cli::{ServeOptions, TelemetryOptions},
    tls,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// A server that need not be there yet.
pub(crate) struct Remote {
    uri: Uri,
    name: &'static str,
    /// None in plain text.
    tls: Option<tls::Server>,
}

/// What a server is called.
struct Called {
    name: &'static str,
    /// The flag with its URL.
    flag: &'static str,
    /// How the flags with its files begin.
    files: &'static str,
}

impl Remote {
    /// The gRPC face of another process, if this is a facade alone.
    pub(crate) fn upstream(options: &ServeOptions) -> anyhow::Result<Option<Self>> {
        let Some(uri) = &options.upstream else {
            return Ok(None);
        };
        let called = Called {
            name: "upstream",
            flag: "--upstream",
            files: "--upstream",
        };
        let files = &options.upstream_tls;
        let own = files.upstream_cert.as_ref().zip(files.upstream_key.as_ref());
        let remote = Self::of(&called, uri, files.upstream_ca.as_ref(), own)?;
        options.tls.check_upstream(uri)?;
        Ok(Some(remote))
    }

    /// The collector of traces, if there is one. It may be anywhere in plain text: no span holds anything secret. What
    /// OTEL_EXPORTER_OTLP_HEADERS adds may be a secret, and is its owner's to guard.
    pub(crate) fn collector(options: &TelemetryOptions) -> anyhow::Result<Option<Self>> {
        let Some(uri) = &options.otlp_endpoint else {
            return Ok(None);
        };
        let called = Called {
            name: "collector",
            flag: "--otlp-endpoint",
            files: "--otlp",
        };
        let own = options.otlp_cert.as_ref().zip(options.otlp_key.as_ref());
        Self::of(&called, uri, options.otlp_ca.as_ref(), own).map(Some)
    }

    fn of(called: &Called, uri: &Uri, ca: Option<&PathBuf>, own: Option<(&PathBuf, &PathBuf)>) -> anyhow::Result<Self> {
        let Called { name, flag, files } = *called;
        // A password in it would be printed with it.
        let plain = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        let with_tls = match uri.scheme_str() {
            Some("http") => Some(false),
            Some("https") => Some(true),
            _ => None,
        };
        let (Some(with_tls), true, "" | "/") = (with_tls, plain, uri.path()) else {
            bail!("{flag} needs a URL of the form https://HOST:PORT or http://HOST:PORT");
        };
        if !with_tls && (ca.is_some() || own.is_some()) {
            bail!("{files}-ca and {files}-cert need an {flag} of https");
        }
        Ok(Self {
            uri: uri.clone(),
            name,
            tls: with_tls.then(|| tls::Server {
                name,
                ca: ca.cloned(),
                own: own.map(|(cert, key)| (cert.clone(), key.clone())),
            }),
        })
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Refuses a server for which the files are not fit for use.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        self.load().map(drop)
    }

    /// A channel to it. `tasks` get what reads its certificates anew.
    pub(crate) fn connect(self, tasks: &TaskTracker, stop: CancellationToken) -> anyhow::Result<Channel> {
        let name = self.name;
        let endpoint = Endpoint::from(self.uri.clone())
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        let Some((followed, config)) = self.load()? else {
            return Ok(endpoint.connect_lazy());
        };
        tasks.spawn(followed.follow(stop));
        Ok(endpoint.connect_with_connector_lazy(tls::Connector::new(name, config)))
    }

    /// What is needed for TLS, out of its files.
    fn load(self) -> anyhow::Result<Option<tls::Loaded<tls::Server>>> {
        let name = self.name;
        self.tls
            .map(|server| tls::load(server).with_context(|| format!("TLS to the {name}")))
            .transpose()
    }
}
