//! A whole request on its way: what code wants becomes what is sent, and what an answer that leads elsewhere makes of it.

use aegis_wasm::{Credential, Dispatch, OutgoingError, StreamedBody};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};

use super::place::Place;

/// Most header fields of a request.
const HEADERS_MAX: usize = 100;
/// Bytes of all header fields of a request.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// What the host says of itself unless the code says something.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("aegis/", env!("CARGO_PKG_VERSION")));
/// Header fields that are the host's business: where a request goes and where its body ends.
const OF_THE_HOST: [HeaderName; 10] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
];
/// Header fields that are meant for one origin only.
const OF_ONE_ORIGIN: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// A request that can be sent again elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) place: Place,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    /// Whether the host has put a secret into it.
    pub(super) is_authorized: bool,
}

impl Ask {
    pub(super) fn new(dispatch: Dispatch) -> Result<Self, OutgoingError> {
        let invalid = OutgoingError::Invalid;
        let place = Place::parse(&dispatch.url)?;
        let method = Method::from_bytes(dispatch.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
            .ok_or_else(|| invalid("found another method, expected one such as GET or POST".to_owned()))?;
        let mut headers = fields(dispatch.headers)?;
        let is_authorized = dispatch.credential.is_some();
        if let Some(credential) = dispatch.credential {
            headers.insert(header::AUTHORIZATION, authorization(&credential)?);
        }
        headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
        Ok(Self { place, method, headers, body: dispatch.body, is_authorized })
    }

    /// As it is sent.
    pub(super) fn request(&self) -> Result<Request<StreamedBody>, OutgoingError> {
        let body = Full::new(self.body.clone()).map_err(|never: std::convert::Infallible| match never {});
        let mut request = Request::new(body.boxed_unsync());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.place.path_and_query()?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, self.place.authority()?);
        Ok(request)
    }

    /// What is to be asked next, if this answer leads elsewhere (RFC 9110, 15.4). What was meant for one origin does
    /// not go to another.
    pub(super) fn next(&self, status: StatusCode, answer: &HeaderMap) -> Result<Option<Self>, OutgoingError> {
        let keeps = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method != Method::POST,
            StatusCode::SEE_OTHER => matches!(self.method, Method::GET | Method::HEAD),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            _ => return Ok(None),
        };
        let Some(location) = answer.get(header::LOCATION).and_then(|location| location.to_str().ok()) else {
            return Ok(None);
        };
        let mut next = Self { place: self.place.join(location)?, ..self.clone() };
        if !keeps {
            next.method = Method::GET;
            next.body = Bytes::new();
            next.headers.remove(header::CONTENT_TYPE);
            next.headers.remove(header::CONTENT_ENCODING);
        }
        if next.place.target != self.place.target {
            OF_ONE_ORIGIN.iter().for_each(|name| {
                next.headers.remove(name);
            });
            next.is_authorized = false;
        }
        Ok(Some(next))
    }
}

fn fields(written: Vec<(String, Vec<u8>)>) -> Result<HeaderMap, OutgoingError> {
    let invalid = OutgoingError::Invalid;
    let bytes: usize = written.iter().map(|(name, value)| name.len() + value.len()).sum();
    if written.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
        return Err(invalid(format!(
            "found {} header fields of {bytes} bytes, expected at most {HEADERS_MAX} of {HEADERS_BYTES_MAX}",
            written.len()
        )));
    }
    let mut headers = HeaderMap::with_capacity(written.len());
    for (name, value) in written {
        let known = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid("found a name of a header field that HTTP does not know".to_owned()))?;
        if OF_THE_HOST.contains(&known) {
            return Err(invalid(format!("found the header field {known}, which is the host's business")));
        }
        let value = HeaderValue::from_bytes(&value)
            .map_err(|_| invalid(format!("found a value of {known} that no header field can have")))?;
        headers.append(known, value);
    }
    Ok(headers)
}

