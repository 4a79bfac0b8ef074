use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
}

fn any_change() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        ("[a-z]{1,9}", any::<u64>(), bytes(), prop::option::of(bytes()))
            .prop_map(|(id, revision, body, changes)| ChangeKind::Put { id, revision, body, changes }),
        ("\\PC{1,9}", any::<u64>()).prop_map(|(id, revision)| ChangeKind::Remove { id, revision }),
        Just(ChangeKind::Truncate),
    ];
    (any::<u64>(), "[A-Z]{1,64}", kind, any::<u64>()).prop_map(|(sequence, model, kind, time_ms)| Change {
        sequence,
        model,
        kind,
        time_ms,
    })
}

proptest! {
    #[test]
    fn changes_read_back(change in any_change()) {
        let mut record = Vec::new();
        write_change(&change, &mut record);
        let head = read_head(&record).unwrap();
        prop_assert_eq!(head.sequence, change.sequence);
        prop_assert_eq!(read_change(&record.into()).unwrap(), change);
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_noticed(change in any_change(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut record = Vec::new();
        write_change(&change, &mut record);
        let at = at.index(record.len());
        let cut = Bytes::copy_from_slice(&record[..at]);
        prop_assert!(read_change(&cut).is_err());
        record[at] ^= 1 << bit;
        prop_assert!(read_change(&record.into()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut sealed = bytes.clone();
        if sealed.len() > 4 {
            seal(&mut sealed);
        }
        for bytes in [bytes, sealed] {
            let _ = read_number_key(&bytes);
            let _ = read_unique_key(&bytes);
            let _ = read_age_key(&bytes);
            let _ = read_dropped_key(&bytes);
            let _ = read_index(&bytes, &bytes);
            let _ = read_requests(1, &bytes);
            let bytes = Bytes::from(bytes);
            let _ = read_change(&bytes);
            let _ = read_response(&bytes);
        }
    }

    #[test]
    fn responses_and_requests_read_back(
        key in "\\PC{0,400}",
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 2),
        numbers in prop::collection::vec(any::<[u64; 4]>(), 0..5),
    ) {
        let response = KeptResponse {
            key,
            fingerprint: parts[0].clone().into(),
            response: parts[1].clone().into(),
            sequence: 7,
            time_ms: 9,
        };
        prop_assert_eq!(read_response(&write_response(&response).into()).unwrap(), response);
        let writes = numbers
            .into_iter()
            .map(|[incarnation, request, first, last]| CommittedWrite { incarnation, request, first, last })
            .collect();
        let group = RequestGroup { number: 3, time_ms: 5, writes };
        prop_assert_eq!(read_requests(3, &write_requests(&group)).unwrap(), group);
    }

    #[test]
    fn keys_of_different_documents_differ(a in ("[A-Z]{1,5}", "[A-Za-z]{0,5}"), b in ("[A-Z]{1,5}", "[A-Za-z]{0,5}")) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        document_key(&a.0, &a.1, &mut left);
        document_key(&b.0, &b.1, &mut right);
        prop_assert_eq!(a == b, left == right);
    }
}

#[test]
fn keys_have_a_bounded_length_and_order_by_number() {
    let long = UniqueKey::new(1, &[b'x'; 100_000]);
    assert_eq!(unique_key(&long).len(), 4 + 1 + 32);
    assert_eq!(read_unique_key(&unique_key(&long)).unwrap(), long);
    assert_eq!(response_key(&bounded(&[b'x'; 100_000])).len(), 1 + 1 + 32);
    assert_ne!(bounded(&[b'x'; 256]), bounded(&[b'x'; 257]));
    assert!(number_key(255) < number_key(256));
    let age = KeptAge { time_ms: 5, sequence: 6, key: vec![0, b'k'] };
    assert_eq!(read_age_key(&age_key(&age)).unwrap(), age);
    assert_eq!(read_dropped_key(&dropped_key(300)).unwrap(), 300);
}

#[test]
fn indexes_of_fields_with_slashes_read_back() {
    let name = IndexName { model: "ORDER".into(), field: "a/b/c".into() };
    let row = IndexRow { name, number: 70_000, state: IndexState::Complete };
    assert_eq!(read_index(&index_key(&row.name), &write_index(&row)).unwrap(), row);
}

#[test]
fn the_layout_of_a_change_is_pinned() {
    let written = |changes: Option<&'static [u8]>| -> String {
        let body = Bytes::from_static(b"{}");
        let changes = changes.map(Bytes::from_static);
        let kind = ChangeKind::Put { id: "i".into(), revision: 3, body, changes };
        let change = Change { sequence: 0x0102, model: "M".into(), kind, time_ms: 4 };
        let mut record = Vec::new();
        write_change(&change, &mut record);
        record.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    // As in format 1.
    insta::assert_snapshot!(written(None), @"ff5ec442010101000201000000000000040000000000000003000000000000004d697b7d");
    insta::assert_snapshot!(written(Some(b"[]")), @"3ff89b2a040101000201000000000000040000000000000003000000000000004d69020000005b5d7b7d");
}
