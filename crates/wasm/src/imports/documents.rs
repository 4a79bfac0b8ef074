//! Documents that the host holds, read and changed by JSON Pointer (RFC 6901).

use aegis_domain::{
    Problem,
    json::{ChangeError, parse},
};
use serde_json::{Number, Value};
use wasmtime::component::Resource;

use super::fault;
use crate::{
    contract::{
        Fault, FaultCode,
        base::aegis::module::documents::{self, Scalar},
    },
    documents::Document,
    state::State,
};

impl documents::Host for State {}

impl documents::HostDocument for State {
    fn id(&mut self, document: Resource<Document>) -> wasmtime::Result<Option<String>> {
        let document = self.table.get_mut(&document)?;
        if let Some((id, _)) = &document.stored {
            return Ok(Some(id.clone()));
        }
        let found = document.held.get("/id").map_err(damaged)?;
        Ok(found.and_then(Value::as_str).map(str::to_owned))
    }

    fn revision(&mut self, document: Resource<Document>) -> wasmtime::Result<u64> {
        let document = self.table.get_mut(&document)?;
        if let Some((_, revision)) = document.stored {
            return Ok(revision);
        }
        let found = document.held.get("/revision").map_err(damaged)?;
        Ok(found.and_then(Value::as_u64).unwrap_or_default())
    }

    fn get(&mut self, document: Resource<Document>, pointer: String) -> wasmtime::Result<Option<Scalar>> {
        let document = self.table.get_mut(&document)?;
        Ok(document.held.get(&pointer).map_err(damaged)?.map(scalar))
    }

    fn get_many(
        &mut self,
        document: Resource<Document>,
        pointers: Vec<String>,
    ) -> wasmtime::Result<Vec<Option<Scalar>>> {
        let bytes_max = self.payload_bytes_max();
        let document = self.table.get_mut(&document)?;
        let mut bytes = 0_usize;
        let mut found = Vec::with_capacity(pointers.len());
        for pointer in &pointers {
            let value = document.held.get(pointer).map_err(damaged)?;
            bytes += value.and_then(Value::as_str).map_or(0, str::len);
            within(bytes, bytes_max)?;
            found.push(value.map(scalar));
        }
        Ok(found)
    }

    fn keys(&mut self, document: Resource<Document>, pointer: String) -> wasmtime::Result<Vec<String>> {
        let document = self.table.get_mut(&document)?;
        let keys = document.held.keys(&pointer).map_err(damaged)?;
        Ok(keys.into_iter().map(str::to_owned).collect())
    }

    fn set(
        &mut self,
        document: Resource<Document>,
        pointer: String,
        value: Scalar,
    ) -> wasmtime::Result<Result<(), Fault>> {
        let value = match from_scalar(value) {
            Ok(value) => value,
            Err(message) => return Ok(Err(fault(FaultCode::Invalid, message))),
        };
        let document = self.table.get_mut(&document)?;
        Ok(document.held.set(&pointer, value).map_err(|error| not_changed(&error)))
    }

    fn set_json(
        &mut self,
        document: Resource<Document>,
        pointer: String,
        value: String,
    ) -> wasmtime::Result<Result<(), Fault>> {
        let value = match parse(value.as_bytes()) {
            Ok(value) => value,
            Err(problem) => {
                let message = format!("found a value that is no JSON: {}", problem.detail);
                return Ok(Err(fault(FaultCode::Invalid, message)));
            }
        };
        let document = self.table.get_mut(&document)?;
        Ok(document.held.set(&pointer, value).map_err(|error| not_changed(&error)))
    }

    fn remove(&mut self, document: Resource<Document>, pointer: String) -> wasmtime::Result<bool> {
        self.table.get_mut(&document)?.held.remove(&pointer).map_err(damaged)
    }

    fn to_json(&mut self, document: Resource<Document>, pointer: String) -> wasmtime::Result<Option<String>> {
        self.table.get_mut(&document)?.held.text(&pointer).map_err(damaged)
    }

    fn drop(&mut self, document: Resource<Document>) -> wasmtime::Result<()> {
        self.table.delete(document)?;
        Ok(())
    }
}

/// All that is handed over at once keeps within the limit of a crossing.
fn within(bytes: usize, bytes_max: usize) -> wasmtime::Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!("it asked for more than {bytes_max} bytes of a document at once");
    Err(wasmtime::Error::msg(message))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn damaged(problem: Problem) -> wasmtime::Error {
    wasmtime::Error::msg(format!("a document that the host holds is no JSON: {}", problem.detail))
}

fn not_changed(error: &ChangeError) -> Fault {
    let code = match error {
        ChangeError::Refused => FaultCode::Denied,
        ChangeError::Invalid(_) => FaultCode::Invalid,
        ChangeError::TooLarge => FaultCode::TooLarge,
        ChangeError::Damaged(_) => FaultCode::Internal,
    };
    fault(code, error.to_string())
}

fn scalar(value: &Value) -> Scalar {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    match value {
        Value::Null => Scalar::Null,
        Value::Bool(flag) => Scalar::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Scalar::Integer(integer),
            None => Scalar::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Scalar::Text(text.clone()),
        Value::Object(members) => Scalar::Object(count(members.len())),
        Value::Array(items) => Scalar::Array(count(items.len())),
    }
}

fn from_scalar(scalar: Scalar) -> Result<Value, String> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(flag),
        Scalar::Integer(integer) => integer.into(),
        Scalar::Number(number) => {
            let number =
                Number::from_f64(number).ok_or_else(|| format!("found {number}, which JSON cannot say"))?;
            Value::Number(number)
        }
        Scalar::Text(text) => Value::String(text),
        Scalar::Object(0) => Value::Object(serde_json::Map::new()),
        Scalar::Array(0) => Value::Array(Vec::new()),
        Scalar::Object(count) | Scalar::Array(count) => {
            return Err(format!("found a value of {count} parts, expected none in it, or set-json"));
        }
    })
}
