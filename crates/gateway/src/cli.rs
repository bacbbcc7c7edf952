//! The command line: every command, flag and environment variable there is.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum,
    error::{ContextValue, ErrorKind},
};
use store::{AccountName, Location, Migrate, Status, Store};

/// What the options of every command stand under.
const GLOBAL: &str = "Options of every command";

/// Keeps the verification status of customers: over gRPC, and over the old JSON endpoint in front of it.
#[derive(Parser)]
#[command(name = "dcams-gateway", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the data is.
#[derive(Args)]
pub(crate) struct StoreOptions {
    /// The store: sqlite://PATH or postgres://USER@HOST/DATABASE
    #[arg(
        long = "store",
        env = "DCAMS_STORE",
        value_name = "URL",
        default_value = "sqlite://dcams.db",
        hide_env_values = true,
        help_heading = GLOBAL,
        global = true
    )]
    pub(crate) location: Location,
}

/// What is logged, on standard error.
#[derive(Args)]
pub(crate) struct LogOptions {
    /// The least important messages that are logged
    #[arg(
        long = "log",
        env = "DCAMS_LOG",
        value_name = "LEVEL",
        default_value = "info",
        help_heading = GLOBAL,
        global = true
    )]
    pub(crate) level: LogLevel,
    /// How messages are written
    #[arg(
        // A global flag shares its id with no flag of any command: `customer import` has a format of its own.
        id = "log_format",
        long = "log-format",
        env = "DCAMS_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "pretty",
        help_heading = GLOBAL,
        global = true
    )]
    pub(crate) format: LogFormat,
}

/// How important a message is.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How messages are written.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve both faces until SIGTERM or Ctrl-C
    Serve(Box<ServeOptions>),
    /// Manage accounts: who may sign in, and whose customers there are
    #[command(subcommand)]
    Account(AccountCommand),
    /// Manage customers
    #[command(subcommand)]
    Customer(CustomerCommand),
    /// Bring the store's schema up to date
    Migrate {
        /// Change nothing; fail if the schema is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Manage whole stores
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How to serve.
#[derive(Args)]
pub(crate) struct ServeOptions {
    /// Add an account USERNAME with the password PASSWORD and a customer, to try things out; on loopback only
    #[arg(long, conflicts_with = "upstream")]
    pub(crate) demo: bool,
    /// Where the JSON endpoint listens; port 0 takes a free one
    #[arg(long, env = "DCAMS_REST_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) rest_addr: SocketAddr,
    /// Where gRPC listens
    #[arg(
        long,
        env = "DCAMS_GRPC_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) grpc_addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are; never a public address
    #[arg(long, env = "DCAMS_OPS_ADDR", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub(crate) ops_addr: SocketAddr,
    /// Serve the JSON endpoint alone, in front of the gRPC face at this URL (http://HOST:PORT); no store is opened
    #[arg(long, env = "DCAMS_UPSTREAM", value_name = "URL")]
    pub(crate) upstream: Option<http::Uri>,
    /// What to do about the store's schema at start: auto applies what is missing, check refuses to start, off does not look
    #[arg(long, env = "DCAMS_MIGRATE", value_name = "HOW", default_value = "auto")]
    pub(crate) migrate: Migrate,
    /// Believe what this address says of where a request comes from (X-Forwarded-For, x-dcams-face); no networks; may be given many times, or as a list with commas
    #[arg(
        long = "trusted-proxy",
        env = "DCAMS_TRUSTED_PROXIES",
        value_name = "IP",
        value_delimiter = ','
    )]
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// The most connections on each listener; one more is closed at once
    #[arg(long, env = "DCAMS_MAX_CONNECTIONS", value_name = "N", default_value = "10000", value_parser = to::<1_000_000>)]
    pub(crate) max_connections: NonZeroUsize,
    /// The most changes in one transaction; 1 means a transaction for each
    #[arg(long, env = "DCAMS_WRITE_BATCH", value_name = "N", default_value = "256", value_parser = to::<10_000>)]
    pub(crate) write_batch: NonZeroUsize,
    /// The most changes that wait to be written; one more is refused
    #[arg(long, env = "DCAMS_WRITE_QUEUE", value_name = "N", default_value = "1024", value_parser = to::<1_000_000>)]
    pub(crate) write_queue: NonZeroUsize,
    /// The connections that write; the default is 1 on SQLite, which lets one write at a time, and 2 on PostgreSQL
    #[arg(long, env = "DCAMS_WRITERS", value_name = "N", value_parser = to::<256>)]
    pub(crate) writers: Option<NonZeroUsize>,
    /// The connections that read
    #[arg(long, env = "DCAMS_READERS", value_name = "N", default_value = "4", value_parser = to::<256>)]
    pub(crate) readers: NonZeroUsize,
    /// How many seconds work under way has to end after SIGTERM
    #[arg(long, env = "DCAMS_DRAIN", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) drain: Duration,
}

/// What to do with accounts.
#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Create an account; without --password-stdin its password is made up and printed, once
    Create {
        /// The name, which is also the user name; it holds no ':'
        name: AccountName,
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// List the accounts
    List,
    /// Refuse the account's credentials from now on, on every gateway
    Disable {
        /// The account
        name: AccountName,
    },
    /// Accept the account's credentials again
    Enable {
        /// The account
        name: AccountName,
    },
    /// Replace the password; without --password-stdin one is made up and printed, once
    SetPassword {
        /// The account
        name: AccountName,
        #[command(flatten)]
        password: PasswordOptions,
    },
}

