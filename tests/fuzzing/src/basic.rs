//! The header of a call: whose it is, or nobody's, as RFC 7617 and the limits of the contract have it.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use store::AccountName;
use tonic::metadata::MetadataMap;

/// What headers are made of.
pub(crate) const WORDS: &[&str] = &[
    "Basic ",
    "basic ",
    "BASIC\t",
    "Bearer ",
    "dcams_",
    "=",
    "==",
    "VVNFUk5BTUU6UEFTU1dPUkQ=",
    "Og==",
    "dTpw",
    "OnA=",
    "dTo=",
    " ",
    "\t",
    "_",
    "-",
    "/",
    "+",
    "\u{80}",
];

pub(crate) fn check(data: &[u8]) {
    as_header(data);
    // Whatever can be a user and a password arrives as it was sent.
    if let Ok(text) = str::from_utf8(data)
        && let Some((user, password)) = text.split_once('\n')
    {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let got = user_of(format!("bAsIc {encoded} ").as_bytes());
        let is_one = user.parse::<AccountName>().is_ok() && (1..=proto::MAX_PASSWORD).contains(&password.len());
        // One with a colon comes apart at it, and is another user then.
        if !user.contains(':') {
            assert_eq!(
                got.as_deref(),
                is_one.then_some(user),
                "{user:?} with {} bytes",
                password.len()
            );
        }
    }
}

fn as_header(data: &[u8]) {
    let expected = data
        .split_at_checked(6)
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic "))
        .and_then(|(_, rest)| BASE64_STANDARD.decode(rest.trim_ascii()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| {
            let (user, password) = text.split_once(':')?;
            (!password.is_empty() && password.len() <= proto::MAX_PASSWORD).then(|| user.to_owned())
        })
        .filter(|user| {
            let fits = !user.is_empty() && user.len() <= proto::MAX_USER && user.trim() == user;
            fits && !user.chars().any(char::is_control)
        });
    if HeaderValue::from_bytes(data).is_ok() {
        assert_eq!(user_of(data), expected);
    }
}

/// Whose call it is with that header.
fn user_of(header: &[u8]) -> Option<String> {
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_bytes(header).ok()?);
    let request = tonic::Request::from_parts(MetadataMap::from_headers(headers), tonic::Extensions::new(), ());
    grpc::user(&request).ok()
}
