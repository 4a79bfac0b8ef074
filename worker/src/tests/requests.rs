//! Requests of clients.

use std::time::Duration;

use aegis_ipc::board::Counter;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::house::{Answer, Client, Extent, House};
use crate::{data::tests::fake_store::Mood, service};

const TODOS: &str = "/aegis/api/models/todos";

async fn create(house: &House, body: &str) -> Answer {
    let answer = house.ask(&format!("POST {TODOS}\n\n{body}")).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "the snapshot shows every answer")]
async fn the_life_of_a_document_over_the_wire() {
    let house = House::new().await;
    let mut client = house.client().await;
    let mut shown = Vec::new();
    for request in [
        "POST {}\nx-request-id: mine\n\n{\"id\":\"a b\",\"text\":\"x\"}",
        "GET {}/a%20b",
        "GET {}/a%20b\nif-none-match: \"1\"",
        "HEAD {}/a%20b",
        "PATCH {}/a%20b\nif-match: \"1\"\n\n{\"rank\":5}",
        "PUT {}/a%20b\nprefer: return=minimal\n\n{\"text\":\"y\"}",
        "PUT {}/new\nif-none-match: *\n\n{\"text\":\"z\"}",
        "GET {}?__limit=1&__sort=id",
        "DELETE {}/a%20b",
        "GET {}/a%20b",
        "POST {}\nprefer: return=minimal\n\n[{\"id\":\"1\",\"text\":\"p\"},{\"id\":\"2\",\"text\":\"q\"}]",
    ] {
        let request = request.replace("{}", TODOS);
        let answer = client.ask(&request).await;
        shown.push(format!("--- {}\n{}", request.lines().next().unwrap(), answer.shown()));
    }
    insta::assert_snapshot!(shown.join("\n"), @r#"
    --- POST /aegis/api/models/todos
    201
    aegis-worker: 3.7
    aegis-seq: 1
    x-request-id: …
    content-type: application/json
    etag: "1"
    location: /aegis/api/models/todos/a%20b
    content-length: …
    {"text":"x","id":"a b","modelName":"TODO","createTime":"…","updateTime":"…","revision":1}
    --- GET /aegis/api/models/todos/a%20b
    200
    aegis-worker: 3.7
    aegis-seq: 1
    x-request-id: …
    content-type: application/json
    etag: "1"
    content-length: …
    {"text":"x","id":"a b","modelName":"TODO","createTime":"…","updateTime":"…","revision":1}
    --- GET /aegis/api/models/todos/a%20b
    304
    aegis-worker: 3.7
    aegis-seq: 1
    x-request-id: …
    etag: "1"

    --- HEAD /aegis/api/models/todos/a%20b
    200
    aegis-worker: 3.7
    aegis-seq: 1
    x-request-id: …
    content-type: application/json
    content-length: …
    etag: "1"

    --- PATCH /aegis/api/models/todos/a%20b
    200
    aegis-worker: 3.7
    aegis-seq: 2
    x-request-id: …
    content-type: application/json
    etag: "2"
    content-length: …
    {"text":"x","rank":5,"id":"a b","modelName":"TODO","createTime":"…","updateTime":"…","revision":2}
    --- PUT /aegis/api/models/todos/a%20b
    200
    aegis-worker: 3.7
    aegis-seq: 3
    x-request-id: …
    content-type: application/json
    etag: "3"
    preference-applied: return=minimal
    content-length: …
    {"status":"ok","modelId":"a b"}
    --- PUT /aegis/api/models/todos/new
    201
    aegis-worker: 3.7
    aegis-seq: 4
    x-request-id: …
    content-type: application/json
    etag: "1"
    location: /aegis/api/models/todos/new
    content-length: …
    {"text":"z","id":"new","modelName":"TODO","createTime":"…","updateTime":"…","revision":1}
    --- GET /aegis/api/models/todos?__limit=1&__sort=id
    200
    aegis-worker: 3.7
    aegis-seq: 4
    x-request-id: …
    content-type: application/json
    link: </aegis/api/models/todos?__limit=1&__sort=id&__cursor=…>; rel="next"
    content-length: …
    [{"text":"y","id":"a b","modelName":"TODO","createTime":"…","updateTime":"…","revision":3}]
    --- DELETE /aegis/api/models/todos/a%20b
    200
    aegis-worker: 3.7
    aegis-seq: 5
    x-request-id: …
    content-type: application/json
    content-length: …
    {"text":"y","id":"a b","modelName":"TODO","createTime":"…","updateTime":"…","revision":3}
    --- GET /aegis/api/models/todos/a%20b
    404
    aegis-worker: 3.7
    aegis-seq: 5
    x-request-id: …
    content-type: application/problem+json
    content-length: …
    {"type":"https://aegis/problems/not-found","title":"Not Found","status":404,"detail":"there is no document of TODO with the id \"a b\"","instance":"…","code":"not-found","retry":"never","error":"there is no document of TODO with the id \"a b\""}
    --- POST /aegis/api/models/todos
    201
    aegis-worker: 3.7
    aegis-seq: 7
    x-request-id: …
    content-type: application/json
    preference-applied: return=minimal
    content-length: …
    [{"status":"ok","modelId":"1"},{"status":"ok","modelId":"2"}]
    "#);
}

#[tokio::test]
async fn a_request_takes_little_memory() {
    let house = House::new().await;
    let bytes = crate::service::bytes_taken_for_a_request(&house.host);
    // What is seldom needed belongs into a box of its own, see `Modules::call`.
    assert!(bytes <= 6 * 1024, "{bytes} bytes");
}

#[tokio::test]
async fn the_short_way_and_the_long_way_answer_alike() {
    let house = House::new().await;
    create(&house, "{\"id\":\"a\",\"text\":\"x\"}").await;
    let mut client = house.client().await;
    for (short, long) in [
        ("", "accept: application/json;q=1"),
        ("if-none-match: \"1\"", "if-none-match: W/\"1\""),
        ("if-none-match: \"2\"", "if-none-match: \"2\", \"3\""),
    ] {
        let short = client.ask(&format!("GET {TODOS}/a\n{short}")).await;
        let long = client.ask(&format!("GET {TODOS}/a\n{long}")).await;
        assert_eq!(short.shown(), long.shown());
    }
    let short = client.ask(&format!("GET {TODOS}/none")).await;
    let long = client.ask(&format!("GET {TODOS}/none?x=1")).await;
    assert_eq!((short.status, short.shown()), (404, long.shown()));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_one_form() {
    let house = House::new().await;
    create(&house, "{\"id\":\"a\",\"text\":\"x\",\"code\":\"c\"}").await;
    let mut shown = Vec::new();
    for request in [
        "GET /nothing",
        "GET /aegis/api/models/nothing",
        "POST {}/a\n\n{}",
        "GET {}\naccept: text/html",
        "POST {}\ncontent-type: text/plain\n\nx",
        "POST {}\n\n{",
        "POST {}\n\n{\"rank\":\"x\"}",
        "POST {}\n\n{\"text\":\"y\",\"code\":\"c\"}",
        "PUT {}/a\nif-match: \"9\"\n\n{\"text\":\"y\"}",
        "PUT {}/a\nif-match: 9\n\n{\"text\":\"y\"}",
        "POST {}\nidempotency-key: a b\n\n{\"text\":\"y\"}",
        "GET {}?__nonsense=1",
        "POST /aegis/api/reload",
        "GET /metrics",
    ] {
        let request = request.replace("{}", TODOS);
        let answer = house.ask(&request).await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let instance = answer.json()["instance"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("x-request-id"), Some(instance.as_str()));
        shown.push(format!(
            "--- {}\n{} {}",
            request.lines().next().unwrap(),
            answer.status,
            answer.shown().lines().last().unwrap()
        ));
    }
    insta::assert_snapshot!(shown.join("\n"), @r#"
    --- GET /nothing
    404 {"type":"https://aegis/problems/no-such-route","title":"Not Found","status":404,"detail":"there is nothing at /nothing","instance":"…","code":"no-such-route","retry":"never","error":"there is nothing at /nothing"}
    --- GET /aegis/api/models/nothing
    404 {"type":"https://aegis/problems/no-such-model","title":"Not Found","status":404,"detail":"no model has the endpoint \"nothing\"","instance":"…","code":"no-such-model","retry":"never","error":"no model has the endpoint \"nothing\""}
    --- POST /aegis/api/models/todos/a
    405 {"type":"https://aegis/problems/method-not-allowed","title":"Method not allowed","status":405,"detail":"POST is not allowed here, only GET, HEAD, PUT, PATCH, DELETE, OPTIONS","instance":"…","code":"method-not-allowed","retry":"never","error":"POST is not allowed here, only GET, HEAD, PUT, PATCH, DELETE, OPTIONS"}
    --- GET /aegis/api/models/todos
    406 {"type":"https://aegis/problems/not-acceptable","title":"Nothing acceptable can be answered","status":406,"detail":"Accept: found \"text/html\", expected one that admits application/json","instance":"…","code":"not-acceptable","retry":"never","error":"Accept: found \"text/html\", expected one that admits application/json"}
    --- POST /aegis/api/models/todos
    415 {"type":"https://aegis/problems/unsupported-media-type","title":"Content type not supported","status":415,"detail":"Content-Type: found \"text/plain\", expected application/json, in UTF-8","instance":"…","code":"unsupported-media-type","retry":"never","error":"Content-Type: found \"text/plain\", expected application/json, in UTF-8"}
    --- POST /aegis/api/models/todos
    400 {"type":"https://aegis/problems/malformed-json","title":"The body is not acceptable JSON","status":400,"detail":"line 1, column 2: found the end, expected a property name in double quotes","instance":"…","code":"malformed-json","retry":"never","error":"line 1, column 2: found the end, expected a property name in double quotes"}
    --- POST /aegis/api/models/todos
    422 {"type":"https://aegis/problems/invalid","title":"The document is not valid","status":422,"detail":"2 mistakes, the first: /text: is required","instance":"…","code":"invalid","errors":[{"path":"/text","message":"is required"},{"path":"/rank","message":"found the text \"x\", expected a whole number"}],"retry":"never","error":"2 mistakes, the first: /text: is required"}
    --- POST /aegis/api/models/todos
    409 {"type":"https://aegis/problems/unique-taken","title":"A unique value is taken","status":409,"detail":"another document of TODO has this \"code\"","instance":"…","code":"unique-taken","errors":[{"path":"/code","message":"this value is taken"}],"retry":"never","error":"another document of TODO has this \"code\""}
    --- PUT /aegis/api/models/todos/a
    412 {"type":"https://aegis/problems/revision-mismatch","title":"The document has another revision","status":412,"detail":"the document has revision 1, If-Match names 9","instance":"…","code":"revision-mismatch","retry":"never","error":"the document has revision 1, If-Match names 9"}
    --- PUT /aegis/api/models/todos/a
    400 {"type":"https://aegis/problems/bad-header","title":"A header is not acceptable","status":400,"detail":"if-match: found \"9\", expected * or a list of quoted entity tags","instance":"…","code":"bad-header","retry":"never","error":"if-match: found \"9\", expected * or a list of quoted entity tags"}
    --- POST /aegis/api/models/todos
    400 {"type":"https://aegis/problems/bad-header","title":"A header is not acceptable","status":400,"detail":"Idempotency-Key: found characters of another kind, expected one value of 1 to 255 visible ASCII characters","instance":"…","code":"bad-header","retry":"never","error":"Idempotency-Key: found characters of another kind, expected one value of 1 to 255 visible ASCII characters"}
    --- GET /aegis/api/models/todos?__nonsense=1
    400 {"type":"https://aegis/problems/bad-parameter","title":"A query parameter is not acceptable","status":400,"detail":"parameter \"__nonsense\": found an unknown parameter, expected one of __operand, __sort, __limit, __skip, __page, __cursor, __count, __select, __aggregate","instance":"…","code":"bad-parameter","retry":"never","error":"parameter \"__nonsense\": found an unknown parameter, expected one of __operand, __sort, __limit, __skip, __page, __cursor, __count, __select, __aggregate"}
    --- POST /aegis/api/reload
    403 {"type":"https://aegis/problems/admin-only","title":"Only for operators","status":403,"detail":"this is answered on the admin listener only","instance":"…","code":"admin-only","retry":"never","error":"this is answered on the admin listener only"}
    --- GET /metrics
    403 {"type":"https://aegis/problems/admin-only","title":"Only for operators","status":403,"detail":"this is answered on the admin listener only","instance":"…","code":"admin-only","retry":"never","error":"this is answered on the admin listener only"}
    "#);
}

#[tokio::test]
async fn a_query_that_is_not_escaped_is_told_so() {
    let house = House::new().await;
    let mut shown = Vec::new();
    for query in ["text=%", "text=%zz"] {
        let answer = house.ask(&format!("GET {TODOS}?{query}")).await;
        shown.push(format!("{} {} {}", answer.status, answer.json()["code"], answer.json()["detail"]));
    }
    insta::assert_snapshot!(shown.join("\n"), @r#"
    400 "bad-parameter" "parameter \"text\": found \"%\", expected a value in UTF-8, with every percent sign written as %25"
    400 "bad-parameter" "parameter \"text\": found \"%zz\", expected a value in UTF-8, with every percent sign written as %25"
    "#);
}

#[tokio::test]
async fn methods_of_a_place_are_listed() {
    let house = House::new().await;
    let mut client = house.client().await;
    let options = client.ask(&format!("OPTIONS {TODOS}/a")).await;
    assert_eq!(
        (options.status, options.header("allow")),
        (204, Some("GET, HEAD, PUT, PATCH, DELETE, OPTIONS"))
    );
    let refused = client.ask(&format!("DELETE {TODOS}")).await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
}

#[tokio::test]
async fn a_list_leads_to_its_next_page() {
    let house = House::new().await;
    for id in ["a", "b", "c"] {
        create(&house, &format!("{{\"id\":\"{id}\",\"text\":\"x\"}}")).await;
    }
    let mut client = house.client().await;
    let mut target = format!("{TODOS}?__sort=id&__limit=2");
    let mut seen = Vec::new();
    loop {
        let page = client.ask(&format!("GET {target}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        seen.extend(
            page.json().as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(link) = page.header("link") else { break };
        let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        target = next.unwrap().to_owned();
        assert!(target.contains("__sort=id&__limit=2&__cursor="), "{target}");
        assert!(seen.len() < 10, "the pages do not end");
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn the_next_page_has_one_cursor_however_the_one_before_was_written() {
    let house = House::new().await;
    for id in ["a", "b", "c"] {
        create(&house, &format!("{{\"id\":\"{id}\",\"text\":\"x\"}}")).await;
    }
    let next = async |query: &str| {
        let answer = house.ask(&format!("GET {TODOS}?{query}")).await;
        let link = answer.header("link").unwrap_or_else(|| panic!("{}", answer.body)).to_owned();
        link.split_once('?').and_then(|(_, rest)| rest.split_once('>')).unwrap().0.to_owned()
    };
    let first = next("__limit=1&__sort=id").await;
    let second = next(&first.replace("__cursor", "__%63ursor")).await;
    assert_eq!(second.matches("ursor=").count(), 1, "{second}");
    assert_ne!(first, second);
}

#[tokio::test]
async fn an_idempotent_write_is_answered_again() {
    let house = House::new().await;
    let request = format!("POST {TODOS}\nidempotency-key: k1\n\n{{\"text\":\"x\"}}");
    let first = house.ask(&request).await;
    let again = house.ask(&request).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        (None, Some("true"))
    );
    let other = house.ask(&format!("POST {TODOS}\nidempotency-key: k1\n\n{{\"text\":\"y\"}}")).await;
    assert_eq!((other.status, other.json()["code"].as_str()), (422, Some("idempotency-key-reused")));
}

#[tokio::test]
async fn bodies_are_read_only_as_far_as_allowed_and_the_answer_arrives() {
    let house = House::with(|config| config.limits.body_bytes_max = 1000).await;
    let text = "x".repeat(5_000_000);
    // The whole body is on the wire before the answer is read: a reset would destroy the answer.
    for framing in ["content-length: 5000000", "transfer-encoding: chunked"] {
        let mut client = house.client().await;
        let body =
            if framing.starts_with('c') { text.clone() } else { format!("4c4b40\r\n{text}\r\n0\r\n\r\n") };
        let (mut reading, mut writing) = client.stream.into_split();
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let head = format!("POST {TODOS} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
            writing.write_all(head.as_bytes()).await.unwrap();
            let _ = writing.write_all(body.as_bytes()).await;
            writing
        });
        let mut answer = Vec::new();
        use tokio::io::AsyncReadExt;
        reading.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(
            answer.contains("connection: close") && answer.contains("at most 1000 are allowed"),
            "{answer}"
        );
        client = Client::connect(house.public).await;
        drop((writer.await.unwrap(), client));
    }
    let mut client = house.client().await;
    client.send(&format!("POST {TODOS}\nexpect: 100-continue\ncontent-length: 5000000")).await;
    let answer = client.answer(Extent::Whole).await.unwrap();
    assert_eq!(answer.status, 413, "without asking for the body first");
}

#[tokio::test]
async fn a_refused_request_with_a_small_body_leaves_the_connection_usable() {
    let house = House::new().await;
    let mut client = house.client().await;
    let refused = client.ask("POST /nothing\n\n{\"some\":\"body\"}").await;
    assert_eq!((refused.status, refused.header("connection")), (404, None));
    assert_eq!(client.ask("GET /livez").await.status, 200);
}

#[tokio::test]
async fn a_request_that_names_no_host_or_two_is_refused() {
    use tokio::io::AsyncWriteExt;

    let house = House::new().await;
    create(&house, "{\"id\":\"a\",\"text\":\"x\"}").await;
    for place in ["/livez".to_owned(), format!("{TODOS}/a")] {
        for (fields, status) in [("", 400), ("host: a\r\nhost: b\r\n", 400), ("host: a\r\n", 200)] {
            let mut client = house.client().await;
            let head = format!("GET {place} HTTP/1.1\r\n{fields}\r\n");
            client.stream.write_all(head.as_bytes()).await.unwrap();
            let answer = client.answer(Extent::Whole).await.unwrap();
            assert_eq!(answer.status, status, "{place} {fields:?}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_in_the_same_form() {
    let house = House::with(|config| {
        config.limits.uri_bytes_max = 100;
        config.limits.header_bytes_max = 1000;
        config.limits.headers_max = 10;
    })
    .await;
    let many: String = (0..11).map(|index| format!("x-{index}: 1\n")).collect();
    for (request, status) in [
        (format!("GET /{}", "x".repeat(200)), 414),
        (format!("GET /livez\nx: {}", "x".repeat(2_000)), 431),
        (format!("GET /livez\n{many}"), 431),
        (format!("GET /livez\nx: {}", "x".repeat(900_000)), 431),
        ("GET /livez\nbad header: 1".to_owned(), 400),
    ] {
        let answer = house.ask(&request).await;
        let problem = answer.json();
        assert_eq!((answer.status, problem["status"].as_u64()), (status, Some(u64::from(status))));
        assert_eq!(problem["error"], problem["detail"]);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn a_list_whose_target_just_fits_can_be_gone_through() {
    let house = House::with(|config| config.limits.uri_bytes_max = 100).await;
    let mut client = house.client().await;
    for id in ["a", "b", "c"] {
        create(&house, &format!("{{\"id\":\"{id}\",\"text\":\"x\"}}")).await;
    }
    let start = format!("{TODOS}?__limit=1&text__ne=");
    let mut target = format!("{start}{}", "y".repeat(100 - start.len()));
    let longer = client.ask(&format!("GET {target}y")).await;
    assert_eq!((longer.status, longer.json()["code"].as_str()), (414, Some("uri-too-long")));
    for _ in 0..2 {
        let page = client.ask(&format!("GET {target}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let link = page.header("link").unwrap();
        target = link[1..].split_once('>').unwrap().0.to_owned();
        assert!(target.len() > 100, "{target}");
    }
    let last = client.ask(&format!("GET {target}")).await;
    assert_eq!((last.status, last.header("link")), (200, None), "{}", last.body);
    for refused in [format!("{target}&a=1"), format!("{start}x&__cursor={}", "A".repeat(20_000))] {
        assert_eq!(client.ask(&format!("GET {refused}")).await.status, 414, "{refused}");
    }
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_end() {
    let house = House::with(|config| {
        config.limits.header_timeout = Duration::from_millis(300);
        config.limits.idle_timeout = Duration::from_millis(600);
    })
    .await;
    let mut slow = house.client().await;
    use tokio::io::AsyncWriteExt;
    slow.stream.write_all(b"GET /livez HTTP/1.1\r\nhost").await.unwrap();
    let answer = slow.answer(Extent::Whole).await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (408, Some("request-timeout")));
    assert!(slow.is_ended().await);
    let mut idle = house.client().await;
    assert_eq!(idle.ask("GET /livez").await.status, 200);
    assert!(idle.is_ended().await, "without a word");
}

#[tokio::test]
async fn a_full_worker_says_so_at_once_and_still_reads_from_its_cache() {
    let house = House::with(|config| config.limits.requests_in_flight_max = 1).await;
    create(&house, "{\"id\":\"a\",\"text\":\"x\"}").await;
    house.store.set_mood(Mood::Silent);
    let mut writer = house.client().await;
    writer.send(&format!("POST {TODOS}\n\n{{\"text\":\"y\"}}")).await;
    super::house::eventually("the write waits", || house.host.load.in_flight() == 1).await;
    let refused = house.ask(&format!("POST {TODOS}\n\n{{\"text\":\"z\"}}")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["code"], "overloaded");
    assert_eq!(house.ask(&format!("GET {TODOS}/a")).await.status, 200);
    house.store.set_mood(Mood::Good);
    assert_eq!(writer.answer(Extent::Whole).await.unwrap().status, 201);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let house = House::new().await;
    create(&house, "{\"id\":\"a\",\"text\":\"x\"}").await;
    let mut client = house.client().await;
    for _ in 0..20 {
        client.send(&format!("GET {TODOS}/a")).await;
        client.send(&format!("GET {TODOS}?__limit=1")).await;
    }
    for _ in 0..20 {
        assert!(client.answer(Extent::Whole).await.unwrap().body.starts_with('{'));
        assert!(client.answer(Extent::Whole).await.unwrap().body.starts_with('['));
    }
}

#[tokio::test]
async fn http2_is_spoken_to_whom_speaks_it() {
    let house = House::new().await;
    create(&house, "{\"id\":\"a\",\"text\":\"x\"}").await;
    let mut client = super::house::Http2::connect(house.public).await;
    let (status, headers, body) = client.get(&format!("{TODOS}/a")).await;
    assert_eq!((status, headers.get("etag").unwrap().to_str().unwrap()), (200, "\"1\""));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["text"], json!("x"));
    let (status, _, body) = client.get("/nothing").await;
    assert_eq!((status, body.is_empty()), (404, false));
}

#[tokio::test]
async fn answers_are_counted_and_the_self_test_goes_the_whole_way() {
    let house = House::new().await;
    assert_eq!(service::self_test(&house.host).await, 200);
    let answered = |counter| house.host.cell.counter(counter).load(std::sync::atomic::Ordering::Relaxed);
    let before = answered(Counter::Responses2xx);
    house.ask("GET /livez").await;
    house.ask("GET /nothing").await;
    assert_eq!(answered(Counter::Responses2xx), before + 1);
    assert_eq!(answered(Counter::Responses4xx), 1);
    super::house::eventually("all connections are closed", || house.host.seats.open() == 0).await;
}

#[tokio::test]
async fn a_target_that_is_not_encoded_is_told_with_the_character() {
    let house = House::new().await;
    let line = "GET /aegis/api/models/todos?__aggregate=[{\"$count\":\"n\"}]";
    let told = |answer: Answer| {
        let told = answer.json();
        let code = told["code"].as_str().unwrap();
        format!("{} {code}: {}", answer.status, told["detail"].as_str().unwrap())
    };
    let mut shown = vec![told(house.ask(line).await)];
    let mut client = house.client().await;
    assert_eq!(client.ask("GET /livez").await.status, 200);
    for piece in format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes().chunks(7) {
        client.stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    shown.push(told(client.answer(Extent::Whole).await.unwrap()));
    // Where a head began that came with the one before is not known.
    let mut client = house.client().await;
    client
        .stream
        .write_all(format!("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n{line}").as_bytes())
        .await
        .unwrap();
    assert_eq!(client.answer(Extent::Whole).await.unwrap().status, 200);
    client.stream.write_all(b" HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    shown.push(told(client.answer(Extent::Whole).await.unwrap()));
    shown.push(told(house.ask("GET /livez\nno field").await));
    assert_eq!(house.ask(&line.replace('"', "%22")).await.status, 200);
    insta::assert_snapshot!(shown.join("\n"), @r#"
    400 bad-header: the request target has '"', expected it percent-encoded as %22
    400 bad-header: the request target has '"', expected it percent-encoded as %22
    400 bad-header: the request head is not well-formed HTTP/1.1 (RFC 9112)
    400 bad-header: the request head is not well-formed HTTP/1.1 (RFC 9112)
    "#);
}
