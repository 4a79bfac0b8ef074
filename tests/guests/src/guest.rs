//! The builder: from a specification and bodies to the bytes of a component.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{
    Function, Type,
    abi::{AbiVariant, WasmType},
};

use crate::{
    body::{self, Body},
    contract::{Changes, Contract, Leaf},
    documents,
    lower::{Segment, lower},
};

/// Where data begins in memory: nothing is at address 0.
const DATA_START: usize = 64;
/// Bytes of one page of linear memory.
const PAGE_BYTES: usize = 65_536;
/// Puts an address and a length somewhere.
const STORE_PAIR: &str = "(func $store_pair (param $place i32) (param $at i32) (param $length i32)
  (i32.store (local.get $place) (local.get $at))
  (i32.store (i32.add (local.get $place) (i32.const 4)) (local.get $length)))
";
/// What the name of the function begins with that gives a handle back.
const RESOURCE_DROP: &str = "[resource-drop]";
/// What the name of the function begins with that makes a handle of a resource of the guest's own.
const RESOURCE_NEW: &str = "[resource-new]";
/// Variables that bodies may use.
const FREE_LOCALS: &str = "(local $i i32) (local $j i32) (local $k i32) (local $n i64)";

/// A module for a test.
#[derive(Debug, Clone)]
pub struct Guest {
    spec: Value,
    information: Value,
    functions: BTreeMap<(String, String), Body>,
    interfaces: Vec<String>,
    commands: Vec<(String, Body)>,
    routes: Vec<(Value, Body)>,
    begins: Option<Body>,
    pages: usize,
    items: String,
    imports: Vec<(String, String)>,
    changes: Changes,
    is_checked: bool,
}

impl Guest {
    /// A model that says this of itself: the record `model-spec` as JSON. What is missing is empty; `hooks` and
    /// `commands` are those that the guest is given, unless they are there.
    #[must_use]
    pub fn model(spec: Value) -> Self {
        let name = spec["name"].clone();
        Self {
            information: json!({ "name": name, "version": "1.0.0", "built-with": "wat" }),
            spec,
            functions: BTreeMap::new(),
            interfaces: vec!["identity".to_owned(), "describe-model".to_owned()],
            commands: Vec::new(),
            routes: Vec::new(),
            begins: None,
            pages: 0,
            items: String::new(),
            imports: Vec::new(),
            changes: Changes::default(),
            is_checked: true,
        }
    }

    /// Who the module is.
    #[must_use]
    pub fn info(mut self, name: &str, version: &str) -> Self {
        self.information = json!({ "name": name, "version": version, "built-with": "wat" });
        self
    }

    /// What a hook does. The other hooks do what the host would do without them, or nothing.
    #[must_use]
    pub fn hook(self, name: &str, body: impl Into<Body>) -> Self {
        self.function("hooks", name, body)
    }

    /// What a command does.
    #[must_use]
    pub fn command(mut self, name: &str, body: impl Into<Body>) -> Self {
        self.commands.push((name.to_owned(), body.into()));
        self.export("commands")
    }

    /// What a custom route does: the record `route-spec` as JSON. Routes with the same pattern do what the first one does.
    #[must_use]
    pub fn route(mut self, spec: Value, body: impl Into<Body>) -> Self {
        self.routes.push((spec, body.into()));
        self.export("routes")
    }

    /// What all commands do that have no body of their own.
    #[must_use]
    pub fn command_body(self, body: impl Into<Body>) -> Self {
        self.function("commands", "run", body)
    }

    /// What a function of the life of an instance does: `init`, `reconfigure`, `drain`, `health`.
    #[must_use]
    pub fn lifecycle(self, name: &str, body: impl Into<Body>) -> Self {
        self.function("lifecycle", name, body)
    }

    /// What `describe` does instead of answering the specification.
    #[must_use]
    pub fn describe(self, body: impl Into<Body>) -> Self {
        self.function("describe-model", "describe", body)
    }

    /// What any function of an interface that is exported does.
    #[must_use]
    pub fn function(mut self, interface: &str, name: &str, body: impl Into<Body>) -> Self {
        self.functions.insert((interface.to_owned(), name.to_owned()), body.into());
        self.export(interface)
    }

    /// Exports an interface; its functions do nothing unless they are given bodies.
    #[must_use]
    pub fn export(mut self, interface: &str) -> Self {
        if !self.interfaces.iter().any(|one| one == interface) {
            self.interfaces.push(interface.to_owned());
        }
        self
    }

