//! A client that speaks in models: one request, one answer, asserting nothing by itself.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use crate::http::{Connection, Failure, Response};

/// Time a test's request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Where the models are served by default.
pub const MODELS: &str = "/aegis/api/models";

/// Opens a connection per request, so that requests reach any worker.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client of the cluster that listens at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// The same client with one more header on each request.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// A connection of its own, pinned to the worker that accepts it.
    pub fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(self.address, REQUEST_TIMEOUT)
    }

    /// Any request on a connection of its own.
    pub fn try_send(&self, method: &str, path: &str, body: &[u8]) -> Result<Response, Failure> {
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let says_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !body.is_empty() && !says_type {
            headers.push(("content-type", "application/json"));
        }
        headers.push(("connection", "close"));
        self.connect()?.request(method, path, &headers, body)
    }

    /// Any request.
    ///
    /// # Panics
    /// When there is no response.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Response {
        self.try_send(method, path, body).unwrap_or_else(|failure| panic!("{method} {path}: {failure}"))
    }

    /// GET of a path below the models.
    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        self.send("GET", &format!("{MODELS}/{path}"), b"")
    }

    /// POST of a JSON document to a path below the models.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", &format!("{MODELS}/{path}"), body.to_string().as_bytes())
    }

    /// PUT of a JSON document to a path below the models.
    #[must_use]
    pub fn put(&self, path: &str, body: &Value) -> Response {
        self.send("PUT", &format!("{MODELS}/{path}"), body.to_string().as_bytes())
    }

    /// PATCH (merge patch) of a path below the models.
    #[must_use]
    pub fn patch(&self, path: &str, body: &Value) -> Response {
        self.send("PATCH", &format!("{MODELS}/{path}"), body.to_string().as_bytes())
    }

    /// DELETE of a path below the models.
    #[must_use]
    pub fn delete(&self, path: &str) -> Response {
        self.send("DELETE", &format!("{MODELS}/{path}"), b"")
    }

    /// Creates a document and gives its id.
    ///
    /// # Panics
    /// When it is not created.
    #[must_use]
    pub fn create(&self, model: &str, body: &Value) -> String {
        let response = self.post(model, body);
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["id"].as_str().expect("a created document has an id").to_owned()
    }
}
