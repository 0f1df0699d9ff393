//! What wasmtime makes of `wit/`, a module for each world.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// The world `broker-adapter`.
pub mod adapter {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "broker-adapter",
        imports: {
            "whimbrel:pubsub/net.[method]socket.send": store | trappable,
            "whimbrel:pubsub/net.[method]socket.receive": store | trappable,
            default: trappable,
        },
        exports: { default: async | store },
        with: { "whimbrel:pubsub/net.socket": crate::net::Socket },
        require_store_data_send: true,
    });
}

/// The world `subscriber`.
pub mod subscriber {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "subscriber",
        imports: {
            "whimbrel:pubsub/publisher": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        require_store_data_send: true,
    });
}
