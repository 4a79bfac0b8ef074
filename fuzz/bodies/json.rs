//! Bodies of clients: no panic; what is accepted can be created, read back and patched.

use std::sync::LazyLock;

use aegis_domain::{
    catalog::Catalog,
    document::{self, Stamp},
    json, module,
};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let text = "name = \"todo\"\n[fields]\ntext = \"text\"\nn = { kind = \"integer\", indexed = true }\nemail = { kind = \"text\", unique = true }\n";
    let spec = module::parse(text, "fuzz").expect("the module is valid");
    Catalog::build(vec![spec]).expect("the catalog is valid")
});

/// What a target does with the bytes it is given.
pub(crate) fn body(bytes: &[u8]) {
    let Ok(value) = json::parse(bytes) else { return };
    let model = &CATALOG.models()[0];
    let stamp = Stamp { now_ms: 1_700_000_000_000, fresh_id: "fresh".to_owned() };
    if let Ok(draft) = document::create(model, value.clone(), &stamp) {
        json::parse(&draft.body).expect("a stored document is JSON");
        document::unique_values(model, &draft.body).expect("its unique values can be found");
        let _ = document::merge(model, &draft.body, value.clone(), stamp.now_ms + 1);
        let _ = document::patch(model, &draft.body, value, stamp.now_ms + 1);
    }
}
