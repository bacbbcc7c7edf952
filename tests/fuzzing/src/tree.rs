//! JSON read once more, by what the contract says and not as the program does it: what is accepted has to be this, and hold
//! these values.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What bodies are made of.
pub(crate) const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u",
    "\\ud83d\\ude00",
    "\\ud800",
    "\u{feff}",
    "\0",
    "\u{ff}",
    "null",
    "true",
    "-0",
    "1e999",
    "1.0",
    "0000",
    "\"\"",
    "\"user\":\"USERNAME\"",
    "\"pass\":\"PASSWORD\"",
    "\"service\":\"updateStatus\"",
    "\"service\":\"getStatus\"",
    "\"service\":\"createOrUpdateCustomer\"",
    "\"service\":\"getDocumentImages\"",
    "\"target\":",
    "\"email\":\"test@veratad.com\"",
    "\"status\":\"PASS\"",
    "\"reference\":",
    "\"documents\":",
    "\"front\":",
    "\"fn\":",
    "\"dob\":",
    "\"zip\":",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "iVBORw0KGgo=",
    "\n\n",
    "POST ",
    "GET ",
    "/v3/stable/api/storage",
    "if-match: ",
    "idempotency-key: ",
    "x-gzip: 1",
    "content-encoding: gzip",
];

/// The most levels of objects and arrays.
const LEVELS: usize = 32;

/// The most bytes of an object's keys, each with four for what stands around it.
const KEYS: usize = 64 * 1024;

/// A value.
#[derive(Debug)]
pub(crate) enum Tree {
    Null,
    /// A number or a boolean.
    Scalar,
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// What a body is.
pub(crate) enum Verdict {
    /// An object within the contract's rules.
    Good(Tree),
    /// Anything else.
    Bad,
    /// A number beyond what a float can be: where it is only kept as a text it passes, and elsewhere it does not.
    Either,
}

impl Verdict {
    pub(crate) fn of(body: &[u8]) -> Self {
        let Ok(text) = str::from_utf8(body) else {
            return Self::Bad;
        };
        let text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match serde_json::from_str::<Tree>(text) {
            Ok(tree) if matches!(tree, Tree::Object(_)) && tree.is_strict() && tree.levels() <= LEVELS => {
                Self::Good(tree)
            }
            Ok(_) => Self::Bad,
            Err(error) if error.to_string().contains("number out of range") => Self::Either,
            Err(_) => Self::Bad,
        }
    }
}

impl Tree {
    fn is_strict(&self) -> bool {
        match self {
            Self::Null | Self::Scalar | Self::Text(_) => true,
            Self::Array(values) => values.iter().all(Self::is_strict),
            Self::Object(members) => {
                let mut seen = HashSet::new();
                members.iter().map(|(key, _)| key.len() + 4).sum::<usize>() <= KEYS
                    && members.iter().all(|(key, value)| seen.insert(key) && value.is_strict())
            }
        }
    }

    fn levels(&self) -> usize {
        match self {
            Self::Null | Self::Scalar | Self::Text(_) => 0,
            Self::Array(values) => 1 + values.iter().map(Self::levels).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.levels()).max().unwrap_or(0),
        }
    }

    /// What stands under a key of an object; none where nothing does, or `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let (_, value) = members.iter().find(|(name, _)| name == key)?;
        (!matches!(value, Self::Null)).then_some(value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;

        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_unit<E: Error>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = values.next_element()? {
                    all.push(value);
                }
                Ok(Tree::Array(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Tree::Object(all))
            }
        }

        deserializer.deserialize_any(TreeVisitor)
    }
}
