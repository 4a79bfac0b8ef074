//! What is counted per module, and what modules measure about themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use aegis_ipc::board::{Board, ModuleCounter, ModuleEntry, SERIES_BOUNDS, Series, SeriesKind, monotonic_ms};

use super::{head, label, load, sample};
use crate::modules::SEPARATOR;

/// Totals of the host about each module: name, counter, help.
const COUNTERS: &[(&str, ModuleCounter, &str)] = &[
    ("aegis_guest_module_calls_total", ModuleCounter::Calls, "Calls of a module."),
    (
        "aegis_guest_module_refusals_total",
        ModuleCounter::Refusals,
        "Calls of a module that were answered no.",
    ),
    ("aegis_guest_module_traps_total", ModuleCounter::Traps, "Calls of a module that met a defect."),
    ("aegis_guest_module_timeouts_total", ModuleCounter::Timeouts, "Calls of a module that took too long."),
    (
        "aegis_guest_module_failures_total",
        ModuleCounter::Failures,
        "Calls of a module that ended with a defect which it tells of, or with an answer that nobody can use.",
    ),
    (
        "aegis_guest_module_busy_total",
        ModuleCounter::Busy,
        "Calls of a module that found no room in time, or too late.",
    ),
    (
        "aegis_guest_module_microseconds_total",
        ModuleCounter::Microseconds,
        "Microseconds spent in calls of a module, waiting included.",
    ),
    (
        "aegis_guest_module_measurements_refused_total",
        ModuleCounter::MeasurementsRefused,
        "Measurements of a module that were not taken: unfit, or beyond the series that it may have.",
    ),
    (
        "aegis_guest_module_openings_total",
        ModuleCounter::Openings,
        "Times that a worker has stopped calling a module, because it kept failing.",
    ),
    (
        "aegis_guest_module_denials_total",
        ModuleCounter::Denials,
        "Calls of a module that were not made, because it kept failing.",
    ),
];

/// Totals about events, of modules that were told of some.
const EVENTS: &[(&str, ModuleCounter, &str)] = &[
    ("aegis_guest_module_events_total", ModuleCounter::EventsTaken, "Events that a module has taken."),
    (
        "aegis_guest_module_events_repeated_total",
        ModuleCounter::EventsRepeated,
        "Calls about events that were followed by another one about the same event.",
    ),
    (
        "aegis_guest_module_events_given_up_total",
        ModuleCounter::EventsGivenUp,
        "Events that a module did not take; the log tells which.",
    ),
    (
        "aegis_guest_module_event_changes_missed_total",
        ModuleCounter::EventChangesMissed,
        "Changes that the log had forgotten before they could be delivered.",
    ),
];

/// A series of a module, taken apart.
struct Measured {
    /// All labels but `le`, without braces.
    labels: String,
    series: Series,
}

pub(super) fn render(out: &mut String, board: &Board) {
    let mut modules: Vec<_> = board.modules().map(|entry| (entry.name(), entry)).collect();
    if modules.is_empty() {
        return;
    }
    modules.sort_by(|(one, entry), (other, another)| {
        (one, entry.is_on_trial()).cmp(&(other, another.is_on_trial()))
    });
    let tried: BTreeSet<String> =
        modules.iter().filter(|(_, entry)| entry.is_on_trial()).map(|(module, _)| module.clone()).collect();
    totals(out, COUNTERS, &modules, &tried);
    open(out, &modules, &tried);
    // What is tried is told of no events, and measures under the name of its module.
    modules.retain(|(_, entry)| !entry.is_on_trial());
    totals(out, EVENTS, &modules, &BTreeSet::new());
    lag(out, board, &modules);
    let mut families: BTreeMap<(String, SeriesKind), Vec<Measured>> = BTreeMap::new();
    for (module, entry) in &modules {
        for series in entry.all_series() {
            let (name, labels) = taken_apart(module, &series.key());
            families.entry((name, series.kind())).or_default().push(Measured { labels, series });
        }
    }
    for ((name, kind), mut measured) in families {
        measured.sort_by(|one, other| one.labels.cmp(&other.labels));
        match kind {
            SeriesKind::Counter => counter(out, &format!("aegis_module_{name}_total"), &measured),
            SeriesKind::Histogram => histogram(out, &format!("aegis_module_{name}"), &measured),
        }
    }
}

