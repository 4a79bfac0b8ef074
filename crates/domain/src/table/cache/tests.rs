use bytes::Bytes;

use super::super::{CacheBounds, Lookup, Table};
use crate::query::tests::compile;

fn table(documents_max: u64) -> Table {
    let bounds = CacheBounds { bytes_max: 1 << 20, documents_max: Some(documents_max) };
    Table::new(&compile("name = \"thing\""), bounds)
}

fn put(table: &mut Table, id: usize) {
    table.put(&id.to_string(), 1, id as u64 + 1, Bytes::from(format!("{{\"id\":\"{id}\"}}")));
}

fn is_cached(table: &Table, id: usize) -> bool {
    let id = id.to_string();
    table.documents.find(&id).is_some_and(|slot| table.documents.slot(slot).body().is_some())
}

#[test]
fn what_is_read_survives_a_flood_of_what_is_not() {
    let mut table = table(100);
    (0..100).for_each(|id| put(&mut table, id));
    let hot = |table: &Table, id: usize| table.get(&(id % 50).to_string());
    (0..50).for_each(|id| assert!(matches!(hot(&table, id), Lookup::Hit { .. })));
    for id in 100..10_000 {
        put(&mut table, id);
        assert!(matches!(hot(&table, id), Lookup::Hit { .. }), "{id}");
    }
    assert_eq!(table.statistics().cached_documents, 100);
}

#[test]
fn bodies_that_are_filled_in_by_a_scan_do_not_push_out_what_is_read() {
    let mut table = table(100);
    (0..1000).for_each(|id| put(&mut table, id));
    let fill = |table: &mut Table, id: usize| {
        assert!(table.fill(&id.to_string(), id as u64 + 1, Bytes::from(format!("{{\"id\":\"{id}\"}}"))));
    };
    for id in 0..20 {
        fill(&mut table, id);
    }
    for id in 20..1000 {
        let hot = (id % 20).to_string();
        assert!(matches!(table.get(&hot), Lookup::Hit { .. }), "{hot} at {id}");
        fill(&mut table, id);
    }
}

#[test]
fn the_least_used_goes_first() {
    let mut table = table(3);
    (0..3).for_each(|id| put(&mut table, id));
    let _ = table.get("0");
    put(&mut table, 3);
    assert_eq!([0, 1, 2, 3].map(|id| is_cached(&table, id)), [true, false, true, true]);
    put(&mut table, 4);
    assert_eq!([0, 1, 2, 3, 4].map(|id| is_cached(&table, id)), [true, false, false, true, true]);
}

#[test]
fn what_could_never_fit_pushes_nothing_out() {
    let mut table =
        Table::new(&compile("name = \"thing\""), CacheBounds { bytes_max: 20, documents_max: None });
    put(&mut table, 1);
    table.put("2", 1, 9, Bytes::from(vec![b' '; 21]));
    assert!(is_cached(&table, 1) && !is_cached(&table, 2));
    table.put("1", 2, 10, Bytes::from(vec![b' '; 21]));
    assert_eq!(table.statistics().cached_bytes, 0);
    assert!(matches!(table.get("1"), Lookup::Evicted { revision: 2, sequence: 10 }));
}

#[test]
fn new_versions_of_evicted_documents_stay_outside() {
    let mut table = table(1);
    put(&mut table, 1);
    put(&mut table, 2);
    table.put("1", 2, 10, Bytes::from_static(b"{}"));
    assert!(!is_cached(&table, 1) && is_cached(&table, 2));
}
