//! The configuration: a file, the environment and the command line, each over the one before.
//!
//! What the file says is put on the command line, unless that or the environment say something else: so types, conflicts and
//! what goes only together are judged by clap, wherever a value comes from.

mod document;
mod file;
mod key;
mod secret;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgMatches, Command, parser::ValueSource};

pub(crate) use self::key::{Key, Kind};
use self::{
    file::{Entry, File},
    key::{Judge, is_about_others, is_given},
};
use crate::{
    cli::{Cli, ConfigCommand, StoreOptions},
    serve,
};

/// What was read.
pub(crate) struct Loaded {
    pub(crate) matches: ArgMatches,
    pub(crate) settings: Settings,
}

/// What the keys of a command are, and where that comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The file, if one was named.
    pub(crate) file: Option<PathBuf>,
    all: Vec<Setting>,
}

/// What a key is, and where that comes from.
#[derive(Clone, Debug)]
struct Setting {
    key: Key,
    /// None where nothing is said and there is no default; `true` or `false` of a switch.
    values: Vec<String>,
    source: Source,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Default,
    /// A line of the file.
    File(usize),
    Environment,
    Flag,
}

/// Why nothing was read.
pub(crate) enum Wrong {
    /// What is wrong with the command line or a variable; or it asks for help. And what to add to that about the file.
    CommandLine(clap::Error, String),
    /// What is wrong with the file or, if it is to be checked, the environment. A check has a line for each thing, and
    /// everybody else has one.
    Configuration(Vec<String>),
}

/// Reads the command line and the environment, and the file that one of them names.
pub(crate) fn load(command: &Command, arguments: &[OsString]) -> Result<Loaded, Wrong> {
    let parse = |arguments: &[OsString]| command.clone().try_get_matches_from(arguments);
    let refused = |error| Wrong::CommandLine(error, String::new());
    // A glance past all errors, for what may be missing stands in the file: which file it is, and what is given beside it.
    let glance = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .map_err(refused)?;
    let strict = parse(arguments);
    let chosen = Chosen::of(command, &glance);
    let keys = Key::all(command);
    let judge = Judge::new(command);

    let mut faults = match chosen.is_check() {
        true => chosen.wrong_variables(&keys, &judge),
        false => Vec::new(),
    };
    if let Err(error) = strict {
        // Whatever the file says, this stays wrong.
        if faults.is_empty() && !is_about_others(&error) {
            return Err(refused(error));
        }
    }
    let path = chosen.file();
    let file = path.as_deref().map(|path| File::read(path, &keys));
    let (file, mut wrong) = file.unwrap_or_default();
    let relevant = keys.iter().filter_map(|key| Some((key, key.within(chosen.command)?)));
    let mut added = Vec::new();
    for (key, arg) in relevant.clone() {
        wrong.extend(file.faults(key, &judge));
        if let Some(entry) = file.entry(&key.name)
            && !is_given(chosen.matches, arg)
        {
            added.push((key, entry));
        }
    }
    faults.extend(file.lines(wrong));
    if !faults.is_empty() {
        let said = if chosen.is_check() { faults } else { first_of(faults) };
        return Err(Wrong::Configuration(said));
    }

    let mut all = arguments.to_vec();
    let end = all.iter().position(|word| word == "--").unwrap_or(all.len());
    let words = added.iter().flat_map(|(key, entry)| key.arguments(&entry.values));
    all.splice(end..end, words.map(OsString::from));
    let matches = parse(&all).map_err(|error| {
        let places = places(&error, &added, &file);
        Wrong::CommandLine(error, places)
    })?;
    let final_matches = Chosen::of(command, &matches).matches.clone();
    let settings = relevant.map(|(key, arg)| {
        let from_file = added.iter().find(|(other, _)| other.name == key.name);
        Setting::of(
            key,
            arg.get_id().as_str(),
            &final_matches,
            from_file.map(|(_, entry)| *entry),
        )
    });
    let all = settings.collect();
    Ok(Loaded {
        matches,
        settings: Settings { file: path, all },
    })
}

/// The first thing that is wrong, and where the others are found.
fn first_of(faults: Vec<String>) -> Vec<String> {
    let more = faults.len().saturating_sub(1);
    let line = |fault| match more {
        0 => fault,
        _ => format!("{fault} (and {more} more: `dcams-gateway config check` has them all)"),
    };
    faults.into_iter().take(1).map(line).collect()
}

