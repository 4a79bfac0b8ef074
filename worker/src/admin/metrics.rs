//! `/metrics`: the board in the Prometheus text format, whichever worker is asked.

mod modules;

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use aegis_ipc::board::{
    BUCKETS, Board, Cell, Counter, Gauge, ModelCounter, StoreWord, bucket_bound, monotonic_ms,
};

/// Totals: name, counter, help.
const COUNTERS: &[(&str, Counter, &str)] = &[
    ("aegis_connections_total", Counter::Connections, "Connections accepted."),
    ("aegis_overloaded_total", Counter::Overloaded, "Requests refused because a worker was full."),
    (
        "aegis_rate_limited_total",
        Counter::RateLimited,
        "Requests refused because their client asks too often.",
    ),
    (
        "aegis_rate_uncounted_total",
        Counter::RateUncounted,
        "Requests let in uncounted because too many clients came at once.",
    ),
    ("aegis_read_waits_total", Counter::ReadWaits, "Reads that waited for the change feed."),
    ("aegis_cache_hits_total", Counter::CacheHits, "Document bodies found in the cache."),
    ("aegis_cache_misses_total", Counter::CacheMisses, "Document bodies fetched from the store."),
    ("aegis_feed_gaps_total", Counter::FeedGaps, "Gaps found in the change feed."),
    ("aegis_changes_applied_total", Counter::ChangesApplied, "Changes applied to caches."),
    ("aegis_write_retries_total", Counter::WriteRetries, "Writes tried again because of a concurrent one."),
    ("aegis_write_resends_total", Counter::WriteResends, "Writes sent again after the store came back."),
    (
        "aegis_unknown_outcomes_total",
        Counter::UnknownOutcomes,
        "Writes with an unknown outcome at the deadline.",
    ),
    ("aegis_replays_total", Counter::Replays, "Idempotent responses replayed."),
    ("aegis_request_bytes_total", Counter::BytesIn, "Bytes of request bodies."),
    ("aegis_response_bytes_total", Counter::BytesOut, "Bytes of response bodies."),
    ("aegis_scanned_total", Counter::Scanned, "Documents looked at by scans."),
    ("aegis_event_streams_total", Counter::Streams, "Event streams opened."),
    ("aegis_defects_total", Counter::Defects, "Requests ended by a panic; the log tells which."),
    ("aegis_guest_calls_total", Counter::GuestCalls, "Calls of modules."),
    ("aegis_guest_refusals_total", Counter::GuestRefusals, "Calls of modules that were answered no."),
    (
        "aegis_guest_traps_total",
        Counter::GuestTraps,
        "Calls of modules that met a defect; the log tells which.",
    ),
    ("aegis_guest_timeouts_total", Counter::GuestTimeouts, "Calls of modules that took too long."),
    ("aegis_guest_busy_total", Counter::GuestBusy, "Calls of modules that found no room in time."),
    (
        "aegis_guest_microseconds_total",
        Counter::GuestMicroseconds,
        "Microseconds spent in calls of modules, waiting included.",
    ),
    ("aegis_outgoing_requests_total", Counter::OutgoingRequests, "Requests of modules to other systems."),
    (
        "aegis_outgoing_denied_total",
        Counter::OutgoingDenied,
        "Requests of modules to other systems that no grant allows.",
    ),
    (
        "aegis_outgoing_failed_total",
        Counter::OutgoingFailed,
        "Requests of modules to other systems that were allowed and got no answer.",
    ),
];

const CLASSES: &[(&str, Counter)] = &[
    ("1xx", Counter::Responses1xx),
    ("2xx", Counter::Responses2xx),
    ("3xx", Counter::Responses3xx),
    ("4xx", Counter::Responses4xx),
    ("5xx", Counter::Responses5xx),
];

const OPERATIONS: &[(&str, ModelCounter)] = &[
    ("create", ModelCounter::Creates),
    ("read", ModelCounter::Reads),
    ("list", ModelCounter::Lists),
    ("update", ModelCounter::Updates),
    ("remove", ModelCounter::Removes),
    ("refused", ModelCounter::Refused),
    ("command", ModelCounter::Commands),
];

