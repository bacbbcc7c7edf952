//! `serve --demo`: the account and the customer of the contract's own sample, and how to ask for them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use secrecy::SecretString;
use store::{AccountName, Email, Error, Face, NewCustomer, Origin, Profile, Store};

use crate::account;

const USER: &str = "USERNAME";
const PASSWORD: &str = "PASSWORD";
const EMAIL: &str = "test@veratad.com";

/// How long the store has for each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes sure that the account and the customer of the sample are there. What is there already stays as it is.
pub(crate) async fn seed(store: &Store) -> anyhow::Result<()> {
    let name: AccountName = USER.parse()?;
    let hash = account::hash(SecretString::from(PASSWORD)).await?;
    match store.create_account(&name, hash, deadline()).await {
        Ok(()) | Err(Error::AccountExists) => {}
        Err(error) => return Err(error).context("the demo account"),
    }
    let account = store.account(USER, deadline()).await?;
    let principal = store::Principal {
        account: account.id,
        authority: store::Authority::Operator,
    };
    let email = Email::parse(EMAIL)?;
    match store.customer(principal, email.key().clone(), deadline()).await {
        Ok(_) => return Ok(()),
        Err(Error::CustomerNotFound) => {}
        Err(error) => return Err(error).context("the demo customer"),
    }
    let customer = NewCustomer {
        reference: "888888812".to_owned(),
        profile: Profile {
            email: EMAIL.to_owned(),
            first_name: "John".to_owned(),
            last_name: "Smith".to_owned(),
            address: "123 Main St".to_owned(),
            city: "Stratford".to_owned(),
            state: "CT".to_owned(),
            zip: "06614".to_owned(),
            date_of_birth: "19700101".to_owned(),
            phone: "2015106000".to_owned(),
        },
        ..NewCustomer::new(email)
    };
    let origin = Origin {
        actor: "demo".to_owned(),
        face: Face::Cli,
        request_id: proto::request_id(None),
    };
    store
        .import(account.id, vec![customer], origin, deadline())
        .await
        .context("the demo customer")?;
    Ok(())
}

/// What to paste into a terminal, and what not to do. With TLS the certificate is not checked: it is hardly one for an
/// address.
pub(crate) fn instructions(rest: SocketAddr, grpc: SocketAddr, with_tls: bool) -> Vec<String> {
    let (curl, grpcurl) = match with_tls {
        true => ("curl -k", "grpcurl -insecure"),
        false => ("curl", "grpcurl -plaintext"),
    };
    let scheme = if with_tls { "https" } else { "http" };
    let body = format!(
        r#"{{"user":"{USER}","pass":"{PASSWORD}","service":"updateStatus","target":{{"email":"{EMAIL}","status":"PASS"}}}}"#
    );
    let customer = format!(
        r#"{{"user":"{USER}","pass":"{PASSWORD}","service":"createOrUpdateCustomer","target":{{"email":"ann@example.com","fn":"Ann","ln":"Lee"}}}}"#
    );
    let message = format!(r#"{{"email":"{EMAIL}","status":"STATUS_PASS"}}"#);
    [
        "",
        "This is a demo: its password is known to everybody. Try it from another terminal:",
        "",
        &format!("{curl} -d '{body}' {scheme}://{rest}/v3/stable/api/storage"),
        "",
        &format!("{curl} -d '{customer}' {scheme}://{rest}/v3/stable/api/storage"),
        "",
        &format!(
            "{grpcurl} -H \"authorization: Basic $(printf {USER}:{PASSWORD} | base64 | tr -d '\\n')\" -d '{message}' {grpc} \
             dcams.storage.v1.StorageService/UpdateStatus"
        ),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Says so when a store that is served in earnest still has the account of the demo.
pub(crate) async fn warn_if_present(store: &Store) {
    if let Ok(account) = store.account(USER, deadline()).await
        && account.enabled
    {
        tracing::warn!(
            "the store has an account {USER}, as --demo makes it: if its password is still the known one, run \
             `dcams-gateway account disable {USER}`"
        );
    }
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
