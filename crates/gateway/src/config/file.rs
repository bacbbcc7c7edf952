//! The file: TOML, with the keys at its top.

use std::{
    fs::File as Opened,
    io::Read,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Key, Kind,
    key::Judge,
    secret::{MASK, is_quotable},
};

/// The most bytes of a file.
const MOST: u64 = 1024 * 1024;

/// How alike two names are for one to be proposed for the other, of 1.
const ALIKE: f64 = 0.85;

/// A file that was read, with what is good in it.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) entries: Vec<Entry>,
}

/// Something that is wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    /// From 1; 0 when it is about the whole file.
    line: usize,
    what: String,
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// From 1.
    pub(crate) line: usize,
    /// `true` or `false` of a switch, one value, or those of a list.
    pub(crate) values: Vec<String>,
}

impl File {
    /// Reads a file, and says what is wrong with it. No value that may hold a secret is in that.
    pub(crate) fn read(path: &Path, keys: &[Key]) -> (Self, Vec<Fault>) {
        let mut file = Self {
            path: path.to_owned(),
            entries: Vec::new(),
        };
        let text = match content(path) {
            Ok(text) => text,
            Err(what) => return (file, vec![Fault { line: 0, what }]),
        };
        let line = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        let (table, errors) = DeTable::parse_recoverable(&text);
        if !errors.is_empty() {
            let faults = errors.iter().map(|error| Fault {
                line: error.span().map_or(1, |span| line(span.start)),
                what: syntax(error.message()),
            });
            return (file, faults.collect());
        }
        let mut faults = Vec::new();
        let mut entries: Vec<_> = table.into_inner().into_iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let line = line(name.span().start);
            let name = name.into_inner();
            let found = keys.iter().find(|key| key.name == name);
            match found.map_or_else(|| Err(unknown(&name, keys)), |key| values(key, &value)) {
                Ok(values) => file.entries.push(Entry {
                    name: name.into_owned(),
                    line,
                    values,
                }),
                Err(what) => faults.push(Fault { line, what }),
            }
        }
        (file, faults)
    }

    /// What it says of a key.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Says what is wrong with the values of a key, if anything is.
    pub(crate) fn faults(&self, key: &Key, judge: &Judge) -> Vec<Fault> {
        let Some(entry) = self.entry(&key.name) else {
            return Vec::new();
        };
        let fault = |value: &String| {
            let why = judge.fault(key, value)?;
            let Entry { name, line, .. } = entry;
            let what = match is_quotable(key, value) {
                true => format!("{name} = {value:?}: {why}"),
                false => format!("{name}: {why}"),
            };
            Some(Fault { line: *line, what })
        };
        entry.values.iter().filter_map(fault).collect()
    }

    /// What is wrong, in the order of the file, in a line for each thing.
    pub(crate) fn lines(&self, mut faults: Vec<Fault>) -> Vec<String> {
        let path = self.path.display();
        faults.sort_by_key(|fault| fault.line);
        let line = |fault: Fault| match fault.line {
            0 => format!("the configuration {path}: {}", fault.what),
            line => format!("{path}, line {line}: {}", fault.what),
        };
        faults.into_iter().map(line).collect()
    }
}

/// The text of a file.
fn content(path: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    Opened::open(path)
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut text))
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MOST {
        return Err(format!("it has more than {MOST} bytes"));
    }
    String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())
}

/// What the parser says. It takes a word without quotes for the beginning of another kind of value.
fn syntax(message: &str) -> String {
    let may_be_a_word = [
        "invalid float",
        "invalid boolean",
        "invalid integer",
        "invalid datetime",
    ];
    match may_be_a_word.iter().any(|start| message.starts_with(start)) {
        true => format!("{message}; a text stands in quotes"),
        false => message.to_owned(),
    }
}

/// Says that there is no such key, and which one may be meant.
fn unknown(name: &str, keys: &[Key]) -> String {
    let alike = keys
        .iter()
        .map(|key| (strsim::jaro_winkler(name, &key.name), &key.name))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match alike {
        Some((_, key)) => format!("there is no key {name:?}; {key} may be meant"),
        None => format!("there is no key {name:?}"),
    }
}

/// The texts of a value, as a flag would have them.
fn values(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    let name = &key.name;
    let values = match (key.kind(), value.get_ref()) {
        (Kind::Switch, DeValue::Boolean(on)) => vec![on.to_string()],
        (Kind::Switch, _) => return Err(format!("{name}: true or false is needed")),
        (Kind::List, DeValue::Array(values)) => values
            .iter()
            .map(|value| text(value.get_ref()))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{name}: a list of texts is needed, such as [\"a\", \"b\"]"))?,
        (Kind::List, _) => return Err(format!("{name}: a list is needed, such as [\"a\", \"b\"]")),
        (Kind::Value, value) => match text(value) {
            Some(text) => vec![text],
            None => return Err(format!("{name}: a text or a number is needed")),
        },
    };
    match values.iter().any(|value| value.contains(MASK)) {
        true => Err(format!(
            "{name}: the secret is needed, in place of which `config show` wrote {MASK}"
        )),
        false => Ok(values),
    }
}

/// A text or a number as text.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(number.to_string()),
            Err(_) => Some(number.to_string()),
        },
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