    /// Does not export an interface.
    #[must_use]
    pub fn without(mut self, interface: &str) -> Self {
        self.interfaces.retain(|one| one != interface);
        self
    }

    /// Imports a function, whether a body calls it or not.
    #[must_use]
    pub fn import(mut self, interface: &str, function: &str) -> Self {
        self.imports.push((interface.to_owned(), function.to_owned()));
        self
    }

    /// What happens when an instance is made. It leaves nothing on the stack.
    #[must_use]
    pub fn start(mut self, body: impl Into<Body>) -> Self {
        self.begins = Some(body.into());
        self
    }

    /// Pages of memory that it has from the beginning, 64 KiB each, if it needs no more.
    #[must_use]
    pub fn memory_pages(mut self, pages: usize) -> Self {
        self.pages = pages;
        self
    }

    /// Anything else in the core module: tables, globals, functions.
    #[must_use]
    pub fn item(mut self, wat: &str) -> Self {
        self.items.push_str(wat);
        self.items.push('\n');
        self
    }

    /// Was built for another version of the contract.
    #[must_use]
    pub fn contract_version(mut self, version: &str) -> Self {
        self.changes.version = Some(version.to_owned());
        self
    }

    /// Was built for a contract in which a text reads otherwise.
    #[must_use]
    pub fn contract_changed(mut self, from: &str, to: &str) -> Self {
        self.changes.replaced.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Knows one more package of WIT.
    #[must_use]
    pub fn package(mut self, wit: &str) -> Self {
        self.changes.packages.push(wit.to_owned());
        self
    }

    /// Is built although its code is not valid.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.is_checked = false;
        self
    }

