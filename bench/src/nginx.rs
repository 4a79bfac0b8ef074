//! nginx with two workers, serving the same bytes as a file.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running nginx.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts it, or says why not.
    pub(crate) fn start(body: &[u8]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let address = free_address();
        let config = format!(
            "worker_processes 2; daemon off; pid {0}/pid; error_log {0}/error.log; events {{ worker_connections 1024; }} \
             http {{ access_log off; keepalive_requests 1000000000; sendfile on; tcp_nodelay on; default_type application/json; \
             client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; \
             server {{ listen {address} backlog=4096; root {0}; }} }}",
            folder.path().display()
        );
        let path = folder.path().join("nginx.conf");
        fs::write(&path, config)
            .and_then(|()| fs::write(folder.path().join("document.json"), body))
            .map_err(|error| error.to_string())?;
        open_to_all(folder.path());
        let child = Command::new("nginx")
            .args(["-p", folder.path().to_str().unwrap_or("."), "-c", path.to_str().unwrap_or("")])
            .args(["-g", "user root;"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nginx: {error}"))?;
        let nginx = Self { address, child, _folder: folder };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > end {
                return Err("nginx does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(nginx)
    }
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    listener.local_addr().expect("a bound address")
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
