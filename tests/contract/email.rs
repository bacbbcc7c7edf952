//! When two email addresses are the same, and which one a reply shows.

use super::{check, posted};

#[test]
fn an_address_is_found_however_it_is_written_and_shown_as_it_was_registered() {
    let customers = "\
email,fn
Test.User+Shop@Veratad.COM,tagged
José@Bücher.example,accents
";
    check(
        "email_identity",
        customers,
        &posted([
            (
                "letter case does not count",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"tEST.uSER+sHOP@vERATAD.com","status":"PASS"}}"#,
            ),
            (
                "white space around it does not count",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":" \t test.user+shop@veratad.com \n"}}"#,
            ),
            (
                "a tag counts",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test.user@veratad.com"}}"#,
            ),
            (
                "a dot counts",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"testuser+shop@veratad.com"}}"#,
            ),
            (
                "accents, composed",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"josé@bücher.example"}}"#,
            ),
            (
                "accents, combined",
                "{\"user\":\"USERNAME\",\"pass\":\"PASSWORD\",\"service\":\"getStatus\",\"target\":{\"email\":\"jose\u{301}@bu\u{308}cher.example\"}}",
            ),
            (
                "accents, escaped, in upper case",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"JOS\u00c9@B\u00dcCHER.EXAMPLE"}}"#,
            ),
            (
                "the domain in ASCII",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"josé@XN--bcher-kva.example","status":"FAIL"}}"#,
            ),
            (
                "an accent counts",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"jose@bücher.example"}}"#,
            ),
            (
                "no domain",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test@"}}"#,
            ),
            (
                "two addresses",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"a@veratad.com,b@veratad.com"}}"#,
            ),
            (
                "a name beside the address",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"John <test@veratad.com>"}}"#,
            ),
        ]),
    );
}

#[test]
fn an_address_is_too_long_beyond_254_characters() {
    let longest = format!("{}@{}.com", "a".repeat(64), label_of(185));
    let too_long = format!("{}@{}.com", "a".repeat(64), label_of(186));
    assert_eq!((longest.len(), too_long.len()), (254, 255));
    let get = |email: &str| {
        format!(r#"{{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{{"email":"{email}"}}}}"#)
    };
    check(
        "email_length",
        &format!("email\n{longest}\n"),
        &posted([("254 characters", &*get(&longest)), ("255 characters", &get(&too_long))]),
    );
}

/// The labels of a domain, `length` characters in all.
fn label_of(length: usize) -> String {
    let mut labels: String = "bcdefghij.".chars().cycle().take(length).collect();
    if labels.ends_with('.') {
        labels.replace_range(length - 2.., "ab");
    }
    labels
}
