//! Custom routes: paths that the code answers itself.

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use crate::bindings::aegis::module::spec::HttpMethod as Method;
use crate::{
    Context, Headers, Model, Refusal, Response,
    bindings::{aegis::module::spec::RouteSpec, routes::exports::aegis::module::routes},
    message,
};

type Run = dyn Fn(&RouteRequest, &Context) -> Result<Response, Refusal>;

/// A request to a custom route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRequest {
    /// Its method.
    pub method: Method,
    /// The pattern of the route.
    pub route: String,
    /// The path as it was sent.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    /// The parts in braces, decoded.
    pub params: Vec<(String, String)>,
    /// Its header fields.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

impl RouteRequest {
    /// A part in braces; nothing when the pattern has none of this name.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Errors
    /// When it is no UTF-8.
    pub fn text(&self) -> Result<&str, Refusal> {
        message::text(&self.body)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is no JSON, or of another type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        message::json(&self.body)
    }
}

impl From<routes::Request> for RouteRequest {
    fn from(request: routes::Request) -> Self {
        let routes::Request { method, route, path, query, params, headers, body } = request;
        Self { method, route, path, query, params, headers: headers.into(), body }
    }
}

impl From<Response> for routes::Response {
    fn from(response: Response) -> Self {
        let Response { status, headers, body } = response;
        Self { status, headers: headers.into(), body }
    }
}

/// A path that the code answers itself: `/{id}/label` below the model, `//labels/{id}` from the root of the host.
pub struct Route {
    pub(crate) spec: RouteSpec,
    pub(crate) run: Box<Run>,
}

impl Route {
    /// A route of any method.
    pub fn new(
        method: Method,
        path: &str,
        run: impl Fn(&RouteRequest, &Context) -> Result<Response, Refusal> + 'static,
    ) -> Self {
        let spec = RouteSpec {
            method,
            path: path.to_owned(),
            public: false,
            allow: Vec::new(),
            cpu_bound: false,
            openapi: None,
        };
        Self { spec, run: Box::new(run) }
    }

    /// It answers `GET`, and `HEAD` as well.
    pub fn get(
        path: &str,
        run: impl Fn(&RouteRequest, &Context) -> Result<Response, Refusal> + 'static,
    ) -> Self {
        Self::new(Method::Get, path, run)
    }

    /// It answers `POST`.
    pub fn post(
        path: &str,
        run: impl Fn(&RouteRequest, &Context) -> Result<Response, Refusal> + 'static,
    ) -> Self {
        Self::new(Method::Post, path, run)
    }

    /// Only callers with one of these roles may ask it; the host needs `[auth]` then.
    #[must_use]
    pub fn allow(mut self, roles: &[&str]) -> Self {
        self.spec.allow = roles.iter().map(|role| (*role).to_owned()).collect();
        self
    }

    /// Callers need no token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.spec.public = true;
        self
    }

    /// It computes for long: it runs on threads of its own and has more time.
    #[must_use]
    pub fn cpu_bound(mut self) -> Self {
        self.spec.cpu_bound = true;
        self
    }

    /// For the description of the API.
    #[must_use]
    pub fn openapi(mut self, description: &Value) -> Self {
        self.spec.openapi = Some(description.to_string());
        self
    }
}

impl Model {
    /// Adds a custom route. `export!` names `routes` then.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.spec.routes.push(route.spec.clone());
        self.routes.push(route);
        self
    }
}
