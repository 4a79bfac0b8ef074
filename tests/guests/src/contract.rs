//! The contract in `wit/`, as far as a guest has to know it: signatures, and where the parts of values lie in memory.

use wit_parser::{
    Function, Int, InterfaceId, Resolve, SizeAlign, SourceMap, Type, TypeDefKind, TypeId, WorldId,
};

/// Package of the contract.
const PACKAGE: &str = "aegis:module";
/// Version of the contract, as its files say it.
const VERSION: &str = "1.0.0";
/// Its files.
const FILES: [(&str, &str); 5] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("spec.wit", include_str!("../../../wit/spec.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("guest.wit", include_str!("../../../wit/guest.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// What a guest takes for the contract: the real one, or a changed one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Changes {
    /// Version that the guest was built for, if another.
    pub(crate) version: Option<String>,
    /// Texts that are replaced in the files.
    pub(crate) replaced: Vec<(String, String)>,
    /// More packages.
    pub(crate) packages: Vec<String>,
}

/// The contract, parsed.
pub(crate) struct Contract {
    pub(crate) resolve: Resolve,
    pub(crate) sizes: SizeAlign,
    version: String,
}

/// The smallest part of a value that code can load.
pub(crate) struct Leaf {
    /// Path to it, `_` between its parts.
    pub(crate) name: String,
    /// Where it lies in the value, bytes.
    pub(crate) offset: usize,
    /// Instruction that loads it.
    pub(crate) load: &'static str,
}

impl Leaf {
    /// Type of what is loaded.
    pub(crate) fn wasm_type(&self) -> &'static str {
        &self.load[..3]
    }
}

impl Contract {
    pub(crate) fn new(changes: &Changes) -> Self {
        let version = changes.version.clone().unwrap_or_else(|| VERSION.to_owned());
        let mut files = SourceMap::new();
        for (name, text) in FILES {
            let mut text = text.replace(&format!("{PACKAGE}@{VERSION}"), &format!("{PACKAGE}@{version}"));
            for (from, to) in &changes.replaced {
                text = text.replace(from, to);
            }
            files.push_str(name, text);
        }
        let mut resolve = Resolve::default();
        let group = files.parse().unwrap_or_else(|(_, error)| panic!("parsing the contract: {error:?}"));
        resolve.push_group(group).unwrap_or_else(|error| panic!("resolving the contract: {error:?}"));
        for package in &changes.packages {
            resolve.push_source("more.wit", package).unwrap_or_else(|error| panic!("{error:#}: {package}"));
        }
        let mut contract = Self { resolve, sizes: SizeAlign::default(), version };
        contract.sizes.fill(&contract.resolve);
        contract
    }

    /// Adds the world of a guest, which has these imports and exports.
    pub(crate) fn world(&mut self, imports: &[String], exports: &[String]) -> WorldId {
        let mut text = "package aegis:guest;\nworld guest {\n".to_owned();
        for (kind, names) in [("import", imports), ("export", exports)] {
            for name in names {
                text.push_str(&format!("  {kind} {};\n", self.full_name(name)));
            }
        }
        text.push_str("}\n");
        let package = self.resolve.push_source("guest.wit", &text);
        let package = package.unwrap_or_else(|error| panic!("{error:#} in\n{text}"));
        self.sizes.fill(&self.resolve);
        self.resolve.packages[package].worlds["guest"]
    }

    /// `hooks` is `aegis:module/hooks@1.0.0`; a name with a package is left as it is.
    pub(crate) fn full_name(&self, interface: &str) -> String {
        if interface.contains('/') {
            return interface.to_owned();
        }
        format!("{PACKAGE}/{interface}@{}", self.version)
    }

    fn interface(&self, name: &str) -> InterfaceId {
        let full = self.full_name(name);
        let found = self
            .resolve
            .interfaces
            .iter()
            .find(|(id, _)| self.resolve.id_of(*id).as_deref() == Some(full.as_str()));
        found.unwrap_or_else(|| panic!("there is no interface {full}")).0
    }

    /// The functions of an interface.
    pub(crate) fn functions(&self, interface: &str) -> Vec<Function> {
        self.resolve.interfaces[self.interface(interface)].functions.values().cloned().collect()
    }

