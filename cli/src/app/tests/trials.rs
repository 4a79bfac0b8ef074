//! Another version of one module, beside the one in force.

use aegis_domain::trial::Trial;
use aegis_guests::{Guest, splice};
use aegis_ipc::deploy::{Member, Order, Supply, TrialStep};
use serde_json::json;

use super::*;

const NOW_S: i64 = 1_700_000_000;

fn stamping(version: &str) -> Vec<u8> {
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    Guest::model(spec)
        .info("note", version)
        .hook("on-create", splice("input", &format!("\"by\":\"{version}\"")))
        .build()
}

/// A generation, sealed.
struct Sealed {
    base: OwnedFd,
    bundle: Bundle,
}

impl Sealed {
    fn of(bundle: &Bundle, code: Vec<aegis_ipc::bundle::Code>) -> Self {
        let base = bundle.seal_with(code).unwrap();
        Self { bundle: Bundle::read(&base).unwrap(), base }
    }

    fn model(&self) -> ModelSpec {
        catalog::decode(&self.bundle.catalog).unwrap().remove(0)
    }

    fn member(&self) -> &Member {
        &self.bundle.modules[0]
    }

    fn step(&self, trial: Option<TrialStep>, supply: Supply) -> Result<Self, String> {
        let order = Order { module: "a".to_owned(), supply, sha256: None, force: false, mode: None, trial };
        let made = Compilation::quiet(Keep::InDataFolder, |compilation| {
            deploy(&order, &self.base, compilation, NOW_S)
        });
        match made {
            Ok(Made { bundle, code, .. }) => Ok(Self::of(&bundle, code)),
            Err(Refusal::Mistakes(lines) | Refusal::Incompatible(lines)) => Err(lines.join("\n")),
        }
    }
}

fn share(percent: u8) -> Option<TrialStep> {
    Some(TrialStep::Share(percent))
}

fn abort() -> Option<TrialStep> {
    Some(TrialStep::Abort { reason: None })
}

/// An app with one component, its generation, and a file with the next version.
fn one_component() -> (Folder, Sealed, Supply) {
    let folder = Folder::new();
    folder.write("modules/a/a.wasm", stamping("1.0.0"));
    let App { bundle, code, .. } = folder.load().unwrap();
    folder.write("next.wasm", stamping("2.0.0"));
    let next = Supply::File(folder.path().join("next.wasm"));
    (folder, Sealed::of(&bundle, code), next)
}

/// What the supervisor writes when the generation comes into force.
fn keep_records(folder: &Folder, sealed: &Sealed) {
    let modules: Vec<_> = sealed.bundle.modules.iter().filter(|member| member.is_deployed()).collect();
    let records = json!({"format": 1, "modules": modules});
    folder.write("data/deployments/records.json", records.to_string());
}

#[test]
fn a_trial_begins_changes_and_ends_and_leaves_nothing() {
    let (_folder, before, next) = one_component();
    let begun = before.step(share(20), next.clone()).unwrap();
    let (current, model) = (before.model().code.unwrap(), begun.model());
    let Trial { share_percent, code } = model.trial.clone().unwrap();
    assert_eq!((share_percent, code.version.as_str()), (20, "2.0.0"));
    assert_eq!(ModelSpec { trial: None, ..model }, before.model(), "what is in force stays as it is");
    let tried = begun.member().trial.clone().unwrap();
    assert_eq!((&tried.deployed.sha256, &tried.current_sha256), (&code.digest, &current.digest));
    assert_eq!(begun.bundle.code.len(), 2);
    assert!(begun.bundle.place_of(&code.digest).is_some());
    let changed = begun.step(share(50), Supply::App).unwrap();
    assert_eq!(changed.model().trial, Some(Trial { share_percent: 50, code }));
    let same = begun.step(share(50), next).unwrap();
    assert_eq!(same.bundle.digest, changed.bundle.digest, "the same version again is another share");
    let ended = changed.step(abort(), Supply::App).unwrap();
    assert_eq!((ended.bundle.digest, ended.bundle.modules), (before.bundle.digest, before.bundle.modules));
    assert_eq!(ended.bundle.code.len(), 1);
}

