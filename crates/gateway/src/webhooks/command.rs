//! `webhook`: where changes are sent to.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use store::{Store, Webhook};

use super::{Pace, Rules, Sender, payload};
use crate::cli::{StoreOptions, WebhookCommand};

/// How long the store has.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does what a command says.
pub(crate) async fn run(location: &StoreOptions, command: WebhookCommand) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // What is wrong with the command is said before a store is made.
    if let WebhookCommand::Add { url, address, .. } = &command {
        address.rules().check(url)?;
    }
    let store = location.open()?;
    match command {
        WebhookCommand::Add { url, account, address } => {
            let url = address.rules().check(&url)?;
            let added = store.add_webhook(&account.name, url.as_str(), deadline).await;
            let added = added
                .with_context(|| account.name.to_string())?
                .with_context(|| format!("{}: an account has at most 10 webhooks", account.name))?;
            say!("webhook {}", added.id)?;
            say!("secret: {}", added.secret.reveal().expose_secret())
        }
        WebhookCommand::List { account } => {
            for webhook in store.webhooks(account.as_ref(), deadline).await? {
                show(&webhook)?;
            }
            Ok(())
        }
        WebhookCommand::Remove { id } => {
            if !store.remove_webhook(&id, deadline).await? {
                return unknown(&id);
            }
            say!("webhook {id} is removed")
        }
        WebhookCommand::Rotate { id } => {
            let Some(secret) = store.rotate_webhook_secret(&id, deadline).await? else {
                return unknown(&id);
            };
            say!("webhook {id} has a new secret; for 24 hours it is signed with the one before too")?;
            say!("secret: {}", secret.reveal().expose_secret())
        }
        WebhookCommand::Test { id, address } => test(&store, &id, address.rules(), deadline).await,
        WebhookCommand::Parked { id } => {
            let Some(parked) = store.parked_deliveries(&id, deadline).await? else {
                return unknown(&id);
            };
            for delivery in parked {
                let change = &delivery.change;
                say!(
                    "{:>8} {} {:<7} {} tries since {}: {}",
                    change.place.position,
                    change.customer_id,
                    change.to,
                    delivery.attempts,
                    time(delivery.first_time),
                    delivery.last_error
                )?;
            }
            Ok(())
        }
        WebhookCommand::Resend { id, sequence, .. } => match store.resend_parked(&id, sequence, deadline).await? {
            None => unknown(&id),
            Some(0) if sequence.is_some() => bail!("no parked change of webhook {id} has this sequence"),
            Some(again) => say!("changes that are tried again: {again}"),
        },
    }
}

fn unknown(id: &str) -> anyhow::Result<()> {
    bail!("there is no webhook {id}")
}

/// Sends a sample now, and has what waits follow it if it was taken.
async fn test(store: &Store, id: &str, rules: Rules, deadline: Instant) -> anyhow::Result<()> {
    let Some(target) = store.webhook_target(id, deadline).await? else {
        return unknown(id);
    };
    let pace = Pace::new(Pace::LEASE, 1);
    let sender = Sender::new(rules, pace.connect(), pace.total())?;
    let message = format!("{id}_test_{}", uuid::Uuid::new_v4().simple());
    let status = sender.send(&target, &message, payload::sample()).await?;
    store.wake_webhook(id, Instant::now() + PATIENCE).await?;
    say!("the receiver answered {}", status.as_u16())
}

/// A webhook in a line, and a line more for what is not as it should be.
fn show(webhook: &Webhook) -> anyhow::Result<()> {
    say!(
        "{} {:<32} {} behind {} pending {} parked {}",
        webhook.id,
        webhook.account,
        webhook.url,
        webhook.behind,
        webhook.pending,
        webhook.parked
    )?;
    let mut more = Vec::new();
    if !webhook.enabled {
        more.push("it waits, since the account is disabled".to_owned());
    }
    if let Some(oldest) = webhook.oldest {
        more.push(format!("the oldest change that waits is of {}", time(oldest)));
    }
    if let Some(error) = &webhook.last_error {
        more.push(format!("the last try failed: {error}"));
    }
    if let Some(until) = webhook.paused_until {
        more.push(format!("paused until {}", time(until)));
    }
    if let Some(until) = webhook.old_secret_until {
        more.push(format!("the secret before counts until {}", time(until)));
    }
    match more.is_empty() {
        true => Ok(()),
        false => say!("    {}", more.join("; ")),
    }
}

fn time(time: SystemTime) -> String {
    format!("{:.0}", jiff::Timestamp::try_from(time).unwrap_or_default())
}
