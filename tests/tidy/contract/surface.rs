//! What a contract promises, as texts that can be compared: aliases are followed, comments and versions left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use semver::Version;
use wit_parser::{
    Function, Handle, Interface, Resolve, Result_, SourceMap, Type, TypeDef, TypeDefKind, TypeId, TypeOwner,
    World, WorldItem, WorldKey,
};

/// What one version of the contract promises.
pub(super) struct Surface {
    pub(super) version: Version,
    pub(super) interfaces: BTreeMap<String, Promises>,
    pub(super) worlds: BTreeMap<String, Ends>,
}

/// What an interface promises.
pub(super) struct Promises {
    /// A world exports it: modules implement it, so whoever did so already lacks what is new in it.
    pub(super) by_modules: bool,
    /// Names of functions, and of methods as `[method]resource.name`, with their signatures.
    pub(super) functions: BTreeMap<String, String>,
    /// Names of types with their definitions.
    pub(super) types: BTreeMap<String, String>,
}

/// What a world names.
pub(super) struct Ends {
    pub(super) imports: BTreeSet<String>,
    pub(super) exports: BTreeSet<String>,
}

impl Surface {
    /// Reads the files of a contract.
    ///
    /// # Panics
    /// When they are no package of WIT with a version.
    pub(super) fn of(files: &[(PathBuf, String)]) -> Self {
        let mut sources = SourceMap::new();
        for (path, text) in files {
            sources.push_str(&path.to_string_lossy(), text.as_str());
        }
        let mut resolve = Resolve::default();
        let group = sources.parse().unwrap_or_else(|(_, error)| panic!("{error:?}"));
        let package = resolve.push_group(group).unwrap_or_else(|error| panic!("{error:?}"));
        let package = &resolve.packages[package];
        let worlds: BTreeMap<String, Ends> = package
            .worlds
            .iter()
            .map(|(name, id)| (name.clone(), ends(&resolve, &resolve.worlds[*id])))
            .collect();
        let exported: BTreeSet<&String> = worlds.values().flat_map(|ends| &ends.exports).collect();
        let interfaces = package.interfaces.iter().map(|(name, id)| {
            let promises = promises(&resolve, &resolve.interfaces[*id], exported.contains(name));
            (name.clone(), promises)
        });
        let interfaces = interfaces.collect();
        let version = package.name.version.clone().expect("the package has a version");
        Self { version, interfaces, worlds }
    }
}

fn promises(resolve: &Resolve, interface: &Interface, by_modules: bool) -> Promises {
    let functions =
        interface.functions.iter().map(|(name, function)| (name.clone(), signature(resolve, function)));
    let types = interface.types.iter().map(|(name, id)| (name.clone(), definition(resolve, *id)));
    Promises { by_modules, functions: functions.collect(), types: types.collect() }
}

fn ends(resolve: &Resolve, world: &World) -> Ends {
    let name = |(key, item): (&WorldKey, &WorldItem)| match (key, item) {
        (WorldKey::Interface(id), _) => interface_name(resolve, Some(*id)),
        (WorldKey::Name(name), WorldItem::Function(function)) => {
            format!("{name}: {}", signature(resolve, function))
        }
        (WorldKey::Name(name), _) => name.clone(),
    };
    Ends {
        imports: world.imports.iter().map(name).collect(),
        exports: world.exports.iter().map(name).collect(),
    }
}

fn interface_name(resolve: &Resolve, id: Option<wit_parser::InterfaceId>) -> String {
    id.and_then(|id| resolve.interfaces[id].name.clone()).unwrap_or_else(|| "(unnamed)".to_owned())
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let parameters: Vec<String> = function
        .params
        .iter()
        .map(|parameter| format!("{}: {}", parameter.name, shape(resolve, &parameter.ty)))
        .collect();
    let result = function.result.map(|result| format!(" -> {}", shape(resolve, &result))).unwrap_or_default();
    let asynchronous = if function.kind.is_async() { "async " } else { "" };
    format!("{asynchronous}func({}){result}", parameters.join(", "))
}

/// What a named type is.
fn definition(resolve: &Resolve, id: TypeId) -> String {
    let braced = |kind: &str, parts: Vec<String>| format!("{kind} {{ {} }}", parts.join(", "));
    let with = |name: &str, of: Option<&Type>| match of {
        Some(of) => format!("{name}({})", shape(resolve, of)),
        None => name.to_owned(),
    };
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            let field = |field: &wit_parser::Field| format!("{}: {}", field.name, shape(resolve, &field.ty));
            braced("record", record.fields.iter().map(field).collect())
        }
        TypeDefKind::Variant(variant) => {
            braced("variant", variant.cases.iter().map(|case| with(&case.name, case.ty.as_ref())).collect())
        }
        TypeDefKind::Enum(cases) => {
            braced("enum", cases.cases.iter().map(|case| case.name.clone()).collect())
        }
        TypeDefKind::Flags(flags) => {
            braced("flags", flags.flags.iter().map(|flag| flag.name.clone()).collect())
        }
        TypeDefKind::Resource => "resource".to_owned(),
        TypeDefKind::Type(of) => shape(resolve, of),
        other => unnamed(resolve, other),
    }
}

/// A type where it is used: by name if it is a record and the like, else by what it is made of.
fn shape(resolve: &Resolve, of: &Type) -> String {
    let Type::Id(id) = of else { return primitive(of).to_owned() };
    let TypeDef { kind, name, owner, .. } = &resolve.types[*id];
    match (kind, name, owner) {
        (TypeDefKind::Type(of), ..) => shape(resolve, of),
        (
            TypeDefKind::Record(_)
            | TypeDefKind::Variant(_)
            | TypeDefKind::Enum(_)
            | TypeDefKind::Flags(_)
            | TypeDefKind::Resource,
            Some(name),
            TypeOwner::Interface(interface),
        ) => format!("{}.{name}", interface_name(resolve, Some(*interface))),
        (kind, ..) => unnamed(resolve, kind),
    }
}

/// A type that is made of others.
fn unnamed(resolve: &Resolve, kind: &TypeDefKind) -> String {
    let shape = |of: &Type| shape(resolve, of);
    let maybe = |of: &Option<Type>| of.as_ref().map_or_else(|| "_".to_owned(), shape);
    match kind {
        TypeDefKind::List(of) => format!("list<{}>", shape(of)),
        TypeDefKind::FixedLengthList(of, length) => format!("list<{}, {length}>", shape(of)),
        TypeDefKind::Map(key, value) => format!("map<{}, {}>", shape(key), shape(value)),
        TypeDefKind::Option(of) => format!("option<{}>", shape(of)),
        TypeDefKind::Result(Result_ { ok, err }) => format!("result<{}, {}>", maybe(ok), maybe(err)),
        TypeDefKind::Tuple(tuple) => {
            format!("tuple<{}>", tuple.types.iter().map(shape).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Handle(Handle::Own(id)) => shape(&Type::Id(*id)),
        TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", shape(&Type::Id(*id))),
        TypeDefKind::Future(of) => format!("future<{}>", maybe(of)),
        TypeDefKind::Stream(of) => format!("stream<{}>", maybe(of)),
        other => panic!("{} has a name wherever it is used", other.as_str()),
    }
}

fn primitive(of: &Type) -> &'static str {
    match of {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => unreachable!("what has an id is no primitive"),
    }
}