#[test]
fn a_promoted_version_is_as_if_it_had_been_deployed_although_its_file_is_gone() {
    let (folder, before, next) = one_component();
    let deployed = before.step(None, next.clone()).unwrap();
    let begun = before.step(share(20), next).unwrap();
    fs::remove_file(folder.path().join("next.wasm")).unwrap();
    let promoted = begun.step(Some(TrialStep::Promote), Supply::App).unwrap();
    assert_eq!(promoted.bundle, deployed.bundle);
    assert_eq!(promoted.member().trial, None);
}

#[test]
fn a_reload_makes_the_same_of_a_trial_unless_the_app_has_come_to_something_else() {
    let (folder, before, next) = one_component();
    let begun = before.step(share(20), next).unwrap();
    keep_records(&folder, &begun);
    let App { bundle, warnings, .. } = folder.load().unwrap();
    assert_eq!(bundle.digest, begun.bundle.digest);
    assert!(warnings[0].starts_with("modules.a: 20 % of the users get version 2.0.0 ("), "{warnings:?}");
    folder.write("modules/a/a.wasm", stamping("1.1.0"));
    let mended = folder.load().unwrap();
    assert_eq!(mended.bundle.modules[0].trial.as_ref().unwrap().current_version, "1.1.0");
    folder.write("modules/a/a.wasm", stamping("2.0.0"));
    let arrived = folder.load().unwrap();
    assert_eq!((&arrived.bundle.modules[0].trial, &arrived.models[0].trial), (&None, &None));
    assert!(arrived.warnings.iter().any(|warning| warning.contains("so the trial is over")));
    let moved = json!({"name": "note", "endpoint": "others", "version": "3.0.0"});
    folder.write("modules/a/a.wasm", Guest::model(moved).build());
    let mistakes = folder.load().unwrap_err().lines.join("\n");
    assert!(mistakes.contains("modules.a: endpoint: found notes, expected others"), "{mistakes}");
    assert!(mistakes.contains("`aegis deploy a --abort` ends the trial"), "{mistakes}");
    fs::remove_dir_all(folder.path().join("modules/a")).unwrap();
    let mistakes = folder.load().unwrap_err().lines.join("\n");
    assert!(mistakes.contains("modules.a: found no module of that name"), "{mistakes}");
}

#[test]
fn a_reload_that_nobody_asked_for_goes_on_trying_what_the_app_has_by_then() {
    let (folder, before, next) = one_component();
    let begun = before.step(share(20), next).unwrap();
    keep_records(&folder, &begun);
    folder.write("modules/a/a.wasm", stamping("2.0.0"));
    let load = |in_force| {
        let compilation = Compilation { keep: Keep::InDataFolder, begins: &mut |_, _| {}, in_force };
        load_app(folder.path(), &Overrides::default(), &Environment::new(), compilation).unwrap()
    };
    let App { bundle, code, warnings, .. } = load(Some(&begun.base));
    let untouched = Sealed::of(&bundle, code);
    assert_eq!(untouched.bundle.digest, begun.bundle.digest, "there is nothing to do");
    assert_eq!((untouched.model(), untouched.member()), (begun.model(), begun.member()));
    for place in &begun.bundle.code {
        let after = untouched.bundle.place_of(&place.digest).unwrap();
        let code = |base, place| Bundle::read_code(base, place).unwrap();
        assert!(code(&untouched.base, after) == code(&begun.base, place));
    }
    assert!(warnings.iter().any(|warning| warning.contains("so it goes on being tried")), "{warnings:?}");
    folder.write("modules/b/module.toml", NOTE.replace("note", "other"));
    let beside = load(Some(&begun.base));
    assert_eq!(beside.bundle.modules[0], *begun.member());
    assert_eq!(beside.models[1].name.as_str(), "OTHER", "all else is taken up");
    assert_eq!(load(None).bundle.modules[0].trial, None, "whoever asks for it gets it");
    folder.write("aegis.toml", "[modules.a.limits]\ninstances = 3\n");
    let compilation =
        Compilation { keep: Keep::InDataFolder, begins: &mut |_, _| {}, in_force: Some(&begun.base) };
    let refused =
        load_app(folder.path(), &Overrides::default(), &Environment::new(), compilation).unwrap_err();
    assert!(
        refused.lines[0].contains("`aegis reload` has to say so"),
        "what is in force is no longer allowed: {refused:?}"
    );
}
