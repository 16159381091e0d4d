//! The adapters that decide about requests: which ones, and what is done when one of them fails.

use std::sync::Arc;

use adapter_runtime::{RoutingEvent, RoutingTable};
use model::RuntimeType;
use reconciler::LoadedAdapter;
use serde_json::{Map, Value};
use store::{NewEvent, Store};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A table of those that export `http-routing`, and what becomes of them.
pub fn table<'a>(
    adapters: impl IntoIterator<Item = (&'a RuntimeType, &'a Arc<LoadedAdapter>)>,
) -> (Arc<RoutingTable>, UnboundedReceiver<RoutingEvent>) {
    // An adapter is switched off once in its off-time at most: what waits here is little.
    let (sender, events) = unbounded_channel();
    let table = Arc::new(RoutingTable::new(move |event| {
        // When nobody listens any more, the host is stopping.
        let _ = sender.send(event.clone());
    }));
    for (runtime_type, loaded) in adapters {
        if let Some(component) = loaded.adapter.routing() {
            table.put(runtime_type.as_str(), component.clone());
        }
    }
    (table, events)
}

/// Rolls back what was switched off, where there is something to go back to, and writes down what happened.
pub async fn follow(table: Arc<RoutingTable>, mut events: UnboundedReceiver<RoutingEvent>, store: Store) {
    while let Some(event) = events.recv().await {
        let event = match event {
            RoutingEvent::SwitchedOff { adapter, sha256, error } => {
                let rolled_back_to = table.roll_back(&adapter, &sha256);
                match &rolled_back_to {
                    Some(to) => tracing::error!(
                        adapter, component.sha256 = sha256, rolled_back_to = to, %error,
                        "an adapter failed to decide about requests again and again: the version before it decides"
                    ),
                    None => tracing::error!(
                        adapter, component.sha256 = sha256, %error,
                        "an adapter failed to decide about requests again and again: requests for its deployments \
                         get 503 until it is let try again; fix it, or give the host the version before it"
                    ),
                }
                let error = Value::from(error.to_string());
                let rolled_back_to = rolled_back_to.map_or(Value::Null, Value::from);
                let data = [("error", error), ("rolledBackTo", rolled_back_to)];
                new_event("adapter.routing-off", &adapter, sha256, data.into())
            }
            RoutingEvent::SwitchedOn { adapter, sha256 } => {
                tracing::info!(adapter, component.sha256 = sha256, "an adapter decides about requests again");
                new_event("adapter.routing-on", &adapter, sha256, Vec::new())
            }
        };
        if let Err(error) = store.event_append(event).await {
            tracing::warn!(%error, "an event about an adapter could not be written down");
        }
    }
}

fn new_event(name: &str, adapter: &str, sha256: String, more: Vec<(&str, Value)>) -> NewEvent {
    let mut data = Map::new();
    data.insert("adapter".to_owned(), adapter.into());
    data.insert("componentSha256".to_owned(), sha256.into());
    data.extend(
        more.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)),
    );
    NewEvent { name: name.to_owned(), data, ..NewEvent::default() }
}
