//! Whatever indexes there are and whatever the cache keeps: the answer is that of a plain look at every document.

use std::cmp::Ordering;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use super::{CacheBounds, Store, everything, ids};
use crate::{
    json,
    order::{
        KEY_BYTES_MAX,
        tests::{compare, rank},
    },
    query::{Effort, Query, Step, tests::BOUNDS},
    spec::FieldKind,
};

/// Fields that filters and sorts are about.
const FIELDS: [(&str, FieldKind); 9] = [
    ("n", FieldKind::Integer),
    ("status", FieldKind::Text),
    ("price", FieldKind::Decimal),
    ("due", FieldKind::Timestamp),
    ("flag", FieldKind::Boolean),
    ("tags", FieldKind::Array),
    ("address.zip", FieldKind::Any),
    ("free", FieldKind::Any),
    ("id", FieldKind::Text),
];

fn toml(indexed: &[&str]) -> String {
    let field = |(name, kind): (&str, &str)| {
        format!("{name} = {{ kind = \"{kind}\", indexed = {} }}\n", indexed.contains(&name))
    };
    let kinds = [
        ("n", "integer"),
        ("status", "text"),
        ("price", "decimal"),
        ("due", "timestamp"),
        ("flag", "boolean"),
        ("tags", "array"),
    ];
    format!("name = \"thing\"\n[fields]\n{}", kinds.map(field).concat())
}

#[derive(Debug, Clone)]
struct Document {
    id: String,
    properties: Value,
}

fn long(end: char) -> String {
    format!("{}{end}", "x".repeat(KEY_BYTES_MAX + 20))
}

fn texts() -> Vec<String> {
    let mut texts: Vec<String> =
        ["", "A", "B", "AB", "a%b", "a_b", "ab", "b\"\\,é", "2026-01-31", "10"].map(str::to_owned).into();
    texts.extend([long('a'), long('b')]);
    texts
}

const NUMBERS: [&str; 9] = ["0", "1", "2", "1.50", "1.5", "-3", "10", "9007199254740993", "1e2"];
const INSTANTS: [&str; 5] = [
    "2026-01-31T00:00:00Z",
    "2026-01-31T01:00:00+01:00",
    "2026-01-31T00:00:00.001Z",
    "2025-12-31T23:59:59Z",
    "1969-07-20T20:17:40Z",
];

fn number() -> impl Strategy<Value = Value> {
    select(NUMBERS.to_vec()).prop_map(|text| json::parse(text.as_bytes()).expect("a number"))
}

fn property(name: &'static str) -> BoxedStrategy<Option<Value>> {
    let text = || select(texts()).prop_map(Value::String);
    let usual = match name {
        "n" | "price" | "zip" => number().boxed(),
        "status" => text().boxed(),
        "due" => select(INSTANTS.to_vec()).prop_map(Value::from).boxed(),
        "flag" => any::<bool>().prop_map(Value::Bool).boxed(),
        // What is cut off an array is not simple to tell.
        "tags" => vec(
            prop_oneof![
                number(),
                text().prop_filter("short", |text| text.as_str().is_some_and(|text| text.len() < 20))
            ],
            0..3,
        )
        .prop_map(Value::Array)
        .boxed(),
        _ => prop_oneof![number(), text(), any::<bool>().prop_map(Value::Bool)].boxed(),
    };
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => prop_oneof![number(), text(), any::<bool>().prop_map(Value::Bool)].prop_map(Some),
        9 => usual.prop_map(Some),
    ]
    .boxed()
}

fn document() -> impl Strategy<Value = Value> {
    let names = ["n", "status", "price", "due", "flag", "tags", "free"];
    (names.map(property), property("zip")).prop_map(move |(values, zip)| {
        let mut members = serde_json::Map::new();
        for (name, value) in names.into_iter().zip(values) {
            members.extend(value.map(|value| (name.to_owned(), value)));
        }
        let zip = zip.map(|zip| ("zip".to_owned(), zip));
        members.insert("address".to_owned(), Value::Object(zip.into_iter().collect()));
        Value::Object(members)
    })
}

#[derive(Debug, Clone)]
struct Condition {
    field: usize,
    operator: &'static str,
    /// As written in the query, and as meant.
    operands: Vec<(String, Value)>,
}