    /// One function of an interface.
    pub(crate) fn function(&self, interface: &str, name: &str) -> Function {
        let functions = &self.resolve.interfaces[self.interface(interface)].functions;
        functions.get(name).unwrap_or_else(|| panic!("{interface} has no function {name}")).clone()
    }

    /// A type of an interface.
    pub(crate) fn type_of(&self, interface: &str, name: &str) -> TypeId {
        self.resolve.interfaces[self.interface(interface)].types[name]
    }

    /// Names of the cases of an enumeration.
    pub(crate) fn cases(&self, interface: &str, name: &str) -> Vec<String> {
        match &self.resolve.types[self.type_of(interface, name)].kind {
            TypeDefKind::Enum(cases) => cases.cases.iter().map(|case| case.name.clone()).collect(),
            other => panic!("{interface}.{name} is {other:?}, expected an enumeration"),
        }
    }

    /// Everything of a value that lies at a fixed place.
    pub(crate) fn leaves(&self, name: &str, shape: &Type, offset: usize) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.add_leaves(&name.replace('-', "_"), shape, offset, &mut leaves);
        leaves
    }

    fn add_leaves(&self, name: &str, shape: &Type, offset: usize, leaves: &mut Vec<Leaf>) {
        let mut leaf = |name: String, offset, load| leaves.push(Leaf { name, offset, load });
        match shape {
            Type::Bool | Type::U8 | Type::S8 => leaf(name.to_owned(), offset, "i32.load8_u"),
            Type::U16 | Type::S16 => leaf(name.to_owned(), offset, "i32.load16_u"),
            Type::U64 | Type::S64 => leaf(name.to_owned(), offset, "i64.load"),
            Type::F32 => leaf(name.to_owned(), offset, "f32.load"),
            Type::F64 => leaf(name.to_owned(), offset, "f64.load"),
            Type::U32 | Type::S32 | Type::Char | Type::ErrorContext => {
                leaf(name.to_owned(), offset, "i32.load");
            }
            Type::String => {
                leaf(name.to_owned(), offset, "i32.load");
                leaf(format!("{name}_length"), offset + 4, "i32.load");
            }
            Type::Id(id) => self.add_leaves_of(name, *id, offset, leaves),
        }
    }

    fn add_leaves_of(&self, name: &str, id: TypeId, offset: usize, leaves: &mut Vec<Leaf>) {
        let tag = |name: String, tag: Int| Leaf {
            name,
            offset,
            load: if tag == Int::U8 { "i32.load8_u" } else { "i32.load16_u" },
        };
        match &self.resolve.types[id].kind {
            TypeDefKind::Type(alias) => self.add_leaves(name, alias, offset, leaves),
            TypeDefKind::Handle(_) => leaves.push(Leaf { name: name.to_owned(), offset, load: "i32.load" }),
            TypeDefKind::List(_) => self.add_leaves(name, &Type::String, offset, leaves),
            TypeDefKind::Record(record) => {
                let places = self.sizes.field_offsets(record.fields.iter().map(|field| &field.ty));
                for (field, (place, shape)) in record.fields.iter().zip(places) {
                    let name = format!("{name}_{}", field.name.replace('-', "_"));
                    self.add_leaves(&name, shape, offset + place.size_wasm32(), leaves);
                }
            }
            TypeDefKind::Option(payload) => {
                leaves.push(tag(format!("{name}_present"), Int::U8));
                let place = self.sizes.payload_offset(Int::U8, [Some(payload)]).size_wasm32();
                self.add_leaves(name, payload, offset + place, leaves);
            }
            TypeDefKind::Result(result) => {
                leaves.push(tag(format!("{name}_is_err"), Int::U8));
                let cases = [result.ok.as_ref(), result.err.as_ref()];
                let place = self.sizes.payload_offset(Int::U8, cases).size_wasm32();
                for (case, payload) in [("ok", &result.ok), ("err", &result.err)] {
                    if let Some(payload) = payload {
                        self.add_leaves(&format!("{name}_{case}"), payload, offset + place, leaves);
                    }
                }
            }
            TypeDefKind::Enum(cases) => leaves.push(tag(name.to_owned(), cases.tag())),
            TypeDefKind::Variant(cases) => leaves.push(tag(format!("{name}_case"), cases.tag())),
            other => panic!("{name} is {other:?}: guests do not take it apart"),
        }
    }
}
