//! `audit`: seals the history, in the background while a gateway serves, and checks it against what was sealed.

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use metrics::counter;
use store::{Audited, Location, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    background::every,
    cli::{AuditCommand, StoreOptions, VerifyOptions},
};

/// How often is looked for what is to be sealed.
const ROUND: Duration = Duration::from_secs(5);

/// How long others have the store between two transactions.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the store has for a few blocks.
const PATIENCE: Duration = Duration::from_secs(10);

/// What counts the rows that were sealed.
pub(crate) const SEALED: &str = "dcams_audit_rows_sealed_total";

pub(crate) async fn run(location: &StoreOptions, command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Seal => {
            let rows = round(&location.open()?, true).await?;
            say!("{rows} rows are sealed that were not before")
        }
        AuditCommand::Verify(options) => verify(location.location()?, options).await,
    }
}

/// Seals the history in the background, until it is asked to stop.
pub(crate) async fn seal(store: Store, stop: CancellationToken) {
    // It is there before the first row is sealed.
    counter!(SEALED).increment(0);
    let store = &store;
    every(ROUND, stop, || async move {
        if let Err(error) = round(store, false).await {
            tracing::warn!(%error, "the history could not be sealed; the next round tries again");
        }
    })
    .await;
}

/// Seals what is to be sealed of all accounts, be it at once, and tells how many rows that were.
async fn round(store: &Store, now: bool) -> store::Result<u64> {
    let mut rows = 0;
    let mut failed = None;
    let mut after = Some(0);
    while let Some(behind) = after {
        let (unsealed, last) = store.unsealed_accounts(behind, Instant::now() + PATIENCE).await?;
        for account in unsealed {
            match seal_account(store, account, now).await {
                Ok(sealed) => rows += sealed,
                // The other accounts are sealed all the same.
                Err(error) => failed = Some(error),
            }
        }
        after = last;
    }
    failed.map_or(Ok(rows), Err)
}

/// Seals the rows of an account, and tells how many those were.
async fn seal_account(store: &Store, account: i64, now: bool) -> store::Result<u64> {
    let mut rows = 0;
    loop {
        let sealed = store.seal(account, now, Instant::now() + PATIENCE).await?;
        counter!(SEALED).increment(sealed.rows);
        rows += sealed.rows;
        if !sealed.more {
            return Ok(rows);
        }
        if !now {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Checks the history, off the threads that serve, with a bar that shows on a terminal only.
async fn verify(location: Location, options: VerifyOptions) -> anyhow::Result<()> {
    if let Some(account) = &options.account
        && options.heads.iter().any(|head| head.account != account.as_str())
    {
        bail!("a --head is of another account than --account names: it would not be looked at");
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")?;
    let bar = ProgressBar::no_length()
        .with_style(style)
        .with_message("checking blocks");
    let audited = tokio::task::spawn_blocking(move || {
        let audited = store::verify(&location, options.account.as_ref(), &options.heads, |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        });
        bar.finish_and_clear();
        audited
    });
    report(&audited.await??)
}

fn report(audited: &[Audited]) -> anyhow::Result<()> {
    let width = audited.iter().map(|one| one.account.chars().count()).max();
    let width = width.unwrap_or_default().max("account".len());
    say!(
        "{:<width$}  {:>8}  {:>10}  {:>8}  head",
        "account",
        "blocks",
        "rows",
        "unsealed"
    )?;
    let mut faults = 0;
    for one in audited {
        let Audited {
            account,
            blocks,
            rows,
            unsealed,
            ..
        } = one;
        let end = match (&one.fault, &one.head) {
            (Some(fault), _) => {
                faults += 1;
                format!("FAULT: {fault}")
            }
            (None, Some(head)) => head.to_string(),
            (None, None) => "-".to_owned(),
        };
        say!("{account:<width$}  {blocks:>8}  {rows:>10}  {unsealed:>8}  {end}")?;
    }
    match faults {
        0 => Ok(()),
        1 => bail!("the history of an account is not what was sealed"),
        faults => bail!("the histories of {faults} accounts are not what was sealed"),
    }
}
