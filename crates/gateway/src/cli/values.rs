//! What the values of flags may be.

use std::{num::NonZeroUsize, time::Duration};

use store::{Change, Token};

/// A number from 1 to `MOST`: each of what it counts takes memory or a thread.
pub(crate) fn to<const MOST: usize>(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|number: &NonZeroUsize| number.get() <= MOST)
        .ok_or_else(|| format!("a whole number from 1 to {MOST} is needed"))
}

/// 1 KiB, 1 MiB and 1 GiB.
pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
pub(crate) const GIB: usize = 1024 * MIB;

/// A number of bytes from 1 to `MOST`.
pub(crate) fn bytes<const MOST: usize>(text: &str) -> Result<usize, String> {
    let units = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("", 1)];
    units
        .into_iter()
        .find_map(|(unit, size)| text.strip_suffix(unit)?.parse::<usize>().ok()?.checked_mul(size))
        .filter(|bytes| (1..=MOST).contains(bytes))
        .ok_or_else(|| format!("a number of bytes from 1 to {MOST} is needed, such as 1048576 or 1MiB"))
}

/// How long something is kept: at least a second, and at most a century.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    const MOST: u64 = 100 * 365 * 24 * 60 * 60;

    let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
    units
        .into_iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(seconds))
        .filter(|seconds| (1..=MOST).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "a number with s, m, h or d is needed, such as 90d, from 1s to 36500d".to_owned())
}

/// How long something may take: at least a millisecond, and at most a century.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms") {
        Some(number) => (number.parse().ok())
            .filter(|milliseconds| (1..=60_000).contains(milliseconds))
            .map(Duration::from_millis),
        None => age(text).ok(),
    }
    .ok_or_else(|| "a number with ms, s, m, h or d is needed, such as 10s, from 1ms to 36500d".to_owned())
}

/// Why a status is changed.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if !(1..=Change::REASON).contains(&text.chars().count()) || text.contains(char::is_control) {
        return Err(format!(
            "a text of 1 to {} characters without control characters is needed",
            Change::REASON
        ));
    }
    Ok(text.to_owned())
}

/// What a token is for.
pub(crate) fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.chars().count() > Token::LABEL || text.contains(char::is_control) {
        return Err(format!(
            "a text of at most {} characters without control characters is needed",
            Token::LABEL
        ));
    }
    Ok(text.to_owned())
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "a whole number of seconds is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        for (text, size) in [("1", 1), ("2KiB", 2_048), ("10MiB", 10_485_760), ("1GiB", GIB)] {
            assert_eq!(bytes::<GIB>(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "1.5MiB",
            "10MB",
            "MiB",
            "2GiB",
            "99999999999999999999GiB",
            "17179869184GiB",
        ] {
            assert!(bytes::<GIB>(text).is_err(), "{text}");
        }
        for (text, seconds) in [("1s", 1), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for (text, milliseconds) in [
            ("1ms", 1),
            ("250ms", 250),
            ("60000ms", 60_000),
            ("2s", 2_000),
            ("10m", 600_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "ms", "0ms", "60001ms", "-1ms", "1.5s", "0s", "10"] {
            assert!(time(text).is_err(), "{text}");
        }
        for text in [
            "",
            "d",
            "0d",
            "90",
            "-1d",
            "1.5h",
            "1w",
            "40000d",
            "999999999999999999d",
        ] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
