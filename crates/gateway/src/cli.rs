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
    builder::BoolishValueParser,
    error::{ContextValue, ErrorKind},
};
use grpc::CustomerLink;
use jiff::Timestamp;
use store::{AccountName, Change, Head, Keys, Location, Migrate, Status, Store};

use crate::{
    ring::{Source, VARIABLE},
    webhooks::Rules,
};

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
    #[command(flatten)]
    pub(crate) keys: KeyOptions,
}

/// Where the master keys are, if personal data is encrypted.
#[derive(Args)]
pub(crate) struct KeyOptions {
    /// Encrypt personal data: the file of the master keys, as `keys generate` makes them. DCAMS_KEYS may hold the keys
    /// themselves instead
    #[arg(
        long,
        env = "DCAMS_KEY_FILE",
        value_name = "PATH",
        help_heading = GLOBAL,
        global = true
    )]
    key_file: Option<PathBuf>,
    /// Encrypt personal data: the command, for `sh -c`, that prints the master keys
    #[arg(
        long,
        env = "DCAMS_KEY_COMMAND",
        value_name = "COMMAND",
        hide_env_values = true,
        help_heading = GLOBAL,
        global = true
    )]
    key_command: Option<String>,
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
    /// Seal the history, and check it against what was sealed
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Manage webhooks: where changes of status are sent to
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Manage the keys that personal data is encrypted under
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Bring the store's schema up to date
    Migrate {
        /// Change nothing; fail if the schema is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Print the OpenAPI document of the JSON endpoint
    Openapi,
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
    /// Where /healthz, /readyz, /metrics, /openapi.json and /docs are; never a public address
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
    /// The link to a customer in replies: an http:// or https:// URL with {id} where the customer's public id goes
    #[arg(long, env = "DCAMS_CUSTOMER_LINK", value_name = "TEMPLATE")]
    pub(crate) customer_link: Option<CustomerLink>,
    #[command(flatten)]
    pub(crate) documents: DocumentOptions,
    /// The most memory that large requests and replies take at once; a number of bytes, or with KiB, MiB or GiB
    #[arg(long, env = "DCAMS_DOCUMENT_BUDGET", value_name = "BYTES", default_value = "128MiB", value_parser = bytes::<{ 64 * GIB }>)]
    pub(crate) document_budget: usize,
    /// Delete images of documents that are older than this: a number with s, m, h or d, such as 90d; by default they are
    /// kept
    #[arg(long, env = "DCAMS_RETAIN_DOCUMENTS_FOR", value_name = "AGE", value_parser = age)]
    pub(crate) retain_documents_for: Option<Duration>,
    #[command(flatten)]
    pub(crate) webhooks: WebhookOptions,
    /// For tests: how many milliseconds a webhook is kept by a gateway that is gone
    #[arg(long, hide = true, value_name = "MILLISECONDS", default_value = "30000", value_parser = clap::value_parser!(u32).range(300..))]
    pub(crate) webhook_lease: u32,
    /// For tests: how many times shorter the waits of webhooks are
    #[arg(long, hide = true, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) webhook_tempo: u32,
    /// How many seconds work under way has to end after SIGTERM
    #[arg(long, env = "DCAMS_DRAIN", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) drain: Duration,
}

