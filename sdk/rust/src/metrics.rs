//! Measurements of this module, on the host's `/metrics`: `metrics::add("placed", 1.0, &[("kind", &kind)])`.

use std::fmt::Display;

use crate::bindings::aegis::module::metrics;

type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

fn pairs(labels: Labels<'_>) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
}

/// Adds to a counter.
pub fn add(name: &str, value: f64, labels: Labels<'_>) {
    metrics::add(name, value, &pairs(labels));
}

/// Has a histogram observe a value.
pub fn observe(name: &str, value: f64, labels: Labels<'_>) {
    metrics::observe(name, value, &pairs(labels));
}
