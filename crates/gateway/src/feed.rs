//! `feed`: prints an account's changes as they are made. It reads the store itself, as an operator.

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;
use store::{Error, FeedItem, Place, Principal, Store};
use tokio::{io::Interest, net::unix::pipe};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{FeedOptions, StoreOptions},
    customer, history,
    serve::Signals,
};

/// How many changes are read at a time.
const PAGE: u32 = 100;

/// How long the store has for a page.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait when there is nothing new: at first, and at most.
const POLL: Duration = Duration::from_millis(50);
const POLL_AT_MOST: Duration = Duration::from_millis(500);

/// How long the store may be out of reach once it was there.
const OUTAGE: Duration = Duration::from_secs(30);

/// How long a line may take to be read after a signal.
const LAST_LINE: Duration = Duration::from_secs(1);

pub(crate) async fn run(location: &StoreOptions, options: FeedOptions) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let store = location.open()?;
    let stop = CancellationToken::new();
    let mut printing = tokio::spawn(print(store, options, stop.clone()));
    tokio::select! {
        printed = &mut printing => return printed.context("the feed")?,
        () = signals.asked() => stop.cancel(),
    }
    match tokio::time::timeout(LAST_LINE, printing).await {
        Ok(printed) => printed.context("the feed")?,
        // Nobody reads what is being written, which would hold up the end.
        Err(_) => std::process::exit(0),
    }
}

/// Prints changes until it is stopped, or nobody reads them any more.
async fn print(store: Store, options: FeedOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let principal = customer::principal(&store, &options.account).await?;
    let account = options.account.name.as_str();
    let mut place = begin(&store, principal, &options).await?;
    let mut pause = POLL;
    let mut out_of_reach = None;
    let unread = unread();
    let mut unread = std::pin::pin!(unread);
    loop {
        let asked = Instant::now();
        let mut count = 0;
        match store.feed(principal, place, PAGE, asked + PATIENCE).await {
            Ok(items) => {
                out_of_reach = None;
                count = items.len();
                let mut lines = Vec::with_capacity(count);
                for item in items {
                    place = item.change.place;
                    lines.push(line(&item, account, store.cursor(place, asked + PATIENCE).await?));
                }
                match write(&lines) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.context("standard output")?,
                }
            }
            // Whoever follows a store for days need not know of each of its restarts.
            Err(Error::Unavailable(_) | Error::Collision(_) | Error::Keys(_))
                if !options.until_now && out_of_reach.get_or_insert(asked).elapsed() < OUTAGE => {}
            Err(error) => return Err(error.into()),
        }
        if count >= PAGE as usize {
            if stop.is_cancelled() {
                return Ok(());
            }
            continue;
        }
        if options.until_now && out_of_reach.is_none() {
            return Ok(());
        }
        pause = if count > 0 { POLL } else { (pause * 2).min(POLL_AT_MOST) };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = &mut unread => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Where to begin.
async fn begin(store: &Store, principal: Principal, options: &FeedOptions) -> anyhow::Result<Place> {
    let deadline = Instant::now() + PATIENCE;
    match &options.from {
        Some(cursor) => match store.place(cursor, deadline).await {
            Err(Error::InvalidCursor) => bail!("--from is no cursor of this store"),
            place => Ok(place?),
        },
        None if options.only_new => Ok(store.feed_end(principal, deadline).await?),
        None => Ok(Place::default()),
    }
}

/// A change, and the cursor to go on behind it. What is not there is null.
fn line(item: &FeedItem, account: &str, cursor: String) -> Value {
    let mut line = history::object(item, account);
    line["cursor"] = cursor.into();
    line
}

fn write(lines: &[Value]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in lines {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Returns when standard output is a pipe that nobody reads any more; otherwise never. Without it, only the next change would
/// tell.
async fn unread() {
    // Only looked at: what is written goes past this, and may wait.
    let pipe = io::stdout().as_fd().try_clone_to_owned();
    // A file cannot be waited for: it always takes what is written.
    if let Ok(pipe) = pipe.and_then(pipe::Sender::from_owned_fd_unchecked)
        && pipe.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
