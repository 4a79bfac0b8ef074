//! Code that does not end ends at its own deadline, wherever it is called.
//!
//! Time is counted in ticks here, and the code itself has the clock tick: how busy the machine is makes no difference.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use aegis_domain::code::{CodeLimits, CommandPlace};
use aegis_guests::{Body, Guest};
use bytes::Bytes;
use serde_json::json;
use wasmtime::Engine;

use super::{NOTHING, PATIENCE, Worker, answer, call, command, entity, prepare, seal, terms};
use crate::{
    CallError, Code, Compiler, Drained, Entity, Entry, Handover, Happening, Measurement, Module, Page,
    PrepareError, RouteRequest, Runtime, Search, Served, Services, Succession, Write,
    describe::DESCRIBE_TIME, services::Asker,
};

/// Time of one call in these tests.
const CALL_MS: u32 = 50;
const CALL: Duration = Duration::from_millis(CALL_MS as u64);
/// Ticks after its deadline at which code that runs looks at it. Where ticks come by themselves it may be one more: one that
/// comes while the code lets others run is not seen.
const LATE_TICKS_MAX: u32 = 1;

fn limits() -> CodeLimits {
    CodeLimits { call_ms_max: CALL_MS, cpu_call_ms_max: CALL_MS, ..CodeLimits::default() }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// What has an engine tick: code that measures something.
struct Clock {
    engine: OnceLock<Engine>,
    /// Time that the code has.
    allowed: Duration,
    /// The first tick. The time of the call is running by then.
    first: OnceLock<Instant>,
    ticks: AtomicU32,
    /// Those after the deadline.
    late: AtomicU32,
}

impl Clock {
    fn allowing(allowed: Duration) -> Arc<Self> {
        Arc::new(Self {
            engine: OnceLock::new(),
            allowed,
            first: OnceLock::new(),
            ticks: AtomicU32::new(0),
            late: AtomicU32::new(0),
        })
    }

    /// Code that was begun then has ended: not before its deadline, and at the next tick after it.
    fn assert_on_time(&self, what: &str, begun: Instant) {
        assert!(begun.elapsed() >= self.allowed, "{what}: {:?}", begun.elapsed());
        let ticks = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let (all, late) = (ticks(&self.ticks), ticks(&self.late));
        assert!(all > 1 && late <= LATE_TICKS_MAX, "{what}: {late} of {all} ticks after its deadline");
    }
}

impl Services for Clock {
    fn find<'a>(&'a self, asker: Asker<'a>, model: &'a str, id: &'a str) -> Served<'a, Option<Entity>> {
        NOTHING.find(asker, model, id)
    }

    fn search<'a>(&'a self, asker: Asker<'a>, model: &'a str, search: Search) -> Served<'a, Page> {
        NOTHING.search(asker, model, search)
    }

    fn write<'a>(&'a self, asker: Asker<'a>, model: &'a str, write: Write) -> Served<'a, Entity> {
        NOTHING.write(asker, model, write)
    }

    fn write_batch<'a>(
        &'a self,
        asker: Asker<'a>,
        model: &'a str,
        writes: Vec<Write>,
    ) -> Served<'a, Vec<Entity>> {
        NOTHING.write_batch(asker, model, writes)
    }

    fn aggregate<'a>(&'a self, asker: Asker<'a>, model: &'a str, pipeline: &'a str) -> Served<'a, String> {
        NOTHING.aggregate(asker, model, pipeline)
    }

    fn measure(&self, _: &str, _: Measurement<'_>) {
        let now = Instant::now();
        self.ticks.fetch_add(1, Ordering::Relaxed);
        if now >= *self.first.get_or_init(|| now) + self.allowed {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        self.engine.get().expect("code runs in an engine").increment_epoch();
    }
}

