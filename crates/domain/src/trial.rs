//! Trials: a new version of a model's code that gets a share of the requests, beside the one in force.
//!
//! Which of the two carries a request out depends on a key alone: who has the same key gets the same version, in every
//! worker and for as long as the trial has the same share. When the share grows, nobody falls back to the old one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    code::CodeSpec,
    compatibility,
    spec::{Datasource, ModelSpec},
};

/// The whole, in which shares are counted.
const WHOLE_PERCENT: u64 = 100;

/// A version of the code that is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// How many of a hundred keys it gets, 1 to 99.
    pub share_percent: u8,
    /// The version. It has no trial of its own.
    pub code: Box<CodeSpec>,
}

/// Which version of the code carries a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The one in force.
    Current,
    /// The one that is tried.
    Trial,
}

impl Variant {
    /// As clients write and read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Trial => "trial",
        }
    }

    /// What a client writes who wants a certain one.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Current, Self::Trial].into_iter().find(|variant| variant.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            format!("found {shown:?}, expected current or trial")
        })
    }
}

/// What decides for a request, and for all that it leads to, which versions carry it out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lot {
    /// Who asks, as far as the client says; otherwise each request has a key of its own: its id.
    pub user: Option<Arc<str>>,
    /// The version that the client wants, whatever its key is.
    pub wanted: Option<Variant>,
}

impl Lot {
    /// That of what the host does by itself: nothing is tried on it.
    #[must_use]
    pub fn current() -> Self {
        Self { user: None, wanted: Some(Variant::Current) }
    }

    /// The version of a model's code for a request with this id.
    #[must_use]
    pub fn draw(&self, model: &ModelSpec, request_id: &str) -> Variant {
        let Some(trial) = &model.trial else { return Variant::Current };
        let key = self.user.as_deref().unwrap_or(request_id);
        self.wanted.unwrap_or_else(|| trial.choose(model.name.as_str(), key))
    }
}

/// Whether a number is a share that a trial can have.
///
/// # Errors
/// What was found and what is expected.
pub fn check_share(percent: u64) -> Result<u8, String> {
    match u8::try_from(percent) {
        Ok(share) if (1..100).contains(&share) => Ok(share),
        _ => Err(format!("found {percent}, expected a share of 1 to 99 percent")),
    }
}

impl Trial {
    /// The version for a key. Keys of different models have nothing to do with each other.
    #[must_use]
    pub fn choose(&self, model: &str, key: &str) -> Variant {
        if place(model, key) < u64::from(self.share_percent) { Variant::Trial } else { Variant::Current }
    }
}

/// Where on the line from 0 to 100 a key stands.
fn place(model: &str, key: &str) -> u64 {
    let hash = xxh3_64(format!("{model}\0{key}").as_bytes());
    // The upper half of the product is as even as the hash is.
    let scaled = (u128::from(hash) * u128::from(WHOLE_PERCENT)) >> u64::BITS;
    u64::try_from(scaled).unwrap_or(WHOLE_PERCENT)
}

/// Everything that a version which is to be tried says otherwise than the one in force, one sentence each as
/// `key path: found X, expected Y`. Empty when only code is different, and words for people.
///
/// This is more than what [`compatibility::breaking`] tells: clients of one version must not notice the other one, and what
/// is stored by one must be as good for the other.
#[must_use]
pub fn differences(current: &ModelSpec, tried: &ModelSpec) -> Vec<String> {
    let same_place = ModelSpec { datasource: current.datasource, ..tried.clone() };
    let mut told = compatibility::breaking(current, &same_place, Datasource::File);
    let mut report = |key: &str, is_same: bool| {
        let begins = |line: &String| line.starts_with(key) && line[key.len()..].starts_with([':', '.']);
        if !is_same && !told.iter().any(begins) {
            told.push(format!("{key}: found others, expected those of the version in force"));
        }
    };
    let (before, after) = (plain(current), plain(tried));
    // The order counts too: mistakes are told in it.
    report("fields", before.fields.iter().eq(after.fields.iter()));
    report("datasource", before.datasource == after.datasource);
    report("commands", before.commands == after.commands);
    let told_of = |spec: &ModelSpec| {
        spec.code.as_ref().map(|code| (code.hooks, code.routes.clone(), code.subscriptions.clone()))
    };
    if let (Some(before), Some(after)) = (told_of(current), told_of(tried)) {
        report("hooks", before.0 == after.0);
        report("routes", before.1 == after.1);
        report("subscriptions", before.2 == after.2);
    }
    let rest = |spec: ModelSpec| ModelSpec {
        fields: Default::default(),
        commands: Default::default(),
        code: None,
        trial: None,
        ..spec
    };
    if told.is_empty() && rest(before) != rest(after) {
        told.push(
            "model: found other rules for its documents, expected those of the version in force".to_owned(),
        );
    }
    told
}

