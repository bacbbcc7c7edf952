//! API tokens: made, read, and hashed.
//!
//! `dcams_` + 16 hex digits that say which token it is + `_` + 64 hex digits that are the secret: 256 random bits. So a store
//! finds it by a public part, and whoever searches files for secrets finds it by its form.
//!
//! What is stored is a plain BLAKE3 hash. argon2 is slow so that a guess costs something, since passwords can be guessed;
//! 256 random bits cannot, at any speed.

use std::fmt;

use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

const PREFIX: &str = "dcams_";
const ID: usize = 16;
const SECRET: usize = 64;

/// A token, as it is presented.
#[derive(Clone)]
pub struct Token(SecretString);

impl Token {
    /// Makes a token.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let (id, secret): (u64, [u64; 4]) = (random.random(), random.random());
        let [a, b, c, d] = secret;
        // Made in one piece: what grows leaves parts of itself behind in memory.
        Self(SecretString::from(format!(
            "{PREFIX}{id:016x}_{a:016x}{b:016x}{c:016x}{d:016x}"
        )))
    }

    /// Reads what may be a token, if it has the form of one.
    pub fn read(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        (is_hex(id, ID) && is_hex(secret, SECRET)).then(|| Self(SecretString::from(text)))
    }

    /// What the token is called. It is no secret.
    pub fn id(&self) -> &str {
        &self.0.expose_secret()[PREFIX.len()..PREFIX.len() + ID]
    }

    /// What is stored of it.
    pub fn hash(&self) -> [u8; blake3::OUT_LEN] {
        blake3::hash(self.0.expose_secret().as_bytes()).into()
    }

    /// The whole of it: shown once, to who made it.
    pub fn reveal(&self) -> &SecretString {
        &self.0
    }
}

/// A token is never printed by accident.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_form_and_are_all_different() {
        let made: std::collections::HashSet<String> = (0..1_000)
            .map(|_| Token::generate().reveal().expose_secret().to_owned())
            .collect();
        assert_eq!(made.len(), 1_000);
        for text in made {
            assert_eq!(text.len(), 87);
            let token = Token::read(&text).unwrap();
            assert_eq!(token.id(), &text[6..22]);
            assert_eq!(token.hash(), *blake3::hash(text.as_bytes()).as_bytes());
        }
    }

    #[test]
    fn what_has_another_form_is_no_token() {
        let good = Token::generate().reveal().expose_secret().to_owned();
        for bad in [
            String::new(),
            "dcams_".to_owned(),
            good.to_uppercase(),
            good.replacen('_', "-", 1),
            format!("{good}0"),
            format!(" {good}"),
            good[..86].to_owned(),
            good.replace('_', ""),
            format!("{}é", &good[..85]),
            format!("{}_{}", &good[..20], &good[21..]),
        ] {
            assert!(Token::read(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::generate();
        let secret = &token.reveal().expose_secret()[23..];
        assert!(!format!("{token:?}").contains(secret));
    }
}
