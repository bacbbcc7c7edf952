//! A load of requests to the JSON endpoint that takes little of the cores which it shares with what it measures: one thread,
//! sockets that do not block, and requests and replies that were made beforehand. Every reply is compared, byte for byte.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

use crate::support::{Gateway, post};

/// A request, and how the reply to it must end: with the empty line and all of its body.
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    pub(crate) expected: Vec<u8>,
}

/// A connection's requests, one after the other and again from the first. It goes on where it has stopped.
pub(crate) struct Client {
    exchanges: Vec<Exchange>,
    next: usize,
}

/// What a round of load came to.
pub(crate) struct Round {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Sorted latencies.
    pub(crate) latencies: Vec<Duration>,
    /// Microseconds of processor time of the gateway for a request.
    pub(crate) cpu: f64,
    /// The same of this load itself, on the same cores.
    pub(crate) own_cpu: f64,
}

impl Client {
    pub(crate) fn new(exchanges: Vec<Exchange>) -> Self {
        Self { exchanges, next: 0 }
    }

    fn exchange(&self) -> &Exchange {
        &self.exchanges[self.next % self.exchanges.len()]
    }

    /// So many clients, each with customers of its own, whose statuses they change. Each sweep over them sets another status
    /// than the last: every request writes.
    pub(crate) fn updating(clients: usize, customers: usize) -> Vec<Self> {
        let of = |first| {
            let sweep = |status| {
                let own = (first..customers).step_by(clients);
                own.map(move |customer| update(customer, status))
            };
            Self::new(["PASS", "PENDING", "FAIL"].into_iter().flat_map(sweep).collect())
        };
        (0..clients).map(of).collect()
    }
}

/// `updateStatus` of a customer that was made by [`csv`].
fn update(customer: usize, status: &str) -> Exchange {
    let body = format!(
        r#"{{"user":"bench","pass":"bench password","service":"updateStatus","target":{{"email":"customer{customer}@example.com","status":"{status}"}}}}"#
    );
    let expected = format!(
        "\r\n\r\n{{\"result\":\"Success\",\"reference\":\"{customer}\",\"target\":{{\"fn\":\"John\",\"ln\":\"Smith\",\
         \"addr\":\"123 Main St\",\"city\":\"Stratford\",\"state\":\"CT\",\"zip\":\"06614\",\"dob\":\"19700101\",\
         \"email\":\"customer{customer}@example.com\",\"phone\":\"2015106000\",\"status\":\"{status}\"}}}}"
    );
    Exchange {
        request: post(body.as_bytes()),
        expected: expected.into_bytes(),
    }
}

/// A file of so many customers, for the account `bench`.
pub(crate) fn csv(customers: usize) -> String {
    let head = "email,fn,ln,addr,city,state,zip,dob,phone,reference,status\n".to_owned();
    (0..customers).fold(head, |rows, number| {
        rows + &format!(
            "customer{number}@example.com,John,Smith,123 Main St,Stratford,CT,06614,19700101,2015106000,{number},FAIL\n"
        )
    })
}

/// Lets clients ask a gateway for a time, each over a connection of its own, each request as soon as the reply to the last one
/// is there.
pub(crate) fn load(gateway: &Gateway, clients: &mut [Client], time: Duration) -> Round {
    let mut lines: Vec<Line<'_>> = clients
        .iter_mut()
        .map(|client| Line::open(gateway.rest, client))
        .collect();
    let mut poll = Poll::new().unwrap();
    for (number, line) in lines.iter_mut().enumerate() {
        let registry = poll.registry();
        registry
            .register(&mut line.stream, Token(number), Interest::READABLE)
            .unwrap();
    }
    let mut latencies = Vec::with_capacity(1 << 20);
    let mut events = Events::with_capacity(lines.len());
    let used = || [gateway.pid(), std::process::id()].map(processor_time);
    let before = used();
    let began = Instant::now();
    let until = began + time;
    for line in &mut lines {
        line.send(began);
    }
    let mut busy = lines.len();
    while busy > 0 {
        poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
        assert!(!events.is_empty(), "no reply for a minute");
        for event in &events {
            let line = &mut lines[event.token().0];
            if !line.receive() {
                continue;
            }
            let now = Instant::now();
            latencies.push(now - line.sent);
            line.client.next += 1;
            if now < until {
                line.send(now);
            } else {
                busy -= 1;
            }
        }
    }
    let (took, after) = (began.elapsed(), used());
    latencies.sort_unstable();
    let requests = latencies.len() as f64;
    let [cpu, own_cpu] = [0, 1].map(|of| (after[of] - before[of]).as_secs_f64() * 1e6 / requests);
    Round {
        rate: requests / took.as_secs_f64(),
        cpu,
        own_cpu,
        latencies,
    }
}

/// A client and its connection.
struct Line<'a> {
    client: &'a mut Client,
    stream: mio::net::TcpStream,
    sent: Instant,
    /// What is there of the reply.
    reply: Vec<u8>,
}

impl<'a> Line<'a> {
    fn open(address: SocketAddr, client: &'a mut Client) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            client,
            stream: mio::net::TcpStream::from_std(stream),
            sent: Instant::now(),
            reply: Vec::with_capacity(4_096),
        }
    }

    fn send(&mut self, now: Instant) {
        self.sent = now;
        self.reply.clear();
        let request = &self.client.exchange().request;
        // There is room: nothing else is on its way.
        assert_eq!(self.stream.write(request).unwrap(), request.len());
    }

    /// Takes what has come, and tells whether that is all of the reply. A reply of another length or with other bytes is not
    /// borne.
    fn receive(&mut self) -> bool {
        let mut part = [0; 4_096];
        let read = match self.stream.read(&mut part) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        };
        self.reply.extend_from_slice(&part[..read]);
        let expected = &self.client.exchange().expected;
        let text = || String::from_utf8_lossy(&self.reply);
        assert!(read > 0, "the connection was closed: {}", text());
        let head = self.reply.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(head) = head else { return false };
        let rest = &self.reply[head..];
        assert!(
            self.reply.starts_with(b"HTTP/1.1 200 OK\r\n") && expected.starts_with(rest),
            "{}",
            text()
        );
        rest.len() == expected.len()
    }
}

/// The processor time that a process has used.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in parentheses may hold anything; behind it, user and system time are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
