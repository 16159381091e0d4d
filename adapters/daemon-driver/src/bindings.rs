//! The guest's side of the contract, generated.

wit_bindgen::generate!({
    path: "../../wit/deployment",
    world: "full-runtime-adapter",
    pub_export_macro: true,
    default_bindings_module: "daemon_driver::bindings",
    generate_all,
});
