use std::time::Duration;

use aegis_domain::{catalog::Catalog, module};
use http::Request as HttpRequest;

use super::*;
use crate::operation::Revisions;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Problem>) -> ProblemCode {
    outcome.unwrap_err().code
}

#[test]
fn entity_tags_follow_rfc_9110() {
    let tags = |name: HeaderName, values: &[&str]| {
        let pairs: Vec<(&str, &str)> = values.iter().map(|value| (name.as_str(), *value)).collect();
        entity_tags(&headers(&pairs), &name)
    };
    let of = |revisions: &[u64]| Ok(Some(Revisions::Of(revisions.to_vec())));
    for (values, expected) in [
        (&[][..], Ok(None)),
        (&["*"], Ok(Some(Revisions::Any))),
        (&["\"3\""], of(&[3])),
        (&["\"3\", \"4\"", "\"5\""], of(&[3, 4, 5])),
        (&["\"abc\",\"03\",\"-1\",\"7\""], of(&[7])),
        (&["\"a,b\" , \"2\""], of(&[2])),
        (&["\"1\",,\"2\""], of(&[1, 2])),
        (&[", ,\"1\" ,\t, \"2\",", "", ",\"3\""], of(&[1, 2, 3])),
        (&[",*,"], Ok(Some(Revisions::Any))),
    ] {
        assert_eq!(tags(header::IF_MATCH, values), expected, "{values:?}");
    }
    assert_eq!(tags(header::IF_MATCH, &["W/\"3\""]), of(&[]), "a weak tag never matches strongly");
    assert_eq!(tags(header::IF_NONE_MATCH, &["W/\"3\""]), of(&[3]));
    for values in
        [&["3"][..], &["\"3"], &["\"3\" \"4\""], &["*, \"3\""], &[""], &[","], &["*", "*"], &["\"3\","]]
    {
        let outcome = tags(header::IF_MATCH, values);
        if values == ["\"3\","] {
            assert_eq!(outcome, of(&[3]), "an empty last element is tolerated");
        } else {
            assert_eq!(code(outcome), ProblemCode::BadHeader, "{values:?}");
        }
    }
}

#[test]
fn the_most_specific_range_of_accept_decides() {
    for (values, accepted) in [
        (&[][..], true),
        (&[""], true),
        (&["*/*"], true),
        (&["application/json"], true),
        (&["Application/JSON; charset=utf-8"], true),
        (&["text/html, application/*;q=0.5"], true),
        (&["text/html", "*/*;q=0.1"], true),
        (&["text/html"], false),
        (&["application/json;q=0"], false),
        (&["*/*, application/json;q=0"], false),
        (&["application/json;q=0.0, */*"], false),
        (&["nonsense"], false),
    ] {
        let pairs: Vec<(&str, &str)> = values.iter().map(|value| ("accept", *value)).collect();
        assert_eq!(accepts(&headers(&pairs), "application", "json").is_ok(), accepted, "{values:?}");
    }
}

#[test]
fn bodies_have_the_types_that_the_method_takes() {
    let kind = |value: &str, patches| fields::media_type(&headers(&[("content-type", value)]), patches);
    assert_eq!(kind("application/json", false), Ok(MediaType::Json));
    assert_eq!(kind("application/JSON; charset=\"UTF-8\"", false), Ok(MediaType::Json));
    assert_eq!(kind("application/merge-patch+json", true), Ok(MediaType::MergePatch));
    assert_eq!(kind("application/json-patch+json", true), Ok(MediaType::JsonPatch));
    assert_eq!(fields::media_type(&HeaderMap::new(), true), Ok(MediaType::Json));
    for (value, patches) in [
        ("application/json-patch+json", false),
        ("application/merge-patch+json", false),
        ("text/plain", true),
        ("application/x-www-form-urlencoded", false),
        ("application/json; charset=latin1", false),
        ("", false),
    ] {
        assert_eq!(code(kind(value, patches)), ProblemCode::UnsupportedMediaType, "{value}");
    }
    let coded = |value| fields::media_type(&headers(&[("content-encoding", value)]), false);
    assert_eq!(coded("Identity"), Ok(MediaType::Json));
    assert_eq!(code(coded("gzip")), ProblemCode::UnsupportedMediaType);
    let transferred = |value| fields::media_type(&headers(&[("transfer-encoding", value)]), false);
    assert_eq!(transferred("Chunked"), Ok(MediaType::Json));
    assert_eq!(code(transferred("gzip, chunked")), ProblemCode::UnsupportedMediaType);
    let twice = |second| {
        fields::media_type(&headers(&[("content-type", "application/json"), ("content-type", second)]), false)
    };
    assert_eq!(twice("application/json"), Ok(MediaType::Json));
    assert_eq!(code(twice("text/plain")), ProblemCode::BadHeader);
}

