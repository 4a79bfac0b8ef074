//! Custom routes: paths that the code of a model answers itself, where the generated interface would not, or otherwise.
//!
//! A pattern is written below the path of its model, as `/{id}/label`; one that begins with two slashes, as
//! `//labels/{id}`, begins at the root of the host. A part in braces matches any one segment.

mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::pattern::{Base, Pattern};
use crate::{
    code::CommandPlace,
    service::{HOST_PLACES, ServiceSpec, host_places},
    spec::ModelSpec,
};

/// Most custom routes of one model.
pub const ROUTES_MAX: usize = 256;

/// One custom route, as a module declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The method that it answers.
    pub method: Verb,
    /// The pattern, as it is written.
    pub path: String,
    /// Where its code runs.
    pub place: CommandPlace,
    /// What the description of the interface says of it, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openapi: Option<Value>,
    /// Whether it answers callers that nobody knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    /// Roles or permissions of which one is needed; what its method would need elsewhere when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Whether the operator has taken it out of service: then nothing is there, not even what is there without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// A method that a custom route can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// `GET`, and `HEAD` unless another route has it.
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`, which the host answers unless a route has it.
    Options,
}

impl Verb {
    /// As it stands in a request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One custom route, compiled.
#[derive(Debug, Clone)]
pub struct Route {
    spec: RouteSpec,
    pattern: Pattern,
}

impl Route {
    /// What the module said.
    #[must_use]
    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// The pattern.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

/// Compiles the custom routes of a model, the more particular ones first, and reports every mistake as (key path,
/// message).
pub(crate) fn compile(spec: &ModelSpec, report: &mut dyn FnMut(&str, String)) -> Vec<Route> {
    let declared = spec.code.as_ref().map_or(&[][..], |code| &code.routes);
    if declared.len() > ROUTES_MAX {
        report("routes", format!("found {}, expected at most {ROUTES_MAX}", declared.len()));
    }
    let mut routes: Vec<Route> = Vec::with_capacity(declared.len().min(ROUTES_MAX));
    for (number, spec) in declared.iter().take(ROUTES_MAX).enumerate() {
        let key = format!("routes.{number}");
        let pattern = match Pattern::parse(&spec.path) {
            Ok(pattern) => pattern,
            Err(message) => {
                report(&key, message);
                continue;
            }
        };
        if let Some(place) = HOST_PLACES.iter().find(|place| pattern.reaches(place)) {
            report(&key, format!("found {:?}, expected another: the host answers at {place}", spec.path));
        }
        let same = |other: &&Route| other.spec.method == spec.method && other.pattern.is_like(&pattern);
        if let Some(other) = routes.iter().find(same) {
            let (method, theirs) = (spec.method, &other.spec.path);
            report(
                &key,
                format!("found {method} {:?}, which answers the same paths as {theirs:?}", spec.path),
            );
        }
        routes.push(Route { spec: spec.clone(), pattern });
    }
    routes.sort_by(|one, other| one.pattern.precedence(&other.pattern));
    routes
}

/// What is wrong with the custom routes of an app that begin at the root: nobody else answers there.
#[must_use]
pub fn custom_route_mistakes(specs: &[ModelSpec], services: &[ServiceSpec], api_root: &str) -> Vec<String> {
    let at_root = |spec: &ModelSpec| -> Vec<(Verb, Pattern)> {
        let declared = spec.code.as_ref().map_or(&[][..], |code| &code.routes);
        let patterns =
            declared.iter().filter_map(|route| Some((route.method, Pattern::parse(&route.path).ok()?)));
        patterns.filter(|(_, pattern)| pattern.base() == Base::Root).collect()
    };
    let mut mistakes = Vec::new();
    let mut before: Vec<(&ModelSpec, Verb, Pattern)> = Vec::new();
    for spec in specs {
        let routes = at_root(spec);
        for (verb, pattern) in &routes {
            let host = host_places(api_root).into_iter().find(|place| pattern.reaches(place));
            let service = services.iter().find(|service| pattern.reaches(&service.route));
            let other = before.iter().find(|(_, theirs, other)| theirs == verb && other.is_like(pattern));
            let whose = match (host, service, other) {
                (Some(place), ..) => format!("the host answers at {place}"),
                (_, Some(service), _) => format!("service {} answers at {}", service.name, service.route),
                (.., Some((other, ..))) => format!("model {} answers the same paths", other.name),
                (None, None, None) => continue,
            };
            mistakes.push(format!(
                "model {}: routes: found {verb} {:?}, expected another: {whose}",
                spec.name,
                pattern.as_str()
            ));
        }
        before.extend(routes.into_iter().map(|(verb, pattern)| (spec, verb, pattern)));
    }
    mistakes
}
