//! What is printed of a run: a line for each row, and below it how the reply differs.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::bail;
use http::{
    HeaderMap, StatusCode,
    header::{ALLOW, CACHE_CONTROL, LOCATION, WWW_AUTHENTICATE},
};
use proto::Reason;

use super::rows::{Expected, Row, Says};

/// How many bytes are shown before the first one that differs, and from there on.
const BEFORE: usize = 40;
const FROM: usize = 100;

/// Where a reply differs from what is expected.
pub(crate) struct Difference {
    what: &'static str,
    expected: Vec<u8>,
    got: Vec<u8>,
}

impl Difference {
    pub(crate) fn of(what: &'static str, expected: impl AsRef<[u8]>, got: impl AsRef<[u8]>) -> Self {
        Self {
            what,
            expected: expected.as_ref().to_vec(),
            got: got.as_ref().to_vec(),
        }
    }

    /// There was no reply.
    pub(crate) fn nothing(why: &str) -> Self {
        Self::of("reply", "a reply", why)
    }

    /// The number of the first byte that differs.
    fn at(&self) -> usize {
        let pairs = self.expected.iter().zip(&self.got);
        pairs.take_while(|(expected, got)| expected == got).count()
    }
}

/// What became of a row.
enum Outcome {
    Pass,
    Fail(Vec<Difference>),
    Skip(&'static str),
}

/// What holds of the headers of all replies; each is a line of its own.
const REDIRECT: &str = "no reply redirects";
const CHALLENGE: &str = "no reply has WWW-Authenticate";
const ID: &str = "every reply has X-Request-Id";
const CACHE: &str = "every reply has Cache-Control: no-store";
const REASON: &str = "every error, and no other reply, has its X-Error-Reason";
const METHODS: &str = "every 405 has Allow: POST";
const HEADERS: [&str; 6] = [REDIRECT, CHALLENGE, ID, CACHE, REASON, METHODS];

/// The lines of a run.
pub(crate) struct Report {
    lines: Vec<(Says, String, Outcome)>,
    /// Of what does not hold of the headers, the first row whose reply shows it.
    wrong: BTreeMap<&'static str, (&'static str, Difference)>,
    /// What is never printed, though a deployment may send it back.
    secret: Vec<u8>,
}

impl Report {
    pub(crate) fn new(secret: &str) -> Self {
        Self {
            lines: Vec::new(),
            wrong: BTreeMap::new(),
            secret: secret.as_bytes().to_vec(),
        }
    }

    pub(crate) fn skip(&mut self, rows: &[Row], why: &'static str) {
        for row in rows {
            self.lines.push((row.says, row.name.to_owned(), Outcome::Skip(why)));
        }
    }

    pub(crate) fn add(&mut self, row: &Row, differences: Vec<Difference>) {
        let outcome = match differences.is_empty() {
            true => Outcome::Pass,
            false => Outcome::Fail(differences),
        };
        self.lines.push((row.says, row.name.to_owned(), outcome));
    }

    /// Looks at the headers that every reply has: they are lines of their own, so that one that lacks everywhere does not
    /// hide all else.
    pub(crate) fn headers(&mut self, row: &Row, headers: &HeaderMap, status: StatusCode) {
        let value = |name: http::HeaderName| headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        let mut look = |rule, what, is_right: bool, expected: &str, got: &[u8]| {
            if !is_right {
                let difference = Difference::of(what, expected, got);
                self.wrong.entry(rule).or_insert((row.name, difference));
            }
        };
        let id = value(http::HeaderName::from_static("x-request-id"));
        look(ID, "x-request-id", !id.is_empty(), "a name of the request", id);
        let cache = value(CACHE_CONTROL);
        look(CACHE, "cache-control", cache == b"no-store", "no-store", cache);
        let expected = match row.expected {
            Expected::Error(reason) => Some(reason),
            Expected::Invalid(_) => Some(Reason::InvalidField),
            _ => None,
        };
        let name = expected.map(Reason::name).unwrap_or_default();
        let got = value(http::HeaderName::from_static("x-error-reason"));
        look(REASON, "x-error-reason", got == name.as_bytes(), name, got);
        if expected == Some(Reason::MethodNotAllowed) {
            let allow = value(ALLOW);
            look(METHODS, "allow", allow == b"POST", "POST", allow);
        }
        let location = value(LOCATION);
        let stays = location.is_empty() && !status.is_redirection();
        look(REDIRECT, "location", stays, "", location);
        let challenge = value(WWW_AUTHENTICATE);
        look(CHALLENGE, "www-authenticate", challenge.is_empty(), "", challenge);
    }

