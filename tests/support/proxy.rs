//! A proxy before a server that loses, cuts and holds up what a test wants.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use super::Random;

/// What is lost, once, with the connection that it was on: of the message of a client that holds certain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The message: the server never sees it.
    Request,
    /// The server's answer, which has been given.
    Reply,
    /// Neither: the client sees its connection die at once, and the server sees the message when the test says so.
    Late,
}

/// What loses one reply of so many, at random, with its connection.
struct Lossy {
    one_of: u64,
    random: Random,
}

#[derive(Default)]
struct State {
    planned: VecDeque<(Loss, Vec<u8>)>,
    lossy: Option<Lossy>,
    /// How many losses there were.
    losses: usize,
    /// How many replies there were, the lost ones with them, since it was last said which are lost.
    replies: usize,
    released: bool,
    /// Whether new connections are closed at once.
    refuses: bool,
    /// The connections with lower numbers are held up.
    held_below: u64,
    next: u64,
    /// The clients' sides of the connections, by their numbers.
    clients: BTreeMap<u64, TcpStream>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A proxy before a server.
pub struct Proxy {
    port: u16,
    state: Shared,
}

impl Proxy {
    /// Begins to stand before a server, for as long as the process runs.
    pub fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Shared::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.0.lock().unwrap().refuses {
                    continue;
                }
                // While the server is away, clients are turned away.
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server))) {
                    pump(client, server, &shared);
                }
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// Plans a loss at the next message that holds `bytes`, after those that are planned already.
    pub fn lose(&self, loss: Loss, bytes: &[u8]) {
        self.state().planned.push_back((loss, bytes.to_vec()));
    }

    /// Loses one of so many replies of a server that speaks HTTP, and the connection that it was on: what was asked for has
    /// reached the server. None loses no more.
    pub fn lose_replies(&self, one_of: Option<u64>, seed: u64) {
        let mut state = self.state();
        (state.losses, state.replies) = (0, 0);
        state.lossy = one_of.map(|one_of| Lossy {
            one_of,
            random: Random(seed),
        });
    }

    /// How many losses there were.
    pub fn losses(&self) -> usize {
        self.state().losses
    }

    /// How many replies of a server that speaks HTTP there were, since it was last said which are to be lost.
    pub fn replies(&self) -> usize {
        self.state().replies
    }

    /// Lets the server see a message that is late.
    pub fn release(&self) {
        self.state().released = true;
        self.state.1.notify_all();
    }

    /// Cuts all connections. What the clients have sent until then, the server still sees: of what is held up, when it is let
    /// go.
    pub fn cut(&self) {
        let mut state = self.state();
        for client in std::mem::take(&mut state.clients).into_values() {
            let _ = client.shutdown(Shutdown::Both);
        }
        // What is connected from now on is not held up.
        state.held_below = state.held_below.min(state.next);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// Holds up all that comes, either way.
    pub fn hold(&self) {
        self.state().held_below = u64::MAX;
    }

    /// Lets go what is held up.
    pub fn let_go(&self) {
        self.state().held_below = 0;
        self.state.1.notify_all();
    }
}

/// Waits while a connection is held up.
fn wait(shared: &Shared, number: u64) {
    let state = shared.0.lock().unwrap();
    drop(shared.1.wait_while(state, |state| number < state.held_below).unwrap());
}

/// Whether a server's bytes begin an answer to a request: in HTTP/1 or, whose frames are written whole, in HTTP/2.
fn is_reply(bytes: &[u8]) -> bool {
    const HEADERS: u8 = 1;
    const FRAME_HEAD: usize = 9;

    let mut frames = bytes;
    while let [a, b, c, kind, ..] = *frames {
        if kind == HEADERS {
            return true;
        }
        let length = FRAME_HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
        frames = frames.get(length..).unwrap_or_default();
    }
    bytes.starts_with(b"HTTP/1.")
}

/// Whether the reply that begins now is lost.
fn loses_reply(shared: &Shared) -> bool {
    let mut state = shared.0.lock().unwrap();
    state.replies += 1;
    let lossy = state.lossy.as_mut();
    let is_lost = lossy.is_some_and(|lossy| lossy.random.next().is_multiple_of(lossy.one_of));
    state.losses += usize::from(is_lost);
    is_lost
}

/// Carries bytes both ways.
fn pump(client: TcpStream, server: TcpStream, shared: &Shared) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let number = {
        let mut state = shared.0.lock().unwrap();
        state.next += 1;
        let number = state.next - 1;
        state.clients.insert(number, client.try_clone().unwrap());
        number
    };
    let lost = Arc::new(Mutex::new(false));
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (silent, of_server) = (Arc::clone(&lost), Arc::clone(shared));
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            wait(&of_server, number);
            if is_reply(&bytes[..read]) && loses_reply(&of_server) {
                break;
            }
            // An answer that is to be lost has been given now.
            if *silent.lock().unwrap() || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
        of_server.0.lock().unwrap().clients.remove(&number);
    });
    let (mut from, mut to, shared) = (client, server, Arc::clone(shared));
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            wait(&shared, number);
            let message = &bytes[..read];
            let loss = {
                let mut state = shared.0.lock().unwrap();
                let is_planned = state
                    .planned
                    .front()
                    .is_some_and(|(_, wanted)| message.windows(wanted.len()).any(|window| window == wanted));
                match is_planned {
                    true => {
                        state.losses += 1;
                        state.planned.pop_front().map(|(loss, _)| loss)
                    }
                    false => None,
                }
            };
            match loss {
                Some(Loss::Request) => break,
                Some(Loss::Reply) => *lost.lock().unwrap() = true,
                Some(Loss::Late) => {
                    let _ = from.shutdown(Shutdown::Both);
                    let state = shared.0.lock().unwrap();
                    drop(shared.1.wait_while(state, |state| !state.released).unwrap());
                }
                None => {}
            }
            if to.write_all(message).is_err() {
                break;
            }
        }
        if *lost.lock().unwrap() {
            // The other direction ends both when the answer is there.
            return;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Write);
    });
}