#[test]
fn preferences_other_than_return_are_ignored() {
    let preference = |value: &str| fields::preference(&headers(&[("prefer", value)]));
    assert_eq!(preference("return=minimal"), Some(Preference::Minimal));
    assert_eq!(preference("respond-async, Return=\"representation\"; x=1"), Some(Preference::Representation));
    assert_eq!(preference("wait=10"), None);
    assert_eq!(preference("return=other, return=minimal"), Some(Preference::Minimal));
    assert_eq!(
        preference(r#"note="a, return=minimal", return=representation"#),
        Some(Preference::Representation)
    );
    assert_eq!(preference(r#"note="a\", return=minimal""#), None);
}

#[test]
fn a_request_id_is_repeated_only_if_it_is_plain() {
    let id = |value: &str| request_id(&HeaderValue::from_str(value).unwrap()).is_some();
    assert!(id("abc-1/2"));
    assert!(id(&"x".repeat(128)));
    assert!(!id(""));
    assert!(!id("a b"));
    assert!(!id(&"x".repeat(129)));
    assert!(request_id(&HeaderValue::from_bytes(b"\xff").unwrap()).is_none());
}

#[test]
fn query_pairs_are_decoded_and_unknown_names_refused() {
    let known = &["model", "wait"];
    let decoded = [("model", "a b c\u{e6}".to_owned()), ("wait", String::new())];
    assert_eq!(pairs("model=a%20b+c%C3%A6&wait&&", known).unwrap(), decoded);
    assert_eq!(pairs("model=a&model=b", known).unwrap().len(), 2);
    assert_eq!(single_pairs("model=a&wait", known).unwrap().len(), 2);
    assert_eq!(code(single_pairs("model=a&wait&model=a", known)), ProblemCode::BadParameter);
    assert_eq!(code(pairs("modell=a", known)), ProblemCode::BadParameter);
    assert_eq!(code(pairs("model=%ff", known)), ProblemCode::BadParameter);
    assert_eq!(code(pairs("model=%zz", known)), ProblemCode::BadParameter);
}

fn model() -> Arc<Model> {
    let spec = module::parse("name = \"todo\"\n[fields]\ntext = \"text\"\n", "test").unwrap();
    Arc::clone(&Catalog::build(vec![spec]).unwrap().models()[0])
}

fn limits() -> Limits {
    let second = Duration::from_secs(1);
    Limits {
        body_bytes_max: 8,
        header_bytes_max: 100,
        headers_max: 3,
        uri_bytes_max: 30,
        batch_documents_max: 1,
        connections_max: 1,
        requests_in_flight_max: 1,
        http2_streams_max: 1,
        header_timeout: second,
        request_timeout: second,
        write_timeout: second,
        idle_timeout: second,
        streams_max: 1,
        requests_per_second: 0,
        requests_burst: 0,
    }
}

async fn read_request(
    method: &str,
    target: &str,
    id: Option<&str>,
    fields: &[(&str, &str)],
    body: &'static str,
) -> Result<(Request, Wish), Problem> {
    let (mut parts, ()) = HttpRequest::builder().method(method).uri(target).body(()).unwrap().into_parts();
    parts.headers = headers(fields);
    let mut body = RequestBody::given(Bytes::from_static(body.as_bytes()));
    let deadline = Instant::now() + Duration::from_secs(5);
    let target = Target { model: &model(), id: id.map(str::to_owned), command: None };
    read(target, &parts, &mut body, &limits(), (&Caller::Trusted, deadline)).await
}

#[tokio::test]
async fn method_path_and_type_make_the_operation() {
    const MERGE: &[(&str, &str)] = &[("content-type", "application/merge-patch+json")];
    const PATCH: &[(&str, &str)] = &[("content-type", "application/json-patch+json")];
    let mut table = Vec::new();
    for (method, id, fields) in [
        ("GET", None, &[][..]),
        ("HEAD", None, &[]),
        ("POST", None, &[]),
        ("GET", Some("a"), &[]),
        ("HEAD", Some("a"), &[]),
        ("PUT", Some("a"), &[]),
        ("PATCH", Some("a"), &[]),
        ("PATCH", Some("a"), MERGE),
        ("PATCH", Some("a"), PATCH),
        ("DELETE", Some("a"), &[]),
    ] {
        let target = if id.is_some() { "/x" } else { "/x?a=1" };
        let (request, _) = read_request(method, target, id, fields, "{}").await.unwrap();
        let kind = fields.first().map_or("", |(_, value)| *value);
        table.push(format!("{method} {kind}→ {:?}", request.operation));
    }
    insta::assert_snapshot!(table.join("\n"), @r#"
    GET → List { query: "a=1" }
    HEAD → List { query: "a=1" }
    POST → Create { body: b"{}" }
    GET → Read { id: "a" }
    HEAD → Read { id: "a" }
    PUT → Replace { id: "a", body: b"{}" }
    PATCH → Merge { id: "a", body: b"{}" }
    PATCH application/merge-patch+json→ Merge { id: "a", body: b"{}" }
    PATCH application/json-patch+json→ Patch { id: "a", body: b"{}" }
    DELETE → Remove { id: "a" }
    "#);
}

#[tokio::test]
async fn a_read_by_id_refuses_what_it_would_ignore() {
    let refused = |target: &'static str| async move { read_request("GET", target, Some("a"), &[], "").await };
    assert_eq!(code(refused("/x?__select=a").await), ProblemCode::BadParameter);
    assert_eq!(code(refused("/x?relation=b").await), ProblemCode::NoSuchRelation);
    assert_eq!(code(refused("/x?a=b&command=c").await), ProblemCode::NoSuchCommand);
    assert!(refused("/x?_=123&utm=1").await.is_ok());
}

#[tokio::test]
async fn idempotency_keys_belong_to_writes_and_to_the_whole_request() {
    let keyed = |method: &'static str, target: &'static str, key: &'static str, body: &'static str| async move {
        let id = if method == "POST" || method == "GET" { None } else { Some("a") };
        read_request(method, target, id, &[("idempotency-key", key)], body)
            .await
            .map(|(request, _)| request.idempotency)
    };
    let first = keyed("POST", "/x", "k-1", "{}").await.unwrap().unwrap();
    assert_eq!(first.key, "anonymous k-1");
    assert_eq!(keyed("POST", "/x", "k-1", "{}").await.unwrap(), Some(first.clone()));
    for (method, target, body) in
        [("POST", "/y", "{}"), ("POST", "/x", "{ }"), ("PUT", "/x", "{}"), ("DELETE", "/x", "")]
    {
        let other = keyed(method, target, "k-1", body).await.unwrap().unwrap();
        assert_ne!(other.fingerprint, first.fingerprint, "{method} {target} {body}");
    }
    assert_eq!(keyed("GET", "/x", "k-1", "").await.unwrap(), None, "a read needs no key");
    let long: &'static str = Box::leak("k".repeat(256).into_boxed_str());
    for key in ["", "a b", long, "\u{e9}"] {
        assert_eq!(code(keyed("POST", "/x", key, "{}").await), ProblemCode::BadHeader, "{key}");
    }
    let twice = &[("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(code(read_request("POST", "/x", None, twice, "{}").await), ProblemCode::BadHeader);
}

#[tokio::test]
async fn wishes_apply_to_writes_only() {
    let prefer = &[("prefer", "return=minimal")];
    let (request, wish) = read_request("POST", "/x", None, prefer, "{}").await.unwrap();
    assert_eq!((request.answer, wish.applied), (Answer::Minimal, Some("return=minimal")));
    assert_eq!(Wish::granted(Some(Preference::Representation), Answer::Minimal).applied, None);
    let (request, wish) = read_request("GET", "/x", None, prefer, "").await.unwrap();
    assert_eq!((request.answer, wish.applied), (Answer::Representation, None));
}

#[tokio::test]
async fn a_part_of_a_document_is_not_put_in_place_of_the_whole() {
    let part = &[("content-range", "bytes 0-1/8")];
    for (method, id, is_refused) in
        [("PUT", Some("a"), true), ("PATCH", Some("a"), false), ("POST", None, false)]
    {
        let outcome = read_request(method, "/x", id, part, "{}").await;
        assert_eq!(
            outcome.err().map(|problem| problem.code),
            is_refused.then_some(ProblemCode::BadHeader),
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_body_is_bounded() {
    assert!(read_request("POST", "/x", None, &[], "12345678").await.is_ok());
    let refused = read_request("POST", "/x", None, &[], "123456789").await.unwrap_err();
    assert_eq!(refused.to_string(), "body-too-large: the body has 9 bytes, at most 8 are allowed");
}

#[test]
fn sizes_are_checked_one_by_one() {
    let check = |target: &str, fields: &[(&str, &str)]| {
        let headers = headers(fields);
        let glance = Glance::new(&headers);
        check_sizes(&target.parse().unwrap(), &headers, &glance, &limits())
            .map_err(|problem| problem.to_string())
    };
    assert_eq!(check("/x", &[("a", "1"), ("b", "2"), ("c", "3")]), Ok(()));
    let long = format!("/{}", "x".repeat(30));
    let wide = "v".repeat(100);
    let refused = [
        check(&long, &[]).unwrap_err(),
        check("/x", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).unwrap_err(),
        check("/x", &[("a", &wide)]).unwrap_err(),
    ];
    insta::assert_snapshot!(refused.join("\n"), @r#"
    uri-too-long: the request target has 31 bytes, at most 30 are allowed
    headers-too-large: the request has 4 header fields, at most 3 are allowed
    headers-too-large: the header fields have 105 bytes, at most 100 are allowed
    "#);
}

#[test]
fn a_request_of_http_1_1_names_one_host() {
    let check = |version, hosts: &[&str]| {
        let fields: Vec<(&str, &str)> = hosts.iter().map(|host| ("host", *host)).collect();
        let headers = headers(&fields);
        check_host(version, &headers, &Glance::new(&headers)).map_err(|problem| problem.to_string())
    };
    for host in ["x", "x:80", "[::1]:8080", "", "a.b-c_d~1"] {
        assert_eq!(check(Version::HTTP_11, &[host]), Ok(()), "{host}");
    }
    assert_eq!(check(Version::HTTP_10, &[]), Ok(()), "it came with HTTP/1.1");
    assert_eq!(check(Version::HTTP_2, &[]), Ok(()), "it is in :authority");
    let refused = [&[][..], &["a", "b"], &["a", "a"], &["a/b"], &["u@a"], &["a b"]];
    let said: Vec<String> = refused.iter().map(|hosts| check(Version::HTTP_11, hosts).unwrap_err()).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    bad-header: Host: found nothing, expected one host (RFC 9112 section 3.2)
    bad-header: Host: found several values, expected one host (RFC 9112 section 3.2)
    bad-header: Host: found several values, expected one host (RFC 9112 section 3.2)
    bad-header: Host: found a value that no host has, expected one host (RFC 9112 section 3.2)
    bad-header: Host: found a value that no host has, expected one host (RFC 9112 section 3.2)
    bad-header: Host: found a value that no host has, expected one host (RFC 9112 section 3.2)
    ");
    assert!(check(Version::HTTP_10, &["a", "b"]).is_err());
}

#[test]
fn a_glance_sees_what_a_plain_read_depends_on() {
    let headers = headers(&[("accept", "*/*"), ("if-none-match", "\"1\""), ("x-request-id", "r")]);
    let glance = Glance::new(&headers);
    assert!(glance.accept.is_some() && glance.if_none_match.is_some() && glance.request_id.is_some());
    assert!(!glance.needs_care);
    assert!(Glance::new(&self::headers(&[("if-match", "\"1\"")])).needs_care);
    assert!(Glance::new(&self::headers(&[("accept", "a/b"), ("accept", "c/d")])).needs_care);
}
