//! `compat`: sends the documented contract to a deployment, ours or another, and reports row by row what it answers.

mod report;
mod rows;

use std::{io::Write, time::Duration};

use anyhow::{Context, bail};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Method, StatusCode};
use proto::{Reason, Refusal};
use reqwest::{Client, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use self::{
    report::{Difference, Report},
    rows::{Expected, Row},
};
use crate::{account, cli::CompatOptions, tls};

/// How long a deployment has for a row, and for a connection.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);

/// The most bytes of a reply; one with two images has 28 MiB.
const LARGEST: usize = 64 * 1024 * 1024;

/// The variable that the password may come from.
const PASSWORD: &str = "DCAMS_PASSWORD";

pub(crate) async fn run(options: CompatOptions) -> anyhow::Result<()> {
    let password = match account::read(&options.password)? {
        Some(password) => password,
        None => match std::env::var(PASSWORD) {
            Ok(password) if !password.is_empty() => SecretString::from(password),
            _ => bail!("the password is needed: --password-stdin reads it, or the variable {PASSWORD} holds it"),
        },
    };
    let deployment = Deployment::new(&options.url)?;
    let mut session = Session::new(deployment, &options, password);
    let mut report = Report::new(session.password.expose_secret());
    session.begin().await?;
    session.run(&mut report).await;
    report.print()
}

/// Where the rows are sent.
struct Deployment {
    client: Client,
    endpoint: Url,
}

/// What came back.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Deployment {
    fn new(url: &Url) -> anyhow::Result<Self> {
        let mut endpoint = url.clone();
        if !["http", "https"].contains(&endpoint.scheme())
            || endpoint.query().is_some()
            || endpoint.fragment().is_some()
        {
            bail!("--url needs http://HOST:PORT or https://HOST, with the path of the endpoint if it is another one");
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            bail!("--url has no place for a user or a password: --account and --password-stdin have");
        }
        if endpoint.path() == "/" {
            let [path, _] = rest::PATHS;
            endpoint.set_path(path);
        }
        tls::install_provider();
        let client = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT)
                .timeout(PATIENCE)
                .user_agent(concat!("dcams-gateway/", env!("CARGO_PKG_VERSION")))
        };
        let client = match endpoint.scheme() {
            // Without TLS no certificates are needed, and a machine may have none.
            "http" => client().tls_certs_only([]).build(),
            _ => client().build(),
        };
        Ok(Self {
            client: client.context("the client")?,
            endpoint,
        })
    }

    async fn send(&self, row: &Row, values: &Values<'_>) -> anyhow::Result<Reply> {
        let mut url = self.endpoint.to_string();
        url.push_str(row.behind);
        let mut body = values.put_into(&row.body);
        body.resize(body.len().max(row.length), b' ');
        if row.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&body)?;
            body = encoder.finish()?;
        }
        let mut request = self
            .client
            .request(Method::from_bytes(row.method.as_bytes())?, Url::parse(&url)?)
            .body(body);
        for (name, value) in row.headers {
            let value = value.replace("<key>", values.key).replace("<etag>", values.etag);
            request = request.header(*name, value);
        }
        // Its own text has the URL.
        let mut reply = request.send().await.map_err(reqwest::Error::without_url)?;
        let mut body = Vec::new();
        while let Some(part) = reply.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + part.len() > LARGEST {
                bail!("the reply has more than {LARGEST} bytes");
            }
            body.extend_from_slice(&part);
        }
        Ok(Reply {
            status: reply.status(),
            headers: reply.headers().clone(),
            body,
        })
    }
}

/// What is put into the places of a row, each as the content of a JSON string.
struct Values<'a> {
    user: String,
    password: String,
    email: String,
    nobody: String,
    key: &'a str,
    etag: &'a str,
}

impl Values<'_> {
    fn put_into(&self, body: &[u8]) -> Vec<u8> {
        // What is not text has no places.
        let Ok(mut rest) = std::str::from_utf8(body) else {
            return body.to_vec();
        };
        let places = [
            ("USERNAME", &self.user),
            ("PASSWORD", &self.password),
            ("test@veratad.com", &self.email),
            ("nobody@veratad.com", &self.nobody),
        ];
        // From the front on, so that nothing is looked for in what was put in.
        let mut filled = String::with_capacity(rest.len());
        while let Some((at, place, value)) = places
            .iter()
            .filter_map(|(place, value)| Some((rest.find(place)?, *place, *value)))
            .min_by_key(|(at, ..)| *at)
        {
            filled.push_str(rest.get(..at).unwrap_or_default());
            filled.push_str(value);
            rest = rest.get(at + place.len()..).unwrap_or_default();
        }
        filled.push_str(rest);
        filled.into_bytes()
    }
}

