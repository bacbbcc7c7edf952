//! `account`: who may sign in.

mod token;

use std::{
    io::{BufRead, Read},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};

use crate::cli::{AccountCommand, PasswordOptions, StoreOptions};

/// How long the store has.
const PATIENCE: Duration = Duration::from_secs(30);

/// The bytes that a password may have; the faces take no others.
const LENGTH: std::ops::RangeInclusive<usize> = 1..=proto::MAX_PASSWORD;

pub(crate) async fn run(location: &StoreOptions, command: AccountCommand) -> anyhow::Result<()> {
    let store = location.open()?;
    let deadline = Instant::now() + PATIENCE;
    match command {
        AccountCommand::Create { name, password } => {
            let given = read(&password)?;
            let (hash, made_up) = hash_or_make_up(given).await?;
            store
                .create_account(&name, hash, deadline)
                .await
                .with_context(|| name.to_string())?;
            say!("account {name} created")?;
            reveal(made_up)?;
        }
        AccountCommand::SetPassword { name, password } => {
            let given = read(&password)?;
            let (hash, made_up) = hash_or_make_up(given).await?;
            store
                .set_password(&name, hash, deadline)
                .await
                .with_context(|| name.to_string())?;
            say!("the password of account {name} is changed")?;
            reveal(made_up)?;
        }
        AccountCommand::Disable { name } => {
            store
                .set_account_enabled(&name, false, deadline)
                .await
                .with_context(|| name.to_string())?;
            say!("account {name} is disabled")?;
        }
        AccountCommand::Enable { name } => {
            store
                .set_account_enabled(&name, true, deadline)
                .await
                .with_context(|| name.to_string())?;
            say!("account {name} is enabled")?;
        }
        AccountCommand::Token(command) => token::run(&store, command, deadline).await?,
        AccountCommand::List => {
            for account in store.accounts(deadline).await? {
                let state = if account.enabled { "enabled" } else { "disabled" };
                let created = jiff::Timestamp::try_from(account.create_time).unwrap_or_default();
                say!("{:<32} {state:<8} created {created:.0}", account.name)?;
            }
        }
    }
    Ok(())
}

/// Hashes a password, off the threads that serve.
pub(crate) async fn hash(password: SecretString) -> anyhow::Result<String> {
    Ok(tokio::task::spawn_blocking(move || credentials::hash(&password)).await??)
}

/// The hash of the password that was given, or of a new one, which comes with it.
async fn hash_or_make_up(given: Option<SecretString>) -> anyhow::Result<(String, Option<SecretString>)> {
    match given {
        Some(password) => Ok((hash(password).await?, None)),
        None => {
            let password = credentials::generate();
            Ok((hash(password.clone()).await?, Some(password)))
        }
    }
}

/// The password on standard input, if it was announced.
pub(crate) fn read(options: &PasswordOptions) -> anyhow::Result<Option<SecretString>> {
    if !options.password_stdin {
        return Ok(None);
    }
    let mut line = String::new();
    // One byte more than there may be, and the end of the line.
    let most = *LENGTH.end() as u64 + 3;
    std::io::stdin()
        .lock()
        .take(most)
        .read_line(&mut line)
        .context("the password on standard input")?;
    let password = line
        .strip_suffix('\n')
        .map_or(&*line, |line| line.strip_suffix('\r').unwrap_or(line));
    if !LENGTH.contains(&password.len()) {
        bail!("a password has {} to {} bytes", LENGTH.start(), LENGTH.end());
    }
    Ok(Some(SecretString::from(password)))
}

/// Shows a password that was made up. It is stored nowhere: this is the only time.
fn reveal(password: Option<SecretString>) -> anyhow::Result<()> {
    match password {
        Some(password) => say!("password: {}", password.expose_secret()),
        None => Ok(()),
    }
}
