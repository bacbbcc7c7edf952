//! The program as a process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use super::{Connection, Database, Reply};

/// The program, as cargo has built it for these tests.
pub fn program() -> Command {
    program_at(BUILT)
}

/// Where that is.
pub const BUILT: &str = env!("CARGO_BIN_EXE_dcams-gateway");

/// A program that was built elsewhere.
pub fn program_at(path: &str) -> Command {
    let mut command = Command::new(path);
    // What the machine's user has set is not what is tested.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DCAMS_")) {
        command.env_remove(name);
    }
    command
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Output {
    /// What it printed, for a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it said was wrong, for a command that must fail with this code: one line, and nothing else.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!((self.code, &*self.out), (code, ""), "{self:?}");
        let line = self.err.strip_prefix("error: ").and_then(|err| err.strip_suffix('\n'));
        match line {
            Some(line) if !line.is_empty() && !line.contains('\n') => line.to_owned(),
            _ => panic!("not one line that says what is wrong: {self:?}"),
        }
    }
}

/// Runs a command of the program on a database, with a standard input.
pub fn dcams(database: &Database, arguments: &[&str], input: &str) -> Output {
    dcams_of(program(), database, arguments, input)
}

/// The same, of another program.
pub fn dcams_of(mut program: Command, database: &Database, arguments: &[&str], input: &str) -> Output {
    program.args(database.arguments()).args(arguments);
    run(program.current_dir(database.path("")), input)
}

/// Runs a command with a standard input.
pub fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input closes it early.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A serving gateway. It is killed when this is dropped.
pub struct Gateway {
    child: Child,
    /// What it printed until it was ready.
    pub banner: String,
    pub rest: SocketAddr,
    /// None for a facade alone.
    pub grpc: Option<SocketAddr>,
    pub ops: SocketAddr,
    out: BufReader<ChildStdout>,
    log: Option<JoinHandle<String>>,
    /// The log of one that nobody listens to.
    unheard: Option<ChildStderr>,
}

impl Gateway {
    /// Starts `serve` on a database, on free ports, and waits until it says that it is ready.
    pub fn start(database: &Database, arguments: &[&str]) -> Self {
        Self::start_at(database, (Ipv4Addr::LOCALHOST, 0).into(), arguments)
    }

    /// The same, with gRPC on an address that was chosen before.
    pub fn start_at(database: &Database, grpc: SocketAddr, arguments: &[&str]) -> Self {
        Self::start_of(program(), database, grpc, arguments)
    }

    /// The same, of another program.
    pub fn start_of(mut program: Command, database: &Database, grpc: SocketAddr, arguments: &[&str]) -> Self {
        program
            .arg("serve")
            .args(database.arguments())
            .args(["--grpc-addr", &grpc.to_string()]);
        Self::spawn(program.args(arguments).current_dir(database.path("")))
    }

    /// Starts `serve` with nobody who reads its log.
    pub fn start_unheard(database: &Database, arguments: &[&str]) -> Self {
        let mut program = program();
        program.arg("serve").args(database.arguments());
        program.args(["--grpc-addr", "127.0.0.1:0"]).args(arguments);
        Self::spawn_heard(program.current_dir(database.path("")), false)
    }

    /// Starts a facade alone in front of the gRPC face of another.
    pub fn facade(upstream: &Self, arguments: &[&str]) -> Self {
        Self::facade_of(upstream.grpc.unwrap(), arguments)
    }

    /// The same, in front of one that need not be there yet.
    pub fn facade_of(upstream: SocketAddr, arguments: &[&str]) -> Self {
        Self::facade_at(&format!("http://{upstream}"), arguments)
    }

    /// The same, by its URL.
    pub fn facade_at(upstream: &str, arguments: &[&str]) -> Self {
        Self::spawn(program().args(["serve", "--upstream", upstream]).args(arguments))
    }

    /// Starts `serve` as a file of configuration says, but for its addresses.
    pub fn configured(config: &str) -> Self {
        Self::spawn(program().args(["serve", "--config", config, "--grpc-addr", "127.0.0.1:0"]))
    }

    fn spawn(command: &mut Command) -> Self {
        Self::spawn_heard(command, true)
    }

    fn spawn_heard(command: &mut Command, is_heard: bool) -> Self {
        let mut child = command
            .args(["--rest-addr", "127.0.0.1:0", "--ops-addr", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let unheard = if is_heard { None } else { child.stderr.take() };
        // Read on a thread, so that a full pipe never holds the gateway up.
        let mut stderr = child.stderr.take();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.as_mut().map(|stderr| stderr.read_to_string(&mut text));
            text
        });
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        let address = |name: &str, banner: &str| -> Option<SocketAddr> {
            let line = banner.lines().find_map(|line| line.trim().strip_prefix(name))?;
            let line = line.trim();
            let text = line.split_once("://").map_or(line, |(_, rest)| rest);
            text.split('/').next()?.parse().ok()
        };
        // Every banner has the line of the store or of the upstream.
        while !banner
            .lines()
            .any(|line| ["store", "calls"].iter().any(|name| line.trim().starts_with(name)))
        {
            if out.read_line(&mut banner).unwrap() == 0 {
                let status = child.wait().unwrap();
                panic!("the gateway ended with {status}: {}", log.join().unwrap());
            }
        }
        // It is written at once, so that what comes after that line, as of a demo, is here as well.
        let rest = out.buffer().len();
        banner.push_str(std::str::from_utf8(out.buffer()).unwrap());
        out.consume(rest);
        Self {
            rest: address("REST", &banner).unwrap(),
            ops: address("ops", &banner).unwrap(),
            grpc: address("gRPC", &banner),
            banner,
            child,
            out,
            log: Some(log),
            unheard,
        }
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Posts a body to the JSON endpoint.
    pub fn post(&self, body: impl AsRef<[u8]>) -> Reply {
        Connection::open(self.rest).post(body)
    }

    /// Gets a path of the ops listener.
    pub fn get(&self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: ops\r\n\r\n");
        Connection::open(self.ops).exchange(request.as_bytes())
    }

    /// Sends a signal, such as `TERM` or `KILL`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Asks the gateway to stop, waits for its end, and gives what it printed after the banner, and its log.
    pub fn stop(mut self) -> Output {
        self.signal("TERM");
        self.end()
    }

    /// Waits for the end, and gives what was printed after the banner, and the log.
    pub fn end(&mut self) -> Output {
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        drop(self.unheard.take());
        Output {
            code,
            out,
            err: self.log.take().unwrap().join().unwrap(),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