fn authorization(credential: &Credential) -> Result<HeaderValue, OutgoingError> {
    let text = format!("{} {}", credential.scheme, credential.secret.reveal());
    let mut value = HeaderValue::from_str(text.trim_start()).map_err(|_| {
        OutgoingError::Invalid("found a scheme or a secret that no header field can have".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use aegis_wasm::SecretText;

    use super::*;

    fn dispatch(method: &str, url: &str) -> Dispatch {
        Dispatch {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: vec![
                ("Cookie".to_owned(), b"mine".to_vec()),
                ("content-type".to_owned(), b"text/plain".to_vec()),
                ("x-own".to_owned(), b"1".to_vec()),
            ],
            body: Bytes::from("body"),
            timeout: None,
            response_bytes_max: 0,
            credential: Some(Credential {
                scheme: "Bearer".to_owned(),
                secret: SecretText::new("hush-hush"),
            }),
        }
    }

    fn next(method: &str, status: u16, location: &str) -> Ask {
        let answer = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
        let ask = Ask::new(dispatch(method, "https://a.example/x")).unwrap();
        ask.next(StatusCode::from_u16(status).unwrap(), &answer).unwrap().unwrap()
    }

    #[test]
    fn the_secret_is_in_the_request_and_in_nothing_that_is_shown() {
        let ask = Ask::new(dispatch("POST", "https://a.example/x?y")).unwrap();
        let request = ask.request().unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/x?y".to_owned()));
        assert_eq!(request.headers()["authorization"], "Bearer hush-hush");
        assert_eq!(request.headers()["host"], "a.example");
        assert!(!format!("{ask:?} {request:?}").contains("hush"));
    }

    #[test]
    fn what_is_meant_for_one_origin_stays_there() {
        for (location, stays) in [
            ("/y", true),
            ("https://a.example:443/y", true),
            ("https://b.example/y", false),
            ("https://a.example:8443/y", false),
            ("https://sub.a.example/y", false),
        ] {
            let next = next("GET", 307, location);
            assert_eq!(next.headers.contains_key("authorization"), stays, "{location}");
            assert_eq!(
                (next.headers.contains_key("cookie"), next.is_authorized),
                (stays, stays),
                "{location}"
            );
            assert_eq!(next.headers["x-own"], "1");
        }
    }

    #[test]
    fn a_redirect_keeps_the_method_or_only_asks() {
        for (method, status, then) in [
            ("POST", 301, "GET"),
            ("POST", 302, "GET"),
            ("PUT", 302, "PUT"),
            ("POST", 303, "GET"),
            ("DELETE", 303, "GET"),
            ("HEAD", 303, "HEAD"),
            ("POST", 307, "POST"),
            ("POST", 308, "POST"),
            ("GET", 301, "GET"),
        ] {
            let next = next(method, status, "/y");
            assert_eq!(next.method.as_str(), then, "{method} {status}");
            assert_eq!(next.body.is_empty(), method != then, "{method} {status}");
            assert_eq!(next.headers.contains_key("content-type"), method == then, "{method} {status}");
        }
    }

    #[test]
    fn other_answers_lead_nowhere() {
        let ask = Ask::new(dispatch("GET", "https://a.example/x")).unwrap();
        let answer = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static("/y"))]);
        for status in [200, 201, 300, 304, 404] {
            assert!(ask.next(StatusCode::from_u16(status).unwrap(), &answer).unwrap().is_none());
        }
        assert!(ask.next(StatusCode::FOUND, &HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |change: &dyn Fn(&mut Dispatch)| {
            let mut dispatch = dispatch("GET", "https://a.example");
            change(&mut dispatch);
            Ask::new(dispatch).unwrap_err().to_string()
        };
        let with = |name: &str, value: &str| {
            let field = (name.to_owned(), value.as_bytes().to_vec());
            refused(&move |dispatch| dispatch.headers.push(field.clone()))
        };
        let told = [
            refused(&|dispatch| dispatch.method = "CONNECT".to_owned()),
            refused(&|dispatch| dispatch.method = "GET /".to_owned()),
            with("Host", "b.example"),
            with("transfer-encoding", "chunked"),
            with("a b", "c"),
            with("x", "a\r\nb"),
            with("x", &"a".repeat(HEADERS_BYTES_MAX)),
            refused(&|dispatch| {
                dispatch.credential =
                    Some(Credential { scheme: "a".to_owned(), secret: SecretText::new("hush\r\nhost: x") });
            }),
        ];
        assert!(told.iter().all(|told| !told.contains("hush")));
        insta::assert_snapshot!(told.join("\n"), @"
        found another method, expected one such as GET or POST
        found another method, expected one such as GET or POST
        found the header field host, which is the host's business
        found the header field transfer-encoding, which is the host's business
        found a name of a header field that HTTP does not know
        found a value of x that no header field can have
        found 4 header fields of 65575 bytes, expected at most 100 of 65536
        found a scheme or a secret that no header field can have
        ");
    }
}
