//! Times and sizes as people write them: `"250ms"`, `"30s"`, `"64KiB"`.

use std::time::Duration;

/// Units of time, milliseconds each, largest first. Days are read but never written: `"24h"` reads better.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size, bytes each, largest first. Powers of 1000 are read (IEC 80000-13 tells them apart) but never written.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

/// Reads a time: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_millis)
}

/// Reads a size: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Writes a time in the largest unit that loses nothing. Anything below a millisecond is cut.
#[must_use]
pub fn format_time(time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    format(milliseconds, &TIMES[1..])
}

/// Writes a size in the largest unit that loses nothing.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let binary = SIZES[..4].iter().chain(&SIZES[8..]).copied().collect::<Vec<_>>();
    format(bytes, &binary)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn format(amount: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().find(|(_, factor)| amount.is_multiple_of(*factor));
    let (name, factor) = exact.copied().unwrap_or(("", 1));
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_reads_back_as_it_was_written(milliseconds in any::<u64>()) {
            let time = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_time(&format_time(time)), Some(time));
        }

        #[test]
        fn a_size_reads_back_as_it_was_written(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn a_round_time_is_written_in_its_own_unit(count in 1_u64..24, unit in 1_usize..5) {
            let (name, factor) = TIMES[unit];
            prop_assert_eq!(format_time(Duration::from_millis(count * factor)), format!("{count}{name}"));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,40}") {
            let _ = parse_time(&text);
            let _ = parse_size(&text);
        }
    }

    #[test]
    fn every_unit_means_what_it_says() {
        let times = ["250ms", "30s", "2m", "24h", "7d", "0s", "1 s"]
            .map(|text| parse_time(text).unwrap().as_millis());
        assert_eq!(times, [250, 30_000, 120_000, 86_400_000, 604_800_000, 0, 1000]);
        let sizes =
            ["1B", "1kB", "1KiB", "1MB", "64 MiB", "2GiB", "1TiB"].map(|text| parse_size(text).unwrap());
        assert_eq!(sizes, [1, 1000, 1024, 1_000_000, 64 << 20, 2 << 30, 1 << 40]);
    }

    #[test]
    fn what_is_not_exactly_a_number_and_a_unit_is_refused() {
        for text in [
            "",
            "s",
            "30",
            "-1s",
            "1.5s",
            "1m30s",
            "30 seconds",
            "１s",
            "99999999999999999999s",
            "20000000000000d",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        for text in ["", "MiB", "64", "64M", "64mib", "-1B", "1.5MiB", "99999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