    /// Prints everything.
    ///
    /// # Errors
    /// When a row failed.
    pub(crate) fn print(mut self) -> anyhow::Result<()> {
        for rule in HEADERS {
            let (name, outcome) = match self.wrong.remove(rule) {
                None => (rule.to_owned(), Outcome::Pass),
                Some((row, difference)) => (format!("{rule}; not that of: {row}"), Outcome::Fail(vec![difference])),
            };
            self.lines.push((Says::Gateway, name, outcome));
        }

        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        let mut text = String::from("RESULT  SAYS     ROW\n");
        for (says, name, outcome) in &self.lines {
            let says = match says {
                Says::Vendor => "vendor",
                Says::Gateway => "gateway",
            };
            match outcome {
                Outcome::Pass => {
                    passed += 1;
                    writeln!(text, "pass    {says:<8} {name}")?;
                }
                Outcome::Skip(why) => {
                    skipped += 1;
                    writeln!(text, "skip    {says:<8} {name} ({why})")?;
                }
                Outcome::Fail(differences) => {
                    failed += 1;
                    writeln!(text, "FAIL    {says:<8} {name}")?;
                    for difference in differences {
                        self.describe(&mut text, difference)?;
                    }
                }
            }
        }
        say!("{text}\nrows: {passed} pass, {failed} fail, {skipped} skipped")?;
        if failed > 0 {
            bail!(
                "{failed} of {} rows are answered otherwise than documented",
                passed + failed
            );
        }
        Ok(())
    }

    fn describe(&self, text: &mut String, difference: &Difference) -> std::fmt::Result {
        let at = difference.at();
        writeln!(text, "          {}: differs from byte {at} on", difference.what)?;
        for (label, bytes) in [("expected", &difference.expected), ("got", &difference.got)] {
            writeln!(text, "            {label:<8}  {}", self.shown(bytes, at))?;
        }
        Ok(())
    }

    /// Bytes around a place, as text in one line: what cannot be seen is escaped.
    fn shown(&self, bytes: &[u8], at: usize) -> String {
        let start = at.min(bytes.len()).saturating_sub(BEFORE);
        let end = at.saturating_add(FROM).min(bytes.len());
        let mut shown = String::new();
        if start > 0 {
            shown.push('…');
        }
        let part = self.masked(bytes.get(start..end).unwrap_or_default());
        for chunk in part.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c.is_control() {
                    true => shown.extend(c.escape_default()),
                    false => shown.push(c),
                }
            }
            for byte in chunk.invalid() {
                shown.push_str(&format!("\\x{byte:02x}"));
            }
        }
        if end < bytes.len() {
            shown.push('…');
        }
        match bytes.is_empty() {
            true => "(nothing)".to_owned(),
            false => shown,
        }
    }

    /// Bytes without the password, or what is seen of it.
    fn masked(&self, bytes: &[u8]) -> Vec<u8> {
        let mut masked = bytes.to_vec();
        if self.secret.is_empty() {
            return masked;
        }
        let mut from = 0;
        while let Some(found) = masked
            .get(from..)
            .and_then(|rest| rest.windows(self.secret.len()).position(|part| part == self.secret))
        {
            let at = from + found;
            masked.splice(at..at + self.secret.len(), *b"********");
            from = at + 8;
        }
        masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_where_it_begins_and_without_the_password() {
        let report = Report::new("hunter2");
        let long = "x".repeat(1_000);
        let difference = Difference::of("body", format!("{long}a{long}"), format!("{long}b{long}"));
        assert_eq!(difference.at(), 1_000);
        let shown = report.shown(&difference.got, 1_000);
        assert_eq!(shown, format!("…{}b{}…", "x".repeat(BEFORE), "x".repeat(FROM - 1)));
        assert_eq!(report.shown(b"say hunter2\n\xff\0", 0), "say ********\\n\\xff\\u{0}");
        assert_eq!(report.shown(b"", 0), "(nothing)");
        assert_eq!(report.shown(b"ab", 2), "ab");
    }
}
