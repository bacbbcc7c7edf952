//! What is printed of the configuration: as TOML with comments, and as the table of CONFIGURATION.md.

use std::fmt::Write;

use toml::Value;

use super::{Key, Kind, Setting, Settings, Source, secret::masked};
use crate::ring;

/// The longest line of a comment.
const WIDTH: usize = 100;

/// Every key with its value and where that comes from. What is a default stands in a comment, so that the whole can be used
/// as a file and means the same.
pub(super) fn show(settings: &Settings) -> String {
    let mut text = match &settings.file {
        Some(path) => format!("# The file is {}.\n", path.display()),
        None => "# There is no file: --config or DCAMS_CONFIG names one.\n".to_owned(),
    };
    if std::env::var_os(ring::VARIABLE).is_some() {
        text.push_str(&format!(
            "# The master keys are in the environment, {}.\n",
            ring::VARIABLE
        ));
    }
    text.push('\n');
    for Setting { key, values, source } in &settings.all {
        let shown: Vec<String> = values.iter().map(|value| masked(key, value)).collect();
        let line = match source {
            Source::Default if values.is_empty() => format!("#{} =  # not set", key.name),
            Source::Default => format!("#{}  # default", assignment(key, &shown)),
            Source::File(line) => format!("{}  # file, line {line}", assignment(key, &shown)),
            Source::Environment => {
                let variable = key.variable().unwrap_or_default();
                format!("{}  # environment, {variable}", assignment(key, &shown))
            }
            Source::Flag => format!("{}  # flag, --{}", assignment(key, &shown), key.flag()),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// A file with every key at its default, in comments, and what it is for.
pub(super) fn example(keys: &[Key]) -> String {
    let mut text = "\
# The configuration of dcams-gateway. It is read when --config or DCAMS_CONFIG names it; the environment and
# flags win over it. Each key stands here with its default. `dcams-gateway config check` says what is wrong, and
# `dcams-gateway config show` what holds.
"
    .to_owned();
    for key in keys {
        text.push('\n');
        for line in wrapped(&about(key)) {
            text.push_str(&format!("# {line}\n"));
        }
        let values = match key.defaults() {
            values if values.is_empty() && key.kind() == Kind::Value => vec![key.placeholder().to_owned()],
            values => values,
        };
        text.push_str(&format!("#{}\n", assignment(key, &values)));
    }
    text
}

/// CONFIGURATION.md.
pub(super) fn reference(keys: &[Key]) -> String {
    let mut text = "\
# Configuration

What can be set, and where: in a TOML file that `--config PATH` or `DCAMS_CONFIG` names, in the environment, or by a flag. A
flag wins over the environment, and that over the file. This page is printed by `dcams-gateway config reference`; a test
compares the two.

| key | flag | environment | default | |
|---|---|---|---|---|
"
    .to_owned();
    for key in keys {
        let variable = key.variable().map(code).unwrap_or_default();
        let defaults = key.defaults();
        let default = match defaults.is_empty() {
            true => String::new(),
            false => code(&defaults.join(",")),
        };
        let about = about(key).replace('|', "\\|").replace('<', "&lt;");
        // Never fails: it writes to memory.
        let _ = writeln!(
            text,
            "| `{}` | `--{}` | {variable} | {default} | {about} |",
            key.name,
            key.flag()
        );
    }
    text.push_str(
        "
In the file a switch is `true` or `false`, a flag that may be given many times is a list (`[\"10.0.0.1\"]`), and everything
else is a text (`\"10MiB\"`) or a number. Keys stand at the top of the file, under no table; one that does not exist is an
error. Paths begin from the folder in which the program is started. A command that shares a setting with `serve` takes it from
the file as well.

Two variables are no keys: `DCAMS_CONFIG` names the file, and `DCAMS_KEYS` may hold the master keys.
",
    );
    text
}

/// What a key is for, and what it may be.
fn about(key: &Key) -> String {
    let choices = key.choices();
    let help = key.help();
    match choices.is_empty() {
        true => help,
        false => format!("{}: {}", help.trim_end_matches('.'), choices.join(", ")),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A key and its value, as TOML has them.
fn assignment(key: &Key, values: &[String]) -> String {
    let first = values.first().map(String::as_str).unwrap_or_default();
    let value = match key.kind() {
        Kind::Switch => first.to_owned(),
        Kind::Value => literal(first),
        Kind::List => {
            let values: Vec<String> = values.iter().map(|value| literal(value)).collect();
            format!("[{}]", values.join(", "))
        }
    };
    format!("{} = {value}", key.name)
}

/// A number as it is, and everything else in quotes.
fn literal(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        _ => Value::String(text.to_owned()).to_string(),
    }
}

/// A text in lines.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
