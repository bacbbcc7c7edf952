//! The program: reads the command line, does what it says, and ends with 0, with 1 when that failed, or with 2 when the
//! command line was wrong.

/// Prints a line on standard output; unlike `println`, it fails in order when nobody reads it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say(format_args!($($text)*))
    };
}

mod account;
mod audit;
mod background;
mod cli;
mod columns;
mod compat;
mod config;
mod contract;
mod copy;
mod customer;
mod demo;
mod docs;
mod explain;
mod export;
mod feed;
mod health;
mod history;
mod housekeeping;
mod import;
mod keys;
mod listener;
mod ops;
mod peer;
mod remote;
mod retention;
mod ring;
mod serve;
mod telemetry;
mod tls;
mod traces;
mod webhooks;

use std::{fmt, io::Write, process::ExitCode};

use anyhow::Context;
use cli::{Cli, Command};
use telemetry::Writing;

/// Many small, short-lived allocations on every core: what the system's allocator is slowest at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let serves = matches!(cli.command, Command::Serve(_));
    match run(cli) {
        Ok(code) => code,
        // Whoever reads what a command prints has enough, as `head` has.
        Err(error) if is_unread(&error) && !serves => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let writing = match cli.command {
        Command::Serve(_) => Writing::Behind,
        _ => Writing::AtOnce,
    };
    let log = telemetry::log(&cli.log, writing);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Command::Serve(options) = &cli.command {
        runtime.worker_threads(serve::worker_threads(options));
    }
    let runtime = runtime.enable_all().build().context("no threads to run on")?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve(options) => serve::run(cli.store, options, log).await,
            Command::Account(command) => account::run(&cli.store, command).await,
            Command::Customer(command) => customer::run(&cli.store, command).await,
            Command::Webhook(command) => webhooks::command(&cli.store, command).await,
            Command::Audit(command) => audit::run(&cli.store, command).await,
            Command::Keys(command) => keys::run(&cli.store, command).await,
            Command::Migrate { check } => cli.store.migrate(check),
            Command::Feed(options) => feed::run(&cli.store, options).await,
            Command::Openapi => cli::openapi(),
            Command::Explain(options) => explain::run(options).await,
            Command::Compat(options) => compat::run(options).await,
            Command::Proto { folder } => contract::write(folder.as_deref()),
            Command::Store(command) => copy::run(&command),
            Command::Config(command) => return config::run(&cli.store, &cli.settings, command),
            Command::Health(options) => health::run(&options).await,
            Command::Completions { shell } => cli::completions(shell),
            Command::Man { folder } => cli::man(folder),
        }?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What [`say!`] does.
fn say(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context(OUTPUT)
}

/// What went wrong when nothing can be printed.
const OUTPUT: &str = "standard output";

/// Whether nobody reads standard output any more.
fn is_unread(error: &anyhow::Error) -> bool {
    let is_broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.to_string() == OUTPUT)
        && error.chain().filter_map(|cause| cause.downcast_ref()).any(is_broken)
}
