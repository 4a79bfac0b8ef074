//! Log lines: one per event, on standard error, which the supervisor may point at a file.
//!
//! ```text
//! 2026-11-21T02:15:04.123456Z  INFO worker 3.7[4242] aegis_worker: ready cached=1000
//! ```

use std::{
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use aegis_config::{Log, LogFormat};
use aegis_supervisor::logs::PatientStderr;
use serde_json::{Map, Value};
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::{LookupSpan, Registry},
    reload,
};

/// What a process that has begun to log can still change.
static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// From now on, events of this process are written as `log` says, by somebody called `process`. The name stays the first
/// one of this process; level and format are those of the last call.
pub(crate) fn follow(log: &Log, process: &str) {
    let mut fresh = None;
    let settings = SETTINGS.get_or_init(|| {
        let (subscriber, settings) = subscriber(log, process, || PatientStderr);
        fresh = Some(subscriber);
        settings
    });
    match fresh {
        // Fails only when somebody else has set one, and nobody has.
        Some(subscriber) => drop(tracing::subscriber::set_global_default(subscriber)),
        None => settings.follow(log, process),
    }
}

/// From now on, nothing is written until [`follow`] says how, and by whom. For a child that was forked, which would go on with
/// what its parent says.
pub(crate) fn hush() {
    if let Some(settings) = SETTINGS.get() {
        settings.hush();
    }
}

fn subscriber<W>(log: &Log, process: &str, writer: W) -> (impl Subscriber + Send + Sync + use<W>, Settings)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(log));
    let is_json = Arc::new(AtomicBool::new(log.format == LogFormat::Json));
    let named = Arc::new(RwLock::new(Named::now(process)));
    let settings = Settings { filter: handle, is_json: Arc::clone(&is_json), named: Arc::clone(&named) };
    let line = Line { named, is_json };
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).event_format(line).with_writer(writer);
    (tracing_subscriber::registry().with(filter).with(layer), settings)
}

/// Which events are written.
fn filter(log: &Log) -> Targets {
    // The configuration has checked the filter; should the two ever disagree, too much is better than nothing.
    log.level.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

/// The parts of a subscriber that another configuration exchanges.
struct Settings {
    filter: reload::Handle<Targets, Registry>,
    is_json: Arc<AtomicBool>,
    named: Arc<RwLock<Named>>,
}

/// Who writes lines.
#[derive(Clone)]
struct Named {
    process: String,
    pid: u32,
}

impl Named {
    fn now(process: &str) -> Self {
        Self { process: process.to_owned(), pid: std::process::id() }
    }
}

impl Settings {
    fn follow(&self, log: &Log, process: &str) {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        // A child that was forked has these settings from its parent.
        if named.pid != std::process::id() {
            *named = Named::now(process);
        }
        drop(named);
        self.is_json.store(log.format == LogFormat::Json, Ordering::Relaxed);
        self.write(filter(log));
    }

    fn hush(&self) {
        self.write(Targets::new());
    }

    fn write(&self, filter: Targets) {
        if let Err(error) = self.filter.reload(filter) {
            tracing::error!(%error, "log.level does not come into force");
        }
    }
}

/// How an event becomes a line.
struct Line {
    named: Arc<RwLock<Named>>,
    is_json: Arc<AtomicBool>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.is_json.load(Ordering::Relaxed) {
            self.json(context, writer, event)
        } else {
            self.text(context, writer, event)
        }
    }
}

