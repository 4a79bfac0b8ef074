//! Query strings of clients: no panic, no unbounded work.

#![no_main]

use std::sync::LazyLock;

use aegis_domain::{
    catalog::Catalog,
    module,
    query::{Bounds, Query},
};
use libfuzzer_sys::fuzz_target;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let text = "name = \"todo\"\n[fields]\ntext = \"text\"\nn = { kind = \"integer\", indexed = true }\nwhen = \"timestamp\"\n";
    let spec = module::parse(text, "fuzz").expect("the module is valid");
    Catalog::build(vec![spec]).expect("the catalog is valid")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let bounds = Bounds { scan_max: 1000, limit_default: 100, limit_max: 1000 };
    let _ = Query::parse(&CATALOG.models()[0], text, &bounds);
});
