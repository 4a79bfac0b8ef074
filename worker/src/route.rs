//! Which place of the interface a path names.
//!
//! `{api_root}/models/{endpoint}/{id}` is looked up without a table walk, because most requests go there.

mod custom;

use std::{borrow::Cow, sync::Arc};

use aegis_domain::{
    Problem, ProblemCode,
    catalog::{Catalog, Model},
    query::no_such_command,
    route::{Base, Route},
    service::{ServiceSpec, is_under},
};
use http::Method;
use percent_encoding::percent_decode_str;

use self::custom::CustomRoutes;
pub(crate) use self::custom::{Candidate, Candidates};
use crate::execute::loads;

/// Models whose documents are found on the short way.
const PLAIN_MODELS_MAX: usize = 64;
/// What no endpoint can be.
const NO_SHORT_WAY: &str = "/";
/// Longest part of a path that is repeated in a problem, characters.
const QUOTED_PATH_MAX: usize = 200;

/// A place that a path can name.
#[derive(Debug)]
pub(crate) enum Place<'r, 'p> {
    /// `{api_root}/models/{endpoint}`
    Collection(&'r Arc<Model>),
    /// `{api_root}/models/{endpoint}/{id}`
    Document(&'r Arc<Model>, Cow<'p, str>),
    /// `{api_root}/models/{endpoint}/{id}/{command}`
    Command(&'r Arc<Model>, Cow<'p, str>, Cow<'p, str>),
    /// `{api_root}/events`
    Events,
    /// `{api_root}/config`
    Details,
    /// `/reload` at the root, under `{api_root}` or beside it.
    Reload,
    /// `{api_root}/deploy`
    Deploy,
    /// `{api_root}/jobs/{id}`
    Job(Cow<'p, str>),
    /// `/aegis.config.json`
    PublicConfig,
    /// `/livez`
    Alive,
    /// `/readyz`
    Ready,
    /// The route of the service at this position, or below.
    Service(usize),
    /// `/metrics`
    Metrics,
}

/// The routes of one generation.
#[derive(Debug)]
pub(crate) struct Routes {
    documents: String,
    catalog: Arc<Catalog>,
    /// Endpoints in the order of the catalog, for the short way; [`NO_SHORT_WAY`] where documents are read otherwise.
    endpoints: Vec<Box<str>>,
    api_root: String,
    /// `reload` beside the base path.
    reload_beside: String,
    /// Routes of services, in their order. None is where another place is.
    services: Vec<Box<str>>,
    custom: CustomRoutes,
}

impl Place<'_, '_> {
    /// Methods that are answered here besides `OPTIONS`, and the value of `Allow`.
    pub(crate) fn methods(&self) -> (&'static [Method], &'static str) {
        const READ: (&[Method], &str) = (&[Method::GET, Method::HEAD], "GET, HEAD, OPTIONS");
        match self {
            Self::Collection(_) => (&[Method::GET, Method::HEAD, Method::POST], "GET, HEAD, POST, OPTIONS"),
            Self::Document(..) => (
                &[Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE],
                "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            ),
            Self::Command(..) => (&[Method::PATCH, Method::POST], "PATCH, POST, OPTIONS"),
            Self::Reload | Self::Deploy => (&[Method::POST], "POST, OPTIONS"),
            Self::Events => (&[Method::GET], "GET, OPTIONS"),
            // All methods are its own business, so nobody asks.
            Self::Service(_) => (&[], ""),
            Self::Details | Self::Job(_) | Self::PublicConfig | Self::Alive | Self::Ready | Self::Metrics => {
                READ
            }
        }
    }

    /// Whether only operators are served here.
    pub(crate) fn is_admin(&self) -> bool {
        match self {
            Self::Details | Self::Reload | Self::Deploy | Self::Job(_) | Self::Metrics => true,
            Self::Collection(_)
            | Self::Document(..)
            | Self::Command(..)
            | Self::Events
            | Self::Service(_)
            | Self::PublicConfig
            | Self::Alive
            | Self::Ready => false,
        }
    }
}

impl Routes {
    /// The routes under `api_root` for the models of `catalog`, and those of services.
    pub(crate) fn new(api_root: &str, catalog: Arc<Catalog>, services: &[ServiceSpec]) -> Self {
        let endpoint =
            |model: &Arc<Model>| if is_plain(model) { model.endpoint() } else { NO_SHORT_WAY }.into();
        let endpoints = catalog.models().iter().map(endpoint).collect();
        let documents = format!("{api_root}/models/");
        let beside = api_root.rsplit_once('/').map_or("", |(parent, _)| parent);
        Self {
            custom: CustomRoutes::new(&documents, Arc::clone(&catalog)),
            documents,
            catalog,
            endpoints,
            api_root: api_root.to_owned(),
            reload_beside: format!("{beside}/reload"),
            services: services.iter().map(|service| service.route.as_str().into()).collect(),
        }
    }

    /// The path of a document, taken apart into the position of its model in the catalog and the id, if nothing in it
    /// needs a second look and the model is one of the first few.
    pub(crate) fn plain_document<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let (endpoint, id) = path.strip_prefix(self.documents.as_str())?.split_once('/')?;
        if id.is_empty() || id.bytes().any(|byte| byte == b'%' || byte == b'/') {
            return None;
        }
        // Comparing a few short texts is faster than hashing one; with many models the long way looks it up.
        let position = self.endpoints.iter().take(PLAIN_MODELS_MAX).position(|known| **known == *endpoint)?;
        Some((position, id))
    }

    /// The custom routes that `path` names. They go before the place that it names.
    pub(crate) fn custom(&self, path: &str) -> Candidates<'_> {
        self.custom.find(path)
    }

    /// The place that `path` names.
    pub(crate) fn find<'r, 'p>(&'r self, path: &'p str) -> Result<Place<'r, 'p>, Problem> {
        if let Some(place) = self.place_at_root(path) {
            return Ok(place);
        }
        let below = path.strip_prefix(self.api_root.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let mut segments = below.unwrap_or_default().split('/');
        let five: [Option<&str>; 5] = std::array::from_fn(|_| segments.next());
        Ok(match five {
            [Some("events"), None, ..] => Place::Events,
            [Some("config"), None, ..] => Place::Details,
            [Some("reload"), None, ..] => Place::Reload,
            [Some("deploy"), None, ..] => Place::Deploy,
            [Some("jobs"), Some(job), None, ..] if !job.is_empty() => Place::Job(decode(job)?),
            [Some("models"), Some(endpoint), None, ..] if !endpoint.is_empty() => {
                Place::Collection(self.model(&decode(endpoint)?)?)
            }
            [Some("models"), Some(endpoint), Some(id), None, ..]
                if !endpoint.is_empty() && !id.is_empty() =>
            {
                Place::Document(self.model(&decode(endpoint)?)?, decode(id)?)
            }
            [Some("models"), Some(endpoint), Some(id), Some(command), None]
                if ![endpoint, id, command].contains(&"") =>
            {
                let (model, command) = (self.model(&decode(endpoint)?)?, decode(command)?);
                if model.command(&command).is_none() {
                    return Err(no_such_command(model, &command));
                }
                Place::Command(model, decode(id)?, command)
            }
            _ => {
                if let Some(position) = self.services.iter().position(|route| is_under(path, route)) {
                    return Ok(Place::Service(position));
                }
                return Err(no_such_route(path));
            }
        })
    }

    /// Places that do not depend on the base path.
    fn place_at_root(&self, path: &str) -> Option<Place<'static, 'static>> {
        Some(match path {
            "/livez" => Place::Alive,
            "/readyz" => Place::Ready,
            "/metrics" => Place::Metrics,
            "/aegis.config.json" => Place::PublicConfig,
            "/reload" => Place::Reload,
            beside if beside == self.reload_beside => Place::Reload,
            _ => return None,
        })
    }

    fn model(&self, endpoint: &str) -> Result<&Arc<Model>, Problem> {
        self.catalog.by_endpoint(endpoint).ok_or_else(|| {
            let quoted: String = endpoint.chars().take(QUOTED_PATH_MAX).collect();
            Problem::new(ProblemCode::NoSuchModel, format!("no model has the endpoint {quoted:?}"))
        })
    }
}

/// The problem of a path where nothing is.
pub(crate) fn no_such_route(path: &str) -> Problem {
    let quoted: String = path.chars().take(QUOTED_PATH_MAX).collect();
    Problem::new(ProblemCode::NoSuchRoute, format!("there is nothing at {quoted}"))
}

/// Whether reading a document of this model is all there is to `GET` on its path.
fn is_plain(model: &Model) -> bool {
    let has_one_segment =
        |route: &Route| route.pattern().base() == Base::Model && route.pattern().length() == 1;
    let is_tried = model.spec().trial.is_some();
    !is_tried && !loads(model) && !model.routes().iter().any(has_one_segment)
}

/// Undoes percent-encoding (RFC 3986 section 2.1), strictly.
fn decode(segment: &str) -> Result<Cow<'_, str>, Problem> {
    let refused = |what: &str| {
        let quoted: String = segment.chars().take(QUOTED_PATH_MAX).collect();
        Problem::new(ProblemCode::BadParameter, format!("path segment {quoted:?}: {what}"))
    };
    let hexadecimal = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = segment.as_bytes();
    for (index, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        if !hexadecimal(bytes.get(index + 1)) || !hexadecimal(bytes.get(index + 2)) {
            return Err(refused("found a percent sign without two hexadecimal digits, expected %25"));
        }
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| refused("found bytes that are not UTF-8, expected percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use aegis_domain::module;

    use super::*;

    fn routes(api_root: &str) -> Routes {
        let spec =
            module::parse("name = \"todo\"\nendpoint = \"todos\"\n[fields]\ntext = \"text\"\n", "test")
                .unwrap();
        let services = ["/hello", "/shop/cart"].map(|route| ServiceSpec {
            name: route.to_owned(),
            route: route.to_owned(),
            digest: String::new(),
            limits: aegis_domain::service::usual_limits(),
            http: Vec::new(),
            wasi: aegis_domain::service::Wasi::V02,
        });
        Routes::new(api_root, Arc::new(Catalog::build(vec![spec]).unwrap()), &services)
    }

    fn describe(routes: &Routes, path: &str) -> String {
        match routes.find(path) {
            Ok(Place::Collection(model)) => format!("collection of {}", model.name()),
            Ok(Place::Document(model, id)) => format!("{} {id}", model.name()),
            Ok(Place::Job(job)) => format!("job {job}"),
            Ok(place) => format!("{place:?}{}", if place.is_admin() { " (admin)" } else { "" }),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn every_path_has_its_place() {
        let routes = routes("/aegis/api");
        let paths = [
            "/aegis/api/models/todos",
            "/aegis/api/models/todos/",
            "/aegis/api/models/todos/a",
            "/aegis/api/models/todos/a%2Fb%20c",
            "/aegis/api/models/todos/%zz",
            "/aegis/api/models/todos/%ff",
            "/aegis/api/models/todos/a/b",
            "/aegis/api/models/tod%6Fs/a",
            "/aegis/api/models/others",
            "/aegis/api/models",
            "/aegis/api/events",
            "/aegis/api/config",
            "/aegis/api/reload",
            "/aegis/api/deploy",
            "/deploy",
            "/aegis/reload",
            "/reload",
            "/aegis/api/jobs/7",
            "/aegis.config.json",
            "/livez",
            "/readyz",
            "/metrics",
            "/hello",
            "/hello/",
            "/hello/livez?",
            "/hellow",
            "/shop/cart/1",
            "/shop",
            "/",
            "*",
        ];
        let table: Vec<String> =
            paths.map(|path: &str| format!("{path} → {}", describe(&routes, path))).into();
        insta::assert_snapshot!(table.join("\n"), @r#"
    /aegis/api/models/todos → collection of TODO
    /aegis/api/models/todos/ → no-such-route: there is nothing at /aegis/api/models/todos/
    /aegis/api/models/todos/a → TODO a
    /aegis/api/models/todos/a%2Fb%20c → TODO a/b c
    /aegis/api/models/todos/%zz → bad-parameter: path segment "%zz": found a percent sign without two hexadecimal digits, expected %25
    /aegis/api/models/todos/%ff → bad-parameter: path segment "%ff": found bytes that are not UTF-8, expected percent-encoded UTF-8
    /aegis/api/models/todos/a/b → no-such-command: no command "b" on model TODO
    /aegis/api/models/tod%6Fs/a → TODO a
    /aegis/api/models/others → no-such-model: no model has the endpoint "others"
    /aegis/api/models → no-such-route: there is nothing at /aegis/api/models
    /aegis/api/events → Events
    /aegis/api/config → Details (admin)
    /aegis/api/reload → Reload (admin)
    /aegis/api/deploy → Deploy (admin)
    /deploy → no-such-route: there is nothing at /deploy
    /aegis/reload → Reload (admin)
    /reload → Reload (admin)
    /aegis/api/jobs/7 → job 7
    /aegis.config.json → PublicConfig
    /livez → Alive
    /readyz → Ready
    /metrics → Metrics (admin)
    /hello → Service(0)
    /hello/ → Service(0)
    /hello/livez? → Service(0)
    /hellow → no-such-route: there is nothing at /hellow
    /shop/cart/1 → Service(1)
    /shop → no-such-route: there is nothing at /shop
    / → no-such-route: there is nothing at /
    * → no-such-route: there is nothing at *
    "#);
    }

    #[test]
    fn an_empty_base_path_is_fine() {
        let routes = routes("");
        assert_eq!(describe(&routes, "/models/todos/x"), "TODO x");
        assert_eq!(describe(&routes, "/reload"), "Reload (admin)");
    }

    #[test]
    fn the_short_way_to_a_document_leads_to_the_same_place_or_nowhere() {
        let routes = routes("/aegis/api");
        assert_eq!(routes.plain_document("/aegis/api/models/todos/a-1"), Some((0, "a-1")));
        for path in ["/aegis/api/models/todos", "/aegis/api/models/todos/", "/aegis/api/models/todos/a%20b"] {
            assert!(routes.plain_document(path).is_none(), "{path}");
        }
        for path in ["/aegis/api/models/todos/a/b", "/aegis/api/models/x/a", "/livez", ""] {
            assert!(routes.plain_document(path).is_none(), "{path}");
        }
    }

    #[test]
    fn allowed_methods_are_the_ones_in_the_header() {
        let routes = routes("/aegis/api");
        for path in
            ["/aegis/api/models/todos", "/aegis/api/models/todos/a", "/reload", "/livez", "/aegis/api/events"]
        {
            let (methods, allow) = routes.find(path).unwrap().methods();
            let mut listed: Vec<&str> = methods.iter().map(Method::as_str).collect();
            listed.push("OPTIONS");
            assert_eq!(listed.join(", "), allow, "{path}");
        }
    }
}
