//! The daemon's port: who may speak ([`connection`]), what is asked ([`routes`]), connections that are
//! carried ([`tunnel`]).

mod connection;
mod routes;
mod tunnel;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_client::Certificate;
use agent_client::handshake;
use secrecy::{ExposeSecret, SecretSlice};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::context::Shared;
use crate::workload::Workloads;
use agent_api::RegistrationResponse;

/// Connections that have not proven the host yet.
const MAX_UNPROVEN: usize = 64;

/// What serving needs.
pub struct Server {
    acceptor: TlsAcceptor,
    machine_id: String,
    shared_key: SecretSlice<u8>,
    unproven: Arc<Semaphore>,
    started: Instant,
    context: Shared,
    workloads: Arc<Workloads>,
}

impl Server {
    /// # Errors
    /// Where the identity or the certificate can't be used.
    pub fn new(
        certificate: &Certificate,
        identity: &RegistrationResponse,
        context: Shared,
        workloads: Arc<Workloads>,
    ) -> anyhow::Result<Arc<Self>> {
        let shared_key = hex::decode(&identity.shared_key)
            .map_err(|_| anyhow::anyhow!("the shared key in identity.json is no hex: join again"))?;
        let tls = handshake::server_config(certificate, &identity.host_certificate_sha256)?;
        Ok(Arc::new(Self {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            machine_id: identity.machine_id.clone(),
            shared_key: shared_key.into(),
            unproven: Arc::new(Semaphore::new(MAX_UNPROVEN)),
            started: Instant::now(),
            context,
            workloads,
        }))
    }

    fn shared_key(&self) -> &[u8] {
        self.shared_key.expose_secret()
    }

    /// Takes connections until the task is aborted.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.clone().take(stream),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Too many open files, mostly: it passes when connections end.
                    tracing::warn!(error = %error, "taking connections failed; tries again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn take(self: Arc<Self>, stream: TcpStream) {
        let Ok(permit) = self.unproven.clone().try_acquire_owned() else {
            tracing::warn!("{MAX_UNPROVEN} connections wait for their proof: another one was closed");
            return;
        };
        tokio::spawn(connection::serve(self, stream, permit));
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
