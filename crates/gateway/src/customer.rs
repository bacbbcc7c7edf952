//! `customer`: what an operator does with customers.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use jiff::Timestamp;
use store::{Authority, Change, Email, EmailKey, Face, Origin, Principal, Store};

use crate::{
    cli::{CustomerCommand, OfAccount, StoreOptions},
    import,
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
        } => {
            let account = principal(&store, &account).await?.account;
            import::run(&store, account, &file, format, skip_bad).await
        }
        CustomerCommand::Show { email, account } => {
            let principal = principal(&store, &account).await?;
            let customer = store.customer(principal, key(&email)?, deadline).await?;
            let profile = &customer.profile;
            for (name, value) in [
                ("email", &profile.email),
                ("fn", &profile.first_name),
                ("ln", &profile.last_name),
                ("addr", &profile.address),
                ("city", &profile.city),
                ("state", &profile.state),
                ("zip", &profile.zip),
                ("dob", &profile.date_of_birth),
                ("phone", &profile.phone),
                ("reference", &customer.reference),
                ("status", &customer.status.as_str().to_owned()),
                ("created", &time(customer.create_time)),
                ("updated", &time(customer.update_time)),
            ] {
                say!("{name:<10} {value}")?;
            }
            Ok(())
        }
        CustomerCommand::SetStatus { email, status, account } => {
            let principal = principal(&store, &account).await?;
            let change = Change {
                principal,
                email: key(&email)?,
                status,
                origin: origin(),
            };
            let customer = store.set_status(change, deadline).await?;
            say!("the status is {}", customer.status)?;
            Ok(())
        }
        CustomerCommand::History { email, account, limit } => {
            let principal = principal(&store, &account).await?;
            let changes = store.history(principal, key(&email)?, limit, deadline).await?;
            say!(
                "{:>7}  {:<30}  {:<7}    {:<7}  {:<4}  actor, request",
                "version",
                "time",
                "from",
                "to",
                "face"
            )?;
            for change in changes {
                say!(
                    "{:>7}  {:<30}  {:<7} -> {:<7}  {:<4}  {}, {}",
                    change.version,
                    time(change.time),
                    change.from.map_or("-", |status| status.as_str()),
                    change.to,
                    change.origin.face.as_str(),
                    change.origin.actor,
                    change.origin.request_id,
                )?;
            }
            Ok(())
        }
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
async fn principal(store: &Store, account: &OfAccount) -> anyhow::Result<Principal> {
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

fn key(email: &str) -> anyhow::Result<EmailKey> {
    Ok(Email::parse(email)?.key().clone())
}

fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().to_string()
}
