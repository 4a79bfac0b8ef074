//! Who asks, and whether they may: tokens are looked at before anything of a request is carried out or its body is read,
//! and [`aegis_domain::access`] decides.
//!
//! ```text
//!   Authorization ─▶ known, or keys and token ─▶ Principal ─▶ Caller ──may──▶ go on, or 403 and a line in the log
//!                                  │
//!                                  └─▶ 401, and why in no more words than needed
//! ```
//!
//! While authentication is off there is no gate, and nobody is asked.

mod keys;
mod known;
#[cfg(test)]
mod tests;
mod token;
mod web;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aegis_config::{Auth, AuthKey};
use aegis_domain::{
    Problem, ProblemCode,
    access::{Action, Principal, Right, decide},
    catalog::Model,
    query::read_item,
    route::Verb,
};
use http::{HeaderMap, Method, header, request::Parts};

pub(crate) use self::web::sign_of_page;
use self::{
    keys::Keys,
    known::Known,
    token::{Mistake, Terms},
};
use crate::{
    operation::{Answer, Operation, Precondition, Request, Revisions},
    request::{Target, is_json_patch, precondition},
    response::Refusal,
    route::{Candidate, Place},
};

/// Role of those who are let in where operators are.
const ADMIN: &str = "admin";
/// What a request without a token is asked for (RFC 6750 section 3).
const CHALLENGE: &str = "Bearer realm=\"aegis\"";
/// What a request with a bad one is told.
const INVALID: &str = "Bearer realm=\"aegis\", error=\"invalid_token\"";
/// Longest time that a stream is kept for the token it began with.
const STREAM_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether workers can use this key.
///
/// # Errors
/// What was found and what is expected; nothing of a secret.
pub fn check_key(key: &AuthKey) -> Result<(), String> {
    Keys::read(key).map(|_| ())
}

/// Stands before everything that only known callers get.
pub(crate) struct Gate {
    keys: Keys,
    terms: Terms,
    /// Tokens that these keys have verified by these terms.
    known: Known,
}

/// Who is let in without a token where operators are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    /// The listener lets callers in whatever they say of themselves.
    pub(crate) lets_operators_in: bool,
    /// Webhooks sign what they ask.
    pub(crate) takes_webhooks: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// The host itself, or whoever comes while nobody is asked.
    Trusted,
    /// Nobody says.
    Anonymous,
    /// Whoever the token names.
    Known(Arc<Principal>),
}

impl Gate {
    /// The gate of a generation; none while authentication is off.
    ///
    /// # Errors
    /// Why the key cannot be used.
    pub(crate) fn of(auth: &Auth) -> Result<Option<Self>, String> {
        if !auth.enabled {
            return Ok(None);
        }
        let key = auth.key.as_ref().ok_or("auth: found no key, expected one in the generation")?;
        let terms = Terms {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway_s: i64::try_from(auth.leeway.as_secs()).unwrap_or(i64::MAX),
            roles_claim: auth.roles_claim.clone(),
        };
        Ok(Some(Self { keys: Keys::read(key)?, terms, known: Known::default() }))
    }

    /// Who asks for the place that a path names, or for nothing that there is: what is not there is only told to those
    /// who are known.
    pub(crate) fn at_place(
        &self,
        headers: &HeaderMap,
        place: Option<&Place<'_, '_>>,
        door: Door,
    ) -> Result<Caller, Refusal> {
        match place {
            Some(Place::Alive | Place::Ready | Place::PublicConfig) => Ok(Caller::Anonymous),
            Some(place) if place.is_admin() && door.lets_operators_in => Ok(Caller::Anonymous),
            Some(Place::Reload) if door.takes_webhooks && !headers.contains_key(header::AUTHORIZATION) => {
                Ok(Caller::Anonymous)
            }
            Some(_) | None => self.identify(headers),
        }
    }

    /// Who asks for a custom route. Whether they may is asked with [`Caller::may_take`].
    pub(crate) fn at_route(&self, headers: &HeaderMap, found: &Candidate<'_>) -> Result<Caller, Refusal> {
        let spec = found.route.spec();
        if spec.public && !headers.contains_key(header::AUTHORIZATION) {
            return Ok(Caller::Anonymous);
        }
        self.identify(headers)
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let known = token::find(headers).and_then(|token| {
            self.known.read(token, (&self.keys, &self.terms), i64::try_from(now_s).unwrap_or(i64::MAX))
        });
        known.map(Caller::Known).map_err(|mistake| {
            tracing::debug!(target: "aegis::access", "a request without an acceptable token: {mistake}");
            let (challenge, detail) = match mistake {
                Mistake::Missing => (CHALLENGE, "a bearer token is required"),
                _ => (INVALID, "the bearer token is not acceptable"),
            };
            let problem = Problem::new(ProblemCode::Unauthorized, detail);
            Refusal { challenge: Some(challenge), ..problem.into() }
        })
    }

