//! Services beside `wasmtime serve`, which runs the very same file.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aegis_harness::{App, Client, Start};

use crate::{
    Options, median,
    rows::{Row, clean, not_measured, rate, row},
    told,
    wrk::{self, Load},
};

const PATH: &str = "/hello/there";
/// The service of WASI 0.3.
const NEWER: &str = "tests/guests/hello/components/rust.wasm";
/// Requests of one instance where instances are used again: what `wasmtime serve` takes for components that it reuses.
const REUSED: u64 = 128;
/// Requests of one instance at a time where they share one: what `wasmtime serve` takes.
const AT_A_TIME: u32 = 16;

/// What is measured.
struct Contest {
    /// In words.
    how: &'static str,
    /// Or why there is none.
    component: Result<Vec<u8>, String>,
    /// What `wasmtime serve` has to be told to run it.
    options: &'static [&'static str],
    /// Requests of one instance.
    reuse: u64,
    /// How many of them at a time; the peer has its own mind where it is one.
    at_a_time: u32,
    /// The least ratio.
    least: f64,
}

impl Contest {
    fn all() -> Vec<Self> {
        let newer =
            || fs::read(NEWER).map_err(|error| format!("{NEWER}: {error}; `scripts/guests rust` builds it"));
        let older = || Ok(aegis_guests::service("hello"));
        let contest = |how, component, options, (reuse, at_a_time), least| Self {
            how,
            component,
            options,
            reuse,
            at_a_time,
            least,
        };
        let options: &[&str] = &["-Scli"];
        vec![
            contest("a fresh instance each", older(), &[], (1, 1), 1.0),
            contest("instances used again", older(), &[], (REUSED, 1), 0.9),
            contest("of WASI 0.3, a fresh instance each", newer(), options, (1, 1), 1.0),
            contest("of WASI 0.3, instances used again", newer(), options, (REUSED, 1), 0.9),
            contest("of WASI 0.3, several at a time", newer(), options, (REUSED, AT_A_TIME), 0.9),
        ]
    }

    /// What `wasmtime serve` is told where requests share instances.
    fn shares(&self) -> Option<String> {
        (self.at_a_time > 1).then(|| format!("--max-instance-concurrent-reuse-count={}", self.at_a_time))
    }
}

/// A running `wasmtime serve`.
struct Wasmtime {
    address: SocketAddr,
    child: Child,
}

impl Wasmtime {
    /// Starts it, or says why not.
    fn start(component: &Path, contest: &Contest) -> Result<Self, String> {
        let program = std::env::var_os("WASMTIME_BIN").unwrap_or_else(|| "wasmtime".into());
        let address = free_address();
        let child = Command::new(program)
            .args(["serve", "--addr", &address.to_string()])
            .args(["--max-instance-reuse-count", &contest.reuse.to_string()])
            .args(contest.shares())
            .args(contest.options)
            .arg(component)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("wasmtime: {error}"))?;
        let wasmtime = Self { address, child };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > end {
                return Err("wasmtime does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(wasmtime)
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    listener.local_addr().expect("a bound address")
}

/// Measures small components that answer with the path they were asked for.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let contests = Contest::all();
    contests
        .iter()
        .map(|contest| {
            let name = format!("service, {} / wasmtime serve", contest.how);
            serve(options, contest, &name).unwrap_or_else(|reason| not_measured(&name, &reason))
        })
        .collect()
}

/// Status, headers and body of an answer, without what a host adds of its own.
fn answered(address: SocketAddr) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let response = Client::new(address).send("GET", PATH, b"");
    let added = ["date", "x-request-id", "aegis-worker", "aegis-seq", "transfer-encoding"];
    let headers = response.headers.into_iter().filter(|(name, _)| !added.contains(&name.as_str()));
    (response.status, headers.collect(), response.body)
}

fn serve(options: &Options, contest: &Contest, name: &str) -> Result<Row, String> {
    let Contest { how, component, reuse, at_a_time, least, .. } = contest;
    let bytes = component.as_ref().map_err(String::clone)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let component = folder.path().join("hello.wasm");
    fs::write(&component, bytes).map_err(|error| error.to_string())?;
    let limits = format!("[modules.hello.limits]\ninvocations = {reuse}\nconcurrent = {at_a_time}");
    let cluster =
        Start::app(App::todo().component("hello", bytes.clone()).settings(&limits)).workers(2).start();
    let peer = Wasmtime::start(&component, contest)?;
    assert_eq!(answered(cluster.address), answered(peer.address), "both answer the same");
    let (mut ours, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        told(&format!("a service, {how}, round {round} …"));
        let ask = |address| clean(wrk::run(address, 64, options.duration(), &Load::Get(PATH))).rate;
        let (here, there) = (ask(cluster.address), ask(peer.address));
        ratios.push(here / there);
        ours.push(here);
        beside.push(there);
    }
    let ratio = median(ratios);
    Ok(row(
        name,
        rate(median(ours)),
        rate(median(beside)),
        format!("{ratio:.2}"),
        &format!("≥ {least:.1}"),
        ratio >= *least,
    ))
}