/// Never ends, and has the clock tick each time round.
fn ticking() -> Body {
    let mut body = Body::default();
    let name = body.text("ticks");
    let tick = format!("(call $metrics_add {name} (f64.const 1) (i32.const 0) (i32.const 0))");
    body.then(format!("(loop $again {tick} (br $again)) unreachable")).calling("metrics", "add")
}

/// A worker whose engine ticks only when its code says so.
struct Timed {
    worker: Worker,
    clock: Arc<Clock>,
}

impl std::ops::Deref for Timed {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Timed {
    fn of(guest: &Guest) -> Self {
        let clock = Clock::allowing(CALL);
        let runtime = Runtime::ticking_by_hand(1, 1).unwrap();
        clock.engine.set(runtime.engine().clone()).expect("a new clock");
        let services = Arc::<Clock>::clone(&clock);
        Self { worker: Worker::in_runtime(runtime, &guest.build(), limits(), services), clock }
    }

    /// A module that remembers, and does not end in this function.
    fn spinning(interface: &str, function: &str) -> Self {
        Self::of(&aegis_guests::heir("1.0.0").function(interface, function, ticking()))
    }

    fn begin(&self) {
        assert_eq!(self.command("next", "{}"), answer("1"));
    }

    /// What comes of it, on time.
    fn on_time<T, Deed: Future<Output = T>>(&self, what: &str, deed: impl FnOnce() -> Deed) -> T {
        let begun = Instant::now();
        let outcome = self.tokio.block_on(deed());
        self.clock.assert_on_time(what, begun);
        outcome
    }
}

fn is_late<T: std::fmt::Debug>(what: &str, outcome: &Result<T, CallError>) {
    assert!(matches!(outcome, Err(CallError::Deadline { .. })), "{what}: {outcome:?}");
}

#[test]
fn every_hook_command_route_and_event_handler() {
    let happening = Happening {
        id: "TODO-7".to_owned(),
        name: "CREATETODO".to_owned(),
        source: "TODO".to_owned(),
        time_ms: 1,
        key: None,
        data: "{}".to_owned(),
    };
    let text = || "{}".to_owned();
    let entries = [
        ("hooks", "on-create", Entry::Create { input: text() }),
        ("hooks", "validate", Entry::Validate { before: None, after: text() }),
        ("hooks", "on-update", Entry::Update { current: entity("{}"), changes: text() }),
        ("hooks", "on-delete", Entry::Delete { current: entity("{}") }),
        ("hooks", "on-load", Entry::Load { stored: entity("{}") }),
        ("document-hooks", "on-create", Entry::Create { input: text() }),
        ("document-hooks", "validate", Entry::Validate { before: None, after: text() }),
        ("commands", "run", command("any", "{}")),
        ("event-handlers", "on-event", Entry::Event(happening)),
        ("lifecycle", "init", command("next", "{}")),
    ];
    for (interface, function, entry) in entries {
        let worker = Timed::spinning(interface, function);
        is_late(function, &worker.on_time(function, || worker.enter(call(), entry)));
        worker.until_all_have_ended(function);
    }
    let route = json!({ "method": "get", "path": "/spin" });
    let guest = Guest::model(json!({ "name": "label", "endpoint": "labels", "version": "1.0.0" }));
    let worker = Timed::of(&guest.route(route, ticking()));
    let request = RouteRequest {
        method: aegis_domain::route::Verb::Get,
        route: "/spin".to_owned(),
        path: "/spin".to_owned(),
        query: String::new(),
        params: Vec::new(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    let asked = || worker.runtime.route(&worker.module, CommandPlace::Io, call(), request);
    is_late("a route", &worker.on_time("a route", asked));
}

#[test]
fn a_short_call_that_a_tick_falls_into_goes_on_at_once() {
    let mut body = Body::default();
    let name = body.text("ticks");
    let tick = format!("(call $metrics_add {name} (f64.const 1) (i32.const 0) (i32.const 0))");
    let body = body.then(tick).calling("metrics", "add").then(aegis_guests::answer("{}"));
    let worker = Timed::of(&aegis_guests::plain().command("tick", body));
    let _inside = worker.tokio.enter();
    for _ in 0..10 {
        let mut asked = Box::pin(worker.enter(call(), command("tick", "{}")));
        let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(answer("{}")), "others were let go first");
    }
    assert_eq!(worker.clock.ticks.load(Ordering::Relaxed), 10);
}

#[test]
fn what_an_instance_hands_over_and_takes() {
    let worker = Timed::spinning("handover", "save");
    worker.begin();
    let halt = worker.tokio.block_on(worker.runtime.halt(&worker.module, soon())).unwrap();
    let saved = worker.on_time("save", || worker.runtime.save(&worker.module, &halt, soon()));
    drop(halt);
    is_late("save", &saved);
    assert_eq!(worker.command("next", "{}"), answer("1"), "its instance is gone");

    let worker = Timed::spinning("handover", "restore");
    let handover = Handover { from_version: "1.0.0".to_owned(), state: vec![0; 8] };
    let restored = worker.on_time("restore", || worker.runtime.restore(&worker.module, &handover, soon()));
    is_late("restore", &restored);
    assert_eq!(worker.module.instances(), 0);
}

#[test]
fn what_an_instance_is_asked_and_told() {
    let worker = Timed::spinning("lifecycle", "health");
    worker.begin();
    is_late("health", &worker.on_time("health", || worker.runtime.health(&worker.module, soon())));

    let worker = Timed::spinning("lifecycle", "reconfigure");
    worker.begin();
    let next = with_other_settings(&worker, &worker.module);
    let halt = worker.tokio.block_on(worker.runtime.halt(&worker.module, soon())).unwrap();
    let before = (&worker.module, &halt);
    let told = worker.on_time("reconfigure", || worker.runtime.succeed(&next, before, soon()));
    assert_eq!(told.unwrap().go_on(), Succession { kept: 0, replaced: 1 });
}

#[test]
fn the_end_of_an_instance() {
    let worker = Timed::spinning("lifecycle", "drain");
    worker.begin();
    let drained = worker.on_time("drain", || worker.runtime.drain(&worker.module, Instant::now() + CALL));
    assert_eq!(drained, Drained { ended: 0, cut_off: 1 });
    assert_eq!(worker.module.instances(), 0);
}

#[test]
fn what_a_component_says_of_itself() {
    for (interface, function) in [("identity", "info"), ("describe-model", "describe")] {
        let clock = Clock::allowing(DESCRIBE_TIME);
        let compiler = Compiler::ticking_by_hand(Arc::<Clock>::clone(&clock)).unwrap();
        clock.engine.set(compiler.engine().clone()).expect("a new clock");
        let component = aegis_guests::plain().function(interface, function, ticking()).build();
        let begun = Instant::now();
        let refused = compiler.prepare(&component, terms(limits()));
        clock.assert_on_time(function, begun);
        let Err(PrepareError::Refused(reasons)) = refused else { panic!("{function}: {refused:?}") };
        let [reason] = &reasons[..] else { panic!("{function}: {reasons:?}") };
        assert!(reason.code == Code::DescribeFailed && reason.message.contains("its time is up"), "{reason}");
    }
}

/// The same code in the same worker, under other settings.
fn with_other_settings(worker: &Timed, module: &Arc<Module>) -> Arc<Module> {
    let guest = aegis_guests::heir("1.0.0").function("lifecycle", "reconfigure", ticking());
    let prepared = prepare(&guest.build(), limits()).unwrap_or_else(|error| panic!("{error}"));
    let (file, place) = seal(&prepared.code);
    let mut code = prepared.spec.code.unwrap();
    code.settings = json!({ "other": true });
    let name = prepared.spec.name.to_string();
    let services = Arc::<Clock>::clone(&worker.clock);
    let next = worker.runtime.load(&name, &code, (&file, place), services).unwrap();
    assert_eq!(next.name(), module.name());
    Arc::new(next)
}
