//! A request to a custom route, and its answer, both whole.

use aegis_domain::route::Verb;
use bytes::Bytes;

use crate::contract::{routing::exports::aegis::module::routes, spec, types};

/// A request to a custom route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRequest {
    /// The method that the route declares.
    pub method: Verb,
    /// The pattern, as it is declared.
    pub route: String,
    /// The path, as it was sent.
    pub path: String,
    /// The query, as it was sent, without the question mark.
    pub query: String,
    /// The parts in braces, by name, decoded.
    pub params: Vec<(String, String)>,
    /// Header fields; names are lower case.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
}

/// What a custom route answers. Nobody has looked at it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteResponse {
    /// The status code.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
}

impl From<RouteRequest> for routes::Request {
    fn from(request: RouteRequest) -> Self {
        let header = |(name, value): (String, Bytes)| types::Header { name, value: value.into() };
        Self {
            method: match request.method {
                Verb::Get => spec::HttpMethod::Get,
                Verb::Head => spec::HttpMethod::Head,
                Verb::Post => spec::HttpMethod::Post,
                Verb::Put => spec::HttpMethod::Put,
                Verb::Patch => spec::HttpMethod::Patch,
                Verb::Delete => spec::HttpMethod::Delete,
                Verb::Options => spec::HttpMethod::Options,
            },
            route: request.route,
            path: request.path,
            query: request.query,
            params: request.params,
            headers: request.headers.into_iter().map(header).collect(),
            body: request.body.into(),
        }
    }
}

impl From<routes::Response> for RouteResponse {
    fn from(response: routes::Response) -> Self {
        let header = |header: types::Header| (header.name, Bytes::from(header.value));
        Self {
            status: response.status,
            headers: response.headers.into_iter().map(header).collect(),
            body: response.body.into(),
        }
    }
}