/// Present values, summed over all workers.
const GAUGES: &[(&str, Gauge, &str)] = &[
    ("aegis_connections", Gauge::Connections, "Open client connections."),
    ("aegis_requests_in_flight", Gauge::InFlight, "Requests being answered."),
    ("aegis_cached_documents", Gauge::CachedDocuments, "Document bodies in caches."),
    ("aegis_cached_bytes", Gauge::CachedBytes, "Bytes of document bodies in caches."),
];

const STORE: &[(&str, &str, StoreWord, &str)] = &[
    ("aegis_store_epoch", "gauge", StoreWord::Epoch, "Process number of the store."),
    ("aegis_store_queue", "gauge", StoreWord::Queue, "Writes waiting for the store."),
    ("aegis_store_log_oldest", "gauge", StoreWord::LogOldest, "Oldest sequence number in the log."),
    ("aegis_store_groups_total", "counter", StoreWord::Groups, "Groups committed."),
    ("aegis_store_changes_total", "counter", StoreWord::Changes, "Changes committed."),
    (
        "aegis_store_conflicts_total",
        "counter",
        StoreWord::Conflicts,
        "Writes whose expectation did not hold.",
    ),
    ("aegis_store_snapshots_total", "counter", StoreWord::Snapshots, "Complete copies sent to workers."),
    (
        "aegis_store_disk_free_bytes",
        "gauge",
        StoreWord::DiskFreeBytes,
        "Bytes that are free on the disk of the store.",
    ),
    (
        "aegis_store_disk_needed_bytes",
        "gauge",
        StoreWord::DiskNeededBytes,
        "Bytes that must be free on the disk of the store for writes to be taken.",
    ),
];

/// The whole text.
pub(super) fn render(board: &Board) -> String {
    render_at(board, monotonic_ms())
}

fn render_at(board: &Board, now_ms: u64) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for (name, counter, help) in COUNTERS {
        head(&mut out, name, "counter", help);
        sample(&mut out, name, "", board.total(*counter));
    }
    head(&mut out, "aegis_responses_total", "counter", "Requests answered, by class of status.");
    for (class, counter) in CLASSES {
        sample(&mut out, "aegis_responses_total", &format!("{{class=\"{class}\"}}"), board.total(*counter));
    }
    latency(&mut out, board);
    models(&mut out, board);
    modules::render(&mut out, board);
    for (name, gauge, help) in GAUGES {
        head(&mut out, name, "gauge", help);
        sample(&mut out, name, "", board.cells().map(|cell| load(cell.gauge(*gauge))).sum());
    }
    workers(&mut out, board, now_ms);
    store(&mut out, board, now_ms);
    out
}

fn latency(out: &mut String, board: &Board) {
    const NAME: &str = "aegis_request_duration_seconds";
    head(out, NAME, "histogram", "Time from the end of a request head to its answer.");
    let mut cumulative = 0;
    for index in 0..BUCKETS {
        cumulative += board.cells().map(|cell| load(cell.bucket(index))).sum::<u64>();
        let bound = bucket_bound(index).map_or_else(|| "+Inf".to_owned(), seconds);
        sample(out, "aegis_request_duration_seconds_bucket", &format!("{{le=\"{bound}\"}}"), cumulative);
    }
    let sum = seconds(board.total(Counter::RequestMicroseconds));
    let _ = writeln!(out, "{NAME}_sum {sum}\n{NAME}_count {cumulative}");
}

fn models(out: &mut String, board: &Board) {
    const NAME: &str = "aegis_model_operations_total";
    head(out, NAME, "counter", "Requests to models, by operation; refused ones were answered with a 4xx.");
    for (index, model) in board.model_names() {
        for (operation, counter) in OPERATIONS {
            let total = board.cells().map(|cell| load(cell.model_counter(index, *counter))).sum();
            sample(out, NAME, &format!("{{model=\"{}\",operation=\"{operation}\"}}", label(&model)), total);
        }
    }
}