/// A specification without words for people.
fn plain(spec: &ModelSpec) -> ModelSpec {
    let mut spec = ModelSpec { description: None, ..spec.clone() };
    spec.fields.values_mut().for_each(|field| field.description = None);
    spec.commands.values_mut().for_each(|command| command.description = None);
    spec
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::{CodeLimits, Grants, HookSet};

    /// Code without anything.
    pub(crate) fn code() -> CodeSpec {
        CodeSpec {
            module: "order".to_owned(),
            version: "2.0.0".to_owned(),
            built_with: String::new(),
            digest: String::new(),
            hooks: HookSet::default(),
            limits: CodeLimits::default(),
            settings: serde_json::json!({}),
            grants: Grants::default(),
            routes: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    fn trial(share_percent: u8) -> Trial {
        Trial { share_percent, code: Box::new(code()) }
    }

    #[test]
    fn of_ten_thousand_keys_the_trial_gets_its_share() {
        for share in [1, 5, 10, 20, 50, 80, 99] {
            let trial = trial(share);
            let tried =
                (0..10_000).filter(|n| trial.choose("ORDER", &n.to_string()) == Variant::Trial).count();
            let wanted = usize::from(share) * 100;
            assert!(tried.abs_diff(wanted) <= 200, "{share} percent: found {tried}, expected {wanted} ± 200");
        }
    }

    proptest! {
        #[test]
        fn a_key_has_one_version_and_keeps_it_while_the_share_grows(key in ".{0,40}", share in 1_u8..99) {
            let chosen = trial(share).choose("ORDER", &key);
            prop_assert_eq!(chosen, trial(share).choose("ORDER", &key));
            if chosen == Variant::Trial {
                prop_assert_eq!(trial(share + 1).choose("ORDER", &key), Variant::Trial);
            }
        }
    }

    #[test]
    fn keys_of_one_model_are_not_those_of_another() {
        let trial = trial(50);
        let same = (0..1_000).filter(|n| {
            let key = n.to_string();
            trial.choose("ORDER", &key) == trial.choose("CUSTOMER", &key)
        });
        assert!((400..600).contains(&same.count()));
    }

    #[test]
    fn shares_and_names_are_checked() {
        assert_eq!(check_share(20), Ok(20));
        for wrong in [0, 100, 101, 300] {
            check_share(wrong).unwrap_err();
        }
        assert_eq!(Variant::parse("trial"), Ok(Variant::Trial));
        assert_eq!(Variant::parse("Trial").unwrap_err(), "found \"Trial\", expected current or trial");
    }

    fn spec(share_percent: u8) -> ModelSpec {
        let text = "name = \"order\"\n[fields]\na = \"text\"\nb = \"integer\"\n";
        let mut spec = crate::module::parse(text, "module.toml").unwrap();
        let Trial { code, .. } = trial(1);
        spec.code = Some(*code);
        spec.trial = (share_percent > 0).then(|| trial(share_percent));
        spec
    }

    #[test]
    fn a_user_or_else_the_request_decides_and_who_asks_for_a_version_gets_it() {
        let (spec, without) = (spec(50), spec(0));
        let lot = |user: &str| Lot { user: Some(user.into()), wanted: None };
        for number in 0..100 {
            let key = number.to_string();
            let of_user = lot(&key).draw(&spec, "r");
            assert_eq!(of_user, lot(&key).draw(&spec, "another"));
            assert_eq!(of_user, Lot::default().draw(&spec, &key));
            let wanted = Lot { wanted: Some(Variant::Trial), ..lot(&key) };
            assert_eq!(wanted.draw(&spec, "r"), Variant::Trial);
            assert_eq!(wanted.draw(&without, "r"), Variant::Current, "without a trial there is one version");
            assert_eq!(Lot::current().draw(&spec, &key), Variant::Current);
        }
    }

    #[test]
    fn what_is_tried_may_differ_in_code_and_words_only() {
        let current = spec(0);
        let told = |change: fn(&mut ModelSpec)| {
            let mut tried = current.clone();
            change(&mut tried);
            differences(&current, &tried).join("; ")
        };
        let allowed: [fn(&mut ModelSpec); 3] = [
            |spec| spec.code.as_mut().unwrap().digest = "b".to_owned(),
            |spec| spec.code.as_mut().unwrap().limits.instances_max = 1,
            |spec| spec.fields[0].description = Some("better".to_owned()),
        ];
        assert_eq!(allowed.map(told), ["", "", ""]);
        let refused: [fn(&mut ModelSpec); 7] = [
            |spec| spec.endpoint = "others".to_owned(),
            |spec| drop(spec.fields.pop()),
            |spec| spec.fields[0].indexed = true,
            |spec| spec.fields.swap_indices(0, 1),
            |spec| spec.cache_documents_max = Some(7),
            |spec| spec.code.as_mut().unwrap().hooks.load = true,
            |spec| {
                let pattern = crate::subscription::EventPattern::new("order.*").unwrap();
                spec.code.as_mut().unwrap().subscriptions.push(pattern);
            },
        ];
        insta::assert_snapshot!(refused.map(told).join("\n"), @r"
        endpoint: found others, expected orders
        fields.b: found nothing, expected the field
        fields: found others, expected those of the version in force
        fields: found others, expected those of the version in force
        model: found other rules for its documents, expected those of the version in force
        hooks: found others, expected those of the version in force
        subscriptions: found others, expected those of the version in force
        ");
    }
}
