//! Requests to custom routes: the code of a model answers, whole and within its limits.
//!
//! As everywhere, the host keeps to itself what is between two neighbours, and says who answered. What the code answers
//! is looked at before a client sees it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use aegis_domain::{
    Problem, ProblemCode,
    catalog::Model,
    route::{Base, Verb},
    trial::Variant,
};
use aegis_ipc::board::Counter;
use aegis_wasm::{Call, Lineage, Origin, RouteRequest, RouteResponse};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, header::CONTENT_LENGTH,
    request::Parts,
};

use crate::{
    access::Caller,
    connection::Link,
    host::Host,
    request::{self, RequestBody, X_REQUEST_ID},
    response::{Envelope, Extent, Outgoing},
    route::Candidate,
    serve::{cut_short, remove_hop_by_hop},
    variant,
};

/// Most header fields of an answer.
const HEADERS_MAX: usize = 100;
/// Bytes of the header fields of an answer.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// What header fields begin with that are the host's to set.
const HOST_PREFIX: &str = "aegis-";

/// Answers with what the route says.
pub(crate) async fn answer(
    (host, link): (&Arc<Host>, &Link),
    candidate: Candidate<'_>,
    caller: &Caller,
    (parts, body): (&Parts, &mut RequestBody),
    envelope: &Envelope<'_>,
    begun: Instant,
) -> Result<Response<Outgoing>, Problem> {
    let model = candidate.model;
    let limits = &host.config.limits;
    let deadline = begun + limits.request_timeout;
    let _admitted = host.load.admit()?;
    if !parts.method.is_safe() {
        host.load.room(link.protocol())?;
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let prepared = variant::lot(model, &parts.headers, envelope).and_then(|lot| {
        let key = if reads { None } else { request::idempotency_key(&parts.headers)? };
        Ok((lot, key.map(str::to_owned)))
    });
    let (lot, idempotency_key) = prepared.inspect_err(|problem| host.count_refused(model, problem))?;
    let code = match (envelope.variant.get(), &model.spec().trial) {
        (Some(Variant::Trial), Some(trial)) => Some(&*trial.code),
        _ => model.spec().code.as_ref(),
    };
    let payload_bytes_max = code.map_or(0, |code| code.limits.payload_bytes_max);
    let body = body.read(limits.body_bytes_max.min(payload_bytes_max), deadline).await?;
    host.cell.counter(Counter::BytesIn).fetch_add(body.len() as u64, Ordering::Relaxed);
    let place = candidate.route.spec().place;
    let method = candidate.route.spec().method;
    let mut request = route_request(candidate, parts, body, &envelope.request_id);
    if !matches!(caller, Caller::Trusted) {
        // The token is for the host; the code is told whom it names.
        request.headers.retain(|(name, _)| name != header::AUTHORIZATION.as_str());
    }
    let call = Call {
        request_id: envelope.request_id.to_str().unwrap_or_default().to_owned(),
        origin: Origin::Api,
        deadline,
        attempt: 1,
        idempotency_key,
        lineage: Lineage::begin(),
        lot,
        principal: caller.principal().cloned(),
    };
    let name = format!("{method} {}", request.route);
    let answered = tokio::select! {
        biased;
        answered = host.engine.route(model, place, call, request) => answered,
        () = link.answer_now() => Err(cut_short(&parts.method)),
    };
    let answered = answered.inspect_err(|problem| host.count_refused(model, problem))?;
    let response = checked(answered, &parts.method, envelope.extent).map_err(|found| {
        let detail = format!("the route {name} of model {} answered {found}", model.name());
        let request = envelope.request_id.to_str().unwrap_or_default();
        tracing::error!(target: "aegis::module", model = model.name(), request, "{detail}");
        let variant = envelope.variant.get().copied().unwrap_or(Variant::Current);
        host.engine.note_unusable(model, variant);
        Problem::new(ProblemCode::GuestFailed, detail)
    })?;
    Ok(envelope.sign(response))
}

fn route_request(
    candidate: Candidate<'_>,
    parts: &Parts,
    body: Bytes,
    request_id: &HeaderValue,
) -> RouteRequest {
    let spec = candidate.route.spec();
    let mut headers = parts.headers.clone();
    remove_hop_by_hop(&mut headers);
    headers.insert(&X_REQUEST_ID, request_id.clone());
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
    };
    RouteRequest {
        method: spec.method,
        route: spec.path.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        params: candidate.params,
        headers: headers.iter().map(header).collect(),
        body,
    }
}

