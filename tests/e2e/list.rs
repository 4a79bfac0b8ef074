//! The list grammar over HTTP, on every datasource.

use aegis_harness::{App, Client, Cluster};
use serde_json::{Value, json};

fn twenty_five(client: &Client) {
    let documents: Vec<Value> = (1..=25)
        .map(|n| match n % 5 {
            0 => json!({"id": format!("t{n:02}"), "n": n}),
            _ => json!({"id": format!("t{n:02}"), "n": n, "text": format!("row {n}"), "isComplete": n % 2 == 0}),
        })
        .collect();
    assert_eq!(client.post("todo", &json!(documents)).status, 201);
}

fn numbers(response: &Value) -> Vec<i64> {
    response.as_array().unwrap().iter().map(|row| row["n"].to_string().parse().unwrap()).collect()
}

#[test]
fn lists_filter_sort_page_and_count_the_same_on_every_datasource() {
    for datasource in ["memory", "file"] {
        let app = App::todo().settings(&format!("datasource = \"{datasource}\""));
        let cluster = Cluster::start(app, 2);
        let client = cluster.client();
        twenty_five(&client);
        let list = |query: &str| {
            let response = client.get(&format!("todo?{query}"));
            assert_eq!(response.status, 200, "{query}: {}", response.text());
            response.json()
        };

        assert_eq!(numbers(&list("__sort=-n&__limit=5&__skip=5")), [20, 19, 18, 17, 16]);
        assert_eq!(numbers(&list("n__gte=24")), [24, 25]);
        assert_eq!(numbers(&list("text=null")), [5, 10, 15, 20, 25]);
        assert_eq!(numbers(&list("n__in=3,4&__sort=n")), [3, 4]);
        assert_eq!(numbers(&list("__operand=or&n=1&n__gt=24&__sort=n")), [1, 25]);
        assert_eq!(numbers(&list("text__like=row%202_&__sort=n")), [21, 22, 23, 24]);
        assert_eq!(numbers(&list("text__exists=false&n__lt=11")), [5, 10]);
        let page = list("__page=2&__limit=10&__sort=n");
        assert_eq!((page["count"].to_string(), page["total"].to_string()), ("25".into(), "3".into()));
        assert_eq!(numbers(&page["data"]), (11..=20).collect::<Vec<i64>>());
        assert_eq!(list("__count=all")["total"].to_string(), "25");
        assert_eq!(list("__count=isComplete:true")["total"].to_string(), "10");
        assert_eq!(list("__select=n&n=7").to_string(), r#"[{"n":7,"id":"t07"}]"#.to_owned());
        let groups = list(
            "__aggregate=%5B%7B%22%24match%22%3A%7B%22n%22%3A%7B%22%24lte%22%3A4%7D%7D%7D%2C%7B%22%24count%22%3A%22many%22%7D%5D",
        );
        assert_eq!(groups[0]["many"].to_string(), "4");
    }
}

#[test]
fn a_cursor_walks_every_document_once_while_others_write() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    twenty_five(&client);
    let mut seen = Vec::new();
    let mut path = "todo?__sort=n&__limit=4".to_owned();
    loop {
        let response = client.get(&path);
        assert_eq!(response.status, 200, "{}", response.text());
        seen.extend(numbers(&response.json()));
        let _ = client.create("todo", &json!({"n": -1 - i64::try_from(seen.len()).unwrap(), "text": "late"}));
        let Some(link) = response.header("link") else { break };
        let target = link.split(['<', '>']).nth(1).unwrap();
        path = target.strip_prefix("/aegis/api/models/").unwrap().to_owned();
    }
    assert_eq!(seen, (1..=25).collect::<Vec<i64>>());
    let tampered = client.get("todo?__sort=n&__limit=4&__cursor=AAAA");
    assert_eq!((tampered.status, tampered.json()["code"].as_str()), (400, Some("bad-parameter")));
}

#[test]
fn an_unindexed_filter_over_many_documents_names_the_missing_index() {
    let app = App::todo().settings("[query]\nscan-max = 50");
    let cluster = Cluster::start(app, 1);
    let client = cluster.client();
    let documents: Vec<Value> = (0..60).map(|n| json!({"n": n, "text": format!("row {n}")})).collect();
    assert_eq!(client.post("todo", &json!(documents)).status, 201);
    let refused = client.get("todo?text=row%207");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["code"], "query-too-expensive");
    assert!(refused.json()["detail"].as_str().unwrap().contains("text"), "{}", refused.text());
    assert_eq!(client.get("todo?n=7").json().as_array().unwrap().len(), 1, "an indexed filter is no scan");
}

#[test]
fn a_bounded_cache_answers_everything_and_keeps_its_bound() {
    let module = "name = \"todo\"\nendpoint = \"todo\"\ncache-documents-max = 100\n[fields]\ntext = \"text\"\nn = { kind = \"integer\", indexed = true }\n";
    let cluster = Cluster::start(App::default().module("todo", module), 1);
    let client = cluster.client();
    let documents: Vec<Value> =
        (0..1000).map(|n| json!({"id": format!("d{n}"), "n": n, "text": "x"})).collect();
    for part in documents.chunks(250) {
        assert_eq!(client.post("todo", &json!(part)).status, 201);
    }
    let count = client.get("todo?__count=all").json();
    assert_eq!(count["total"].to_string(), "1000");
    let cached: u64 = count["cached"].to_string().parse().unwrap();
    assert!((1..=100).contains(&cached), "{cached} cached of at most 100");
    for n in [0, 1, 500, 999] {
        assert_eq!(client.get(&format!("todo/d{n}")).json()["n"].to_string(), n.to_string());
    }
    assert_eq!(numbers(&client.get("todo?n__gte=995&__sort=n").json()), [995, 996, 997, 998, 999]);
    assert_eq!(numbers(&client.get("todo?text=x&__sort=-n&__limit=2").json()), [999, 998]);
}

#[test]
fn bad_parameters_say_what_was_expected() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    for query in [
        "__operand=xor",
        "__nonsense=1",
        "n__between=1",
        "__limit=0",
        "__limit=5000",
        "__limit=x",
        "__skip=-1",
        "__page=0",
        "__cursor=%zz",
        "__aggregate=%7B",
        "__count=",
        "n__gt=%ff",
    ] {
        let response = client.get(&format!("todo?{query}"));
        assert_eq!(response.status, 400, "{query}: {}", response.text());
        assert_eq!(response.json()["code"], "bad-parameter", "{query}");
    }
}
