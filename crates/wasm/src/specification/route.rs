//! Custom routes, as far as they can be read without the rest of the app. The patterns are checked with the model.

use aegis_domain::{
    code::CommandPlace,
    route::{RouteSpec, Verb},
};

use super::{Exports, read_json_or_null};
use crate::contract::spec as wit;

/// Reads the routes that a component declares.
pub(super) fn read(
    found: Vec<wit::RouteSpec>,
    exports: Exports,
    mistakes: &mut Vec<String>,
) -> Vec<RouteSpec> {
    if !found.is_empty() && !exports.routes {
        mistakes
            .push("routes: found some declared and no export aegis:module/routes, expected both".to_owned());
    }
    let one = |(number, route): (usize, wit::RouteSpec)| {
        let key = format!("routes.{number}");
        if route.public && !route.allow.is_empty() {
            mistakes.push(format!("{key}.allow: found roles of a route that is public, expected none"));
        }
        RouteSpec {
            method: verb(route.method),
            place: if route.cpu_bound { CommandPlace::Cpu } else { CommandPlace::Io },
            openapi: read_json_or_null(route.openapi.as_deref(), &format!("{key}.openapi"), mistakes),
            public: route.public,
            allow: route.allow,
            disabled: false,
            path: route.path,
        }
    };
    found.into_iter().enumerate().map(one).collect()
}

fn verb(method: wit::HttpMethod) -> Verb {
    match method {
        wit::HttpMethod::Get => Verb::Get,
        wit::HttpMethod::Head => Verb::Head,
        wit::HttpMethod::Post => Verb::Post,
        wit::HttpMethod::Put => Verb::Put,
        wit::HttpMethod::Patch => Verb::Patch,
        wit::HttpMethod::Delete => Verb::Delete,
        wit::HttpMethod::Options => Verb::Options,
    }
}
