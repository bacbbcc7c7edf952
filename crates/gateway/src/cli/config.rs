//! The commands about the configuration, and the flag that names its file.

use std::path::PathBuf;

use clap::{Arg, Args, Subcommand};

use super::{GLOBAL, serve::ServeOptions};

/// Which file holds the configuration.
#[derive(Args)]
pub(crate) struct ConfigOptions {
    /// Read settings from this TOML file; the environment and flags win over it
    #[arg(
        id = "config",
        long = "config",
        env = "DCAMS_CONFIG",
        value_name = "PATH",
        help_heading = GLOBAL,
        global = true
    )]
    pub(crate) file: Option<PathBuf>,
}

/// What to do with the configuration.
#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with the file, the environment and the flags of `serve`, a line for each thing, and end with 2; or
    /// that all is good
    #[command(mut_args(unlisted))]
    Check {
        /// The file; by default the one that --config or DCAMS_CONFIG names
        #[arg(id = "checked", value_name = "PATH")]
        file: Option<PathBuf>,
        #[command(flatten)]
        serve: Box<ServeOptions>,
    },
    /// Print every key with its value for `serve`, whose flags it takes too, and where that comes from; secrets are masked
    #[command(mut_args(unlisted))]
    Show {
        #[command(flatten)]
        serve: Box<ServeOptions>,
    },
    /// Print a file with every key, its default and what it is for
    Example,
    /// Print the table of every key, flag, variable and default, as Markdown
    Reference,
}

/// The flags of `serve` are listed there.
fn unlisted(arg: Arg) -> Arg {
    let is_flag = arg.get_long().is_some();
    arg.hide(is_flag)
}