    /// The bytes of the component.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut contract = Contract::new(&self.changes);
        let bodies = self.bodies(&contract);
        let imports = self.all_imports(&bodies);
        let foreign = imports.iter().filter(|(_, name)| !name.starts_with(RESOURCE_NEW));
        let mut interfaces: Vec<String> = foreign.map(|(interface, _)| interface.clone()).collect();
        interfaces.dedup();
        let wat = self.core_module(&contract, &bodies, &imports);
        let world = contract.world(&interfaces, &self.interfaces);
        let mut module = wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}"));
        wit_component::embed_component_metadata(&mut module, &contract.resolve, world, StringEncoding::UTF8)
            .unwrap_or_else(|error| panic!("embedding the world: {error:#}"));
        let encoder = ComponentEncoder::default().validate(self.is_checked).module(&module);
        let encoded = encoder.and_then(|mut encoder| encoder.encode());
        encoded.unwrap_or_else(|error| panic!("making a component: {error:#}"))
    }

    /// Every function that it exports, by interface and name.
    fn bodies(&self, contract: &Contract) -> Vec<(String, Function, Body)> {
        let mut bodies = Vec::new();
        for interface in &self.interfaces {
            for function in contract.functions(interface) {
                let key = (interface.clone(), function.name.clone());
                let given = self.functions.get(&key).cloned();
                let body = match interface.as_str() {
                    "commands" => self.dispatch(given),
                    "routes" => self.dispatch_routes(given),
                    _ => given.unwrap_or_else(|| usual(interface, &function.name)),
                };
                bodies.push((interface.clone(), function, body));
            }
        }
        bodies
    }

    fn dispatch(&self, otherwise: Option<Body>) -> Body {
        let otherwise = otherwise.unwrap_or_else(|| body::refuse("not-found", "there is no such command"));
        let mut dispatch = Body::default();
        for (name, body) in &self.commands {
            dispatch = dispatch.then(body.clone().when_is("command", name));
        }
        dispatch.then(otherwise)
    }

    fn dispatch_routes(&self, otherwise: Option<Body>) -> Body {
        let otherwise = otherwise.unwrap_or_else(|| body::refuse("not-found", "there is no such route"));
        let mut dispatch = Body::default();
        for (spec, body) in &self.routes {
            let path = spec["path"].as_str().unwrap_or_default();
            dispatch = dispatch.then(body.clone().when_is("req_route", path));
        }
        dispatch.then(otherwise)
    }

    /// Every function of the host that it calls, once.
    fn all_imports(&self, bodies: &[(String, Function, Body)]) -> Vec<(String, String)> {
        let called = bodies.iter().map(|(_, _, body)| body).chain(&self.begins);
        let mut imports: Vec<_> = called.flat_map(|body| body.imports.clone()).collect();
        imports.extend(self.imports.clone());
        imports.sort();
        imports.dedup();
        imports
    }

    /// The specification with the hooks and commands that the guest was given.
    fn whole_spec(&self) -> Value {
        let mut spec = self.spec.clone();
        if let Some(members) = spec.as_object_mut() {
            let hooks: Vec<&String> = self
                .functions
                .keys()
                .filter(|(interface, _)| matches!(interface.as_str(), "hooks" | "document-hooks"))
                .map(|(_, name)| name)
                .collect();
            let commands: Vec<Value> =
                self.commands.iter().map(|(name, _)| json!({ "name": name })).collect();
            members.entry("hooks").or_insert_with(|| json!(hooks));
            members.entry("commands").or_insert_with(|| json!(commands));
            let routes: Vec<&Value> = self.routes.iter().map(|(spec, _)| spec).collect();
            members.entry("routes").or_insert_with(|| json!(routes));
        }
        spec
    }

    fn core_module(
        &self,
        contract: &Contract,
        bodies: &[(String, Function, Body)],
        imports: &[(String, String)],
    ) -> String {
        let mut data = Segment::new(DATA_START);
        let mut globals = Globals::default();
        let described = [
            ("$description", "spec", "model-spec", self.whole_spec()),
            ("$information", "identity", "module-info", self.information.clone()),
        ];
        for (name, interface, record, value) in described {
            let shape = Type::Id(contract.type_of(interface, record));
            globals.set(name, lower(contract, &shape, &value, &mut data));
        }
        for text in bodies.iter().map(|(_, _, body)| body).chain(&self.begins).flat_map(|body| &body.texts) {
            let name = body::text_name(text);
            globals.set(&format!("{name}_length"), text.len());
            globals.set(&name, data.place(text.as_bytes()));
        }
        for (number, code) in contract.cases("types", "fault-code").iter().enumerate() {
            globals.set(&format!("$fault_{}", code.replace('-', "_")), number);
        }
        globals.set_places(contract, "answer", &contract.function("hooks", "on-create"));
        let takes_pairs = |interface: &String| matches!(interface.as_str(), "routes" | "document-hooks");
        let has_pairs = self.interfaces.iter().any(takes_pairs);
        if has_pairs {
            globals.set_places(contract, "response", &contract.function("routes", "handle"));
        }
        let mut wat = "(module\n".to_owned();
        for (interface, name) in imports {
            if name.starts_with(RESOURCE_DROP) {
                wat.push_str(&import_drop(contract, interface, name));
                continue;
            }
            if name.starts_with(RESOURCE_NEW) {
                wat.push_str(&import_new(contract, interface, name));
                continue;
            }
            let function = contract.function(interface, name);
            let short = identifier(interface, name);
            globals.set_places(contract, &short, &function);
            wat.push_str(&import(contract, interface, &short, &function));
        }
        let heap = data.end().next_multiple_of(16);
        globals.set("$heap_start", heap);
        let pages = (heap / PAGE_BYTES + 1).max(self.pages);
        let _ = writeln!(wat, "(memory (export \"memory\") {pages})");
        let _ = writeln!(wat, "(global $heap (mut i32) (i32.const {heap}))");
        let _ = writeln!(wat, "(global $out (mut i32) (i32.const 0))");
        wat.push_str(&globals.wat());
        wat.push_str(include_str!("prelude.wat"));
        if has_pairs {
            wat.push_str(STORE_PAIR);
        }
        wat.push_str(&self.items);
        for (interface, function, body) in bodies {
            wat.push_str(&export(contract, interface, function, body));
        }
        if let Some(body) = &self.begins {
            let _ = writeln!(wat, "(func $begin {FREE_LOCALS}\n{})\n(start $begin)", body.wat);
        }
        let _ = writeln!(wat, "(data (i32.const {DATA_START}) \"{}\"))", escaped(data.bytes()));
        wat
    }
}

/// What a function does that was given no body.
fn usual(interface: &str, function: &str) -> Body {
    match (interface, function) {
        ("identity", _) => "(global.get $information)".into(),
        ("describe-model", _) => "(global.get $description)".into(),
        ("document-hooks", "on-create") => documents::give_back("input").then(body::agree()),
        ("hooks", "on-create") => body::echo("input"),
        ("hooks", "on-update") => body::merge("current_data", "changes"),
        ("hooks", "on-load") => body::echo("stored_data"),
        ("lifecycle", "drain") => "".into(),
        _ => body::agree(),
    }
}

