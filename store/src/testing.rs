//! Things that several tests need.

use std::time::Duration;

use aegis_config::settings;
use aegis_domain::{catalog, module, spec::ModelSpec};
use aegis_ipc::data::{Expect, Idempotency, Operation, Write};
use bytes::Bytes;

use crate::{
    catalog::{Generation, Settings},
    storage::Place,
};

/// Small bounds.
pub(crate) fn settings() -> Settings {
    Settings {
        store: settings::Store {
            log_changes_min: 1000,
            idempotency_time: Duration::from_secs(60),
            group_writes_max: 64,
            queue_writes_max: 256,
            feed_bytes_max: 1 << 20,
            engine_cache_bytes: 1 << 20,
        },
        default_place: Place::File,
        orphan_grace: Duration::from_secs(1),
        log: settings::Log {
            level: "info".to_owned(),
            format: settings::LogFormat::Text,
            file: None,
            requests: false,
        },
    }
}

/// Models from the text of their modules.
pub(crate) fn specs(modules: &[&str]) -> Vec<ModelSpec> {
    let parse =
        |text: &&str| module::parse(text, "module.toml").unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    modules.iter().map(parse).collect()
}

/// A generation from the text of its modules.
pub(crate) fn generation(number: u64, modules: &[&str]) -> Generation {
    let specs = specs(modules);
    let encoded = catalog::encode(&specs);
    Generation { number, settings: settings(), catalog: catalog::Catalog::build(specs).unwrap(), encoded }
}

/// A document body as the store sees it.
pub(crate) fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// An operation that creates a document.
pub(crate) fn create(model: &str, id: &str, text: &str) -> Operation {
    Operation {
        model: model.into(),
        id: id.into(),
        expect: Expect::Absent,
        revision: 1,
        body: Some(body(text)),
        changes: None,
    }
}

/// A write of one operation.
pub(crate) fn write(request: u64, operation: Operation) -> Write {
    Write { request, operations: vec![operation], idempotency: None }
}

/// An idempotency key with a response.
pub(crate) fn idempotency(key: &str, response: &str) -> Idempotency {
    Idempotency { key: key.into(), fingerprint: Bytes::from_static(b"fingerprint"), response: body(response) }
}