fn operand(kind: FieldKind) -> BoxedStrategy<(String, Value)> {
    let as_text = |text: String| (text.clone(), Value::String(text));
    let as_json = |text: &str| (text.to_owned(), json::parse(text.as_bytes()).expect("JSON"));
    let number = select(NUMBERS.to_vec()).prop_map(as_json);
    let flag = select(vec!["true", "false"]).prop_map(as_json);
    let null = select(vec!["null", "NULL"]).prop_map(|text| (text.to_owned(), Value::Null));
    let quoted =
        select(texts()).prop_map(|text| (Value::from(text.as_str()).to_string(), Value::String(text)));
    let usual = match kind {
        FieldKind::Text => select(texts()).prop_map(as_text).boxed(),
        FieldKind::Integer | FieldKind::Decimal => number.boxed(),
        FieldKind::Timestamp => {
            select(INSTANTS.to_vec()).prop_map(move |text| as_text(text.to_owned())).boxed()
        }
        FieldKind::Boolean => flag.boxed(),
        FieldKind::Object | FieldKind::Array | FieldKind::Any => prop_oneof![number, flag, quoted].boxed(),
    };
    prop_oneof![1 => null, 9 => usual].boxed()
}

fn condition() -> impl Strategy<Value = Condition> {
    const OPERATORS: [&str; 12] =
        ["", "ne", "lt", "lte", "gt", "gte", "in", "nin", "like", "ilike", "contains", "exists"];
    (0..FIELDS.len(), select(OPERATORS.to_vec())).prop_flat_map(|(field, operator)| {
        let operands = match operator {
            "in" | "nin" => vec(operand(FIELDS[field].1), 1..4).boxed(),
            "exists" => any::<bool>().prop_map(|flag| vec![(flag.to_string(), Value::Bool(flag))]).boxed(),
            "like" | "ilike" => {
                "[aAbBxX0-9%_\\\\]{0,5}".prop_map(|text| vec![(text.clone(), Value::String(text))]).boxed()
            }
            "contains" => {
                let texts = select(["a", "A", "", "1", "1.5", "10", "2026", "\"", "true", "null"].to_vec());
                texts.prop_map(|text| vec![(text.to_owned(), Value::from(text))]).boxed()
            }
            "lt" | "lte" | "gt" | "gte" => {
                let compares = operand(FIELDS[field].1)
                    .prop_filter("a value to compare with", |(_, value)| !value.is_null());
                vec(compares, 1..2).boxed()
            }
            _ => vec(operand(FIELDS[field].1), 1..2).boxed(),
        };
        operands.prop_map(move |operands| Condition { field, operator, operands })
    })
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Condition {
    fn parameter(&self) -> String {
        let name = FIELDS[self.field].0;
        let name =
            if self.operator.is_empty() { name.to_owned() } else { format!("{name}__{}", self.operator) };
        let item = |(text, value): &(String, Value)| match value {
            // Texts with commas or quotes need quotes.
            Value::String(plain) if text.contains([',', '"']) => Value::from(plain.as_str()).to_string(),
            _ => text.clone(),
        };
        match self.operator {
            "in" | "nin" => {
                format!("{name}={}", encode(&self.operands.iter().map(item).collect::<Vec<_>>().join(",")))
            }
            _ => format!("{name}={}", encode(&self.operands[0].0)),
        }
    }

    fn holds(&self, document: &Document) -> bool {
        let (name, kind) = FIELDS[self.field];
        let id = Value::from(document.id.as_str());
        let value = find(document, name, &id);
        let equals = |operand: &Value| {
            if operand.is_null() {
                value.is_none_or(Value::is_null)
            } else {
                compare(kind, value, Some(operand)).is_eq()
            }
        };
        let operand = &self.operands[0].1;
        let same_type = rank(kind, value) == rank(kind, Some(operand));
        let order = compare(kind, value, Some(operand));
        match self.operator {
            "" => equals(operand),
            "ne" => !equals(operand),
            "lt" => same_type && order.is_lt(),
            "lte" => same_type && order.is_le(),
            "gt" => same_type && order.is_gt(),
            "gte" => same_type && order.is_ge(),
            "in" => self.operands.iter().any(|(_, operand)| equals(operand)),
            "nin" => !self.operands.iter().any(|(_, operand)| equals(operand)),
            "exists" => Value::Bool(value.is_some()) == *operand,
            "contains" => contains(value, operand.as_str().expect("a text")),
            "like" | "ilike" => {
                let (Some(text), Some(pattern)) = (value.and_then(Value::as_str), operand.as_str()) else {
                    return false;
                };
                let folded = |text: &str| match self.operator {
                    "ilike" => text.to_lowercase().chars().collect::<Vec<_>>(),
                    _ => text.chars().collect(),
                };
                like(&folded(text), &folded(pattern))
            }
            other => panic!("{other}"),
        }
    }
}

fn find<'a>(document: &'a Document, name: &str, id: &'a Value) -> Option<&'a Value> {
    match name {
        "id" => Some(id),
        "address.zip" => document.properties["address"].get("zip"),
        _ => document.properties.get(name),
    }
}

fn contains(value: Option<&Value>, part: &str) -> bool {
    let spelled = json::parse(part.as_bytes()).ok();
    match value {
        Some(Value::String(text)) => text.contains(part),
        Some(Value::Array(items)) => items.iter().any(|item| {
            item.as_str() == Some(part) || spelled.as_ref().is_some_and(|spelled| json::same(spelled, item))
        }),
        _ => false,
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|at| like(&text[at..], rest)),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        ['\\', literal, rest @ ..] => text.first() == Some(literal) && like(&text[1..], rest),
        [literal, rest @ ..] => text.first() == Some(literal) && like(&text[1..], rest),
    }
}

