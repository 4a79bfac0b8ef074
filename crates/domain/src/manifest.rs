//! `aegis.module.json`: what an author says about a component without running it.
//!
//! The host believes the component about what it is; the manifest says what the component must look like (size, digest),
//! what it would like to use, and which settings it has when the operator says nothing.

use serde_json::{Map, Value};

use crate::{json, service::check_route, suggest};

/// Bytes of one manifest.
pub const MANIFEST_BYTES_MAX: usize = 256 * 1024;
/// The only format there is.
const SCHEMA: &str = "aegis.module/1";
/// Mistakes and warnings told about one manifest.
const TOLD_MAX: usize = 100;
/// Characters of a SHA-256 in hexadecimal.
const DIGEST_CHARACTERS: usize = 64;
/// The contract with module authors, without its minor version.
const CONTRACT: &str = "aegis:module@1";

/// Keys of the outermost object, those that have an effect first.
const KEYS: [&str; 17] = [
    "schema",
    "name",
    "version",
    "kind",
    "route",
    "abi",
    "component",
    "needs",
    "limits",
    "instances",
    "config",
    "debug",
    "layers",
    "reload",
    "requires",
    "build",
    "signatures",
];
/// Keys that are known and have no effect in this version.
const UNUSED: [&str; 6] = ["debug", "layers", "reload", "requires", "build", "signatures"];
/// Kinds of modules that are known and not served yet.
const OTHER_KINDS: [&str; 2] = ["adapter", "service"];
/// Limits that are known and have no effect in this version.
const UNUSED_LIMITS: [&str; 2] = ["output", "log"];
/// Keys of `instances` that are known and have no effect in this version.
const UNUSED_INSTANCES: [&str; 4] = ["policy", "min", "max-idle", "per-request"];
/// What modules can ask for.
const CAPABILITIES: [&str; 5] = ["models", "http", "secrets", "events", "inference"];
/// Those that an operator can grant; of events what a model subscribes to.
const GRANTABLE: &[&str] = &["models", "http", "secrets", "events"];

/// What a manifest says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// Name that the author gives the module.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What the component is, if it says so.
    pub kind: Option<Kind>,
    /// The route of a service.
    pub route: Option<String>,
    /// The component that it is about.
    pub component: ComponentClaim,
    /// What the component asks for.
    pub needs: Vec<String>,
    /// What it may use: key path in the manifest, which limit, how much. How sizes and times are written is the business
    /// of the configuration.
    pub limits: Vec<Limit>,
    /// Settings when the operator says nothing.
    pub defaults: Map<String, Value>,
    /// What its author, or the operator, should know; each begins with a key path.
    pub warnings: Vec<String>,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model with code.
    Model,
    /// A service that answers HTTP requests itself.
    HttpService,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::HttpService => "http-service",
        }
    }
}

/// What a manifest says about the file with the component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentClaim {
    /// Name of the file, beside the manifest.
    pub path: Option<String>,
    /// SHA-256, hexadecimal, lower case.
    pub sha256: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
}

/// One limit as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Key path in the manifest.
    pub key: String,
    /// Which limit, as the configuration calls it.
    pub limit: &'static str,
    /// How much.
    pub text: String,
}

/// Reads a manifest.
///
/// # Errors
/// All mistakes at once, each as `key path: found X, expected Y`.
pub fn parse(bytes: &[u8]) -> Result<Manifest, Vec<String>> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(vec![format!("found {} bytes, expected at most {MANIFEST_BYTES_MAX}", bytes.len())]);
    }
    let object = match json::parse(bytes) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Err(vec![format!("found {}, expected an object", describe(&other))]),
        Err(problem) => return Err(vec![problem.detail]),
    };
    let mut reading = Reading { manifest: Manifest::default(), mistakes: Vec::new() };
    reading.read(object);
    reading.mistakes.truncate(TOLD_MAX);
    reading.manifest.warnings.truncate(TOLD_MAX);
    if reading.mistakes.is_empty() { Ok(reading.manifest) } else { Err(reading.mistakes) }
}

struct Reading {
    manifest: Manifest,
    mistakes: Vec<String>,
}