fn workers(out: &mut String, board: &Board, now_ms: u64) {
    let alive: Vec<Cell> = board.cells().filter(|cell| load(cell.gauge(Gauge::Pid)) != 0).collect();
    head(out, "aegis_workers", "gauge", "Worker processes.");
    sample(out, "aegis_workers", "", alive.len() as u64);
    let accepting = alive.iter().filter(|cell| load(cell.gauge(Gauge::Accepting)) == 1).count();
    head(out, "aegis_workers_accepting", "gauge", "Worker processes that accept connections.");
    sample(out, "aegis_workers_accepting", "", accepting as u64);
    let labels = |cell: &Cell| {
        let (slot, generation) = (load(cell.gauge(Gauge::Slot)), load(cell.gauge(Gauge::Generation)));
        format!("{{slot=\"{slot}\",generation=\"{generation}\",pid=\"{}\"}}", load(cell.gauge(Gauge::Pid)))
    };
    let mut each = |name: &str, help: &str, value: &dyn Fn(&Cell) -> u64| {
        head(out, name, "gauge", help);
        for cell in &alive {
            sample(out, name, &labels(cell), value(cell));
        }
    };
    each("aegis_worker_connections", "Open client connections of a worker.", &|cell| {
        load(cell.gauge(Gauge::Connections))
    });
    each("aegis_worker_lag", "Committed changes a worker has not applied yet.", &|cell| {
        board.durable().saturating_sub(load(cell.gauge(Gauge::Applied)))
    });
    each("aegis_worker_documents", "Documents a worker has indexed.", &|cell| {
        load(cell.gauge(Gauge::Documents))
    });
    each("aegis_worker_beat_age_milliseconds", "Age of the oldest heartbeat of a worker.", &|cell| {
        let threads = usize::try_from(load(cell.gauge(Gauge::Threads))).unwrap_or(1).max(1);
        let oldest = (0..threads).map(|thread| load(cell.beat(thread))).min().unwrap_or_default();
        now_ms.saturating_sub(oldest)
    });
}

fn store(out: &mut String, board: &Board, now_ms: u64) {
    head(out, "aegis_store_up", "gauge", "Whether the store is there.");
    let up = load(board.store(StoreWord::Pid)) != 0;
    sample(out, "aegis_store_up", "", u64::from(up));
    if up {
        let age = now_ms.saturating_sub(load(board.store(StoreWord::Beat)));
        head(out, "aegis_store_beat_age_milliseconds", "gauge", "Age of the last sign of life of the store.");
        sample(out, "aegis_store_beat_age_milliseconds", "", age);
    }
    head(out, "aegis_durable_sequence", "gauge", "Highest sequence number that is durable.");
    sample(out, "aegis_durable_sequence", "", board.durable());
    for (name, kind, word, help) in STORE {
        head(out, name, kind, help);
        sample(out, name, "", load(board.store(*word)));
    }
    head(out, "aegis_store_disk_full", "gauge", "Whether writes are refused because of a full disk.");
    sample(out, "aegis_store_disk_full", "", u64::from(load(board.store(StoreWord::DiskFullSince)) != 0));
    const COMMIT: &str = "aegis_store_commit_seconds_total";
    head(out, COMMIT, "counter", "Time spent in synced commits.");
    let _ = writeln!(out, "{COMMIT} {}", seconds(load(board.store(StoreWord::CommitMicroseconds))));
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{labels} {value}");
}

