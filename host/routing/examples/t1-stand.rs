//! Ingress with an adapter that decides about requests, and without a host: the same file as ingress' own
//! `stand`, with `"adapter": "file.wasm"` and, where it needs settings, `"adapterConfig": …`.

#[path = "../../ingress/examples/stand/program.rs"]
mod program;

use std::sync::Arc;

use adapter_runtime::{AdapterRuntime, RoutingTable, RuntimeConfig};
use ingress::RouterFactory;
use program::{ADAPTER, Failure};
use routing::AdapterRouters;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    program::run(load).await
}

async fn load(bytes: Vec<u8>) -> Result<Arc<dyn RouterFactory>, Failure> {
    let runtime = AdapterRuntime::new(RuntimeConfig::default())?;
    let adapter = runtime.load(ADAPTER, &bytes).await?;
    let component = adapter.routing().ok_or("the adapter does not export http-routing")?;
    let table = Arc::new(RoutingTable::new(|event| tracing::error!(?event, "the adapter was switched")));
    table.put(ADAPTER, component.clone());
    Ok(Arc::new(AdapterRouters::new(table)))
}