/// What images of documents may be.
#[derive(Args)]
pub(crate) struct DocumentOptions {
    /// The most bytes of an image of a document, at most 28MiB; a number of bytes, or with KiB or MiB
    #[arg(long = "document-limit", env = "DCAMS_DOCUMENT_LIMIT", value_name = "BYTES", default_value = "10MiB", value_parser = bytes::<{ 28 * MIB }>)]
    pub(crate) limit: usize,
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
        /// phone, reference, status, front, back; the last two are paths of images, from the folder of this file
        file: PathBuf,
        #[command(flatten)]
        account: OfAccount,
        /// The format, where the file's name does not end in .csv, .ndjson or .jsonl
        #[arg(long)]
        format: Option<FileFormat>,
        /// Import the good rows although there are bad ones
        #[arg(long)]
        skip_bad: bool,
        #[command(flatten)]
        documents: DocumentOptions,
    },
    /// Write all customers of an account, so that an import takes them back
    Export(ExportOptions),
    /// Show a customer
    Show {
        /// The email address
        email: String,
        #[command(flatten)]
        account: OfAccount,
        /// Show the status that the customer had at this time, such as 2026-11-25T08:00:00Z, and the change that had set it
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
    },
    /// Set a customer's status
    SetStatus {
        /// The email address
        email: String,
        /// PASS, PENDING or FAIL
        status: Status,
        #[command(flatten)]
        account: OfAccount,
        /// Why, for the history, in at most 200 characters. It outlives the customer's erasure: put nothing personal in it
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// Show who changed a customer's status, and when; or those of all customers
    History(HistoryOptions),
    /// Erase a customer: the attributes, the images and the key. The history of the status stays
    Erase {
        /// The email address
        email: String,
        #[command(flatten)]
        account: OfAccount,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which changes to show.
#[derive(Args)]
pub(crate) struct HistoryOptions {
    /// The email address; without it and --id, the history of all customers is shown
    pub(crate) email: Option<String>,
    /// The customer's public id, also of one that was erased
    #[arg(long, value_name = "PUBLIC_ID", conflicts_with = "email")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) account: OfAccount,
    /// Only changes at this time or later, such as 2026-11-25T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// Only changes before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Timestamp>,
    /// The most rows to show: the latest ones
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) limit: u32,
    /// How to show them: as a table, or as a JSON object a line
    #[arg(long, default_value = "table")]
    pub(crate) format: HistoryFormat,
}

/// How changes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HistoryFormat {
    Table,
    Ndjson,
}

/// What to do about changes of the history that nobody should have made.
#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Seal all rows of the history that are not sealed yet; a gateway does so by itself once a minute
    Seal,
    /// Check the history against what was sealed of it, and print each account's head, to be noted elsewhere
    ///
    /// Ends with 1 when a row was changed, removed or slipped in, and names the first one; or when a block does not fit the
    /// chain. It only reads, and needs no key. Whoever can rewrite the rows and all blocks behind them is found only by a
    /// head that was noted elsewhere.
    Verify(VerifyOptions),
}

/// What to check.
#[derive(Args)]
pub(crate) struct VerifyOptions {
    /// The account; all of them without it
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<AccountName>,
    /// A head as an earlier check printed it, which must still be in the chain; may be given many times
    #[arg(long = "head", value_name = "ACCOUNT:NUMBER:HASH")]
    pub(crate) heads: Vec<Head>,
}

/// How to export customers.
#[derive(Args)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    pub(crate) account: OfAccount,
    /// The format; by default that of the file's name, and ndjson without one
    #[arg(long)]
    pub(crate) format: Option<FileFormat>,
    /// The file to write, for its owner only; standard output without it
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the images of documents too, into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) documents: Option<PathBuf>,
}

/// Where webhooks may send to.
#[derive(Args)]
pub(crate) struct WebhookOptions {
    /// Let webhooks send to addresses that are not public, such as 10.0.0.1; with TLS all the same
    #[arg(long = "webhook-allow-private", env = "DCAMS_WEBHOOK_ALLOW_PRIVATE", value_parser = BoolishValueParser::new())]
    private: bool,
}

impl WebhookOptions {
    pub(crate) fn rules(&self) -> Rules {
        Rules { private: self.private }
    }
}

/// What to do with webhooks.
#[derive(Subcommand)]
pub(crate) enum WebhookCommand {
    /// Send an account's changes of status to a URL from now on; prints the webhook's id, and once its secret
    Add {
        /// https://HOST/PATH; http:// is for localhost and loopback addresses alone
        url: String,
        #[command(flatten)]
        account: OfAccount,
        #[command(flatten)]
        address: WebhookOptions,
    },
    /// List webhooks, how far each is, and what is wrong with it
    List {
        /// Those of this account alone
        #[arg(long, value_name = "NAME")]
        account: Option<AccountName>,
    },
    /// Remove a webhook, and what waits for it
    Remove {
        /// The webhook
        id: String,
    },
    /// Give a webhook a new secret, which is printed once; for 24 hours the one before counts too
    Rotate {
        /// The webhook
        id: String,
    },
    /// Send a signed sample now, and print the status code of the answer
    Test {
        /// The webhook
        id: String,
        #[command(flatten)]
        address: WebhookOptions,
    },
    /// List the changes that were given up, each with its sequence
    Parked {
        /// The webhook
        id: String,
    },
    /// Try changes again that were given up
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Resend {
        /// The webhook
        id: String,
        /// All of them
        #[arg(long, group = "which")]
        all: bool,
        /// The one with this sequence
        #[arg(long, value_name = "N", group = "which")]
        sequence: Option<i64>,
    },
}