/// Microseconds in seconds, exactly.
fn seconds(microseconds: u64) -> String {
    let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "the snapshot is as long as the text")]
    fn the_text_sums_all_cells_and_keeps_its_names() {
        let (board, _descriptor) = Board::create().unwrap();
        let todo = board.model_index("TODO");
        for (index, requests) in [(0, 3), (7, 4)] {
            let cell = board.cell(index);
            cell.counter(Counter::Responses2xx).store(requests, Ordering::Relaxed);
            cell.counter(Counter::RequestMicroseconds).store(1_500, Ordering::Relaxed);
            cell.bucket(2).store(requests, Ordering::Relaxed);
            cell.model_counter(todo, ModelCounter::Reads).store(requests, Ordering::Relaxed);
            for (gauge, value) in [
                (Gauge::Pid, 100 + index as u64),
                (Gauge::Slot, index as u64),
                (Gauge::Generation, 2),
                (Gauge::Accepting, 1),
                (Gauge::Connections, requests),
                (Gauge::Applied, 40),
                (Gauge::Threads, 1),
            ] {
                cell.gauge(gauge).store(value, Ordering::Relaxed);
            }
            cell.beat(0).store(990, Ordering::Relaxed);
        }
        board.publish_durable(42);
        board.store(StoreWord::CommitMicroseconds).store(2_000_001, Ordering::Relaxed);
        let text = render_at(&board, 1_000);
        // The buckets in between only repeat the total.
        let shown: Vec<&str> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.contains("_bucket{le=\"0.0") || line.contains("0.00002"))
            .filter(|(_, line)| !line.contains("_bucket{le=\"0.1") && !line.contains("_bucket{le=\"0.2"))
            .map(|(_, line)| line)
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
    # HELP aegis_connections_total Connections accepted.
    # TYPE aegis_connections_total counter
    aegis_connections_total 0
    # HELP aegis_overloaded_total Requests refused because a worker was full.
    # TYPE aegis_overloaded_total counter
    aegis_overloaded_total 0
    # HELP aegis_rate_limited_total Requests refused because their client asks too often.
    # TYPE aegis_rate_limited_total counter
    aegis_rate_limited_total 0
    # HELP aegis_rate_uncounted_total Requests let in uncounted because too many clients came at once.
    # TYPE aegis_rate_uncounted_total counter
    aegis_rate_uncounted_total 0
    # HELP aegis_read_waits_total Reads that waited for the change feed.
    # TYPE aegis_read_waits_total counter
    aegis_read_waits_total 0
    # HELP aegis_cache_hits_total Document bodies found in the cache.
    # TYPE aegis_cache_hits_total counter
    aegis_cache_hits_total 0
    # HELP aegis_cache_misses_total Document bodies fetched from the store.
    # TYPE aegis_cache_misses_total counter
    aegis_cache_misses_total 0
    # HELP aegis_feed_gaps_total Gaps found in the change feed.
    # TYPE aegis_feed_gaps_total counter
    aegis_feed_gaps_total 0
    # HELP aegis_changes_applied_total Changes applied to caches.
    # TYPE aegis_changes_applied_total counter
    aegis_changes_applied_total 0
    # HELP aegis_write_retries_total Writes tried again because of a concurrent one.
    # TYPE aegis_write_retries_total counter
    aegis_write_retries_total 0
    # HELP aegis_write_resends_total Writes sent again after the store came back.
    # TYPE aegis_write_resends_total counter
    aegis_write_resends_total 0
    # HELP aegis_unknown_outcomes_total Writes with an unknown outcome at the deadline.
    # TYPE aegis_unknown_outcomes_total counter
    aegis_unknown_outcomes_total 0
    # HELP aegis_replays_total Idempotent responses replayed.
    # TYPE aegis_replays_total counter
    aegis_replays_total 0
    # HELP aegis_request_bytes_total Bytes of request bodies.
    # TYPE aegis_request_bytes_total counter
    aegis_request_bytes_total 0
    # HELP aegis_response_bytes_total Bytes of response bodies.
    # TYPE aegis_response_bytes_total counter
    aegis_response_bytes_total 0
    # HELP aegis_scanned_total Documents looked at by scans.
    # TYPE aegis_scanned_total counter
    aegis_scanned_total 0
    # HELP aegis_event_streams_total Event streams opened.
    # TYPE aegis_event_streams_total counter
    aegis_event_streams_total 0
    # HELP aegis_defects_total Requests ended by a panic; the log tells which.
    # TYPE aegis_defects_total counter
    aegis_defects_total 0
    # HELP aegis_guest_calls_total Calls of modules.
    # TYPE aegis_guest_calls_total counter
    aegis_guest_calls_total 0
    # HELP aegis_guest_refusals_total Calls of modules that were answered no.
    # TYPE aegis_guest_refusals_total counter
    aegis_guest_refusals_total 0
    # HELP aegis_guest_traps_total Calls of modules that met a defect; the log tells which.
    # TYPE aegis_guest_traps_total counter
    aegis_guest_traps_total 0
    # HELP aegis_guest_timeouts_total Calls of modules that took too long.
    # TYPE aegis_guest_timeouts_total counter
    aegis_guest_timeouts_total 0
    # HELP aegis_guest_busy_total Calls of modules that found no room in time.
    # TYPE aegis_guest_busy_total counter
    aegis_guest_busy_total 0
    # HELP aegis_guest_microseconds_total Microseconds spent in calls of modules, waiting included.
    # TYPE aegis_guest_microseconds_total counter
    aegis_guest_microseconds_total 0
    # HELP aegis_outgoing_requests_total Requests of modules to other systems.
    # TYPE aegis_outgoing_requests_total counter
    aegis_outgoing_requests_total 0
    # HELP aegis_outgoing_denied_total Requests of modules to other systems that no grant allows.
    # TYPE aegis_outgoing_denied_total counter
    aegis_outgoing_denied_total 0
    # HELP aegis_outgoing_failed_total Requests of modules to other systems that were allowed and got no answer.
    # TYPE aegis_outgoing_failed_total counter
    aegis_outgoing_failed_total 0
    # HELP aegis_responses_total Requests answered, by class of status.
    # TYPE aegis_responses_total counter
    aegis_responses_total{class="1xx"} 0
    aegis_responses_total{class="2xx"} 7
    aegis_responses_total{class="3xx"} 0
    aegis_responses_total{class="4xx"} 0
    aegis_responses_total{class="5xx"} 0
    # HELP aegis_request_duration_seconds Time from the end of a request head to its answer.
    # TYPE aegis_request_duration_seconds histogram
    aegis_request_duration_seconds_bucket{le="0.00002"} 0
    aegis_request_duration_seconds_bucket{le="0.000024"} 7
    aegis_request_duration_seconds_bucket{le="0.000028"} 7
    aegis_request_duration_seconds_bucket{le="0.32768"} 7
    aegis_request_duration_seconds_bucket{le="0.393216"} 7
    aegis_request_duration_seconds_bucket{le="0.458752"} 7
    aegis_request_duration_seconds_bucket{le="0.524288"} 7
    aegis_request_duration_seconds_bucket{le="0.65536"} 7
    aegis_request_duration_seconds_bucket{le="0.786432"} 7
    aegis_request_duration_seconds_bucket{le="+Inf"} 7
    aegis_request_duration_seconds_sum 0.003
    aegis_request_duration_seconds_count 7
    # HELP aegis_model_operations_total Requests to models, by operation; refused ones were answered with a 4xx.
    # TYPE aegis_model_operations_total counter
    aegis_model_operations_total{model="TODO",operation="create"} 0
    aegis_model_operations_total{model="TODO",operation="read"} 7
    aegis_model_operations_total{model="TODO",operation="list"} 0
    aegis_model_operations_total{model="TODO",operation="update"} 0
    aegis_model_operations_total{model="TODO",operation="remove"} 0
    aegis_model_operations_total{model="TODO",operation="refused"} 0
    aegis_model_operations_total{model="TODO",operation="command"} 0
    # HELP aegis_connections Open client connections.
    # TYPE aegis_connections gauge
    aegis_connections 7
    # HELP aegis_requests_in_flight Requests being answered.
    # TYPE aegis_requests_in_flight gauge
    aegis_requests_in_flight 0
    # HELP aegis_cached_documents Document bodies in caches.
    # TYPE aegis_cached_documents gauge
    aegis_cached_documents 0
    # HELP aegis_cached_bytes Bytes of document bodies in caches.
    # TYPE aegis_cached_bytes gauge
    aegis_cached_bytes 0
    # HELP aegis_workers Worker processes.
    # TYPE aegis_workers gauge
    aegis_workers 2
    # HELP aegis_workers_accepting Worker processes that accept connections.
    # TYPE aegis_workers_accepting gauge
    aegis_workers_accepting 2
    # HELP aegis_worker_connections Open client connections of a worker.
    # TYPE aegis_worker_connections gauge
    aegis_worker_connections{slot="0",generation="2",pid="100"} 3
    aegis_worker_connections{slot="7",generation="2",pid="107"} 4
    # HELP aegis_worker_lag Committed changes a worker has not applied yet.
    # TYPE aegis_worker_lag gauge
    aegis_worker_lag{slot="0",generation="2",pid="100"} 2
    aegis_worker_lag{slot="7",generation="2",pid="107"} 2
    # HELP aegis_worker_documents Documents a worker has indexed.
    # TYPE aegis_worker_documents gauge
    aegis_worker_documents{slot="0",generation="2",pid="100"} 0
    aegis_worker_documents{slot="7",generation="2",pid="107"} 0
    # HELP aegis_worker_beat_age_milliseconds Age of the oldest heartbeat of a worker.
    # TYPE aegis_worker_beat_age_milliseconds gauge
    aegis_worker_beat_age_milliseconds{slot="0",generation="2",pid="100"} 10
    aegis_worker_beat_age_milliseconds{slot="7",generation="2",pid="107"} 10
    # HELP aegis_store_up Whether the store is there.
    # TYPE aegis_store_up gauge
    aegis_store_up 0
    # HELP aegis_durable_sequence Highest sequence number that is durable.
    # TYPE aegis_durable_sequence gauge
    aegis_durable_sequence 42
    # HELP aegis_store_epoch Process number of the store.
    # TYPE aegis_store_epoch gauge
    aegis_store_epoch 0
    # HELP aegis_store_queue Writes waiting for the store.
    # TYPE aegis_store_queue gauge
    aegis_store_queue 0
    # HELP aegis_store_log_oldest Oldest sequence number in the log.
    # TYPE aegis_store_log_oldest gauge
    aegis_store_log_oldest 0
    # HELP aegis_store_groups_total Groups committed.
    # TYPE aegis_store_groups_total counter
    aegis_store_groups_total 0
    # HELP aegis_store_changes_total Changes committed.
    # TYPE aegis_store_changes_total counter
    aegis_store_changes_total 0
    # HELP aegis_store_conflicts_total Writes whose expectation did not hold.
    # TYPE aegis_store_conflicts_total counter
    aegis_store_conflicts_total 0
    # HELP aegis_store_snapshots_total Complete copies sent to workers.
    # TYPE aegis_store_snapshots_total counter
    aegis_store_snapshots_total 0
    # HELP aegis_store_disk_free_bytes Bytes that are free on the disk of the store.
    # TYPE aegis_store_disk_free_bytes gauge
    aegis_store_disk_free_bytes 0
    # HELP aegis_store_disk_needed_bytes Bytes that must be free on the disk of the store for writes to be taken.
    # TYPE aegis_store_disk_needed_bytes gauge
    aegis_store_disk_needed_bytes 0
    # HELP aegis_store_disk_full Whether writes are refused because of a full disk.
    # TYPE aegis_store_disk_full gauge
    aegis_store_disk_full 0
    # HELP aegis_store_commit_seconds_total Time spent in synced commits.
    # TYPE aegis_store_commit_seconds_total counter
    aegis_store_commit_seconds_total 2.000001
    "#);
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds(0), "0");
        assert_eq!(seconds(16), "0.000016");
        assert_eq!(seconds(2_500_000), "2.5");
        assert_eq!(seconds(10_000_000), "10");
    }
}
