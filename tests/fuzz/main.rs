//! The bodies of the fuzz targets over a few seeds, cut and bent: they keep compiling and find what is easy to find.
//!
//! The targets themselves are a workspace of their own, because the fuzzer needs a special build.

#[path = "../../fuzz/bodies/frames.rs"]
mod frames;
#[path = "../../fuzz/bodies/json.rs"]
mod json;
#[path = "../../fuzz/bodies/query.rs"]
mod query;

use aegis_ipc::{
    brief,
    data::{Attach, Change, ChangeKind, Expect, Operation, Outcome, ToStore, Write},
    frame,
};

/// Gives a body each seed, each of its beginnings, and each variant with one byte changed.
fn bend(seeds: &[&[u8]], body: fn(&[u8])) {
    for seed in seeds {
        for length in 0..=seed.len() {
            body(&seed[..length]);
        }
        for at in 0..seed.len() {
            for change in [0x01, 0x20, 0x80, 0xff] {
                let mut bent = seed.to_vec();
                bent[at] ^= change;
                body(&bent);
            }
        }
    }
}

#[test]
fn bent_frames_and_messages_are_refused_in_order() {
    let attach =
        Attach { protocol: 1, incarnation: 2, cell: 3, generation: 4, applied: Some(5), brief: true };
    let operation = Operation {
        model: "TODO".to_owned(),
        id: "a".to_owned(),
        expect: Expect::At(6),
        revision: 7,
        body: Some(b"{}".as_slice().into()),
        changes: Some(b"{}".as_slice().into()),
    };
    let write = Write { request: 8, operations: vec![operation], idempotency: None };
    let mut wire = Vec::new();
    frame::write_message(&ToStore::Attach(attach), &mut wire).unwrap();
    let write = ToStore::Write(write);
    frame::write_message(&write, &mut wire).unwrap();
    brief::write_to_store(&write, &mut wire).unwrap();
    let kind = ChangeKind::Remove { id: "a".to_owned(), revision: 7 };
    let change = Change { sequence: 9, model: "TODO".to_owned(), kind, time_ms: 10 };
    brief::write_feed(9, 9, &[change], &mut wire).unwrap();
    brief::write_outcome(8, Outcome::Committed { first: 9, last: 9 }, &mut wire).unwrap();
    let bare = &wire[frame::FRAME_HEADER_BYTES..];
    bend(&[&wire, bare], frames::body);
}

#[test]
fn bent_bodies_of_clients_are_refused_or_stored_as_documents() {
    let seeds: [&[u8]; 4] = [
        br#"{"text":"a\u00e9\n","n":-12,"email":"a@b.example","more":[1.5e3,null,true,{"x":{}}]}"#,
        br#"[{"op":"test","path":"/text","value":1},{"op":"move","from":"/n","path":"/more/0"}]"#,
        br#"{"id":"d1","revision":7,"createTime":"2026-01-01T00:00:00.000Z"}"#,
        b"[[[[[[[[\"\\ud800\"]]]]]]]]",
    ];
    bend(&seeds, json::body);
}

#[test]
fn bent_queries_are_refused_or_understood() {
    let seeds: [&[u8]; 4] = [
        b"n=1&text=a%20b&__limit=10&__sort=-n,text&__select=text,id",
        b"n__gte=1&n__lt=5&when__gt=2026-11-10T00:00:00Z&__operand=or&__skip=2",
        b"text__ilike=row*&__aggregate=[{\"$match\":{\"n\":{\"$gt\":1}}},{\"$group\":{\"_id\":\"$text\"}}]",
        b"__cursor=abc&__page=3&n__in=1,2,3&__count=all&=&&%zz=%",
    ];
    bend(&seeds, query::body);
}