/// A text as the content of a JSON string.
fn content(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_default()
        .to_owned()
}

/// The customer, as the deployment shows it: its texts as JSON, quotes included.
#[derive(Clone, Default)]
struct Customer {
    reference: String,
    /// The nine attributes in their order, between the braces of `target`.
    target: String,
    status: String,
    etag: String,
}

/// The nine attributes in the order of the replies.
const ATTRIBUTES: [&str; 9] = ["fn", "ln", "addr", "city", "state", "zip", "dob", "email", "phone"];

impl Customer {
    /// The customer in a reply of `getStatus`, whatever the order of its keys; what is not there is empty.
    fn of(reply: &Reply) -> Self {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let text = |value: &Value| Value::from(value.as_str().unwrap_or_default()).to_string();
        let attributes = ATTRIBUTES.map(|key| format!("\"{key}\":{}", text(&body["target"][key])));
        Self {
            reference: text(&body["reference"]),
            target: attributes.join(","),
            status: body["status"].as_str().unwrap_or_default().to_owned(),
            etag: etag(reply),
        }
    }
}

fn etag(reply: &Reply) -> String {
    let etag = reply.headers.get(http::header::ETAG);
    etag.and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned()
}

/// A run over the table.
struct Session<'a> {
    deployment: Deployment,
    options: &'a CompatOptions,
    password: SecretString,
    nobody: String,
    key: String,
    customer: Option<Customer>,
}

impl<'a> Session<'a> {
    fn new(deployment: Deployment, options: &'a CompatOptions, password: SecretString) -> Self {
        let new = uuid::Uuid::new_v4().simple();
        Self {
            deployment,
            options,
            password,
            nobody: format!("nobody-{new}@example.com"),
            key: format!("compat-{new}"),
            customer: None,
        }
    }

