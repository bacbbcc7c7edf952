//! `customer import`: reads a file twice, first to find what is bad in it, then to register what is good, and never
//! holds more than a batch of it.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use store::{Documents, Email, Imported, NewCustomer, Profile, Store};

use crate::{cli::FileFormat, columns::COLUMNS, customer};

/// How many customers are registered in one transaction.
const BATCH: usize = 500;

/// After how many bytes of images a transaction ends, however few customers it has: they are in memory until then.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes of a row: a quote that is never closed must not take the rest of the file into memory.
const MAX_ROW: usize = 256 * 1024;

/// How long the store has for a batch; it may wait for other writers.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is imported.
pub(crate) struct Source<'a> {
    /// The file.
    pub(crate) path: &'a Path,
    /// Its format, where its name does not tell.
    pub(crate) format: Option<FileFormat>,
    /// The most bytes of an image that it names.
    pub(crate) document_limit: usize,
}

pub(crate) async fn run(store: &Store, account: i64, source: &Source<'_>, skip_bad: bool) -> anyhow::Result<()> {
    let path = source.path;
    let format = match source.format {
        Some(format) => format,
        None => format_of(path).with_context(|| {
            format!(
                "--format is needed: the name of {} does not end in .csv, .ndjson or .jsonl",
                path.display()
            )
        })?,
    };
    let images = Images {
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        limit: source.document_limit,
    };
    if !path.metadata().with_context(|| path.display().to_string())?.is_file() {
        bail!(
            "{} is not a file: it is read twice, first to find bad rows",
            path.display()
        );
    }
    let bad = check(path, format, &images)?;
    if bad > 0 && !skip_bad {
        bail!(
            "nothing is imported: {bad} bad {} (see above; --skip-bad imports the others)",
            rows(bad)
        );
    }

    let progress = progress(path, "importing")?;
    let mut done = Imported::default();
    let mut good = Good {
        rows: Reading::open(path, format, &images, &progress)?,
        bad,
    };
    loop {
        let batch = good.batch()?;
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
    let skipped = match bad {
        0 => String::new(),
        _ => format!(", {bad} bad {} skipped", rows(bad)),
    };
    let customers = if done.created == 1 { "customer" } else { "customers" };
    say!(
        "{} {customers} created, {} already there{skipped}",
        done.created,
        done.updated
    )
}

fn rows(count: u64) -> &'static str {
    if count == 1 { "row" } else { "rows" }
}

/// Says what is bad in a file, row by row, and how many rows that is.
fn check(path: &Path, format: FileFormat, images: &Images) -> anyhow::Result<u64> {
    let progress = progress(path, "checking")?;
    let mut bad = 0;
    for row in Reading::open(path, format, images, &progress)? {
        let row = row?;
        if let Err(fault) = &row.customer {
            bad += 1;
            progress.suspend(|| eprintln!("{}", row.told(fault)));
        }
    }
    progress.finish_and_clear();
    Ok(bad)
}

/// The format that the name of a file tells.
pub(crate) fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()? {
        "csv" => Some(FileFormat::Csv),
        "ndjson" | "jsonl" => Some(FileFormat::Ndjson),
        _ => None,
    }
}

/// A bar over the bytes of the file; it shows on a terminal only.
fn progress(path: &Path, what: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    let bytes = path.metadata().with_context(|| path.display().to_string())?.len();
    Ok(ProgressBar::new(bytes).with_style(style).with_message(what))
}

/// A row of the file, good or bad, and the lines that it is on.
struct Row {
    lines: RangeInclusive<u64>,
    customer: Result<NewCustomer, Fault>,
}

impl Row {
    /// Where it is, and what is bad in it.
    fn told(&self, fault: &Fault) -> String {
        let (first, last) = (self.lines.start(), self.lines.end());
        match last - first {
            0 => format!("line {first}: {fault}"),
            _ => format!("line {first}: {fault} (the row ends on line {last}: is a quote not closed?)"),
        }
    }
}

/// The good rows of a file that has been checked.
struct Good<'a> {
    rows: Reading<'a>,
    /// How many bad ones may still come.
    bad: u64,
}

