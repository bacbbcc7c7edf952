//! `customer export`: writes all customers of an account, so that an import takes them back, and never holds more than a
//! page of them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use store::{Customer, Documents, Email, Error, Principal, Store};

use crate::{
    cli::{ExportOptions, FileFormat},
    columns::{self, COLUMNS, PLAIN},
    import,
};

/// How many customers are read at a time.
const PAGE: u32 = 500;

/// How long the store has for a page.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is written is for its owner only: it is personal data in clear text.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

pub(crate) async fn run(store: &Store, principal: Principal, options: &ExportOptions) -> anyhow::Result<()> {
    let path = options.output.as_deref();
    let format = options
        .format
        .or_else(|| import::format_of(path?))
        .unwrap_or(FileFormat::Ndjson);
    let images = match &options.documents {
        Some(folder) => Some(Images::open(folder, path)?),
        None => None,
    };
    let (target, place) = match path {
        Some(path) => Place::open(path).with_context(|| path.display().to_string())?,
        None => (Box::new(io::stdout()) as Box<dyn Write>, Place::default()),
    };
    let shown = || path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    let columns = if images.is_some() { COLUMNS.len() } else { PLAIN };
    let mut rows = Rows::begin(format, columns, target).with_context(shown)?;
    let bar = match path {
        Some(_) => progress(store, principal.account).await?,
        None => ProgressBar::hidden(),
    };

    let (mut after, mut count) = (0, 0_u64);
    loop {
        let deadline = Instant::now() + PATIENCE;
        let page = store.customers(principal.account, after, PAGE, deadline).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for customer in page {
            bar.inc(1);
            let names = match &images {
                None => [String::new(), String::new()],
                Some(images) => match documents(store, principal, &customer).await? {
                    Some(documents) => images.write(&customer.public_id, &documents)?,
                    // Erased since the page was read.
                    None => continue,
                },
            };
            rows.write(&customer, &names).with_context(shown)?;
            count += 1;
        }
    }
    rows.end().and_then(|()| place.keep()).with_context(shown)?;
    bar.finish_and_clear();
    match path {
        Some(_) if count == 1 => say!("1 customer exported"),
        Some(_) => say!("{count} customers exported"),
        None => Ok(()),
    }
}

/// A bar over the customers of an account; it shows on a terminal only.
async fn progress(store: &Store, account: i64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("exporting {wide_bar} {pos}/{len} {eta}")?;
    let count = store.customer_count(account, Instant::now() + PATIENCE).await?;
    Ok(ProgressBar::new(count).with_style(style))
}

/// The images of a customer, if it is still there.
async fn documents(store: &Store, principal: Principal, customer: &Customer) -> anyhow::Result<Option<Documents>> {
    let email = Email::parse(&customer.profile.email)?.key().clone();
    match store.documents(principal, email, Instant::now() + PATIENCE).await {
        // Another id is another customer, who has the address of one that was erased: it has a row of its own.
        Ok((now, documents)) => Ok((now.id == customer.id).then_some(documents)),
        Err(Error::CustomerNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The rows of a file as they are written.
enum Rows {
    Csv(Box<csv::Writer<Box<dyn Write>>>, usize),
    Ndjson(BufWriter<Box<dyn Write>>),
}

impl Rows {
    fn begin(format: FileFormat, columns: usize, target: Box<dyn Write>) -> io::Result<Self> {
        Ok(match format {
            FileFormat::Ndjson => Self::Ndjson(BufWriter::new(target)),
            FileFormat::Csv => {
                let mut writer = csv::Writer::from_writer(target);
                writer.write_record(COLUMNS.iter().take(columns).map(|(column, _)| column))?;
                Self::Csv(Box::new(writer), columns)
            }
        })
    }

    /// Writes a customer; `images` are the paths of its images.
    fn write(&mut self, customer: &Customer, images: &[String; 2]) -> io::Result<()> {
        let values = columns::values(customer).into_iter();
        let values = values.chain(images.iter().map(String::as_str));
        match self {
            Self::Csv(writer, columns) => writer.write_record(values.take(*columns))?,
            Self::Ndjson(writer) => {
                let mut mark = b'{';
                for ((column, _), value) in COLUMNS.iter().zip(values).filter(|(_, value)| !value.is_empty()) {
                    writer.write_all(&[mark])?;
                    serde_json::to_writer(&mut *writer, column)?;
                    writer.write_all(b":")?;
                    serde_json::to_writer(&mut *writer, value)?;
                    mark = b',';
                }
                writer.write_all(b"}\n")?;
            }
        }
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        match self {
            Self::Csv(mut writer, _) => writer.flush(),
            Self::Ndjson(mut writer) => writer.flush(),
        }
    }
}

/// Where a file grows until it is whole: what bears its name is never a part of it.
#[derive(Default)]
struct Place {
    part: PathBuf,
    path: PathBuf,
}

impl Place {
    /// Opens a file to be written. What is there and no file, such as a pipe, is written as it is.
    fn open(path: &Path) -> io::Result<(Box<dyn Write>, Self)> {
        // Through a link, which stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.metadata().is_ok_and(|about| !about.is_file()) {
            let there = OpenOptions::new().write(true).open(&path)?;
            return Ok((Box::new(there), Self::default()));
        }
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let place = Self {
            part: part.into(),
            path,
        };
        Ok((Box::new(create(&place.part)?), place))
    }

    /// Gives the file its name.
    fn keep(self) -> io::Result<()> {
        if self.part.as_os_str().is_empty() {
            return Ok(());
        }
        File::open(&self.part)?.sync_all()?;
        fs::rename(&self.part, &self.path)
    }
}

/// An export that failed leaves nothing.
impl Drop for Place {
    fn drop(&mut self) {
        if !self.part.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Makes a file in the place of one that may be there: neither its content nor its permissions stay.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    // Whatever the process masks.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// A folder of images.
struct Images {
    folder: PathBuf,
    /// What the name of an image is put behind, so that an import of the rows finds it.
    prefix: String,
}

impl Images {
    /// Makes the folder, if it is not there, for the images of customers that are written to `output`.
    fn open(folder: &Path, output: Option<&Path>) -> anyhow::Result<Self> {
        let absolute = DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .and_then(|()| folder.canonicalize())
            .with_context(|| folder.display().to_string())?;
        let beside = output
            .map(|path| match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            })
            .and_then(|parent| parent.canonicalize().ok());
        let relative = beside.and_then(|beside| absolute.strip_prefix(beside).ok());
        let Some(prefix) = relative.unwrap_or(&absolute).to_str() else {
            bail!("{}: the name of the folder is not UTF-8", folder.display());
        };
        let mut prefix = prefix.to_owned();
        if prefix.starts_with(char::is_whitespace) {
            // An import removes white space around a value.
            prefix.insert_str(0, "./");
        }
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Ok(Self {
            folder: absolute,
            prefix,
        })
    }

    /// Writes the images of a customer, and gives their paths; an empty one where there is no image.
    fn write(&self, public_id: &str, documents: &Documents) -> anyhow::Result<[String; 2]> {
        let write = |side: &str, content: &[u8]| {
            if content.is_empty() {
                return Ok(String::new());
            }
            let extension = store::extension(content).unwrap_or("bin");
            let name = format!("{public_id}-{side}.{extension}");
            let path = self.folder.join(&name);
            create(&path)
                .and_then(|mut file| file.write_all(content))
                .with_context(|| path.display().to_string())?;
            Ok::<_, anyhow::Error>(format!("{}{name}", self.prefix))
        };
        Ok([write("front", &documents.front)?, write("back", &documents.back)?])
    }
}
