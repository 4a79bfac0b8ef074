use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{catalog::Catalog, module};

pub(crate) const BOUNDS: Bounds = Bounds { scan_max: 200_000, limit_default: 100, limit_max: 1000 };

pub(crate) fn compile(toml: &str) -> Arc<Model> {
    let spec =
        module::parse(toml, "module.toml").unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")));
    Catalog::build(vec![spec]).unwrap().models()[0].clone()
}

fn model() -> Arc<Model> {
    compile(
        r#"
        name = "order"
        [fields]
        status = { kind = "text", indexed = true }
        n = "integer"
        paid = "boolean"
        due = "timestamp"
        address = "object"
        "#,
    )
}

fn refused(query: &str) -> String {
    let problem = Query::parse(&model(), query, &BOUNDS).expect_err(query);
    let errors: String =
        problem.errors.iter().map(|error| format!("\n{}: {}", error.path, error.message)).collect();
    format!("{problem}{errors}")
}

fn accepted(query: &str) -> Query {
    Query::parse(&model(), query, &BOUNDS).unwrap_or_else(|problem| panic!("{query}: {problem}"))
}

#[test]
fn a_parameter_without_a_name_is_told_as_that() {
    insta::assert_snapshot!(refused("=x"), @r#"bad-parameter: found the parameter "=x", which has no name, expected name=value"#);
    insta::assert_snapshot!(refused("n=1&=&"), @r#"bad-parameter: found the parameter "=", which has no name, expected name=value"#);
    accepted("&");
}

#[test]
fn times_at_the_end_of_the_calendar_are_times() {
    for query in ["due=9999-12-31T23:59:59Z", "due__gt=9999-12-31", "due__lt=9999-12-31T23:59:59.5-23:59"] {
        accepted(query);
    }
}

#[test]
fn unknown_words_are_refused_with_the_known_ones() {
    insta::assert_snapshot!(refused("__limt=1"), @r#"bad-parameter: parameter "__limt": found an unknown parameter, expected one of __operand, __sort, __limit, __skip, __page, __cursor, __count, __select, __aggregate"#);
    insta::assert_snapshot!(refused("n__gtee=1"), @r#"bad-parameter: parameter "n__gtee": found the operator "gtee", expected one of ne, lt, lte, gt, gte, in, nin, like, ilike, contains, exists"#);
    insta::assert_snapshot!(refused("n__=1"), @r#"bad-parameter: parameter "n__": found the operator "", expected one of ne, lt, lte, gt, gte, in, nin, like, ilike, contains, exists"#);
    insta::assert_snapshot!(refused("n=1&__operand=xor"), @r#"bad-parameter: parameter "__operand": found "xor", expected "and" or "or""#);
    insta::assert_snapshot!(refused("__count=some"), @r#"bad-parameter: parameter "__count": found "some", expected "all" or "field:value""#);
}

#[test]
fn values_that_do_not_fit_the_field_are_refused() {
    insta::assert_snapshot!(refused("n__gte=abc"), @r#"bad-parameter: parameter "n__gte": found "abc", expected a number"#);
    insta::assert_snapshot!(refused("paid=yes"), @r#"bad-parameter: parameter "paid": found "yes", expected true, false or null"#);
    insta::assert_snapshot!(refused("due__lt=tomorrow"), @r#"bad-parameter: parameter "due__lt": found "tomorrow", expected a date, a date with time and offset (RFC 3339)"#);
    insta::assert_snapshot!(refused("n__lt=null"), @r#"bad-parameter: parameter "n__lt": found "null", expected a value to compare with"#);
    insta::assert_snapshot!(refused("n__exists=1"), @r#"bad-parameter: parameter "n__exists": found "1", expected true or false"#);
    insta::assert_snapshot!(refused("n__in=1,x"), @r#"bad-parameter: parameter "n__in": found "x", expected a number or null"#);
    insta::assert_snapshot!(refused("address..zip=1"), @r#"bad-parameter: parameter "address..zip": found "address..zip", expected a field name, with single dots between the names of nested fields"#);
    insta::assert_snapshot!(refused("=1"), @r#"bad-parameter: found the parameter "=1", which has no name, expected name=value"#);
    insta::assert_snapshot!(refused(&format!("status__like={}", "a".repeat(257))), @r#"bad-parameter: parameter "status__like": found "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…", expected a pattern of at most 256 characters"#);
    insta::assert_snapshot!(refused(&format!("n__in={}&n__nin=1", "1,".repeat(999) + "1")), @r#"bad-parameter: parameter "n__nin": found 1001 values in lists, expected at most 1000"#);
}

#[test]
fn paging_out_of_bounds_is_refused() {
    insta::assert_snapshot!(refused("__limit=0"), @r#"bad-parameter: parameter "__limit": found "0", expected a whole number from 1 to 1000"#);
    for bad in ["-1", "1001", "%2B1", "1.0", "", "x", "99999999999999999999"] {
        assert!(
            refused(&format!("__limit={bad}")).ends_with("expected a whole number from 1 to 1000"),
            "{bad}"
        );
    }
    insta::assert_snapshot!(refused("__page=0"), @r#"bad-parameter: parameter "__page": found "0", expected a whole number from 1"#);
    insta::assert_snapshot!(refused("__skip=-1"), @r#"bad-parameter: parameter "__skip": found "-1", expected a whole number from 0"#);
    insta::assert_snapshot!(refused("__page=1&__cursor=x"), @r#"
    bad-parameter: parameter "__page": found it together with "__cursor", expected only one of them; parameter "__cursor": found a damaged cursor, expected the cursor of the page before, with the same filters, __operand and __sort
    __page: found it together with "__cursor", expected only one of them
    __cursor: found a damaged cursor, expected the cursor of the page before, with the same filters, __operand and __sort
    "#);
    insta::assert_snapshot!(refused("__count=all&__limit=1"), @r#"bad-parameter: parameter "__count": found it together with "__limit", expected only one of them"#);
    insta::assert_snapshot!(refused("__limit=1&__limit=2"), @r#"bad-parameter: parameter "__limit": found it more than once, expected it once"#);
    insta::assert_snapshot!(refused("__sort=a,,b"), @r#"bad-parameter: parameter "__sort": found "a,,b", expected a field name, with single dots between the names of nested fields"#);
    insta::assert_snapshot!(refused("__sort=a,b,c,d,e,f,g,h,i"), @r#"bad-parameter: parameter "__sort": found 9 fields, expected at most 8"#);
    insta::assert_snapshot!(refused("__select=a,"), @r#"bad-parameter: parameter "__select": found "a,", expected a field name, with single dots between the names of nested fields"#);
    insta::assert_snapshot!(refused(&format!("__select={}", ["a"; 65].join(","))), @r#"bad-parameter: parameter "__select": found 65 names, expected at most 64"#);
}

#[test]
fn all_mistakes_are_told_at_once() {
    insta::assert_snapshot!(refused("__limit=0&n=x&status__is=1"), @r#"
    bad-parameter: parameter "n": found "x", expected a number or null; parameter "status__is": found the operator "is", expected one of ne, lt, lte, gt, gte, in, nin, like, ilike, contains, exists; parameter "__limit": found "0", expected a whole number from 1 to 1000
    n: found "x", expected a number or null
    status__is: found the operator "is", expected one of ne, lt, lte, gt, gte, in, nin, like, ilike, contains, exists
    __limit: found "0", expected a whole number from 1 to 1000
    "#);
}

#[test]
fn relations_and_commands_are_unknown_unless_they_are_fields() {
    insta::assert_snapshot!(refused("relation=customer,items"), @r#"no-such-relation: no relation "customer" on model ORDER"#);
    insta::assert_snapshot!(refused("__expand=customer"), @r#"no-such-relation: no relation "customer" on model ORDER"#);
    insta::assert_snapshot!(refused("command=run"), @r#"no-such-command: no command "run" on model ORDER"#);
    let model = compile("name = \"command\"\n[fields]\ncommand = \"text\"");
    assert!(Query::parse(&model, "command=run", &BOUNDS).is_ok());
}

#[test]
fn a_single_document_takes_no_list_parameters() {
    let refused = |query| read_item(&model(), query).expect_err(query).to_string();
    insta::assert_snapshot!(refused("__limit=1"), @r#"bad-parameter: parameter "__limit": found it on a single document, expected it on lists only"#);
    insta::assert_snapshot!(refused("__foo=1"), @r#"bad-parameter: parameter "__foo": found an unknown parameter, expected none that begins with __ on a single document"#);
    insta::assert_snapshot!(refused("relation=customer"), @r#"no-such-relation: no relation "customer" on model ORDER"#);
    insta::assert_snapshot!(refused("command=run&args=1"), @r#"no-such-command: no command "run" on model ORDER"#);
    assert!(read_item(&model(), "").is_ok() && read_item(&model(), "cachebuster=1").is_ok());
}

#[test]
fn bad_pipelines_are_told_where_they_are_bad() {
    let refused = |pipeline: &str| {
        let encoded: String = pipeline.bytes().map(|byte| format!("%{byte:02x}")).collect();
        refused(&format!("__aggregate={encoded}"))
    };
    insta::assert_snapshot!(refused("[{\"$match\":"), @r#"bad-parameter: parameter "__aggregate": found no JSON (line 1, column 12: found the end, expected a value), expected a JSON array of stages"#);
    insta::assert_snapshot!(refused("{}"), @r#"bad-parameter: parameter "__aggregate": found an empty object, expected a JSON array of stages"#);
    insta::assert_snapshot!(refused("[5]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 the number 5, expected an object with one of $match, $group, $sort, $limit, $skip, $project, $count"#);
    insta::assert_snapshot!(refused("[{\"$limit\":1,\"$skip\":1}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 an object with 2 properties, expected an object with one of $match, $group, $sort, $limit, $skip, $project, $count"#);
    insta::assert_snapshot!(refused("[{\"$lookup\":{}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 "$lookup", expected an object with one of $match, $group, $sort, $limit, $skip, $project, $count"#);
    insta::assert_snapshot!(refused("[{\"$limit\":0}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($limit) the number 0, expected a whole number from 1"#);
    insta::assert_snapshot!(refused("[{\"$match\":{\"n\":{\"$gtx\":1}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($match) the operator "$gtx", expected one of $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not"#);
    insta::assert_snapshot!(refused("[{\"$match\":{\"n\":{\"$gt\":null}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($match) null, expected a value to compare with in $gt"#);
    insta::assert_snapshot!(refused("[{\"$match\":{\"$nor\":[]}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($match) the operator "$nor", expected a field name, $and, $or or $not"#);
    insta::assert_snapshot!(refused("[{\"$match\":{\"$or\":[]}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($match) an empty array, expected an array of conditions in $or"#);
    insta::assert_snapshot!(refused("[{\"$match\":{\"n\":{\"$in\":5}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($match) the number 5, expected an array of at most 1000 values in $in"#);
    insta::assert_snapshot!(refused("[{\"$group\":{\"n\":{\"$sum\":1}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($group) no _id, expected an _id (null for one group of everything)"#);
    insta::assert_snapshot!(refused("[{\"$group\":{\"_id\":null,\"n\":{\"$median\":1}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($group) "$median", expected an object with one of $sum, $avg, $min, $max, $count, $first, $last, $push"#);
    insta::assert_snapshot!(refused("[{\"$group\":{\"_id\":null,\"a.b\":{\"$sum\":1}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($group) the name "a.b", expected a name without '.' and '$'"#);
    insta::assert_snapshot!(refused("[{\"$group\":{\"_id\":{\"$add\":[1,2]}}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($group) the operator "$add", expected "$path", {"$literal": value} or an object of them"#);
    insta::assert_snapshot!(refused("[{\"$sort\":{\"n\":0}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($sort) the number 0, expected 1 or -1"#);
    insta::assert_snapshot!(refused("[{\"$project\":{\"a\":1,\"b\":0}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($project) properties to keep and properties to drop, expected only one of both"#);
    insta::assert_snapshot!(refused("[{\"$project\":{\"a\":\"text\"}}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($project) the text "text", expected 1, 0, "$path" or an object of expressions"#);
    insta::assert_snapshot!(refused("[{\"$count\":\"$n\"}]"), @r#"bad-parameter: parameter "__aggregate": found in stage 1 ($count) the name "$n", expected a name without '.' and '$'"#);
    insta::assert_snapshot!(refused(&format!("[{}]", ["{\"$skip\":0}"; 17].join(","))), @r#"bad-parameter: parameter "__aggregate": found 17 stages, expected at most 16"#);
}

#[test]
fn cursors_of_other_queries_and_damaged_ones_are_refused() {
    let query = accepted("status=a&__sort=n");
    let Output::Rows(rows) = &query.parts().output else { panic!("rows") };
    let mut places = PlaceWriter::default();
    let cursor = cursor::encode(rows.fingerprint, places.write(&rows.sort, b"{\"n\":1}", b"x"));
    for same in ["status=a&__sort=n", "__sort=n&status=a&__limit=3&__select=n", "st%61tus=a&__sort=n"] {
        accepted(&format!("{same}&__cursor={cursor}"));
    }
    insta::assert_snapshot!(refused(&format!("status=b&__sort=n&__cursor={cursor}")), @r#"bad-parameter: parameter "__cursor": found a cursor of another query, expected the cursor of the page before, with the same filters, __operand and __sort"#);
    for other in ["status=a", "status=a&__sort=-n", "status=a&__sort=n&__operand=or", "status__ne=a&__sort=n"]
    {
        assert!(
            refused(&format!("{other}&__cursor={cursor}")).contains("a cursor of another query"),
            "{other}"
        );
    }
    insta::assert_snapshot!(refused("__cursor="), @r#"bad-parameter: parameter "__cursor": found a damaged cursor, expected the cursor of the page before, with the same filters, __operand and __sort"#);
    assert!(refused(&format!("status=a&__sort=n&__cursor={}x", &cursor[1..])).contains("a damaged cursor"));
    // A place that was made for another order, with a check that fits.
    let forged = cursor::encode(rows.fingerprint, b"no place");
    assert!(refused(&format!("status=a&__sort=n&__cursor={forged}")).contains("a damaged cursor"));
}

fn query_text() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "(n|status|due|paid|address\\.zip|id)(__(ne|lt|lte|gt|gte|in|nin|like|ilike|contains|exists))?",
        "__(operand|sort|limit|skip|page|cursor|count|select|aggregate|expand)",
        ".{0,6}",
    ];
    let value =
        prop_oneof!["[a-z0-9,\"%_.\\\\-]{0,10}", ".{0,12}", Just("[{\"$match\":{\"n\":1}}]".to_owned())];
    proptest::collection::vec((name, value), 0..5)
        .prop_map(|pairs| pairs.into_iter().map(|(name, value)| format!("{name}={value}&")).collect())
}

fn json_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "\"\\$(match|group|sort|limit|skip|project|count|sum|avg|push|first|gt|in|and|or|not|n|\\$ROOT|literal)\"",
        "\"(_id|n|a|)\"",
        "[0-9]|null|true|\\[|\\]|\\{|\\}|:|,",
    ];
    proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn arbitrary_queries_are_read_or_refused(query in query_text(), noise in ".{0,40}") {
        let model = model();
        for query in [query, noise] {
            if let Err(problem) = Query::parse(&model, &query, &BOUNDS) {
                let code = problem.code.as_str();
                prop_assert!(matches!(code, "bad-parameter" | "no-such-relation" | "no-such-command"), "{}", code);
            }
            let _ = read_item(&model, &query);
            let _ = with_cursor(&query, "c");
        }
    }

    #[test]
    fn arbitrary_pipelines_are_read_or_refused(pipeline in json_text(), value in crate::order::tests::value()) {
        let model = model();
        for pipeline in [pipeline, format!("[{{\"$match\":{value}}},{{\"$project\":{value}}},{{\"$group\":{value}}}]")] {
            let encoded: String = pipeline.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let _ = Query::parse(&model, &format!("__aggregate={encoded}"), &BOUNDS);
        }
    }
}
