//! A connection of a load: how a request goes out, and when its reply is there and is the one that it must be.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use prost::Message;
// Both answers have the customer in the same field.
use proto::v1::UpdateStatusResponse as Answer;

use super::{
    http2::{
        ACK, DATA, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
        settings_frame,
    },
    questions::{Client, Exchange, Face},
};

/// What a frame of HTTP/2 begins with: length, kind, flags and stream.
const FRAME_HEAD: usize = 9;

/// `grpc-status: 0`, as a server writes it that was told to remember no headers: a field that is not indexed, name and value in Huffman
/// code.
const OK: &[u8] = &[0x00, 0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x81, 0x07];

pub(super) struct Line<'a> {
    client: &'a mut Client,
    stream: mio::net::TcpStream,
    sent: Instant,
    /// What is waited for.
    exchange: Option<Exchange>,
    /// What is there and was not yet used.
    received: Vec<u8>,
    /// The next stream of HTTP/2.
    next_stream: u32,
    /// The message of the answer.
    message: Vec<u8>,
}

impl<'a> Line<'a> {
    pub(super) fn open(address: SocketAddr, client: &'a mut Client) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        if client.face() == Face::Grpc {
            // No headers are remembered, so that the same ones always look the same; and there is always room for answers.
            let window = 0x7fff_0000_u32;
            let more = frame(WINDOW_UPDATE, 0, 0, &window.to_be_bytes());
            let hello = [PREFACE, &settings_frame(&[(1, 0), (4, window)]), &more].concat();
            stream.write_all(&hello).unwrap();
        }
        stream.set_nonblocking(true).unwrap();
        Self {
            client,
            stream: mio::net::TcpStream::from_std(stream),
            sent: Instant::now(),
            exchange: None,
            received: Vec::with_capacity(4_096),
            next_stream: 1,
            message: Vec::new(),
        }
    }

    pub(super) fn stream(&mut self) -> &mut mio::net::TcpStream {
        &mut self.stream
    }

    pub(super) fn sent(&self) -> Instant {
        self.sent
    }

    /// Sends the next request.
    pub(super) fn send(&mut self, now: Instant) {
        self.sent = now;
        let mut exchange = self.client.ask();
        let request = match &mut exchange {
            Exchange::Rest { request, .. } => request,
            Exchange::Grpc { request, .. } => {
                let number = self.next_stream.to_be_bytes();
                self.next_stream += 2;
                self.message.clear();
                let second = FRAME_HEAD + length(request);
                for head in [0, second] {
                    request[head + 5..head + FRAME_HEAD].copy_from_slice(&number);
                }
                request
            }
        };
        // There is room: nothing else is on its way.
        assert_eq!(self.stream.write(request).unwrap(), request.len());
        self.exchange = Some(exchange);
    }

    /// Takes what has come, and tells whether that is all of the reply. A reply that is not the right one is not borne.
    pub(super) fn receive(&mut self) -> bool {
        let mut part = [0; 16_384];
        let read = match self.stream.read(&mut part) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        };
        self.received.extend_from_slice(&part[..read]);
        let text = || String::from_utf8_lossy(&self.received);
        assert!(read > 0, "the connection was closed: {}", text());
        match self.client.face() {
            Face::Rest => self.has_reply(),
            Face::Grpc => self.has_answer(),
        }
    }

    fn has_reply(&mut self) -> bool {
        let Some(Exchange::Rest { end, .. }) = &self.exchange else {
            panic!("nothing was asked for: {}", String::from_utf8_lossy(&self.received));
        };
        let head = self.received.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(head) = head else { return false };
        let rest = &self.received[head..];
        assert!(
            self.received.starts_with(b"HTTP/1.1 200 OK\r\n") && end.starts_with(rest),
            "{}",
            String::from_utf8_lossy(&self.received)
        );
        let is_whole = rest.len() == end.len();
        if is_whole {
            self.received.clear();
        }
        is_whole
    }

    fn has_answer(&mut self) -> bool {
        let mut used = 0;
        let mut is_whole = false;
        while let Some(head) = self.received.get(used..used + FRAME_HEAD) {
            let end = used + FRAME_HEAD + length(head);
            let Some(payload) = self.received.get(used + FRAME_HEAD..end) else {
                break;
            };
            match (head[3], head[4]) {
                (DATA, _) => self.message.extend_from_slice(payload),
                (HEADERS, flags) if flags & END_STREAM != 0 => {
                    assert_eq!(payload, OK, "the trailers: {payload:02x?}");
                    self.exchange.take().unwrap().check(&self.message);
                    is_whole = true;
                }
                (SETTINGS | PING, 0) => {
                    let echo: &[u8] = if head[3] == PING { payload } else { &[] };
                    let answer = frame(head[3], ACK, 0, echo);
                    assert_eq!(self.stream.write(&answer).unwrap(), answer.len());
                }
                (GOAWAY | RST_STREAM, _) => panic!("the server ends it: {payload:?}"),
                // Headers at the beginning, and more room.
                _ => {}
            }
            used = end;
        }
        self.received.drain(..used);
        is_whole
    }
}

impl Exchange {
    /// Looks at the message of an answer.
    fn check(&self, message: &[u8]) {
        let Self::Grpc { reference, status, .. } = self else {
            panic!("an answer of gRPC to what was not asked over it");
        };
        let customer = Answer::decode(&message[5..]).unwrap().customer.unwrap();
        assert_eq!((&customer.reference, customer.status()), (reference, *status));
    }
}

/// The length of a frame's payload.
fn length(frame: &[u8]) -> usize {
    usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])
}
