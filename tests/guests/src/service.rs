//! Services over `wasi:http`, made without any toolchain.

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// A service that says `name` and the path with its query, which it was asked for. A path that ends in one of these
/// words gets something else: `echo` the request's headers and body, as they come, with status 201; `spin` nothing,
/// ever; `trap` a failure; `late` a failure after the head; `hang` a body that does not end; `none` no answer; `nth` the
/// last digit of the number of requests that the instance has had; `deny` the word `denied`, if a request to another host
/// is.
///
/// # Panics
/// With a name of more than 64 plain characters.
#[must_use]
pub fn service(name: &str) -> Vec<u8> {
    let is_plain = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    assert!(is_plain, "found {name:?}, expected at most 64 letters and digits");
    let wat = include_str!("service.wat")
        .replace("NAME_LENGTH", &name.len().to_string())
        .replace("\"NAME\"", &format!("\"{name}\""));
    component(&wat)
}

/// A service that asks others: what stands behind the `?` of a request is where it asks `GET /` over plain HTTP, as
/// `127.0.0.1:9000`. It passes the body of the answer on piece by piece, with its status; when there is no answer it says
/// 502 and, as one letter from `A`, which error code of `wasi:http` it was told.
#[must_use]
pub fn relay() -> Vec<u8> {
    component(include_str!("relay.wat"))
}

fn component(wat: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("service.wit", include_str!("service.wit"));
    let package = package.unwrap_or_else(|error| panic!("{error:#}"));
    let world = resolve.packages[package].worlds["service"];
    let mut module = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}"));
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .unwrap_or_else(|error| panic!("embedding the world: {error:#}"));
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    let encoded = encoder.and_then(|mut encoder| encoder.encode());
    encoded.unwrap_or_else(|error| panic!("making a component: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_component() {
        assert!(service("hello").starts_with(b"\0asm") && relay().starts_with(b"\0asm"));
    }
}
