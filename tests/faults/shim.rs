//! Stands between a process and its files: writes down what it does to them, makes calls fail, and moves its wall clock.
//!
//! It is a library of C (`shim.c`), since the crates have no unsafe code, and is compiled with `cc` when it is first needed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::Write,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The library, compiled.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-shim.so");
        // Moved into place whole: another run of the tests may use it.
        let new = made.with_extension(std::process::id().to_string());
        let mut compiler = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-x", "c", "-", "-o",
            ])
            .args([new.as_os_str(), OsStr::new("-ldl"), OsStr::new("-lpthread")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler is needed, as for the program itself: install gcc");
        compiler
            .stdin
            .take()
            .unwrap()
            .write_all(include_bytes!("shim.c"))
            .unwrap();
        assert!(compiler.wait().unwrap().success(), "shim.c does not compile");
        fs::rename(new, &made).unwrap();
        made
    })
}

/// Kinds of calls, as sets: `enum call` of the shim.
pub mod call {
    pub const OPEN: u8 = 1;
    pub const WRITE: u8 = 2;
    pub const TRUNCATE: u8 = 4;
    pub const SYNC: u8 = 8;
    pub const UNLINK: u8 = 16;
    pub const CLOSE: u8 = 32;
    /// One of the test's own in the log: a mark.
    pub const MARK: u8 = 128;
}

/// Kinds of files, as sets: `enum file` of the shim.
pub mod file {
    /// The database itself: what ends with `.db`, or is in PostgreSQL's folder `base`.
    pub const MAIN: u8 = 1;
    /// What ends with `-wal`, or is in PostgreSQL's folder `pg_wal`.
    pub const WAL: u8 = 2;
    pub const JOURNAL: u8 = 4;
    pub const FOLDER: u8 = 8;
    /// The index of the WAL, which is memory that processes share and is made anew after a crash: it is in no log.
    pub const SHARED: u8 = 16;
    pub const OTHER: u8 = 32;
    /// All but the index of the WAL.
    pub const KEPT: u8 = MAIN | WAL | JOURNAL | FOLDER | OTHER;
}

/// Errors, as the system numbers them.
pub mod errno {
    pub const EIO: u64 = 5;
    pub const ENOSPC: u64 = 28;
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// A set of [`call`].
    pub calls: u8,
    /// A set of [`file`].
    pub files: u8,
    /// The number of the first that fails, from 1.
    pub first: u64,
    /// How many do.
    pub count: u64,
    /// What with: one of [`errno`]; 0 for a sync that is told to be made and is not.
    pub error: u64,
    /// Whether only what makes a file, or makes one longer, is meant.
    pub growing: bool,
}

/// A folder whose files are watched.
pub struct Shim {
    folder: PathBuf,
    control: File,
    control_path: PathBuf,
    /// None where nothing is written down.
    log: Option<PathBuf>,
}

/// Where a rule begins in the file of `struct control`.
fn rule_at(number: usize) -> u64 {
    16 + 64 * number as u64
}

