//! From an app folder to a generation: configuration and modules, read and checked in one go.
//!
//! `aegis check` and the helpers `examine` and `compile` all come through here, so they can never disagree about what is
//! valid. Components are compiled on the way, so none of these processes goes on to live long.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::Path, time::Duration};

use aegis_config::{Config, Environment, Loaded, ModuleLines, Overrides, Trust};
use aegis_domain::{
    access, catalog,
    code::{CodeLimits, Grants},
    manifest::{ComponentClaim, Kind},
    service::{self, ServiceSpec},
    spec::ModelSpec,
    subscription::EventPattern,
};
use aegis_ipc::{
    IpcError,
    bundle::{BUNDLE_FORMAT, Bundle, Code},
    codec,
    deploy::Member,
};
use aegis_wasm::Terms;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod component;
mod declared;
mod deploy;
mod deployments;
mod depot;
mod files;
mod gate;
mod material;
mod modules;
mod restore;
mod secret;
mod signable;
mod source;
#[cfg(test)]
mod tests;
mod trial;
mod vanished;
mod workshop;

use deployments::Deployments;
use gate::Gate;
use modules::{Modules, Reading};
use source::{Sources, Times};
use workshop::{Output, Workshop};

pub(crate) use component::{Component, Read, Service};
pub(crate) use declared::declared;
pub(crate) use deploy::{Made, Refusal, deploy};
pub(crate) use files::read_text;
pub(crate) use restore::{find, last_good, restore};
pub(crate) use signable::{LoneModule, Signable, is_module_folder, load_module, signable};
pub(crate) use source::{Look, look};
pub(crate) use workshop::{Compilation, Keep};

/// A valid app.
#[derive(Debug)]
pub(crate) struct App {
    /// Its configuration.
    pub(crate) config: Config,
    /// Its models, in the order of their folders' names.
    pub(crate) models: Vec<ModelSpec>,
    /// Those that are components.
    pub(crate) components: Vec<Component>,
    /// Its services.
    pub(crate) services: Vec<Service>,
    /// All of it, pinned.
    pub(crate) bundle: Bundle,
    /// The code that goes into the bundle.
    pub(crate) code: Vec<Code>,
    /// What its operator should know, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Everything that is wrong with an app.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mistakes {
    /// One line each: where, what was found, what was expected.
    pub(crate) lines: Vec<String>,
    /// What is to blame.
    pub(crate) blame: Blame,
}

/// What a mistake is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Blame {
    /// Only in flags.
    CommandLine,
    /// In files or the environment.
    App,
}

