//! Bindings to the contract with module authors, the WIT package in `wit/`.
//!
//! One small world per optional export: whether a component has it is found out by asking for it. The imports are bound
//! once and shared by all worlds.

/// What the host provides, and what every module must export.
pub(crate) mod base {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package aegis:host;
            world base {
                include aegis:module/host-common@1.0.0;
                import aegis:module/spec@1.0.0;
                import aegis:module/documents@1.0.0;
                import aegis:module/models@1.0.0;
                import aegis:module/ports@1.0.0;
                import aegis:module/events@1.0.0;
                import aegis:module/http@1.0.0;
                import aegis:module/inference@1.0.0;
                import aegis:module/bound-service@1.0.0;
                import aegis:module/inbound@1.0.0;
                export aegis:module/identity@1.0.0;
            }
        ",
        world: "aegis:host/base",
        with: {
            "aegis:module/secrets.secret": crate::imports::Secret,
            "aegis:module/documents.document": crate::documents::Document,
        },
        imports: {
            "aegis:module/models": async | trappable,
            "aegis:module/http": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

/// Export that makes a component a model.
pub(crate) mod describing {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "package aegis:host; world describing { export aegis:module/describe-model@1.0.0; }",
        world: "aegis:host/describing",
        with: {
            "aegis:module/types": crate::contract::base::aegis::module::types,
            "aegis:module/spec": crate::contract::base::aegis::module::spec,
        },
        exports: { default: async },
    });
}

/// Export of domain hooks.
pub(crate) mod hooking {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-hooks",
        with: { "aegis:module/types": crate::contract::base::aegis::module::types },
        exports: { default: async },
    });
}

/// Export of domain hooks over documents that the host holds.
pub(crate) mod documenting {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-document-hooks",
        with: {
            "aegis:module/types": crate::contract::base::aegis::module::types,
            "aegis:module/documents": crate::contract::base::aegis::module::documents,
        },
        exports: { default: async },
    });
}

/// Export of commands.
pub(crate) mod commanding {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-commands",
        with: { "aegis:module/types": crate::contract::base::aegis::module::types },
        exports: { default: async },
    });
}

/// Export of handlers of events.
pub(crate) mod handling {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-event-handlers",
        with: {
            "aegis:module/types": crate::contract::base::aegis::module::types,
            "aegis:module/events": crate::contract::base::aegis::module::events,
        },
        exports: { default: async },
    });
}

/// Export of the life of an instance.
pub(crate) mod living {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-lifecycle",
        with: { "aegis:module/types": crate::contract::base::aegis::module::types },
        exports: { default: async },
    });
}

/// Export of state that is handed to the next version.
pub(crate) mod handing {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-handover",
        with: { "aegis:module/types": crate::contract::base::aegis::module::types },
        exports: { default: async },
    });
}

/// Export of custom routes.
pub(crate) mod routing {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "aegis:module/has-routes",
        with: {
            "aegis:module/types": crate::contract::base::aegis::module::types,
            "aegis:module/spec": crate::contract::base::aegis::module::spec,
        },
        exports: { default: async },
    });
}

pub(crate) use base::aegis::module::{
    events, models,
    spec::{self, ModelSpec as WitModelSpec},
    types::{self, Fault, FaultCode},
};
