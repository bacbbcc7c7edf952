//! The command line: every command, flag and environment variable there is.

mod commands;
mod config;
mod limits;
mod overload;
mod serve;
mod telemetry;
mod tls;
mod values;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};
use secrecy::ExposeSecret;
use store::{Keys, Location, Migrate, Store};

pub(crate) use self::{commands::*, config::*, limits::*, serve::*, telemetry::*, tls::*};
use crate::{
    config::{self as configuration, Settings, Wrong},
    docs,
    ring::{self, Source, VARIABLE},
};

/// What the options of every command stand under.
const GLOBAL: &str = "Options of every command";

/// Keeps the verification status of customers: over gRPC, and over the old JSON endpoint in front of it.
#[derive(Parser)]
#[command(name = "dcams-gateway", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where all that comes from.
    #[arg(skip)]
    pub(crate) settings: Settings,
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
    store_url: Location,
    /// The file that holds the URL of the store, so that its password stands in no other place
    #[arg(
        long,
        env = "DCAMS_STORE_FILE",
        value_name = "PATH",
        help_heading = GLOBAL,
        global = true
    )]
    store_file: Option<PathBuf>,
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
    /// Show the gRPC call that a legacy JSON body becomes, as a line for grpcurl; or the error that it gets
    Explain(ExplainOptions),
    /// Send the documented contract to a deployment, ours or another, and report row by row what it answers
    ///
    /// Ends with 1 when a row is answered otherwise than documented, and shows the bytes that differ. Without --email only what
    /// needs no customer is sent, and without --write nothing is changed. It logs in with 3 wrong passwords, once each.
    Compat(CompatOptions),
    /// Print the proto file of the gRPC face, or write it into a folder
    Proto {
        /// The folder; the file is then dcams/storage/v1/storage.proto in it
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Manage whole stores
    #[command(subcommand)]
    Store(StoreCommand),
    /// Check and show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a gateway on this machine whether it serves; ends with 0 if it does, and with 1 if not
    Health(HealthOptions),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command
    Man {
        /// The folder to write them into, which is made if need be; without it the first page is printed
        folder: Option<PathBuf>,
    },
}

impl Cli {
    /// Reads the command line, the environment and the file of the configuration. What is wrong with them is said in one
    /// line; `config check` has one for each thing.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        let mut command = Self::command();
        let arguments: Vec<_> = std::env::args_os().collect();
        let loaded = match configuration::load(&command, &arguments) {
            Ok(loaded) => loaded,
            Err(wrong) => return Err(say_wrong(&command, wrong)),
        };
        let cli = Self::from_arg_matches(&loaded.matches);
        let cli = cli.map_err(|error| usage(&error.format(&mut command).to_string(), ""))?;
        let cli = Self {
            settings: loaded.settings,
            ..cli
        };
        // clap sees no conflict between an option before the command and one behind it, nor with what is no option.
        if cli.store.keys.sources().len() > 1 {
            return Err(usage(
                &format!(
                    "error: of --key-file, --key-command and the variables {VARIABLE}, DCAMS_KEY_FILE and \
                     DCAMS_KEY_COMMAND only one can be used"
                ),
                "",
            ));
        }
        if cli.settings.is_given("store") && cli.settings.is_given("store_file") {
            return Err(usage(
                "error: of --store, --store-file and the variables DCAMS_STORE and DCAMS_STORE_FILE only one can be used",
                "",
            ));
        }
        Ok(cli)
    }
}

/// Says why the command line or the configuration was not read, or helps, and gives the exit code for that.
fn say_wrong(command: &clap::Command, wrong: Wrong) -> ExitCode {
    match wrong {
        Wrong::CommandLine(error, places) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            _ => usage(&without_secrets(command, &error), &places),
        },
        Wrong::Configuration(faults) => {
            for fault in faults {
                eprintln!("error: {fault}");
            }
            ExitCode::from(2)
        }
    }
}

