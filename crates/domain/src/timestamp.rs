//! RFC 3339 date-times: written for the host's own fields, checked for those of clients.

use std::iter;

use jiff::{
    Timestamp,
    civil::{self, Date},
    fmt::temporal::DateTimePrinter,
};

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
    instant(text).is_some()
}

/// A point in time, of any year from 0 to 9999 wherever it is said: the days of the calendar's ends are beyond what
/// [`Timestamp`] has, in some offsets. Ordered as time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant {
    /// Whole seconds since 1970.
    pub(crate) seconds: i64,
    /// What is beyond them, nanoseconds.
    pub(crate) nanoseconds: u32,
}

impl Instant {
    /// The beginning of a day in UTC.
    pub(crate) fn of_day(day: Date) -> Self {
        Self { seconds: seconds_until(day), nanoseconds: 0 }
    }
}

impl From<Timestamp> for Instant {
    fn from(time: Timestamp) -> Self {
        const NANOSECONDS: i128 = 1_000_000_000;
        let all = time.as_nanosecond();
        let (seconds, rest) = (all.div_euclid(NANOSECONDS), all.rem_euclid(NANOSECONDS));
        Self {
            seconds: i64::try_from(seconds).expect("a timestamp is within 10 000 years of 1970"),
            nanoseconds: u32::try_from(rest).expect("fewer than 10^9"),
        }
    }
}

/// The point in time that a `date-time` of RFC 3339 section 5.6 says, if the text is a valid one.
pub(crate) fn instant(text: &str) -> Option<Instant> {
    read(text.as_bytes())
}

/// Seconds from 1970 to the beginning of a day, in UTC.
fn seconds_until(day: Date) -> i64 {
    day.duration_since(civil::date(1970, 1, 1)).as_secs()
}

fn read(text: &[u8]) -> Option<Instant> {
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
    let date = Date::new(year, month, day).ok()?;
    let (hour, minute, second) = (digits(&time[1..3])?, digits(&time[4..6])?, digits(&time[7..])?);
    // The second 60 is a leap second.
    let exists = hour <= 23 && minute <= 59 && second <= 60;
    let mut nanoseconds = 0;
    let zone = match rest.strip_prefix(b".") {
        None => rest,
        Some(rest) => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == 0 || length > DECIMALS_MAX {
                return None;
            }
            let decimals = rest[..length].iter().chain(iter::repeat_n(&b'0', DECIMALS_MAX - length));
            nanoseconds = decimals.fold(0, |number: u32, digit| number * 10 + u32::from(digit - b'0'));
            &rest[length..]
        }
    };
    let offset = match zone {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', minute_tens, minute_ones] if hours.len() == 2 => {
            let (hours, minutes) = (digits(hours)?, digits(&[*minute_tens, *minute_ones])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    // A leap second counts as the one before it.
    let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second.min(59));
    let seconds = seconds_until(date) + of_day - offset;
    (fixed && exists).then_some(Instant { seconds, nanoseconds })
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
        let sorted = [
            "0000-01-01T00:00:00-00:00",
            "2024-02-29T23:59:60+05:30",
            "2026-01-31T09:30:00.12345678+00:00",
            "2026-01-31t09:30:00.123456789z",
            "2026-01-31T10:30:00.2+00:30",
            "9999-12-30T22:00:01Z",
            "9999-12-31T23:59:59+00:01",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59-23:59",
        ];
        assert!(sorted.map(bytes).is_sorted());
    }

    proptest! {
        #[test]
        fn points_in_time_are_those_of_the_calendar(
            seconds in -62_135_596_800..253_402_200_000_i64,
            nanoseconds in 0..1_000_000_000_i32,
            offset_minutes in -1439..1440_i32,
        ) {
            let time = Timestamp::new(seconds, nanoseconds).unwrap();
            let offset = jiff::tz::Offset::from_seconds(offset_minutes * 60).unwrap();
            let text = time.display_with_offset(offset).to_string();
            // At the ends of the calendar an offset leads out of it.
            prop_assume!(text.len() >= 20 && !text.starts_with(['-', '+']));
            prop_assert_eq!(instant(&text), Some(time.into()));
        }

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
