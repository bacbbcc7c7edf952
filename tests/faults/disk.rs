//! A disk that loses its power: what a log of writes and syncs may have left on it.
//!
//! What was synced is there. Of the rest each sector is as it was, or as any write since left it, or torn between two of
//! these; whatever was written later may be there and what was written before it not. The same holds for the names in the
//! folder, and for the lengths of files; a file that became longer may hold anything there.
//!
//! A sector that is torn has the first bytes of the one and the last of the other, and never others: that a write damages
//! nothing beside it is what SQLite takes for granted (<https://www.sqlite.org/psow.html>).

use std::collections::{BTreeMap, HashMap};

use crate::faults::{
    Random,
    shim::{Log, Record, call, file},
};

const SECTOR: usize = 512;

/// What the disk makes of syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// It does them.
    Done,
    /// Those of the WAL at each commit are left out, as with `synchronous=NORMAL`: only that of a new header is done, and
    /// that before a checkpoint.
    AsNormal,
    /// None is done.
    Ignored,
}

/// The files of a folder by their names.
pub type Image = BTreeMap<String, Vec<u8>>;

/// A disk while a log is played to it.
pub struct Disk {
    syncs: Syncs,
    inodes: Vec<Inode>,
    names: BTreeMap<String, Name>,
    open: HashMap<(u32, i32), Opened>,
}

#[derive(Clone, Copy)]
enum Opened {
    File(usize),
    Folder,
}

/// What a name stands for: for certain, and since.
struct Name {
    synced: Option<usize>,
    since: Vec<Option<usize>>,
}

impl Name {
    fn now(&self) -> Option<usize> {
        self.since.last().copied().unwrap_or(self.synced)
    }
}

type Sector = [u8; SECTOR];

/// The content of a file.
#[derive(Default)]
struct Inode {
    /// As processes see it.
    now: Vec<u8>,
    /// What is on the disk for certain.
    synced: Vec<u8>,
    /// What each sector was made since, in order.
    since: BTreeMap<usize, Vec<Sector>>,
    /// What the length was made since.
    lengths: Vec<usize>,
    /// Who wrote since somebody synced, or should have.
    writer: Option<u32>,
    /// Whether that was the header and nothing else.
    header_only: bool,
}

/// The bytes of a sector, whatever there is of it.
fn sector(bytes: &[u8], number: usize) -> Sector {
    let mut sector = [0; SECTOR];
    let from = bytes.len().min(number * SECTOR);
    let there = &bytes[from..bytes.len().min(from + SECTOR)];
    sector[..there.len()].copy_from_slice(there);
    sector
}

/// Puts a sector where it belongs.
fn put(bytes: &mut [u8], number: usize, sector: &Sector) {
    let from = bytes.len().min(number * SECTOR);
    let to = bytes.len().min(from + SECTOR);
    bytes[from..to].copy_from_slice(&sector[..to - from]);
}

/// How much of what was not synced a cut leaves.
#[derive(Clone, Copy)]
enum Left {
    Nothing,
    All,
    /// What lies before this sector.
    Before(usize),
    /// Each with a chance in 256.
    Some(u64),
}

impl Inode {
    fn of(content: Vec<u8>) -> Self {
        Self {
            now: content.clone(),
            synced: content,
            ..Self::default()
        }
    }

    fn touch(&mut self, from: usize, to: usize) {
        for number in from / SECTOR..to.div_ceil(SECTOR) {
            let sector = sector(&self.now, number);
            self.since.entry(number).or_default().push(sector);
        }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        if self.now.len() < at + data.len() {
            self.now.resize(at + data.len(), 0);
            self.lengths.push(self.now.len());
        }
        self.now[at..at + data.len()].copy_from_slice(data);
        self.touch(at, at + data.len());
    }

    fn truncate(&mut self, length: usize) {
        let before = self.now.len();
        self.now.resize(length, 0);
        self.lengths.push(length);
        self.touch(length.min(before), length.max(before));
    }

    fn sync(&mut self) {
        self.synced.resize(self.now.len(), 0);
        for (number, versions) in std::mem::take(&mut self.since) {
            put(&mut self.synced, number, &versions[versions.len() - 1]);
        }
        self.lengths.clear();
    }

    /// A sync that failed: some of it was done, and the rest is forgotten, since the system takes for written what it
    /// could not write. No later sync makes up for that.
    fn lose(&mut self, random: &mut Random) {
        self.synced = self.cut(random);
        self.since.clear();
        self.lengths.clear();
    }

    /// What a cut may leave.
    fn cut(&self, random: &mut Random) -> Vec<u8> {
        let left = match random.next() % 5 {
            0 => Left::Nothing,
            1 => Left::All,
            2 => {
                let first = self.since.keys().next().copied().unwrap_or_default();
                let last = self.since.keys().next_back().copied().unwrap_or_default();
                Left::Before(first + random.below(last - first + 2))
            }
            _ => Left::Some(random.next() % 256),
        };
        // A disk may write eight of these at once.
        let together = if random.next().is_multiple_of(2) { 1 } else { 8 };

        let mut content = self.synced.clone();
        let length = match left {
            Left::Nothing => content.len(),
            Left::All => self.now.len(),
            _ => match random.below(self.lengths.len() + 1) {
                0 => content.len(),
                at => self.lengths[at - 1],
            },
        };
        let filled = content.len().min(length);
        content.resize(length, 0);
        if random.next().is_multiple_of(2) {
            content[filled..].fill_with(|| random.next() as u8);
        }
        let mut group = (usize::MAX, false);
        for (&number, versions) in &self.since {
            if group.0 != number / together {
                let kept = match left {
                    Left::Nothing => false,
                    Left::All => true,
                    Left::Before(end) => number < end,
                    Left::Some(chance) => random.next() % 256 < chance,
                };
                group = (number / together, kept);
            }
            if !group.1 {
                continue;
            }
            let last = versions.len() - 1;
            let version = match left {
                Left::Some(_) => random.below(versions.len()),
                _ => last,
            };
            let mut made = versions[version];
            if matches!(left, Left::Some(_)) && random.next().is_multiple_of(8) {
                let before = match version {
                    0 => sector(&self.synced, number),
                    _ => versions[version - 1],
                };
                let torn = random.below(SECTOR);
                made[torn..].copy_from_slice(&before[torn..]);
            }
            put(&mut content, number, &made);
        }
        content
    }
}

