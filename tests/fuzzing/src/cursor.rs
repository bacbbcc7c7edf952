//! Cursors of the feed and tokens of pages: what was handed out is read as it was meant, and nothing else is read as that.

use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use store::{Error, HistoryQuery, Place, Whose};

use crate::server::{SERVER, Server, deadline};

/// What cursors are made of.
pub(crate) const WORDS: &[&str] = &["AQ", "AAAA", "____", "-", "=", "+", "/", "A", "\n", "é"];

/// A cursor that was handed out, of the last row there is.
static CURSOR: LazyLock<(String, Place)> = LazyLock::new(|| {
    let Server {
        runtime,
        store,
        principal,
        ..
    } = &*SERVER;
    runtime.block_on(async {
        let place = store.feed_end(*principal, deadline()).await.unwrap();
        (store.cursor(place, deadline()).await.unwrap(), place)
    })
});

/// A token that was handed out.
static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let Server {
        runtime,
        store,
        principal,
        ..
    } = &*SERVER;
    runtime.block_on(async {
        // A second row, so that there is a second page.
        let change = store::Change::new(
            *principal,
            store::Email::parse(crate::server::EMAIL).unwrap().key().clone(),
            store::Status::Fail,
            store::Origin {
                actor: "fuzz".to_owned(),
                face: store::Face::Cli,
                request_id: "fuzz".to_owned(),
            },
        );
        store.set_status(change, deadline()).await.unwrap();
        let page = store.changes(*principal, query(0), None, 1, deadline()).await.unwrap();
        page.next.expect("there is more than one row")
    })
});

fn query(since: u64) -> HistoryQuery {
    HistoryQuery {
        whose: Whose::Account,
        since: (since > 0).then(|| UNIX_EPOCH + Duration::from_secs(since)),
        until: None,
        latest_first: false,
    }
}

pub(crate) fn check(data: &[u8]) {
    // As it is, and as a change of what was handed out.
    if let Ok(text) = str::from_utf8(data) {
        cursor(text);
        token(text);
    }
    cursor(&changed(&CURSOR.0, data));
    token(&changed(&TOKEN, data));
}

/// The text with as many of its characters changed as there are pairs of bytes: where, and by how much.
fn changed(text: &str, data: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=";
    let mut bytes = text.as_bytes().to_vec();
    for pair in data.chunks_exact(2).take(8) {
        let at = usize::from(pair[0]) % bytes.len();
        bytes[at] = ALPHABET[usize::from(pair[1]) % ALPHABET.len()];
    }
    String::from_utf8(bytes).unwrap()
}

fn cursor(text: &str) {
    let Server { runtime, store, .. } = &*SERVER;
    let (handed_out, place) = &*CURSOR;
    match runtime.block_on(store.place(text, deadline())) {
        Ok(read) => {
            // There is one way to write a place, and a place has no other.
            assert_eq!(runtime.block_on(store.cursor(read, deadline())).unwrap(), text);
            assert_eq!(read == *place, text == handed_out, "{text:?} is {read:?}");
        }
        Err(Error::InvalidCursor) => assert_ne!(text, handed_out),
        Err(other) => panic!("{text:?}: {other}"),
    }
}

fn token(text: &str) {
    let Server {
        runtime,
        store,
        principal,
        ..
    } = &*SERVER;
    let read = |query| runtime.block_on(store.changes(*principal, query, Some(text.to_owned()), 10, deadline()));
    match read(query(0)) {
        Ok(page) => {
            assert!(page.changes.len() <= 10);
            // It is of this query, and so of no other.
            assert!(matches!(read(query(1)), Err(Error::InvalidPageToken)), "{text:?}");
        }
        Err(Error::InvalidPageToken) => assert_ne!(text, *TOKEN),
        Err(other) => panic!("{text:?}: {other}"),
    }
}
