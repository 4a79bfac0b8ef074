//! Commands and routes that an operator takes out of service, by their names: `commands.decrypt`, `routes.GET /{id}/label`.
//!
//! What is disabled stays in the specification, so that operators see it; nobody can ask it.

use std::collections::BTreeSet;

use crate::{route::RouteSpec, spec::ModelSpec, suggest::similar};

/// Names that a mistake tells; the rest are counted.
const NAMES_TOLD_MAX: usize = 20;

/// Takes commands and routes of a model out of service.
///
/// # Errors
/// One sentence for every name that the model does not have, with those that it has.
pub fn disable(spec: &mut ModelSpec, names: &BTreeSet<String>) -> Result<(), Vec<String>> {
    let mut unknown = Vec::new();
    for name in names {
        match switch(spec, name) {
            Some(is_disabled) => *is_disabled = true,
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let known = names_of(spec);
    let told = |name: &&String| {
        let hint = similar(name, known.iter().map(String::as_str));
        format!("found {:?}{hint}, expected {}", crate::json::shorten(name), listed(&known))
    };
    Err(unknown.iter().map(told).collect())
}

/// What is disabled of a model, by name.
#[must_use]
pub fn disabled(spec: &ModelSpec) -> Vec<String> {
    let commands = spec.commands.iter().filter(|(_, command)| command.disabled);
    let routes = spec.code.iter().flat_map(|code| &code.routes).filter(|route| route.disabled);
    commands.map(|(name, _)| command_name(name)).chain(routes.map(route_name)).collect()
}

/// All that can be disabled of a model, by name.
fn names_of(spec: &ModelSpec) -> Vec<String> {
    let routes = spec.code.iter().flat_map(|code| &code.routes);
    spec.commands.keys().map(|name| command_name(name)).chain(routes.map(route_name)).collect()
}

fn command_name(name: &str) -> String {
    format!("commands.{name}")
}

fn route_name(route: &RouteSpec) -> String {
    format!("routes.{} {}", route.method, route.path)
}

/// Where it is kept whether what has this name is disabled.
fn switch<'a>(spec: &'a mut ModelSpec, name: &str) -> Option<&'a mut bool> {
    if let Some(command) = name.strip_prefix("commands.") {
        return spec.commands.get_mut(command).map(|command| &mut command.disabled);
    }
    let routes = &mut spec.code.as_mut()?.routes;
    routes.iter_mut().find(|route| route_name(route) == name).map(|route| &mut route.disabled)
}

fn listed(known: &[String]) -> String {
    let told = known.iter().take(NAMES_TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => "none: the model has no commands and no routes".to_owned(),
        count if count > NAMES_TOLD_MAX => format!("one of {told} and {} more", count - NAMES_TOLD_MAX),
        _ => format!("one of {told}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access,
        catalog::Catalog,
        code::{CodeSpec, CommandEffect, CommandPlace, CommandSpec},
        module,
        query::read_item,
        route::Verb,
    };

    fn letter(commands: &[&str], routes: &[(Verb, &str)]) -> ModelSpec {
        let mut spec = module::parse("name = \"letter\"\n[fields]\ntext = \"text\"\n", "test").unwrap();
        let command = CommandSpec {
            description: None,
            arguments: None,
            effect: CommandEffect::Answers,
            place: CommandPlace::Io,
            allow: vec!["auditor".to_owned()],
            disabled: false,
        };
        spec.commands = commands.iter().map(|name| ((*name).to_owned(), command.clone())).collect();
        let route = |(method, path): &(Verb, &str)| RouteSpec {
            method: *method,
            path: (*path).to_owned(),
            place: CommandPlace::Io,
            openapi: None,
            public: false,
            allow: vec!["auditor".to_owned()],
            disabled: false,
        };
        spec.code =
            Some(CodeSpec { routes: routes.iter().map(route).collect(), ..CodeSpec::of_a_test("letter") });
        spec
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_disabled_command_is_found_by_nobody_and_still_seen() {
        let mut spec =
            letter(&["decrypt", "approve"], &[(Verb::Get, "/{id}/seal"), (Verb::Post, "/{id}/seal")]);
        disable(&mut spec, &names(&["commands.decrypt", "routes.GET /{id}/seal"])).unwrap();
        assert_eq!(disabled(&spec), ["commands.decrypt", "routes.GET /{id}/seal"]);
        let catalog = Catalog::build(vec![spec]).unwrap();
        let model = &catalog.models()[0];
        assert!(model.command("decrypt").is_none() && model.command("approve").is_some());
        assert_eq!(model.commands().len(), 2);
        let told = |name: &str| read_item(model, &format!("command={name}")).unwrap_err().to_string();
        assert_eq!(told("decrypt").replace("decrypt", "unknown"), told("unknown"));
    }

    #[test]
    fn a_name_that_is_not_there_is_told_with_those_that_are() {
        let mut spec = letter(&["decrypt", "approve"], &[(Verb::Get, "/{id}/seal")]);
        let wanted =
            names(&["commands.decrpyt", "routes.POST /{id}/seal", "decrypt", "commands.approve", "routes.0"]);
        insta::assert_snapshot!(disable(&mut spec, &wanted).unwrap_err().join("\n"), @r#"
        found "commands.decrpyt" (did you mean "commands.decrypt"?), expected one of commands.decrypt, commands.approve, routes.GET /{id}/seal
        found "decrypt", expected one of commands.decrypt, commands.approve, routes.GET /{id}/seal
        found "routes.0", expected one of commands.decrypt, commands.approve, routes.GET /{id}/seal
        found "routes.POST /{id}/seal" (did you mean "routes.GET /{id}/seal"?), expected one of commands.decrypt, commands.approve, routes.GET /{id}/seal
        "#);
        let mut spec = letter(&[], &[]);
        let told = disable(&mut spec, &names(&["commands.x"])).unwrap_err();
        insta::assert_snapshot!(told.join("\n"), @r#"found "commands.x", expected none: the model has no commands and no routes"#);
        let many: Vec<String> = (0..30).map(|number| format!("c{number}")).collect();
        let mut spec = letter(&many.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let told = disable(&mut spec, &names(&["commands.other"])).unwrap_err();
        assert!(told[0].ends_with("commands.c19 and 10 more"), "{told:?}");
    }

    #[test]
    fn what_is_disabled_guards_nothing() {
        let mut spec = letter(&["decrypt"], &[(Verb::Get, "/{id}/seal")]);
        assert_eq!(access::unguarded(std::slice::from_ref(&spec)).len(), 2);
        disable(&mut spec, &names(&["commands.decrypt", "routes.GET /{id}/seal"])).unwrap();
        assert_eq!(access::unguarded(&[spec]), [] as [String; 0]);
    }
}
