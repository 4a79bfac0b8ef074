//! A service over `wasi:http` 0.3 as anybody would write it: nothing in it is of Ægis.
//!
//! It says its name and the path with its query, which it was asked for. A path that ends in one of these words gets
//! something else: `echo` the request's headers, body and trailers, as they come, with status 201; `through` the body
//! without a look at it; `pour` 8 MiB; `whole` the number of bytes of the body, once all are there; `nth` the number of
//! requests that the instance has had; `meet` the same, once as many have come to meet as the query says; `ask` the answer
//! of the host that the query names; `spin` nothing, ever; `turn` the same, letting others run at each turn; `wait` the
//! same, at rest; `block` the same, letting nobody else run; `trap` a failure; `late` a failure after the head; `linger` an
//! answer and then no end; `refuse` an error; `hoard` as much memory as there is; `open` streams without end.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use wasip3::{
    clocks::monotonic_clock,
    exports::http::handler::Guest,
    http::{
        client,
        types::{ErrorCode, Fields, Request, Response, Scheme, Trailers},
    },
    wit_bindgen::{
        FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter, spawn_local, yield_async,
    },
    wit_future, wit_stream,
};

wasip3::http::service::export!(Hello);

/// What it is called; tests write another name over it.
const NAME: &str = "hello-0.3-one";
/// Bytes that are read or written at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces of `pour`.
const PIECES: usize = 128;
/// Longer than anybody waits, nanoseconds.
const LONG: u64 = 3_600_000_000_000;

/// Between two looks whether all have come, nanoseconds.
const LOOK: u64 = 1_000_000;

static REQUESTS: AtomicU32 = AtomicU32::new(0);
/// Those that have come to meet.
static MEETING: AtomicU32 = AtomicU32::new(0);

struct Hello;

/// How a body ends.
type End = Result<Option<Trailers>, ErrorCode>;

impl Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path.rsplit('/').next().unwrap_or_default() {
            "echo" => Ok(echo(request)),
            "through" => Ok(through(request)),
            "pour" => Ok(pour()),
            "whole" => Ok(text(whole(request).await?.to_string())),
            "nth" => Ok(text(number.to_string())),
            "meet" => {
                MEETING.fetch_add(1, Ordering::Relaxed);
                while MEETING.load(Ordering::Relaxed) < query.parse().unwrap_or(0) {
                    monotonic_clock::wait_for(LOOK).await;
                }
                Ok(text(number.to_string()))
            }
            "ask" => ask(query).await,
            "spin" => loop {
                std::hint::spin_loop();
            },
            "turn" => loop {
                yield_async().await;
            },
            "wait" => {
                monotonic_clock::wait_for(LONG).await;
                Err(ErrorCode::HttpResponseTimeout)
            }
            "block" => loop {
                std::thread::sleep(Duration::from_nanos(LONG));
            },
            "trap" => {
                eprintln!("about to fail");
                panic!("as it was asked to")
            }
            "late" => Ok(late()),
            "linger" => Ok(linger()),
            "refuse" => Err(ErrorCode::ConfigurationError),
            "hoard" => Ok(text(hoard().to_string())),
            "open" => {
                let mut open = Vec::new();
                loop {
                    open.push(wit_stream::new::<u8>());
                }
            }
            _ => Ok(text(format!("{NAME}{target}"))),
        }
    }
}

/// An answer with this body.
fn answer(body: StreamReader<u8>, end: FutureReader<End>) -> Response {
    let headers = Fields::from_list(&[("x-service".to_owned(), NAME.into())]).expect("plain headers");
    Response::new(headers, Some(body), end).0
}

/// Who says how a body ends, and who is told; nothing is said but that it has.
fn end() -> (FutureWriter<End>, FutureReader<End>) {
    wit_future::new(|| Ok(None))
}

fn text(text: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, end) = end();
    spawn_local(async move {
        writer.write_all(text.into_bytes()).await;
    });
    answer(reader, end)
}

fn consumed(request: Request) -> (StreamReader<u8>, FutureReader<End>) {
    let (_, processed) = wit_future::new(|| Ok(()));
    Request::consume_body(request, processed)
}

fn echo(request: Request) -> Response {
    let headers = request.get_headers().clone();
    let (mut incoming, trailers) = consumed(request);
    let (mut writer, reader) = wit_stream::new();
    let (ended, end) = end();
    spawn_local(async move {
        copy(&mut incoming, &mut writer).await;
        drop(writer);
        let _ = ended.write(trailers.await).await;
    });
    let response = Response::new(headers, Some(reader), end).0;
    response.set_status_code(201).expect("a plain status");
    response
}

async fn copy(from: &mut StreamReader<u8>, to: &mut StreamWriter<u8>) {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        let (result, read) = from.read(piece).await;
        if !to.write_all(read).await.is_empty() || !matches!(result, StreamResult::Complete(_)) {
            return;
        }
        piece = Vec::with_capacity(PIECE_BYTES);
    }
}

fn through(request: Request) -> Response {
    let (incoming, trailers) = consumed(request);
    answer(incoming, trailers)
}

fn pour() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, end) = end();
    spawn_local(async move {
        for _ in 0..PIECES {
            if !writer.write_all(vec![b'.'; PIECE_BYTES]).await.is_empty() {
                return;
            }
        }
    });
    answer(reader, end)
}

async fn whole(request: Request) -> Result<usize, ErrorCode> {
    let (incoming, trailers) = consumed(request);
    let body = incoming.collect().await;
    trailers.await?;
    Ok(body.len())
}

async fn ask(authority: &str) -> Result<Response, ErrorCode> {
    let (_, end) = end();
    let (request, _) = Request::new(Fields::new(), None, end, None);
    let is_set = request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some("/")).is_ok();
    if !is_set {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    match client::send(request).await {
        Ok(theirs) => {
            let status = theirs.get_status_code();
            let (_, processed) = wit_future::new(|| Ok(()));
            let (body, trailers) = Response::consume_body(theirs, processed);
            let ours = answer(body, trailers);
            ours.set_status_code(status).map_err(|()| ErrorCode::HttpProtocolError)?;
            Ok(ours)
        }
        Err(error) => {
            let ours = text(format!("{error:?}"));
            ours.set_status_code(502).map_err(|()| ErrorCode::HttpProtocolError)?;
            Ok(ours)
        }
    }
}

fn late() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, end) = end();
    spawn_local(async move {
        writer.write_all(b"so far so good".to_vec()).await;
        panic!("as it was asked to");
    });
    answer(reader, end)
}

fn linger() -> Response {
    let response = text(NAME.to_owned());
    spawn_local(monotonic_clock::wait_for(LONG));
    response
}

/// Pieces of memory that there were.
fn hoard() -> usize {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(1024 * 1024).is_err() {
            return pieces.len();
        }
        piece.resize(1024 * 1024, 1);
        pieces.push(piece);
    }
}