/// Reads the app in `folder`. The same files, flags and variables make the same bundle, byte for byte.
pub(crate) fn load_app(
    folder: &Path,
    overrides: &Overrides,
    environment: &Environment,
    compilation: Compilation<'_>,
) -> Result<App, Mistakes> {
    let mut loaded = Config::load(folder, overrides, environment);
    let no_terms = BTreeMap::new();
    let (no_trust, no_lines) = (Trust::default(), ModuleLines::default());
    let lines = loaded.as_ref().map_or(&no_lines, |loaded| &loaded.module_lines);
    let (modules_dir, data_dir, api_root, terms, trust, probe_timeout) = match &loaded {
        Ok(Loaded { config, .. }) => (
            Some(config.modules_dir.clone()),
            Some(config.data_dir.as_path()),
            Some(config.api_root.as_str()),
            &config.modules,
            &config.trust,
            config.reload.probe_timeout,
        ),
        // Without terms there are no sources to fetch from.
        Err(errors) => {
            (errors.certain().modules_dir.clone(), None, None, &no_terms, &no_trust, Duration::ZERO)
        }
    };
    let gate = Gate::of(trust, data_dir, jiff::Timestamp::now().as_second());
    let mut sources = Sources::new(Times::within(probe_timeout), compilation.keep, data_dir);
    // Mistakes in modules are of interest even when the configuration is wrong.
    let mut workshop = Workshop::new(compilation, data_dir);
    let (deployed, damage) = Deployments::of(data_dir);
    let modules = modules_dir.as_ref().map(|modules_dir| {
        let (workshop, sources) = (&mut workshop, &mut sources);
        let (app_dir, deployed, gate) = (folder, &deployed, &gate);
        let reading = Reading {
            app_dir,
            modules_dir,
            api_root,
            terms,
            lines,
            workshop,
            sources,
            deployed,
            gate,
            trust,
        };
        Modules::read(reading)
    });
    let (mut modules, output) = (modules.unwrap_or_default(), workshop.finish());
    modules.mistakes.extend(damage);
    if let (Some(modules_dir), Some(data_dir), []) = (&modules_dir, data_dir, &modules.mistakes[..]) {
        modules.mistakes.extend(vanished::mistake(modules_dir, data_dir, &modules));
    }
    modules.warnings.extend(deployed.warnings());
    modules.warnings.extend(sources.finish());
    match &mut loaded {
        Ok(Loaded { config, .. }) => {
            modules.mistakes.extend(secret::read(&mut config.reload).err());
            modules.mistakes.extend(secret::read_auth(&mut config.auth).err());
            modules.mistakes.extend(secret::read_granted(config, environment));
            if !config.auth.enabled {
                modules.mistakes.extend(access::unguarded(&modules.specs));
            }
        }
        Err(errors) => modules.mistakes.extend(secret::look(errors.certain(), environment)),
    }
    match loaded {
        Ok(loaded) if modules.mistakes.is_empty() => assemble(loaded, modules, output),
        Ok(_) => Err(Mistakes { lines: modules.mistakes, blame: Blame::App }),
        Err(errors) => {
            let flags_only = errors.blames_only_flags() && modules.mistakes.is_empty();
            let blame = if flags_only { Blame::CommandLine } else { Blame::App };
            let lines = errors.lines().into_iter().chain(modules.mistakes).collect();
            Err(Mistakes { lines, blame })
        }
    }
}

/// Reads a component that is in no app.
pub(crate) fn load_component(path: &Path) -> Result<LoneModule, Mistakes> {
    let shown = path.display().to_string();
    let refuse = |lines| Mistakes { lines, blame: Blame::App };
    let (bytes, kind) = read_component(path, &shown)?;
    let length = bytes.len() as u64;
    if kind == Kind::HttpService {
        let prepared = Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
            Workshop::new(compilation, None).prepare_service(&shown, &bytes)
        });
        let located =
            |mistakes: Vec<String>| mistakes.iter().map(|mistake| format!("{shown}: {mistake}")).collect();
        let (digest, wasi) = prepared.map_err(|mistakes| refuse(located(mistakes)))?;
        let (name, route, limits) = (String::new(), String::new(), service::usual_limits());
        let spec = ServiceSpec { name, route, digest, limits, http: Vec::new(), wasi };
        let (needs, chosen, signed) = (Vec::new(), None, None);
        let read = Read::Service(Service { spec, bytes: length, needs, chosen, signed });
        return Ok(LoneModule { read, signers: Vec::new(), warnings: Vec::new() });
    }
    let terms = usual_terms(serde_json::json!({}));
    let (spec, warnings) = Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
        let mut workshop = Workshop::new(compilation, None);
        let spec = component::prepare(&shown, &bytes, terms, &mut workshop);
        (spec, workshop.finish().warnings)
    });
    let spec = spec.map_err(refuse)?;
    let model = spec.name.to_string();
    let (needs, chosen, signed) = (Vec::new(), None, None);
    let read = Read::Model(Box::new(spec), Component { model, bytes: length, needs, chosen, signed });
    Ok(LoneModule { read, signers: Vec::new(), warnings })
}

