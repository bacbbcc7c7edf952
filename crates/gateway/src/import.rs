//! `customer import`: reads a file twice, first to find what is bad in it, then to register what is good, and never
//! holds more than a batch of it.

use std::{
    cell::Cell,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use store::{Email, Imported, NewCustomer, Profile, Store};

use crate::{cli::FileFormat, customer};

/// The columns: the keys of the REST face, and the names of the same in the contract.
const COLUMNS: [(&str, &str); 11] = [
    ("email", "email"),
    ("fn", "first_name"),
    ("ln", "last_name"),
    ("addr", "address"),
    ("city", "city"),
    ("state", "state"),
    ("zip", "zip"),
    ("dob", "date_of_birth"),
    ("phone", "phone"),
    ("reference", "reference"),
    ("status", "status"),
];

/// How many customers are registered in one transaction.
const BATCH: usize = 500;

/// The most bytes of a row: a quote that is never closed must not take the rest of the file into memory.
const MAX_ROW: usize = 256 * 1024;

/// How long the store has for a batch; it may wait for other writers.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(
    store: &Store,
    account: i64,
    path: &Path,
    format: Option<FileFormat>,
    skip_bad: bool,
) -> anyhow::Result<()> {
    let format = format.map_or_else(|| format_of(path), Ok)?;
    if !path.metadata().with_context(|| path.display().to_string())?.is_file() {
        bail!(
            "{} is not a file: it is read twice, first to find bad rows",
            path.display()
        );
    }
    let bad = check(path, format)?;
    if bad > 0 && !skip_bad {
        bail!(
            "nothing is imported: {bad} bad {} (see above; --skip-bad imports the others)",
            rows(bad)
        );
    }

    let progress = progress(path, "importing")?;
    let mut done = Imported::default();
    let mut good = Reading::open(path, format, &progress)?.filter_map(|row| match row {
        Ok(row) => row.customer.ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    loop {
        let batch = good.by_ref().take(BATCH).collect::<anyhow::Result<Vec<_>>>()?;
        if batch.is_empty() {
            break;
        }
        let imported = store
            .import(account, batch, customer::origin(), Instant::now() + PATIENCE)
            .await?;
        done.created += imported.created;
        done.updated += imported.updated;
    }
    progress.finish_and_clear();
    print!("{} customers created, {} already there", done.created, done.updated);
    println!(
        "{}",
        if bad > 0 {
            format!(", {bad} bad {} skipped", rows(bad))
        } else {
            String::new()
        }
    );
    Ok(())
}

fn rows(count: u64) -> &'static str {
    if count == 1 { "row" } else { "rows" }
}

/// Says what is bad in a file, row by row, and how many rows that is.
fn check(path: &Path, format: FileFormat) -> anyhow::Result<u64> {
    let progress = progress(path, "checking")?;
    let mut bad = 0;
    for row in Reading::open(path, format, &progress)? {
        let row = row?;
        if let Err(fault) = row.customer {
            bad += 1;
            progress.suspend(|| eprintln!("line {}: {fault}", row.line));
        }
    }
    progress.finish_and_clear();
    Ok(bad)
}

fn format_of(path: &Path) -> anyhow::Result<FileFormat> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(FileFormat::Csv),
        Some("ndjson" | "jsonl") => Ok(FileFormat::Ndjson),
        _ => bail!(
            "--format is needed: the name of {} does not end in .csv, .ndjson or .jsonl",
            path.display()
        ),
    }
}

/// A bar over the bytes of the file; it shows on a terminal only.
fn progress(path: &Path, what: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    let bytes = path.metadata().with_context(|| path.display().to_string())?.len();
    Ok(ProgressBar::new(bytes).with_style(style).with_message(what))
}

/// A row of the file, good or bad.
struct Row {
    line: u64,
    customer: Result<NewCustomer, Fault>,
}

/// What is bad in a row. It never quotes the row, which holds personal data.
#[derive(Debug)]
enum Fault {
    /// The row has no email.
    NoEmail,
    /// A column holds what it may not.
    Invalid(&'static str),
    /// The row has more or fewer values than the header.
    Length,
    /// A key of the object is no column.
    UnknownColumn,
    /// The line is no JSON object.
    NotAnObject,
    /// The row is not UTF-8.
    NotUtf8,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEmail => f.write_str("the email is missing"),
            Self::Invalid(column) => write!(f, "the {column} is invalid"),
            Self::Length => f.write_str("the row has more or fewer values than the header"),
            Self::UnknownColumn => write!(f, "a key is none of {}", known()),
            Self::NotAnObject => f.write_str("the line is not a JSON object"),
            Self::NotUtf8 => f.write_str("the row is not UTF-8"),
        }
    }
}

fn known() -> String {
    COLUMNS.map(|(column, _)| column).join(", ")
}

/// The rows of a file. An item is an error only where reading cannot go on.
enum Reading {
    Csv {
        reader: csv::Reader<Bounded<File>>,
        columns: Vec<usize>,
        record: csv::ByteRecord,
        budget: Budget,
    },
    Ndjson {
        reader: BufReader<Bounded<File>>,
        line: u64,
        buffer: Vec<u8>,
        budget: Budget,
    },
}

