//! One type for a connection to either database: which it is, is decided by the store's URL and seen nowhere above.

use std::{
    fmt,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use diesel::{
    Connection, PgConnection, RunQueryDsl, SqliteConnection,
    connection::{SimpleConnection, TransactionManager},
};

use crate::{Error, Result, Settings, error, feed};

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Evaluates the same expression with the connection inside an [`AnyConnection`], for what diesel can express for each
/// backend but not for both at once.
macro_rules! on_either {
    ($connection:expr, $inner:ident => $expression:expr) => {
        match $connection {
            $crate::connection::AnyConnection::Sqlite($inner) => $expression,
            $crate::connection::AnyConnection::Postgres($inner) => $expression,
        }
    };
}
pub(crate) use on_either;

/// Where a store is: `sqlite://PATH`, or a `postgres://` URL as libpq takes it, be it with many hosts.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL. It may hold a password.
    Postgres(String),
}

/// The text is no location of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store is sqlite://PATH or postgres://USER@HOST/DATABASE")]
pub struct LocationError;

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(url: &str) -> std::result::Result<Self, LocationError> {
        match url.split_once("://") {
            // In memory each connection would have a database of its own.
            Some(("sqlite", path)) if !path.is_empty() && !path.starts_with(":memory:") => {
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => Ok(Self::Postgres(url.to_owned())),
            _ => Err(LocationError),
        }
    }
}

impl Location {
    /// What traces call the database.
    pub(crate) fn system(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }

    /// How many connections write best.
    pub(crate) fn writers(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(_) => 2,
        }
    }
}

/// Without the user and the password, wherever a URL may hold them.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => {
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let place = match (rest.find('?'), rest.rfind('@')) {
                    // A query with an @, or a password with a question mark: it cannot be told.
                    (Some(query), Some(at)) if query < at => "...",
                    (query, at) => &rest[at.map_or(0, |at| at + 1)..query.unwrap_or(rest.len())],
                };
                write!(f, "postgres://{place}")
            }
        }
    }
}

/// A URL may hold a password.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes connections, and tells which are worth keeping.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    location: Location,
    lock_wait: Duration,
    statement: Duration,
}

impl Connector {
    pub(crate) fn new(location: Location, settings: &Settings) -> Self {
        Self {
            location,
            lock_wait: settings.statement,
            statement: settings.statement,
        }
    }

    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Whether there is nothing yet: to connect makes it.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(&self.location, Location::Sqlite(path) if !path.exists())
    }

    /// A new connection, set up for use.
    pub(crate) fn connect(&self) -> Result<AnyConnection> {
        match &self.location {
            Location::Sqlite(path) => self.connect_sqlite(path).map(AnyConnection::Sqlite),
            Location::Postgres(url) => self.connect_postgres(url).map(AnyConnection::Postgres),
        }
    }

    pub(crate) fn connect_sqlite(&self, path: &Path) -> Result<SqliteConnection> {
        // Made by us, so that nobody else can read what it will hold; its WAL inherits the mode.
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        if let Err(error) = made
            && !path.exists()
        {
            return Err(Error::Unavailable(format!("cannot create {}: {error}", path.display())));
        }
        // A relative path is a path and not a URL, whatever its name looks like.
        let mut connection = SqliteConnection::establish(&Path::new("./").join(path).to_string_lossy())?;
        // The wait for locks comes first, since the change to WAL takes one. The page size holds for a new file only.
        connection.batch_execute(&format!(
            "PRAGMA busy_timeout = {wait}; PRAGMA page_size = {PAGE_SIZE}",
            wait = self.lock_wait.as_millis(),
        ))?;
        self.change_to_wal(&mut connection)?;
        connection.batch_execute(&format!(
            "PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA secure_delete = ON;
             PRAGMA cache_size = -{CACHE_KIB};"
        ))?;
        Ok(connection)
    }

    /// Makes a new file use a WAL; one that has it already stays as it is. Of two that change a new file at once, or that
    /// open it while its last user closes it, SQLite turns one away without waiting, since each has what the other waits
    /// for: that one tries again, for as long as it would have waited.
    fn change_to_wal(&self, connection: &mut SqliteConnection) -> Result<()> {
        let began = Instant::now();
        loop {
            match connection
                .batch_execute("PRAGMA journal_mode = WAL")
                .map_err(Error::from)
            {
                // Nothing else is worth another try, least of all a sync that failed.
                Err(Error::Unavailable(cause)) if cause.contains("locked") && began.elapsed() < self.lock_wait => {
                    thread::sleep(WAL_RETRY);
                }
                result => return result,
            }
        }
    }

    pub(crate) fn connect_postgres(&self, url: &str) -> Result<PgConnection> {
        let mut connection = PgConnection::establish(&with_defaults(url)).map_err(error::of_libpq)?;
        // An acknowledged change is on disk: a server that was told to answer early is told otherwise. No query here runs for
        // so long that it is worth a compiler, which a planner that is kept from scans takes each of them to be.
        connection.batch_execute(&format!(
            "SET statement_timeout = {statement};
             SET lock_timeout = {wait};
             SET idle_in_transaction_session_timeout = {idle};
             SET default_transaction_isolation = 'read committed';
             SET jit = off;
             SELECT set_config('synchronous_commit', 'on', false)
              WHERE current_setting('synchronous_commit') = 'off';",
            statement = self.statement.as_millis(),
            wait = self.lock_wait.as_millis(),
            // A transaction whose client is gone ends: somebody may wait to know what became of it.
            idle = IDLE.as_millis(),
        ))?;
        Ok(connection)
    }
}