/// Reads a component that is in no app, and seals its code as that of a generation is.
pub(crate) fn seal_component(path: &Path, settings: Value) -> Result<(ModelSpec, OwnedFd), Mistakes> {
    let shown = path.display().to_string();
    let refuse = |lines| Mistakes { lines, blame: Blame::App };
    let (bytes, kind) = read_component(path, &shown)?;
    if kind == Kind::HttpService {
        let line =
            format!("{shown}: found a service over wasi:http, expected a model with commands or hooks");
        return Err(refuse(vec![line]));
    }
    Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
        let mut workshop = Workshop::new(compilation, None);
        let spec =
            component::prepare(&shown, &bytes, usual_terms(settings), &mut workshop).map_err(refuse)?;
        let Output { engine, code, .. } = workshop.finish();
        let (digest, config, catalog) = (String::new(), Vec::new(), Vec::new());
        let (code_places, modules) = (Vec::new(), Vec::new());
        let bundle =
            Bundle { format: BUNDLE_FORMAT, digest, engine, config, catalog, code: code_places, modules };
        let sealed = bundle.seal_with(code);
        let sealed = sealed.map_err(|error| refuse(vec![aegis_supervisor::with_causes(&error)]))?;
        Ok((spec, sealed))
    })
}

fn read_component(path: &Path, shown: &str) -> Result<(Vec<u8>, Kind), Mistakes> {
    let read = component::verified(path, &ComponentClaim::default())
        .and_then(|bytes| component::kind(&bytes, None).map(|kind| (bytes, kind)));
    read.map_err(|mistakes| Mistakes { lines: component::located(shown, &mistakes), blame: Blame::App })
}

/// Terms of a component about which no operator has said anything. Which events it may hear of is a matter of the app.
fn usual_terms(settings: Value) -> Terms {
    let grants = Grants { events: vec![EventPattern::any()], ..Grants::default() };
    Terms { settings, limits: CodeLimits::default(), grants }
}

fn assemble(loaded: Loaded, modules: Modules, output: Output) -> Result<App, Mistakes> {
    let Loaded { config, mut warnings, module_lines: _ } = loaded;
    let Output { engine, code, warnings: about_code } = output;
    let services = modules.service_specs();
    warnings.extend(modules.warnings.into_iter().chain(about_code));
    let refuse = |line: String| Mistakes { lines: vec![line], blame: Blame::App };
    let encoded = codec::encode(&config).map_err(|error| refuse(aegis_supervisor::with_causes(&error)))?;
    let catalog = catalog::encode_with(&modules.specs, &services);
    let bundle = Bundle {
        format: BUNDLE_FORMAT,
        digest: digest(&encoded, &catalog, &modules.roster)
            .map_err(|error| refuse(aegis_supervisor::with_causes(&error)))?,
        engine,
        config: encoded,
        catalog,
        code: Vec::new(),
        modules: modules.roster,
    };
    Ok(App {
        config,
        models: modules.specs,
        components: modules.components,
        services: modules.services,
        bundle,
        code,
        warnings,
    })
}

/// Who signed a module, and as what.
fn signature(module: &Member) -> Option<(&String, &Vec<String>, &String)> {
    module.signed.as_ref().map(|signed| (&module.name, &signed.keys, &signed.version))
}

/// Digest of a generation. The length in front keeps configuration and catalog apart. What was deployed belongs to it: where
/// a module comes from and who signed it is a difference, even if it is the same module.
fn digest(config: &[u8], catalog: &[u8], modules: &[Member]) -> Result<String, IpcError> {
    let mut hash = Sha256::new();
    hash.update((config.len() as u64).to_le_bytes());
    hash.update(config);
    hash.update(catalog);
    let mut deployed: Vec<_> =
        modules.iter().filter_map(|module| Some((&module.name, module.deployed.as_ref()?))).collect();
    if !deployed.is_empty() {
        deployed.sort_by_key(|(name, _)| *name);
        hash.update(codec::encode(&deployed)?);
    }
    let mut tried: Vec<_> =
        modules.iter().filter_map(|module| Some((&module.name, module.trial.as_ref()?))).collect();
    if !tried.is_empty() {
        tried.sort_by_key(|(name, _)| *name);
        hash.update(codec::encode(&tried)?);
    }
    let mut signed: Vec<_> = modules.iter().filter_map(signature).collect();
    if !signed.is_empty() {
        signed.sort();
        hash.update(codec::encode(&signed)?);
    }
    Ok(format!("{:x}", hash.finalize()))
}
