//! A PostgreSQL server that lives as long as the process that started it.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::net::TcpSocket;

use super::{eventually, tls::Identity};

/// Whether the server waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As in production.
    Full,
    /// For tests that do not stop the server: faster, and as right.
    None,
}

/// A server on a free port, its data in a temporary folder. It is stopped, and the folder removed, when the pipe to its
/// watchdog closes: with the process that started it, however that ends.
pub struct Cluster {
    port: u16,
    bin: PathBuf,
    dir: PathBuf,
    durability: Durability,
    /// What the server's environment has besides ours, from its next start on.
    environment: Vec<(&'static str, OsString)>,
    databases: AtomicU32,
    _watchdog: Child,
}

/// How a server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// In order, ending all sessions.
    Fast,
    /// As in a crash of the server, which then recovers when it starts.
    Immediate,
    /// Every process of it killed, at the same moment.
    Killed,
}

impl Cluster {
    /// The server that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::None))
    }

    /// Starts a server.
    pub fn start(durability: Durability) -> Self {
        let (bin, dir) = (binaries(), folder());
        initialize(&bin, &dir);
        Self::launch(bin, dir, durability)
    }

    /// Starts a server that speaks TLS, and nothing else, with this certificate.
    pub fn start_with_tls(identity: &Identity) -> Self {
        let (bin, dir) = (binaries(), folder());
        initialize(&bin, &dir);
        let data = dir.join("data");
        let own = |name: &str, content: &str| {
            std::fs::write(data.join(name), content).unwrap();
            std::fs::set_permissions(data.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(data.join(name)));
            }
        };
        own("server.crt", &identity.cert);
        own("server.key", &identity.key);
        own("postgresql.auto.conf", "ssl = on\n");
        own("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
        Self::launch(bin, dir, Durability::None)
    }

    /// Starts a standby of this server, which takes no writes until it is promoted.
    pub fn standby(&self) -> Self {
        self.standby_through(self.port)
    }

    /// The same, which reaches this server by another port.
    pub fn standby_through(&self, port: u16) -> Self {
        let dir = folder();
        run(as_postgres(&self.bin.join("pg_basebackup"))
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "-p",
            ])
            .arg(port.to_string())
            .arg("-D")
            .arg(dir.join("data")));
        Self::launch(self.bin.clone(), dir, self.durability)
    }

    /// Makes a standby a server that takes writes, and waits until it is one.
    pub fn promote(&self) {
        run(as_postgres(&self.bin.join("pg_ctl"))
            .args(["promote", "-w", "-s", "-D"])
            .arg(self.dir.join("data")));
    }

    fn launch(bin: PathBuf, dir: PathBuf, durability: Durability) -> Self {
        // Another process may take the port between our look and the server's: then another port.
        let port = (0..5)
            .map(|_| {
                TcpListener::bind(("127.0.0.1", 0))
                    .unwrap()
                    .local_addr()
                    .unwrap()
                    .port()
            })
            .find(|port| launch(&bin, &dir, *port, durability, &[]))
            .unwrap_or_else(|| panic!("PostgreSQL did not start: {}", log(&dir)));
        let script = r#"cat >/dev/null; "$1" stop -s -m immediate -D "$2/data"; rm -rf "$2""#;
        let watchdog = as_postgres(Path::new("sh"))
            .args(["-c", script, "sh"])
            .arg(bin.join("pg_ctl"))
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            port,
            bin,
            dir,
            durability,
            environment: Vec::new(),
            databases: AtomicU32::new(0),
            _watchdog: watchdog,
        }
    }

    /// Makes an empty database and gives its URL.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        run(self
            .program("createdb")
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
            .args([&self.port.to_string(), &name]));
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Where the server listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Dumps a database.
    pub fn dump(&self, url: &str) -> Vec<u8> {
        let output = self.program("pg_dump").args(["-d", url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A program of PostgreSQL's, such as `psql`.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// The folder of the server's data.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A new file beside the server's data, which the server may write.
    pub fn file_of_its_own(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, []).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&path));
        }
        path
    }

    /// Starts the server again with more in its environment.
    pub fn restart_with(&mut self, environment: Vec<(&'static str, OsString)>) {
        self.environment = environment;
        self.fall(Fall::Fast).end();
    }

    /// Starts the server again if it has ended by itself.
    pub fn revive(&self) {
        let status = as_postgres(&self.bin.join("pg_ctl"))
            .args(["status", "-s", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        if !status.success() {
            launch(&self.bin, &self.dir, self.port, self.durability, &self.environment);
        }
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        log(&self.dir)
    }

    /// Stops the server as a crash would, for as long as the outage is kept.
    pub fn stop(&self) -> Outage<'_> {
        self.fall(Fall::Immediate)
    }

    /// Brings the server down, for as long as the outage is kept.
    pub fn fall(&self, how: Fall) -> Outage<'_> {
        let stop = |mode: &str| {
            run(as_postgres(&self.bin.join("pg_ctl"))
                .args(["stop", "-w", "-s", "-m", mode, "-D"])
                .arg(self.data()));
        };
        match how {
            Fall::Fast => stop("fast"),
            Fall::Immediate => stop("immediate"),
            Fall::Killed => self.kill(),
        }
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind((Ipv4Addr::LOCALHOST, self.port).into()).unwrap();
        Outage { cluster: self, port }
    }

    /// The processes of the server.
    pub fn pids(&self) -> Vec<String> {
        let postmaster = self.postmaster();
        let mut all = children(&postmaster);
        all.push(postmaster);
        all
    }

    /// The process that starts all others.
    fn postmaster(&self) -> String {
        let text = std::fs::read_to_string(self.lock()).unwrap();
        text.lines().next().unwrap().to_owned()
    }

    /// The file that says which process it is.
    fn lock(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// Kills every process of the server.
    fn kill(&self) {
        // It starts no more while its children are counted.
        run(Command::new("kill").args(["-s", "STOP", &self.postmaster()]));
        let all = self.pids();
        // One may have ended by itself meanwhile.
        Command::new("kill")
            .args(["-s", "KILL"])
            .args(&all)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        eventually("every process of the server is dead", || {
            all.iter().all(|pid| {
                let state = state(pid);
                state.is_empty() || state.starts_with('Z')
            })
        });
        // One that nobody has waited for still has its number: the next server would take it for alive.
        std::fs::remove_file(self.lock()).unwrap();
        std::fs::remove_file(self.dir.join(format!(".s.PGSQL.{}.lock", self.port))).unwrap();
    }
}

/// A server that is down.
pub struct Outage<'a> {
    cluster: &'a Cluster,
    /// Bound and not listening: who connects is refused, and nobody else gets the port meanwhile.
    port: TcpSocket,
}

