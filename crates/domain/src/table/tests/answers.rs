use super::{CacheBounds, Store, everything, ids};
use crate::query::{Bounds, Effort, Query, Step, with_cursor};

fn todos() -> Store {
    let toml = "name = \"todo\"\n[fields]\nn = { kind = \"integer\", indexed = true }\ntext = \"text\"";
    let mut store = Store::new(toml, everything());
    for n in 1..=25 {
        let text = if n % 5 == 0 { String::new() } else { format!(",\"text\":\"todo {n}\"") };
        store.put(&format!("id-{n:02}"), &format!("{{\"n\":{n}{text}}}"));
    }
    store
}

fn numbers(store: &Store, query: &str) -> Vec<u64> {
    let rows = crate::json::parse(&store.answer(query).body).unwrap();
    rows.as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap()).collect()
}

#[test]
fn a_list_is_sorted_cut_and_filtered() {
    let store = todos();
    assert_eq!(numbers(&store, "__sort=-n&__limit=5&__skip=5"), [20, 19, 18, 17, 16]);
    assert_eq!(numbers(&store, "n__gte=24"), [24, 25]);
    assert_eq!(numbers(&store, "text=null"), [5, 10, 15, 20, 25]);
    assert_eq!(
        numbers(&store, "text=NULL&n__gt=20&__operand=or&__sort=-n"),
        [25, 24, 23, 22, 21, 20, 15, 10, 5]
    );
    assert_eq!(numbers(&store, "text__like=todo%25_1&n__in=1,11,12&n__in=21"), [1, 11, 21]);
    assert_eq!(numbers(&store, "__skip=99"), [0_u64; 0]);
}

