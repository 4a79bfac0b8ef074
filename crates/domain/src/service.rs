//! A service: a Wasm component that answers HTTP requests itself, under a route of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{code::CodeLimits, outgoing::HostGrant};

/// Bytes of a route.
const ROUTE_BYTES_MAX: usize = 200;
/// Time of one request when nobody says otherwise, milliseconds. The host's own bound is in force as well.
const CALL_MS_MAX: u32 = 60_000;
/// Requests at a time in one worker when nobody says otherwise: each has an instance of its own.
const INSTANCES_MAX: u32 = 64;
/// Requests of one instance when nobody says otherwise: none sees what another left behind.
const REQUESTS_PER_INSTANCE_MAX: u64 = 1;
/// Places of the host that no base path moves.
pub(crate) const HOST_PLACES: [&str; 5] = ["/livez", "/readyz", "/metrics", "/aegis.config.json", "/reload"];

/// A component that answers under a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name of its folder.
    pub name: String,
    /// The route: it and everything below are the component's business.
    pub route: String,
    /// SHA-256 of the component's bytes, hexadecimal: what it is known by.
    pub digest: String,
    /// What it may use. The time of a call is that of a request, from its head to the end of the answer.
    pub limits: CodeLimits,
    /// Hosts that it may send requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HostGrant>,
    /// What it is written for.
    #[serde(default, skip_serializing_if = "Wasi::is_usual")]
    pub wasi: Wasi,
}

/// The WASI that a service answers HTTP with. It decides for which engine its code is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wasi {
    /// `wasi:http/incoming-handler@0.2`: an instance does one thing at a time.
    #[default]
    #[serde(rename = "0.2")]
    V02,
    /// `wasi:http/handler@0.3`: an instance does several things at a time.
    #[serde(rename = "0.3")]
    V03,
}

impl fmt::Display for Wasi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V02 => "0.2",
            Self::V03 => "0.3",
        })
    }
}

impl Wasi {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What a service may use when nobody says otherwise.
#[must_use]
pub fn usual_limits() -> CodeLimits {
    CodeLimits {
        call_ms_max: CALL_MS_MAX,
        instances_max: INSTANCES_MAX,
        calls_per_instance_max: REQUESTS_PER_INSTANCE_MAX,
        ..CodeLimits::default()
    }
}

/// Why an instance cannot answer as many requests at the same time as `limits` say, for code that is written for this
/// WASI, or for none because it is a model.
#[must_use]
pub fn at_a_time_mistake(limits: &CodeLimits, wasi: Option<Wasi>) -> Option<String> {
    let (at_a_time, whole) = (limits.calls_at_a_time_max, limits.calls_per_instance_max);
    if at_a_time <= 1 {
        return None;
    }
    let found = format!("found {at_a_time} requests at a time in one instance");
    match wasi {
        Some(Wasi::V03) if u64::from(at_a_time) <= whole => None,
        Some(Wasi::V03) => Some(format!(
            "{found}, expected at most {whole}: so many an instance answers in its life, as max-invocations of the manifest or invocations of the operator says"
        )),
        Some(older @ Wasi::V02) => Some(format!(
            "{found}, expected 1: an instance of wasi:http {older} does one thing at a time, one of 0.3 several"
        )),
        None => Some(format!(
            "{found}, expected 1: models are asked one thing at a time, services of wasi:http 0.3 several"
        )),
    }
}

/// Whether a text can be a route: a path that reads the same however it is written.
///
/// # Errors
/// What was found and what is expected.
pub fn check_route(route: &str) -> Result<(), String> {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let fits = route.len() <= ROUTE_BYTES_MAX
        && route.strip_prefix('/').is_some_and(|segments| segments.split('/').all(is_segment));
    if fits {
        return Ok(());
    }
    let shown: String = route.chars().take(ROUTE_BYTES_MAX).collect();
    Err(format!(
        "found the route {shown:?}, expected one like \"/hello\": at most {ROUTE_BYTES_MAX} letters, digits, '-', '.', '_' or '~' between slashes"
    ))
}

/// What is wrong with the routes of an app: each is a path, and nobody else answers there.
#[must_use]
pub fn route_mistakes(services: &[ServiceSpec], api_root: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let mut report = |message: String| mistakes.push(format!("service {}: {message}", service.name));
        if let Err(message) = check_route(&service.route) {
            report(message);
            continue;
        }
        if let Some(place) = host_places(api_root).into_iter().find(|place| overlap(place, &service.route)) {
            report(format!(
                "found the route {:?}, expected another: the host answers at {place}",
                service.route
            ));
        }
        if let Some(other) = services[..index].iter().find(|other| overlap(&other.route, &service.route)) {
            let (route, theirs) = (&service.route, &other.route);
            report(format!(
                "found the route {route:?}, expected another: service {} answers at {theirs}",
                other.name
            ));
        }
    }
    mistakes
}