/// Which lines of the file an error is about, so that nobody looks for them on the command line.
fn places(error: &clap::Error, added: &[(&Key, &Entry)], file: &File) -> String {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let names = |key: &Key| {
        what.split(|c: char| !(c.is_alphanumeric() || c == '-'))
            .any(|word| word.strip_prefix("--") == Some(key.flag()))
    };
    let path = file.path.display();
    added
        .iter()
        .filter(|(key, _)| names(key))
        .map(|(key, entry)| format!("; {} is set in {path}, line {}", key.name, entry.line))
        .collect()
}

/// The command that was chosen, and what is said about it.
struct Chosen<'a> {
    command: &'a Command,
    names: Vec<&'a str>,
    matches: &'a ArgMatches,
}

impl<'a> Chosen<'a> {
    fn of(mut command: &'a Command, mut matches: &'a ArgMatches) -> Self {
        let mut names = Vec::new();
        while let Some((name, below)) = matches.subcommand()
            && let Some(inner) = command.find_subcommand(name)
        {
            names.push(name);
            (command, matches) = (inner, below);
        }
        Self {
            command,
            names,
            matches,
        }
    }

    fn is_check(&self) -> bool {
        self.names == ["config", "check"]
    }

    /// The file that is named.
    fn file(&self) -> Option<PathBuf> {
        let path = |id| self.matches.try_get_one::<PathBuf>(id).ok().flatten().cloned();
        let checked = self.is_check().then(|| path("checked")).flatten();
        checked.or_else(|| path("config"))
    }

    /// What is wrong with variables of the environment that count.
    fn wrong_variables(&self, keys: &[Key], judge: &Judge) -> Vec<String> {
        let fault = |key: &Key| {
            let arg = key.within(self.command)?;
            let variable = key.variable()?;
            let value = std::env::var(variable).ok()?;
            let source = self.matches.value_source(arg.get_id().as_str());
            if source == Some(ValueSource::CommandLine) {
                return None;
            }
            let why = judge.fault(key, &value)?;
            Some(match secret::is_quotable(key, &value) {
                true => format!("{variable} = {value:?}: {why}"),
                false => format!("{variable}: {why}"),
            })
        };
        keys.iter().filter_map(fault).collect()
    }
}

impl Setting {
    fn of(key: &Key, id: &str, matches: &ArgMatches, from_file: Option<&Entry>) -> Self {
        let source = match (from_file, matches.value_source(id)) {
            (Some(entry), _) => Source::File(entry.line),
            (None, Some(ValueSource::CommandLine)) => Source::Flag,
            (None, Some(ValueSource::EnvVariable)) => Source::Environment,
            (None, _) => Source::Default,
        };
        let values = match key.kind() {
            Kind::Switch => matches
                .try_get_one::<bool>(id)
                .ok()
                .flatten()
                .map(|on| on.to_string())
                .into_iter()
                .collect(),
            Kind::Value | Kind::List => matches
                .get_raw(id)
                .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
                .unwrap_or_default(),
        };
        Self {
            key: key.clone(),
            values,
            source,
        }
    }
}

impl Settings {
    /// Whether a key was given anywhere.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.all
            .iter()
            .any(|setting| setting.key.name == name && setting.source != Source::Default)
    }

    fn count_from_file(&self) -> usize {
        let from_file = |setting: &&Setting| matches!(setting.source, Source::File(_));
        self.all.iter().filter(from_file).count()
    }
}

