//! `http-routing`, apart from the rest: on a request's path what goes into a guest is borrowed, and calls are
//! synchronous.

/// Those of the contract's types that `http-routing` uses, borrowed and owned. By hand, since `bindgen!` can't
/// borrow all of the interface.
pub mod types {
    use wasmtime::component::{ComponentType, Lift, Lower};

    // What `bindgen!` looks for in a module that stands in for its own.
    pub use crate::types::{Host, HostWithStore, add_to_linker};

    pub type JsonParam<'a> = &'a str;
    pub type ExtensionsParam<'a> = &'a [(&'a str, JsonParam<'a>)];
    pub type ExtensionsResult = Vec<(String, String)>;

    #[derive(Debug, Clone, Copy, ComponentType, Lower)]
    #[component(record)]
    pub struct HeaderParam<'a> {
        pub name: &'a str,
        pub value: &'a [u8],
    }

    #[derive(Debug, Clone, ComponentType, Lift, Lower)]
    #[component(record)]
    pub struct HeaderResult {
        pub name: String,
        pub value: Vec<u8>,
    }
}

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/deployment",
        inline: "
            package hythe:bindings;
            world routing { export hythe:deployment/http-routing@0.1.0; }
        ",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "hythe:deployment/types": super::types },
    });
}

pub use generated::exports::hythe::deployment::http_routing::*;
