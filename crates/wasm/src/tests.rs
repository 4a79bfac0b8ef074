//! Components from their bytes to their answers, in one process: what the compile helper and a worker do.

mod bank;
mod bombs;
mod calls;
mod deadlines;
mod documents;
mod events;
mod javascript;
mod life;
mod limits;
mod lines;
mod overtime;
mod pool;
mod python;
mod refused;
mod roundtrip;
mod routes;
mod rust;
mod services;
mod shared;
mod visits;
mod vows;

use std::{
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::{
    code::{CodeLimits, CommandPlace, Grants},
    trial::Lot,
};
use aegis_guests::Guest;
use rustix::{
    fs::{MemfdFlags, SealFlags},
    time::ClockId,
};
use serde_json::json;

use crate::{
    Call, CallError, CodePlace, Compiler, Entity, Entry, Lineage, Module, Origin, PrepareError, Prepared,
    Runtime, SealedFile, Services, Terms, services::NoServices,
};

/// Services for code that asks for none.
const NOTHING: NoServices = NoServices { reason: "there is nobody to be asked" };

/// Time in which anything here has to be over, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(50);

/// What a clock of the processor shows. Other than time on the wall it stands still while others have the processor, so it
/// tells how much was done however busy the machine is.
fn worked(clock: ClockId) -> Duration {
    let shown = rustix::time::clock_gettime(clock);
    Duration::new(shown.tv_sec.unsigned_abs(), shown.tv_nsec.try_into().unwrap())
}

fn terms(limits: CodeLimits) -> Terms {
    let settings = json!({ "greeting": "hello", "depth": { "of": [1, 2] } });
    Terms { settings, limits, grants: Grants::default() }
}

fn prepare(bytes: &[u8], limits: CodeLimits) -> Result<Prepared, PrepareError> {
    Compiler::new().unwrap().prepare(bytes, terms(limits))
}

/// Bytes behind others, at the place where code has to begin, in a file that nobody can change.
fn seal(code: &[u8]) -> (SealedFile, CodePlace) {
    let offset = crate::CODE_ALIGNMENT;
    let file = rustix::fs::memfd_create("code", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, offset).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(offset)).unwrap();
    let mut rest = code;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).unwrap();
        rest = &rest[written..];
    }
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
    (SealedFile::new(file.as_fd()).unwrap(), CodePlace { offset, length: code.len() as u64 })
}

/// A worker with one module.
struct Worker {
    runtime: Arc<Runtime>,
    module: Arc<Module>,
    tokio: tokio::runtime::Runtime,
}

impl Worker {
    /// Waits until no instance is left: a call is answered at its deadline, on a busy machine before its code has ended.
    fn until_all_have_ended(&self, after: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.module.instances() != 0 {
            assert!(Instant::now() < deadline, "{} instances after {after}", self.module.instances());
            std::thread::yield_now();
        }
    }

    fn of(guest: &Guest) -> Self {
        Self::with(guest, CodeLimits::default(), Arc::new(NOTHING))
    }

    fn limited(guest: &Guest, limits: CodeLimits) -> Self {
        Self::with(guest, limits, Arc::new(NOTHING))
    }

    /// One whose engine does not tick: code that ends does so in its first slice, and none of it is late, however busy the
    /// machine is.
    fn out_of_time(guest: &Guest) -> Self {
        let runtime = Runtime::ticking_by_hand(1, 1).unwrap();
        Self::in_runtime(runtime, &guest.build(), CodeLimits::default(), Arc::new(NOTHING))
    }

    fn of_bytes(bytes: &[u8], limits: CodeLimits) -> Self {
        Self::made(bytes, limits, Arc::new(NOTHING))
    }

    fn with(guest: &Guest, limits: CodeLimits, services: Arc<dyn Services>) -> Self {
        Self::made(&guest.build(), limits, services)
    }

    fn made(bytes: &[u8], limits: CodeLimits, services: Arc<dyn Services>) -> Self {
        Self::in_runtime(Runtime::new(1, 1).unwrap(), bytes, limits, services)
    }

    fn in_runtime(runtime: Runtime, bytes: &[u8], limits: CodeLimits, services: Arc<dyn Services>) -> Self {
        let prepared = prepare(bytes, limits).unwrap_or_else(|error| panic!("{error}"));
        let (file, place) = seal(&prepared.code);
        let runtime = Arc::new(runtime);
        let name = prepared.spec.name.to_string();
        let module = runtime.load(&name, &prepared.spec.code.unwrap(), (&file, place), services).unwrap();
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { runtime, module: Arc::new(module), tokio: tokio.unwrap() }
    }

    fn call(&self, entry: Entry) -> Result<Option<String>, CallError> {
        self.tokio.block_on(self.enter(call(), entry))
    }

    async fn enter(&self, call: Call, entry: Entry) -> Result<Option<String>, CallError> {
        self.runtime.call(&self.module, CommandPlace::Io, call, entry).await
    }

    async fn compute(&self, entry: Entry) -> Result<Option<String>, CallError> {
        self.runtime.call(&self.module, CommandPlace::Cpu, call(), entry).await
    }

    fn command(&self, name: &str, arguments: &str) -> Result<Option<String>, CallError> {
        self.call(command(name, arguments))
    }
}

fn call() -> Call {
    Call {
        request_id: "r1".to_owned(),
        origin: Origin::Api,
        deadline: Instant::now() + PATIENCE,
        attempt: 1,
        idempotency_key: None,
        lineage: Lineage::default(),
        lot: Lot::default(),
        principal: None,
    }
}

fn command(name: &str, arguments: &str) -> Entry {
    Entry::Command { name: name.to_owned(), target: None, arguments: arguments.to_owned() }
}

fn entity(data: &str) -> Entity {
    Entity {
        id: "7".to_owned(),
        model: "TODO".to_owned(),
        revision: 3,
        created_ms: 1,
        updated_ms: 2,
        data: data.to_owned(),
    }
}

fn answer(text: &str) -> Result<Option<String>, CallError> {
    Ok(Some(text.to_owned()))
}

/// What went wrong, in words.
fn trapped(result: Result<Option<String>, CallError>) -> String {
    match result {
        Err(CallError::Trapped { reason, .. }) => reason,
        other => panic!("found {other:?}, expected that it failed"),
    }
}