/// The answer as it goes to the client; or what was found that cannot go there.
fn checked(answered: RouteResponse, method: &Method, extent: Extent) -> Result<Response<Outgoing>, String> {
    let RouteResponse { status, headers, body } = answered;
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| format!("the status {status}, expected 200 to 599"))?;
    let mut response = Response::new(Outgoing::Empty);
    *response.status_mut() = status;
    *response.headers_mut() = header_fields(headers)?;
    let has_no_body =
        matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if extent == Extent::HeadOnly {
        if !has_no_body && *method == Method::HEAD {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
        }
    } else if !has_no_body {
        *response.body_mut() = Outgoing::Whole(body.into());
    }
    Ok(response)
}

/// Header fields without those that are the host's to set.
fn header_fields(found: Vec<(String, Bytes)>) -> Result<HeaderMap, String> {
    let bytes: usize = found.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    if found.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(format!(
            "{} header fields of {bytes} bytes, expected at most {HEADERS_MAX} of {HEADER_BYTES_MAX}",
            found.len()
        ));
    }
    let mut headers = HeaderMap::with_capacity(found.len());
    for (name, value) in found {
        let shown: String = name.chars().take(64).collect();
        let wrong = |what: &str| format!("the header field {shown:?}, {what}");
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| wrong("expected a name of letters, digits and hyphens"))?;
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| wrong("expected a value of visible characters, spaces and tabs"))?;
        headers.append(name, value);
    }
    remove_hop_by_hop(&mut headers);
    let hosts: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(HOST_PREFIX)).cloned().collect();
    for name in hosts.iter().chain(&[header::CONTENT_LENGTH, header::DATE, X_REQUEST_ID.clone()]) {
        headers.remove(name);
    }
    Ok(headers)
}

/// Whether a route of the model answers where its list is.
pub(crate) fn replaces_list(model: &Model) -> bool {
    model.routes().iter().any(|route| {
        route.spec().method == Verb::Get
            && route.pattern().base() == Base::Model
            && route.pattern().length() == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&str, &str)]) -> Result<Response<Outgoing>, String> {
        let header =
            |(name, value): &(&str, &str)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()));
        let headers = headers.iter().map(header).collect();
        let response = RouteResponse { status, headers, body: Bytes::from_static(b"text") };
        checked(response, &Method::GET, Extent::Whole)
    }

    #[test]
    fn the_host_keeps_what_is_its_own() {
        let fields = [
            ("Content-Type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("aegis-worker", "9.9"),
            ("aegis-other", "1"),
            ("x-request-id", "mine"),
            ("date", "never"),
        ];
        let response = answered(418, &fields).unwrap();
        assert_eq!(response.status(), 418);
        let left: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(left, ["content-type: text/plain", "set-cookie: a=1", "set-cookie: b=2"]);
        assert_eq!(response.body().known_bytes(), 4);
    }

    #[test]
    fn what_no_client_could_read_is_the_routes_mistake() {
        let many: Vec<(&str, &str)> = vec![("a", "b"); HEADERS_MAX + 1];
        let told: Vec<String> = [
            answered(100, &[]),
            answered(199, &[]),
            answered(600, &[]),
            answered(0, &[]),
            answered(200, &[("a b", "1")]),
            answered(200, &[("", "1")]),
            answered(200, &[("a", "1\r\nb: 2")]),
            answered(200, &many),
        ]
        .map(|refused| refused.map(|_| ()).unwrap_err())
        .into();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn answers_that_have_no_body_get_none() {
        for status in [204, 205, 304] {
            assert_eq!(answered(status, &[]).unwrap().body().known_bytes(), 0, "{status}");
        }
    }
}