/// Gives a handle back: there is no such function in the interface.
fn import_drop(contract: &Contract, interface: &str, name: &str) -> String {
    let (full, short) = (contract.full_name(interface), identifier(interface, name));
    format!("(import \"{full}\" \"{name}\" (func ${short} (param i32)))\n")
}

/// Makes a handle of a resource that the guest exports.
fn import_new(contract: &Contract, interface: &str, name: &str) -> String {
    let (full, short) = (contract.full_name(interface), identifier(interface, name));
    format!("(import \"[export]{full}\" \"{name}\" (func ${short} (param i32) (result i32)))\n")
}

/// Constants of the core module.
#[derive(Default)]
struct Globals(BTreeMap<String, usize>);

impl Globals {
    fn set(&mut self, name: &str, value: usize) {
        self.0.insert(name.to_owned(), value);
    }

    /// The places of the parts of a function's result.
    fn set_places(&mut self, contract: &Contract, name: &str, function: &Function) {
        let Some(result) = &function.result else { return };
        self.set(&format!("${name}_size"), contract.sizes.size(result).size_wasm32());
        for leaf in contract.leaves(name, result, 0) {
            self.set(&format!("${}", leaf.name), leaf.offset);
        }
    }

    fn wat(&self) -> String {
        self.0.iter().fold(String::new(), |mut wat, (name, value)| {
            let _ = writeln!(wat, "(global {name} i32 (i32.const {value}))");
            wat
        })
    }
}

/// `$models_find` without the `$`; `[method]secret.reveal` of `secrets` is `secrets_secret_reveal`.
fn identifier(interface: &str, function: &str) -> String {
    let short = interface.rsplit('/').next().unwrap_or(interface);
    let short = short.split('@').next().unwrap_or(short);
    let function = ["[method]", "[constructor]", RESOURCE_DROP, RESOURCE_NEW]
        .iter()
        .fold(function, |name, kind| name.trim_start_matches(kind));
    format!("{short}_{function}").replace(['-', '.'], "_")
}

fn import(contract: &Contract, interface: &str, short: &str, function: &Function) -> String {
    let signature = contract.resolve.wasm_signature(AbiVariant::GuestImport, function);
    format!(
        "(import \"{}\" \"{}\" (func ${short} (param {}) (result {})))\n",
        contract.full_name(interface),
        function.name,
        wasm_types(&signature.params),
        wasm_types(&signature.results)
    )
}

fn wasm_types(types: &[WasmType]) -> String {
    let names = types.iter().map(|one| match one {
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
    });
    names.collect::<Vec<_>>().join(" ")
}

/// An exported function whose parameters are in variables, however they arrive.
fn export(contract: &Contract, interface: &str, function: &Function, body: &Body) -> String {
    let signature = contract.resolve.wasm_signature(AbiVariant::GuestExport, function);
    let shapes = contract.sizes.field_offsets(function.params.iter().map(|parameter| &parameter.ty));
    let mut leaves: Vec<Leaf> = Vec::new();
    for (parameter, (place, shape)) in function.params.iter().zip(shapes) {
        leaves.extend(contract.leaves(&parameter.name, shape, place.size_wasm32()));
    }
    let name = format!("{}#{}", contract.full_name(interface), function.name);
    let mut wat = format!("(func $export_{} (export \"{name}\")", identifier(interface, &function.name));
    let mut loads = String::new();
    if signature.indirect_params {
        wat.push_str(" (param $parameters i32)");
    }
    let mut locals = FREE_LOCALS.to_owned();
    for leaf in &leaves {
        let declared = format!("${} {}", leaf.name, leaf.wasm_type());
        if signature.indirect_params {
            let _ = write!(locals, " (local {declared})");
            let _ = writeln!(
                loads,
                "  (local.set ${} ({} (i32.add (local.get $parameters) (i32.const {}))))",
                leaf.name, leaf.load, leaf.offset
            );
        } else {
            let _ = write!(wat, " (param {declared})");
        }
    }
    let _ = writeln!(wat, " (result {}) {locals}\n{loads}{})", wasm_types(&signature.results), body.wat);
    if signature.retptr {
        let _ = writeln!(wat, "(func (export \"cabi_post_{name}\") (param i32) (call $give_back))");
    }
    wat
}

/// Bytes as the inside of a text in WAT.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || *byte == b' ' {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\{byte:02x}");
        }
    }
    text
}
