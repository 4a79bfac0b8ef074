//! What modules measure about themselves: checked, and added to the board, where `/metrics` finds it.
//!
//! The names are those of Prometheus. A counter `placed` of a module is `aegis_module_placed_total`, a histogram `size`
//! is `aegis_module_size`, and each has the label `module`. What does not fit is not taken, and counted.

use std::sync::atomic::Ordering;

use aegis_ipc::board::{Board, ModuleCounter, SERIES_KEY_BYTES_MAX, SeriesKind};
use aegis_wasm::{Measure, Measurement};

/// Between the parts of a key: the name, then names of labels and their values in turn.
pub(crate) const SEPARATOR: u8 = 0;
/// Most labels of one measurement.
const LABELS_MAX: usize = 8;
/// Longest name, of a measurement or a label, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Labels that the host sets itself.
const LABELS_OF_THE_HOST: [&str; 2] = ["module", "le"];
/// What the parts of a histogram, and counters, end in: a histogram with such a name could be mistaken for one.
const ENDINGS: [&str; 5] = ["_total", "_bucket", "_sum", "_count", "_created"];

/// Why a measurement is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("its name is not 1 to {NAME_BYTES_MAX} letters, digits and '_', with a letter in front")]
    Name,
    #[error("a histogram has a name that ends in _total, _bucket, _sum, _count or _created")]
    Ending,
    #[error("it has more than {LABELS_MAX} labels")]
    Labels,
    #[error("a label has a name that is not 1 to {NAME_BYTES_MAX} letters, digits and '_', or is the host's")]
    Label,
    #[error("it has the same label twice")]
    LabelTwice,
    #[error("a label has a value with a zero byte")]
    LabelValue,
    #[error("name and labels have more than {SERIES_KEY_BYTES_MAX} bytes together")]
    Long,
    #[error("it is not a number, or less than 0 for a counter")]
    Value,
    #[error("the module measures too many series already")]
    TooMany,
}

/// Takes a measurement of a module, or counts that it was not taken.
pub(super) fn take(board: Board, module: &str, measurement: &Measurement<'_>) {
    let Some(entry) = board.module(module) else { return };
    let taken = series_of(measurement).and_then(|(kind, key)| {
        let series = entry.series(kind, &key).ok_or(Unfit::TooMany)?;
        series.take(measurement.value);
        Ok(())
    });
    if let Err(unfit) = taken {
        let refused = entry.counter(ModuleCounter::MeasurementsRefused).fetch_add(1, Ordering::Relaxed);
        if refused == 0 {
            let name: String = measurement.name.chars().take(NAME_BYTES_MAX).collect();
            tracing::warn!(target: "aegis::module", module, name, "a measurement was not taken: {unfit}; further ones are only counted");
        }
    }
}

/// The series that a measurement belongs to.
fn series_of(measurement: &Measurement<'_>) -> Result<(SeriesKind, Vec<u8>), Unfit> {
    let Measurement { measure, name, value, labels } = *measurement;
    let (kind, name) = match measure {
        Measure::Add => (SeriesKind::Counter, name.strip_suffix("_total").unwrap_or(name)),
        Measure::Observe => (SeriesKind::Histogram, name),
    };
    if !value.is_finite() || (kind == SeriesKind::Counter && value < 0.0) {
        return Err(Unfit::Value);
    }
    if !is_name(name) || name.starts_with('_') {
        return Err(Unfit::Name);
    }
    if kind == SeriesKind::Histogram && ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return Err(Unfit::Ending);
    }
    if labels.len() > LABELS_MAX {
        return Err(Unfit::Labels);
    }
    let mut labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    labels.sort_unstable();
    if labels.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err(Unfit::LabelTwice);
    }
    let mut key = name.as_bytes().to_vec();
    for (label, value) in labels {
        if !is_name(label) || label.starts_with("__") || LABELS_OF_THE_HOST.contains(&label) {
            return Err(Unfit::Label);
        }
        if value.as_bytes().contains(&SEPARATOR) {
            return Err(Unfit::LabelValue);
        }
        if key.len() + label.len() + value.len() + 2 > SERIES_KEY_BYTES_MAX {
            return Err(Unfit::Long);
        }
        for part in [label, value] {
            key.push(SEPARATOR);
            key.extend_from_slice(part.as_bytes());
        }
    }
    Ok((kind, key))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(measure: Measure, name: &str, value: f64, labels: &[(&str, &str)]) -> Result<String, Unfit> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels: Vec<(String, String)> = labels.iter().map(owned).collect();
        let measurement = Measurement { measure, name, value, labels: &labels };
        series_of(&measurement).map(|(_, key)| String::from_utf8(key).unwrap().replace('\0', "|"))
    }

    #[test]
    fn labels_make_a_series_in_whatever_order_they_come() {
        let add = |labels| key(Measure::Add, "placed_total", 1.0, labels);
        assert_eq!(add(&[("b", "2"), ("a", "x y")]), Ok("placed|a|x y|b|2".to_owned()));
        assert_eq!(add(&[("a", "x y"), ("b", "2")]), add(&[("b", "2"), ("a", "x y")]));
    }

    #[test]
    fn what_is_no_measurement_is_not_taken() {
        let add = |name, value| key(Measure::Add, name, value, &[]);
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "_x", "9x", "a-b", "a.b", "ä", "a b", &long] {
            assert_eq!(add(name, 1.0), Err(Unfit::Name), "{name}");
        }
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(add("x", value), Err(Unfit::Value), "{value}");
        }
        assert!(key(Measure::Observe, "x", -1.0, &[]).is_ok(), "a histogram may hold what is below zero");
        for ending in ENDINGS {
            assert_eq!(key(Measure::Observe, &format!("x{ending}"), 1.0, &[]), Err(Unfit::Ending));
        }
        let labelled = |labels: &[(&str, &str)]| key(Measure::Add, "x", 1.0, labels);
        for label in ["module", "le", "__name__", "", "a-b", "1"] {
            assert_eq!(labelled(&[(label, "v")]), Err(Unfit::Label), "{label}");
        }
        assert_eq!(labelled(&[("a", "1"), ("a", "2")]), Err(Unfit::LabelTwice));
        assert_eq!(labelled(&[("a", "x\0b")]), Err(Unfit::LabelValue));
        assert_eq!(labelled(&[("a", &"v".repeat(SERIES_KEY_BYTES_MAX))]), Err(Unfit::Long));
        let many: Vec<String> = (0..=LABELS_MAX).map(|number| format!("l{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|label| (label.as_str(), "v")).collect();
        assert_eq!(labelled(&many), Err(Unfit::Labels));
    }
}
