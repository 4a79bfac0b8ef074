//! A web server on which a team publishes its modules: files that can be replaced, and nothing else.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::json;
use sha2::{Digest, Sha256};

type Files = BTreeMap<String, Vec<u8>>;

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Publisher {
    address: SocketAddr,
    files: Arc<Mutex<Files>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// A server with nothing on it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the publisher");
        let address = listener.local_addr().expect("the address of the publisher");
        let (files, is_over) = (Arc::new(Mutex::new(Files::new())), Arc::new(AtomicBool::new(false)));
        let (served, over) = (Arc::clone(&files), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let served = Arc::clone(&served);
                thread::spawn(move || answer(stream, &served));
            }
        });
        Self { address, files, is_over, thread: Some(thread) }
    }

    /// Where a module is published.
    #[must_use]
    pub fn source(&self, module: &str) -> String {
        format!("http://{}/{module}/", self.address)
    }

    /// Publishes a component with a manifest that tells the truth about it.
    pub fn publish(&self, module: &str, component: &[u8]) {
        let sha256 = format!("{:x}", Sha256::digest(component));
        self.publish_as(module, component, &sha256);
    }

    /// Publishes a component with a manifest that says it has this digest.
    pub fn publish_as(&self, module: &str, component: &[u8], sha256: &str) {
        let claim = json!({ "path": "module.wasm", "sha256": sha256, "size": component.len() });
        let manifest = json!({ "schema": "aegis.module/1", "component": claim }).to_string();
        let mut files = locked(&self.files);
        files.insert(format!("/{module}/module.wasm"), component.to_owned());
        files.insert(format!("/{module}/aegis.module.json"), manifest.into_bytes());
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread; if that fails, the listener is gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn locked(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream, files: &Mutex<Files>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let _ = lines.find(String::is_empty);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = locked(files).get(path).cloned();
    let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // Whoever hangs up has had enough.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}