/// Whether `path` is `route` or below it.
#[must_use]
pub fn is_under(path: &str, route: &str) -> bool {
    path.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn overlap(one: &str, other: &str) -> bool {
    is_under(one, other) || is_under(other, one)
}

/// Where the host itself answers, those below the base path included.
pub(crate) fn host_places(api_root: &str) -> Vec<String> {
    let mut places: Vec<String> = HOST_PLACES.map(str::to_owned).into();
    if api_root.is_empty() {
        places.extend(["/models", "/events", "/config", "/jobs", "/deploy"].map(str::to_owned));
    } else {
        places.push(api_root.to_owned());
        let beside = api_root.rsplit_once('/').map_or("", |(parent, _)| parent);
        places.push(format!("{beside}/reload"));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(routes: &[&str]) -> Vec<ServiceSpec> {
        let one = |(number, route): (usize, &&str)| ServiceSpec {
            name: format!("s{number}"),
            route: (*route).to_owned(),
            digest: String::new(),
            limits: usual_limits(),
            http: Vec::new(),
            wasi: Wasi::V02,
        };
        routes.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_route_is_a_path_that_reads_the_same_however_it_is_written() {
        for route in ["/hello", "/a/b-c_d.e~f", "/1"] {
            check_route(route).unwrap();
        }
        for route in ["", "/", "hello", "/a/", "//a", "/a//b", "/../a", "/a/.", "/%61", "/a?b", "/ä", "*"] {
            check_route(route).unwrap_err();
        }
        check_route(&format!("/{}", "a".repeat(ROUTE_BYTES_MAX))).unwrap_err();
    }

    #[test]
    fn everything_below_a_route_is_under_it_and_nothing_beside() {
        assert!(
            is_under("/hello", "/hello") && is_under("/hello/", "/hello") && is_under("/hello/a", "/hello")
        );
        assert!(
            !is_under("/hellow", "/hello") && !is_under("/", "/hello") && !is_under("/a/hello", "/hello")
        );
    }

    #[test]
    fn nobody_answers_where_the_host_or_another_service_does() {
        assert!(
            route_mistakes(&services(&["/a", "/b/c", "/b/d", "/ab", "/aegis/other"]), "/aegis/api")
                .is_empty()
        );
        let wrong = ["/livez", "/metrics/x", "/aegis", "/aegis/api/x", "/aegis/reload", "/a/b", "/a", "/%"];
        insta::assert_snapshot!(route_mistakes(&services(&wrong), "/aegis/api").join("\n"));
        assert_eq!(route_mistakes(&services(&["/models", "/hello"]), "").len(), 1);
    }

    #[test]
    fn only_a_service_of_wasi_0_3_answers_several_requests_at_a_time() {
        let mistake = |at_a_time, whole, wasi| {
            let limits = CodeLimits {
                calls_at_a_time_max: at_a_time,
                calls_per_instance_max: whole,
                ..usual_limits()
            };
            at_a_time_mistake(&limits, wasi).unwrap_or_default()
        };
        for wasi in [None, Some(Wasi::V02), Some(Wasi::V03)] {
            assert_eq!(mistake(1, 1, wasi), "");
        }
        assert_eq!(mistake(8, 8, Some(Wasi::V03)), "");
        let wrong = [mistake(8, 7, Some(Wasi::V03)), mistake(8, 100, Some(Wasi::V02)), mistake(8, 100, None)];
        insta::assert_snapshot!(wrong.join("\n"), @"
        found 8 requests at a time in one instance, expected at most 7: so many an instance answers in its life, as max-invocations of the manifest or invocations of the operator says
        found 8 requests at a time in one instance, expected 1: an instance of wasi:http 0.2 does one thing at a time, one of 0.3 several
        found 8 requests at a time in one instance, expected 1: models are asked one thing at a time, services of wasi:http 0.3 several
        ");
    }

    #[test]
    fn a_service_of_which_nothing_is_said_is_of_wasi_0_2_and_is_written_as_before() {
        let mut service = services(&["/a"]).remove(0);
        let older = serde_json::to_value(&service).unwrap();
        assert_eq!(older.get("wasi"), None);
        assert_eq!(serde_json::from_value::<ServiceSpec>(older).unwrap(), service);
        service.wasi = Wasi::V03;
        let newer = serde_json::to_value(&service).unwrap();
        assert_eq!(newer["wasi"], "0.3");
        assert_eq!(serde_json::from_value::<ServiceSpec>(newer).unwrap(), service);
    }
}
