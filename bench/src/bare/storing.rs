//! The least that anybody has to do who creates documents over HTTP with this engine: read the request, commit its
//! body in a group with those that wait, answer. No rules, no second process, no copy for readers.

use std::{
    net::TcpListener,
    process::ExitCode,
    sync::mpsc::{self, Receiver, SyncSender},
};

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// Threads that serve: as many as the host has workers.
const THREADS: usize = 2;
/// Documents that may wait, and most in one group.
const WAITING_MAX: usize = 1024;

/// A document, and whom to tell that it is durable.
type Waiting = (Bytes, oneshot::Sender<()>);

/// Serves until killed.
pub(super) fn serve(listener: &TcpListener, headers: &[(HeaderName, HeaderValue)]) -> ExitCode {
    let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (listener, headers, sender) = (listener.try_clone(), headers.to_vec(), sender.clone());
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(accept(listener.expect("another descriptor"), headers, sender));
            })
        })
        .collect();
    write(&receiver);
    drop(threads);
    ExitCode::from(71)
}

async fn accept(listener: TcpListener, headers: Vec<(HeaderName, HeaderValue)>, sender: SyncSender<Waiting>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket for the runtime");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (headers, sender) = (headers.clone(), sender.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| create(request, &headers, &sender));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn create(
    request: Request<Incoming>,
    headers: &[(HeaderName, HeaderValue)],
    sender: &SyncSender<Waiting>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let (done, durable) = oneshot::channel();
    let taken = sender.try_send((body.clone(), done)).is_ok();
    let mut response = Response::new(Full::new(body));
    if !taken || durable.await.is_err() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    *response.status_mut() = StatusCode::CREATED;
    for (name, value) in headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(response)
}

/// Group commit: whatever came while the last group was synced is the next one.
fn write(receiver: &Receiver<Waiting>) {
    let folder = tempfile::Builder::new().prefix("aegis-bench-").tempdir().expect("a temporary folder");
    let database = Database::builder(folder.path().join("engine")).open().expect("open the engine");
    let documents = database.keyspace("documents", KeyspaceCreateOptions::default).expect("a keyspace");
    let log = database.keyspace("log", KeyspaceCreateOptions::default).expect("a keyspace");
    let mut number = 0_u64;
    while let Ok(first) = receiver.recv() {
        let group: Vec<Waiting> =
            std::iter::once(first).chain(receiver.try_iter().take(WAITING_MAX - 1)).collect();
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for (document, _) in &group {
            number += 1;
            let key = format!("TODO\0{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            batch.insert(&documents, key, &document[..]);
            batch.insert(&log, number.to_be_bytes(), &document[..]);
        }
        batch.commit().expect("commit a group");
        for (_, done) in group {
            let _ = done.send(());
        }
    }
}
