//! An engine whose commits wait for the test, or fail.

use std::sync::Arc;

use aegis_ipc::data::{Stored, Version};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::{
    engine::{
        Batch, Engine, EngineResult, Head, KeptAge, KeptResponse, LogBudget, LogPage, Recovered, Snapshot,
        UniqueEdit, UniqueKey, memory::MemoryEngine,
    },
    error::EngineError,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Closed,
    Failing,
}

/// Decides what becomes of commits that change documents.
pub(super) struct Gate {
    mode: Mutex<(Mode, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { mode: Mutex::new((Mode::Open, 0)), changed: Condvar::new() })
    }

    fn set(&self, mode: Mode) {
        self.mode.lock().0 = mode;
        self.changed.notify_all();
    }

    /// Commits wait from now on.
    pub(super) fn close(&self) {
        self.set(Mode::Closed);
    }

    /// Commits go through.
    pub(super) fn open(&self) {
        self.set(Mode::Open);
    }

    /// Commits fail, those that wait as well.
    pub(super) fn fail(&self) {
        self.set(Mode::Failing);
    }

    /// Waits until a commit waits.
    pub(super) fn wait_for_commit(&self) {
        let mut mode = self.mode.lock();
        while mode.1 == 0 {
            let timeout = self.changed.wait_for(&mut mode, std::time::Duration::from_secs(60));
            assert!(!timeout.timed_out(), "no commit within a minute");
        }
    }

    fn pass(&self) -> EngineResult<()> {
        let mut mode = self.mode.lock();
        mode.1 += 1;
        self.changed.notify_all();
        while mode.0 == Mode::Closed {
            self.changed.wait(&mut mode);
        }
        mode.1 -= 1;
        match mode.0 {
            Mode::Failing => Err(EngineError::io("syncing", std::io::Error::from_raw_os_error(5))),
            Mode::Open | Mode::Closed => Ok(()),
        }
    }
}

/// An engine in memory behind a gate.
pub(super) struct GatedEngine {
    pub(super) gate: Arc<Gate>,
    pub(super) engine: MemoryEngine,
}

impl Engine for GatedEngine {
    fn last(&self) -> u64 {
        self.engine.last()
    }

    fn log_oldest(&self) -> u64 {
        self.engine.log_oldest()
    }

    fn head(&self, model: &str, id: &str) -> EngineResult<Option<Head>> {
        self.engine.head(model, id)
    }

    fn document(&self, model: &str, id: &str) -> EngineResult<Option<Stored>> {
        self.engine.document(model, id)
    }

    fn version(&self, version: &Version) -> EngineResult<Option<Bytes>> {
        self.engine.version(version)
    }

    fn unique_owner(&self, key: &UniqueKey) -> EngineResult<Option<String>> {
        self.engine.unique_owner(key)
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        self.engine.response(key)
    }

    fn log(&self, after: u64, up_to: u64, budget: LogBudget) -> EngineResult<LogPage> {
        self.engine.log(after, up_to, budget)
    }

    fn snapshot(&self) -> EngineResult<Box<dyn Snapshot>> {
        self.engine.snapshot()
    }

    fn apply(&self, batch: &Batch<'_>) -> EngineResult<()> {
        if !batch.changes.is_empty() {
            self.gate.pass()?;
        }
        self.engine.apply(batch)
    }

    fn unsettled_bytes(&self) -> u64 {
        0
    }

    fn log_rows(&self, before: u64, rows_max: usize) -> EngineResult<Vec<u64>> {
        self.engine.log_rows(before, rows_max)
    }

    fn responses_before(&self, before_ms: u64, rows_max: usize) -> EngineResult<Vec<KeptAge>> {
        self.engine.responses_before(before_ms, rows_max)
    }

    fn index_rows(
        &self,
        number: u32,
        after: Option<&UniqueKey>,
        rows_max: usize,
    ) -> EngineResult<Vec<UniqueEdit>> {
        self.engine.index_rows(number, after, rows_max)
    }

    fn recover(&self) -> EngineResult<Recovered> {
        self.engine.recover()
    }
}
