//! Connections to machines' daemons, one client a machine.

use std::collections::HashMap;
use std::sync::Arc;

use agent_client::{AgentClient, AgentEndpoint, HostIdentity};
use model::MachineId;
use parking_lot::Mutex;
use store::{Store, StoreError};

/// Clients by machine. A client is made from the machine's row at its first use and forgotten when the
/// row changes.
#[derive(Clone)]
pub struct Machines {
    store: Store,
    identity: Arc<HostIdentity>,
    clients: Arc<Mutex<HashMap<MachineId, AgentClient>>>,
}

impl Machines {
    #[must_use]
    pub fn new(store: Store, identity: Arc<HostIdentity>) -> Self {
        Self { store, identity, clients: Arc::default() }
    }

    /// The machine's daemon.
    ///
    /// # Errors
    /// Those of the store, where the client must be made first.
    pub async fn client(&self, machine: MachineId) -> Result<AgentClient, StoreError> {
        if let Some(client) = self.clients.lock().get(&machine) {
            return Ok(client.clone());
        }
        let connection = self.store.machine_connection(machine).await?;
        let client = AgentClient::new(
            &self.identity,
            AgentEndpoint {
                machine_id: machine.to_string(),
                address: connection.address,
                port: connection.port,
                shared_key: connection.shared_key.as_bytes().to_vec().into(),
                certificate_sha256: connection.certificate_sha256,
            },
        );
        Ok(self.clients.lock().entry(machine).or_insert(client).clone())
    }

    /// The machine's row has changed.
    pub fn forget(&self, machine: MachineId) {
        self.clients.lock().remove(&machine);
    }

    /// Any row may have changed.
    pub fn forget_all(&self) {
        self.clients.lock().clear();
    }
}
