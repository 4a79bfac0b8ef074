//! This host, as an operator starts it.

use std::time::{Duration, Instant};

use aegis_harness::{App, Cluster, Start};
use serde_json::json;

/// The document everybody serves, about 300 bytes.
pub(crate) fn document(id: &str) -> serde_json::Value {
    json!({
        "id": id,
        "text": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod",
        "isComplete": false,
        "n": 7,
        "tags": ["a", "b", "c"],
        "customer": {"name": "Ada", "city": "London"}
    })
}

/// Starts the host with two workers and one document `bench`; also how long it took to be ready.
pub(crate) fn start(settings: &str) -> (Cluster, Duration) {
    let begun = Instant::now();
    let cluster = Start::app(App::todo().settings(settings)).workers(2).start();
    let ready = begun.elapsed();
    assert_eq!(cluster.client().post("todo", &document("bench")).status, 201);
    (cluster, ready)
}

/// Path of the document.
pub(crate) const PATH: &str = "/aegis/api/models/todo/bench";
