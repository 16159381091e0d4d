//! The host's side of `hythe:deployment@0.1.0`: the only `bindgen!` of the workspace.
//!
//! Always holds: what is generated stays behind the names of this module, and only `adapter-runtime`
//! uses them. The optional interfaces are loaded one by one (`control::GuestIndices` and so on), since a
//! component has those that it exports.
//!
//! Deliberately absent: any behaviour.

/// What a guest's `deployment` handle stands for. A call is about one deployment, so it holds nothing.
#[derive(Debug)]
pub struct DeploymentHandle;

/// What a guest's `machine` handle stands for: a machine that the call's deployment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineHandle {
    pub id: String,
    pub name: String,
}

pub mod routing;

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/deployment",
        world: "full-runtime-adapter",
        imports: {
            "hythe:deployment/host.send": async | trappable,
            "hythe:deployment/host.[method]deployment.set-locator": async | trappable,
            "hythe:deployment/host.[method]deployment.machine": async | trappable,
            "hythe:deployment/host.[method]deployment.acquire-machine": async | trappable,
            "hythe:deployment/host.[method]deployment.release-machine": async | trappable,
            "hythe:deployment/host.[method]machine.send": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "hythe:deployment/host.deployment": super::DeploymentHandle,
            "hythe:deployment/host.machine": super::MachineHandle,
        },
    });
}

/// What an adapter imports.
pub use generated::hythe::deployment::host;
/// What both sides say.
pub use generated::hythe::deployment::types;

pub use generated::exports::hythe::deployment::{control, health_check, logs, project_deployment};