impl Reading {
    fn read(&mut self, mut object: Map<String, Value>) {
        let schema = object.shift_remove("schema");
        if schema.as_ref().and_then(Value::as_str) != Some(SCHEMA) {
            self.wrong("schema", &shown(schema.as_ref()), &format!("{SCHEMA:?}"));
        }
        self.read_kind(object.shift_remove("kind").as_ref());
        self.read_route(object.shift_remove("route"));
        self.read_abi(object.shift_remove("abi").as_ref());
        self.manifest.name = self.text(object.shift_remove("name"), "name");
        self.manifest.version = self.text(object.shift_remove("version"), "version");
        if let Some(component) = self.object(object.shift_remove("component"), "component") {
            self.read_component(component);
        }
        if let Some(needs) = self.object(object.shift_remove("needs"), "needs") {
            self.read_needs(&needs);
        }
        if let Some(limits) = self.object(object.shift_remove("limits"), "limits") {
            let known =
                ["memory", "deadline", "cpu-deadline", "payload"].map(|limit| (limit, limit)).to_vec();
            self.read_limits("limits", limits, &known, &UNUSED_LIMITS);
        }
        if let Some(instances) = self.object(object.shift_remove("instances"), "instances") {
            let known = [
                ("max", "instances"),
                ("max-invocations", "invocations"),
                ("max-concurrent", "concurrent"),
                ("on-module-failure", "on-module-failure"),
            ];
            self.read_limits("instances", instances, &known, &UNUSED_INSTANCES);
        }
        if let Some(config) = self.object(object.shift_remove("config"), "config") {
            self.read_config(config);
        }
        for key in object.keys() {
            if UNUSED.contains(&key.as_str()) {
                self.warn(key, "known, and has no effect in this version");
            } else if key.ends_with('!') {
                self.wrong(
                    key,
                    "a key that must be understood and is not",
                    "only keys that this version knows",
                );
            } else {
                let hint = suggest::similar(key, KEYS.into_iter());
                self.warn(key, &format!("unknown key, it has no effect{hint}"));
            }
        }
    }

    fn read_kind(&mut self, found: Option<&Value>) {
        match found.map(Value::as_str) {
            None => {}
            Some(Some("model")) => self.manifest.kind = Some(Kind::Model),
            Some(Some("http-service")) => self.manifest.kind = Some(Kind::HttpService),
            Some(Some(kind)) if OTHER_KINDS.contains(&kind) => {
                self.wrong(
                    "kind",
                    &format!("{kind:?}"),
                    "\"model\" or \"http-service\": this version serves no other kind yet",
                );
            }
            Some(_) => self.wrong("kind", &shown(found), "\"model\" or \"http-service\""),
        }
    }

    /// A route without a kind is that of a service: nothing else has one.
    fn read_route(&mut self, found: Option<Value>) {
        let Some(route) = self.text(found, "route") else { return };
        if self.manifest.kind == Some(Kind::Model) {
            self.warn("route", "only services have one, it has no effect");
        } else if let Err(message) = check_route(&route) {
            self.mistakes.push(format!("route: {message}"));
        }
        self.manifest.route = Some(route);
    }

    /// The minor version does not matter here: what the component really imports is looked at later.
    fn read_abi(&mut self, found: Option<&Value>) {
        let fits = |abi: &str| {
            abi.strip_prefix(CONTRACT).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if found.is_some() && !found.and_then(Value::as_str).is_some_and(fits) {
            self.wrong("abi", &shown(found), &format!("\"{CONTRACT}.0\" or a later {CONTRACT}"));
        }
    }

    fn read_component(&mut self, mut component: Map<String, Value>) {
        if let Some(path) = self.text(component.shift_remove("path"), "component.path") {
            let is_name = !path.contains(['/', '\\', '\0']) && !path.starts_with('.');
            if is_name && path.ends_with(".wasm") {
                self.manifest.component.path = Some(path);
            } else {
                let expected = "the name of a *.wasm file beside the manifest";
                self.wrong("component.path", &format!("{path:?}"), expected);
            }
        }
        if let Some(digest) = self.text(component.shift_remove("sha256"), "component.sha256") {
            let digest = digest.to_ascii_lowercase();
            if digest.len() == DIGEST_CHARACTERS && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                self.manifest.component.sha256 = Some(digest);
            } else {
                let expected = format!("{DIGEST_CHARACTERS} hexadecimal digits");
                self.wrong("component.sha256", &json::shorten(&digest), &expected);
            }
        }
        if let Some(size) = component.shift_remove("size") {
            self.manifest.component.size = size.as_u64();
            if size.as_u64().is_none() {
                self.wrong("component.size", &describe(&size), "a whole number of bytes");
            }
        }
        self.warn_of_unknown("component", &component);
    }

