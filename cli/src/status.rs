//! What `aegis status` shows.

use std::fmt::Write;

use aegis_ipc::operator::{Death, DeployedModule, DiskFull, Job, Status, TriedModule, Verdict, WorkerStatus};

#[cfg(test)]
mod tests;

/// Deaths shown; `--json` has all.
const DEATHS_SHOWN: usize = 5;

const HEADINGS: [&str; 10] =
    ["SLOT", "GEN", "PID", "STATE", "UP", "CONNS", "ACTIVE", "REQUESTS", "MEMORY", "LAG"];

/// The state of a host as a person reads it.
pub(crate) fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", status.summary);
    let listen = if status.listen.is_empty() { "nothing".to_owned() } else { status.listen.join(", ") };
    let _ = writeln!(text, "listening on {listen}");
    let up = span(status.uptime_ms);
    let _ = writeln!(
        text,
        "aegis {}, pid {}, up {up}, generation {} ({})",
        status.version,
        status.pid,
        status.generation,
        short(&status.digest)
    );
    let store = &status.store;
    let restarts =
        if store.restarts == 1 { "1 restart".to_owned() } else { format!("{} restarts", store.restarts) };
    let _ = writeln!(
        text,
        "store {}, pid {}, {restarts}, durable up to change {}",
        store.state, store.pid, store.durable
    );
    if let Some(DiskFull { for_ms, free_bytes, needed_bytes }) = &store.disk_full {
        let (since, free, needed) = (span(*for_ms), size(*free_bytes), size(*needed_bytes));
        let _ = writeln!(
            text,
            "the disk of the store is nearly full, writes have been refused for {since}: {free} free, {needed} needed"
        );
    }
    if let Some(notice) = &status.notice {
        let _ = writeln!(text, "not the app folder: {notice}");
    }
    for DeployedModule { module, deployed } in &status.deployed {
        let since = jiff::Timestamp::from_second(deployed.since_s).map(|since| format!(" since {since}"));
        let (digest, since) = (short(&deployed.sha256), since.unwrap_or_default());
        let _ = writeln!(text, "module {module} deployed from {} ({digest}){since}", deployed.source);
    }
    for module in &status.failing {
        let _ = writeln!(text, "module {module} keeps failing, a worker does not call it");
    }
    status.trials.iter().for_each(|tried| text.push_str(&trial(tried)));
    let rows: Vec<_> = status.workers.iter().map(row).collect();
    let _ = write!(text, "\n{}", table(&rows));
    for job in &status.jobs {
        let _ = writeln!(text, "\njob {} ({}): {}", job.job, job.kind, job.step);
    }
    if let Some(job) = &status.last_job {
        let _ = writeln!(text, "\nlast: {}", ended(job));
    }
    if !status.deaths.is_empty() {
        let _ = writeln!(text, "\nprocesses that ended:");
        status.deaths.iter().take(DEATHS_SHOWN).for_each(|death| text.push_str(&tomb(death)));
    }
    text
}

/// A version that is tried, and what it is tried beside.
fn trial(TriedModule { module, failing, tried }: &TriedModule) -> String {
    let since = jiff::Timestamp::from_second(tried.deployed.since_s).map(|since| format!(" since {since}"));
    let failing = if *failing { "; what is tried keeps failing, a worker does not call it" } else { "" };
    format!(
        "module {module}: {} % get version {} ({}) from {}{}, the others version {} ({}){failing}\n",
        tried.share_percent,
        tried.version,
        short(&tried.deployed.sha256),
        tried.deployed.source,
        since.unwrap_or_default(),
        tried.current_version,
        short(&tried.current_sha256)
    )
}

/// The outcome of a job in one sentence, or a list.
pub(crate) fn ended(job: &Job) -> String {
    let kind = &job.kind;
    match &job.verdict {
        None => format!("{kind} {}: {}", job.job, job.step),
        Some(Verdict::Done) if ["reload", "deploy", "rollback", "upgrade"].contains(&kind.as_str()) => {
            format!("{kind} done, generation {} is in force", job.generation)
        }
        Some(Verdict::Done) => format!("{kind} done"),
        Some(Verdict::Unchanged) => format!("{kind}: nothing has changed, nothing was done"),
        Some(Verdict::Rejected { reasons }) => {
            crate::output::listed(&format!("{kind} rejected, nothing was touched"), reasons)
        }
        Some(Verdict::Incompatible { reasons }) => {
            let heading = format!(
                "{kind} refused, nothing was touched: others would notice (--force does it all the same, but not with --share)"
            );
            crate::output::listed(&heading, reasons)
        }
        Some(Verdict::RolledBack { reason }) => format!("{kind} rolled back: {reason}"),
        Some(Verdict::Superseded) => format!("{kind} superseded by a newer request before it began"),
    }
}

fn row(worker: &WorkerStatus) -> [String; 10] {
    [
        worker.slot.to_string(),
        worker.generation.to_string(),
        worker.pid.to_string(),
        worker.state.clone(),
        span(worker.uptime_ms),
        worker.connections.to_string(),
        worker.in_flight.to_string(),
        worker.requests.to_string(),
        size(worker.resident_bytes),
        worker.lag.to_string(),
    ]
}

fn tomb(death: &Death) -> String {
    let Death { who, pid, generation, reason, ago_ms } = death;
    format!("  {who} (pid {pid}, generation {generation}) {reason}, {} ago\n", span(*ago_ms))
}

/// Aligned columns; the state is text, the rest are numbers and stand to the right.
fn table(rows: &[[String; 10]]) -> String {
    const STATE: usize = 3;
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([HEADINGS[column].len()]).max()
    };
    let widths: Vec<_> = (0..HEADINGS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: [&str; 10]| {
        let cell = |(column, cell): (usize, &str)| match column {
            STATE => format!("{cell:<width$}", width = widths[column]),
            _ => format!("{cell:>width$}", width = widths[column]),
        };
        let cells: Vec<_> = cells.into_iter().enumerate().map(cell).collect();
        format!("{}\n", cells.join("  "))
    };
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(HEADINGS)).chain(body).collect()
}

/// Enough of a digest to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A time in its two largest units.
fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A size in mebibytes, with one digit after the point.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB)
}
