//! The credentials of a call, and operations that are done only while these hold.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use credentials::{Account, Verified};
use proto::{ClientAddress, MAX_PASSWORD, Reason, Refusal};
use secrecy::SecretString;
use store::{AccountName, Authority, Face, Origin, Principal};
use tonic::{Request, Status};

use crate::{Service, convert, edge::Passed, telemetry::Caller};

/// A call, but for its message: who calls, from where, and until when there is time.
pub(crate) struct Call {
    user: AccountName,
    password: SecretString,
    from: IpAddr,
    face: Face,
    request_id: String,
    pub(crate) deadline: Instant,
    caller: Caller,
}

impl Call {
    /// Reads a call's metadata. Whatever cannot be the credentials of an account is refused at once: that tells nobody
    /// more than the rules for names and passwords, which are public.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let passed = request.extensions().get::<Passed>().ok_or(Reason::Internal)?;
        let (user, password) = basic(request).ok_or(Reason::BadCredentials)?;
        let from = request.extensions().get::<ClientAddress>();
        Ok(Self {
            user,
            password,
            // A caller without an address is a task of this process.
            from: from.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |from| from.0),
            face: passed.face,
            request_id: passed.request_id.clone(),
            deadline: passed.deadline,
            caller: passed.caller.clone(),
        })
    }

    /// The name of the account.
    pub(crate) fn account(&self) -> &str {
        self.user.as_str()
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// What the history keeps of the call.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            actor: self.user.as_str().to_owned(),
            face: self.face,
            request_id: self.request_id.clone(),
        }
    }
}

/// User and password of `authorization: Basic`, RFC 7617.
fn basic<T>(request: &Request<T>) -> Option<(AccountName, SecretString)> {
    let header = request.metadata().get("authorization")?.as_bytes();
    let (scheme, encoded) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    if !(1..=MAX_PASSWORD).contains(&password.len()) {
        return None;
    }
    Some((user.parse().ok()?, SecretString::from(password)))
}

impl Service {
    /// Does an operation on behalf of the caller. Faulty input is refused only once the credentials hold: before that,
    /// a caller learns nothing.
    ///
    /// Credentials that are remembered were good at some time; the store decides, in the transaction of the operation,
    /// whether they still are. If not, they are verified anew, once: the password may have been changed to this one.
    pub(crate) async fn perform<I: Clone, T, F>(
        &self,
        call: &Call,
        input: Result<I, Refusal>,
        operation: impl Fn(Principal, I) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = store::Result<T>>,
    {
        let attempt = async |principal: Principal| {
            call.caller.note(Some(call.account()));
            let result = match &input {
                Ok(input) => operation(principal, input.clone()).await.map_err(Failure::Store),
                Err(refusal) => match self.store.confirm(principal, call.deadline).await {
                    Ok(()) => Err(Failure::Refused(refusal.clone())),
                    Err(error) => Err(Failure::Store(error)),
                },
            };
            if let Err(Failure::Store(store::Error::StaleCredentials)) = result {
                call.caller.note(None);
            }
            result
        };
        let remembered = self
            .credentials
            .remembered(call.user.as_str(), &call.password, call.from);
        let mut result = match remembered.map_err(refusal)? {
            Some(verified) => attempt(principal(verified)).await,
            None => attempt(self.verify(call).await?).await,
        };
        if let Err(Failure::Store(store::Error::StaleCredentials)) = result {
            self.credentials.forget(call.user.as_str(), &call.password);
            result = attempt(self.verify(call).await?).await;
        }
        result.map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Store(error) => convert::refusal(error, &call.request_id).into(),
        })
    }

    /// Verifies the caller's password against the account as it is now.
    async fn verify(&self, call: &Call) -> Result<Principal, Status> {
        let account = match self.store.account(call.user.as_str(), call.deadline).await {
            Ok(account) => Some(Account {
                id: account.id,
                version: account.credential_version,
                hash: account.password_hash,
                enabled: account.enabled,
            }),
            Err(store::Error::AccountNotFound) => None,
            Err(error) => return Err(convert::reason(error, &call.request_id).into()),
        };
        let verified = self
            .credentials
            .verify(call.user.as_str(), &call.password, call.from, account)
            .await;
        Ok(principal(verified.map_err(refusal)?))
    }
}

/// Why an operation was not done.
enum Failure {
    Refused(Refusal),
    Store(store::Error),
}

fn principal(verified: Verified) -> Principal {
    Principal {
        account: verified.account,
        authority: Authority::Credentials {
            version: verified.version,
        },
    }
}

fn refusal(error: credentials::Error) -> Refusal {
    match error {
        credentials::Error::Wrong => Reason::BadCredentials.into(),
        credentials::Error::Throttled(wait) => Refusal::retry_after(Reason::Throttled, wait),
        credentials::Error::Busy => Reason::Unavailable.into(),
    }
}