impl Outage<'_> {
    /// Starts the server again, and waits until it is ready.
    pub fn end(self) {
        let Self { cluster, port } = self;
        drop(port);
        assert!(
            launch(
                &cluster.bin,
                &cluster.dir,
                cluster.port,
                cluster.durability,
                &cluster.environment
            ),
            "PostgreSQL did not start again: {}",
            log(&cluster.dir)
        );
    }
}

/// The state of a process, as a letter, and then its parent; empty when there is none.
fn state(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .map(|(_, rest)| rest.to_owned())
        .unwrap_or_default()
}

/// The processes that a process has started.
fn children(parent: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| state(pid).split(' ').nth(1) == Some(parent))
        .collect()
}

/// A folder of a server's own.
fn folder() -> PathBuf {
    let dir = tempfile::Builder::new()
        .prefix("dcams-postgres-")
        .tempdir()
        .unwrap()
        .keep();
    if is_root() {
        // PostgreSQL refuses to run as root.
        run(Command::new("chown").arg("postgres").arg(&dir));
    }
    dir
}

/// Makes the data of a new server in its folder.
fn initialize(bin: &Path, dir: &Path) {
    run(as_postgres(&bin.join("initdb"))
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"])
        .arg(dir.join("data")));
}

/// Starts a server on its folder, and tells whether it is ready.
fn launch(bin: &Path, dir: &Path, port: u16, durability: Durability, environment: &[(&'static str, OsString)]) -> bool {
    let fsync = if durability == Durability::Full { "on" } else { "off" };
    let options = format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={} -c max_connections=300 \
         -c fsync={fsync} -c logging_collector=off",
        dir.display()
    );
    as_postgres(&bin.join("pg_ctl"))
        .args(["start", "-w", "-s", "-D"])
        .arg(dir.join("data"))
        .arg("-l")
        .arg(dir.join("log"))
        .args(["-o", &options])
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .status()
        .unwrap()
        .success()
}

/// What a server has said.
fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Where the server's programs are.
fn binaries() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let whole = |dir: &PathBuf| {
        ["initdb", "pg_ctl", "postgres", "createdb"]
            .iter()
            .all(|name| dir.join(name).exists())
    };
    let mut found: Vec<_> = debian.chain(std::env::split_paths(&path)).filter(whole).collect();
    found.sort();
    found
        .pop()
        .expect("the tests need a PostgreSQL server: run tests/run, which installs it, or install it yourself")
}

fn is_root() -> bool {
    // The owner of a process's own folder under /proc is its user.
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// A command that runs as the user `postgres` if we are root, else as ourselves.
fn as_postgres(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
