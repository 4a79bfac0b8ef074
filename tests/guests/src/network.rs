//! Modules that reach other systems, or try to.

use serde_json::json;

use crate::{
    body::{Body, pass_fault_on},
    guest::Guest,
    system::{with_system, write_error},
};

/// `GET` and what else a request of these guests has: the address is the only member of the arguments, `{"url":"…"}`.
const URL: &str =
    "(i32.add (local.get $args) (i32.const 8)) (i32.sub (local.get $args_length) (i32.const 10))";
/// No header fields, no body, no bounds of its own.
const REST: &str = "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)";

/// A model whose commands ask other systems; the address is in the arguments, `{"url":"…"}` without spaces. Endpoint
/// `callers`, any properties.
///
/// - `fetch` answers the body of what is there, which has to be JSON.
/// - `pay` does the same with the secret `stripe` in `Authorization: Bearer …`.
/// - `both` asks twice at once and answers the body of the second answer.
/// - `tell` refuses (`invalid`) with the text of the secret `stripe`, after a line in the log that has it too.
/// - `panic` writes the text of the secret `stripe` to its standard error and traps.
/// - `hoard` opens the secret `stripe` again and again.
#[must_use]
pub fn caller() -> Guest {
    let panic = PANIC.replace("REVEAL_FAULT", &pass_fault_on("secrets_secret_reveal"));
    let panic = Body::from(panic).calling("secrets", "[method]secret.reveal");
    let panic = open("stripe").then(panic).then(write_error(REVEALED)).then("unreachable");
    let hoard = format!("(loop $again {} (br $again)) unreachable", open("stripe").wat);
    let hoard = Body { wat: hoard, ..open("stripe") };
    with_system(Guest::model(json!({ "name": "caller", "endpoint": "callers", "version": "1.0.0" })))
        .command("fetch", fetch())
        .command("pay", open("stripe").then(pay()))
        .command("both", both())
        .command("tell", tell())
        .command("panic", panic)
        .command("hoard", hoard)
}

/// Refuses (`invalid`) with the text of the secret `stripe`, after a line in the log that has it too.
#[must_use]
pub fn tell() -> Body {
    let tell = TELL.replace("REVEAL_FAULT", &pass_fault_on("secrets_secret_reveal"));
    let tell = Body::from(tell).calling("secrets", "[method]secret.reveal").calling("log", "write");
    open("stripe").then(tell)
}

/// `$i` is the handle of a secret afterwards.
fn open(name: &str) -> Body {
    let mut body = Body::default();
    let name = body.text(name);
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $secrets_open_size)))
         (call $secrets_open {name} (local.get $k))
         {fault}
         (local.set $i (i32.load (i32.add (local.get $k) (global.get $secrets_open_ok))))",
        fault = pass_fault_on("secrets_open")
    );
    body.calling("secrets", "open")
}

const TELL: &str = "
    (local.set $k (call $allocate (global.get $secrets_secret_reveal_size)))
    (call $secrets_secret_reveal (local.get $i) (local.get $k))
    REVEAL_FAULT
    (call $log_write (i32.const 4)
      (i32.load (i32.add (local.get $k) (global.get $secrets_secret_reveal_ok)))
      (i32.load (i32.add (local.get $k) (global.get $secrets_secret_reveal_ok_length)))
      (i32.const 0) (i32.const 0))
    (call $refuse (global.get $fault_invalid)
      (i32.load (i32.add (local.get $k) (global.get $secrets_secret_reveal_ok)))
      (i32.load (i32.add (local.get $k) (global.get $secrets_secret_reveal_ok_length))))";

const PANIC: &str = "
    (local.set $k (call $allocate (global.get $secrets_secret_reveal_size)))
    (call $secrets_secret_reveal (local.get $i) (local.get $k))
    REVEAL_FAULT";
/// The text of a secret that was revealed to `$k`.
const REVEALED: &str = "(i32.load (i32.add (local.get $k) (global.get $secrets_secret_reveal_ok)))
    (i32.load (i32.add (local.get $k) (global.get $secrets_secret_reveal_ok_length)))";

/// Answers the body at `$k`.
fn answer_body(import: &str) -> String {
    format!(
        "{fault}
         (call $answer
           (i32.load (i32.add (local.get $k) (global.get ${import}_ok_body)))
           (i32.load (i32.add (local.get $k) (global.get ${import}_ok_body_length))))",
        fault = pass_fault_on(import)
    )
}

fn fetch() -> Body {
    let mut body = Body::default();
    let get = body.text("GET");
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $http_send_size)))
         (call $http_send {get} {URL} {REST} (local.get $k))
         {}",
        answer_body("http_send")
    );
    body.calling("http", "send")
}

fn pay() -> Body {
    let mut body = Body::default();
    let (get, scheme) = (body.text("GET"), body.text("Bearer"));
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $http_send_authorized_size)))
         (call $http_send_authorized {get} {URL} {REST} {scheme} (local.get $i) (local.get $k))
         {}",
        answer_body("http_send_authorized")
    );
    body.calling("http", "send-authorized")
}

/// A request in a list has 48 bytes: four pairs of address and length, two options.
fn both() -> Body {
    let mut body = Body::default();
    let get = body.text("GET");
    let pair = |at: u32, pair: &str| {
        format!(
            "{pair} (local.set $j) (local.set $k)
             (i32.store (i32.add (local.get $i) (i32.const {at})) (local.get $k))
             (i32.store (i32.add (local.get $i) (i32.const {length})) (local.get $j))",
            length = at + 4
        )
    };
    let request = |at: u32| format!("{} {}", pair(at, &get), pair(at + 8, URL));
    body.wat = format!(
        "(local.set $i (call $allocate (i32.const 96)))
         (memory.fill (local.get $i) (i32.const 0) (i32.const 96))
         {} {}
         (local.set $k (call $allocate (global.get $http_send_all_size)))
         (call $http_send_all (local.get $i) (i32.const 2) (local.get $k))
         (if (i32.ne (i32.load (i32.add (local.get $k) (i32.const 4))) (i32.const 2)) (then unreachable))
         (local.set $k (i32.add (i32.load (local.get $k)) (global.get $http_send_size)))
         {}",
        request(0),
        request(48),
        answer_body("http_send")
    );
    body.calling("http", "send-all").calling("http", "send")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_a_component() {
        assert!(caller().build().starts_with(b"\0asm"));
    }
}
