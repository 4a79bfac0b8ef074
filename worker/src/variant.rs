//! Which version of a model's code carries a request out, while another one is tried beside the one in force.
//!
//! `Aegis-Variant` in a request says which; otherwise the user decides (`X-User`), and without one each request by itself.
//! In the answer it says which it was.

use aegis_domain::{
    Problem, ProblemCode,
    catalog::Model,
    trial::{Lot, Variant},
};
use http::{HeaderMap, HeaderName};

use crate::response::Envelope;

/// The version, as clients ask for it and as they are told.
pub(crate) const AEGIS_VARIANT: HeaderName = HeaderName::from_static("aegis-variant");
/// Who asks, as whoever stands in front of the host says.
const X_USER: HeaderName = HeaderName::from_static("x-user");

/// What decides for a request to a model, and for all that it leads to. The answer is going to say which version it was.
///
/// # Errors
/// When the request asks for a version in other words than there are, of a model on which one is tried.
pub(crate) fn lot(model: &Model, headers: &HeaderMap, envelope: &Envelope<'_>) -> Result<Lot, Problem> {
    if model.spec().code.is_none() {
        return Ok(Lot::default());
    }
    let is_tried = model.spec().trial.is_some();
    let wanted = match wanted(headers) {
        Err(message) if is_tried => {
            return Err(Problem::new(ProblemCode::BadHeader, format!("Aegis-Variant: {message}")));
        }
        wanted => wanted.unwrap_or_default(),
    };
    let user = headers.get(X_USER).filter(|user| !user.is_empty());
    let user = user.map(|user| String::from_utf8_lossy(user.as_bytes()).into());
    let lot = Lot { user, wanted };
    if is_tried {
        let variant = lot.draw(model.spec(), envelope.request_id.to_str().unwrap_or_default());
        let _ = envelope.variant.set(variant); // a request is to one model
    }
    Ok(lot)
}

fn wanted(headers: &HeaderMap) -> Result<Option<Variant>, String> {
    let mut values = headers.get_all(AEGIS_VARIANT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("found several values, expected one".to_owned());
    }
    Variant::parse(&String::from_utf8_lossy(value.as_bytes())).map(Some)
}
