//! Changes as they happen: LISTEN/NOTIFY with a full resync behind it.
//!
//! Always holds: a listener never ends by itself and never fails; where it may have missed something, it
//! yields [`Change::Resync`]. A notification is a hint: read the row.

use std::time::Duration;

use model::{DeploymentId, MachineId, ProjectId};
use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::error::StoreError;
use crate::store::Store;

/// How often a silent connection is asked whether it lives: a frozen server breaks none.
const BEAT: Duration = Duration::from_secs(10);
/// How long an answer, or a connection, may take.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What one may listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    Projects,
    Deployments,
    Machines,
    Events,
    Hostnames,
    OldMachines,
}

impl Channel {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::Projects,
        Self::Deployments,
        Self::Machines,
        Self::Events,
        Self::Hostnames,
        Self::OldMachines,
    ];

    /// As the triggers of `migrations/` name it.
    fn name(self) -> &'static str {
        match self {
            Self::Projects => "hythe_projects",
            Self::Deployments => "hythe_deployments",
            Self::Machines => "hythe_machines",
            Self::Events => "hythe_events",
            Self::Hostnames => "hythe_hostnames",
            Self::OldMachines => "hythe_old_machines",
        }
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Made, deleted, or another primary.
    Projects(ProjectId),
    /// What is wanted, seen, or its health.
    Deployments(DeploymentId),
    /// Made, or its status.
    Machines(MachineId),
    /// There is an event of this number.
    Events(i64),
    /// Where this host or domain (`*.` and all) leads.
    Hostnames(Box<str>),
    /// What has taken this machine's place.
    OldMachines(MachineId),
    /// Anything may have changed: read all. Always the first, and again after each reconnection.
    Resync,
}

/// Yields changes. Has a connection of its own, made when first asked.
#[derive(Debug)]
pub struct ChangeListener {
    store: Store,
    channels: Vec<Channel>,
    connection: Option<Connection>,
    pause: Duration,
}

struct Connection {
    listener: PgListener,
    beat: tokio::time::Interval,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection(..)")
    }
}

impl Store {
    /// Listens; the first change is [`Change::Resync`], once the connection is made. Returns at once, whether the
    /// database answers or not.
    ///
    /// # Errors
    /// None at present.
    #[expect(
        clippy::unused_async,
        reason = "a listener may one day share a connection that has to be waited for"
    )]
    pub async fn listen(&self, channels: &[Channel]) -> Result<ChangeListener, StoreError> {
        Ok(ChangeListener {
            store: self.clone(),
            channels: channels.to_vec(),
            connection: None,
            pause: FIRST_PAUSE,
        })
    }
}

impl ChangeListener {
    /// Waits for the next change. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Change {
        loop {
            let Some(connection) = &mut self.connection else {
                match tokio::time::timeout(PATIENCE, connect(&self.store, &self.channels)).await {
                    Ok(Ok(connection)) => {
                        self.connection = Some(connection);
                        self.pause = FIRST_PAUSE;
                        return Change::Resync;
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "can't listen for changes: trying again"),
                    Err(_) => tracing::warn!("the database does not answer a listener: trying again"),
                }
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                tokio::time::sleep(pause).await;
                continue;
            };
            tokio::select! {
                received = connection.listener.try_recv() => match received {
                    Ok(Some(notification)) => {
                        if let Some(change) = read(&notification) {
                            return change;
                        }
                    }
                    Ok(None) => {
                        tracing::info!("the connection that listens for changes was lost: making another");
                        self.connection = None;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "listening for changes failed: connecting anew");
                        self.connection = None;
                    }
                },
                _ = connection.beat.tick() => {
                    let alive = sqlx::Executor::execute(&mut connection.listener, "SELECT 1");
                    if !matches!(tokio::time::timeout(PATIENCE, alive).await, Ok(Ok(_))) {
                        tracing::warn!("the connection that listens for changes does not answer: making another");
                        self.connection = None;
                    }
                }
            }
        }
    }
}

async fn connect(store: &Store, channels: &[Channel]) -> Result<Connection, sqlx::Error> {
    // A pool of its own for each try: one that hangs holds up no later one.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(store.connect.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // A lost connection is ours to see, before anything is missed behind our back.
    listener.eager_reconnect(false);
    listener.listen_all(channels.iter().map(|channel| channel.name())).await?;
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Connection { listener, beat })
}

/// None: nothing that this program knows.
fn read(notification: &PgNotification) -> Option<Change> {
    let payload = notification.payload();
    let channel = Channel::ALL.iter().find(|channel| channel.name() == notification.channel())?;
    let change = match channel {
        Channel::Hostnames => Some(Change::Hostnames(payload.into())),
        Channel::OldMachines => payload.parse().ok().map(|id| Change::OldMachines(MachineId::from_uuid(id))),
        Channel::Events => payload.parse().ok().map(Change::Events),
        Channel::Projects => payload.parse().ok().map(|id| Change::Projects(ProjectId::from_uuid(id))),
        Channel::Deployments => {
            payload.parse().ok().map(|id| Change::Deployments(DeploymentId::from_uuid(id)))
        }
        Channel::Machines => payload.parse().ok().map(|id| Change::Machines(MachineId::from_uuid(id))),
    };
    if change.is_none() {
        tracing::warn!(channel = notification.channel(), payload, "a notification can't be read");
    }
    change
}