/// A list that is asked for.
#[derive(Debug, Clone)]
struct Asked {
    conditions: Vec<Condition>,
    any: bool,
    /// Field and whether descending.
    sort: Vec<(usize, bool)>,
    limit: usize,
    skip: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        vec(condition(), 0..4),
        any::<bool>(),
        vec((0..FIELDS.len(), any::<bool>()), 0..3),
        1..8_usize,
        0..10_usize,
    )
        .prop_map(|(mut conditions, any, sort, limit, skip)| {
            // Lists of one field that are spread over several parameters are one list.
            let mut listed = Vec::new();
            conditions.retain(|condition| {
                let list = (condition.field, condition.operator);
                let is_first = !matches!(list.1, "in" | "nin") || !listed.contains(&list);
                listed.push(list);
                is_first
            });
            Asked { conditions, any, sort, limit, skip }
        })
}

impl Asked {
    fn filters(&self) -> String {
        let mut parameters: Vec<_> = self.conditions.iter().map(Condition::parameter).collect();
        if self.any {
            parameters.push("__operand=or".to_owned());
        }
        parameters.join("&")
    }

    fn query(&self) -> String {
        let field = |(field, descending): &(usize, bool)| {
            format!("{}{}", if *descending { "-" } else { "" }, FIELDS[*field].0)
        };
        let sort = self.sort.iter().map(field).collect::<Vec<_>>().join(",");
        let sort = if sort.is_empty() { sort } else { format!("&__sort={sort}") };
        format!("{}{sort}", self.filters())
    }

    /// What a look at every document gives.
    fn expected(&self, documents: &[Document]) -> Vec<String> {
        let passes = |document: &&Document| {
            let mut holds = self.conditions.iter().map(|condition| condition.holds(document));
            if self.any && !self.conditions.is_empty() { holds.any(|it| it) } else { holds.all(|it| it) }
        };
        let mut rows: Vec<_> = documents.iter().filter(passes).collect();
        rows.sort_by(|left, right| self.order(left, right));
        rows.into_iter().map(|document| document.id.clone()).collect()
    }

    fn order(&self, left: &Document, right: &Document) -> Ordering {
        let (left_id, right_id) = (Value::from(left.id.as_str()), Value::from(right.id.as_str()));
        let mut order = Ordering::Equal;
        for (field, descending) in &self.sort {
            let (name, kind) = FIELDS[*field];
            let left = cut(find(left, name, &left_id));
            let right = cut(find(right, name, &right_id));
            let by_field = compare(kind, left.as_ref(), right.as_ref());
            order = order.then(if *descending { by_field.reverse() } else { by_field });
        }
        order.then_with(|| left.id.cmp(&right.id))
    }
}

/// Sorting looks at the first bytes of a text only; the first byte of a key is not one of the text.
fn cut(value: Option<&Value>) -> Option<Value> {
    match value {
        Some(Value::String(text)) if text.len() >= KEY_BYTES_MAX => {
            Some(Value::from(&text[..KEY_BYTES_MAX - 1]))
        }
        other => other.cloned(),
    }
}

