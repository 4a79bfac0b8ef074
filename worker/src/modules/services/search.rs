//! What modules search for, as the query that a client would send.
//!
//! A client writes texts and numbers alike, so the host reads them by what the field holds. Code says in JSON which is
//! which, and that is kept: a text is written in quotes, which the grammar has in lists.

use aegis_domain::{catalog::Model, query::spells_json};
use aegis_wasm::{Refusal, RefusalCode, Search};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Properties of every document that are its entity's as well; the id is answered without being asked for.
const OF_THE_HOST: [&str; 3] = ["revision", "createTime", "updateTime"];

/// The search as a query string: `{"status":"open","total":{"gt":100}}` is `status__in="open"&total__gt=100`.
pub(super) fn query(model: &Model, search: &Search) -> Result<String, Refusal> {
    let wrong = |message: String| Refusal::new(RefusalCode::Invalid, message);
    let mut pairs = Vec::new();
    if !search.filter.trim().is_empty() {
        let filter: Value = serde_json::from_str(&search.filter)
            .map_err(|error| wrong(format!("filter: found no JSON ({error}), expected an object")))?;
        let Value::Object(fields) = filter else {
            return Err(wrong("filter: found no object, expected one from fields to values".to_owned()));
        };
        for (field, value) in &fields {
            match value {
                Value::Object(operators) => {
                    let tests = operators.iter();
                    pairs.extend(tests.map(|(operator, operand)| test(model, field, operator, operand)));
                }
                operand => pairs.push(plain(model, field, operand)),
            }
        }
    }
    if !search.sort.is_empty() {
        pairs.push(("__sort".to_owned(), search.sort.join(",")));
    }
    if !search.fields.is_empty() {
        // What an entity says beside its data is read from the data.
        let missing = OF_THE_HOST.into_iter().filter(|name| !search.fields.iter().any(|field| field == name));
        let names: Vec<&str> = search.fields.iter().map(String::as_str).chain(missing).collect();
        pairs.push(("__select".to_owned(), names.join(",")));
    }
    if search.limit > 0 {
        pairs.push(("__limit".to_owned(), search.limit.to_string()));
    }
    if let Some(cursor) = &search.cursor {
        pairs.push(("__cursor".to_owned(), cursor.clone()));
    }
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    Ok(pairs.join("&"))
}

/// A property of a filter whose value has no operators: a field that equals it, one with its operator in its name, or
/// `__operand`.
fn plain(model: &Model, name: &str, operand: &Value) -> (String, String) {
    match (name.rsplit_once("__"), operand) {
        (Some((field, operator)), _) if !field.is_empty() => test(model, field, operator, operand),
        (None, Value::String(_)) => (format!("{name}__in"), operand.to_string()),
        _ => (name.to_owned(), spelled(operand)),
    }
}

fn test(model: &Model, field: &str, operator: &str, operand: &Value) -> (String, String) {
    let (operator, value) = match (operator, operand) {
        ("ne", Value::String(_)) => ("nin", operand.to_string()),
        ("in" | "nin", Value::Array(items)) => {
            (operator, items.iter().map(Value::to_string).collect::<Vec<_>>().join(","))
        }
        ("lt" | "lte" | "gt" | "gte", Value::String(_)) if spells_json(model, field) => {
            (operator, operand.to_string())
        }
        _ => (operator, spelled(operand)),
    };
    (format!("{field}__{operator}"), value)
}

