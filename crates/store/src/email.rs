//! The one place that decides what an email address is, and when two of them are the same.

use std::fmt;

use email_address::{EmailAddress, Options};
use unicode_normalization::UnicodeNormalization;

/// An email address as it was given, white space around it removed. It is valid.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    given: String,
    key: EmailKey,
}

/// What makes an email address the same as another: Unicode NFC, lower case, the domain in ASCII. Plus tags and dots
/// count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmailKey(String);

/// The text is no email address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the email address is invalid")]
pub struct InvalidEmail;

impl Email {
    /// The most characters that an address may have; RFC 5321 leaves room for no more between the angle brackets.
    pub const MAX_CHARACTERS: usize = 254;

    /// Reads an address. It needs a domain with a dot; a display name or an address literal is refused.
    ///
    /// # Errors
    /// [`InvalidEmail`] when the text is no such address.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let given = text.trim();
        if given.chars().count() > Self::MAX_CHARACTERS || given.chars().any(char::is_control) {
            return Err(InvalidEmail);
        }
        Ok(Self {
            key: EmailKey::of(given)?,
            given: given.to_owned(),
        })
    }

    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// What the address is found by.
    pub fn key(&self) -> &EmailKey {
        &self.key
    }
}

impl EmailKey {
    fn of(given: &str) -> Result<Self, InvalidEmail> {
        let lower = if given.is_ascii() {
            given.to_ascii_lowercase()
        } else {
            // Lower case can undo NFC, so that comes last too: the key of a key is the key.
            given.nfc().collect::<String>().to_lowercase().nfc().collect()
        };
        let (local, domain) = lower.rsplit_once('@').ok_or(InvalidEmail)?;
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| InvalidEmail)?;
        let key = format!("{local}@{domain}");
        let options = Options::default()
            .with_required_tld()
            .without_display_text()
            .without_domain_literal();
        EmailAddress::parse_with_options(&key, options).map_err(|_| InvalidEmail)?;
        Ok(Self(key))
    }

    /// A key that was stored as text.
    pub(crate) fn stored(key: String) -> Self {
        Self(key)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address is personal data: it is never printed by accident.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

/// An address is personal data: it is never printed by accident.
impl fmt::Debug for EmailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_address_has_the_same_key() {
        for (given, key) in [
            ("test@veratad.com", "test@veratad.com"),
            ("  Test@VERATAD.com\t", "test@veratad.com"),
            ("a.b+tag@example.com", "a.b+tag@example.com"),
            ("JOSE\u{301}@example.com", "josé@example.com"),
            ("josé@bücher.example", "josé@xn--bcher-kva.example"),
            ("x@XN--BCHER-KVA.example", "x@xn--bcher-kva.example"),
            ("o'brien@example.ie", "o'brien@example.ie"),
        ] {
            let email = Email::parse(given).unwrap();
            assert_eq!(email.key().as_str(), key, "{given}");
            assert_eq!(email.as_str(), given.trim());
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "@",
            "a@",
            "@b.com",
            "a@b",
            "a b@c.com",
            "a@b..com",
            "a@b.com.",
            "a@-b.com",
            "a@b_c.com",
            "a@@b.com",
            "John <a@b.com>",
            "<a@b.com>",
            "a@[127.0.0.1]",
            "a\u{0}@b.com",
            "a@b.com\nBcc: c@d.com",
            ".a@b.com",
            "a..b@c.com",
            "a@b.com,c@d.com",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail), "{text:?}");
        }
        let long = format!("{}@{}.com", "a".repeat(64), "b.".repeat(100));
        assert_eq!(Email::parse(&long), Err(InvalidEmail));
    }

    #[test]
    fn an_address_is_not_printed() {
        let email = Email::parse("canary@example.com").unwrap();
        assert!(!format!("{email:?} {:?}", email.key()).contains("canary"));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic_and_a_key_is_its_own_key(text in "\\PC{0,40}@\\PC{0,20}\\.[a-z]{2,5}") {
            if let Ok(email) = Email::parse(&text) {
                let again = Email::parse(email.key().as_str()).unwrap();
                prop_assert_eq!(again.key(), email.key());
            }
        }
    }
}
