use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn change() -> impl Strategy<Value = Change> {
    let put = (".{0,9}", any::<u64>(), bytes(), prop::option::of(bytes()))
        .prop_map(|(id, revision, body, changes)| ChangeKind::Put { id, revision, body, changes });
    let remove = (".{0,9}", any::<u64>()).prop_map(|(id, revision)| ChangeKind::Remove { id, revision });
    let kind = prop_oneof![put, remove, Just(ChangeKind::Truncate)];
    (any::<u64>(), "[A-Z]{0,9}", kind, any::<u64>()).prop_map(|(sequence, model, kind, time_ms)| Change {
        sequence,
        model,
        kind,
        time_ms,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let expect = prop_oneof![Just(Expect::Absent), any::<u64>().prop_map(Expect::At)];
    let content = prop::option::of((bytes(), prop::option::of(bytes())));
    ("[A-Z]{0,9}", ".{0,9}", expect, any::<u64>(), content).prop_map(
        |(model, id, expect, revision, content)| {
            let (body, changes) =
                content.map_or((None, None), |(body, changes): (Bytes, Option<Bytes>)| (Some(body), changes));
            Operation { model, id, expect, revision, body, changes }
        },
    )
}

fn idempotency() -> impl Strategy<Value = Idempotency> {
    (".{0,9}", bytes(), bytes()).prop_map(|(key, fingerprint, response)| Idempotency {
        key,
        fingerprint,
        response,
    })
}

fn payload(frame: &[u8]) -> Bytes {
    frame::take(&mut BytesMut::from(frame)).unwrap().unwrap()
}

proptest! {
    #[test]
    fn a_feed_is_read_as_it_was_written(
        first: u64, last: u64, changes in prop::collection::vec(change(), 0..5)
    ) {
        let mut frame = Vec::new();
        write_feed(first, last, &changes, &mut frame).unwrap();
        prop_assert_eq!(read_from_store(&payload(&frame)).unwrap(), FromStore::Feed { first, last, changes });
    }

    #[test]
    fn a_write_is_read_as_it_was_written_also_by_a_store_that_reads_the_plain_form_only(
        request: u64,
        operations in prop::collection::vec(operation(), 0..5),
        idempotency in prop::option::of(idempotency()),
    ) {
        let message = ToStore::Write(Write { request, operations, idempotency });
        let (mut brief, mut plain) = (Vec::new(), Vec::new());
        write_to_store(&message, &mut brief).unwrap();
        prop_assert_eq!(&read_to_store(&payload(&brief)).unwrap(), &message);
        write_plainly(&brief, &mut plain).unwrap();
        prop_assert_eq!(codec::decode::<ToStore>(&payload(&plain)).unwrap(), message);
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0_u8..5, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let payload = [vec![MARK, kind], rest].concat();
        let _ = read_from_store(&payload);
        let _ = read_to_store(&payload);
    }
}

#[test]
fn only_what_every_write_causes_is_said_briefly() {
    let resync = ToStore::Resync { applied: 7 };
    let refused = Outcome::Refused { reason: "no".to_owned() };
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    write_to_store(&resync, &mut asked).unwrap();
    write_outcome(1, refused.clone(), &mut answered).unwrap();
    assert_eq!(codec::decode::<ToStore>(&payload(&asked)).unwrap(), resync);
    let refused = FromStore::Written { request: 1, outcome: refused };
    assert_eq!(codec::decode::<FromStore>(&payload(&answered)).unwrap(), refused);
    assert_eq!(read_from_store(&payload(&answered)).unwrap(), refused);

    let outcome = Outcome::Committed { first: 2, last: 3 };
    answered.clear();
    write_outcome(9, outcome.clone(), &mut answered).unwrap();
    assert_eq!(read_from_store(&payload(&answered)).unwrap(), FromStore::Written { request: 9, outcome });
}

#[test]
fn a_length_beyond_the_end_is_refused_and_named() {
    let mut frame = Vec::new();
    let change = Change { sequence: 1, model: "TODO".to_owned(), kind: ChangeKind::Truncate, time_ms: 5 };
    write_feed(1, 1, &[change], &mut frame).unwrap();
    let payload = payload(&frame);
    let error = read_from_store(&payload[..payload.len() - 1]).unwrap_err();
    insta::assert_snapshot!(error, @"a brief message of the store: found an end after 3 bytes, expected 4 bytes");
    let more = [&payload[..], &[0]].concat();
    let error = read_from_store(&more).unwrap_err();
    insta::assert_snapshot!(error, @"a brief message of the store: found an end after 0 bytes, expected 4 bytes");
}
