//! A proxy before PostgreSQL that loses what a test wants lost.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

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

#[derive(Default)]
struct State {
    planned: VecDeque<(Loss, Vec<u8>)>,
    /// How many losses there were.
    losses: usize,
    released: bool,
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

    /// Plans a loss at the next message that holds `bytes`, after those that are planned already.
    pub fn lose(&self, loss: Loss, bytes: &[u8]) {
        let mut state = self.state.0.lock().unwrap();
        state.planned.push_back((loss, bytes.to_vec()));
    }

    /// How many losses there were.
    pub fn losses(&self) -> usize {
        self.state.0.lock().unwrap().losses
    }

    /// Lets the server see a message that is late.
    pub fn release(&self) {
        self.state.0.lock().unwrap().released = true;
        self.state.1.notify_all();
    }
}

/// Carries bytes both ways.
fn pump(client: TcpStream, server: TcpStream, shared: &Shared) {
    let lost = Arc::new(Mutex::new(false));
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let silent = Arc::clone(&lost);
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            // An answer that is to be lost has been given now.
            if *silent.lock().unwrap() || to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    let (mut from, mut to, shared) = (client, server, Arc::clone(shared));
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
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
