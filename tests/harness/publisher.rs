//! A web server on which a team publishes its modules: files that can be replaced, and nothing else.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
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
    /// Status and path of every answer.
    answered: Arc<Mutex<Vec<(u16, String)>>>,
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
        let answered = Arc::new(Mutex::new(Vec::new()));
        let (served, noted, over) = (Arc::clone(&files), Arc::clone(&answered), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (served, noted) = (Arc::clone(&served), Arc::clone(&noted));
                thread::spawn(move || answer(stream, &served, &noted));
            }
        });
        Self { address, files, answered, is_over, thread: Some(thread) }
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

    /// Publishes what is in a folder, and nothing else that was there.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn publish_folder(&self, module: &str, folder: &Path) {
        let mut files = locked(&self.files);
        files.retain(|path, _| !path.starts_with(&format!("/{module}/")));
        for file in fs::read_dir(folder).expect("list what is published").flatten() {
            let content = fs::read(file.path()).expect("read what is published");
            files.insert(format!("/{module}/{}", file.file_name().to_string_lossy()), content);
        }
    }

    /// Publishes a component in a version, and an index with these versions.
    pub fn publish_version(&self, module: &str, version: &str, component: &[u8], versions: &[&str]) {
        let sha256 = format!("{:x}", Sha256::digest(component));
        let claim = json!({ "path": "module.wasm", "sha256": sha256, "size": component.len() });
        let manifest = json!({ "schema": "aegis.module/1", "version": version, "component": claim });
        let versions: Vec<_> = versions.iter().map(|version| json!({ "version": version })).collect();
        let index = json!({ "schema": "aegis.index/1", "versions": versions });
        let mut files = locked(&self.files);
        files.insert(format!("/{module}/{version}/module.wasm"), component.to_owned());
        files.insert(format!("/{module}/{version}/aegis.module.json"), manifest.to_string().into_bytes());
        files.insert(format!("/{module}/aegis.index.json"), index.to_string().into_bytes());
    }

    /// Where the contents API of the git host is that this server is as well.
    #[must_use]
    pub fn git_host(&self) -> String {
        format!("http://{}/v3/", self.address)
    }

    /// Commits a component with its manifest to a folder on a branch; `repository` is `OWNER/NAME`.
    pub fn commit(&self, repository: &str, folder: &str, branch: &str, component: &[u8]) {
        let sha256 = format!("{:x}", Sha256::digest(component));
        let claim = json!({ "path": "module.wasm", "sha256": sha256, "size": component.len() });
        let manifest = json!({ "schema": "aegis.module/1", "component": claim }).to_string().into_bytes();
        let mut files = locked(&self.files);
        for (file, content) in [("aegis.module.json", manifest), ("module.wasm", component.to_owned())] {
            files.insert(format!("/v3/repos/{repository}/contents/{folder}/{file}?ref={branch}"), content);
        }
    }

    /// Where a module is in the registry that this server is as well.
    #[must_use]
    pub fn registry(&self, module: &str) -> String {
        format!("oci://{}/{module}", self.address)
    }

    /// Pushes a component to the registry under a tag, with a manifest that is about `meant`.
    pub fn push(&self, module: &str, tag: &str, component: &[u8], meant: &[u8]) {
        let digest = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
        let claim = json!({ "sha256": digest(meant), "size": meant.len() });
        let about = json!({ "schema": "aegis.module/1", "component": claim }).to_string().into_bytes();
        let layer = |media_type: &str, bytes: &[u8]| {
            let digest = format!("sha256:{}", digest(bytes));
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
        };
        let layers =
            [layer("application/wasm", component), layer("application/vnd.aegis.module.v1+json", &about)];
        let manifest = json!({ "schemaVersion": 2, "layers": layers }).to_string().into_bytes();
        let mut files = locked(&self.files);
        for blob in [component, &about] {
            files.insert(format!("/v2/{module}/blobs/sha256:{}", digest(blob)), blob.to_owned());
        }
        files.insert(format!("/v2/{module}/manifests/{tag}"), manifest);
    }

    /// How often a path was answered with this status.
    #[must_use]
    pub fn answered(&self, status: u16, path: &str) -> usize {
        let answered = locked(&self.answered);
        answered.iter().filter(|(found, asked)| *found == status && asked == path).count()
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

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream, files: &Mutex<Files>, answered: &Mutex<Vec<(u16, String)>>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let known = head.iter().find_map(|line| line.strip_prefix("if-none-match: "));
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = locked(files).get(path).cloned();
    let tag = found.as_ref().map(|body| format!("\"{:x}\"", Sha256::digest(body))).unwrap_or_default();
    let (status, words, body) = match found {
        None => (404, "Not Found", Vec::new()),
        Some(_) if known == Some(tag.as_str()) => (304, "Not Modified", Vec::new()),
        Some(body) => (200, "OK", body),
    };
    locked(answered).push((status, path.to_owned()));
    let length = if status == 304 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} {words}\r\netag: {tag}\r\n{length}connection: close\r\n\r\n");
    // Whoever hangs up has had enough.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}