impl Shim {
    /// Watches a folder; `beside` is one for what the shim itself needs. With `logs`, what is done is written down.
    pub fn on(folder: &Path, beside: &Path, logs: bool) -> Self {
        let control_path = beside.join("shim-control");
        let control = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&control_path)
            .unwrap();
        control.write_all_at(&[0; 4096], 0).unwrap();
        Self {
            folder: folder.to_owned(),
            control,
            control_path,
            log: logs.then(|| beside.join("shim-log")),
        }
    }

    /// A command that runs under the shim.
    pub fn under(&self, mut command: Command) -> Command {
        command.envs(self.environment(library()));
        command
    }

    /// What a process must have in its environment to run under the shim, for one that another program starts. `library` is a
    /// copy of it that the process may read.
    pub fn environment(&self, library: &Path) -> Vec<(&'static str, OsString)> {
        let mut all = vec![
            ("LD_PRELOAD", library.into()),
            ("SHIM_DIR", self.folder.clone().into()),
            ("SHIM_CONTROL", self.control_path.clone().into()),
        ];
        all.extend(self.log.clone().map(|log| ("SHIM_LOG", log.into())));
        all
    }

    /// Puts a copy of the library where it is asked for.
    pub fn copy_library(to: &Path) {
        fs::copy(library(), to).unwrap();
    }

    fn read(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn write(&self, at: u64, value: u64) {
        self.control.write_all_at(&value.to_le_bytes(), at).unwrap();
    }

    /// Sets how many nanoseconds the wall clock of the process is ahead of the machine's.
    pub fn set_clock(&self, ahead: i64) {
        self.write(0, ahead.cast_unsigned());
    }

    /// Makes calls fail from now on, by the rule with this number, of which there are four.
    pub fn arm(&self, number: usize, rule: Rule) {
        let at = rule_at(number);
        // While nothing matches, nothing is counted.
        self.write(at, 0);
        let fields = [
            rule.files.into(),
            rule.first,
            rule.count,
            rule.error,
            rule.growing.into(),
            0,
            0,
        ];
        for (field, value) in (1..).zip(fields) {
            self.write(at + 8 * field, value);
        }
        self.write(at, rule.calls.into());
    }

    /// Makes nothing fail any more, and counts on.
    pub fn disarm(&self) {
        for number in 0..4 {
            self.write(rule_at(number) + 24, 0);
        }
    }

    /// How many calls matched a rule since it was armed.
    pub fn seen(&self, number: usize) -> u64 {
        self.read(rule_at(number) + 48)
    }

    /// How many failed by it.
    pub fn failed(&self, number: usize) -> u64 {
        self.read(rule_at(number) + 56)
    }

    /// How many syncs were made again after they had failed, with nothing written in between.
    pub fn retried_syncs(&self) -> u64 {
        self.read(8)
    }

    /// What adds marks to the log.
    pub fn marker(&self) -> Marker {
        let log = self.log.as_ref().expect("there is a log");
        Marker(OpenOptions::new().append(true).create(true).open(log).unwrap())
    }

    /// What was written down.
    pub fn log(&self) -> Log {
        Log::read(fs::read(self.log.as_ref().expect("there is a log")).unwrap())
    }
}

/// Adds marks to a log: what is known at this point of it.
pub struct Marker(File);

impl Marker {
    pub fn mark(&mut self, number: u64) {
        let mut record = Vec::from(MAGIC.to_le_bytes());
        record.extend([call::MARK, 0, 0, 0]);
        record.resize(32, 0);
        record.extend(number.to_le_bytes());
        // One write, so that it comes between two records of the process.
        self.0.write_all(&record).unwrap();
    }
}

const MAGIC: u32 = 0x5348_494d;

/// The length of `struct record`.
const HEAD: usize = 40;

/// A log, read.
pub struct Log {
    bytes: Vec<u8>,
    pub records: Vec<Record>,
}

/// A call, or a mark.
#[derive(Clone, Debug)]
pub struct Record {
    pub call: u8,
    pub failed: bool,
    /// Whether the file was made.
    pub created: bool,
    /// What kind of file.
    pub file: u8,
    pub pid: u32,
    pub thread: u32,
    pub fd: i32,
    /// Where it was written to, the new length of a file, or the number of a mark.
    pub offset: u64,
    path: Range<usize>,
    data: Range<usize>,
}

impl Log {
    fn read(bytes: Vec<u8>) -> Self {
        let mut records = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let head = &bytes[at..at + HEAD];
            let number = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().unwrap());
            assert_eq!(number(0), MAGIC, "the log is whole");
            let path = at + HEAD..at + HEAD + number(20) as usize;
            let data = path.end..path.end + number(24) as usize;
            at = data.end;
            records.push(Record {
                call: head[4],
                failed: head[5] != 0,
                created: head[6] != 0,
                file: head[7],
                pid: number(8),
                thread: number(12),
                fd: number(16).cast_signed(),
                offset: u64::from_le_bytes(head[32..40].try_into().unwrap()),
                path,
                data,
            });
        }
        Self { bytes, records }
    }

    /// The name of the file that a call was given the path of.
    pub fn name(&self, record: &Record) -> &str {
        let path = std::str::from_utf8(&self.bytes[record.path.clone()]).unwrap();
        path.rsplit('/').next().unwrap()
    }

    /// What was written.
    pub fn data(&self, record: &Record) -> &[u8] {
        &self.bytes[record.data.clone()]
    }
}
