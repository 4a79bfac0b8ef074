//! A blocking HTTP/1.1 connection that says exactly how a request failed.
//!
//! A general client hides what the tests are about: which connection, which attempt, reset or end of file.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

const HEADERS_MAX: usize = 64;
const READ_BYTES: usize = 16 * 1024;

/// How a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection was reset before the response was complete.
    Reset,
    /// The connection ended before the response was complete.
    EndOfFile,
    /// No response in time.
    Timeout,
    /// A response with a status that the caller did not want.
    Status(u16),
    /// Bytes that are no response.
    Garbage,
    /// Another error of the operating system.
    Other(io::ErrorKind),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "status {status}"),
            other => write!(formatter, "{other:?}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            io::ErrorKind::UnexpectedEof => Self::EndOfFile,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            kind => Self::Other(kind),
        }
    }
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header field, by lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Number of the worker that answered, `slot.generation`.
    #[must_use]
    pub fn worker(&self) -> &str {
        self.header("aegis-worker").unwrap_or("")
    }

    /// Log position that the answer reflects.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.header("aegis-seq").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether the server announced that it closes the connection.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    host: String,
    unread: Vec<u8>,
}

trait Stream: Read + Write + Send {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Stream for UnixStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Connection {
    /// Connects over TCP.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_timeout(timeout)?;
        stream.set_nodelay(true)?;
        Ok(Self::from_stream(stream, &address.to_string()))
    }

    /// Takes a connection that was opened elsewhere.
    #[must_use]
    pub fn from_stream(stream: TcpStream, host: &str) -> Self {
        Self { stream: Box::new(stream), host: host.to_owned(), unread: Vec::new() }
    }

    /// Connects to a Unix socket.
    pub fn open_unix(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path)?;
        stream.set_timeout(timeout)?;
        Ok(Self { stream: Box::new(stream), host: "localhost".to_owned(), unread: Vec::new() })
    }

    /// Sends a request and reads its response.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        let bytes = encode(method, path, &self.host, headers, body);
        self.send(&bytes)?;
        self.receive(method == "HEAD")
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads the next response.
    pub fn receive(&mut self, head_only: bool) -> Result<Response, Failure> {
        let (mut response, length) = loop {
            if let Some((head, length, used)) = parse_head(&self.unread)? {
                self.unread.drain(..used);
                break (head, length);
            }
            self.fill()?;
        };
        response.body = match length {
            _ if head_only || response.status == 204 || response.status == 304 => Vec::new(),
            BodyLength::Known(length) => self.receive_bytes(length)?,
            BodyLength::Chunked => self.receive_chunks()?,
        };
        Ok(response)
    }

    /// Reads the next response, waiting no longer than `timeout`.
    pub fn receive_after(&mut self, timeout: Duration) -> Result<Response, Failure> {
        self.stream.set_timeout(timeout)?;
        let result = self.receive(false);
        self.stream.set_timeout(crate::client::REQUEST_TIMEOUT)?;
        result
    }

    /// Reads one line, up to and without its line feed. For event streams.
    pub fn receive_line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill()?;
        }
    }

    /// Reads a response head only; the body stays unread. For event streams.
    pub fn receive_head(&mut self) -> Result<Response, Failure> {
        loop {
            if let Some((head, _, used)) = parse_head(&self.unread)? {
                self.unread.drain(..used);
                return Ok(head);
            }
            self.fill()?;
        }
    }

    /// Reads so many bytes of a body whose head was read before.
    pub fn receive_bytes(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.unread.len() < length {
            self.fill()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn receive_chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let line = self.receive_line()?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(|_| Failure::Garbage)?;
            while self.unread.len() < length + 2 {
                self.fill()?;
            }
            body.extend(self.unread.drain(..length));
            self.unread.drain(..2);
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn fill(&mut self) -> Result<(), Failure> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Failure::EndOfFile),
                Ok(count) => break self.unread.extend_from_slice(&bytes[..count]),
                // This process was stopped for a while.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes.
    Known(usize),
    /// Chunked transfer coding.
    Chunked,
}

/// Writes a request.
#[must_use]
pub fn encode(method: &str, path: &str, host: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Parses a response head: the response without body, how its body ends, and how many bytes the head took.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(Response, BodyLength, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let used = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Garbage),
    };
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let response = Response { status: parsed.code.unwrap_or(0), headers, body: Vec::new() };
    let length = match response.header("content-length") {
        Some(text) => BodyLength::Known(text.parse().map_err(|_| Failure::Garbage)?),
        None if response.header("transfer-encoding") == Some("chunked") => BodyLength::Chunked,
        None => BodyLength::Known(0),
    };
    Ok(Some((response, length, used)))
}
