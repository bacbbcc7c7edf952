//! Sizes and times in words.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A number of bytes, in the largest unit of which it is a whole number.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 bytes".to_owned(),
        _ if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}

/// A time in seconds.
pub(super) fn time(time: Duration) -> String {
    if time == Duration::from_secs(1) {
        return "1 second".to_owned();
    }
    format!("{} seconds", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_as_people_say_them() {
        for (bytes, words) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (64 * KIB, "64 KiB"),
            (28 * MIB, "28 MiB"),
            (MIB + KIB, "1025 KiB"),
            (MIB + 1, "1048577 bytes"),
        ] {
            assert_eq!(size(bytes), words);
        }
        for (milliseconds, words) in [(1_000, "1 second"), (10_000, "10 seconds"), (1_500, "1.5 seconds")] {
            assert_eq!(time(Duration::from_millis(milliseconds)), words);
        }
    }
}
