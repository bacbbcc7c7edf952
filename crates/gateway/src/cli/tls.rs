//! TLS: the certificates of both faces and of their clients, and those between a facade and its upstream.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::bail;
use clap::{Args, builder::BoolishValueParser};
use store::AccountName;

use super::values::time;
use crate::peer::is_loopback;

/// TLS of the faces. Without it they speak plain text.
#[derive(Args)]
pub(crate) struct TlsOptions {
    /// Speak TLS on both faces: the PEM file of the certificate, followed by those between it and its authority. It is read anew when it changes, as are the files of all TLS flags
    #[arg(long, env = "DCAMS_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The PEM file of the certificate's private key
    #[arg(long, env = "DCAMS_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Demand a certificate of every gRPC client, by an authority in this PEM file
    #[arg(
        long,
        env = "DCAMS_TLS_CLIENT_CA",
        value_name = "PATH",
        requires = "tls_cert",
        conflicts_with = "upstream"
    )]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Let gRPC clients that send no credentials act as an account: a DNS or URI name of their certificate (the common name of one that has neither), and the account; may be given many times, or as a list with commas
    #[arg(
        long = "tls-client-account",
        env = "DCAMS_TLS_CLIENT_ACCOUNTS",
        value_name = "NAME=ACCOUNT",
        value_delimiter = ',',
        requires = "tls_client_ca"
    )]
    pub(crate) tls_client_accounts: Vec<ClientAccount>,
    /// How long a TLS handshake may take, from the beginning of the connection: a number with ms, s, m, h or d
    #[arg(long, env = "DCAMS_TLS_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) tls_handshake_timeout: Duration,
    /// Speak plain text, passwords and personal data in it, also on addresses that are not loopback and to such an upstream
    #[arg(long, env = "DCAMS_INSECURE_PLAINTEXT", value_parser = BoolishValueParser::new())]
    pub(crate) insecure_plaintext: bool,
}

/// TLS to an upstream, for an `https` URL.
#[derive(Args)]
pub(crate) struct UpstreamTlsOptions {
    /// Trust the upstream by an authority in this PEM file alone; by default those of the system are trusted
    #[arg(long, env = "DCAMS_UPSTREAM_CA", value_name = "PATH", requires = "upstream")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// The PEM file of the certificate that this facade shows to the upstream
    #[arg(
        long,
        env = "DCAMS_UPSTREAM_CERT",
        value_name = "PATH",
        requires_all = ["upstream", "upstream_key"]
    )]
    pub(crate) upstream_cert: Option<PathBuf>,
    /// The PEM file of that certificate's private key
    #[arg(long, env = "DCAMS_UPSTREAM_KEY", value_name = "PATH", requires = "upstream_cert")]
    pub(crate) upstream_key: Option<PathBuf>,
}

impl TlsOptions {
    /// Refuses to speak plain text with the world by oversight. `name` is the face's.
    pub(crate) fn check_address(&self, name: &str, address: SocketAddr) -> anyhow::Result<()> {
        if self.tls_cert.is_none() && !self.allows_plain(address) {
            bail!(
                "{name} would speak plain text on {address}, which is not loopback: give --tls-cert and --tls-key, or \
                 --insecure-plaintext if something in front of it speaks TLS"
            );
        }
        Ok(())
    }

    /// Whether passwords may come to an address in plain text.
    pub(crate) fn allows_plain(&self, address: SocketAddr) -> bool {
        self.insecure_plaintext || address.ip().to_canonical().is_loopback()
    }

    /// Refuses the same, of the way to an upstream.
    pub(crate) fn check_upstream(&self, uri: &http::Uri) -> anyhow::Result<()> {
        let stays_here = is_loopback(uri.host().unwrap_or_default());
        if uri.scheme_str() == Some("http") && !self.insecure_plaintext && !stays_here {
            bail!(
                "--upstream {uri} would be sent passwords in plain text: use https, or --insecure-plaintext if something \
                 between here and there speaks TLS"
            );
        }
        Ok(())
    }
}

/// A name of a client's certificate, and the account that its bearer acts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientAccount {
    pub(crate) name: String,
    pub(crate) account: AccountName,
}

impl FromStr for ClientAccount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, account) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or("the form is NAME=ACCOUNT, such as billing.internal=shop")?;
        let account = account.parse().map_err(|error| format!("{error}"))?;
        Ok(Self {
            name: name.to_owned(),
            account,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(insecure_plaintext: bool) -> TlsOptions {
        TlsOptions {
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_client_accounts: Vec::new(),
            tls_handshake_timeout: Duration::from_secs(1),
            insecure_plaintext,
        }
    }

    #[test]
    fn plain_text_is_for_loopback_unless_it_is_asked_for() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                options(false).check_address("REST", address).is_ok(),
                loopback,
                "{address}"
            );
            assert!(options(true).check_address("REST", address).is_ok());
            let with_tls = TlsOptions {
                tls_cert: Some("cert".into()),
                ..options(false)
            };
            assert!(with_tls.check_address("REST", address).is_ok());
        }
        for (uri, fine) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://gateway:1", false),
            ("http://localhost.example:1", false),
            ("http://10.0.0.1:1", false),
            ("https://gateway:1", true),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!(options(false).check_upstream(&uri).is_ok(), fine, "{uri}");
            assert!(options(true).check_upstream(&uri).is_ok());
        }
    }

    #[test]
    fn a_name_of_a_certificate_stands_for_an_account() {
        let parsed: ClientAccount = "spiffe://prod/billing=a=b".parse().unwrap();
        assert_eq!(
            (&*parsed.name, parsed.account.as_str()),
            ("spiffe://prod/billing", "a=b")
        );
        for text in ["", "a", "=a", "a=", "a=b:c"] {
            assert!(text.parse::<ClientAccount>().is_err(), "{text}");
        }
    }
}
