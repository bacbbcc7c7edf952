//! Requests and their replies as text that people can read, and that is the same every time.

use std::net::SocketAddr;

use super::Row;
use crate::support::{Connection, Reply, post};

/// The longest run of a character that is written out.
const LONGEST_RUN: usize = 40;

/// Where the tests that look at customer links let them begin.
pub const LINK: &str = "https://admin.example.com/customers/";

/// What stands for a public id, or the part of one.
pub const PUBLIC_ID: &str = "<public id>";

/// What gzip begins with.
const GZIP: &[u8] = b"\x1f\x8b";

/// Sends each row on a connection of its own, and writes down what was said.
pub fn transcript(rest: SocketAddr, rows: &[Row]) -> String {
    rows.iter()
        .map(|(name, request)| entry(name, request, &Connection::open(rest).exchange(request)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One request and its reply.
pub fn entry(name: &str, request: &[u8], reply: &Reply) -> String {
    format!(
        "===== {name}\n{}\n\n{}\n{}\n",
        show_request(request),
        show_head(&reply.head),
        show_body(reply.text())
    )
}

/// The body of a reply, without the public id in a link, and with a long image counted.
fn show_body(body: &str) -> String {
    let mut shown = show_text(body.as_bytes());
    if let Some(at) = shown.find(LINK) {
        let id = at + LINK.len()..at + LINK.len() + 32;
        let is_id = shown
            .get(id.clone())
            .is_some_and(|id| id.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert!(is_id, "no public id in {shown}");
        shown.replace_range(id, PUBLIC_ID);
    }
    shown
}

/// The request; only its body where the head is the usual one.
fn show_request(request: &[u8]) -> String {
    let end = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = request.split_at(end);
    let mut head = std::str::from_utf8(head).unwrap().replace("\r\n", "\n");
    let mut text = show_text(body);
    if body.starts_with(GZIP) {
        // How well it is packed is not ours to pin.
        text = "<gzip>".to_owned();
        head = head.replace(&body.len().to_string(), "<length>");
    }
    if post(body) == request {
        head.clear();
    }
    (head + &text).trim_end().to_owned()
}

/// Bytes as text: what is no text, or cannot be seen, is escaped; long runs are counted.
fn show_text(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c| c != first).unwrap_or(rest.len());
            let run = end / first.len_utf8();
            if run > LONGEST_RUN {
                shown.push_str(&format!("<{run} times {first:?}>"));
            } else {
                (0..run).for_each(|_| show_character(first, &mut shown));
            }
            rest = &rest[end..];
        }
        shown.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    shown
}

fn show_character(c: char, shown: &mut String) {
    let invisible = c.is_control() || ('\u{300}'..='\u{36f}').contains(&c) || c == '\u{feff}';
    if invisible && c != '\n' {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
}

/// The head of a reply, without what is new every time.
fn show_head(head: &str) -> String {
    let lines = head.lines().map(|line| match line.split_once(": ") {
        Some(("date", _)) => "date: <date>".to_owned(),
        Some(("x-request-id", id)) if is_ours(id) => "x-request-id: <id>".to_owned(),
        // A block of a minute ends at its own time; the wait of one second is always the same.
        Some(("retry-after", wait)) if wait.parse::<u64>().unwrap() > 1 => "retry-after: <seconds>".to_owned(),
        Some(("etag", etag)) => format!("etag: {}", etag.replacen(public_id(etag), PUBLIC_ID, 1)),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands in an etag of a customer before the number of the customer's state: the beginning of its public id.
pub fn public_id(etag: &str) -> &str {
    let (id, number) = etag.trim_matches('"').split_once('-').unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert!(
        id.len() == 8 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{etag}"
    );
    assert!(number.parse::<u64>().unwrap() > 0, "{etag}");
    id
}

/// Whether an id was made by the gateway: a UUID of version 7.
fn is_ours(id: &str) -> bool {
    let lengths: Vec<_> = id.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && id.as_bytes()[14] == b'7'
}
