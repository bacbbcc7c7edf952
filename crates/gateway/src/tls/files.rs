//! What is made of PEM files, and made anew when they change while the program runs.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use metrics::Gauge;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How often is looked whether files have changed. What they hold is compared, and not their times: that also tells when a
/// link leads elsewhere.
const ROUND: Duration = Duration::from_secs(5);

/// The most bytes of a file; all authorities of a system take 250 KiB.
const MOST: u64 = 1024 * 1024;

/// Whether the files were fit for use when they were last looked at, 1 or 0, by what they are for.
pub(crate) const USABLE: &str = "dcams_tls_files_usable";

/// Something that is made of files.
pub(crate) trait Source: Send + Sync + 'static {
    /// What is made.
    type Made: Clone + Send + Sync + 'static;
    /// What the files hold.
    type Pems: PartialEq + Send + 'static;

    /// What it is called in the log.
    fn name(&self) -> String;

    /// What it is called in the metrics.
    fn label(&self) -> &'static str;

    /// Reads the files.
    fn read(&self) -> anyhow::Result<Self::Pems>;

    /// Makes it.
    fn make(&self, pems: &Self::Pems) -> anyhow::Result<Self::Made>;
}

/// What files were read into: the receiver has what is in use, and follows the files once these are [`Followed`].
pub(crate) type Loaded<S> = (Followed<S>, watch::Receiver<<S as Source>::Made>);

/// Makes something of files as they are now. Blocks.
pub(crate) fn load<S: Source>(source: S) -> anyhow::Result<Loaded<S>> {
    let pems = source.read()?;
    let (current, receiver) = watch::channel(source.make(&pems)?);
    let usable = metrics::gauge!(USABLE, "files" => source.label());
    usable.set(1);
    let followed = Followed {
        source: Arc::new(source),
        used: Some(pems),
        current,
        failure: None,
        usable,
    };
    Ok((followed, receiver))
}

/// Files, and what was made of them.
pub(crate) struct Followed<S: Source> {
    source: Arc<S>,
    /// What the files held when that was made which is in use.
    used: Option<S::Pems>,
    current: watch::Sender<S::Made>,
    /// What was wrong with the files at the last look, and whether that was said.
    failure: Option<(String, bool)>,
    usable: Gauge,
}

impl<S: Source> Followed<S> {
    /// Follows the files until it is asked to stop: looks now and then, and at once when a hangup signal comes. While
    /// something is wrong with them, what was made before stays in use.
    pub(crate) async fn follow(mut self, stop: CancellationToken) {
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = rounds.tick() => false,
                () = next(&mut hangups) => true,
                () = stop.cancelled() => return,
            };
            self.look(is_asked).await;
        }
    }

    async fn look(&mut self, is_asked: bool) {
        let (source, used) = (Arc::clone(&self.source), self.used.take());
        let looked = tokio::task::spawn_blocking(move || {
            let made = match source.read() {
                Ok(pems) if Some(&pems) == used.as_ref() => Ok(None),
                Ok(pems) => source.make(&pems).map(|made| Some((pems, made))),
                Err(error) => Err(error),
            };
            (used, made)
        });
        let Ok((used, made)) = looked.await else {
            return;
        };
        self.used = used;
        self.usable.set(u8::from(made.is_ok()));
        match made {
            Ok(None) => self.failure = None,
            Ok(Some((pems, made))) => {
                self.used = Some(pems);
                self.failure = None;
                self.current.send_replace(made);
                tracing::info!("{} was read anew", self.source.name());
            }
            Err(error) => self.complain(format!("{error:#}"), is_asked),
        }
    }

    /// Says once what is wrong. Files that are just being replaced do not fit together for a moment: unless somebody waits
    /// for an answer, it is said when it is still so at the next look.
    fn complain(&mut self, error: String, is_asked: bool) {
        let (lasts, was_said) = match &self.failure {
            Some((before, was_said)) => (*before == error, *before == error && *was_said),
            None => (false, false),
        };
        let is_said = !was_said && (lasts || is_asked);
        if is_said {
            tracing::warn!(
                "{} cannot be read anew, and the one before stays in use: {error}",
                self.source.name()
            );
        }
        self.failure = Some((error, was_said || is_said));
    }
}

/// Returns when a signal comes.
async fn next(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// A PEM file, as it was read.
pub(crate) struct Pem {
    path: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
}

impl Pem {
    pub(crate) fn read(path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        let bytes = File::open(path).and_then(read_all);
        let bytes = bytes.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn read_all(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {MOST} bytes")));
    }
    Ok(bytes)
}

impl PartialEq for Pem {
    fn eq(&self, other: &Self) -> bool {
        *self.bytes == *other.bytes
    }
}

/// Where it is, and never what it holds.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
