//! Code that promises instead of answering, in the languages in which that is possible: nobody waits for it, so it has
//! failed. `scripts/guests` builds it.

use std::{fs, path::Path, sync::Arc, time::Instant};

use aegis_domain::code::CodeLimits;

use super::{NOTHING, PATIENCE, Worker, command, entity, lines::Log};
use crate::{CallError, Entry, Happening, RefusalCode, Runtime};

/// A worker with the model in this language, whose engine does not tick: all of it is logged on this thread.
pub(super) fn vows(language: &str) -> Worker {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let path = root.join(format!("tests/guests/vow/components/{language}.wasm"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Time for a busy machine and code that was not optimized.
    let limits = CodeLimits { call_ms_max: 20_000, ..CodeLimits::default() };
    Worker::in_runtime(Runtime::ticking_by_hand(1, 1).unwrap(), &bytes, limits, Arc::new(NOTHING))
}

/// Everything that the host asks the code for once, and what its log has then.
pub(super) fn broken(language: &str) -> String {
    let worker = vows(language);
    let text = || "{}".to_owned();
    let happening = Happening {
        id: "VOW-7".to_owned(),
        name: "CREATEVOW".to_owned(),
        source: "VOW".to_owned(),
        time_ms: 1,
        key: None,
        data: text(),
    };
    let entries = [
        Entry::Create { input: text() },
        Entry::Validate { before: None, after: text() },
        Entry::Update { current: entity("{}"), changes: text() },
        Entry::Delete { current: entity("{}") },
        Entry::Load { stored: entity("{}") },
        Entry::Command { name: "keep".to_owned(), target: Some(entity("{}")), arguments: text() },
        Entry::Event(happening),
    ];
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        for entry in entries {
            let name = entry.name();
            assert_failed(&name, worker.call(entry));
        }
        let well = worker.runtime.health(&worker.module, Instant::now() + PATIENCE);
        assert_failed("health", worker.tokio.block_on(well));
        if language == "javascript" {
            assert_failed("a code that nobody knows", worker.call(command("misspell", "{}")));
        }
    });
    log.lines().join("\n")
}

fn assert_failed<T: std::fmt::Debug>(what: &str, called: Result<T, CallError>) {
    match called {
        Err(CallError::Refused(refusal)) => {
            assert_eq!(
                (refusal.code, refusal.message.as_str()),
                (RefusalCode::Internal, "the module has failed"),
                "{what}"
            );
        }
        other => panic!("{what}: found {other:?}, expected that it failed"),
    }
}
