//! What can be configured. It is read off the description of the command line, so that every flag is a key of the file.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

/// A setting: a flag of every command, or one of `serve`.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    arg: Arg,
    /// As the file has it: the flag with `_` for `-`.
    pub(crate) name: String,
}

/// What a key of the file takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// true or false.
    Switch,
    /// A text or a number.
    Value,
    /// A list of texts or numbers.
    List,
}

impl Key {
    /// Every key, in the order of the help: those of every command, and then those of `serve`.
    pub(crate) fn all(command: &Command) -> Vec<Self> {
        let of_all = command.get_arguments().filter(|arg| arg.is_global_set());
        let serve = command.find_subcommand("serve").into_iter();
        of_all
            .chain(serve.flat_map(Command::get_arguments))
            .filter_map(Self::of)
            .collect()
    }

    /// The key of a flag; none for what is for tests, and for what names the file.
    fn of(arg: &Arg) -> Option<Self> {
        let flag = arg
            .get_long()
            .filter(|flag| !arg.is_hide_set() && !["config", "help", "version"].contains(flag))?;
        let known = matches!(
            arg.get_action(),
            ArgAction::Set | ArgAction::SetTrue | ArgAction::Append
        );
        known.then(|| Self {
            arg: arg.clone(),
            name: flag.replace('-', "_"),
        })
    }

    /// The flag, without its hyphens.
    pub(crate) fn flag(&self) -> &str {
        self.arg.get_long().unwrap_or_default()
    }

    /// The environment variable, if there is one.
    pub(crate) fn variable(&self) -> Option<&str> {
        self.arg.get_env()?.to_str()
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.arg.get_action() {
            ArgAction::SetTrue => Kind::Switch,
            ArgAction::Append => Kind::List,
            _ if self.arg.get_value_parser().type_id() == std::any::TypeId::of::<bool>() => Kind::Switch,
            _ => Kind::Value,
        }
    }

    /// Whether its value is never shown as it is.
    pub(crate) fn is_secret(&self) -> bool {
        self.arg.is_hide_env_values_set()
    }

    /// Whether its value is a URL, of which no more than the password is a secret.
    pub(crate) fn is_url(&self) -> bool {
        self.placeholder() == "URL"
    }

    /// What stands for its value in the help.
    pub(crate) fn placeholder(&self) -> &str {
        self.arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or("VALUE", |name| name.as_str())
    }

    /// What it is for, in a sentence or two.
    pub(crate) fn help(&self) -> String {
        self.arg.get_help().map(ToString::to_string).unwrap_or_default()
    }

    /// The values it may have, where they are few.
    pub(crate) fn choices(&self) -> Vec<String> {
        match self.kind() {
            Kind::Switch => Vec::new(),
            _ => self
                .arg
                .get_possible_values()
                .iter()
                .map(|value| value.get_name().to_owned())
                .collect(),
        }
    }

    /// What it is when nothing is said; nothing where that is not one value.
    pub(crate) fn defaults(&self) -> Vec<String> {
        let defaults = self.arg.get_default_values();
        match self.kind() {
            Kind::Switch if defaults.is_empty() => vec!["false".to_owned()],
            _ => defaults
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect(),
        }
    }

    /// The same setting among the flags of a command; some commands share one with `serve`.
    pub(crate) fn within<'a>(&'a self, command: &'a Command) -> Option<&'a Arg> {
        if self.arg.is_global_set() {
            return Some(&self.arg);
        }
        command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(self.flag()) && arg.get_env() == self.arg.get_env())
    }

    /// What gives this value on a command line.
    pub(crate) fn arguments(&self, values: &[String]) -> Vec<String> {
        match self.arg.get_action() {
            ArgAction::SetTrue => values
                .iter()
                .filter(|value| *value == "true")
                .map(|_| format!("--{}", self.flag()))
                .collect(),
            _ => values
                .iter()
                .map(|value| format!("--{}={value}", self.flag()))
                .collect(),
        }
    }
}

/// Tells whether a value is good, whatever else is given.
pub(crate) struct Judge(Command);

impl Judge {
    pub(crate) fn new(command: &Command) -> Self {
        let of_all = command.get_arguments().filter(|arg| arg.is_global_set());
        let serve = command.find_subcommand("serve").cloned().unwrap_or_default();
        let alone = serve
            .args(of_all.cloned())
            .groups(command.get_groups().cloned())
            .no_binary_name(true)
            // A switch has a value here, as it has in the environment.
            .mut_args(|arg| {
                let arg = arg.env(None).required(false);
                match arg.get_action() {
                    ArgAction::SetTrue => arg.action(ArgAction::Set),
                    _ => arg,
                }
            });
        Self(alone)
    }

    /// Says what is wrong with a value of a key. The value is not quoted.
    pub(crate) fn fault(&self, key: &Key, value: &str) -> Option<String> {
        let result = self
            .0
            .clone()
            .try_get_matches_from([format!("--{}={value}", key.flag())]);
        match result {
            Err(error) if !is_about_others(&error) => Some(why(&error)),
            _ => None,
        }
    }
}

/// Whether an error is about what else is given or not given.
pub(crate) fn is_about_others(error: &clap::Error) -> bool {
    use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};
    matches!(error.kind(), ArgumentConflict | MissingRequiredArgument)
}

/// Why a value is wrong.
fn why(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    match (error.get(ContextKind::ValidValue), std::error::Error::source(error)) {
        (Some(ContextValue::Strings(choices)), _) if !choices.is_empty() => {
            format!("one of {} is needed", choices.join(", "))
        }
        (_, Some(cause)) => cause.to_string(),
        _ => "it cannot be empty".to_owned(),
    }
}

/// Whether somebody said so: the command line or the environment.
pub(crate) fn is_given(matches: &ArgMatches, arg: &Arg) -> bool {
    matches
        .value_source(arg.get_id().as_str())
        .is_some_and(|source| source != ValueSource::DefaultValue)
}
