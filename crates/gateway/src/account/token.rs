//! `account token`: what acts for an account without its password.

use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use credentials::Token as Secret;
use secrecy::ExposeSecret;
use store::{NewToken, Store, Token};

use crate::cli::TokenCommand;

pub(super) async fn run(store: &Store, command: TokenCommand, deadline: Instant) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create {
            name,
            scopes,
            expires,
            label,
        } => {
            let token = Secret::generate();
            let new = NewToken {
                id: token.id().to_owned(),
                hash: token.hash(),
                scopes: scopes.into_iter().collect(),
                label: label.unwrap_or_default(),
                expires: expires.map(|age| SystemTime::now() + age),
            };
            store
                .create_token(&name, new, deadline)
                .await
                .with_context(|| name.to_string())?;
            say!("token {} of account {name} created", token.id())?;
            // It is stored nowhere: this is the only time.
            say!("token: {}", token.reveal().expose_secret())
        }
        TokenCommand::List { name } => {
            let tokens = store.tokens(&name, deadline).await;
            for token in tokens.with_context(|| name.to_string())? {
                show(&token)?;
            }
            Ok(())
        }
        TokenCommand::Revoke { id } => match store.revoke_token(&id, deadline).await? {
            Some(account) => say!("token {id} of account {account} is revoked"),
            // It may be a whole token: what is shown stands in logs.
            None => bail!("there is no token of this id; an id has the 16 characters behind dcams_"),
        },
    }
}

/// A token in a line.
fn show(token: &Token) -> anyhow::Result<()> {
    let state = match (token.revoked, token.expires) {
        (Some(_), _) => "revoked",
        (None, Some(expires)) if expires <= SystemTime::now() => "expired",
        _ => "valid",
    };
    let or_never = |at: Option<SystemTime>| at.map_or_else(|| "never".to_owned(), time);
    let scopes = token.scopes.to_string();
    let mut line = format!(
        "{} {state:<7} {scopes:<26} created {} expires {:<20} used {:<20}",
        token.id,
        time(token.created),
        or_never(token.expires),
        or_never(token.used),
    );
    if let Some(revoked) = token.revoked {
        line = format!("{line} revoked {}", time(revoked));
    }
    say!("{}", format!("{line} {}", token.label).trim_end())
}

fn time(time: SystemTime) -> String {
    format!("{:.0}", jiff::Timestamp::try_from(time).unwrap_or_default())
}
