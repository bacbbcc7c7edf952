//! Sends something to a webhook, once, signed as <https://www.standardwebhooks.com> says.

use std::{error::Error, time::Duration};

use anyhow::Context;
use reqwest::{Client, Response, StatusCode, redirect};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};
use store::WebhookTarget;

use super::address::{InvalidUrl, Refused, Resolver, Rules};
use crate::tls;

/// The most bytes of an answer that are read, so that its connection can be used again.
const ANSWER: usize = 16 * 1024;

/// The longest that the rest of an answer is waited for.
const REST: Duration = Duration::from_secs(1);

/// How long a connection is kept that nothing is sent over.
const IDLE: Duration = Duration::from_secs(30);

/// What makes connections to receivers.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client,
    rules: Rules,
}

/// Why something was not delivered. Nothing in it comes from the receiver, so that it can be logged and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the receiver answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error("there was no answer in time")]
    Timeout,
    #[error("there is no connection")]
    Connection,
    #[error("the TLS connection failed: its certificate is not trusted, or it speaks no TLS")]
    Tls,
    #[error("the connection ended before an answer")]
    Broken,
    #[error("the address of the host is not a public one")]
    Refused,
    #[error("{0}")]
    Url(InvalidUrl),
    #[error("it could not be signed")]
    Signature,
}

impl Sender {
    /// `connect` is how long a connection may take to make, `total` all of it.
    pub(crate) fn new(rules: Rules, connect: Duration, total: Duration) -> anyhow::Result<Self> {
        tls::install_provider();
        let client = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Resolver(rules))
                .connect_timeout(connect)
                .timeout(total)
                .pool_idle_timeout(IDLE)
                .user_agent(concat!("dcams-gateway/", env!("CARGO_PKG_VERSION")))
        };
        let client = client().build().or_else(|_| {
            // Whoever has no webhooks, or only some on loopback, needs none.
            tracing::warn!("the system has no certificates: what a webhook's URL with TLS is sent will not arrive");
            client().tls_certs_only([]).build()
        });
        let client = client.context("the client for webhooks")?;
        Ok(Self { client, rules })
    }

    /// Sends a body under an id, which stays the same when it is sent again. Any 2xx means that it was taken.
    pub(crate) async fn send(&self, target: &WebhookTarget, id: &str, body: Vec<u8>) -> Result<StatusCode, Failure> {
        let url = self.rules.check(&target.url).map_err(Failure::Url)?;
        let now = jiff::Timestamp::now().as_second();
        let signature = sign(target, id, now, &body).ok_or(Failure::Signature)?;
        let request = self
            .client
            .post(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, now)
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(body);
        let answer = request.send().await.map_err(|error| failure(&error))?;
        let status = answer.status();
        // It is taken, or not, by now.
        let _ = tokio::time::timeout(REST, drain(answer)).await;
        match status.is_success() {
            true => Ok(status),
            false => Err(Failure::Status(status)),
        }
    }
}

/// A signature for each secret that counts.
fn sign(target: &WebhookTarget, id: &str, now: i64, body: &[u8]) -> Option<String> {
    let signatures: Vec<String> = target
        .secrets
        .iter()
        .map(|secret| {
            standardwebhooks::Webhook::from_bytes(secret.bytes().to_vec())
                .and_then(|webhook| webhook.sign(id, now, body))
                .ok()
        })
        .collect::<Option<_>>()?;
    Some(signatures.join(" "))
}

async fn drain(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(part)) = answer.chunk().await {
        read += part.len();
        if read > ANSWER {
            return;
        }
    }
}

/// What an error of the client means. Its own text has the URL.
fn failure(error: &reqwest::Error) -> Failure {
    let mut causes = std::iter::successors(error.source(), |cause| cause_of(*cause));
    let known = causes.find_map(|cause| {
        if cause.is::<Refused>() {
            Some(Failure::Refused)
        } else if cause.is::<rustls::Error>() {
            Some(Failure::Tls)
        } else {
            None
        }
    });
    match known {
        Some(failure) => failure,
        None if error.is_timeout() => Failure::Timeout,
        None if error.is_connect() => Failure::Connection,
        None => Failure::Broken,
    }
}

/// What caused an error. One of I/O does not name what stands inside it as its cause.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