/// Does what one of the commands says.
pub(crate) fn run(store: &StoreOptions, settings: &Settings, command: ConfigCommand) -> anyhow::Result<ExitCode> {
    use clap::CommandFactory;
    match command {
        ConfigCommand::Check { serve, .. } => {
            let mut faults = Vec::new();
            // A facade alone opens no store.
            if serve.upstream.is_none() {
                faults.extend(store.location().err());
                faults.extend(store.keys.load().err());
            }
            faults.extend(serve::check(&serve).err());
            if faults.is_empty() {
                say!("{}", good(settings))?;
                return Ok(ExitCode::SUCCESS);
            }
            for fault in faults {
                eprintln!("error: {fault:#}");
            }
            return Ok(ExitCode::from(2));
        }
        ConfigCommand::Show { .. } => say!("{}", document::show(settings).trim_end())?,
        ConfigCommand::Example => say!("{}", document::example(&Key::all(&Cli::command())).trim_end())?,
        ConfigCommand::Reference => say!("{}", document::reference(&Key::all(&Cli::command())).trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn good(settings: &Settings) -> String {
    let path = settings.file.as_deref().map(Path::display);
    match (path, settings.count_from_file()) {
        (Some(path), 1) => format!("{path} is good: 1 key counts"),
        (Some(path), count) => format!("{path} is good: {count} keys count"),
        (None, _) => "the environment is good; no file is named".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, builder::BoolValueParser};

    use super::*;

    /// A program with what ours has and may have one day.
    fn command() -> Command {
        let serve = Command::new("serve").args([
            Arg::new("cert").long("tls-cert").requires("key"),
            Arg::new("key").long("tls-key").requires("cert").conflicts_with("plain"),
            Arg::new("plain").long("plain").action(ArgAction::SetTrue),
            Arg::new("needed").long("needed").required(true),
            Arg::new("on")
                .long("on")
                .value_parser(BoolValueParser::new())
                .default_value("true"),
            Arg::new("list").long("list").action(ArgAction::Append),
            Arg::new("ratio").long("ratio").value_parser(clap::value_parser!(f64)),
        ]);
        let config = Arg::new("config")
            .long("config")
            .global(true)
            .value_parser(clap::value_parser!(PathBuf));
        Command::new("program").arg(config).subcommand(serve)
    }

    /// What the keys are with this file and these flags, or the line that says what is wrong.
    fn load_with(text: &str, flags: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let line = format!("program --config {} serve {flags}", file.display());
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        match load(&command(), &words) {
            Ok(loaded) => {
                let given = loaded
                    .settings
                    .all
                    .into_iter()
                    .filter(|setting| setting.source != Source::Default);
                Ok(given
                    .map(|setting| (setting.key.name, setting.values.join(",")))
                    .collect())
            }
            Err(Wrong::CommandLine(error, places)) => {
                let text = error.to_string();
                Err(format!("{}{places}", text.split("\n\n").next().unwrap()))
            }
            Err(Wrong::Configuration(faults)) => Err(faults.join("\n")),
        }
    }

    #[test]
    fn what_goes_only_together_may_be_said_in_two_places() {
        let good = |text, flags| {
            load_with(text, flags)
                .unwrap()
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            good("needed = 1\ntls_key = \"k\"", "--tls-cert c"),
            ["tls_cert", "tls_key", "needed"]
        );
        assert_eq!(
            good("tls_cert = \"c\"", "--tls-key k --needed 1"),
            ["tls_cert", "tls_key", "needed"]
        );
        let wrong = load_with("needed = 1\n\ntls_key = \"k\"", "").unwrap_err();
        assert!(wrong.contains("--tls-cert <cert>"), "{wrong}");
        let wrong = load_with("needed = 1\ntls_cert = \"c\"\ntls_key = \"k\"", "--plain").unwrap_err();
        assert!(wrong.contains("cannot be used with"), "{wrong}");
        assert!(
            wrong.contains("; tls_key is set in ") && wrong.ends_with("c.toml, line 3"),
            "{wrong}"
        );
        assert!(load_with("", "").unwrap_err().contains("--needed"));
    }

    #[test]
    fn values_of_every_kind_come_through() {
        let text = "needed = \"--plain -- x\"\non = false\nplain = false\nlist = [\"a b\", 7]\nratio = 1_0.50\n";
        let loaded = load_with(text, "").unwrap();
        let values = [
            ("plain", "false"),
            ("needed", "--plain -- x"),
            ("on", "false"),
            ("list", "a b,7"),
            ("ratio", "10.50"),
        ];
        let expected: Vec<_> = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(loaded, expected);
        // What stands behind -- is no flag, and what is added is none of it.
        assert!(load_with("needed = 1", "-- x").unwrap_err().contains("'x'"));
        // A list is not added to.
        let loaded = load_with(text, "--list c --plain --on true").unwrap();
        assert!(loaded.contains(&("list".to_owned(), "c".to_owned())), "{loaded:?}");
        assert!(loaded.contains(&("plain".to_owned(), "true".to_owned())), "{loaded:?}");
        assert!(loaded.contains(&("on".to_owned(), "true".to_owned())), "{loaded:?}");
        assert!(
            load_with("needed = 1\nratio = 2099-01-01", "")
                .unwrap_err()
                .contains("line 2: ratio: a text")
        );
    }
}