/// Where a password comes from.
#[derive(Args)]
pub(crate) struct PasswordOptions {
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// What to do with customers.
#[derive(Subcommand)]
pub(crate) enum CustomerCommand {
    /// Register customers from a file, or change those that are there; an empty value keeps what is stored
    Import {
        /// CSV with a header, or JSON with an object a line. The columns: email, fn, ln, addr, city, state, zip, dob,
        /// phone, reference, status
        file: PathBuf,
        #[command(flatten)]
        account: OfAccount,
        /// The format, where the file's name does not end in .csv, .ndjson or .jsonl
        #[arg(long)]
        format: Option<FileFormat>,
        /// Import the good rows although there are bad ones
        #[arg(long)]
        skip_bad: bool,
    },
    /// Show a customer
    Show {
        /// The email address
        email: String,
        #[command(flatten)]
        account: OfAccount,
    },
    /// Set a customer's status
    SetStatus {
        /// The email address
        email: String,
        /// PASS, PENDING or FAIL
        status: Status,
        #[command(flatten)]
        account: OfAccount,
    },
    /// Show who changed a customer's status, and when
    History {
        /// The email address
        email: String,
        #[command(flatten)]
        account: OfAccount,
        /// The most rows to show: the latest ones
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u32,
    },
}

/// What to do with whole stores.
#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy a whole store to another, on SQLite or PostgreSQL, and compare the two
    ///
    /// Stop all gateways on both stores before: what is changed under the copy makes it fail at the end. The target is
    /// empty, or holds what an earlier copy left: one that was interrupted goes on where it ended. An encrypted store is
    /// copied as it is, and needs no key. --store is not used.
    Copy {
        /// The store that is copied: sqlite://PATH or postgres://USER@HOST/DATABASE
        #[arg(long, env = "DCAMS_COPY_FROM", value_name = "URL", hide_env_values = true)]
        from: Location,
        /// Where it is copied to
        #[arg(long, env = "DCAMS_COPY_TO", value_name = "URL", hide_env_values = true)]
        to: Location,
    },
}

/// Whose customers are meant.
#[derive(Args)]
pub(crate) struct OfAccount {
    /// The account that the customers belong to
    #[arg(long = "account", value_name = "NAME")]
    pub(crate) name: AccountName,
}

/// How a file of customers is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    Csv,
    Ndjson,
}

impl Cli {
    /// Reads the command line. What is wrong with it is said in one line.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            _ => usage(&without_urls(&error)),
        })
    }
}

/// What clap says, without the URLs that it quotes: they may hold a password.
fn without_urls(error: &clap::Error) -> String {
    let mut text = error.to_string();
    for (_, value) in error.context() {
        if let ContextValue::String(value) = value
            && value.contains("//")
        {
            // clap writes a value in either form, and quotes it.
            text = text
                .replace(&format!("{value:?}"), "'URL'")
                .replace(&format!("'{value}'"), "'URL'");
        }
    }
    text
}

/// Says what is wrong with the command line, in one line, and gives the exit code for that.
fn usage(text: &str) -> ExitCode {
    let what = text.split("\n\n").next().unwrap_or_default();
    let line = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    eprintln!("{line} (see --help)");
    ExitCode::from(2)
}

impl StoreOptions {
    /// Opens the store for a command, whatever state its schema is in: brought up to date.
    pub(crate) fn open(&self) -> anyhow::Result<Store> {
        self.open_with(Migrate::Auto, &store::Settings::default())
    }

    /// Opens the store.
    pub(crate) fn open_with(&self, migrate: Migrate, settings: &store::Settings) -> anyhow::Result<Store> {
        Store::open(&self.location, migrate, settings, None).with_context(|| format!("the store {}", self.location))
    }

    /// Brings the schema up to date, or only looks whether it is.
    pub(crate) fn migrate(&self, check: bool) -> anyhow::Result<()> {
        let migrate = if check { Migrate::Check } else { Migrate::Auto };
        self.open_with(migrate, &store::Settings::default())?;
        say!("the schema of {} is up to date", self.location)
    }
}

/// Prints the completions of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dcams-gateway", &mut script);
    // For bash, clap_complete 4.6 writes a hyphen in the program's name in two ways, and completes no command of a command.
    let script = String::from_utf8(script).context("the completions")?;
    let script = script.replace("dcams__subcmd__gateway", "dcams__gateway");
    io::stdout().write_all(script.as_bytes()).context("standard output")
}

/// A number from 1 to `MOST`: each of what it counts takes memory or a thread.
fn to<const MOST: usize>(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|number: &NonZeroUsize| number.get() <= MOST)
        .ok_or_else(|| format!("a whole number from 1 to {MOST} is needed"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "a whole number of seconds is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_import_has_a_format_beside_that_of_the_log() {
        let line = "dcams-gateway customer import a --account b --format csv --log-format json";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Customer(CustomerCommand::Import { format, .. }) = cli.command else {
            panic!("not an import");
        };
        assert_eq!(format, Some(FileFormat::Csv));
        assert!(matches!(cli.log.format, LogFormat::Json));
    }
}
