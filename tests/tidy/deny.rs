//! What `deny.toml` says is so: who may name which crate, licences, sources. `cargo deny check` reads the same file and would
//! say the same; nobody needs to have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use cargo_metadata::{CargoOpt, Metadata, Package, PackageId};
use serde::Deserialize;

use crate::{command, root};

/// The registry that cargo knows by itself.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Words of one licence expression.
const WORDS_MAX: usize = 64;

/// The file. What is not known here would not be enforced, so it is a mistake.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    all_features: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// The only packages that may depend on it.
    #[serde(default)]
    wrappers: BTreeSet<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
}

fn rules() -> Rules {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    toml::from_str(&text).unwrap_or_else(|error| panic!("deny.toml: {error}"))
}

fn metadata() -> Metadata {
    assert!(rules().graph.all_features, "what no feature brings in is not looked at");
    command().features(CargoOpt::AllFeatures).exec().unwrap()
}

/// Names of the packages that depend directly on each one.
fn dependents(metadata: &Metadata) -> BTreeMap<&str, BTreeSet<&str>> {
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut dependents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in &metadata.resolve.as_ref().unwrap().nodes {
        for dependency in &node.deps {
            dependents.entry(names[&dependency.pkg]).or_default().insert(names[&node.id]);
        }
    }
    dependents
}

#[test]
fn crates_are_named_by_their_owners_only() {
    let (rules, metadata) = (rules(), metadata());
    assert_eq!(rules.bans.multiple_versions, "warn", "anything else is not enforced here");
    let dependents = dependents(&metadata);
    let mut wrong = Vec::new();
    for Ban { name, wrappers, reason } in &rules.bans.deny {
        let present = metadata.packages.iter().any(|package| package.name == *name);
        if wrappers.is_empty() && present {
            wrong.push(format!("{name} is there: {reason}"));
        }
        let found = dependents.get(name.as_str()).cloned().unwrap_or_default();
        let strangers = found.iter().filter(|found| !wrappers.contains(**found));
        wrong.extend(strangers.map(|found| format!("{found} names {name}: {reason}")));
        let idle = wrappers.iter().filter(|owner| !found.contains(owner.as_str()));
        wrong.extend(idle.map(|owner| format!("{owner} may name {name} and does not")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_has_a_licence_that_is_allowed() {
    let allowed = rules().licenses.allow;
    let judge = |package: &Package| match &package.license {
        None => Some(format!("{} has no licence", package.name)),
        Some(expression) => match is_allowed(expression, &allowed) {
            Ok(true) => None,
            Ok(false) => Some(format!("{}: {expression}", package.name)),
            Err(mistake) => Some(format!("{}: {expression}: {mistake}", package.name)),
        },
    };
    let wrong: Vec<String> = metadata().packages.iter().filter_map(judge).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let (sources, metadata) = (rules().sources, metadata());
    assert_eq!((sources.unknown_registry.as_str(), sources.unknown_git.as_str()), ("deny", "deny"));
    let foreign = metadata.packages.iter().filter(|package| match &package.source {
        Some(source) => source.repr != REGISTRY,
        None => !metadata.workspace_members.contains(&package.id),
    });
    let wrong: Vec<String> = foreign.map(|package| package.id.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a licence expression of SPDX holds with nothing but `allowed` licences: `OR` needs one side, `AND` needs both and
/// binds tighter. A `/`, as older packages have it, is an `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.len() > WORDS_MAX {
        return Err(format!("{} words, at most {WORDS_MAX}", words.len()));
    }
    let mut licence = Licence { words: &words, allowed };
    let is_allowed = licence.any()?;
    match licence.words {
        [] => Ok(is_allowed),
        [word, ..] => Err(format!("found {word}, expected the end")),
    }
}

/// What is left of a licence expression.
struct Licence<'a> {
    words: &'a [&'a str],
    allowed: &'a BTreeSet<String>,
}

impl<'a> Licence<'a> {
    fn any(&mut self) -> Result<bool, String> {
        let mut holds = self.all()?;
        while self.takes("OR") {
            holds |= self.all()?;
        }
        Ok(holds)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut holds = self.one()?;
        while self.takes("AND") {
            holds &= self.one()?;
        }
        Ok(holds)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.takes("(") {
            let holds = self.any()?;
            return if self.takes(")") { Ok(holds) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let mut name = self.name()?.to_owned();
        if self.takes("WITH") {
            name = format!("{name} WITH {}", self.name()?);
        }
        Ok(self.allowed.contains(&name))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match *self.words {
            [word, ref rest @ ..] if !["OR", "AND", "WITH", "(", ")"].contains(&word) => {
                self.words = rest;
                Ok(word)
            }
            ref words => Err(format!("found {:?}, expected a licence", words.first())),
        }
    }

    fn takes(&mut self, wanted: &str) -> bool {
        match *self.words {
            [word, ref rest @ ..] if word == wanted => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    let judge = |expression: &str| is_allowed(expression, &allowed);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
        "GPL-3.0 AND ISC OR MIT",
        "(GPL-3.0 OR MIT) AND (ISC)",
    ] {
        assert_eq!(judge(good), Ok(true), "{good}");
    }
    for bad in
        ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "MIT WITH LLVM-exception", "(GPL-3.0 OR MIT) AND Zlib"]
    {
        assert_eq!(judge(bad), Ok(false), "{bad}");
    }
    let long = vec!["MIT"; WORDS_MAX].join(" OR ");
    for nonsense in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "OR MIT", "MIT WITH", &long] {
        assert!(judge(nonsense).is_err(), "{nonsense}");
    }
}
