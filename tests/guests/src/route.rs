//! What custom routes do. Parts of the request are in `$req_path`, `$req_query`, `$req_body` and so on.

use crate::body::Body;

/// Instructions that push the address and length of a parameter.
#[must_use]
pub fn whole(parameter: &str) -> String {
    format!("(local.get ${parameter}) (local.get ${parameter}_length)")
}

/// Instructions that push the address and length of the value of the first part in braces.
#[must_use]
pub fn first_part() -> String {
    "(i32.load (i32.add (local.get $req_params) (i32.const 8)))
     (i32.load (i32.add (local.get $req_params) (i32.const 12)))"
        .to_owned()
}

/// Instructions that push the address and length of the text of a number, which other instructions push (i64).
#[must_use]
pub fn digits(number: &str) -> String {
    format!("(call $digits {number})")
}

/// Answers over HTTP: a status that instructions push (i32), header fields, and a body whose address and length
/// instructions push.
#[must_use]
pub fn respond(status: &str, headers: &[(&str, &str)], content: &str) -> Body {
    let mut body = Body::default();
    let mut wat = format!(
        "{content} (local.set $j) (local.set $i)
         (local.set $k (call $allocate (i32.const {})))
         (local.set $n (i64.extend_i32_u (local.get $k)))\n",
        headers.len() * 16
    );
    for (number, (name, value)) in headers.iter().enumerate() {
        for (text, offset) in [(name, 0), (value, 8)] {
            let place = number * 16 + offset;
            let text = body.text(text);
            wat.push_str(&format!(
                "(call $store_pair (i32.add (local.get $k) (i32.const {place})) {text})\n"
            ));
        }
    }
    wat.push_str(&format!(
        "(local.set $k (call $allocate (global.get $response_size)))
         (i32.store8 (local.get $k) (i32.const 0))
         (i32.store16 (i32.add (local.get $k) (global.get $response_ok_status)) {status})
         (call $store_pair (i32.add (local.get $k) (global.get $response_ok_headers))
           (i32.wrap_i64 (local.get $n)) (i32.const {}))
         (call $store_pair (i32.add (local.get $k) (global.get $response_ok_body))
           (local.get $i) (local.get $j))
         (local.get $k)",
        headers.len()
    ));
    body.wat = wat;
    body
}
