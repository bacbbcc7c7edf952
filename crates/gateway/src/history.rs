//! `customer history`: who changed what, and when.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};
use store::{FeedItem, HistoryQuery, Principal, Status, Store, Whose};

use crate::{
    cli::{HistoryFormat, HistoryOptions},
    customer::{key, time},
};

/// How many changes are read at a time.
const PAGE: u32 = 1_000;

/// How long the store has for a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows the latest changes that are asked for, oldest first.
pub(crate) async fn run(store: &Store, principal: Principal, options: HistoryOptions) -> anyhow::Result<()> {
    let query = HistoryQuery {
        whose: match (&options.email, options.id) {
            (Some(email), _) => Whose::Email(key(email)?),
            (None, Some(id)) => Whose::Id(id),
            (None, None) => Whose::Account,
        },
        since: options.since.map(Into::into),
        until: options.until.map(Into::into),
        latest_first: true,
    };
    let of_account = query.whose == Whose::Account;
    let limit = options.limit as usize;
    let mut items: Vec<FeedItem> = Vec::new();
    let mut token = None;
    while items.len() < limit {
        let most = u32::try_from(limit - items.len()).unwrap_or(PAGE).min(PAGE);
        let page = store
            .changes(principal, query.clone(), token, most, Instant::now() + PATIENCE)
            .await?;
        items.extend(page.changes);
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    let account = options.account.name.as_str();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match options.format {
        HistoryFormat::Table => table(&mut out, &items, of_account),
        HistoryFormat::Ndjson => items
            .iter()
            .rev()
            .try_for_each(|item| writeln!(out, "{}", object(item, account))),
    };
    printed.and_then(|()| out.flush()).context("standard output")
}

fn table(out: &mut impl Write, items: &[FeedItem], of_account: bool) -> io::Result<()> {
    let customer = if of_account {
        format!("{:<32}  ", "customer")
    } else {
        String::new()
    };
    writeln!(
        out,
        "{:>8}  {customer}{:>7}  {:<30}  {:<7}    {:<7}  {:<4}  actor, request, reason",
        "sequence", "version", "time", "from", "to", "face"
    )?;
    for item in items.iter().rev() {
        let change = &item.change;
        let customer = if of_account {
            format!("{:<32}  ", change.customer_id)
        } else {
            String::new()
        };
        write!(
            out,
            "{:>8}  {customer}{:>7}  {:<30}  {:<7} -> {:<7}  {:<4}  {}, {}",
            change.place.position,
            change.version,
            time(change.time),
            change.from.map_or("-", Status::as_str),
            if change.erased { "erased" } else { change.to.as_str() },
            change.origin.face.as_str(),
            change.origin.actor,
            change.origin.request_id,
        )?;
        if let Some(reason) = &change.reason {
            write!(out, ", {reason}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A change, its keys named as in the contract. What is not there is null.
pub(crate) fn object(item: &FeedItem, account: &str) -> Value {
    let FeedItem { change, customer } = item;
    json!({
        "sequence": change.place.position,
        "customer_id": change.customer_id,
        "email": customer.as_ref().map(|customer| &customer.profile.email),
        "reference": customer.as_ref().map(|customer| &customer.reference),
        "from_status": change.from.map(Status::as_str),
        "to_status": change.to.as_str(),
        "version": change.version,
        "account": account,
        "actor": change.origin.actor,
        "face": change.origin.face.as_str(),
        "request_id": change.origin.request_id,
        "change_time": time(change.time),
        "reason": change.reason,
        "erased": change.erased,
    })
}

/// Shows the change that had set a status.
pub(crate) fn show(item: &FeedItem) -> anyhow::Result<()> {
    let change = &item.change;
    let origin = &change.origin;
    for (name, value) in [
        ("status", change.to.as_str()),
        ("since", &time(change.time)),
        ("version", &change.version.to_string()),
        ("sequence", &change.place.position.to_string()),
        ("face", origin.face.as_str()),
        ("actor", &origin.actor),
        ("request", &origin.request_id),
        ("reason", change.reason.as_deref().unwrap_or_default()),
    ] {
        say!("{name:<10} {value}")?;
    }
    Ok(())
}
