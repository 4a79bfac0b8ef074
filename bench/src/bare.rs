//! The limit: bare hyper servers. One of two processes on one shared socket answers fixed bytes; one of two threads
//! puts the storage engine behind its socket and does nothing else, see [`storing`].

mod storing;

use std::{
    convert::Infallible,
    env,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
    process::{Child, Command, ExitCode, Stdio},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

const VARIABLE: &str = "AEGIS_BENCH_RESPONSE";
const PROCESSES: usize = 2;

/// A running bare server.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    children: Vec<Child>,
}

impl Bare {
    /// Starts two processes that answer every request with these headers and this body.
    pub(crate) fn start(headers: &[(String, String)], body: &[u8]) -> Self {
        Self::start_as("bare", PROCESSES, headers, body)
    }

    /// Starts one process that answers a request with these headers and the body it came with, once that is durable.
    pub(crate) fn start_storing(headers: &[(String, String)]) -> Self {
        Self::start_as("storing", 1, headers, b"")
    }

    fn start_as(role: &str, processes: usize, headers: &[(String, String)], body: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let address = listener.local_addr().expect("a bound address");
        listener.set_nonblocking(true).expect("non-blocking");
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
        let response = serde_json::json!({ "headers": headers, "body": String::from_utf8_lossy(body) });
        let children = (0..processes)
            .map(|_| {
                Command::new(env::current_exe().expect("own path"))
                    .args([role, &listener.as_raw_fd().to_string()])
                    .env(VARIABLE, response.to_string())
                    .stdin(Stdio::null())
                    .spawn()
                    .expect("start the bare server")
            })
            .collect();
        Self { address, children }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a child was given.
struct Given {
    listener: TcpListener,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// The role of a child: serve on an inherited socket until killed.
pub(crate) fn serve(descriptor: Option<String>) -> ExitCode {
    let given = match given(descriptor) {
        Ok(given) => given,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::from(71) };
    runtime.block_on(accept(given.listener, given.headers, given.body))
}

/// As [`serve`], for a child that stores.
pub(crate) fn serve_storing(descriptor: Option<String>) -> ExitCode {
    match given(descriptor) {
        Ok(given) => storing::serve(&given.listener, &given.headers),
        Err(code) => code,
    }
}

fn given(descriptor: Option<String>) -> Result<Given, ExitCode> {
    let descriptor =
        descriptor.and_then(|text| text.parse::<i32>().ok()).ok_or_else(|| ExitCode::from(64))?;
    let text = env::var(VARIABLE).unwrap_or_default();
    let given: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let mut headers = Vec::new();
    for pair in given["headers"].as_array().into_iter().flatten() {
        let (name, value) = (pair[0].as_str().unwrap_or(""), pair[1].as_str().unwrap_or(""));
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.push((name, value));
        }
    }
    let body = Bytes::from(given["body"].as_str().unwrap_or("").to_owned());
    let socket = aegis_ipc::handoff::adopt(descriptor, "listening socket").map_err(|_| ExitCode::from(71))?;
    Ok(Given { listener: TcpListener::from(socket), headers, body })
}

async fn accept(listener: TcpListener, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> ExitCode {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return ExitCode::from(71) };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (headers, body) = (headers.clone(), body.clone());
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                for (name, value) in &headers {
                    response.headers_mut().insert(name.clone(), value.clone());
                }
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