impl Disk {
    /// A disk with files that are on it for certain.
    pub fn with(image: &Image, syncs: Syncs) -> Self {
        let mut disk = Self {
            syncs,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            open: HashMap::new(),
        };
        for (name, content) in image {
            let synced = Some(disk.inodes.len());
            disk.inodes.push(Inode::of(content.clone()));
            disk.names.insert(
                name.clone(),
                Name {
                    synced,
                    since: Vec::new(),
                },
            );
        }
        disk
    }

    fn name(&mut self, name: &str) -> &mut Name {
        self.names.entry(name.to_owned()).or_insert(Name {
            synced: None,
            since: Vec::new(),
        })
    }

    fn inode(&mut self, record: &Record) -> &mut Inode {
        match self.open[&(record.pid, record.fd)] {
            Opened::File(number) => &mut self.inodes[number],
            Opened::Folder => panic!("a folder is written to: {record:?}"),
        }
    }

    /// Does what a record tells of.
    pub fn play(&mut self, log: &Log, record: &Record, random: &mut Random) {
        let at = usize::try_from(record.offset).unwrap();
        match record.call {
            call::OPEN => {
                let opened = if record.file == file::FOLDER {
                    Opened::Folder
                } else if record.created {
                    let made = self.inodes.len();
                    self.inodes.push(Inode::default());
                    self.name(log.name(record)).since.push(Some(made));
                    Opened::File(made)
                } else {
                    Opened::File(self.name(log.name(record)).now().expect("what is opened is there"))
                };
                self.open.insert((record.pid, record.fd), opened);
            }
            call::CLOSE => {
                self.open.remove(&(record.pid, record.fd));
            }
            call::WRITE => {
                let data = log.data(record);
                let inode = self.inode(record);
                inode.write(at, data);
                inode.header_only = at + data.len() <= 32 && (inode.writer.is_none() || inode.header_only);
                inode.writer = Some(record.thread);
            }
            call::TRUNCATE => self.inode(record).truncate(at),
            call::SYNC => self.sync(record, random),
            call::UNLINK => self.name(log.name(record)).since.push(None),
            call::MARK => {}
            _ => panic!("the disk does not know how to do this: {record:?}"),
        }
    }

    fn sync(&mut self, record: &Record, random: &mut Random) {
        if self.syncs == Syncs::Ignored {
            return;
        }
        if record.file == file::FOLDER {
            for name in self.names.values_mut().filter(|_| !record.failed) {
                name.synced = name.now();
                name.since.clear();
            }
            return;
        }
        let syncs = self.syncs;
        let inode = self.inode(record);
        let at_commit = inode.writer.take() == Some(record.thread) && !inode.header_only;
        if syncs == Syncs::AsNormal && record.file == file::WAL && at_commit {
            return;
        }
        if record.failed {
            inode.lose(random);
        } else {
            inode.sync();
        }
    }

    /// What is on the disk when the power is cut now.
    pub fn cut(&self, random: &mut Random) -> Image {
        let mut image = Image::new();
        for (called, name) in &self.names {
            let number = match random.below(name.since.len() + 1) {
                0 => name.synced,
                at => name.since[at - 1],
            };
            if let Some(number) = number {
                image.insert(called.clone(), self.inodes[number].cut(random));
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode() -> Inode {
        let mut inode = Inode::of(vec![b'a'; 2 * SECTOR]);
        inode.write(SECTOR / 2, &[b'b'; SECTOR]);
        inode
    }

    #[test]
    fn what_was_synced_is_left() {
        let mut inode = inode();
        inode.sync();
        inode.write(SECTOR, b"c");
        for seed in 0..100 {
            let cut = inode.cut(&mut Random(seed));
            assert_eq!(&cut[..SECTOR / 2], [b'a'; SECTOR / 2]);
            assert_eq!(&cut[SECTOR / 2..SECTOR], [b'b'; SECTOR / 2]);
        }
    }

    #[test]
    fn what_was_not_synced_may_be_left_in_any_part() {
        let inode = inode();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..1_000 {
            let cut = inode.cut(&mut Random(seed));
            let (one, two) = (cut[SECTOR - 1], cut[SECTOR]);
            seen.insert((one, two, cut[SECTOR / 2]));
        }
        for kept in [
            (b'a', b'a', b'a'),
            (b'a', b'b', b'a'),
            (b'b', b'a', b'b'),
            (b'b', b'b', b'b'),
        ] {
            assert!(seen.contains(&kept), "{kept:?} in {seen:?}");
        }
        assert!(seen.iter().any(|(end, _, begin)| end != begin), "none is torn");
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_one_brings_back() {
        let lost = (0..100).any(|seed| {
            let mut inode = inode();
            inode.lose(&mut Random(seed));
            inode.sync();
            inode.cut(&mut Random(seed)) != inode.now
        });
        assert!(lost);
    }
}
