//! Who calls, by a password, an API token or a certificate, and operations that are done only while that holds and permits them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use credentials::{Account, Granted, Token, TokenRecord, Verified};
use proto::{ClientAddress, MAX_PASSWORD, Reason, Refusal};
use secrecy::SecretString;
use store::{AccountName, Authority, Face, Origin, Principal, Scopes, StoredToken};
use tonic::{Request, Status};

use crate::{
    Service,
    calls::{Place, TooMany},
    convert,
    edge::Passed,
    telemetry::Caller,
};

/// The account that a caller's certificate stands for: an extension of the request, from the listener that has verified
/// the certificate.
#[derive(Clone, Debug)]
pub struct CertificateAccount(pub AccountName);

/// How long the store has to note that a token is in use. Nobody waits for it.
const NOTE: Duration = Duration::from_secs(5);

/// A call, but for its message: who calls, from where, and until when there is time.
pub(crate) struct Call {
    identity: Identity,
    from: IpAddr,
    face: Face,
    request_id: String,
    pub(crate) deadline: Instant,
    /// Whether it was counted against the account's rate.
    counted: AtomicBool,
    /// Its place among the calls that are under way; none once it only streams.
    place: Option<Place>,
    /// Where it is noted whose credentials hold.
    caller: Caller,
}

/// How a caller says who it is.
enum Identity {
    Basic {
        user: AccountName,
        password: SecretString,
    },
    Bearer(Token),
    /// The listener has verified its certificate.
    Certificate(AccountName),
}

impl Call {
    /// Gives up its place: a stream has a seat of its own.
    pub(crate) fn leave(&mut self) {
        drop(self.place.take());
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// What the history keeps of the call.
    pub(crate) fn origin(&self, actor: Actor) -> Origin {
        Origin {
            actor: actor.named(),
            face: self.face,
            request_id: self.request_id.clone(),
        }
    }

    /// The refusal as this caller is told it: who came with a token has no password to look at.
    pub(crate) fn refused(&self, refusal: Refusal) -> Status {
        match self.identity {
            Identity::Bearer(_) if refusal.reason == Reason::BadCredentials => {
                refusal.into_status("The token is unknown, revoked or expired, or its account is disabled".to_owned())
            }
            _ => refusal.into(),
        }
    }
}

impl Identity {
    /// Only a call that sends no credentials at all is one of its certificate.
    fn of<T>(request: &Request<T>) -> Option<Self> {
        let Some(header) = request.metadata().get("authorization") else {
            let CertificateAccount(account) = request.extensions().get()?;
            return Some(Self::Certificate(account.clone()));
        };
        let header = header.as_bytes();
        let after = |scheme: &str| {
            let (beginning, rest) = header.split_at_checked(scheme.len())?;
            beginning
                .eq_ignore_ascii_case(scheme.as_bytes())
                .then_some(rest.trim_ascii())
        };
        match after("basic ") {
            Some(encoded) => Self::basic(encoded),
            None => {
                let token = str::from_utf8(after("bearer ")?).ok()?;
                Some(Self::Bearer(Token::read(token)?))
            }
        }
    }

    /// User and password of `authorization: Basic`, RFC 7617.
    fn basic(encoded: &[u8]) -> Option<Self> {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        if !(1..=MAX_PASSWORD).contains(&password.len()) {
            return None;
        }
        Some(Self::Basic {
            user: user.parse().ok()?,
            password: SecretString::from(password),
        })
    }
}

/// The user of a call with `authorization: Basic`, if it can be one.
pub(crate) fn user<T>(request: &Request<T>) -> Option<AccountName> {
    match Identity::of(request)? {
        Identity::Basic { user, .. } => Some(user),
        Identity::Bearer(_) | Identity::Certificate(_) => None,
    }
}

/// An account, and what acts for it: its password, a certificate, or a token.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) principal: Principal,
    account: String,
    /// None for who has the password or a certificate, which are good for everything.
    token: Option<Arc<Granted>>,
}