impl Good<'_> {
    /// The customers of the next transaction; none at the end.
    fn batch(&mut self) -> anyhow::Result<Vec<NewCustomer>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(row) = self.rows.next().transpose()? else {
                break;
            };
            match row.customer {
                Ok(customer) => {
                    bytes += customer.documents.front.len() + customer.documents.back.len();
                    batch.push(customer);
                }
                Err(_) if self.bad > 0 => self.bad -= 1,
                // An image, or the file itself, is not what it was.
                Err(ref fault) => bail!("{}; it was good when the file was checked", row.told(fault)),
            }
        }
        Ok(batch)
    }
}

/// What is bad in a row. It never quotes the row, which holds personal data; nor the path of an image.
#[derive(Debug)]
enum Fault {
    /// The row has no email.
    NoEmail,
    /// A column holds what it may not.
    Invalid(&'static str),
    /// The file that a column names cannot be read.
    Unreadable(&'static str),
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
            Self::Invalid("dob") => f.write_str("the dob is not a date written as YYYYMMDD"),
            Self::Invalid("status") => f.write_str("the status is none of PASS, PENDING, FAIL"),
            Self::Invalid(column @ ("front" | "back")) => write!(
                f,
                "the {column} is invalid: it is no JPEG, PNG, WebP, HEIC or PDF, or too large"
            ),
            Self::Unreadable(column) => write!(f, "the file of the {column} cannot be read"),
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

/// Where the images are that the rows name.
struct Images {
    /// What their paths begin from.
    folder: PathBuf,
    /// The most bytes of one.
    limit: usize,
}

impl Images {
    /// Reads the image that a column names; nothing where it names none.
    fn read(&self, column: &'static str, path: &str) -> Result<Vec<u8>, Fault> {
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.folder.join(path);
        // To open a pipe would be to wait for whoever writes into it.
        if !path.metadata().is_ok_and(|about| about.is_file()) {
            return Err(Fault::Unreadable(column));
        }
        let mut content = Vec::new();
        // One byte more than there may be.
        let most = self.limit as u64 + 1;
        File::open(&path)
            .and_then(|file| file.take(most).read_to_end(&mut content))
            .map_err(|_| Fault::Unreadable(column))?;
        match content.is_empty() {
            true => Err(Fault::Invalid(column)),
            false => Ok(content),
        }
    }
}

/// The rows of a file. An item is an error only where reading cannot go on.
struct Reading<'a> {
    format: Format,
    images: &'a Images,
}

enum Format {
    Csv {
        reader: csv::Reader<Lines>,
        columns: Vec<usize>,
        record: csv::ByteRecord,
    },
    Ndjson {
        reader: Lines,
        buffer: Vec<u8>,
    },
}

impl<'a> Reading<'a> {
    fn open(path: &Path, format: FileFormat, images: &'a Images, progress: &ProgressBar) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let lines = Lines::new(file, progress.clone());
        let format = match format {
            FileFormat::Ndjson => Format::Ndjson {
                reader: lines,
                buffer: Vec::new(),
            },
            FileFormat::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(lines);
                let columns = columns(reader.headers().context("the header")?)?;
                Format::Csv {
                    reader,
                    columns,
                    record: csv::ByteRecord::new(),
                }
            }
        };
        Ok(Self { format, images })
    }
}

/// What the columns of a file are. A header that is wrong is not quoted: it may be a row of a file without one.
fn columns(header: &csv::StringRecord) -> anyhow::Result<Vec<usize>> {
    let mut columns = Vec::with_capacity(header.len());
    for (at, name) in header.iter().enumerate() {
        let name = name.trim_start_matches('\u{feff}').trim();
        let column = COLUMNS
            .iter()
            .position(|(known, _)| *known == name)
            .with_context(|| format!("column {} of the header is unknown (known: {})", at + 1, known()))?;
        if columns.contains(&column) {
            bail!("the header has a column twice");
        }
        columns.push(column);
    }
    if !columns.contains(&0) {
        bail!("the header has no column email");
    }
    Ok(columns)
}

impl Iterator for Reading<'_> {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { format, images } = self;
        match format {
            Format::Csv {
                reader,
                columns,
                record,
            } => {
                reader.get_mut().begin_row();
                match reader.read_byte_record(record) {
                    Ok(false) => None,
                    Ok(true) => Some(Ok(Row {
                        lines: reader.get_ref().row(),
                        customer: from_csv(columns, record).and_then(|values| customer_of(values, images)),
                    })),
                    Err(error) => Some(Err(error).with_context(|| format!("line {}", reader.get_ref().row().start()))),
                }
            }
            Format::Ndjson { reader, buffer } => loop {
                reader.begin_row();
                buffer.clear();
                match reader.read_until(b'\n', buffer) {
                    Ok(0) => return None,
                    Ok(_) if buffer.trim_ascii().is_empty() => {}
                    Ok(_) => {
                        return Some(Ok(Row {
                            lines: reader.row(),
                            customer: from_json(buffer).and_then(|values| customer_of(values, images)),
                        }));
                    }
                    Err(error) => return Some(Err(error).with_context(|| format!("line {}", reader.row().start()))),
                }
            },
        }
    }
}

