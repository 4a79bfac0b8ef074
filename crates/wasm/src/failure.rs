//! What went wrong inside a component, in one line for people.

use wasmtime::{Error, WasmBacktrace};

/// Frames that are told: those next to the failure.
const FRAMES_MAX: usize = 8;
/// What a backtrace says of itself among the causes.
const BACKTRACE: &str = "error while executing at wasm backtrace";

/// What the engine says of more than may cross at once; the error has no type that is known outside.
const TOO_MUCH: &str = "fuel allocated for hostcalls";
/// What is told instead.
const TOLD_TOO_MUCH: &str = "it hands over more bytes at once than it may";

/// The causes, from the outermost, and then where it happened, from the innermost.
pub(crate) fn told(error: &Error) -> String {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| match cause.to_string() {
            cause if cause.contains(TOO_MUCH) => TOLD_TOO_MUCH.to_owned(),
            cause => cause,
        })
        .filter(|cause| !cause.starts_with(BACKTRACE))
        .collect();
    let mut told = causes.join(": ");
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return told };
    for (number, frame) in backtrace.frames().iter().take(FRAMES_MAX).enumerate() {
        told.push_str(if number == 0 { "; in " } else { " < " });
        let symbol = frame.symbols().first();
        match symbol.and_then(|symbol| symbol.name()).or(frame.func_name()) {
            Some(name) => told.push_str(name),
            None => told.push_str(&format!("function {}", frame.func_index())),
        }
        match symbol.and_then(|symbol| Some((symbol.file()?, symbol.line()?))) {
            Some((file, line)) => told.push_str(&format!(" ({file}:{line})")),
            None => {
                let offset = frame.module_offset().unwrap_or_default();
                told.push_str(&format!(" (0x{offset:x})"));
            }
        }
    }
    told
}
