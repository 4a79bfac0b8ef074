//! wrk as the load: the same program and settings for everyone.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

/// What one run of wrk measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) errors: u64,
}

/// What wrk sends.
#[derive(Debug, Clone)]
pub(crate) enum Load<'a> {
    /// GET of a path.
    Get(&'a str),
    /// GET of a path, each over a connection of its own.
    GetEach(&'a str),
    /// GET of a path with this value of `Authorization`.
    GetAs(&'a str, &'a str),
    /// POST of a JSON body to a path.
    Post(&'a str, &'a str),
}

/// Runs wrk.
pub(crate) fn run(address: SocketAddr, connections: usize, duration: Duration, load: &Load<'_>) -> Measured {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("script.lua");
    let (path, setup) = match load {
        Load::Get(path) => (*path, String::new()),
        Load::GetEach(path) => (*path, "wrk.headers['connection'] = 'close'\n".to_owned()),
        Load::GetAs(path, bearer) => (*path, format!("wrk.headers['authorization'] = '{bearer}'\n")),
        Load::Post(path, body) => (
            *path,
            format!(
                "wrk.method = 'POST'\nwrk.body = [=[{body}]=]\nwrk.headers['content-type'] = 'application/json'\n"
            ),
        ),
    };
    let report = "function done(summary, latency)\n  local e = summary.errors\n  io.write(string.format('MEASURED %d %d %d %d %d\\n', summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))\nend\n";
    fs::write(&script, setup + report).expect("write the script");
    let threads = connections.min(2).to_string();
    let output = Command::new("wrk")
        .args(["-t", &threads, "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", duration.as_secs().max(1)), "-s"])
        .arg(&script)
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("wrk is installed (Debian: apt-get install wrk)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("MEASURED "));
    let line = line.unwrap_or_else(|| panic!("wrk said: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let numbers: Vec<u64> = line.split(' ').filter_map(|text| text.parse().ok()).collect();
    let [requests, microseconds, p50, p99, errors] = numbers[..] else { panic!("wrk said {line}") };
    Measured {
        rate: requests as f64 / (microseconds as f64 / 1e6),
        p50: Duration::from_micros(p50),
        p99: Duration::from_micros(p99),
        errors,
    }
}