/// Whether a worker does not call it.
fn open(out: &mut String, modules: &[(String, ModuleEntry)], tried: &BTreeSet<String>) {
    const NAME: &str = "aegis_guest_module_open";
    head(out, NAME, "gauge", "1 while a worker does not call a module, because it kept failing.");
    let now_ms = monotonic_ms();
    for (module, entry) in modules {
        sample(out, NAME, &labels(module, entry, tried), u64::from(entry.is_open(now_ms)));
    }
}

/// Totals of the host.
fn totals(
    out: &mut String,
    table: &[(&str, ModuleCounter, &str)],
    modules: &[(String, ModuleEntry)],
    tried: &BTreeSet<String>,
) {
    for (name, counter, help) in table {
        head(out, name, "counter", help);
        for (module, entry) in modules {
            sample(out, name, &labels(module, entry, tried), load(entry.counter(*counter)));
        }
    }
}

/// Where a version is tried, or was, it is told which one a sample is of.
fn labels(module: &str, entry: &ModuleEntry, tried: &BTreeSet<String>) -> String {
    let variant = match (entry.is_on_trial(), tried.contains(module)) {
        (true, _) => ",variant=\"trial\"",
        (false, true) => ",variant=\"current\"",
        (false, false) => "",
    };
    format!("{{module=\"{}\"{variant}}}", label(module))
}

/// How far behind the log the delivery of events is.
fn lag(out: &mut String, board: &Board, modules: &[(String, ModuleEntry)]) {
    const NAME: &str = "aegis_guest_module_event_lag";
    head(out, NAME, "gauge", "Committed changes that are not yet delivered to a module that subscribes.");
    for (module, entry) in modules {
        let position = load(entry.counter(ModuleCounter::EventPosition));
        if position > 0 {
            let labels = format!("{{module=\"{}\"}}", label(module));
            sample(out, NAME, &labels, board.durable().saturating_sub(position));
        }
    }
}

fn counter(out: &mut String, name: &str, measured: &[Measured]) {
    head(out, name, "counter", "Counted by modules.");
    for Measured { labels, series } in measured {
        let _ = writeln!(out, "{name}{{{labels}}} {}", series.sum());
    }
}

fn histogram(out: &mut String, name: &str, measured: &[Measured]) {
    head(out, name, "histogram", "Observed by modules.");
    for Measured { labels, series } in measured {
        let mut cumulative = 0;
        for (index, count) in series.buckets().into_iter().enumerate() {
            cumulative += count;
            let bound = SERIES_BOUNDS.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.sum());
        let _ = writeln!(out, "{name}_count{{{labels}}} {cumulative}");
    }
}

/// The name in a key, and its labels behind that of the module.
fn taken_apart(module: &str, key: &[u8]) -> (String, String) {
    let mut parts = key.split(|byte| *byte == SEPARATOR).map(|part| String::from_utf8_lossy(part));
    let name = parts.next().unwrap_or_default().into_owned();
    let mut labels = format!("module=\"{}\"", label(module));
    while let (Some(label_name), Some(value)) = (parts.next(), parts.next()) {
        let _ = write!(labels, ",{label_name}=\"{}\"", label(&value));
    }
    (name, labels)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn modules_are_told_apart_and_what_they_measure_stands_together() {
        let (board, _memory) = Board::create().unwrap();
        let mut out = String::new();
        render(&mut out, &board);
        assert_eq!(out, "", "without modules nothing is said of them");
        for (module, calls) in [("order", 3), ("a\"b", 1)] {
            let entry = board.module(module).unwrap();
            entry.counter(ModuleCounter::Calls).store(calls, Ordering::Relaxed);
            entry.series(SeriesKind::Counter, b"placed").unwrap().take(1.5);
            entry.series(SeriesKind::Counter, b"placed\0how\0\"by\\hand\"\n\0zone\0").unwrap().take(2.0);
        }
        board.module_on_trial("order").unwrap().counter(ModuleCounter::Calls).store(2, Ordering::Relaxed);
        let size = board.module("order").unwrap().series(SeriesKind::Histogram, b"size").unwrap();
        for value in [0.002, 3.0, 3.0, 1e9] {
            size.take(value);
        }
        render(&mut out, &board);
        insta::assert_snapshot!(out);
    }
}
