//! Query strings of clients: no panic, no unbounded work, and an answer that is JSON.

use std::{collections::HashMap, sync::LazyLock};

use aegis_domain::{
    catalog::Catalog,
    json, module,
    query::{Bounds, Effort, Query, Step},
    table::{CacheBounds, Table},
};
use bytes::Bytes;

/// Documents in the table.
const DOCUMENTS: u64 = 100;
/// Documents whose bodies stay in the cache; those of the others have to be fetched.
const CACHED: u64 = 50;
/// Steps that one answer may take: each looks at documents or fetches some, and there are few.
const STEPS_MAX: u64 = 10 * DOCUMENTS;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let text = "name = \"todo\"\n[fields]\ntext = \"text\"\nn = { kind = \"integer\", indexed = true }\nwhen = \"timestamp\"\n";
    let spec = module::parse(text, "fuzz").expect("the module is valid");
    Catalog::build(vec![spec]).expect("the catalog is valid")
});

/// The table, and the bodies by the number of the change that wrote them.
static TABLE: LazyLock<(Table, HashMap<u64, Bytes>)> = LazyLock::new(|| {
    let bounds = CacheBounds { bytes_max: u64::MAX, documents_max: Some(CACHED) };
    let mut table = Table::new(&CATALOG.models()[0], bounds);
    let mut bodies = HashMap::new();
    for number in 1..=DOCUMENTS {
        let text = match number % 3 {
            0 => "null".to_owned(),
            _ => format!("\"row {}\"", number % 7),
        };
        let body = Bytes::from(format!(
            "{{\"id\":\"d{number}\",\"text\":{text},\"n\":{},\"when\":\"2026-11-{:02}T04:10:55.832Z\"}}",
            number % 10,
            number % 28 + 1,
        ));
        bodies.insert(number, body.clone());
        table.put(&format!("d{number}"), 1, number, body);
    }
    (table, bodies)
});

/// What a target does with the bytes it is given.
pub(crate) fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let bounds = Bounds { scan_max: 1000, limit_default: 100, limit_max: 1000 };
    let Ok(query) = Query::parse(&CATALOG.models()[0], text, &bounds) else { return };
    let (table, bodies) = &*TABLE;
    let Ok(mut plan) = table.plan(&query) else { return };
    let mut fetched = Vec::new();
    for _ in 0..STEPS_MAX {
        let Ok(step) = plan.step(fetched, Effort::Long) else { return };
        (plan, fetched) = match step {
            Step::Done(page) => {
                json::parse(&page.body).expect("an answer is JSON");
                return;
            }
            Step::Look(next) => (table.look(next).expect("the table never changes"), Vec::new()),
            Step::Pause(next) => (next, Vec::new()),
            Step::Fetch(next, wanted) => {
                let fetched = wanted.iter().map(|wanted| bodies[&wanted.sequence].clone()).collect();
                (next, fetched)
            }
        };
    }
    panic!("no answer after {STEPS_MAX} steps");
}