#[test]
fn a_page_tells_the_number_of_rows_and_of_pages() {
    let store = todos();
    let page = store.text("__page=3&__limit=10&__select=n");
    insta::assert_snapshot!(page, @r#"{"count":25,"total":3,"page":3,"limit":10,"data":[{"n":21,"id":"id-21"},{"n":22,"id":"id-22"},{"n":23,"id":"id-23"},{"n":24,"id":"id-24"},{"n":25,"id":"id-25"}]}"#);
    insta::assert_snapshot!(store.text("__page=9&__limit=10&n__lt=3"), @r#"{"count":2,"total":1,"page":9,"limit":10,"data":[]}"#);
    assert_eq!(store.answer("__page=2&__limit=10").next_cursor, None);
}

#[test]
fn counts_tell_what_is_kept_in_memory() {
    let mut store = Store::new(
        "name = \"todo\"\n[fields]\nn = { kind = \"integer\", indexed = true }",
        CacheBounds { bytes_max: 1 << 20, documents_max: Some(100) },
    );
    for n in 0..1000 {
        store.put(&format!("{n:04}"), &format!("{{\"n\":{}}}", n % 10));
    }
    insta::assert_snapshot!(store.text("__count=all"), @r#"{"total":1000,"cached":100,"bytes":19000}"#);
    insta::assert_snapshot!(store.text("__count=all&n=3"), @r#"{"total":100,"cached":10,"bytes":1900}"#);
    insta::assert_snapshot!(store.text("__count=n:3"), @r#"{"total":100,"field":"n","value":3}"#);
    insta::assert_snapshot!(store.text("__count=text:null&n__lt=5"), @r#"{"total":500,"field":"text","value":null}"#);
    assert_eq!(store.table.statistics().cached_documents, 100);
}

#[test]
fn a_walk_by_cursor_is_not_disturbed_by_writes() {
    let mut store = todos();
    let first = store.answer("__sort=-n&__limit=10");
    store.put("id-99", "{\"n\":99}");
    store.put("id-16", "{\"n\":98}");
    store.remove("id-10");
    let query = with_cursor("__sort=-n&__limit=10", &first.next_cursor.unwrap());
    let second = store.answer(&query);
    assert_eq!(ids(&second.body)[..2], ["id-15", "id-14"]);
    let third = store.answer(&with_cursor(&query, &second.next_cursor.unwrap()));
    assert_eq!(ids(&third.body), ["id-04", "id-03", "id-02", "id-01"]);
    assert_eq!(third.next_cursor, None);
}

#[test]
fn documents_are_answered_as_they_are_written() {
    let mut store = Store::new("name = \"thing\"", everything());
    store.put("a", r#"{"z":1.50,"y":{"b":1e2,"a":[1,{"c":"é\u0000"}]},"x":null}"#);
    insta::assert_snapshot!(store.text(""), @r#"[{"z":1.50,"y":{"b":1e2,"a":[1,{"c":"é\u0000"}]},"x":null,"id":"a"}]"#);
    insta::assert_snapshot!(store.text("__select=x,y.a,y.c,nothing"), @r#"[{"y":{"a":[1,{"c":"é\u0000"}]},"x":null,"id":"a"}]"#);
}

#[test]
fn scans_beyond_the_bound_are_refused_with_the_fields_to_index() {
    let store = todos();
    let bounds = Bounds { scan_max: 10, limit_default: 10, limit_max: 10 };
    let refused = |query: &str| store.answer_within(query, &bounds).expect_err(query).to_string();
    insta::assert_snapshot!(refused("text=x"), @r#"query-too-expensive: the query would look at 25 documents of TODO, more than 10: declare an index on "text" or add a filter on an indexed field"#);
    insta::assert_snapshot!(refused("text=x&free__gt=1&n__gt=1&__sort=-free,text"), @r#"query-too-expensive: the query would look at 25 documents of TODO, more than 10: declare an index on "text", "free" or add a filter on an indexed field"#);
    insta::assert_snapshot!(refused("address.zip=1"), @r#"query-too-expensive: the query would look at 25 documents of TODO, more than 10: add a filter on an indexed field, because "address.zip" cannot have an index"#);
    insta::assert_snapshot!(refused("__sort=-createTime"), @r#"query-too-expensive: the query would look at 25 documents of TODO, more than 10: add a filter on an indexed field, because "createTime" cannot have an index"#);
    insta::assert_snapshot!(refused("n=1&text=x&__operand=or"), @r#"query-too-expensive: the query would look at 25 documents of TODO, more than 10: declare an index on "text" or add a filter on an indexed field"#);
    insta::assert_snapshot!(refused("__sort=text"), @r#"query-too-expensive: the query would look at 25 documents of TODO, more than 10: declare an index on "text" or add a filter on an indexed field"#);
    insta::assert_snapshot!(refused("__aggregate=[{\"$group\":{\"_id\":null}}]"), @"query-too-expensive: the query would look at 25 documents of TODO, more than 10: narrow it with a filter on an indexed field");
    for fine in
        ["n__gt=15&text=x", "__sort=-n", "n__ne=3&__page=1", "", "__count=n:3", "n=1&n=2&__operand=or"]
    {
        assert!(store.answer_within(fine, &bounds).is_ok(), "{fine}");
    }
}

#[test]
fn a_filter_that_an_index_knows_is_answered_wherever_in_the_order_its_documents_are() {
    let mut store = Store::new(
        "name = \"task\"\n[fields]\nn = { kind = \"integer\", indexed = true }\nstate = { kind = \"text\", indexed = true }",
        everything(),
    );
    // Some are open at the beginning, and most of them at the end.
    for n in 0..600 {
        let state = if !(6..546).contains(&n) { "open" } else { "done" };
        store.put(&format!("{n:03}"), &format!("{{\"n\":{n},\"state\":\"{state}\"}}"));
    }
    let bounds = Bounds { scan_max: 100, limit_default: 5, limit_max: 10 };
    let expected: Vec<_> = (0..6).chain(546..600).map(|n| format!("{n:03}")).collect();
    for page in 0..12 {
        let query = format!("state=open&__sort=n&__skip={}&__limit=5", page * 5);
        let found = ids(&store.answer_within(&query, &bounds).expect(&query).body);
        assert_eq!(found, expected[page * 5..][..5], "{query}");
    }
}

#[test]
fn indexes_spare_bodies() {
    let store = todos();
    let scanned = |query: &str| {
        let query = Query::parse(&store.model, query, &super::BOUNDS).unwrap();
        store.table.plan(&query).unwrap().scanned()
    };
    for free in [
        "",
        "n=3",
        "n__in=1,2&__sort=-id",
        "n__gt=3&n__lt=9&__sort=-n&__page=2",
        "__count=all&n__ne=5",
        "id__like=id-1%25",
    ] {
        assert_eq!(scanned(free), 0, "{free}");
    }
    assert_eq!(scanned("n__lte=4&text=x"), 4);
    assert_eq!(scanned("n=1&text=x"), 1);
    assert_eq!(scanned("n__in=1,2,3&id__gt=id-02&text=x"), 1);
    assert_eq!(scanned("text=x"), 25);
}

#[test]
fn a_step_ends_within_a_document_that_is_much_work() {
    let mut store = todos();
    store.put("long", &format!("{{\"text\":\"{}ab\"}}", "ax".repeat(1000)));
    let pattern = |length: usize, last: char| format!("text__like=%25a{}{last}%25", "_".repeat(length));
    let patterns: Vec<_> = (0..19).map(|length| pattern(200 + length, 'c')).collect();
    let answered = |query: &str| {
        let (page, pauses) = store.answer_in_steps(query, &super::BOUNDS).unwrap();
        (ids(&page.body), pauses)
    };
    // The brief step leaves the document alone, a long one reads its id, and another one follows the pattern.
    assert_eq!(answered(&format!("id=long&{}", patterns[0])), (vec![], 2));
    let any = format!("__operand=or&{}&{}", patterns.join("&"), pattern(200, 'b'));
    let (found, pauses) = answered(&any);
    assert_eq!(found, ["long"]);
    assert!(pauses >= 20, "{pauses}");
    // So does a sort that reads the document.
    let (found, pauses) = answered("__sort=-text,createTime&__limit=1&__select=id");
    assert_eq!((found.len(), pauses), (1, 1));
}

#[test]
fn patterns_over_long_keys_are_judged_outside_of_the_lock() {
    let mut store =
        Store::new("name = \"thing\"\n[fields]\na = { kind = \"text\", indexed = true }", everything());
    let bounds = Bounds { scan_max: 20, limit_default: 100, limit_max: 100 };
    let scanned = |store: &Store, query: &str| {
        store.table.plan(&Query::parse(&store.model, query, &bounds).unwrap()).unwrap().scanned()
    };
    for n in 10..30 {
        store.put(&n.to_string(), &format!("{{\"a\":\"{n}\"}}"));
    }
    assert_eq!(scanned(&store, "a__like=%252_%25"), 0);
    for n in 10..30 {
        store.put(&n.to_string(), &format!("{{\"a\":\"{n}{}\"}}", "x".repeat(400)));
    }
    // 20 × 4 × 128 bytes are enough for 5 of these keys, as a pattern with `_` counts them four times.
    assert_eq!(scanned(&store, "a__like=%252_%25"), 15);
    assert_eq!(scanned(&store, "a__like=%252%25"), 0);
    assert_eq!(scanned(&store, "a__gt=1"), 0);
    let expected: Vec<_> = [12].into_iter().chain(20..30).map(|n| n.to_string()).collect();
    assert_eq!(ids(&store.answer_within("a__like=%252_%25", &bounds).unwrap().body), expected[..]);
}

#[test]
fn a_plan_ends_with_the_state_of_the_table_that_it_shows() {
    let mut store = todos();
    let query = Query::parse(&store.model, "text__like=%25_2", &super::BOUNDS).unwrap();
    let step = |store: &Store| store.table.plan(&query).unwrap().step(Vec::new(), Effort::Long).unwrap();
    let begun = |store: &Store| match step(store) {
        Step::Look(plan) => plan,
        other => panic!("{other:?}"),
    };
    let (before, other) = (begun(&store), begun(&todos()));
    assert!(store.table.look(other).is_none(), "a plan of another table");
    store.table.truncate();
    assert!(store.table.look(before).is_none(), "a plan of documents that are gone");

    let mut store = todos();
    let before = begun(&store);
    let text = "x".repeat(1 << 20);
    for _ in 0..33 {
        store.put("id-25", &format!("{{\"text\":\"{text}\"}}"));
    }
    assert!(
        store.table.look(before).is_none(),
        "a plan that 32 MiB of former versions would have to be kept for"
    );
}

#[test]
fn former_versions_are_kept_for_plans_only() {
    let mut store = todos();
    let query = Query::parse(&store.model, "text__like=%25_2", &super::BOUNDS).unwrap();
    store.put("id-01", "{}");
    assert_eq!(store.table.retired.len(), 0);
    let plan = store.table.plan(&query).unwrap();
    store.put("id-01", "{}");
    store.remove("id-02");
    assert_eq!(store.table.retired.len(), 2);
    drop(plan);
    store.put("id-01", "{}");
    assert_eq!(store.table.retired.len(), 0);
}

#[test]
fn a_page_larger_than_the_bound_is_refused() {
    let mut store = Store::new("name = \"thing\"", everything());
    let text = "x".repeat(1 << 20);
    for n in 0..65 {
        store.put(&format!("{n:02}"), &format!("{{\"text\":\"{text}\"}}"));
    }
    let refused = |query: &str| store.answer_within(query, &super::BOUNDS).expect_err(query).to_string();
    insta::assert_snapshot!(refused(""), @r#"bad-parameter: parameter "__limit": found 64 documents of more than 64 MiB, expected fewer documents"#);
    assert_eq!(ids(&store.answer("__limit=50").body).len(), 50);
}
