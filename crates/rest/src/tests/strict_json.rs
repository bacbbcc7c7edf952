//! What is JSON here and what is not; and that no body whatever makes the parser fall over.

use proptest::{collection, prelude::*};
use proto::Reason;
use serde_json::{Map, Value};

use crate::{legacy::LegacyRequest, tolerances::Needed};

fn parse(body: &[u8]) -> Result<LegacyRequest<'_>, Reason> {
    LegacyRequest::parse(body, &Needed::default())
}

fn is_accepted(body: &[u8]) -> bool {
    parse(body).is_ok()
}

/// An object of `levels` levels, made of objects and arrays by turns.
fn nested(levels: usize) -> String {
    let (mut open, mut close) = (String::new(), String::new());
    for level in 0..levels {
        let (before, after) = match level % 2 {
            0 => (r#"{"a":"#, '}'),
            _ => ("[", ']'),
        };
        open.push_str(before);
        close.insert(0, after);
    }
    format!("{open}1{close}")
}

#[test]
fn bodies_that_are_not_one_strict_object_are_refused() {
    let refused: &[&[u8]] = &[
        // Not an object.
        b"",
        b" \n",
        b"null",
        b"7",
        b"\"text\"",
        b"[]",
        br#"["u","p","s"]"#,
        br#"[{"user":"u"}]"#,
        // Not JSON.
        b"{",
        b"{]",
        b"{,}",
        br#"{"a"}"#,
        br#"{"a":}"#,
        br#"{"a":1,}"#,
        br#"{"a":1 "b":2}"#,
        br#"{a:1}"#,
        br#"{'a':1}"#,
        br#"{1:1}"#,
        br#"{"a":01}"#,
        br#"{"a":+1}"#,
        br#"{"a":.5}"#,
        br#"{"a":NaN}"#,
        br#"{"a":undefined}"#,
        br#"{"a":"\x"}"#,
        br#"{"a":"\u12"}"#,
        b"{\"a\":\"line\nbreak\"}",
        b"{/*comment*/}",
        b"user=u&pass=p&service=getStatus",
        // Something after the end, or before the beginning.
        b"{}{}",
        b"{}x",
        b"{},",
        b"{}\0",
        b"\0{}",
        b"{\0}",
        b"{\"a\":\"\0\"}",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{}\xef\xbb\xbf",
        b"{\xef\xbb\xbf}",
        // The same key twice, at every level, escaped or not, known or not, in arrays, in what is ignored.
        br#"{"user":"u","user":"u"}"#,
        br#"{"user":"u","us\u0065r":"u"}"#,
        br#"{"user":null,"user":"u"}"#,
        br#"{"target":{},"target":{}}"#,
        br#"{"target":{"email":"a","status":"b","email":"a"}}"#,
        br#"{"target":{"x":1,"x":1}}"#,
        br#"{"user":{"x":1,"x":1}}"#,
        br#"{"x":1,"y":2,"x":3}"#,
        br#"{"a":1,"\u0061":1}"#,
        br#"{"x":{"a":1,"\u0061":1}}"#,
        br#"{"x":{"y":{"a":1,"b":2,"a":1}}}"#,
        br#"{"x":[1,{"a":1,"a":1}]}"#,
        br#"{"target":[{"a":1,"a":1}]}"#,
        br#"{"":1,"":1}"#,
        // Not UTF-8: in a key, in a known field, in an unknown one; overlong, surrogates, cut off; UTF-16.
        b"{\"\xff\":1}",
        b"{\"user\":\"\xff\"}",
        b"{\"x\":{\"y\":[\"\xff\"]}}",
        b"{\"x\":\"\xc0\x80\"}",
        b"{\"x\":\"\xed\xa0\x80\"}",
        b"{\"x\":\"\xf0\x9f\x98\"}",
        b"{}\xff",
        b"\xff\xfe{\0}\0",
        // Half of a surrogate pair, also where it is ignored.
        br#"{"user":"\ud800"}"#,
        br#"{"x":"\ud800"}"#,
        br#"{"x":"\udc00"}"#,
        br#"{"x":"\ud800\ud800"}"#,
        br#"{"x":"\ud800A"}"#,
        br#"{"\ud800":1}"#,
        // All of that in the places of numbers and of images, which are read in another way.
        br#"{"reference":01}"#,
        br#"{"reference":-}"#,
        br#"{"reference":1.}"#,
        br#"{"reference":+1}"#,
        br#"{"reference":1,"reference":1}"#,
        br#"{"reference":{"a":1,"a":1}}"#,
        br#"{"reference":"\ud800"}"#,
        b"{\"reference\":\"line\nbreak\"}",
        br#"{"target":{"zip":[{"a":1,"\u0061":1}]}}"#,
        br#"{"target":{"documents":{"front":"","front":""}}}"#,
        br#"{"target":{"documents":{"front":"\ud800"}}}"#,
        br#"{"target":{"documents":{"front":"\uDC00"}}}"#,
        br#"{"target":{"documents":{"front":"\u12"}}}"#,
        br#"{"target":{"documents":{"front":"\x"}}}"#,
        br#"{"target":{"documents":{"front":"}}}"#,
        br#"{"target":{"documents":{"front":{"a":1,"a":1}}}}"#,
        b"{\"target\":{\"documents\":{\"front\":\"line\nbreak\"}}}",
    ];
    for body in refused {
        assert!(
            parse(body).is_err_and(|reason| reason == Reason::MalformedBody),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

#[test]
fn bodies_that_only_look_odd_are_accepted() {
    let accepted: &[&[u8]] = &[
        b"{}",
        b" \t\r\n{ } \t\r\n",
        b"\xef\xbb\xbf{}",
        b"\n\xef\xbb\xbf\n{}",
        br#"{"x":"\u0000"}"#,
        br#"{"x":"\ud83d\ude00"}"#,
        b"{\"x\":\"\xf0\x9f\x98\x80\xef\xbb\xbf\"}",
        br#"{"x":123456789012345678901234567890,"y":-0,"z":1e-9}"#,
        // The same key again, but in another object; or a key that only looks the same.
        br#"{"email":"a","target":{"email":"a"}}"#,
        br#"{"x":[{"a":1},{"a":1}]}"#,
        br#"{"user":"u","User":"u","user ":"u"}"#,
    ];
    for body in accepted {
        assert!(is_accepted(body), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn thirty_two_levels_are_accepted_and_thirty_three_are_not() {
    assert!(is_accepted(nested(32).as_bytes()));
    assert!(!is_accepted(nested(33).as_bytes()));
    assert!(!is_accepted(nested(20_000).as_bytes()));
    // Also below a key that is known, whatever it expects.
    for key in ["user", "target", "reference"] {
        let around = |levels| format!(r#"{{"{key}":{}}}"#, nested(levels));
        assert!(is_accepted(around(31).as_bytes()));
        assert!(!is_accepted(around(32).as_bytes()));
    }
}

#[test]
fn the_keys_of_an_object_have_an_end_that_no_small_body_reaches() {
    // The most keys that fit into 64 KiB: none has a name of its own, so that they are refused, but not for their number.
    let object = |keys: usize| format!("{{{}\"x\":0}}", "\"\":0,".repeat(keys));
    let refusal = |keys| {
        let error = crate::json::parse::<()>(&object(keys)).err();
        error.map(|error| error.to_string()).unwrap_or_default()
    };
    let most = (64 * 1024 - object(0).len()) / 5;
    assert!(refusal(most).contains("a key stands twice"));
    assert!(refusal(64 * 1024).contains("too many keys"));
    let long = |length: usize| format!(r#"{{"{}":0}}"#, "k".repeat(length));
    assert!(is_accepted(long(64 * 1024 - 6).as_bytes()));
    assert!(!is_accepted(long(64 * 1024).as_bytes()));
}

/// Any JSON, as deep as an unknown key of the root may hold.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(30, 64, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(body in collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&body);
    }

    #[test]
    fn no_text_that_is_nearly_json_makes_the_parser_panic(body in r#"[{}\[\]",:\\u0-9a-fe\-. \x00-\x02]{0,200}"#) {
        let _ = parse(body.as_bytes());
    }

    #[test]
    fn unknown_keys_change_nothing(unknown in collection::btree_map("[A-Z]{1,8}", any_json(), 0..8), value in any_json()) {
        let sample = Map::from_iter([
            ("user".to_owned(), Value::from("u")),
            ("pass".to_owned(), Value::from("p")),
            ("service".to_owned(), Value::from("getStatus")),
        ]);
        let with = |extra: Map<String, Value>| {
            let mut body = sample.clone();
            body.extend(extra);
            Value::Object(body).to_string()
        };
        let target = Map::from_iter([("email".to_owned(), Value::from("a@b.c")), ("unknown".to_owned(), value)]);
        let mut extra = Map::from_iter(unknown);
        extra.insert("target".to_owned(), Value::Object(target));

        let body = with(extra);
        let needed = Needed::default();
        let request = parse(body.as_bytes()).ok();
        let request = request.as_ref();
        prop_assert_eq!(request.map(LegacyRequest::service), Some("getStatus"));
        prop_assert_eq!(
            request.and_then(|request| request.credentials().ok()),
            Some(http::HeaderValue::from_static("Basic dTpw"))
        );
        let inputs = request.and_then(|request| request.inputs(&needed).ok());
        let email = inputs.as_ref().and_then(|inputs| inputs.email().ok());
        prop_assert_eq!(email.and_then(|email| email.trimmed()), Some("a@b.c"));
    }
}
