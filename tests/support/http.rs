//! Raw HTTP/1.1, so that a test sees every byte.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A connection that is kept, in plain text or over TLS.
pub struct Connection<S: Read = TcpStream> {
    stream: BufReader<S>,
}

/// A reply, taken apart as far as its length needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// Status line and headers, each with its line end, and the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// One that was made elsewhere.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        // A test fails rather than hangs.
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self::on(stream)
    }
}

impl<S: Read + Write> Connection<S> {
    /// One on whatever carries bytes.
    pub fn on(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// What carries the bytes.
    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// The same, without the rest.
    pub fn into_stream(self) -> S {
        self.stream.into_inner()
    }

    /// Posts a body to the JSON endpoint.
    pub fn post(&mut self, body: impl AsRef<[u8]>) -> Reply {
        self.exchange(&post(body.as_ref()))
    }

    /// Sends a request as it stands, and reads the reply to it.
    pub fn exchange(&mut self, request: &[u8]) -> Reply {
        self.try_exchange(request).unwrap()
    }

    /// The same, for a server that may go away.
    pub fn try_exchange(&mut self, request: &[u8]) -> std::io::Result<Reply> {
        self.send(request)?;
        self.read(request.starts_with(b"HEAD "))
    }

    /// Sends a request without waiting for the reply.
    pub fn send(&mut self, request: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// Reads the reply to a request that was sent before.
    pub fn receive(&mut self) -> std::io::Result<Reply> {
        self.read(false)
    }

    fn read(&mut self, headless: bool) -> std::io::Result<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if headless { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok(Reply { status, head, body })
    }

    /// Whether the server closes the connection, having sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            // Silence until our patience ended: it is still open.
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

impl Reply {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// A POST to the JSON endpoint, as curl sends it.
pub fn post(body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
