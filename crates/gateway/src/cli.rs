//! The command line: every command, flag and environment variable there is.

mod commands;
mod overload;
mod serve;
mod values;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum,
    error::{ContextValue, ErrorKind},
};
use store::{Keys, Location, Migrate, Store};

pub(crate) use self::{commands::*, serve::*};
use crate::ring::{Source, VARIABLE};

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
    /// Manage webhooks: where changes of status are sent to
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Seal the history, and check it against what was sealed
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Manage the keys that personal data is encrypted under
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Bring the store's schema up to date
    Migrate {
        /// Change nothing; fail if the schema is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Print an account's changes of status, a JSON object a line, each with the cursor to go on behind it; until Ctrl-C
    Feed(FeedOptions),
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
