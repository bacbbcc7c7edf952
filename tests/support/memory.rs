//! The memory of a process, in KiB.

use std::fs;

/// What it takes now.
pub fn now(pid: u32) -> u64 {
    read(pid, "VmRSS:")
}

/// The most that it has taken, since the last [`reset_peak`].
pub fn peak(pid: u32) -> u64 {
    read(pid, "VmHWM:")
}

/// Forgets the most, and gives what it takes now.
pub fn reset_peak(pid: u32) -> u64 {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    now(pid)
}

fn read(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
