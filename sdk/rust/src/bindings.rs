//! The contract as it is, generated from `wit/`: for what has no shorter way in this crate.
//!
//! What every module offers is one world, and what only some do is a world each, which are in a component as far as
//! [`export!`](crate::export) names them. Imports that are not used are not in the component.
#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]

wit_bindgen::generate!({
    path: "wit",
    inline: "
        package aegis:rust;

        world module {
            include aegis:module/host-common@1.0.0;
            import aegis:module/spec@1.0.0;
            import aegis:module/documents@1.0.0;
            import aegis:module/events@1.0.0;
            import aegis:module/http@1.0.0;
            import aegis:module/models@1.0.0;
            export aegis:module/identity@1.0.0;
            export aegis:module/describe-model@1.0.0;
            export aegis:module/hooks@1.0.0;
            export aegis:module/commands@1.0.0;
            export aegis:module/lifecycle@1.0.0;
        }
    ",
    world: "aegis:rust/module",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_bindings",
    default_bindings_module: "aegis_module::bindings",
});

/// Hooks over documents that the host holds.
pub mod document_hooks {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package aegis:rust; world document-hooks { export aegis:module/document-hooks@1.0.0; }",
        world: "aegis:rust/document-hooks",
        with: {
            "aegis:module/types@1.0.0": crate::bindings::aegis::module::types,
            "aegis:module/documents@1.0.0": crate::bindings::aegis::module::documents,
        },
        pub_export_macro: true,
        export_macro_name: "export_document_hooks",
        default_bindings_module: "aegis_module::bindings::document_hooks",
    });
}

/// Handlers of events.
pub mod events {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package aegis:rust; world events { export aegis:module/event-handlers@1.0.0; }",
        world: "aegis:rust/events",
        with: {
            "aegis:module/types@1.0.0": crate::bindings::aegis::module::types,
            "aegis:module/events@1.0.0": crate::bindings::aegis::module::events,
        },
        pub_export_macro: true,
        export_macro_name: "export_events",
        default_bindings_module: "aegis_module::bindings::events",
    });
}

/// State for the next version.
pub mod handover {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package aegis:rust; world handover { export aegis:module/handover@1.0.0; }",
        world: "aegis:rust/handover",
        with: { "aegis:module/types@1.0.0": crate::bindings::aegis::module::types },
        pub_export_macro: true,
        export_macro_name: "export_handover",
        default_bindings_module: "aegis_module::bindings::handover",
    });
}

/// Custom routes.
pub mod routes {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package aegis:rust; world routes { export aegis:module/routes@1.0.0; }",
        world: "aegis:rust/routes",
        with: {
            "aegis:module/types@1.0.0": crate::bindings::aegis::module::types,
            "aegis:module/spec@1.0.0": crate::bindings::aegis::module::spec,
        },
        pub_export_macro: true,
        export_macro_name: "export_routes",
        default_bindings_module: "aegis_module::bindings::routes",
    });
}
