//! What the contract can say and this host does not do yet: refused where a model would be another one without it, and told
//! as a warning where nothing but an effect is missing.

use crate::contract::{WitModelSpec, spec as wit};

/// Refuses what a model cannot go without.
pub(super) fn refuse(found: &WitModelSpec, mistakes: &mut Vec<String>) {
    let unserved = [
        ("ports", found.ports.len()),
        ("relations", found.relations.len()),
        ("serializers", found.serializers.len()),
    ];
    for (key, count) in unserved.into_iter().filter(|(_, count)| *count > 0) {
        mistakes.push(format!(
            "{key}: found {count}, expected none: this version of the host does not serve them yet"
        ));
    }
    if found.datasource.as_ref().is_some_and(|datasource| datasource.options.is_some()) {
        mistakes.push(
            "datasource.options: found some, expected none: datasources of this version of the host have none"
                .to_owned(),
        );
    }
    for extension in found.extensions.iter().filter(|extension| extension.key.ends_with('!')) {
        mistakes.push(format!("extensions: found {:?}, which must be understood and is not", extension.key));
    }
}

/// Refuses a rule of a mixin for some of what is stored: it would hold for all of it.
pub(super) fn refuse_moments(mixin: &wit::MixinSpec, key: &str, mistakes: &mut Vec<String>) {
    use wit::HookSet as Moments;
    let on = mixin.on;
    let is_never_asked = on.intersects(Moments::ON_DELETE | Moments::ON_LOAD);
    // What is frozen is so from the first version on: a new document has none before.
    let is_asked_for_all = on.contains(Moments::VALIDATE)
        || on.contains(Moments::ON_CREATE | Moments::ON_UPDATE)
        || (mixin.name == "freeze" && on.contains(Moments::ON_UPDATE));
    if on == Moments::empty() || (is_asked_for_all && !is_never_asked) {
        return;
    }
    let names = [
        (Moments::ON_CREATE, "on-create"),
        (Moments::VALIDATE, "validate"),
        (Moments::ON_UPDATE, "on-update"),
        (Moments::ON_DELETE, "on-delete"),
        (Moments::ON_LOAD, "on-load"),
    ];
    let found: Vec<_> =
        names.iter().filter(|(moment, _)| on.contains(*moment)).map(|(_, name)| *name).collect();
    mistakes.push(format!(
        "{key}.on: found {}, expected none, or on-create and on-update: in this version of the host a rule is about \
         whatever is stored",
        found.join(", ")
    ));
}

/// What has no effect, one sentence each.
pub(super) fn warnings(found: &WitModelSpec) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(domain) = &found.domain {
        told.push(format!("domain: found {domain:?}"));
    }
    if found.preload > 0 {
        told.push(format!("preload: found {}", found.preload));
    }
    if let Some(bytes) = found.datasource.as_ref().and_then(|datasource| datasource.cache_bytes) {
        told.push(format!("datasource.cache-bytes: found {bytes}"));
    }
    let unknown = found.extensions.iter().filter(|extension| !extension.key.ends_with('!'));
    told.extend(unknown.map(|extension| format!("extensions: found {:?}", extension.key)));
    told.iter()
        .map(|told| format!("{told}, which has no effect in this version of the host; ignored"))
        .collect()
}
