//! The commands beside `serve`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use store::{AccountName, Head, Location, Scope, Status};
use url::Url;

use super::{
    serve::{DocumentOptions, WebhookOptions},
    values::{age, label, reason},
};

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
    /// Manage the account's API tokens, for services that should not have its password
    #[command(subcommand)]
    Token(TokenCommand),
    /// Replace the password; without --password-stdin one is made up and printed, once
    SetPassword {
        /// The account
        name: AccountName,
        #[command(flatten)]
        password: PasswordOptions,
    },
}

/// What to do with the API tokens of accounts.
#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token that acts for the account over gRPC, as `authorization: Bearer TOKEN`; it is printed once
    Create {
        /// The account
        name: AccountName,
        /// What it may do, as a list with commas: read, write, documents, admin
        ///
        /// read: read customers, their statuses and the history. write: set statuses, register customers and change them.
        /// documents: read images of documents, and with write also change them. admin: erase customers.
        #[arg(long = "scope", value_name = "SCOPES", value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
        /// After which time it no longer counts: a number with s, m, h or d, such as 90d; by default never
        #[arg(long, value_name = "AGE", value_parser = age)]
        expires: Option<Duration>,
        /// What it is for, in at most 100 characters
        #[arg(long, value_name = "TEXT", value_parser = label)]
        label: Option<String>,
    },
    /// List an account's tokens, also those that no longer count; when each was last used is told to about an hour
    List {
        /// The account
        name: AccountName,
    },
    /// Refuse a token from now on, on every gateway
    Revoke {
        /// The token, as it is called by `list`: the 16 characters behind dcams_
        id: String,
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

/// Which changes to print.
#[derive(Args)]
pub(crate) struct FeedOptions {
    #[command(flatten)]
    pub(crate) account: OfAccount,
    /// Go on behind the change that has this cursor; by default it begins with the account's first one
    #[arg(long, value_name = "CURSOR", conflicts_with = "only_new")]
    pub(crate) from: Option<String>,
    /// Begin with what is changed from now on
    #[arg(long)]
    pub(crate) only_new: bool,
    /// End once everything that is there is printed
    #[arg(long)]
    pub(crate) until_now: bool,
}

/// Whom to ask.
#[derive(Args)]
pub(crate) struct HealthOptions {
    /// The gateway's ops address; the port of 0.0.0.0 is asked on loopback
    #[arg(long, env = "DCAMS_OPS_ADDR", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub(crate) ops_addr: SocketAddr,
    /// Ask no more than whether the process lives
    #[arg(long)]
    pub(crate) live: bool,
}

/// Which legacy body to explain, and how.
#[derive(Args)]
pub(crate) struct ExplainOptions {
    /// The file of the body; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where the call goes to
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub(crate) grpc_addr: String,
    /// Call without TLS, as is always done on a loopback address
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Write the message into this file, for its owner only, and have the line read it from there: for large images
    #[arg(long, value_name = "FILE")]
    pub(crate) message: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) documents: DocumentOptions,
}

/// Which deployment to look at, and as whom.
#[derive(Args)]
pub(crate) struct CompatOptions {
    /// The deployment: http://HOST:PORT or https://HOST, with the path of the endpoint if it is another one
    #[arg(long, value_name = "URL")]
    pub(crate) url: Url,
    /// The account; its password is taken from the variable DCAMS_PASSWORD without --password-stdin
    #[arg(long, value_name = "NAME")]
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) password: PasswordOptions,
    /// The email address of a customer to look at
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// Change the status of that customer, and set it back in the end; make the customer if it is not there
    #[arg(long, requires = "email")]
    pub(crate) write: bool,
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