/// The values of a row, in the order of the columns.
type Values = [String; COLUMNS.len()];

fn from_csv(columns: &[usize], record: &csv::ByteRecord) -> Result<Values, Fault> {
    if record.len() != columns.len() {
        return Err(Fault::Length);
    }
    let mut values = [const { String::new() }; COLUMNS.len()];
    for (&column, value) in columns.iter().zip(record) {
        let value = std::str::from_utf8(value).map_err(|_| Fault::NotUtf8)?;
        value.trim().clone_into(&mut values[column]);
    }
    Ok(values)
}

fn from_json(line: &[u8]) -> Result<Values, Fault> {
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
    Ok(values)
}

/// Makes a customer of the values of a row. Images are read last: the rest costs less.
fn customer_of(values: Values, images: &Images) -> Result<NewCustomer, Fault> {
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
        front,
        back,
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
    let invalid = |store::InvalidField(field)| {
        Fault::Invalid(
            COLUMNS
                .iter()
                .find(|(_, known)| *known == field.name())
                .map_or(field.name(), |(column, _)| column),
        )
    };
    store::check(&profile, &reference).map_err(invalid)?;
    let documents = Documents {
        front: images.read("front", &front)?.into(),
        back: images.read("back", &back)?.into(),
    };
    store::check_documents(&documents, images.limit).map_err(invalid)?;
    Ok(NewCustomer {
        reference,
        profile,
        documents,
        status,
        ..NewCustomer::new(email)
    })
}

/// A file that is handed out line by line, so that it is known which lines a row is on, and that fails when a row does
/// not end in time.
struct Lines {
    inner: BufReader<File>,
    progress: ProgressBar,
    /// The number of the line that was read from last.
    line: u64,
    /// Whether that line has been read to its end.
    ended: bool,
    /// The line on which the row at hand begins: blank lines before it are none of it.
    first: Option<u64>,
    /// How many bytes may still be read for the row at hand.
    left: usize,
}

impl Lines {
    fn new(file: File, progress: ProgressBar) -> Self {
        Self {
            inner: BufReader::new(file),
            progress,
            line: 0,
            ended: true,
            first: None,
            left: MAX_ROW,
        }
    }

    /// What is read from now on is another row.
    fn begin_row(&mut self) {
        self.first = None;
        self.left = MAX_ROW;
    }

    /// The lines that the row at hand has had so far.
    fn row(&self) -> RangeInclusive<u64> {
        self.first.unwrap_or(self.line)..=self.line
    }
}

impl BufRead for Lines {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.inner.fill_buf()?;
        let end = available.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(available.len(), |end| end + 1);
        if length > self.left {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a row is longer than {MAX_ROW} bytes: is a quote not closed?"),
            ));
        }
        Ok(&available[..length])
    }

    fn consume(&mut self, count: usize) {
        let Some(taken @ [.., last]) = self.inner.buffer().get(..count) else {
            return;
        };
        self.line += u64::from(self.ended);
        self.ended = *last == b'\n';
        if self.first.is_none() && !taken.trim_ascii().is_empty() {
            self.first = Some(self.line);
        }
        self.left = self.left.saturating_sub(count);
        self.inner.consume(count);
        self.progress.inc(count as u64);
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