    /// Whatever is asked for is noted. Components call what they like; what is not granted answers `denied`.
    fn read_needs(&mut self, needs: &Map<String, Value>) {
        for key in needs.keys() {
            let path = format!("needs.{key}");
            if !CAPABILITIES.contains(&key.as_str()) {
                let hint = suggest::similar(key, CAPABILITIES.into_iter());
                self.warn(&path, &format!("unknown capability, it is not granted{hint}"));
            } else if !GRANTABLE.contains(&key.as_str()) {
                self.warn(&path, "this version cannot grant it yet, calls are answered `denied`");
            }
            self.manifest.needs.push(key.clone());
        }
    }

    fn read_limits(
        &mut self,
        section: &str,
        found: Map<String, Value>,
        known: &[(&'static str, &'static str)],
        unused: &[&str],
    ) {
        for (key, value) in found {
            let path = format!("{section}.{key}");
            if unused.contains(&key.as_str()) {
                self.warn(&path, "known, and has no effect in this version");
                continue;
            }
            let Some((_, limit)) = known.iter().find(|(name, _)| *name == key) else {
                let hint = suggest::similar(&key, known.iter().map(|(name, _)| *name));
                self.warn(&path, &format!("unknown key, it has no effect{hint}"));
                continue;
            };
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                other => {
                    self.wrong(&path, &describe(&other), "a text or a number");
                    continue;
                }
            };
            self.manifest.limits.push(Limit { key: path, limit, text });
        }
    }

    fn read_config(&mut self, mut config: Map<String, Value>) {
        if let Some(defaults) = self.object(config.shift_remove("defaults"), "config.defaults") {
            self.manifest.defaults = defaults;
        }
        if config.shift_remove("schema").is_some() {
            self.warn("config.schema", "known, and has no effect in this version");
        }
        self.warn_of_unknown("config", &config);
    }

    fn warn_of_unknown(&mut self, section: &str, rest: &Map<String, Value>) {
        for key in rest.keys() {
            self.warn(&format!("{section}.{key}"), "unknown key, it has no effect");
        }
    }

    fn text(&mut self, found: Option<Value>, key: &str) -> Option<String> {
        match found? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(key, &describe(&other), "a text");
                None
            }
        }
    }

    fn object(&mut self, found: Option<Value>, key: &str) -> Option<Map<String, Value>> {
        match found? {
            Value::Object(object) => Some(object),
            other => {
                self.wrong(key, &describe(&other), "an object");
                None
            }
        }
    }

    fn wrong(&mut self, key: &str, found: &str, expected: &str) {
        self.mistakes.push(format!("{}: found {found}, expected {expected}", json::shorten(key)));
    }

    fn warn(&mut self, key: &str, message: &str) {
        self.manifest.warnings.push(format!("{}: {message}", json::shorten(key)));
    }
}