impl Reading {
    fn open(path: &Path, format: FileFormat, progress: &ProgressBar) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let budget = Budget::default();
        budget.renew();
        let file = Bounded {
            inner: file,
            budget: budget.clone(),
            progress: progress.clone(),
        };
        Ok(match format {
            FileFormat::Ndjson => Self::Ndjson {
                reader: BufReader::new(file),
                line: 0,
                buffer: Vec::new(),
                budget,
            },
            FileFormat::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
                let header = reader.headers().context("the header")?;
                let columns = header
                    .iter()
                    .map(|name| column(name.trim_start_matches('\u{feff}').trim()));
                let columns = columns.collect::<anyhow::Result<Vec<_>>>()?;
                if !columns.contains(&0) {
                    bail!("the header has no column email");
                }
                if (1..columns.len()).any(|at| columns[..at].contains(&columns[at])) {
                    bail!("the header has a column twice");
                }
                Self::Csv {
                    reader,
                    columns,
                    record: csv::ByteRecord::new(),
                    budget,
                }
            }
        })
    }
}

/// The number of a column by its name.
fn column(name: &str) -> anyhow::Result<usize> {
    COLUMNS
        .iter()
        .position(|(known, _)| *known == name)
        .with_context(|| format!("the header has an unknown column {name:?} (known: {})", known()))
}

impl Iterator for Reading {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Csv {
                reader,
                columns,
                record,
                budget,
            } => {
                budget.renew();
                match reader.read_byte_record(record) {
                    Ok(false) => None,
                    Ok(true) => {
                        let line = record.position().map_or(0, csv::Position::line);
                        Some(Ok(Row {
                            line,
                            customer: from_csv(columns, record),
                        }))
                    }
                    Err(error) => Some(Err(error.into())),
                }
            }
            Self::Ndjson {
                reader,
                line,
                buffer,
                budget,
            } => loop {
                budget.renew();
                buffer.clear();
                *line += 1;
                match reader.read_until(b'\n', buffer) {
                    Ok(0) => return None,
                    Ok(_) if buffer.trim_ascii().is_empty() => {}
                    Ok(_) => {
                        return Some(Ok(Row {
                            line: *line,
                            customer: from_json(buffer),
                        }));
                    }
                    Err(error) => return Some(Err(error).with_context(|| format!("line {line}"))),
                }
            },
        }
    }
}

fn from_csv(columns: &[usize], record: &csv::ByteRecord) -> Result<NewCustomer, Fault> {
    if record.len() != columns.len() {
        return Err(Fault::Length);
    }
    let mut values = [const { String::new() }; COLUMNS.len()];
    for (&column, value) in columns.iter().zip(record) {
        let value = std::str::from_utf8(value).map_err(|_| Fault::NotUtf8)?;
        value.trim().clone_into(&mut values[column]);
    }
    customer_of(values)
}

fn from_json(line: &[u8]) -> Result<NewCustomer, Fault> {
    let line = std::str::from_utf8(line).map_err(|_| Fault::NotUtf8)?;
    let line = line.trim_start_matches('\u{feff}');
    let Ok(Value::Object(object)) = serde_json::from_str(line) else {
        return Err(Fault::NotAnObject);
    };
    let mut values = [const { String::new() }; COLUMNS.len()];
    for (name, value) in object {
        let column = COLUMNS
            .iter()
            .position(|(known, _)| *known == name)
            .ok_or(Fault::UnknownColumn)?;
        values[column] = match value {
            Value::Null => String::new(),
            Value::String(text) => text.trim().to_owned(),
            // As on the REST face: these may be written as numbers.
            Value::Number(number) if ["reference", "zip", "phone", "dob"].contains(&COLUMNS[column].0) => {
                number.to_string()
            }
            _ => return Err(Fault::Invalid(COLUMNS[column].0)),
        };
    }
    customer_of(values)
}

/// Makes a customer of the values of the columns, in the order of [`COLUMNS`].
fn customer_of(values: [String; COLUMNS.len()]) -> Result<NewCustomer, Fault> {
    let [
        email,
        first_name,
        last_name,
        address,
        city,
        state,
        zip,
        date_of_birth,
        phone,
        reference,
        status,
    ] = values;
    if email.is_empty() {
        return Err(Fault::NoEmail);
    }
    let email = Email::parse(&email).map_err(|_| Fault::Invalid("email"))?;
    let status = match &*status {
        "" => None,
        status => Some(status.parse().map_err(|_| Fault::Invalid("status"))?),
    };
    let profile = Profile {
        email: email.as_str().to_owned(),
        first_name,
        last_name,
        address,
        city,
        state,
        zip,
        date_of_birth,
        phone,
    };
    store::check(&profile, &reference).map_err(|store::InvalidField(name)| {
        Fault::Invalid(
            COLUMNS
                .iter()
                .find(|(_, known)| *known == name)
                .map_or(name, |(column, _)| column),
        )
    })?;
    Ok(NewCustomer {
        email,
        reference,
        profile,
        status,
    })
}

/// How many bytes may still be read for the row at hand.
#[derive(Clone, Default)]
struct Budget(Rc<Cell<usize>>);

impl Budget {
    fn renew(&self) {
        self.0.set(MAX_ROW);
    }
}

/// A file that fails when a row does not end in time.
struct Bounded<R> {
    inner: R,
    budget: Budget,
    progress: ProgressBar,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.0.get();
        let read = self.inner.read(buffer)?;
        self.progress.inc(read as u64);
        // What is read ahead of the row at hand is no more than a buffer.
        self.budget.0.set(left.saturating_sub(read));
        if left == 0 && read > 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a row is longer than {MAX_ROW} bytes: is a quote not closed?"),
            ));
        }
        Ok(read)
    }
}
