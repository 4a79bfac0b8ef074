//! Bounds on what one patch may make the host do, since a thousand small operations can be a lot.

use serde_json::Value;

use crate::json::DEPTH_MAX;

/// Memory that the values put in place by one patch may take, all together: 64 copies of a body of a megabyte
/// of text.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Neighbours in arrays and objects that insertions and removals may push aside, all together: about a second
/// of work.
const MOVES_MAX: usize = 50_000_000;

/// What is left.
#[derive(Debug)]
pub(super) struct Budget {
    memory_bytes: usize,
    moves: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { memory_bytes: MEMORY_BYTES_MAX, moves: MOVES_MAX }
    }

    /// Accounts for a value put `levels` below the document's root.
    pub(super) fn place(&mut self, value: &Value, levels: usize) -> Result<(), String> {
        let size = Size::of(value);
        if levels + size.depth > DEPTH_MAX {
            return Err(format!("would nest {} levels, expected at most {DEPTH_MAX}", levels + size.depth));
        }
        let left = self.memory_bytes.checked_sub(size.memory_bytes);
        self.memory_bytes =
            left.ok_or_else(|| format!("would make the patch place more than {MEMORY_BYTES_MAX} bytes"))?;
        Ok(())
    }

    /// Accounts for neighbours pushed aside.
    pub(super) fn push_aside(&mut self, count: usize) -> Result<(), String> {
        let left = self.moves.checked_sub(count);
        self.moves = left.ok_or_else(|| format!("would make the patch move more than {MOVES_MAX} values"))?;
        Ok(())
    }
}

/// Bytes that a value takes in memory, but for what its containers keep free.
pub fn memory_bytes(value: &Value) -> usize {
    Size::of(value).memory_bytes
}

struct Size {
    memory_bytes: usize,
    depth: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let own = size_of::<Value>();
        match value {
            Value::Null | Value::Bool(_) => Self { memory_bytes: own, depth: 0 },
            Value::Number(number) => Self { memory_bytes: own + number.as_str().len(), depth: 0 },
            Value::String(text) => Self { memory_bytes: own + text.len(), depth: 0 },
            Value::Array(items) => Self::sum(own, items.iter()),
            Value::Object(members) => {
                let names: usize = members.keys().map(|name| size_of::<String>() + name.len()).sum();
                Self::sum(own + names, members.values())
            }
        }
    }

    fn sum<'a>(own: usize, inner: impl Iterator<Item = &'a Value>) -> Self {
        inner.map(Self::of).fold(Self { memory_bytes: own, depth: 1 }, |sum, size| Self {
            memory_bytes: sum.memory_bytes + size.memory_bytes,
            depth: sum.depth.max(1 + size.depth),
        })
    }
}
