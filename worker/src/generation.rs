//! A generation as its bundle has it, and whether it can take the place of another one in a running process.

use std::{os::fd::OwnedFd, sync::Arc};

use aegis_config::settings::Config;
use aegis_domain::{
    access,
    catalog::{self, Catalog},
    service::ServiceSpec,
    spec::ModelSpec,
};
use aegis_ipc::{
    IpcError,
    bundle::{Bundle, CodePlace},
    codec,
    deploy::Member,
};

use crate::access::Gate;

/// Names that a reason lists.
const NAMES_SHOWN_MAX: usize = 5;

/// Why a generation cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfferError {
    #[error(transparent)]
    Ipc(#[from] IpcError),
    #[error("the generation's models are not valid: {}", .0.join("; "))]
    Catalog(Vec<String>),
}

/// What a generation offers, all but the code itself.
pub(crate) struct Offer {
    pub(crate) config: Config,
    /// Digest of the generation, hexadecimal.
    pub(crate) digest: String,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) services: Vec<ServiceSpec>,
    /// The modules that it consists of.
    pub(crate) members: Vec<Member>,
    /// Where its code lies.
    pub(crate) code: Vec<CodePlace>,
    /// Asks who calls.
    pub(crate) gate: Option<Gate>,
}

impl Offer {
    /// Reads the bundle of a generation.
    pub(crate) fn read(bundle: &OwnedFd) -> Result<Self, OfferError> {
        let Bundle { digest, config, catalog, code, modules: members, .. } = Bundle::read(bundle)?;
        let config: Config = codec::decode(&config)?;
        let wrong = |reason| OfferError::Catalog(vec![reason]);
        let specs = catalog::decode(&catalog).map_err(wrong)?;
        let gate = Gate::of(&config.auth).map_err(wrong)?;
        if gate.is_none() {
            let unguarded = access::unguarded(&specs);
            if !unguarded.is_empty() {
                return Err(OfferError::Catalog(unguarded));
            }
        }
        let services = catalog::decode_services(&catalog).map_err(wrong)?;
        let catalog = Arc::new(Catalog::build(specs).map_err(OfferError::Catalog)?);
        Ok(Self { config, digest, catalog, services, members, code, gate })
    }
}

/// Says why `next` cannot take the place of `present` in a running process; nothing when only code, what is said about
/// code, and descriptions are different.
///
/// Everything else has been built into the process by then: the cache and its indexes follow from the fields, the bounds
/// of connections from the configuration. The supervisor and the store are told in any case.
pub(crate) fn obstacle(present: (&Config, &Catalog, &[ServiceSpec]), next: &Offer) -> Option<String> {
    let (config, catalog, services) = present;
    if apart_from_modules(config) != apart_from_modules(&next.config) {
        return Some("the configuration is another".to_owned());
    }
    let names = |catalog: &Catalog| -> Vec<String> {
        let mut names: Vec<String> = catalog.models().iter().map(|model| model.name().to_owned()).collect();
        names.sort_unstable();
        names
    };
    let (before, after) = (names(catalog), names(&next.catalog));
    if before != after {
        return Some(format!(
            "there are other models: found {}, expected {}",
            listed(&after),
            listed(&before)
        ));
    }
    for model in next.catalog.models() {
        let Some(known) = catalog.by_name(model.name()) else { continue };
        if let Some(what) = different(known.spec(), model.spec()) {
            return Some(format!("model {}: {what}", model.name()));
        }
    }
    let routes = |services: &[ServiceSpec]| -> Vec<String> {
        let mut routes: Vec<String> = services.iter().map(|service| service.route.clone()).collect();
        routes.sort_unstable();
        routes
    };
    let (before, after) = (routes(services), routes(&next.services));
    (before != after).then(|| {
        format!("services have other routes: found {}, expected {}", listed(&after), listed(&before))
    })
}

/// The configuration without what concerns only code, and only the next reload.
fn apart_from_modules(config: &Config) -> Config {
    let mut config = config.clone();
    config.modules.clear();
    config.reload.mode = aegis_config::ReloadMode::Rolling;
    config
}

