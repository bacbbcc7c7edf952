//! A receiver of webhooks that checks signatures by itself, and answers as it is told.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::support::{eventually, until};

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// With a redirect to this URL.
    Redirect(String),
    /// Not at all.
    Never,
    /// With the end of the connection.
    Close,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
    pub body: String,
    /// The id, which stays the same when a change is sent again.
    pub id: String,
    pub signatures: Vec<String>,
    pub answer: Answer,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn text(&self, key: &str) -> String {
        self.json()[key].as_str().unwrap().to_owned()
    }

    /// Whether it was taken.
    pub fn taken(&self) -> bool {
        matches!(self.answer, Answer::Status(200..300))
    }

    /// Whether one of its signatures is by a secret.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        self.signatures.contains(&self.signature(secret))
    }

    /// The signature that a secret makes.
    pub fn signature(&self, secret: &str) -> String {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(key.len(), 32);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(
            format!(
                "{}.{}.{}",
                self.id,
                self.header("webhook-timestamp").unwrap(),
                self.body
            )
            .as_bytes(),
        );
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

type Rule = Box<dyn FnMut(&Request) -> Answer + Send>;

struct State {
    rule: Rule,
    requests: Vec<Request>,
    /// Requests that are being answered.
    open: usize,
    /// The most that there were of these at once.
    most: usize,
}

/// The receiver. It listens until the process ends.
pub struct Receiver {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// A receiver that takes everything.
    pub fn start() -> Self {
        Self::listen("http://127.0.0.1", |stream, state| {
            answer_all(stream, state);
        })
    }

    /// One with TLS, for a name that it says is its own; and its certificate.
    pub fn start_with_tls(name: &str) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let receiver = Self::listen("https://localhost", move |stream, state| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            answer_all(rustls::StreamOwned::new(connection, stream), state);
        });
        (receiver, made.cert.pem())
    }

    fn listen(host: &str, serve: impl Fn(TcpStream, &Mutex<State>) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("{host}:{}/hook", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State {
            rule: Box::new(|_| Answer::Status(204)),
            requests: Vec::new(),
            open: 0,
            most: 0,
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, serve) = (Arc::clone(&shared), serve.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Self { url, state }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Has requests answered otherwise from now on.
    pub fn answers(&self, rule: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.state.lock().unwrap().rule = Box::new(rule);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }

    /// The most that were answered at once.
    pub fn most(&self) -> usize {
        self.state.lock().unwrap().most
    }

    /// The requests that were taken, each change once: as it came first.
    pub fn taken(&self) -> Vec<Request> {
        let mut seen = std::collections::HashSet::new();
        let mut taken = self.requests();
        taken.retain(|request| request.taken() && seen.insert(request.id.clone()));
        taken
    }

    /// The statuses that were taken for a customer.
    pub fn statuses(&self, email: &str) -> Vec<String> {
        let taken = self.taken();
        let of_customer = taken.iter().filter(|request| request.text("email") == email);
        of_customer.map(|request| request.text("status")).collect()
    }

    /// Waits until so many requests came.
    #[track_caller]
    pub fn has(&self, requests: usize) {
        eventually(&format!("{requests} requests, of {}", self.count()), || {
            std::thread::sleep(LOOK);
            self.count() >= requests
        });
    }

    /// Waits until so many changes were taken, and gives them.
    #[track_caller]
    pub fn has_taken(&self, changes: usize) -> Vec<Request> {
        until(&format!("{changes} changes"), || {
            std::thread::sleep(LOOK);
            Some(self.taken()).filter(|taken| taken.len() >= changes)
        })
    }
}

/// How often a test looks.
pub const LOOK: Duration = Duration::from_millis(10);

/// Answers what comes over a connection, until it is over.
fn answer_all(stream: impl Read + Write, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    while serve(&mut stream, state).is_some() {}
}

/// Answers a request; none when the connection is over.
fn serve(stream: &mut BufReader<impl Read + Write>, state: &Mutex<State>) -> Option<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut request = Request {
        head,
        body: String::new(),
        id: String::new(),
        signatures: Vec::new(),
        answer: Answer::Never,
    };
    let length = request.header("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    request.id = request.header("webhook-id")?.to_owned();
    request.signatures = request
        .header("webhook-signature")?
        .split(' ')
        .map(str::to_owned)
        .collect();
    let answer = {
        let mut state = state.lock().unwrap();
        request.answer = (state.rule)(&request);
        state.requests.push(request.clone());
        state.open += 1;
        state.most = state.most.max(state.open);
        request.answer.clone()
    };
    let answered = match answer {
        Answer::Status(status) => {
            let text = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                if status == 204 { 0 } else { 2 }
            );
            let body = if status == 204 { "" } else { "ok" };
            send(stream, &format!("{text}{body}"))
        }
        Answer::Redirect(to) => {
            let text = format!("HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            send(stream, &text)
        }
        // Until the other side has enough.
        Answer::Never => {
            let _ = stream.read(&mut [0]);
            None
        }
        Answer::Close => None,
    };
    state.lock().unwrap().open -= 1;
    answered
}

fn send(stream: &mut BufReader<impl Read + Write>, text: &str) -> Option<()> {
    stream.get_mut().write_all(text.as_bytes()).ok()?;
    stream.get_mut().flush().ok()
}

/// Makes sure that a request is one of the vendor's, signed by a secret, and was just made.
#[track_caller]
pub fn check(request: &Request, secret: &str) {
    assert!(request.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("content-type"), Some("application/json"));
    let keys: Vec<String> = request.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        [
            "fn",
            "ln",
            "addr",
            "city",
            "state",
            "zip",
            "dob",
            "email",
            "reference",
            "status"
        ]
    );
    assert!(!request.id.is_empty() && !request.id.contains('.'), "{}", request.id);
    assert!(request.is_signed_by(secret), "{request:?}");
    let signed: u64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(signed.abs_diff(now) < 120, "{signed}");
}