fn shown(found: Option<&Value>) -> String {
    found.map_or_else(|| "nothing".to_owned(), describe)
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => json::shorten(&number.to_string()),
        Value::String(text) => format!("{:?}", json::shorten(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().join("\n")
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "the snapshot shows all there is")]
    fn the_whole_format_is_understood() {
        let text = format!(
            r#"{{ "schema": "aegis.module/1", "name": "orders/order", "version": "2.3.1", "kind": "model",
            "abi": "aegis:module@1.0",
            "component": {{ "path": "order.wasm", "sha256": "{}", "size": 181223 }},
            "debug": {{ "path": "order.debug.wasm" }}, "layers": [],
            "needs": {{ "http": ["api.example.com"], "models": {{ "customer": ["read"] }}, "inference": [], "gpu": true }},
            "limits": {{ "memory": "64MiB", "deadline": "250ms", "cpu-deadline": "5s", "payload": "1MiB", "log": "64KiB/s" }},
            "instances": {{ "policy": "pooled", "max": 8, "max-invocations": 10000, "max-concurrent": 4, "on-module-failure": "skip" }},
            "config": {{ "defaults": {{ "currency": "EUR" }}, "schema": {{}} }},
            "requires": [], "build": {{ "toolchain": "cargo" }} }}"#,
            "A1".repeat(32)
        );
        let manifest = parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.component.sha256.as_deref(), Some("a1".repeat(32).as_str()));
        insta::assert_debug_snapshot!(Manifest { component: ComponentClaim::default(), ..manifest }, @r#"
        Manifest {
            name: Some(
                "orders/order",
            ),
            version: Some(
                "2.3.1",
            ),
            kind: Some(
                Model,
            ),
            route: None,
            component: ComponentClaim {
                path: None,
                sha256: None,
                size: None,
            },
            needs: [
                "http",
                "models",
                "inference",
                "gpu",
            ],
            limits: [
                Limit {
                    key: "limits.memory",
                    limit: "memory",
                    text: "64MiB",
                },
                Limit {
                    key: "limits.deadline",
                    limit: "deadline",
                    text: "250ms",
                },
                Limit {
                    key: "limits.cpu-deadline",
                    limit: "cpu-deadline",
                    text: "5s",
                },
                Limit {
                    key: "limits.payload",
                    limit: "payload",
                    text: "1MiB",
                },
                Limit {
                    key: "instances.max",
                    limit: "instances",
                    text: "8",
                },
                Limit {
                    key: "instances.max-invocations",
                    limit: "invocations",
                    text: "10000",
                },
                Limit {
                    key: "instances.max-concurrent",
                    limit: "concurrent",
                    text: "4",
                },
                Limit {
                    key: "instances.on-module-failure",
                    limit: "on-module-failure",
                    text: "skip",
                },
            ],
            defaults: {
                "currency": String("EUR"),
            },
            warnings: [
                "needs.inference: this version cannot grant it yet, calls are answered `denied`",
                "needs.gpu: unknown capability, it is not granted",
                "limits.log: known, and has no effect in this version",
                "instances.policy: known, and has no effect in this version",
                "config.schema: known, and has no effect in this version",
                "debug: known, and has no effect in this version",
                "layers: known, and has no effect in this version",
                "requires: known, and has no effect in this version",
                "build: known, and has no effect in this version",
            ],
        }
        "#);
    }

    #[test]
    fn what_an_operator_can_grant_is_needed_without_a_warning() {
        let needs =
            r#""needs": { "models": {}, "http": [], "secrets": [], "events": ["CREATE*"], "inference": [] }"#;
        let manifest = parse(format!(r#"{{ "schema": "aegis.module/1", {needs} }}"#).as_bytes()).unwrap();
        assert_eq!(manifest.needs, ["models", "http", "secrets", "events", "inference"]);
        insta::assert_snapshot!(manifest.warnings.join("\n"), @"needs.inference: this version cannot grant it yet, calls are answered `denied`");
    }

    #[test]
    fn little_is_needed() {
        assert_eq!(parse(br#"{ "schema": "aegis.module/1" }"#).unwrap(), Manifest::default());
    }

    #[test]
    fn a_service_has_a_route() {
        let text = r#"{ "schema": "aegis.module/1", "kind": "http-service", "route": "/shop/cart" }"#;
        let manifest = parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.kind, manifest.route.as_deref()), (Some(Kind::HttpService), Some("/shop/cart")));
        let wrong = text.replace("/shop/cart", "shop");
        assert!(mistakes(&wrong).starts_with("route: found the route \"shop\", expected one like"));
    }

    #[test]
    fn mistakes_are_told_all_at_once() {
        insta::assert_snapshot!(mistakes(
            r#"{ "schema": "aegis.module/2", "kind": "adapter", "abi": "aegis:module@10.0", "name": 7,
            "component": { "path": "../x.wasm", "sha256": "abc", "size": -1 }, "limits": { "memory": [] },
            "config": { "defaults": [] }, "needs": "all", "sealed!": true }"#
        ), @r#"
        schema: found "aegis.module/2", expected "aegis.module/1"
        kind: found "adapter", expected "model" or "http-service": this version serves no other kind yet
        abi: found "aegis:module@10.0", expected "aegis:module@1.0" or a later aegis:module@1
        name: found 7, expected a text
        component.path: found "../x.wasm", expected the name of a *.wasm file beside the manifest
        component.sha256: found abc, expected 64 hexadecimal digits
        component.size: found -1, expected a whole number of bytes
        needs: found "all", expected an object
        limits.memory: found a list, expected a text or a number
        config.defaults: found a list, expected an object
        sealed!: found a key that must be understood and is not, expected only keys that this version knows
        "#);
        insta::assert_snapshot!(mistakes(r#"{ "schema": "aegis.module/1", "kind": "gadget" }"#), @r#"kind: found "gadget", expected "model" or "http-service""#);
        insta::assert_snapshot!(mistakes("[]"), @"found a list, expected an object");
        insta::assert_snapshot!(mistakes("{ \"a\": 1, \"a\": 2 }"), @r#"line 1, column 11: found the property "a" a second time, expected it once"#);
        assert!(parse(&vec![b' '; MANIFEST_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn unknown_keys_are_told_and_kept_out() {
        let text = r#"{ "schema": "aegis.module/1", "nmae": "x", "limits": { "memroy": "1MiB" } }"#;
        insta::assert_snapshot!(parse(text.as_bytes()).unwrap().warnings.join("\n"), @r#"
        limits.memroy: unknown key, it has no effect (did you mean "memory"?)
        nmae: unknown key, it has no effect (did you mean "name"?)
        "#);
    }
}