    /// How long a caller is who the token says.
    pub(crate) fn time_left(&self, caller: &Caller) -> Option<Duration> {
        let Caller::Known(principal) = caller else { return None };
        let expires_s = token::expiry_s(&principal.claims)?.saturating_add(self.terms.leeway_s);
        let expires = UNIX_EPOCH + Duration::from_secs(u64::try_from(expires_s).unwrap_or(0).min(1 << 40));
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        Some(left.min(STREAM_TIME_MAX))
    }
}

impl Caller {
    /// Whether the caller may do this with the documents of `model`.
    ///
    /// # Errors
    /// [`ProblemCode::Forbidden`]. The log tells why, the caller learns only that.
    pub(crate) fn may(&self, model: &Model, action: Action<'_>) -> Result<(), Problem> {
        let (subject, why) = match self {
            Self::Trusted => return Ok(()),
            Self::Anonymous => ("", "nobody says who asks".to_owned()),
            Self::Known(principal) => match decide(&model.spec().acl, principal, action) {
                Ok(()) => return Ok(()),
                Err(denial) => (principal.subject.as_str(), denial.to_string()),
            },
        };
        let (action, model) = (action.to_string(), model.name());
        tracing::info!(target: "aegis::access", subject, action, model, "refused: {why}");
        Err(Problem::new(ProblemCode::Forbidden, format!("the caller may not do this: {action} of {model}")))
    }

    /// The same without a word in the log, where the answer only shapes what is shown.
    pub(crate) fn sees(&self, model: &Model, right: Right) -> bool {
        match self {
            Self::Trusted => true,
            Self::Anonymous => false,
            Self::Known(principal) => decide(&model.spec().acl, principal, Action::Plain(right)).is_ok(),
        }
    }

    /// Whether the caller may do what a request to a model is about. Nothing of its body has to be there.
    pub(crate) fn may_ask(&self, target: &Target<'_>, parts: &Parts) -> Result<(), Problem> {
        if matches!(self, Self::Trusted) {
            return Ok(());
        }
        let model = target.model;
        if let Some(name) = &target.command {
            return self.may_command(model, name);
        }
        let right = match (&parts.method, &target.id) {
            (&Method::GET | &Method::HEAD, None) => Right::ListAll,
            (&Method::GET | &Method::HEAD, Some(_)) => {
                match read_item(model, parts.uri.query().unwrap_or_default())? {
                    Some(asked) => return self.may_command(model, &asked.command),
                    None => Right::Read,
                }
            }
            (&Method::DELETE, _) => Right::Delete,
            (_, None) => Right::Create,
            (&Method::PATCH, Some(_)) if is_json_patch(&parts.headers) => {
                // It tests, copies and moves what is there, so what becomes of it tells of that.
                self.may(model, Action::Plain(Right::Read))?;
                Right::Update
            }
            (&Method::PUT, Some(_)) if creates(&precondition(&parts.headers)?) => Right::Create,
            (_, Some(_)) => Right::Update,
        };
        self.may(model, Action::Plain(right))
    }

    /// Whether the caller may ask for a custom route.
    pub(crate) fn may_take(&self, found: &Candidate<'_>) -> Result<(), Problem> {
        let spec = found.route.spec();
        if spec.public {
            return Ok(());
        }
        self.may(found.model, Action::Route { right: right_of(spec.method), allow: &spec.allow })
    }

    fn may_command(&self, model: &Model, name: &str) -> Result<(), Problem> {
        let allow = model.command(name).map_or(&[][..], |command| &command.spec().allow);
        self.may(model, Action::Command { name, allow })
    }

    /// The request as it is carried out for this caller. Who may not read documents is not shown them by a write.
    pub(crate) fn ask(&self, request: Request) -> Request {
        let Self::Known(principal) = self else { return request };
        let is_command = matches!(request.operation, Operation::Command { .. } | Operation::Ask { .. });
        let hides = request.operation.writes() && !is_command && !self.sees(&request.model, Right::Read);
        let answer = if hides { Answer::Blind } else { request.answer };
        Request { answer, principal: Some(Arc::clone(principal)), ..request }
    }

    /// Whether the caller is let in where operators are.
    pub(crate) fn is_admin(&self) -> bool {
        self.principal().is_some_and(|principal| principal.has_role(ADMIN))
    }

    /// Who it is, if that is known.
    pub(crate) fn principal(&self) -> Option<&Arc<Principal>> {
        match self {
            Self::Known(principal) => Some(principal),
            Self::Trusted | Self::Anonymous => None,
        }
    }
}

/// Whether a replacement makes a document or nothing.
fn creates(precondition: &Precondition) -> bool {
    precondition.if_match.is_none() && precondition.if_none_match == Some(Revisions::Any)
}

/// What a method does in the generated interface.
fn right_of(method: Verb) -> Right {
    match method {
        Verb::Get | Verb::Head | Verb::Options => Right::Read,
        Verb::Post => Right::Create,
        Verb::Put | Verb::Patch => Right::Update,
        Verb::Delete => Right::Delete,
    }
}
