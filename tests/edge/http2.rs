//! HTTP/2 frame by frame, for clients that no library would be.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a test waits for at most, to fail rather than hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A frame that was received.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection.
pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects, and says nothing.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Connects, and says hello with these settings.
    pub fn greet(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::open(address);
        raw.0.write_all(PREFACE).unwrap();
        raw.0.write_all(&settings_frame(settings)).unwrap();
        raw
    }

    /// The next frame; none at the end of the connection, which a reset is as well.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        or_end(self.0.read_exact(&mut head))?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        or_end(self.0.read_exact(&mut payload))?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload,
        })
    }

    /// Reads to the end of the connection.
    pub fn until_closed(&mut self) {
        while self.next().is_some() {}
    }
}

/// Nothing once the connection has ended. A test fails if it has not, and nothing comes.
fn or_end(read: io::Result<()>) -> Option<()> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the connection is still open")
        }
        read => read.ok(),
    }
}

/// A call that is cancelled as soon as it has begun.
pub fn cancelled(stream: u32, headers: &[u8]) -> Vec<u8> {
    const CANCEL: u32 = 8;

    let mut both = frame(HEADERS, END_HEADERS, stream, headers);
    both.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    both
}

/// A frame to send.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub fn settings_frame(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (key, value) in settings {
        payload.extend(key.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// The headers of a call, none of them indexed or compressed.
pub fn call(method: &str, credentials: &str) -> Vec<u8> {
    let path = format!("/dcams.storage.v1.StorageService/{method}");
    let authorization = format!("Basic {}", BASE64_STANDARD.encode(credentials));
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "dcams"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &authorization),
    ]
    .iter()
    .flat_map(|(name, value)| header(name, value))
    .collect()
}

/// A header, neither indexed nor compressed.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127);
        field.push(text.len() as u8);
        field.extend(text.as_bytes());
    }
    field
}

/// A message with an email address and nothing else.
pub fn question(email: &str) -> Vec<u8> {
    let mut message = vec![0x0a, email.len() as u8];
    message.extend(email.as_bytes());
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    body
}