/// As a client writes it.
fn spelled(operand: &Value) -> String {
    match operand {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(spelled).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::house::House;

    fn search(filter: &str) -> Search {
        Search { filter: filter.to_owned(), sort: Vec::new(), limit: 0, cursor: None, fields: Vec::new() }
    }

    #[tokio::test]
    async fn a_search_becomes_the_query_that_a_client_would_send() {
        let house = House::new().await;
        let model = &house.host.catalog.models()[0];
        let whole = Search {
            sort: vec!["-total".to_owned(), "id".to_owned()],
            limit: 10,
            cursor: Some("c+1".to_owned()),
            fields: vec!["total".to_owned()],
            ..search(
                r#"{"status":"in & out","total":{"gt":100,"lt":1e3},"tag":{"in":["a","b,"]},"gone":null,"rank__gt":1,"__operand":"and"}"#,
            )
        };
        let query = query(model, &whole).unwrap();
        let shown = percent_encoding::percent_decode_str(&query).decode_utf8().unwrap();
        insta::assert_snapshot!(shown, @r#"status__in="in & out"&total__gt=100&total__lt=1e+3&tag__in="a","b,"&gone=null&rank__gt=1&__operand=and&__sort=-total,id&__select=total,revision,createTime,updateTime&__limit=10&__cursor=c+1"#);
        assert!(query.contains("in%20%26%20out") && query.contains("c%2B1"), "{query}");
        assert_eq!(super::query(model, &search("")).unwrap(), "");
        for filter in ["[]", "{", "7"] {
            let refused = super::query(model, &search(filter)).unwrap_err();
            assert_eq!(refused.code, RefusalCode::Invalid, "{filter}");
        }
    }

    #[tokio::test]
    async fn texts_stay_texts_and_numbers_numbers() {
        let house = House::new().await;
        let documents = [
            ("without", json!({"text": "Doe"})),
            ("null", json!({"text": "Doe, John", "t": "null", "nothing": null})),
            ("text", json!({"text": "null", "t": "5", "at": "2026-01-31T00:00:00Z"})),
            ("number", json!({"text": "5", "t": 5, "rank": 5})),
            ("flag", json!({"text": "\"", "t": true})),
        ];
        for (id, mut document) in documents {
            document["id"] = id.into();
            house.store.put("TODO", id, 1, &document.to_string());
        }
        let model = &house.host.catalog.models()[0];
        let mut shown = Vec::new();
        for filter in [
            json!({"t": "null"}),
            json!({"t": null}),
            json!({"t": {"ne": "null"}}),
            json!({"t": {"ne": null}}),
            json!({"t": "5"}),
            json!({"t": 5}),
            json!({"t": {"in": ["5", "null"]}}),
            json!({"t": {"in": [5, null]}}),
            json!({"t": {"nin": ["null", 5]}}),
            json!({"t": "true"}),
            json!({"t": true}),
            json!({"t": {"gte": "5"}}),
            json!({"t": {"gte": 5, "lt": "5"}}),
            json!({"text": "null"}),
            json!({"text": "5"}),
            json!({"text": "Doe, John"}),
            json!({"text": "\""}),
            json!({"text": {"in": ["Doe, John"]}}),
            json!({"text": {"like": "Doe%"}}),
            json!({"text": {"gt": "Doe", "lt": "null"}}),
            json!({"text__ne": "Doe, John", "t": "5"}),
            json!({"rank": "5"}),
            json!({"rank": "null"}),
            json!({"createTime": {"gt": "2026-01-31"}}),
            json!({"id": "text"}),
            json!({"text": "Doe", "t": "5", "__operand": "or"}),
        ] {
            let query = query(model, &search(&filter.to_string())).unwrap();
            let answer = house.ask(&format!("GET /aegis/api/models/todos?__select=id&{query}")).await;
            let found = match answer.json() {
                serde_json::Value::Array(found) => found
                    .iter()
                    .map(|one| one["id"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
                problem => problem["detail"].as_str().unwrap().to_owned(),
            };
            shown.push(format!("{filter} {found}"));
        }
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[tokio::test]
    async fn a_text_is_found_by_an_index() {
        let house = House::with(|config| config.query.scan_max = 1).await;
        for number in 0..5 {
            let id = format!("d{number}");
            let document = json!({"id": id, "text": "x", "code": format!("c{number}")});
            house.store.put("TODO", &id, 1, &document.to_string());
        }
        let query =
            query(&house.host.catalog.models()[0], &search(&json!({"code": "c3"}).to_string())).unwrap();
        let found = house.ask(&format!("GET /aegis/api/models/todos?{query}")).await;
        assert_eq!((found.status, found.json()[0]["code"].as_str()), (200, Some("c3")), "{}", found.body);
    }
}
