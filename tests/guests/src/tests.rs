//! Fixtures are valid, and what is laid out in memory reads as what was meant.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wasmparser::{Validator, WasmFeatures};
use wit_parser::{Int, Type, TypeDefKind, TypeId};

use crate::{
    asking, bombs,
    contract::{Changes, Contract},
    fixtures,
    hostile::{self, Hostile},
    lower::{Segment, lower},
};

fn validate(name: &str, bytes: &[u8]) {
    let validated = Validator::new_with_features(WasmFeatures::all()).validate_all(bytes);
    validated.unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn the_fixtures_that_behave_are_valid_and_small() {
    for (name, guest) in [
        ("plain", fixtures::plain()),
        ("todo", fixtures::todo()),
        ("order", fixtures::order()),
        ("counter", fixtures::counter()),
        ("greedy", fixtures::greedy()),
        ("label", fixtures::label()),
        ("heir", fixtures::heir("1.0.0")),
        ("held todo", fixtures::held_todo()),
        ("outgrown", fixtures::outgrown()),
        ("entry", asking::entry()),
        ("account", asking::account()),
        ("journal", asking::journal(&["CREATETODO"])),
        ("creating", asking::creating("ping", "pings", "pong")),
        ("unruly", hostile::unruly()),
    ] {
        let bytes = guest.build();
        validate(name, &bytes);
        assert!(bytes.len() < 100 * 1024, "{name} has {} bytes", bytes.len());
    }
}

#[test]
fn what_is_to_be_refused_is_valid_wasm_that_a_host_has_to_look_into() {
    let refused = hostile::refused();
    assert!(refused.len() > 30);
    for Hostile { name, bytes } in &refused {
        assert!(bytes.starts_with(b"\0asm"), "{name}");
    }
    // Those with too much in them are too much for the validator as well.
    for name in ["describe traps", "another major version", "names twice"] {
        let one = refused.iter().find(|one| one.name == name).unwrap();
        validate(name, &one.bytes);
    }
}

#[test]
fn what_is_hard_to_compile_is_valid() {
    let plain = fixtures::plain().build();
    validate("mazes", &bombs::with_core_module(plain.clone(), &bombs::mazes(3, 200)));
    validate("data", &bombs::with_core_module(plain, &bombs::bytes_of_data(100_000)));
}

#[test]
fn the_same_guest_has_the_same_bytes() {
    assert_eq!(fixtures::todo().build(), fixtures::todo().build());
}

/// Reads a value out of memory as JSON in which nothing is missing.
struct Memory<'a> {
    contract: &'a Contract,
    base: usize,
    bytes: &'a [u8],
}