/// How long whoever was turned away from the change to a WAL waits: several times what the change takes.
const WAL_RETRY: Duration = Duration::from_millis(5);

/// Small pages: a change touches three of them, and each goes whole into the WAL.
const PAGE_SIZE: u32 = 1_024;

/// How long a transaction on PostgreSQL may wait for its client: no work of ours pauses in one.
const IDLE: Duration = Duration::from_secs(10);

/// What a connection to SQLite may keep in memory, in KiB. More would help the one that writes little: after a transaction that has
/// split a page SQLite looks through the whole table of its cache.
const CACHE_KIB: u32 = 4 * 1_024;

/// The URL with what libpq would otherwise wait for too long, unless the URL says it itself.
fn with_defaults(url: &str) -> String {
    let mut url = with_authorities(url, openssl_probe::probe().cert_file.as_deref());
    for (name, value) in [
        ("application_name", "dcams-gateway"),
        ("connect_timeout", "5"),
        ("keepalives_idle", "30"),
        ("tcp_user_timeout", "15000"),
    ] {
        if !url.contains(&format!("{name}=")) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={value}"));
        }
    }
    url
}

/// The URL with the file of the system's authorities for `sslrootcert=system`: the OpenSSL in this program was built
/// without knowing where this machine keeps them. As in libpq the host's name is checked then; with any other `sslmode`
/// beside it the URL is left to libpq, which refuses it.
fn with_authorities(url: &str, file: Option<&Path>) -> String {
    const SYSTEM: &str = "sslrootcert=system";

    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("sslmode="));
    let file = file.and_then(Path::to_str);
    match (file, mode) {
        (Some(file), None | Some("verify-full")) if query.split('&').any(|pair| pair == SYSTEM) => {
            let pairs = query
                .split('&')
                .filter(|pair| *pair != SYSTEM && !pair.starts_with("sslmode="));
            let file = file.replace('%', "%25").replace('&', "%26");
            let mut pairs: Vec<_> = pairs.map(str::to_owned).collect();
            pairs.extend(["sslmode=verify-full".to_owned(), format!("sslrootcert={file}")]);
            format!("{place}?{}", pairs.join("&"))
        }
        _ => url.to_owned(),
    }
}

/// Takes SQLite's write lock at the beginning of a transaction. One that read first and wrote later would fail where
/// another has written in between, and would not even wait.
pub(crate) fn take_write_lock(connection: &mut AnyConnection) -> Result<()> {
    if let AnyConnection::Sqlite(connection) = connection {
        connection.batch_execute("UPDATE encryption SET id = id WHERE id < 0")?;
    }
    Ok(())
}

/// Reads by the order of an index. Without statistics PostgreSQL would rather sort all of a history than begin to read it.
/// Not for a connection's whole life: where no index has the order, it would read a whole table so as not to sort.
pub(crate) fn by_index<T>(
    connection: &mut AnyConnection,
    read: impl FnOnce(&mut AnyConnection) -> Result<T>,
) -> Result<T> {
    connection.transaction(|connection| {
        if let AnyConnection::Postgres(connection) = connection {
            connection.batch_execute("SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")?;
        }
        read(connection)
    })
}

