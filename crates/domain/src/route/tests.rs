use super::*;
use crate::{catalog::Catalog, code::CodeSpec, module, service::usual_limits};

fn model(name: &str, routes: &[(Verb, &str)]) -> ModelSpec {
    let text = format!("name = \"{name}\"\nendpoint = \"{name}s\"\n[fields]\ntext = \"text\"\n");
    let mut spec = module::parse(&text, "test").unwrap();
    let route = |(method, path): &(Verb, &str)| RouteSpec {
        method: *method,
        path: (*path).to_owned(),
        place: CommandPlace::Io,
        openapi: None,
        public: false,
        allow: Vec::new(),
        disabled: false,
    };
    spec.code = Some(CodeSpec { routes: routes.iter().map(route).collect(), ..CodeSpec::of_a_test(name) });
    spec
}

fn parts(pattern: &str, path: &str) -> Option<String> {
    let path: Vec<&str> = path.split('/').skip(1).collect();
    let parts = Pattern::parse(pattern).unwrap().matches(&path)?;
    Some(parts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
}

#[test]
fn parts_in_braces_match_any_one_segment() {
    assert_eq!(parts("/{id}/label", "/7/label").unwrap(), "id=7");
    assert_eq!(parts("/{a}/x/{b-c}", "/1/x/2").unwrap(), "a=1 b-c=2");
    assert_eq!(parts("/open", "/open").unwrap(), "");
    for (pattern, path) in [
        ("/{id}/label", "/7/labels"),
        ("/{id}/label", "/7"),
        ("/{id}/label", "/7/label/"),
        ("/{id}", "/"),
        ("/{id}/label", "/../label"),
        ("/{id}", "/."),
        ("/open", "/Open"),
    ] {
        assert_eq!(parts(pattern, path), None, "{pattern} {path}");
    }
    assert_eq!(Pattern::parse("/").unwrap().matches::<&str>(&[]), Some(Vec::new()));
}

#[test]
fn what_is_no_pattern_is_told_with_what_is_expected() {
    let long = format!("/{}", "a".repeat(300));
    let deep = "/a".repeat(17);
    let told: Vec<String> = [
        "",
        "label",
        "/../customers",
        "/a/./b",
        "/a//b",
        "/a/",
        "/a%2fb",
        "/a\\b",
        "/ä",
        "/a{b}",
        "/{}",
        "/{9}",
        "/{a}/{a}",
        "//",
        "//{any}",
        "///x",
        "/service/x",
        "/{id}/service",
        &long,
        &deep,
    ]
    .map(|text| Pattern::parse(text).unwrap_err())
    .into();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_more_particular_route_is_asked_first() {
    let routes = [
        (Verb::Get, "/{id}"),
        (Verb::Get, "/{id}/{what}"),
        (Verb::Get, "/{id}/label"),
        (Verb::Get, "/open"),
        (Verb::Get, "/open/{what}"),
    ];
    let catalog = Catalog::build(vec![model("order", &routes)]).unwrap();
    let order: Vec<&str> =
        catalog.models()[0].routes().iter().map(|route| route.spec().path.as_str()).collect();
    assert_eq!(order, ["/open", "/open/{what}", "/{id}", "/{id}/label", "/{id}/{what}"]);
}

#[test]
fn routes_that_nobody_could_tell_apart_or_that_the_host_answers_are_mistakes() {
    let routes = [
        (Verb::Get, "/{id}/label"),
        (Verb::Get, "/{key}/label"),
        (Verb::Post, "/{id}/label"),
        (Verb::Get, "//livez"),
        (Verb::Get, "//metrics/{x}"),
        (Verb::Get, "//live"),
        (Verb::Get, "/../x"),
    ];
    let mistakes = Catalog::build(vec![model("order", &routes)]).unwrap_err();
    insta::assert_snapshot!(mistakes.join("\n"));
    let many: Vec<String> = (0..=ROUTES_MAX).map(|number| format!("/r{number}")).collect();
    let many: Vec<(Verb, &str)> = many.iter().map(|path| (Verb::Get, path.as_str())).collect();
    let mistakes = Catalog::build(vec![model("order", &many)]).unwrap_err();
    insta::assert_snapshot!(mistakes.join("\n"), @"model ORDER: routes: found 257, expected at most 256");
}

#[test]
fn nobody_answers_at_the_root_where_the_host_a_service_or_another_model_does() {
    let service = ServiceSpec {
        name: "shop".to_owned(),
        route: "/shop".to_owned(),
        digest: String::new(),
        limits: usual_limits(),
        http: Vec::new(),
        wasi: crate::service::Wasi::V02,
    };
    let one = [
        (Verb::Get, "//aegis/api/models/customers/{id}"),
        (Verb::Get, "//aegis/{any}"),
        (Verb::Get, "//shop/cart"),
        (Verb::Get, "//shopping/{id}"),
        (Verb::Get, "/{id}/label"),
    ];
    let other =
        [(Verb::Get, "//shopping/{key}"), (Verb::Post, "//shopping/{key}"), (Verb::Get, "/{id}/label")];
    let specs = [model("order", &one), model("customer", &other)];
    insta::assert_snapshot!(custom_route_mistakes(&specs, &[service], "/aegis/api").join("\n"));
}