impl Memory<'_> {
    fn number(&self, address: usize, size: usize) -> u64 {
        let start = address - self.base;
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.bytes[start..start + size]);
        u64::from_le_bytes(bytes)
    }

    fn pair(&self, address: usize) -> (usize, usize) {
        (self.number(address, 4) as usize, self.number(address + 4, 4) as usize)
    }

    fn raise(&self, shape: &Type, address: usize) -> Value {
        assert!(address.is_multiple_of(self.contract.sizes.align(shape).align_wasm32()));
        match shape {
            Type::Bool => json!(self.number(address, 1) == 1),
            Type::U8 => json!(self.number(address, 1)),
            Type::U16 => json!(self.number(address, 2)),
            Type::U32 => json!(self.number(address, 4)),
            Type::U64 => json!(self.number(address, 8)),
            Type::String => {
                let (start, length) = self.pair(address);
                let start = start - self.base;
                json!(std::str::from_utf8(&self.bytes[start..start + length]).unwrap())
            }
            Type::Id(id) => self.raise_defined(*id, address),
            other => panic!("{other:?}"),
        }
    }

    fn raise_defined(&self, id: TypeId, address: usize) -> Value {
        match &self.contract.resolve.types[id].kind {
            TypeDefKind::Type(alias) => self.raise(alias, address),
            TypeDefKind::Record(record) => {
                let places = self.contract.sizes.field_offsets(record.fields.iter().map(|field| &field.ty));
                let members = record.fields.iter().zip(places).map(|(field, (place, shape))| {
                    (field.name.clone(), self.raise(shape, address + place.size_wasm32()))
                });
                Value::Object(members.collect::<Map<_, _>>())
            }
            TypeDefKind::List(element) => {
                let (first, count) = self.pair(address);
                let size = self.contract.sizes.size(element).size_wasm32();
                (0..count).map(|number| self.raise(element, first + number * size)).collect()
            }
            TypeDefKind::Option(payload) if self.number(address, 1) == 1 => {
                let place = self.contract.sizes.payload_offset(Int::U8, [Some(payload)]).size_wasm32();
                self.raise(payload, address + place)
            }
            TypeDefKind::Option(_) => Value::Null,
            TypeDefKind::Enum(cases) => json!(cases.cases[self.number(address, 1) as usize].name),
            TypeDefKind::Flags(flags) => {
                let bits = self.number(address, 1);
                let set = flags.flags.iter().enumerate().filter(|(number, _)| bits >> number & 1 == 1);
                set.map(|(_, flag)| json!(flag.name)).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Any value of a shape, by the steps of a generator of numbers.
fn invent(contract: &Contract, shape: &Type, random: &mut u64) -> Value {
    let mut next = |below: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % below
    };
    match shape {
        Type::Bool => json!(next(2) == 1),
        Type::U8 => json!(next(256)),
        Type::U16 => json!(next(65_536)),
        Type::U32 | Type::U64 => json!(next(1 << 31)),
        Type::String => json!("aé🦀\0".repeat(next(5) as usize)),
        Type::Id(id) => match &contract.resolve.types[*id].kind {
            TypeDefKind::Type(alias) => invent(contract, alias, random),
            TypeDefKind::Record(record) => {
                let members = record.fields.iter();
                members.map(|field| (field.name.clone(), invent(contract, &field.ty, random))).collect()
            }
            TypeDefKind::List(element) => {
                let count = next(4);
                (0..count).map(|_| invent(contract, element, random)).collect()
            }
            TypeDefKind::Option(_) if next(2) == 0 => Value::Null,
            TypeDefKind::Option(payload) => invent(contract, payload, random),
            TypeDefKind::Enum(cases) => json!(cases.cases[next(cases.cases.len() as u64) as usize].name),
            TypeDefKind::Flags(flags) => {
                let set: Vec<_> = flags.flags.iter().filter(|_| next(2) == 1).collect();
                set.into_iter().map(|flag| json!(flag.name)).collect()
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_specification_reads_out_of_memory_as_it_went_in(mut random: u64) {
        let contract = Contract::new(&Changes::default());
        let shape = Type::Id(contract.type_of("spec", "model-spec"));
        let meant = invent(&contract, &shape, &mut random);
        let mut segment = Segment::new(64);
        let address = lower(&contract, &shape, &meant, &mut segment);
        let memory = Memory { contract: &contract, base: 64, bytes: segment.bytes() };
        prop_assert_eq!(memory.raise(&shape, address), meant);
    }
}

#[test]
fn what_is_missing_is_empty() {
    let contract = Contract::new(&Changes::default());
    let shape = Type::Id(contract.type_of("spec", "field-spec"));
    let mut segment = Segment::new(64);
    let address = lower(&contract, &shape, &json!({ "name": "a" }), &mut segment);
    let memory = Memory { contract: &contract, base: 64, bytes: segment.bytes() };
    let whole = json!({ "name": "a", "kind": "text", "rules": [], "default-value": null, "schema": null });
    assert_eq!(memory.raise(&shape, address), whole);
}

#[test]
#[should_panic(expected = "found the member \"nmae\", which the record does not have")]
fn a_member_that_the_record_does_not_have_is_a_mistake_of_the_test() {
    let _ = crate::Guest::model(json!({ "nmae": "a" })).build();
}
