//! RFC 3339 date-times: written for the host's own fields, checked for those of clients.

use jiff::{Timestamp, civil::Date, fmt::temporal::DateTimePrinter};

/// Milliseconds since 1970 as UTC text with three decimals. Times beyond the year 9999 are shown as the last
/// one.
#[must_use]
pub fn format(time_ms: u64) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    let time = i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    PRINTER.timestamp_to_string(&time.unwrap_or(Timestamp::MAX))
}

/// Milliseconds since 1970 of a text that [`format`] wrote.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_millisecond()).ok()
}

/// Most decimals of a second: more cannot be compared.
const DECIMALS_MAX: usize = 9;

/// Whether a text is a `date-time` of RFC 3339 section 5.6, with a calendar day that exists and a second that can be compared
/// with others.
pub(crate) fn is_valid(text: &str) -> bool {
    read(text.as_bytes()).is_some()
}

fn read(text: &[u8]) -> Option<()> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.split_at_checked(9)?;
    let fixed = date[4] == b'-'
        && date[7] == b'-'
        && matches!(time[0], b'T' | b't')
        && time[3] == b':'
        && time[6] == b':';
    let day = (digits(&date[..4])?, digits(&date[5..7])?, digits(&date[8..])?);
    let (year, month, day) =
        (i16::try_from(day.0).ok()?, i8::try_from(day.1).ok()?, i8::try_from(day.2).ok()?);
    // The second 60 is a leap second.
    let exists = Date::new(year, month, day).is_ok()
        && digits(&time[1..3])? <= 23
        && digits(&time[4..6])? <= 59
        && digits(&time[7..])? <= 60;
    let zone = match rest.strip_prefix(b".") {
        None => rest,
        Some(rest) => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == 0 || length > DECIMALS_MAX {
                return None;
            }
            &rest[length..]
        }
    };
    let zoned = match zone {
        b"Z" | b"z" => true,
        [b'+' | b'-', hours @ .., b':', minute_tens, minute_ones] if hours.len() == 2 => {
            digits(hours)? <= 23 && digits(&[*minute_tens, *minute_ones])? <= 59
        }
        _ => false,
    };
    (fixed && exists && zoned).then_some(())
}

fn digits(text: &[u8]) -> Option<u16> {
    text.iter()
        .try_fold(0, |number: u16, byte| byte.is_ascii_digit().then(|| number * 10 + u16::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{order, spec::FieldKind};

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(format(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format(1_767_225_599_007), "2025-12-31T23:59:59.007Z");
        assert_eq!(format(u64::MAX), "9999-12-30T22:00:00.999Z");
    }

    #[test]
    fn only_rfc_3339_is_a_timestamp() {
        for good in [
            "2026-01-31T09:30:00Z",
            "2026-01-31t09:30:00.123456789z",
            "9999-12-31T23:59:59.999999999Z",
            "2024-02-29T23:59:60+05:30",
            "0000-01-01T00:00:00-00:00",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "",
            "2026-01-31",
            "2026-01-31T09:30Z",
            "2026-01-31T09:30:00",
            "2026-01-31 09:30:00Z",
            "2026-02-29T09:30:00Z",
            "2026-13-01T09:30:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T09:30:00.Z",
            "2026-01-31T09:30:00.1234567890Z",
            "2026-01-31T09:30:00+5:30",
            "2026-01-31T09:30:00+0530",
            "2026-01-31T09:30:00+24:00",
            "2026-01-31T09:30:00Z[UTC]",
            "+026-01-31T09:30:00Z",
            "2026-01-3éT09:30:00Z",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_valid_sorts_by_time() {
        let bytes = |text: &str| {
            assert!(is_valid(text), "{text}");
            let mut bytes = Vec::new();
            order::write_text(FieldKind::Timestamp, text, &mut bytes);
            bytes
        };
        // The last day of the calendar may be no point in time any more, and comes last all the same.
        let sorted = [
            "0000-01-01T00:00:00-00:00",
            "2024-02-29T23:59:60+05:30",
            "2026-01-31T09:30:00.12345678+00:00",
            "2026-01-31t09:30:00.123456789z",
            "2026-01-31T10:30:00.2+00:30",
            "9999-12-31T23:59:59Z",
        ];
        assert!(sorted.map(bytes).is_sorted());
    }

    proptest! {
        #[test]
        fn what_is_written_is_valid_and_sorts_as_text(left in 0..4_102_444_800_000_u64, right in 0..4_102_444_800_000_u64) {
            prop_assert!(is_valid(&format(left)));
            prop_assert_eq!(format(left).cmp(&format(right)), left.cmp(&right));
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in ".{0,40}") {
            is_valid(&text);
        }
    }
}
