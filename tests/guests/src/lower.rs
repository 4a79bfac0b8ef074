//! From JSON to a value of the contract in linear memory, as the canonical ABI lays it out.

use serde_json::Value;
use wit_parser::{FlagsRepr, Int, Type, TypeDefKind, TypeId};

use crate::contract::Contract;

/// A piece of linear memory that grows, and where it begins.
#[derive(Debug)]
pub(crate) struct Segment {
    base: usize,
    bytes: Vec<u8>,
}

impl Segment {
    pub(crate) fn new(base: usize) -> Self {
        Self { base, bytes: Vec::new() }
    }

    /// Address behind the last byte.
    pub(crate) fn end(&self) -> usize {
        self.base + self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Room for `size` bytes, all 0.
    pub(crate) fn allocate(&mut self, size: usize, alignment: usize) -> usize {
        let address = self.end().next_multiple_of(alignment);
        self.bytes.resize(address + size - self.base, 0);
        address
    }

    /// Puts bytes somewhere.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> usize {
        let address = self.end();
        self.bytes.extend_from_slice(bytes);
        address
    }

    fn write(&mut self, address: usize, bytes: &[u8]) {
        let start = address - self.base;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn write_address(&mut self, address: usize, value: usize) {
        let value = u32::try_from(value).expect("linear memory has 32 bits");
        self.write(address, &value.to_le_bytes());
    }
}

/// Lays a value out and answers its address. Members that are missing, and `null`, are empty: lists, texts, numbers and
/// flags without anything, options absent, the first case of an enumeration. Flags are lists of names.
pub(crate) fn lower(contract: &Contract, shape: &Type, value: &Value, segment: &mut Segment) -> usize {
    let size = contract.sizes.size(shape).size_wasm32();
    let address = segment.allocate(size, contract.sizes.align(shape).align_wasm32());
    store(contract, shape, value, address, segment);
    address
}

fn store(contract: &Contract, shape: &Type, value: &Value, address: usize, segment: &mut Segment) {
    let number = || match value {
        Value::Null => 0,
        Value::Bool(flag) => u64::from(*flag),
        other => other.as_u64().unwrap_or_else(|| panic!("found {other}, expected a number from 0")),
    };
    match shape {
        Type::Bool | Type::U8 => segment.write(address, &number().to_le_bytes()[..1]),
        Type::U16 => segment.write(address, &number().to_le_bytes()[..2]),
        Type::U32 => segment.write(address, &number().to_le_bytes()[..4]),
        Type::U64 => segment.write(address, &number().to_le_bytes()),
        Type::String => {
            let text = match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => panic!("found {other}, expected a text"),
            };
            let place = segment.place(text.as_bytes());
            segment.write_address(address, place);
            segment.write_address(address + 4, text.len());
        }
        Type::Id(id) => store_defined(contract, *id, value, address, segment),
        other => panic!("{other:?} is not in any specification"),
    }
}

fn store_defined(contract: &Contract, id: TypeId, value: &Value, address: usize, segment: &mut Segment) {
    match &contract.resolve.types[id].kind {
        TypeDefKind::Type(alias) => store(contract, alias, value, address, segment),
        TypeDefKind::Record(record) => {
            let known = |name: &String| record.fields.iter().any(|field| field.name == *name);
            if let Some(members) = value.as_object()
                && let Some(unknown) = members.keys().find(|name| !known(name))
            {
                panic!("found the member {unknown:?}, which the record does not have");
            }
            let places = contract.sizes.field_offsets(record.fields.iter().map(|field| &field.ty));
            for (field, (place, shape)) in record.fields.iter().zip(places) {
                let member = value.get(&field.name).unwrap_or(&Value::Null);
                store(contract, shape, member, address + place.size_wasm32(), segment);
            }
        }
        TypeDefKind::List(element) => {
            let elements = value.as_array().map_or(&[][..], Vec::as_slice);
            let size = contract.sizes.size(element).size_wasm32();
            let alignment = contract.sizes.align(element).align_wasm32();
            let first = segment.allocate(size * elements.len(), alignment);
            for (number, one) in elements.iter().enumerate() {
                store(contract, element, one, first + number * size, segment);
            }
            segment.write_address(address, first);
            segment.write_address(address + 4, elements.len());
        }
        TypeDefKind::Option(payload) if !value.is_null() => {
            segment.write(address, &[1]);
            let place = contract.sizes.payload_offset(Int::U8, [Some(payload)]).size_wasm32();
            store(contract, payload, value, address + place, segment);
        }
        TypeDefKind::Option(_) => {}
        TypeDefKind::Enum(cases) => {
            let named = |name| cases.cases.iter().position(|case| case.name == name);
            let case = value.as_str().map_or(0, |name| {
                named(name).unwrap_or_else(|| panic!("found {name:?}, which is no case of the enumeration"))
            });
            assert_eq!(cases.tag(), Int::U8, "the contract has no larger enumeration");
            segment.write(address, &[u8::try_from(case).expect("the tag has one byte")]);
        }
        TypeDefKind::Flags(flags) => {
            assert!(matches!(flags.repr(), FlagsRepr::U8), "the contract has no larger flags");
            let mut bits = 0_u8;
            for name in value.as_array().map_or(&[][..], Vec::as_slice) {
                let bit = flags.flags.iter().position(|flag| Some(flag.name.as_str()) == name.as_str());
                bits |= 1 << bit.unwrap_or_else(|| panic!("found {name}, which is no flag"));
            }
            segment.write(address, &[bits]);
        }
        other => panic!("{other:?} is not in any specification"),
    }
}
