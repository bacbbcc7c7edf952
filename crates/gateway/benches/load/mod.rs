//! A load that takes little of the cores which it shares with what it measures: one thread, and sockets that do not block.
//! Every reply is looked at whole.

#[path = "../../../../tests/edge/http2.rs"]
#[allow(dead_code, unreachable_pub)]
mod http2;
mod line;
mod questions;
mod report;

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use line::Line;
use mio::{Events, Interest, Poll, Token};
pub(crate) use questions::{Asks, Client, Exchange, Face, PASSWORD, USER, csv, grpc_update, legacy_reply, rest_update};
pub(crate) use report::{Rounds, median, write_between};

use crate::support::Gateway;

/// What is asked: where it listens, and whose processor time is counted.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) rest: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// The memory is that of the first.
    pub(crate) pids: Vec<u32>,
}

/// What a round of load came to.
pub(crate) struct Round {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Microseconds of processor time for a request, of each process that was asked; none where that is not known.
    pub(crate) cpus: Vec<f64>,
    /// The same of this load itself, on the same cores.
    pub(crate) own_cpu: Option<f64>,
    /// What was asked holds so many MiB of memory at the end.
    pub(crate) memory: u64,
}

impl Target {
    pub(crate) fn of(gateway: &Gateway) -> Self {
        Self {
            rest: gateway.rest,
            grpc: gateway.grpc.unwrap_or(gateway.rest),
            pids: vec![gateway.pid()],
        }
    }

    /// Lets clients ask for a time, each over a connection of its own, each request as soon as the reply to the last one is
    /// there.
    pub(crate) fn load(&self, clients: &mut [Client], time: Duration) -> Round {
        let all = clients.len();
        self.load_in_turn(clients, all, time)
    }

    /// The same, with no more than so many requests under way at a time: the clients take turns.
    pub(crate) fn load_in_turn(&self, clients: &mut [Client], at_a_time: usize, time: Duration) -> Round {
        let mut poll = Poll::new().unwrap();
        let mut lines: Vec<Line<'_>> = Vec::with_capacity(clients.len());
        for (number, client) in clients.iter_mut().enumerate() {
            let address = match client.face() {
                Face::Rest => self.rest,
                Face::Grpc => self.grpc,
            };
            let mut line = Line::open(address, client);
            let registry = poll.registry();
            registry
                .register(line.stream(), Token(number), Interest::READABLE)
                .unwrap();
            lines.push(line);
        }
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut events = Events::with_capacity(lines.len());
        let pids = || self.pids.iter().copied().chain([std::process::id()]);
        let used = || pids().map(processor_time).collect::<Vec<_>>();
        let before = used();
        let began = Instant::now();
        let until = began + time;
        let mut waiting: VecDeque<usize> = (at_a_time..lines.len()).collect();
        let mut busy = at_a_time.min(lines.len());
        for line in &mut lines[..busy] {
            line.send(began);
        }
        while busy > 0 {
            poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            assert!(!events.is_empty(), "no reply for a minute");
            for event in &events {
                let number = event.token().0;
                let line = &mut lines[number];
                if !line.receive() {
                    continue;
                }
                let now = Instant::now();
                latencies.push(now - line.sent());
                waiting.push_back(number);
                match waiting.pop_front() {
                    Some(next) if now < until => lines[next].send(now),
                    _ => busy -= 1,
                }
            }
        }
        let (took, after) = (began.elapsed(), used());
        latencies.sort_unstable();
        let requests = latencies.len() as f64;
        let times = after
            .iter()
            .zip(before)
            .map(|(after, before)| (*after - before).as_secs_f64() * 1e6 / requests);
        let mut cpus: Vec<f64> = times.collect();
        Round {
            rate: requests / took.as_secs_f64(),
            own_cpu: cpus.pop(),
            cpus,
            latencies,
            memory: self.pids.first().and_then(|pid| memory_mib(*pid, "VmRSS")).unwrap_or(0),
        }
    }
}

/// The processor time that a process has used; none once it has ended.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Duration::ZERO;
    };
    // The name in parentheses may hold anything; behind it, user and system time are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// The memory of a process in MiB, as `VmRSS` or, the most that it has had, `VmHWM`; none once it has ended.
pub(crate) fn memory_mib(pid: u32, kind: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? / 1024)
}
