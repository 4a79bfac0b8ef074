//! Log, settings, clock, random numbers, measurements: what every module may use.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::{
    call::milliseconds,
    contract::base::aegis::module::{clock, config, log, metrics, random},
    output::Admission,
    services::{Measure, Measurement},
    state::State,
};

/// Longest message and longest single value of a log line, bytes. What is longer is cut.
const LOG_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Most values of one log line.
const LOG_VALUES_MAX: usize = 32;
/// What a log line takes beside its message and values, bytes: time, level, names of module and request.
const LOG_LINE_BYTES: usize = 128;
/// Most random bytes at once.
const RANDOM_BYTES_MAX: u32 = 64 * 1024;

impl log::Host for State {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        // What nobody reads takes nothing of what the module may log.
        if !is_wanted(level) {
            return Ok(());
        }
        let message = self.secrets.redact(&message);
        let message = cut(&message);
        let fields: Vec<String> = fields
            .iter()
            .take(LOG_VALUES_MAX)
            .map(|(name, value)| (self.secrets.redact(name), self.secrets.redact(value)))
            .map(|(name, value)| format!("{}={:?}", cut(&name), cut(&value)))
            .collect();
        let fields = fields.join(" ");
        let bytes = LOG_LINE_BYTES + message.len() + fields.len();
        let (module, request) = (self.owner.module.as_str(), self.request_id.as_str());
        match self.owner.log_budget.admit(bytes) {
            Admission::Logged { dropped: 0 } => {}
            Admission::Logged { dropped } => {
                tracing::warn!(target: "aegis::module", module, dropped, "log lines beyond the module's budget were dropped");
            }
            Admission::FirstDropped => {
                tracing::warn!(target: "aegis::module", module, "log lines beyond the module's budget are dropped from here on");
                return Ok(());
            }
            Admission::Dropped => return Ok(()),
        }
        match level {
            log::Level::Trace => {
                tracing::trace!(target: "aegis::module", module, request, fields, "{message}")
            }
            log::Level::Debug => {
                tracing::debug!(target: "aegis::module", module, request, fields, "{message}")
            }
            log::Level::Info => tracing::info!(target: "aegis::module", module, request, fields, "{message}"),
            log::Level::Warn => tracing::warn!(target: "aegis::module", module, request, fields, "{message}"),
            log::Level::Error => {
                tracing::error!(target: "aegis::module", module, request, fields, "{message}")
            }
        }
        Ok(())
    }

    fn enabled(&mut self, level: log::Level) -> wasmtime::Result<bool> {
        Ok(is_wanted(level))
    }
}

/// Whether lines of this level go to the log.
fn is_wanted(level: log::Level) -> bool {
    match level {
        log::Level::Trace => tracing::enabled!(target: "aegis::module", tracing::Level::TRACE),
        log::Level::Debug => tracing::enabled!(target: "aegis::module", tracing::Level::DEBUG),
        log::Level::Info => tracing::enabled!(target: "aegis::module", tracing::Level::INFO),
        log::Level::Warn => tracing::enabled!(target: "aegis::module", tracing::Level::WARN),
        log::Level::Error => tracing::enabled!(target: "aegis::module", tracing::Level::ERROR),
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.owner.settings.get(&key).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }

    fn get_json(&mut self, pointer: String) -> wasmtime::Result<Option<String>> {
        Ok(self.owner.settings.pointer(&pointer).map(ToString::to_string))
    }

    /// Settings change with the generation, and an instance belongs to one.
    fn generation(&mut self) -> wasmtime::Result<u64> {
        Ok(self.owner.generation)
    }
}

impl clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn remaining_ms(&mut self) -> wasmtime::Result<u32> {
        Ok(milliseconds(self.budget.remaining()))
    }

    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.budget.signals.is_cancelled())
    }
}

impl random::Host for State {
    fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        if length > RANDOM_BYTES_MAX {
            let message =
                format!("it wanted {length} random bytes at once, at most {RANDOM_BYTES_MAX} are given");
            return Err(wasmtime::Error::msg(message));
        }
        let mut bytes = vec![0; length as usize];
        getrandom::fill(&mut bytes)
            .map_err(|error| wasmtime::Error::msg(format!("drawing random bytes: {error}")))?;
        Ok(bytes)
    }

    fn uuid(&mut self) -> wasmtime::Result<String> {
        Ok(Uuid::now_v7().to_string())
    }
}

impl metrics::Host for State {
    fn add(&mut self, name: String, value: f64, labels: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.measured(Measure::Add, &name, value, &labels);
        Ok(())
    }

    fn observe(&mut self, name: String, value: f64, labels: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.measured(Measure::Observe, &name, value, &labels);
        Ok(())
    }
}

impl State {
    fn measured(&self, measure: Measure, name: &str, value: f64, labels: &[(String, String)]) {
        self.services.measure(&self.owner.module, Measurement { measure, name, value, labels });
    }
}

/// The beginning of a text, at most so long, whole characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOG_TEXT_BYTES_MAX)]
}
