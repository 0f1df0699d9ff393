//! What wit-bindgen makes of `wit/`, a module for each world. Plugins reach it through the rest of this crate.

#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// The world `broker-adapter`.
pub mod adapter {
    wit_bindgen::generate!({
        world: "broker-adapter",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "whimbrel_sdk::bindings::adapter",
        additional_derives: [PartialEq],
    });
}

/// The world `subscriber`.
pub mod subscriber {
    wit_bindgen::generate!({
        world: "subscriber",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "whimbrel_sdk::bindings::subscriber",
    });
}