/// Asks for a sign of life.
pub(crate) fn ping(connection: &mut AnyConnection) -> Result<()> {
    diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1")).execute(connection)?;
    Ok(())
}

/// A connection of the pool, and what became of it.
pub(crate) struct Pooled {
    pub(crate) connection: AnyConnection,
    pub(crate) made: Instant,
    /// Whether it has failed.
    pub(crate) broken: bool,
}

impl Pooled {
    /// Runs a query, and remembers if the connection has failed by it.
    pub(crate) fn run<T>(&mut self, query: impl FnOnce(&mut AnyConnection) -> Result<T>) -> Result<T> {
        let result = query(&mut self.connection);
        if let Err(error) = &result {
            self.broken = error.breaks_connection();
        }
        result
    }
}

impl r2d2::ManageConnection for Connector {
    type Connection = Pooled;
    type Error = Error;

    fn connect(&self) -> Result<Pooled> {
        let mut connection = Self::connect(self)?;
        // It may be another server than before, after a failover. An erasure is written over this connection.
        feed::settle_epoch(&mut connection)?;
        Ok(Pooled {
            connection,
            made: Instant::now(),
            broken: false,
        })
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<()> {
        ping(&mut pooled.connection)
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.broken || AnyConnection::is_broken_transaction_manager(&mut pooled.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_url_of_either_database() {
        assert_eq!("sqlite://a.db".parse(), Ok(Location::Sqlite("a.db".into())));
        assert_eq!("sqlite:///var/a.db".parse(), Ok(Location::Sqlite("/var/a.db".into())));
        assert!(matches!("postgresql://h/d".parse(), Ok(Location::Postgres(_))));
        for text in [
            "",
            "a.db",
            "sqlite://",
            "sqlite://:memory:",
            "mysql://h/d",
            "postgres://",
        ] {
            assert_eq!(text.parse::<Location>(), Err(LocationError), "{text}");
        }
    }

    #[test]
    fn a_location_is_shown_without_its_password() {
        for url in [
            "postgres://u:canary@h:1/d",
            "postgres://h:1/d?password=canary",
            "postgres://u:c@nary@h:1/d?x=canary",
        ] {
            let location: Location = url.parse().unwrap();
            assert_eq!(format!("{location} {location:?}"), "postgres://h:1/d postgres://h:1/d");
        }
        for url in [
            "postgres://h:1/d?password=x@canary",
            "postgres://u:x?canary@h:1/d",
            "postgres://u:canary?x@h:1/d",
        ] {
            assert_eq!(url.parse::<Location>().unwrap().to_string(), "postgres://...");
        }
        let location: Location = "postgres://u:canary@a:1,b:2/d?target_session_attrs=read-write"
            .parse()
            .unwrap();
        assert_eq!(
            format!("{location} {location:?}"),
            "postgres://a:1,b:2/d postgres://a:1,b:2/d"
        );
    }

    #[test]
    fn the_authorities_of_the_system_are_found() {
        let with = |url| with_authorities(url, Some(Path::new("/etc/100%/ca.crt")));
        for url in [
            "postgres://h/d?sslrootcert=system",
            "postgres://h/d?sslmode=verify-full&sslrootcert=system",
        ] {
            assert_eq!(
                with(url),
                "postgres://h/d?sslmode=verify-full&sslrootcert=/etc/100%25/ca.crt"
            );
        }
        assert_eq!(
            with("postgres://h/d?sslrootcert=system&connect_timeout=1"),
            "postgres://h/d?connect_timeout=1&sslmode=verify-full&sslrootcert=/etc/100%25/ca.crt"
        );
        for url in [
            "postgres://h/d",
            "postgres://h/d?sslrootcert=/ca.crt",
            // libpq says that this is too weak.
            "postgres://h/d?sslmode=require&sslrootcert=system",
        ] {
            assert_eq!(with(url), url);
        }
        let url = "postgres://h/d?sslrootcert=system";
        assert_eq!(with_authorities(url, None), url);
    }

    #[test]
    fn what_the_url_says_is_kept() {
        let url = with_defaults("postgres://h/d?connect_timeout=1");
        assert!(url.starts_with("postgres://h/d?connect_timeout=1&application_name="));
        assert!(!url.contains("connect_timeout=5"));
    }
}
