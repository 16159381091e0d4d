//! What happened, in order of commit.

use std::time::Duration;

use model::{DeploymentId, MachineId, ProjectId};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::convert::{bounded, count, number, seconds};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Event, EventFilter, NewEvent};

/// Writes an event as the last act of a transaction: whoever has done so locks nothing more, so that two
/// transactions never wait for each other's rows and the events' lock.
pub(crate) async fn append(connection: &mut PgConnection, event: NewEvent) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO events (name, project_id, deployment_id, machine_id, incarnation, data)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING seq",
        event.name,
        event.project_id.map(|id| id.uuid()),
        event.deployment_id.map(|id| id.uuid()),
        event.machine_id.map(|id| id.uuid()),
        event.incarnation.map(number),
        Value::Object(event.data),
    )
    .fetch_one(connection)
    .await?)
}

/// An event's data, without the keys that have no value.
pub(crate) fn data<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

struct EventRow {
    seq: i64,
    at: chrono::DateTime<chrono::Utc>,
    name: String,
    project_id: Option<Uuid>,
    deployment_id: Option<Uuid>,
    machine_id: Option<Uuid>,
    incarnation: Option<i64>,
    data: Value,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        Self {
            seq: row.seq,
            at: row.at,
            name: row.name,
            project_id: row.project_id.map(ProjectId::from_uuid),
            deployment_id: row.deployment_id.map(DeploymentId::from_uuid),
            machine_id: row.machine_id.map(MachineId::from_uuid),
            incarnation: row.incarnation.map(count),
            data: row.data,
        }
    }
}

impl Store {
    /// Writes an event; gives its number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn event_append(&self, event: NewEvent) -> Result<i64, StoreError> {
        self.call("event_append", async {
            let mut tx = self.pool.begin().await?;
            let seq = append(&mut tx, event).await?;
            tx.commit().await?;
            Ok(seq)
        })
        .await
    }

    /// The events after this number, oldest first, at most `limit` (1 to 1000). A reader that goes on from the
    /// last number that it got misses none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_after(
        &self,
        seq: i64,
        filter: EventFilter,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        self.call("events_after", async {
            let rows = sqlx::query_as!(
                EventRow,
                "SELECT seq, at, name, project_id, deployment_id, machine_id, incarnation, data FROM events
                 WHERE seq > $1
                   AND ($2::uuid IS NULL OR project_id = $2)
                   AND ($3::uuid IS NULL OR deployment_id = $3)
                   AND ($4::uuid IS NULL OR machine_id = $4)
                 ORDER BY seq LIMIT $5",
                seq,
                filter.project.map(|id| id.uuid()),
                filter.deployment.map(|id| id.uuid()),
                filter.machine.map(|id| id.uuid()),
                bounded(limit),
            )
            .fetch_all(&self.pool)
            .await?;
            Ok(rows.into_iter().map(Event::from).collect())
        })
        .await
    }

    /// The newest events, at most `limit` (1 to 1000), oldest of them first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_latest(&self, filter: EventFilter, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.call("events_latest", async {
            let rows = sqlx::query_as!(
                EventRow,
                "SELECT seq, at, name, project_id, deployment_id, machine_id, incarnation, data FROM events
                 WHERE ($1::uuid IS NULL OR project_id = $1)
                   AND ($2::uuid IS NULL OR deployment_id = $2)
                   AND ($3::uuid IS NULL OR machine_id = $3)
                 ORDER BY seq DESC LIMIT $4",
                filter.project.map(|id| id.uuid()),
                filter.deployment.map(|id| id.uuid()),
                filter.machine.map(|id| id.uuid()),
                bounded(limit),
            )
            .fetch_all(&self.pool)
            .await?;
            Ok(rows.into_iter().rev().map(Event::from).collect())
        })
        .await
    }

    /// Forgets events older than this; gives how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn event_prune(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.call("event_prune", async {
            let done = sqlx::query!(
                "DELETE FROM events WHERE at < now() - make_interval(secs => $1)",
                seconds(older_than)
            )
            .execute(&self.pool)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}