impl Line {
    fn named(&self) -> RwLockReadGuard<'_, Named> {
        self.named.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn text<S, N>(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let metadata = event.metadata();
        SystemTime.format_time(&mut writer)?;
        {
            let Named { process, pid } = &*self.named();
            write!(writer, " {:>5} {process}[{pid}] {}: ", metadata.level(), metadata.target())?;
        }
        for span in spans(context) {
            write!(writer, "{span}: ")?;
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        // A text of a client must not be able to forge a line.
        writeln!(writer, "{}", fields.replace('\n', "\\n"))
    }

    fn json<S, N>(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let metadata = event.metadata();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        line.insert("time".to_owned(), time.into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        {
            let Named { process, pid } = &*self.named();
            line.insert("process".to_owned(), process.as_str().into());
            line.insert("pid".to_owned(), (*pid).into());
        }
        line.insert("target".to_owned(), metadata.target().into());
        let spans = spans(context);
        if !spans.is_empty() {
            line.insert("spans".to_owned(), spans.into());
        }
        event.record(&mut Members(&mut line));
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// The spans an event happened in, outermost first, as `name{fields}`.
fn spans<S, N>(context: &FmtContext<'_, S, N>) -> Vec<String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let scope = context.event_scope().into_iter().flat_map(|scope| scope.from_root());
    let shown = scope.map(|span| match span.extensions().get::<FormattedFields<N>>() {
        Some(fields) if !fields.is_empty() => format!("{}{{{fields}}}", span.name()),
        _ => span.name().to_owned(),
    });
    shown.collect()
}

/// The fields of an event as members of a JSON object. A field cannot take the place of a member that is there.
struct Members<'a>(&'a mut Map<String, Value>);

impl Members<'_> {
    fn insert(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let name = if self.0.contains_key(name) { format!("field.{name}") } else { name.to_owned() };
        self.0.insert(name, value);
    }
}

impl tracing::field::Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat) -> String {
        let memory = Memory::default();
        let copy = memory.clone();
        let (subscriber, _) = subscriber(&log(level, format), "worker 3.7", move || copy.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(cached = 1000, ratio = 0.5, name = "a b", target_host = ?Some(1), "ready");
            tracing::debug!("unseen");
            let span = tracing::info_span!("request", id = 7);
            span.in_scope(|| tracing::warn!(level = "own", "two\nlines"));
            tracing::info!(target: "noisy", "unseen unless asked for");
        });
        shown(&memory)
    }

    fn log(level: &str, format: LogFormat) -> Log {
        Log { level: level.to_owned(), format, file: None, requests: false }
    }

    fn shown(memory: &Memory) -> String {
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let text = text.lines().map(without_time).collect::<Vec<_>>().join("\n");
        // Only where a process is named: the digits can occur in a time as well.
        let pid = std::process::id();
        text.replace(&format!("[{pid}]"), "[PID]").replace(&format!("\"pid\":{pid},"), "\"pid\":PID,")
    }

    fn without_time(line: &str) -> String {
        let start = line.find("20").unwrap();
        format!("{}TIME{}", &line[..start], &line[start + "2026-11-21T02:15:04.123456Z".len()..])
    }

    #[test]
    fn text_is_one_line_per_event() {
        insta::assert_snapshot!(logged("info,noisy=warn", LogFormat::Text), @r#"
        TIME  INFO worker 3.7[PID] aegis::logging::tests: ready cached=1000 ratio=0.5 name="a b" target_host=Some(1)
        TIME  WARN worker 3.7[PID] aegis::logging::tests: request{id=7}: two\nlines level="own"
        "#);
    }

    #[test]
    fn level_and_format_change_while_the_process_runs() {
        let memory = Memory::default();
        let copy = memory.clone();
        let (subscriber, settings) = subscriber(&log("info", LogFormat::Text), "store", move || copy.clone());
        tracing::subscriber::with_default(subscriber, || {
            let say = |what| {
                tracing::info!(what);
                tracing::debug!(what);
            };
            say("before");
            settings.follow(&log("info,aegis=debug", LogFormat::Json), "another");
            say("between");
            settings.follow(&log("info", LogFormat::Text), "another");
            say("after");
        });
        insta::assert_snapshot!(shown(&memory), @r#"
        TIME  INFO store[PID] aegis::logging::tests: what="before"
        {"time":"TIME","level":"INFO","process":"store","pid":PID,"target":"aegis::logging::tests","what":"between"}
        {"time":"TIME","level":"DEBUG","process":"store","pid":PID,"target":"aegis::logging::tests","what":"between"}
        TIME  INFO store[PID] aegis::logging::tests: what="after"
        "#);
    }

    #[test]
    fn a_child_that_was_forked_writes_nothing_in_the_name_of_its_parent() {
        let memory = Memory::default();
        let copy = memory.clone();
        let info = log("info", LogFormat::Text);
        let (subscriber, settings) = subscriber(&info, "supervisor", move || copy.clone());
        settings.named.write().unwrap().pid = 1; // whose it was
        tracing::subscriber::with_default(subscriber, || {
            settings.hush();
            tracing::error!("before");
            settings.follow(&info, "worker 3.7");
            tracing::info!("after");
        });
        insta::assert_snapshot!(shown(&memory), @"TIME  INFO worker 3.7[PID] aegis::logging::tests: after");
    }

    #[test]
    fn json_is_one_object_per_event() {
        insta::assert_snapshot!(logged("warn,noisy=info", LogFormat::Json), @r#"
        {"time":"TIME","level":"WARN","process":"worker 3.7","pid":PID,"target":"aegis::logging::tests","message":"two\nlines","field.level":"own"}
        {"time":"TIME","level":"INFO","process":"worker 3.7","pid":PID,"target":"noisy","message":"unseen unless asked for"}
        "#);
    }
}
