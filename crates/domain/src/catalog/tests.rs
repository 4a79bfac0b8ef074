use super::*;
use crate::module;

fn spec(toml: &str) -> ModelSpec {
    module::parse(toml, "module.toml").unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")))
}

#[test]
fn models_are_found_by_name_and_endpoint() {
    let catalog = Catalog::build(vec![
        spec("name = \"todo\""),
        spec("name = \"order\"\nendpoint = \"Bestellungen\"\n[fields]\na = { unique = true }\nb = \"text\"\nc = { kind = \"integer\", indexed = true }"),
    ])
    .unwrap();
    assert_eq!(catalog.models().iter().map(|model| model.name()).collect::<Vec<_>>(), ["TODO", "ORDER"]);
    let order = catalog.by_endpoint("Bestellungen").unwrap();
    assert_eq!((order.name(), order.endpoint()), ("ORDER", "Bestellungen"));
    assert_eq!(order.unique_fields(), ["a"]);
    let indexed = |name: &str, kind| IndexedField { name: name.to_owned(), kind };
    assert_eq!(order.indexed_fields(), [indexed("a", FieldKind::Any), indexed("c", FieldKind::Integer)]);
    assert_eq!(catalog.by_name("TODO").unwrap().endpoint(), "todos");
    assert!(catalog.by_name("todo").is_none());
    assert!(catalog.by_endpoint("bestellungen").is_none());
}

#[test]
fn mistakes_of_all_models_are_told_at_once() {
    let mut bad = spec("name = \"bad\"\n[fields.n]\nkind = \"integer\"");
    bad.endpoint = "todos".to_owned();
    bad.id_field = Some("missing".to_owned());
    bad.cache_documents_max = Some(0);
    bad.fields["n"].default = Some(Value::Null);
    bad.fields["n"].min = Some(5.into());
    bad.fields["n"].max = Some(4.into());
    bad.fields["n"].pattern = Some("a{99999999}".to_owned());
    bad.fields["n"].values = Some(vec![Value::from("x")]);
    bad.fields.insert("a__b".to_owned(), bad.fields["n"].clone());
    bad.schema = Some(Value::from(5));
    let mistakes =
        Catalog::build(vec![spec("name = \"todo\""), bad, spec("name = \"TODO\"\nendpoint = \"x\"")]);
    insta::assert_snapshot!(mistakes.unwrap_err().join("\n"), @r#"
    model BAD: endpoint: found "todos", which model TODO has, expected another
    model BAD: fields.a__b: found "a__b", expected a name of 1 to 128 bytes: letters, digits, '_', '-' or '$', not starting with a digit or '-', without "__"
    model BAD: id-field: found "missing", expected the name of a declared field
    model BAD: cache-documents-max: found 0, expected at least 1
    model BAD: fields.n.pattern: found "a{99999999}", expected a regular expression: compiled it takes more than 1048576 bytes
    model BAD: fields.n.pattern: found a pattern for the kind integer, expected it for text only
    model BAD: fields.n.min: found 5, expected at most max = 4
    model BAD: fields.n.values: found the text "x", expected a whole number
    model BAD: fields.a__b.pattern: found "a{99999999}", expected a regular expression: compiled it takes more than 1048576 bytes
    model BAD: fields.a__b.pattern: found a pattern for the kind integer, expected it for text only
    model BAD: fields.a__b.min: found 5, expected at most max = 4
    model BAD: fields.a__b.values: found the text "x", expected a whole number
    model BAD: schema: found a mistake at the top, expected JSON Schema 2020-12: value is not of types "boolean", "object"
    model TODO: name: found the name of another model, expected one of its own
    "#);
}

#[test]
fn specifications_travel_as_json() {
    let specs = vec![
        spec("name = \"todo\"\n[mixins]\ndefault = { a = { b = [1, 2.5, \"x\"] } }"),
        spec("name = \"b\""),
    ];
    let bytes = encode(&specs);
    assert_eq!(decode(&bytes).as_ref(), Ok(&specs));
    assert_eq!((decode_services(&bytes), encode_with(&specs, &[])), (Ok(Vec::new()), bytes.clone()));
    let hello = ServiceSpec {
        name: "hello".to_owned(),
        route: "/hello".to_owned(),
        digest: "d".to_owned(),
        limits: crate::service::usual_limits(),
        http: Vec::new(),
        wasi: crate::service::Wasi::V03,
    };
    let both = encode_with(&specs, std::slice::from_ref(&hello));
    assert_eq!((decode(&both).as_ref(), decode_services(&both)), (Ok(&specs), Ok(vec![hello])));
    insta::assert_snapshot!(decode(&bytes[..bytes.len() - 1]).unwrap_err(), @"catalog: EOF while parsing a list at line 1 column 599");
    insta::assert_snapshot!(decode(b"[{\"name\":\"A\"}]").unwrap_err(), @"catalog: missing field `endpoint` at line 1 column 13");
}