    fn values(&self, row: &Row) -> Values<'_> {
        // A deployment that takes what it should refuse must not change a customer of somebody's.
        let email = match &self.options.email {
            Some(email) if self.options.write || !row.changes() => email,
            _ => &self.nobody,
        };
        Values {
            user: content(&self.options.account),
            password: content(self.password.expose_secret()),
            email: content(email),
            nobody: content(&self.nobody),
            key: &self.key,
            etag: self.customer.as_ref().map_or("", |customer| &customer.etag),
        }
    }

    /// Makes sure that there is a deployment that knows the account, and looks for the customer.
    async fn begin(&mut self) -> anyhow::Result<()> {
        let row = rows::read();
        let reply = self.deployment.send(&row, &self.values(&row)).await;
        let reply = reply.with_context(|| format!("{} does not answer", self.deployment.endpoint))?;
        match reply.status {
            StatusCode::UNAUTHORIZED => bail!("the deployment refuses the password of {}", self.options.account),
            StatusCode::OK if self.options.email.is_some() => self.customer = Some(Customer::of(&reply)),
            _ if self.options.email.is_some() && !self.options.write => {
                bail!("the account has no customer with that address; with --write it would be made")
            }
            _ => {}
        }
        Ok(())
    }

    async fn run(&mut self, report: &mut Report) {
        let before = self.customer.clone();
        match before {
            Some(_) if self.options.write => report.skip(&rows::customer(), "the customer is there already"),
            _ => self.send_all(&rows::customer(), report).await,
        }
        for table in rows::tables() {
            self.send_all(&table, report).await;
        }
        if self.options.write
            && let Some(before) = before
            && let Some(row) = rows::restore(&before.status)
        {
            self.send_all(&[row], report).await;
        }
    }

    async fn send_all(&mut self, table: &[Row], report: &mut Report) {
        for row in table {
            match self.reason_to_skip(row) {
                Some(why) => report.skip(std::slice::from_ref(row), why),
                None => self.send(row, report).await,
            }
        }
    }

    /// Why a row is not sent.
    fn reason_to_skip(&self, row: &Row) -> Option<&'static str> {
        let writes = match row.expected {
            Expected::Updated(_) | Expected::Put | Expected::Created => true,
            // They are said of a change that would be made otherwise.
            Expected::Error(reason) => matches!(reason, Reason::Conflict | Reason::KeyReused) || row.creates(),
            Expected::Invalid(_) => row.creates(),
            Expected::Read | Expected::Images => false,
        };
        let reads = matches!(row.expected, Expected::Read | Expected::Images);
        if writes && !self.options.write {
            return Some("it may write: see --write");
        }
        (reads && self.customer.is_none()).then_some("there is no customer: see --email")
    }

    async fn send(&mut self, row: &Row, report: &mut Report) {
        let values = self.values(row);
        match self.deployment.send(row, &values).await {
            Ok(reply) => {
                drop(values);
                let differences = self.judge(row, &reply);
                report.headers(row, &reply.headers, reply.status);
                report.add(row, differences);
            }
            Err(error) => {
                drop(values);
                report.add(row, vec![Difference::nothing(&format!("{error:#}"))]);
            }
        }
    }

    /// How a reply differs from what is expected.
    fn judge(&mut self, row: &Row, reply: &Reply) -> Vec<Difference> {
        let (status, body) = self.expected(row, reply);
        let mut differences = Vec::new();
        if reply.status != status {
            differences.push(Difference::of("status", status.as_str(), reply.status.as_str()));
        }
        let content_type = reply.headers.get(http::header::CONTENT_TYPE);
        let content_type = content_type.map(|value| value.as_bytes()).unwrap_or_default();
        if content_type != b"application/json" {
            differences.push(Difference::of("content-type", "application/json", content_type));
        }
        if reply.body != body.as_bytes() {
            differences.push(Difference::of("body", &body, &reply.body));
        }
        differences
    }

    /// What a row is to be answered with. What a deployment makes up itself is taken from its reply.
    fn expected(&mut self, row: &Row, reply: &Reply) -> (StatusCode, String) {
        let refused = |refusal: Refusal| {
            let message = Value::from(refusal.message());
            let body = format!("{{\"result\":\"Error\",\"message\":{message}}}");
            (refusal.reason.http_status(), body)
        };
        let got: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let got_text = |pointer: &str| Value::from(got.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
        match row.expected {
            Expected::Error(reason) => return refused(reason.into()),
            Expected::Invalid(field) => return refused(Refusal::fields(Reason::InvalidField, [field])),
            Expected::Updated(status) => {
                if let Some(customer) = &mut self.customer {
                    customer.status = status.to_owned();
                    customer.etag = etag(reply);
                }
            }
            Expected::Created => {
                self.customer = Some(Customer {
                    reference: "\"888888812\"".to_owned(),
                    target: rows::JOHN.replace(
                        "\"test@veratad.com\"",
                        &Value::from(self.options.email.as_deref().unwrap_or_default()).to_string(),
                    ),
                    status: "PENDING".to_owned(),
                    etag: etag(reply),
                });
            }
            Expected::Read | Expected::Put | Expected::Images => {}
        }
        let Customer {
            reference,
            target,
            status,
            ..
        } = self.customer.clone().unwrap_or_default();
        let body = match row.expected {
            Expected::Read => {
                format!(r#"{{"result":"Success","reference":{reference},"status":"{status}","target":{{{target}}}}}"#)
            }
            Expected::Images => format!(
                r#"{{"result":"Success","reference":{reference},"status":"{status}","target":{{{target},"documents":{{"front":{},"back":{}}}}}}}"#,
                got_text("/target/documents/front"),
                got_text("/target/documents/back"),
            ),
            Expected::Created | Expected::Put => {
                let kind = match row.expected {
                    Expected::Created => "createCustomer",
                    _ => "updateCustomer",
                };
                let link = got_text("/customer_link");
                format!(
                    r#"{{"result":"Success","reference":{reference},"customer_link":{link},"status":"{status}","type":"{kind}","target":{{{target}}}}}"#
                )
            }
            _ => format!(r#"{{"result":"Success","reference":{reference},"target":{{{target},"status":"{status}"}}}}"#),
        };
        (StatusCode::OK, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_from_the_front_and_once() {
        let values = Values {
            user: content("a \"PASSWORD\" \\"),
            password: content("USERNAME"),
            email: content("é@example.com"),
            nobody: content("n@example.com"),
            key: "",
            etag: "",
        };
        let body = r#"{"user":" USERNAME ","pass":"PASSWORD","a":"test@veratad.com","b":"nobody@veratad.com"}"#;
        let filled = String::from_utf8(values.put_into(body.as_bytes())).unwrap();
        assert_eq!(
            filled,
            r#"{"user":" a \"PASSWORD\" \\ ","pass":"USERNAME","a":"é@example.com","b":"n@example.com"}"#
        );
        assert_eq!(values.put_into(b"\xffUSERNAME"), b"\xffUSERNAME");
    }

    #[test]
    fn the_url_is_that_of_the_deployment_or_of_its_endpoint() {
        for (url, endpoint) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v3/stable/api/storage"),
            ("https://dcams.example/", "https://dcams.example/v3/stable/api/storage"),
            ("https://dcams.example/api", "https://dcams.example/api"),
        ] {
            let deployment = Deployment::new(&url.parse().unwrap()).unwrap();
            assert_eq!(deployment.endpoint.as_str(), endpoint);
        }
        for url in ["ftp://a/", "http://a:b@c/", "http://a@c/", "http://a/?b", "http://a/#b"] {
            assert!(Deployment::new(&url.parse().unwrap()).is_err(), "{url}");
        }
    }
}