impl Actor {
    fn of_account(user: &AccountName, Verified { account, version }: Verified) -> Self {
        Self {
            principal: principal(account, version),
            account: user.as_str().to_owned(),
            token: None,
        }
    }

    fn of_token(granted: Arc<Granted>) -> Self {
        Self {
            principal: principal(granted.account, granted.version),
            account: granted.account_name.clone(),
            token: Some(granted),
        }
    }

    /// The name of the account.
    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// Whether it is a token that has expired.
    pub(crate) fn expired(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.expired(Instant::now()))
    }

    fn may(&self, scopes: Scopes) -> bool {
        self.token
            .as_ref()
            .is_none_or(|token| Scopes::from_bits(token.scopes).include(scopes))
    }

    /// As the history names it: the account, and behind a slash the token.
    fn named(self) -> String {
        match self.token {
            Some(token) => format!("{}/{}", self.account, token.token),
            None => self.account,
        }
    }
}

impl Service {
    /// Reads a call's metadata, and gives it a place among those that are under way: its message has arrived, so that nobody
    /// holds a place by being slow. Whatever cannot be the credentials of an account is refused at once: that tells nobody
    /// more than the rules for names, passwords and tokens, which are public.
    pub(crate) fn begin<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let place = self.calls.enter().map_err(|TooMany| Reason::Overloaded)?;
        let passed = request.extensions().get::<Passed>().ok_or(Reason::Internal)?;
        let from = request.extensions().get::<ClientAddress>();
        Ok(Call {
            identity: Identity::of(request).ok_or(Reason::BadCredentials)?,
            // A caller without an address is a task of this process.
            from: from.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |from| from.0),
            face: passed.face,
            request_id: passed.request_id.clone(),
            deadline: passed.deadline,
            counted: AtomicBool::new(false),
            place: Some(place),
            caller: passed.caller.clone(),
        })
    }

    /// Does an operation on behalf of the caller. Faulty input is refused only once the credentials hold: before that,
    /// a caller learns nothing. What its scopes do not include is refused before its input is judged.
    ///
    /// Credentials that are remembered were good at some time; the store decides, in the transaction of the operation,
    /// whether they still are. If not, they are verified anew, once: the password may have been changed to this one.
    pub(crate) async fn perform<I: Clone, T, F>(
        &self,
        call: &Call,
        scopes: impl Into<Scopes>,
        input: Result<I, Refusal>,
        operation: impl Fn(Actor, I) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = store::Result<T>>,
    {
        let scopes = scopes.into();
        let attempt = async |actor: Actor| {
            call.caller.note(Some(actor.account()));
            if !call.counted.swap(true, Ordering::Relaxed) {
                self.rates.admit(actor.principal.account)?;
            }
            let refused = match &input {
                _ if !actor.may(scopes) => Reason::PermissionDenied.into(),
                Ok(input) => return Ok(operation(actor, input.clone()).await?),
                Err(refusal) => refusal.clone(),
            };
            self.store.confirm(actor.principal, call.deadline).await?;
            Err(Failure::Refused(refused))
        };
        let anew = async || attempt(self.verify(call, call.deadline).await?).await;
        let mut result = match self.remembered(call) {
            Ok(Some(actor)) => attempt(actor).await,
            Ok(None) => anew().await,
            Err(refusal) => Err(refusal.into()),
        };
        if let Err(Failure::Store(store::Error::StaleCredentials)) = result {
            call.caller.note(None);
            self.forget(call);
            result = anew().await;
        }
        if let Err(Failure::Store(store::Error::StaleCredentials)) = result {
            call.caller.note(None);
        }
        result.map_err(|failure| {
            call.refused(match failure {
                Failure::Refused(refusal) => refusal,
                Failure::Store(error) => convert::refusal(error, &call.request_id),
            })
        })
    }

    /// Who calls, if that was verified lately.
    fn remembered(&self, call: &Call) -> Result<Option<Actor>, Refusal> {
        match &call.identity {
            Identity::Basic { user, password } => {
                let verified = self.credentials.remembered(user.as_str(), password, call.from);
                Ok(verified
                    .map_err(refusal)?
                    .map(|verified| Actor::of_account(user, verified)))
            }
            Identity::Bearer(token) => {
                let granted = self.credentials.remembered_token(token, call.from);
                Ok(granted.map_err(refusal)?.map(Actor::of_token))
            }
            Identity::Certificate(_) => Ok(None),
        }
    }

    fn forget(&self, call: &Call) {
        match &call.identity {
            Identity::Basic { user, password } => self.credentials.forget(user.as_str(), password),
            Identity::Bearer(token) => self.credentials.forget_token(token),
            Identity::Certificate(_) => {}
        }
    }

    /// Verifies who calls against the account, or the token, as it is now.
    pub(crate) async fn verify(&self, call: &Call, deadline: Instant) -> Result<Actor, Refusal> {
        match &call.identity {
            Identity::Basic { user, password } => {
                let account = self.stored(user, call, deadline).await?;
                let verified = self.credentials.verify(user.as_str(), password, call.from, account);
                Ok(Actor::of_account(user, verified.await.map_err(refusal)?))
            }
            Identity::Bearer(token) => {
                let stored = self.store.token(token.id(), deadline).await;
                let stored = stored.map_err(|error| convert::refusal(error, &call.request_id))?;
                let used = stored.as_ref().and_then(|stored| stored.used);
                let granted = self
                    .credentials
                    .verify_token(token, call.from, stored.map(record))
                    .map_err(refusal)?;
                self.note_use(&granted, used);
                Ok(Actor::of_token(granted))
            }
            // It stands for the account as long as that is enabled.
            Identity::Certificate(user) => match self.stored(user, call, deadline).await? {
                Some(Account {
                    id: account,
                    version,
                    enabled: true,
                    ..
                }) => Ok(Actor::of_account(user, Verified { account, version })),
                _ => Err(Reason::BadCredentials.into()),
            },
        }
    }

    /// The account as the store has it now, if it is there.
    async fn stored(&self, user: &AccountName, call: &Call, deadline: Instant) -> Result<Option<Account>, Refusal> {
        match self.store.account(user.as_str(), deadline).await {
            Ok(account) => Ok(Some(Account {
                id: account.id,
                version: account.credential_version,
                hash: account.password_hash,
                enabled: account.enabled,
            })),
            Err(store::Error::AccountNotFound) => Ok(None),
            Err(error) => Err(convert::refusal(error, &call.request_id)),
        }
    }

    /// Notes that a token is in use, in its own time. A note that is lost is made again when the token is next verified.
    fn note_use(&self, granted: &Granted, used: Option<SystemTime>) {
        let (store, token) = (self.store.clone(), granted.token.clone());
        tokio::spawn(async move {
            if let Err(error) = store.note_token_use(&token, used, Instant::now() + NOTE).await {
                tracing::debug!(token, %error, "the use of a token was not noted");
            }
        });
    }
}

/// What the store knows of a token, as of now.
fn record(stored: StoredToken) -> TokenRecord {
    let left = |expires: SystemTime| expires.duration_since(SystemTime::now()).unwrap_or_default();
    TokenRecord {
        account: stored.account,
        account_name: stored.account_name,
        version: stored.credential_version,
        hash: stored.hash,
        valid: stored.valid,
        expires_in: stored.expires.map(left),
        scopes: stored.scopes.bits(),
    }
}

/// Why an operation was not done.
enum Failure {
    Refused(Refusal),
    Store(store::Error),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn principal(account: i64, version: i64) -> Principal {
    Principal {
        account,
        authority: Authority::Credentials { version },
    }
}

fn refusal(error: credentials::Error) -> Refusal {
    match error {
        credentials::Error::Wrong => Reason::BadCredentials.into(),
        credentials::Error::Throttled(wait) => Refusal::retry_after(Reason::Throttled, wait),
        credentials::Error::Busy => Reason::Unavailable.into(),
    }
}
