//! What hooks do with documents that the host holds. A handle is in `$input`, `$after`, `$current` and so on; it is given
//! back before the hook answers.

use crate::body::{Body, agree, pass_fault_on, refuse};

/// Gives a handle back.
#[must_use]
pub fn give_back(document: &str) -> Body {
    Body::from(format!("(call $documents_document (local.get ${document}))"))
        .calling("documents", "[resource-drop]document")
}

/// Puts JSON at a place. What the host says against it is what the hook says.
#[must_use]
pub fn put(document: &str, pointer: &str, value: &str) -> Body {
    let mut body = Body::default();
    let (pointer, value) = (body.text(pointer), body.text(value));
    let fault = pass_fault_on("documents_document_set_json");
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $documents_document_set_json_size)))
         (call $documents_document_set_json (local.get ${document}) {pointer} {value} (local.get $k))
         (if (i32.load8_u (local.get $k)) (then
           (call $documents_document (local.get ${document})) {fault}))"
    );
    body.calling("documents", "[method]document.set-json").calling("documents", "[resource-drop]document")
}

/// Does this only where the JSON of a document has a text in it, and the rest otherwise.
#[must_use]
pub fn when_document_holds(document: &str, wanted: &str, then: Body) -> Body {
    let mut condition = Body::default();
    let text = condition.text(wanted);
    condition.wat = format!(
        "(local.set $k (call $allocate (i32.const 16)))
         (call $documents_document_to_json (local.get ${document}) (i32.const 0) (i32.const 0) (local.get $k))
         (if (call $holds (i32.load (i32.add (local.get $k) (i32.const 4)))
               (i32.load (i32.add (local.get $k) (i32.const 8))) {text}) (then"
    );
    condition.calling("documents", "[method]document.to-json").then(then).then("(return)))")
}

/// Merges changes into a document: null removes.
#[must_use]
pub fn merge_into(document: &str, changes: &str) -> Body {
    Body::from(format!("(call $merge_documents (local.get ${document}) (local.get ${changes}))"))
        .calling("documents", "[method]document.keys")
        .calling("documents", "[method]document.to-json")
        .calling("documents", "[method]document.set-json")
        .calling("documents", "[method]document.remove")
}

/// The function that [`merge_into`] calls. Names need no escapes.
pub const MERGE: &str = "
(func $merge_documents (param $document i32) (param $changes i32)
  (local $list i32) (local $count i32) (local $number i32) (local $at i32) (local $length i32) (local $k i32)
  (local.set $k (call $allocate (i32.const 16)))
  (call $documents_document_keys (local.get $changes) (i32.const 0) (i32.const 0) (local.get $k))
  (local.set $list (i32.load (local.get $k)))
  (local.set $count (i32.load (i32.add (local.get $k) (i32.const 4))))
  (block $over (loop $next
    (br_if $over (i32.eq (local.get $number) (local.get $count)))
    (local.set $k (i32.add (local.get $list) (i32.mul (local.get $number) (i32.const 8))))
    (local.set $length (i32.add (i32.load (i32.add (local.get $k) (i32.const 4))) (i32.const 1)))
    (local.set $at (call $allocate (local.get $length)))
    (i32.store8 (local.get $at) (i32.const 47))
    (memory.copy (i32.add (local.get $at) (i32.const 1)) (i32.load (local.get $k))
      (i32.sub (local.get $length) (i32.const 1)))
    (local.set $k (call $allocate (i32.const 16)))
    (call $documents_document_to_json
      (local.get $changes) (local.get $at) (local.get $length) (local.get $k))
    (if (i32.eq (i32.load (i32.load (i32.add (local.get $k) (i32.const 4)))) (i32.const 0x6c6c756e))
      (then (drop (call $documents_document_remove
        (local.get $document) (local.get $at) (local.get $length))))
      (else (call $documents_document_set_json
        (local.get $document) (local.get $at) (local.get $length)
        (i32.load (i32.add (local.get $k) (i32.const 4))) (i32.load (i32.add (local.get $k) (i32.const 8)))
        (call $allocate (global.get $documents_document_set_json_size)))))
    (local.set $number (i32.add (local.get $number) (i32.const 1)))
    (br $next))))";

/// Refuses (`conflict`) where a property is true, and agrees otherwise; gives the handle back.
#[must_use]
pub fn refuse_where_true(document: &str, pointer: &str, message: &str) -> Body {
    let mut body = Body::default();
    let place = body.text(pointer);
    body.wat = format!(
        "(local.set $k (call $allocate (i32.const 32)))
         (call $documents_document_get (local.get ${document}) {place} (local.get $k))
         (call $documents_document (local.get ${document}))
         (if (i32.and (i32.load8_u (local.get $k)) (i32.and
               (i32.eq (i32.load8_u (i32.add (local.get $k) (i32.const 8))) (i32.const 1))
               (i32.load8_u (i32.add (local.get $k) (i32.const 16))))) (then"
    );
    body.calling("documents", "[method]document.get")
        .calling("documents", "[resource-drop]document")
        .then(refuse("conflict", message))
        .then("(return)))")
        .then(agree())
}

/// Asks a document for a property as often as this, all at once, and gives the handle back.
#[must_use]
pub fn ask_many(document: &str, pointer: &str, times: u32) -> Body {
    let mut body = Body::default();
    let place = body.text(pointer);
    body.wat = format!(
        "(local.set $i (call $allocate (i32.const {bytes})))
         (local.set $j (local.get $i))
         (loop $next
           (call $store_pair (local.get $j) {place})
           (local.set $j (i32.add (local.get $j) (i32.const 8)))
           (br_if $next (i32.lt_u (local.get $j) (i32.add (local.get $i) (i32.const {bytes})))))
         (local.set $k (call $allocate (i32.const 8)))
         (call $documents_document_get_many
           (local.get ${document}) (local.get $i) (i32.const {times}) (local.get $k))
         (call $documents_document (local.get ${document}))",
        bytes = times * 8,
    );
    body.calling("documents", "[method]document.get-many")
        .calling("documents", "[resource-drop]document")
        .then(agree())
}

/// Puts a text at the end of an array until the host says no, which is what it says then.
#[must_use]
pub fn put_for_ever(document: &str, pointer: &str, value: &str) -> Body {
    Body::from("(loop $again").then(put(document, pointer, value)).then("(br $again)) unreachable")
}