/// What to do with the master keys.
#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Print a new master key, a line to add to a file of them; the one with the largest number is used for what is new
    Generate {
        /// Its number; by default the next one after those that are given, or 1
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        number: Option<u32>,
    },
    /// Wrap the keys of all customers by the newest master key, also while gateways serve that have it where their keys come from
    Rotate,
    /// Encrypt a store that holds customers in clear text; nobody can use it meanwhile
    Encrypt,
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
        let cli = Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            _ => usage(&without_urls(&error)),
        })?;
        // clap sees no conflict between an option before the command and one behind it, nor with what is no option.
        match cli.store.keys.sources().len() {
            0 | 1 => Ok(cli),
            _ => Err(usage(&format!(
                "error: of --key-file, --key-command and the variables {VARIABLE}, DCAMS_KEY_FILE and DCAMS_KEY_COMMAND \
                 only one can be used"
            ))),
        }
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
        let keys = self.keys.load()?;
        Store::open(&self.location, migrate, settings, keys.as_ref())
            .with_context(|| format!("the store {}", self.location))
    }

    /// Brings the schema up to date, or only looks whether it is.
    pub(crate) fn migrate(&self, check: bool) -> anyhow::Result<()> {
        let migrate = if check { Migrate::Check } else { Migrate::Auto };
        Store::migrate(&self.location, migrate, &store::Settings::default())
            .with_context(|| format!("the store {}", self.location))?;
        say!("the schema of {} is up to date", self.location)
    }
}

/// Prints the OpenAPI document, as if the JSON endpoint were where it is by default.
pub(crate) fn openapi() -> anyhow::Result<()> {
    say!("{}", rest::openapi("http://127.0.0.1:8080")?)
}

impl KeyOptions {
    /// Where the master keys come from, if they are given.
    pub(crate) fn source(&self) -> Option<Source> {
        self.sources().pop()
    }

    /// Reads the master keys, if they are given.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Keys>> {
        self.source().map(Source::load).transpose()
    }

    fn sources(&self) -> Vec<Source> {
        let file = self.key_file.clone().map(Source::File);
        let command = self.key_command.clone().map(Source::Command);
        let variable = std::env::var_os(VARIABLE).map(|_| Source::Variable);
        [file, command, variable].into_iter().flatten().collect()
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

/// 1 GiB.
const MIB: usize = 1024 * 1024;
const GIB: usize = 1024 * MIB;

/// A number of bytes from 1 to `MOST`.
fn bytes<const MOST: usize>(text: &str) -> Result<usize, String> {
    let units = [("KiB", 1024), ("MiB", MIB), ("GiB", GIB), ("", 1)];
    units
        .into_iter()
        .find_map(|(unit, size)| text.strip_suffix(unit)?.parse::<usize>().ok()?.checked_mul(size))
        .filter(|bytes| (1..=MOST).contains(bytes))
        .ok_or_else(|| format!("a number of bytes from 1 to {MOST} is needed, such as 1048576 or 1MiB"))
}

/// How long something is kept: at least a second, and at most a century.
fn age(text: &str) -> Result<Duration, String> {
    const MOST: u64 = 100 * 365 * 24 * 60 * 60;

    let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
    units
        .into_iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(seconds))
        .filter(|seconds| (1..=MOST).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "a number with s, m, h or d is needed, such as 90d, from 1s to 36500d".to_owned())
}

/// Why a status is changed.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if !(1..=Change::REASON).contains(&text.chars().count()) || text.contains(char::is_control) {
        return Err(format!(
            "a text of 1 to {} characters without control characters is needed",
            Change::REASON
        ));
    }
    Ok(text.to_owned())
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
    fn sizes_and_ages_have_units() {
        for (text, size) in [("1", 1), ("2KiB", 2_048), ("10MiB", 10_485_760), ("1GiB", GIB)] {
            assert_eq!(bytes::<GIB>(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "1.5MiB",
            "10MB",
            "MiB",
            "2GiB",
            "99999999999999999999GiB",
            "17179869184GiB",
        ] {
            assert!(bytes::<GIB>(text).is_err(), "{text}");
        }
        for (text, seconds) in [("1s", 1), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "0d",
            "90",
            "-1d",
            "1.5h",
            "1w",
            "40000d",
            "999999999999999999d",
        ] {
            assert!(age(text).is_err(), "{text}");
        }
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