fn check(store: &Store, asked: &Asked, expected: &[String]) -> Result<(), TestCaseError> {
    let query = asked.query();
    prop_assert_eq!(&store.ids(&format!("{query}&__limit=1000")), expected, "all: {}", query);

    let (limit, skip) = (asked.limit, asked.skip);
    let part: Vec<_> = expected.iter().skip(skip).take(limit).cloned().collect();
    prop_assert_eq!(store.ids(&format!("{query}&__limit={limit}&__skip={skip}")), part, "part: {}", query);

    let mut walked = Vec::new();
    let mut next = format!("{query}&__limit={limit}");
    loop {
        let page = store.answer(&next);
        let rows = ids(&page.body);
        prop_assert!(rows.len() == limit || page.next_cursor.is_none(), "short page: {}", query);
        walked.extend(rows);
        let Some(cursor) = page.next_cursor else { break };
        next = crate::query::with_cursor(&next, &cursor);
    }
    prop_assert_eq!(&walked, expected, "walk: {}", query);

    let number = skip / limit + 1;
    let page = store.text(&format!("{query}&__limit={limit}&__page={number}"));
    let page = json::parse(page.as_bytes()).expect("JSON");
    prop_assert_eq!(page["count"].as_u64(), Some(expected.len() as u64), "count: {}", query);
    prop_assert_eq!(page["total"].as_u64(), Some(expected.len().div_ceil(limit) as u64));
    let part: Vec<_> = expected.iter().skip((number - 1) * limit).take(limit).cloned().collect();
    prop_assert_eq!(ids(page["data"].to_string().as_bytes()), part, "page: {}", query);

    let filters = asked.filters();
    let count = json::parse(store.text(&format!("{filters}&__count=all")).as_bytes()).expect("JSON");
    prop_assert_eq!(count["total"].as_u64(), Some(expected.len() as u64), "counted: {}", filters);
    let pipeline = encode(r#"[{"$match":{"address":{"$exists":true}}},{"$count":"all"}]"#);
    let count =
        json::parse(store.text(&format!("{filters}&__aggregate={pipeline}")).as_bytes()).expect("JSON");
    prop_assert_eq!(count[0]["all"].as_u64().unwrap_or(0), expected.len() as u64, "aggregated: {}", filters);
    Ok(())
}

proptest! {
    // Every case asks four tables up to thirty times.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]
    #[test]
    fn indexes_and_caches_change_no_answer(
        documents in vec(document(), 0..30),
        removed in vec(0..30_usize, 0..5),
        asked in vec(asked(), 1..4),
    ) {
        let small = CacheBounds { bytes_max: 2000, documents_max: Some(4) };
        let mut stores = [
            Store::new(&toml(&[]), everything()),
            Store::new(&toml(&["status", "due"]), small),
            Store::new(&toml(&["n", "status", "price", "due", "flag", "tags"]), small),
            Store::new(&toml(&["n", "status", "price", "due", "flag", "tags"]), everything()),
        ];
        let mut kept = Vec::new();
        for (index, properties) in documents.into_iter().enumerate() {
            let id = format!("{:02}", (index * 7) % 31);
            for store in &mut stores {
                // An older version, of which no trace may remain.
                store.put(&id, r#"{"n":1,"status":"A","due":"2026-01-31T00:00:00Z"}"#);
                store.put(&id, &properties.to_string());
                if removed.contains(&index) {
                    store.remove(&id);
                }
            }
            if !removed.contains(&index) {
                kept.push(Document { id, properties });
            }
        }
        for asked in &asked {
            let expected = asked.expected(&kept);
            for store in &stores {
                check(store, asked, &expected)?;
            }
        }
    }

    #[test]
    fn a_plan_shows_the_documents_as_they_were_when_it_was_made(
        documents in vec(document(), 10..40),
        asked in asked(),
        writes in vec((0..45_usize, proptest::option::of(document())), 0..60),
        documents_max in 0..50_u64,
    ) {
        let bounds = CacheBounds { bytes_max: u64::MAX, documents_max: Some(documents_max) };
        let mut store = Store::new(&toml(&["status"]), bounds);
        let mut kept = Vec::new();
        for (index, properties) in documents.into_iter().enumerate() {
            let id = format!("{:02}", (index * 7) % 41);
            store.put(&id, &properties.to_string());
            kept.push(Document { id, properties });
        }
        let query = Query::parse(&store.model, &format!("{}&__limit=1000", asked.query()), &BOUNDS).expect("a query");
        let mut plan = store.table.plan(&query).expect("a plan");
        let mut bodies = Vec::new();
        let mut writes = writes.into_iter();
        let page = loop {
            for (id, properties) in writes.by_ref().take(9) {
                let id = format!("{id:02}");
                match properties {
                    Some(properties) => store.put(&id, &properties.to_string()),
                    None => store.remove(&id),
                }
            }
            (plan, bodies) = match plan.step(bodies, Effort::Long).expect("a step") {
                Step::Done(page) => break page,
                Step::Look(next) => (store.table.look(next).expect("everything is kept"), Vec::new()),
                Step::Pause(next) => (next, Vec::new()),
                Step::Fetch(next, wanted) => (next, store.fetch(&wanted)),
            }
        };
        prop_assert_eq!(ids(&page.body), asked.expected(&kept), "{}", asked.query());
    }
}