/// What clap says, without the values that it quotes where they may hold a secret: URLs, and what is not shown of the
/// environment.
fn without_secrets(command: &clap::Command, error: &clap::Error) -> String {
    let is_secret = match error.get(ContextKind::InvalidArg) {
        // As clap writes it: `--flag <VALUE>`.
        Some(ContextValue::String(arg)) => hides(command, arg.split(' ').next().unwrap_or_default()),
        _ => false,
    };
    let mut text = error.to_string();
    for (kind, value) in error.context() {
        let ContextValue::String(quoted) = value else {
            continue;
        };
        let stands = match quoted.contains("//") {
            true => "'URL'",
            false if is_secret && kind == ContextKind::InvalidValue && !quoted.is_empty() => "'...'",
            false => continue,
        };
        // clap writes a value in either form, and quotes it.
        text = text
            .replace(&format!("{quoted:?}"), stands)
            .replace(&format!("'{quoted}'"), stands);
    }
    text
}

/// Whether a flag of a command, or of one below it, is one whose values are not shown.
fn hides(command: &clap::Command, flag: &str) -> bool {
    let name = flag.trim_start_matches('-');
    let own = command
        .get_arguments()
        .any(|arg| arg.is_hide_env_values_set() && arg.get_long() == Some(name));
    own || command.get_subcommands().any(|below| hides(below, flag))
}

/// Says what is wrong with the command line, in one line, and gives the exit code for that.
fn usage(text: &str, places: &str) -> ExitCode {
    let what = text.split("\n\n").next().unwrap_or_default();
    let line = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    eprintln!("{line}{places} (see --help)");
    ExitCode::from(2)
}

impl StoreOptions {
    /// Opens the store for a command, whatever state its schema is in: brought up to date.
    pub(crate) fn open(&self) -> anyhow::Result<Store> {
        self.open_with(Migrate::Auto, &store::Settings::default())
    }

    /// Opens the store.
    pub(crate) fn open_with(&self, migrate: Migrate, settings: &store::Settings) -> anyhow::Result<Store> {
        if let Some(path) = &self.store_file {
            ring::warn_if_shared("store file", path);
        }
        let (location, keys) = (self.location()?, self.keys.load()?);
        Store::open(&location, migrate, settings, keys.as_ref()).with_context(|| format!("the store {location}"))
    }

    /// Where the store is. A file that holds the URL is read now.
    pub(crate) fn location(&self) -> anyhow::Result<Location> {
        let Some(path) = &self.store_file else {
            return Ok(self.store_url.clone());
        };
        let content = ring::read_secret("store file", path)?;
        let url = content.expose_secret().trim();
        url.parse()
            .with_context(|| format!("the store file {}", path.display()))
    }

    /// Brings the schema up to date, or only looks whether it is.
    pub(crate) fn migrate(&self, check: bool) -> anyhow::Result<()> {
        let migrate = if check { Migrate::Check } else { Migrate::Auto };
        let location = self.location()?;
        Store::migrate(&location, migrate, &store::Settings::default())
            .with_context(|| format!("the store {location}"))?;
        say!("the schema of {location} is up to date")
    }
}

/// Prints the OpenAPI document, as if the JSON endpoint were where and as it is by default.
pub(crate) fn openapi() -> anyhow::Result<()> {
    let described = rest::Described {
        servers: vec![rest::Server {
            url: "http://127.0.0.1:8080".to_owned(),
            note: docs::ENDPOINT,
        }],
        settings: rest::Settings::default(),
        image_limit: grpc::Settings::default().document_limit,
    };
    say!("{}", rest::openapi(&described)?)
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

/// Writes the manual pages into a folder, or prints the first one.
pub(crate) fn man(folder: Option<PathBuf>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return clap_mangen::Man::new(Cli::command().disable_help_subcommand(true))
            .render(&mut io::stdout())
            .context("standard output");
    };
    std::fs::create_dir_all(&folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &folder))
        .with_context(|| folder.display().to_string())
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
