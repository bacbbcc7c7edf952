//! Addresses: the key of a key is the key, and whoever writes the same address in another way gets the same key.

use store::Email;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// What addresses are made of.
pub(crate) const WORDS: &[&str] = &[
    "@",
    ".",
    "..",
    "example.com",
    "@example.com",
    "xn--",
    "xn--bcher-kva",
    "bücher",
    "e\u{301}",
    "é",
    "ß",
    "ẞ",
    "İ",
    "ı",
    "ς",
    "Σ",
    "K",
    "\u{200d}",
    "\u{ad}",
    "\"",
    "\\",
    "(",
    ")",
    "<",
    ">",
    " ",
    "\t",
    "+",
    "'",
    "。",
    "１",
    "\u{0}",
    "\u{feff}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(email) = Email::parse(text) else { return };
    assert_eq!(email.as_str(), text.trim(), "the address is kept as it was given");
    let key = email.key().as_str();
    assert!(key.chars().count() <= 4 * Email::MAX_CHARACTERS, "a key has an end");
    assert!(is_nfc(key), "a key is in NFC");
    assert!(
        !key.chars().any(|c| c.is_ascii_uppercase() || c.is_control()),
        "{key:?}"
    );
    let (local, domain) = key.rsplit_once('@').expect("a key has a domain");
    assert!(
        !local.is_empty() && domain.is_ascii() && domain.contains('.'),
        "{key:?}"
    );

    let flipped: String = text.chars().map(flip).collect();
    let unicode = format!("{local}@{}", idna::domain_to_unicode(domain).0);
    for (how, other) in [
        ("a key", key.to_owned()),
        ("the other case", flipped),
        ("decomposed", text.nfd().collect()),
        ("composed", text.nfc().collect()),
        ("with white space", format!(" \t{text}\u{a0} ")),
        ("a domain in Unicode", unicode),
    ] {
        // An address is too long by its characters, of which there are more or fewer then.
        if other.trim().chars().count() > Email::MAX_CHARACTERS {
            continue;
        }
        let again = Email::parse(&other).unwrap_or_else(|_| panic!("{how}: {other:?} of {text:?} is refused"));
        assert_eq!(again.key().as_str(), key, "{how}: {other:?} of {text:?}");
    }
}

fn flip(c: char) -> char {
    if c.is_ascii_lowercase() {
        c.to_ascii_uppercase()
    } else {
        c.to_ascii_lowercase()
    }
}
