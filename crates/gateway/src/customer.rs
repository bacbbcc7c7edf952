//! `customer`: what an operator does with customers.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use store::{Authority, Change, Email, EmailKey, Erase, Face, Origin, Principal, Store};

use crate::{
    cli::{CustomerCommand, OfAccount, StoreOptions},
    columns::{self, COLUMNS},
    export, history, import,
};

/// How long the store has for one customer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who the history says it was.
const ACTOR: &str = "operator";

pub(crate) async fn run(location: &StoreOptions, command: CustomerCommand) -> anyhow::Result<()> {
    let store = location.open()?;
    let deadline = Instant::now() + PATIENCE;
    match command {
        CustomerCommand::Import {
            file,
            account,
            format,
            skip_bad,
            documents,
        } => {
            let account = principal(&store, &account).await?.account;
            let source = import::Source {
                path: &file,
                format,
                document_limit: documents.limit,
            };
            import::run(&store, account, &source, skip_bad).await
        }
        CustomerCommand::Export(options) => {
            let principal = principal(&store, &options.account).await?;
            export::run(&store, principal, &options).await
        }
        CustomerCommand::Show { email, account, at } => {
            let principal = principal(&store, &account).await?;
            if let Some(at) = at {
                let item = store.status_at(principal, key(&email)?, at.into(), deadline).await?;
                return history::show(&item);
            }
            let customer = store.customer(principal, key(&email)?, deadline).await?;
            for ((name, _), value) in COLUMNS.iter().zip(columns::values(&customer)) {
                say!("{name:<10} {value}")?;
            }
            for (name, value) in [("created", customer.create_time), ("updated", customer.update_time)] {
                say!("{name:<10} {}", time(value))?;
            }
            Ok(())
        }
        CustomerCommand::SetStatus {
            email,
            status,
            account,
            reason,
        } => {
            let principal = principal(&store, &account).await?;
            let change = Change {
                reason,
                ..Change::new(principal, key(&email)?, status, origin())
            };
            let customer = store.set_status(change, deadline).await?;
            say!("the status is {}", customer.status)?;
            Ok(())
        }
        CustomerCommand::History(options) => {
            let principal = principal(&store, &options.account).await?;
            history::run(&store, principal, options).await
        }
        CustomerCommand::Erase { email, account, yes } => {
            let principal = principal(&store, &account).await?;
            let email = key(&email)?;
            if !yes {
                let customer = store.customer(principal, email.clone(), deadline).await?;
                ask(&format!(
                    "erase customer {}, with all attributes and images?",
                    customer.public_id
                ))?;
            }
            let deadline = Instant::now() + PATIENCE;
            let erase = Erase {
                principal,
                email,
                key: None,
                origin: origin(),
            };
            let erased = store.erase_customer(erase, deadline).await?;
            let kept = match erased.status_changes {
                1 => "1 row of its history stays".to_owned(),
                rows => format!("{rows} rows of its history stay"),
            };
            say!(
                "customer {} is erased at {}; {kept}",
                erased.public_id,
                time(erased.time)
            )
        }
    }
}

/// Asks on the terminal before something is done that cannot be undone.
fn ask(question: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("--yes is needed where there is no terminal to ask on");
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing is erased"),
    }
}

/// What the history keeps of a change made here.
pub(crate) fn origin() -> Origin {
    Origin {
        actor: ACTOR.to_owned(),
        face: Face::Cli,
        request_id: proto::request_id(None),
    }
}

/// Whoever can reach the database may act for any account, also for a disabled one.
pub(crate) async fn principal(store: &Store, account: &OfAccount) -> anyhow::Result<Principal> {
    let name = account.name.as_str();
    let account = store
        .account(name, Instant::now() + PATIENCE)
        .await
        .with_context(|| name.to_owned())?;
    Ok(Principal {
        account: account.id,
        authority: Authority::Operator,
    })
}

pub(crate) fn key(email: &str) -> anyhow::Result<EmailKey> {
    Ok(Email::parse(email)?.key().clone())
}

pub(crate) fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().to_string()
}