/// What is different about a model beyond its code and its descriptions.
fn different(before: &ModelSpec, after: &ModelSpec) -> Option<&'static str> {
    if before.endpoint != after.endpoint {
        return Some("its endpoint is another");
    }
    if before.datasource != after.datasource {
        return Some("its documents are kept elsewhere");
    }
    let plain = |spec: &ModelSpec| {
        let mut fields = spec.fields.clone();
        fields.values_mut().for_each(|field| field.description = None);
        fields
    };
    // The order counts too: mistakes are told in it.
    let (fields, others) = (plain(before), plain(after));
    if !fields.iter().eq(others.iter()) {
        return Some("its fields or their rules are others");
    }
    let bare = |spec: &ModelSpec| {
        let mut spec = ModelSpec { description: None, code: None, trial: None, ..spec.clone() };
        spec.fields.clear();
        spec.commands.clear();
        spec
    };
    (bare(before) != bare(after)).then_some("what holds for its documents is different")
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        count if count > NAMES_SHOWN_MAX => format!("{shown} and {} more", count - NAMES_SHOWN_MAX),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use aegis_domain::{
        code::{CodeLimits, CodeSpec, CommandEffect, CommandPlace, CommandSpec, HookSet},
        service::{Wasi, usual_limits},
        spec::{Datasource, FieldKind, IfMatch},
    };

    use super::*;
    use crate::data::tests::{catalog, config};

    const TODO: &str =
        "name = \"todo\"\n[fields]\ntext = { kind = \"text\", description = \"x\" }\nn = \"integer\"\n";

    fn specs() -> Vec<ModelSpec> {
        let catalog = catalog(&[TODO, "name = \"order\"\n"]);
        catalog.models().iter().map(|model| model.spec().clone()).collect()
    }

    fn code(digest: &str) -> CodeSpec {
        CodeSpec {
            module: "todo".to_owned(),
            version: "1.0.0".to_owned(),
            built_with: String::new(),
            digest: digest.to_owned(),
            hooks: HookSet::default(),
            limits: CodeLimits::default(),
            settings: serde_json::json!({}),
            grants: aegis_domain::code::Grants::default(),
            routes: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    fn service(route: &str, digest: &str) -> ServiceSpec {
        let (name, limits) = ("hello".to_owned(), usual_limits());
        let (route, digest) = (route.to_owned(), digest.to_owned());
        ServiceSpec { name, route, digest, limits, http: Vec::new(), wasi: Wasi::V02 }
    }

    fn offer(change: impl FnOnce(&mut Config, &mut Vec<ModelSpec>, &mut Vec<ServiceSpec>)) -> Offer {
        let (mut config, mut specs, mut services) = (config(), specs(), vec![service("/hello", "a")]);
        change(&mut config, &mut specs, &mut services);
        let catalog = Arc::new(Catalog::build(specs).unwrap());
        Offer {
            config,
            digest: String::new(),
            catalog,
            services,
            members: Vec::new(),
            code: Vec::new(),
            gate: None,
        }
    }

    fn told(change: impl FnOnce(&mut Config, &mut Vec<ModelSpec>, &mut Vec<ServiceSpec>)) -> Option<String> {
        let present = offer(|_, _, _| ());
        obstacle((&present.config, &present.catalog, &present.services), &offer(change))
    }

    #[test]
    fn code_and_what_is_said_about_it_can_be_exchanged() {
        let command = CommandSpec {
            description: None,
            arguments: None,
            effect: CommandEffect::Answers,
            place: CommandPlace::Io,
            allow: Vec::new(),
            disabled: false,
        };
        assert_eq!(told(|_, _, _| ()), None);
        assert_eq!(told(|_, specs, _| specs[0].code = Some(code("a"))), None);
        let with_command = |specs: &mut Vec<ModelSpec>| {
            specs[0].code = Some(code("a"));
            specs[0].commands.insert("go".to_owned(), command);
        };
        assert_eq!(told(|_, specs, _| with_command(specs)), None);
        assert_eq!(told(|_, specs, _| specs[0].description = Some("better".to_owned())), None);
        assert_eq!(told(|_, specs, _| specs[0].fields[0].description = None), None);
        assert_eq!(told(|_, specs, _| specs.swap(0, 1)), None);
        assert_eq!(told(|_, _, services| services[0].digest = "b".to_owned()), None);
        assert_eq!(told(|_, _, services| services[0].limits.instances_max = 1), None);
        assert_eq!(
            told(|config, _, _| drop(config.modules.insert("todo".to_owned(), Default::default()))),
            None
        );
        assert_eq!(told(|config, _, _| config.reload.mode = aegis_config::ReloadMode::Swap), None);
    }

    #[test]
    fn everything_else_needs_another_process() {
        let reasons = [
            told(|config, _, _| config.limits.connections_max += 1),
            told(|_, specs, _| drop(specs.pop())),
            told(|_, specs, _| specs[0].endpoint = "others".to_owned()),
            told(|_, specs, _| specs[0].datasource = Some(Datasource::Memory)),
            told(|_, specs, _| specs[0].fields[0].indexed = true),
            told(|_, specs, _| specs[0].fields[1].kind = FieldKind::Decimal),
            told(|_, specs, _| specs[0].fields.swap_indices(0, 1)),
            told(|_, specs, _| specs[0].if_match = IfMatch::Required),
            told(|_, specs, _| specs[0].cache_documents_max = Some(7)),
            told(|_, _, services| services[0].route = "/bye".to_owned()),
            told(|_, _, services| services.clear()),
        ];
        let reasons: Vec<String> = reasons.map(|reason| reason.expect("an obstacle")).into();
        insta::assert_snapshot!(reasons.join("\n"));
    }
}
