//! Where the master keys come from: a file, an environment variable or a command. They are read anew when they have
//! changed.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use store::Keys;

/// The environment variable that may hold the master keys themselves.
pub(crate) const VARIABLE: &str = "DCAMS_KEYS";

/// The most bytes that are read.
const MOST: u64 = 64 * 1024;

/// How long a command has.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before looking again whether a command has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// The most characters of a command's complaint that are shown.
const COMPLAINT: usize = 300;

/// A place that has master keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// The environment variable [`VARIABLE`].
    Variable,
    /// What a command of the shell prints.
    Command(String),
}

impl Source {
    /// Reads the master keys.
    pub(crate) fn load(self) -> anyhow::Result<Keys> {
        if let Self::File(path) = &self {
            warn_if_shared("key file", path);
        }
        Ok(Keys::load(move || self.read())?)
    }

    /// The number of the key after those that are there; 1 where there are none yet.
    pub(crate) fn next_number(self) -> anyhow::Result<Option<u32>> {
        if let Self::File(path) = &self
            && !path.exists()
        {
            return Ok(Some(1));
        }
        let text = self.read().map_err(anyhow::Error::msg)?;
        let is_comment = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
        if text.expose_secret().lines().all(is_comment) {
            return Ok(Some(1));
        }
        Ok(self.load()?.current().checked_add(1))
    }

    /// What is there, unchecked. An error does not quote it.
    fn read(&self) -> Result<SecretString, String> {
        match self {
            Self::File(path) => read_file("key file", path),
            Self::Variable => std::env::var(VARIABLE)
                .map(SecretString::from)
                .map_err(|_| format!("{VARIABLE} is not text")),
            Self::Command(command) => run(command).map_err(|error| format!("the key command {error}")),
        }
    }
}

/// Reads a file that holds a secret. An error does not quote it.
pub(crate) fn read_secret(what: &str, path: &Path) -> anyhow::Result<SecretString> {
    read_file(what, path).map_err(anyhow::Error::msg)
}

fn read_file(what: &str, path: &Path) -> Result<SecretString, String> {
    let content = File::open(path).and_then(read_all);
    content.map_err(|error| format!("the {what} {}: {error}", path.display()))
}

/// Says so when others can read a file that holds a secret.
pub(crate) fn warn_if_shared(what: &str, path: &Path) {
    if let Ok(about) = path.metadata()
        && about.is_file()
        && about.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(
            "the {what} {} can be read by others: run `chmod 600` on it",
            path.display()
        );
    }
}

/// Reads text to its end, if that comes in time.
fn read_all(from: impl Read) -> io::Result<SecretString> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut content = Vec::new();
    from.take(MOST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MOST {
        return Err(wrong(format!("it has more than {MOST} bytes")));
    }
    String::from_utf8(content)
        .map(SecretString::from)
        .map_err(|_| wrong("it is not text".to_owned()))
}

/// Runs a command of the shell, and gives what it prints. What it complains of is shown when it fails.
fn run(command: &str) -> Result<SecretString, String> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    // Read while it runs: it would wait for ever on a full pipe.
    let printed = child.stdout.take().map(read_beside);
    let complaint = child.stderr.take().map(read_beside);
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|error| format!("is lost: {error}"))? {
            Some(status) => break status,
            None if Instant::now() >= end => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end in {} s", PATIENCE.as_secs()));
            }
            None => thread::sleep(PAUSE),
        }
    };
    // Whatever it left running may hold its pipes open.
    let received = |pipe: Option<mpsc::Receiver<_>>| {
        let left = end.saturating_duration_since(Instant::now());
        pipe.and_then(|pipe| pipe.recv_timeout(left).ok())
            .ok_or_else(|| "left its output open".to_owned())
    };
    if !status.success() {
        let complaint = match received(complaint) {
            Ok(Ok(text)) => one_line(text.expose_secret()),
            _ => String::new(),
        };
        return Err(match complaint.is_empty() {
            true => format!("failed: {status}"),
            false => format!("failed: {status}: {complaint}"),
        });
    }
    received(printed)?.map_err(|error| format!("printed no keys: {error}"))
}

/// Reads to the end on a thread.
fn read_beside(from: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<SecretString>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(read_all(from)));
    receiver
}

/// The beginning of a text, without its line ends and other control characters.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").chars().take(COMPLAINT).collect()
}
