use super::{Store, everything};
use crate::{json, query::Bounds};

fn orders() -> Store {
    let toml =
        "name = \"order\"\n[fields]\nstatus = { kind = \"text\", indexed = true }\ndue = \"timestamp\"";
    let mut store = Store::new(toml, everything());
    for (id, properties) in [
        ("1", r#"{"status":"NEW","total":10.10,"customer":{"name":"Ada"},"due":"2026-01-01T00:00:00Z"}"#),
        ("2", r#"{"status":"NEW","total":0.20,"customer":{"name":"Bob"},"due":"2026-01-01T01:00:00+01:00"}"#),
        ("3", r#"{"status":"PAID","total":"unknown","customer":{"name":"Ada"}}"#),
        ("4", r#"{"status":"PAID","total":5,"due":"2026-01-02T00:00:00Z"}"#),
        ("5", r#"{"total":null}"#),
    ] {
        store.put(id, properties);
    }
    store
}

fn aggregate(store: &Store, pipeline: &str) -> String {
    let encoded: String = pipeline.bytes().map(|byte| format!("%{byte:02x}")).collect();
    store.text(&format!("__aggregate={encoded}"))
}

#[test]
fn groups_come_by_id_with_exact_sums() {
    let store = orders();
    insta::assert_snapshot!(
        aggregate(&store, r#"[{"$group":{"_id":"$status","total":{"$sum":"$total"},"mean":{"$avg":"$total"},"n":{"$sum":1},"count":{"$count":{}}}}]"#),
        @r#"[{"_id":null,"total":0,"mean":null,"n":1,"count":1},{"_id":"NEW","total":10.3,"mean":5.15,"n":2,"count":2},{"_id":"PAID","total":5,"mean":5,"n":2,"count":2}]"#
    );
    insta::assert_snapshot!(
        aggregate(&store, r#"[{"$group":{"_id":null,"min":{"$min":"$total"},"max":{"$max":"$total"},"first":{"$first":"$total"},"last":{"$last":"$status"},"all":{"$push":"$customer.name"},"rows":{"$push":{"s":"$status","x":"$missing","one":{"$literal":"$1"}}}}}]"#),
        @r#"[{"_id":null,"min":0.20,"max":"unknown","first":10.10,"last":null,"all":["Ada","Bob","Ada"],"rows":[{"s":"NEW","one":"$1"},{"s":"NEW","one":"$1"},{"s":"PAID","one":"$1"},{"s":"PAID","one":"$1"},{"one":"$1"}]}]"#
    );
    insta::assert_snapshot!(
        aggregate(&store, r#"[{"$group":{"_id":{"status":"$status","who":"$customer.name"},"n":{"$sum":1}}},{"$match":{"_id.status":"PAID"}}]"#),
        @r#"[{"_id":{"status":"PAID"},"n":1},{"_id":{"status":"PAID","who":"Ada"},"n":1}]"#
    );
    insta::assert_snapshot!(aggregate(&store, r#"[{"$match":{"status":"NONE"}},{"$group":{"_id":null}}]"#), @"[]");
}

#[test]
fn stages_follow_one_another() {
    let store = orders();
    insta::assert_snapshot!(
        aggregate(&store, r#"[{"$match":{"status":{"$exists":true}}},{"$sort":{"total":-1}},{"$skip":1},{"$limit":2},{"$project":{"total":1,"who":"$customer.name"}}]"#),
        @r#"[{"total":10.10,"id":"1","who":"Ada"},{"total":5,"id":"4"}]"#
    );
    insta::assert_snapshot!(aggregate(&store, r#"[{"$project":{"customer.name":0,"id":0,"due":0}},{"$limit":1}]"#), @r#"[{"status":"NEW","total":10.10,"customer":{}}]"#);
    insta::assert_snapshot!(aggregate(&store, r#"[{"$project":{"id":0,"customer.name":1}},{"$limit":1}]"#), @r#"[{"customer":{"name":"Ada"}}]"#);
    insta::assert_snapshot!(aggregate(&store, r#"[{"$limit":3},{"$group":{"_id":"$status","n":{"$sum":1}}},{"$sort":{"n":-1,"_id":1}},{"$limit":1}]"#), @r#"[{"_id":"NEW","n":2}]"#);
    insta::assert_snapshot!(aggregate(&store, r#"[{"$match":{"status":"NEW"}},{"$count":"n"}]"#), @r#"[{"n":2}]"#);
    insta::assert_snapshot!(aggregate(&store, r#"[{"$match":{"status":"NONE"}},{"$count":"n"}]"#), @"[]");
    insta::assert_snapshot!(aggregate(&store, "[]"), @r#"[{"status":"NEW","total":10.10,"customer":{"name":"Ada"},"due":"2026-01-01T00:00:00Z","id":"1"},{"status":"NEW","total":0.20,"customer":{"name":"Bob"},"due":"2026-01-01T01:00:00+01:00","id":"2"},{"status":"PAID","total":"unknown","customer":{"name":"Ada"},"id":"3"},{"status":"PAID","total":5,"due":"2026-01-02T00:00:00Z","id":"4"},{"total":null,"id":"5"}]"#);
}

#[test]
fn conditions_are_those_of_filters() {
    let store = orders();
    let ids = |condition: &str| {
        let rows = aggregate(&store, &format!(r#"[{{"$match":{condition}}},{{"$project":{{"id":1}}}}]"#));
        let rows = json::parse(rows.as_bytes()).unwrap();
        let ids: Vec<_> =
            rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids.concat()
    };
    assert_eq!(ids("{}"), "12345");
    assert_eq!(ids(r#"{"status":"NEW","total":{"$gt":1}}"#), "1");
    assert_eq!(ids(r#"{"total":{"$gte":0.2,"$lte":5}}"#), "24");
    assert_eq!(ids(r#"{"$or":[{"status":null},{"total":{"$in":["unknown",5.0]}}]}"#), "345");
    assert_eq!(ids(r#"{"$and":[{"status":{"$ne":"NEW"}},{"customer":{"$exists":false}}]}"#), "45");
    assert_eq!(ids(r#"{"$not":{"status":{"$nin":["NEW",null]}}}"#), "125");
    assert_eq!(ids(r#"{"total":{"$not":{"$gt":1}}}"#), "235");
    assert_eq!(ids(r#"{"customer":{"name":"Ada"}}"#), "13");
    assert_eq!(ids(r#"{"due":"2026-01-01T00:00:00.000Z"}"#), "12");
    assert_eq!(ids(r#"{"due":{"$gt":"2026-01-01"}}"#), "4");
    assert_eq!(ids(r#"{"due":{"$in":["2026-01-02",null]}}"#), "345");
}

#[test]
fn times_are_points_in_time_in_every_stage() {
    let mut store = orders();
    store.put("6", r#"{"due":"2026-01-01T00:00:00.5Z"}"#);
    let due = r#"{"$match":{"due":{"$exists":true}}}"#;
    let first_and_last =
        r#"{"$group":{"_id":"$due","n":{"$sum":1},"first":{"$min":"$due"},"last":{"$max":"$due"}}}"#;
    insta::assert_snapshot!(
        aggregate(&store, &format!(r#"[{due},{first_and_last},{{"$project":{{"_id":0}}}},{{"$sort":{{"last":-1}}}}]"#)),
        @r#"[{"n":1,"first":"2026-01-02T00:00:00Z","last":"2026-01-02T00:00:00Z"},{"n":1,"first":"2026-01-01T00:00:00.5Z","last":"2026-01-01T00:00:00.5Z"},{"n":2,"first":"2026-01-01T00:00:00Z","last":"2026-01-01T00:00:00Z"}]"#
    );
    insta::assert_snapshot!(
        aggregate(&store, &format!(r#"[{due},{{"$group":{{"_id":null,"first":{{"$min":"$due"}},"last":{{"$max":"$due"}}}}}}]"#)),
        @r#"[{"_id":null,"first":"2026-01-01T00:00:00Z","last":"2026-01-02T00:00:00Z"}]"#
    );
    insta::assert_snapshot!(
        aggregate(&store, &format!(r#"[{due},{{"$project":{{"id":1,"when":"$due"}}}},{{"$match":{{"when":{{"$lt":"2026-01-01T02:00:00+02:00"}}}}}},{{"$count":"n"}}]"#)),
        @"[]"
    );
    insta::assert_snapshot!(
        aggregate(&store, &format!(r#"[{due},{{"$project":{{"due":1}}}},{{"$sort":{{"due":1,"id":-1}}}},{{"$project":{{"id":1}}}}]"#)),
        @r#"[{"id":"2"},{"id":"1"},{"id":"6"},{"id":"4"}]"#
    );
}

#[test]
fn times_are_points_in_time_inside_objects_as_well() {
    let mut store = Store::new("name = \"visit\"\n[fields]\nat = \"timestamp\"\nby = \"text\"", everything());
    let noon = ["2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "2026-01-01T12:00:00.000Z"];
    for (n, at) in noon.iter().chain(&["2026-01-01T12:00:01Z"]).enumerate() {
        store.put(&n.to_string(), &format!(r#"{{"at":"{at}","by":"ann"}}"#));
    }
    let of_object = r#"{"$group":{"_id":{"at":"$at","by":"$by"},"n":{"$sum":1}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{of_object}]")), @r#"[{"_id":{"at":"2026-01-01T12:00:00Z","by":"ann"},"n":3},{"_id":{"at":"2026-01-01T12:00:01Z","by":"ann"},"n":1}]"#);
    let again = r#"{"$group":{"_id":"$_id.at","last":{"$max":"$_id"}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{of_object},{again}]")), @r#"[{"_id":"2026-01-01T12:00:00Z","last":{"at":"2026-01-01T12:00:00Z","by":"ann"}},{"_id":"2026-01-01T12:00:01Z","last":{"at":"2026-01-01T12:00:01Z","by":"ann"}}]"#);
    let is_noon = r#"{"$match":{"_id":{"by":"ann","at":"2026-01-01T14:00:00+02:00"}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{of_object},{is_noon},{{\"$count\":\"n\"}}]")), @r#"[{"n":1}]"#);
    let within = r#"{"$match":{"_id.at":{"$gt":"2026-01-01T14:00:00+02:00"}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{of_object},{within},{{\"$count\":\"n\"}}]")), @r#"[{"n":1}]"#);
    let projected =
        r#"{"$project":{"id":0,"of":{"whole":"$$ROOT"}}},{"$group":{"_id":"$of.whole.at","n":{"$sum":1}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{projected}]")), @r#"[{"_id":"2026-01-01T12:00:00Z","n":3},{"_id":"2026-01-01T12:00:01Z","n":1}]"#);
    let kept = r#"{"$project":{"id":0,"v":{"at":"$at"}}},{"$project":{"v.at":1}},{"$group":{"_id":"$v","n":{"$sum":1}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{kept}]")), @r#"[{"_id":{"at":"2026-01-01T12:00:00Z"},"n":3},{"_id":{"at":"2026-01-01T12:00:01Z"},"n":1}]"#);
    let pushed =
        r#"{"$group":{"_id":"$id","all":{"$push":{"at":"$at"}}}},{"$group":{"_id":"$all","n":{"$sum":1}}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{pushed}]")), @r#"[{"_id":[{"at":"2026-01-01T12:00:00Z"}],"n":3},{"_id":[{"at":"2026-01-01T12:00:01Z"}],"n":1}]"#);
    let by_number = r#"{"$group":{"_id":null,"all":{"$push":{"at":"$at"}}}},{"$match":{"all.1.at":"2026-01-01T14:00:00+02:00"}},{"$count":"n"}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{by_number}]")), @r#"[{"n":1}]"#);
    let sorted = r#"{"$project":{"w":{"at":"$at"}}},{"$sort":{"w":-1,"id":1}},{"$project":{"id":1}}"#;
    insta::assert_snapshot!(aggregate(&store, &format!("[{sorted}]")), @r#"[{"id":"3"},{"id":"0"},{"id":"1"},{"id":"2"}]"#);
}

#[test]
fn pipelines_are_bounded() {
    let mut store = Store::new("name = \"thing\"", everything());
    let text = "x".repeat(1 << 20);
    for n in 0..20 {
        store.put(&format!("{n:02}"), &format!("{{\"n\":{n},\"text\":\"{text}\"}}"));
    }
    let bounds = Bounds { scan_max: 100, limit_default: 5, limit_max: 5 };
    let refused = |pipeline: &str| {
        store.answer_within(&format!("__aggregate={pipeline}"), &bounds).expect_err(pipeline).to_string()
    };
    insta::assert_snapshot!(refused(r#"[{"$match":{"createTime":{"$gt":"tomorrow"}}}]"#), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($match) the text "tomorrow", expected a date or a date with time and offset (RFC 3339) for createTime"#);
    insta::assert_snapshot!(refused(r#"[{"$project":{"n":1}}]"#), @r#"bad-parameter: parameter "__aggregate": found a pipeline that yields more than 5 rows, expected less, by a $limit at the end"#);
    insta::assert_snapshot!(refused(r#"[{"$group":{"_id":null,"all":{"$push":"$text"}}}]"#), @r#"bad-parameter: parameter "__aggregate": found a pipeline that keeps more than 16 MiB, expected less, by $match, $project or a $limit after $sort"#);
    insta::assert_snapshot!(refused(r#"[{"$group":{"_id":{"text":"$text","n":"$n"}}},{"$limit":1}]"#), @r#"bad-parameter: parameter "__aggregate": found a pipeline that keeps more than 16 MiB, expected less, by $match, $project or a $limit after $sort"#);
    let many =
        ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| format!("\"{name}\":\"$$ROOT\"")).join(",");
    let again = vec![format!("{{\"$project\":{{{many}}}}}"); 12].join(",");
    insta::assert_snapshot!(refused(&format!("[{{\"$match\":{{\"n\":1}}}},{again},{{\"$limit\":1}}]")), @r#"bad-parameter: parameter "__aggregate": found a pipeline that makes a row or value of more than 16 MiB, expected less, by $match or $project"#);
    let firsts =
        (0..100).map(|n| format!("\"f{n}\":{{\"$first\":\"$$ROOT\"}}")).collect::<Vec<_>>().join(",");
    insta::assert_snapshot!(refused(&format!("[{{\"$group\":{{\"_id\":null,{firsts}}}}}]")), @r#"bad-parameter: parameter "__aggregate": found a pipeline that keeps more than 16 MiB, expected less, by $match, $project or a $limit after $sort"#);
    let within = r#"{"$group":{"_id":"$n"}},{"$sort":{"_id":1}}"#;
    let wide = (0..20)
        .map(|n| format!("\"w{n}\":{{\"$literal\":\"{}\"}}", "x".repeat(1 << 20)))
        .collect::<Vec<_>>()
        .join(",");
    insta::assert_snapshot!(refused(&format!("[{within},{{\"$project\":{{{wide}}}}},{{\"$match\":{{\"_id\":-1}}}}]")), @r#"bad-parameter: parameter "__aggregate": found a pipeline that makes a row or value of more than 16 MiB, expected less, by $match or $project"#);
    let wide = (0..15)
        .map(|n| format!("\"w{n}\":{{\"$literal\":\"{}\"}}", "x".repeat(1 << 20)))
        .collect::<Vec<_>>()
        .join(",");
    insta::assert_snapshot!(refused(&format!("[{within},{{\"$project\":{{{wide}}}}},{{\"$match\":{{\"_id\":-1}}}}]")), @r#"bad-parameter: parameter "__aggregate": found a pipeline that makes more than 256 MiB of what it has kept, expected less, by $match, $project or $limit"#);
    insta::assert_snapshot!(refused(r#"[{"$project":{"o.a":1,"o":"$n"}}]"#), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($project) "o" and something within it, expected only one of both"#);
    insta::assert_snapshot!(refused(r#"[{"$sort":{"n":1}},{"$count":"n"}]"#), @r#"bad-parameter: parameter "__aggregate": found a pipeline that keeps more than 16 MiB, expected less, by $match, $project or a $limit after $sort"#);
    let top = store
        .answer_within(r#"__aggregate=[{"$sort":{"n":-1}},{"$limit":2},{"$project":{"n":1}}]"#, &bounds)
        .unwrap();
    assert_eq!(top.body, r#"[{"n":19,"id":"19"},{"n":18,"id":"18"}]"#);
}
