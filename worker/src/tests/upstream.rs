//! Another system: it takes note of what it is asked and answers what it is told to.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// A server on a port of its own. It ends with this.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    task: AbortHandle,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

/// Takes note that a connection is over, however it ends.
struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream {
    /// Answers each request, which ends with its body, with what `answer` makes of it: the bytes of a whole answer.
    /// Without any it says nothing and waits until the other side hangs up. What ends in `connection: close` and an
    /// empty line is its last word.
    pub(crate) async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_over(answer, |stream: TcpStream| async { Some(stream) }).await
    }

    /// The same, over what becomes of a connection.
    pub(crate) async fn start_over<S, F>(
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answer) = (Arc::new(Seen::default()), Arc::new(answer));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                noted.accepted.fetch_add(1, Ordering::SeqCst);
                noted.open.fetch_add(1, Ordering::SeqCst);
                let (open, answer, stream) = (Open(Arc::clone(&noted)), Arc::clone(&answer), wrap(stream));
                tokio::spawn(async move {
                    if let Some(stream) = stream.await {
                        serve(stream, &open.0, &*answer).await;
                    }
                });
            }
        });
        Self { address, seen, task: task.abort_handle() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked, as it came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().clone()
    }

    /// Connections that ever came.
    pub(crate) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are there now.
    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Seen,
    answer: &(dyn Fn(&str) -> String + Send + Sync),
) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            match whole(&buffer) {
                Some(end) => break end,
                None if matches!(stream.read_buf(&mut buffer).await, Ok(1..)) => {}
                None => return,
            }
        };
        let request = String::from_utf8(buffer.drain(..end).collect()).unwrap();
        let answer = answer(&request);
        seen.requests.lock().push(request);
        if answer.is_empty() {
            while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {}
            return;
        }
        if stream.write_all(answer.as_bytes()).await.is_err() || answer.contains("connection: close\r\n") {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Where the first request ends, if it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
    let length =
        text.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}

/// A whole answer.
pub(crate) fn answering(status: u16, fields: &str, body: &str) -> String {
    let fields: String = fields.lines().map(|field| format!("{field}\r\n")).collect();
    format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
}
