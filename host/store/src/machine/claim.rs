//! Who holds a machine: first come, first served, never twice.

use model::{DeploymentId, MachineId};
use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::get;
use super::row::machine_query;
use crate::convert::number;
use crate::deployment::lock_leased;
use crate::error::StoreError;
use crate::event;
use crate::store::Store;
use crate::types::{Lease, Machine, NewEvent, Requirements};

impl Store {
    /// Gives the deployment a machine that will do, the longest ready one first; the one that it holds, where it
    /// holds one. Event `machine.claimed`.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Exhausted`], with what there is instead.
    pub async fn machine_claim(
        &self,
        lease: &Lease,
        requirements: &Requirements,
    ) -> Result<Machine, StoreError> {
        self.call("machine_claim", async {
            let mut tx = self.pool.begin().await?;
            let leased = lock_leased(&mut tx, lease).await?;
            let held = machine_query!("WHERE m.current_deployment_id = $1", lease.deployment.uuid())
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(held) = held {
                return held.try_into();
            }
            // Rows that others are claiming are passed over, not waited for and then read stale.
            let claimed = sqlx::query_scalar!(
                r#"UPDATE machines SET status = 'in_use', current_deployment_id = $1, claimed_at = now()
                 WHERE id = (
                    SELECT id FROM machines
                    WHERE status = 'ready' AND ($2::text IS NULL OR type = $2)
                        AND ($3::integer IS NULL OR cpu_count >= $3)
                        AND ($4::bigint IS NULL OR memory_bytes >= $4)
                        AND labels @> $5
                    ORDER BY created_at, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
                 RETURNING id"#,
                lease.deployment.uuid(),
                requirements.machine_type,
                requirements.min_cpu.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
                requirements.min_memory.map(number),
                Json(&requirements.labels) as _,
            )
            .fetch_optional(&mut *tx)
            .await?;
            let Some(id) = claimed.map(MachineId::from_uuid) else {
                return Err(exhausted(&mut tx, requirements).await?);
            };
            let machine = get(&mut tx, id).await?;
            event::append(
                &mut tx,
                NewEvent {
                    name: "machine.claimed".to_owned(),
                    project_id: Some(model::ProjectId::from_uuid(leased.project_id)),
                    deployment_id: Some(lease.deployment),
                    machine_id: Some(id),
                    data: event::data([("name", json!(machine.name))]),
                    ..NewEvent::default()
                },
            )
            .await?;
            tx.commit().await?;
            Ok(machine)
        })
        .await
    }

    /// Takes the machine from the deployment: others may claim it. Gives which; none where it held none. Event
    /// `machine.released`.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]
    pub async fn machine_release(&self, lease: &Lease) -> Result<Option<MachineId>, StoreError> {
        self.call("machine_release", async {
            let mut tx = self.pool.begin().await?;
            lock_leased(&mut tx, lease).await?;
            let released = release(&mut tx, lease.deployment).await?;
            let id = released.as_ref().and_then(|event| event.machine_id);
            if let Some(event) = released {
                event::append(&mut tx, event).await?;
            }
            tx.commit().await?;
            Ok(id)
        })
        .await
    }
}

/// Under the deployment's lock. Gives the event to write at the end.
pub(crate) async fn release(
    connection: &mut PgConnection,
    deployment: DeploymentId,
) -> Result<Option<NewEvent>, StoreError> {
    let id = sqlx::query_scalar!(
        "UPDATE machines SET current_deployment_id = NULL, claimed_at = NULL,
            status = CASE WHEN status = 'in_use' THEN 'ready' ELSE status END
         WHERE current_deployment_id = $1 RETURNING id",
        deployment.uuid(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(id.map(|id| NewEvent {
        name: "machine.released".to_owned(),
        deployment_id: Some(deployment),
        machine_id: Some(MachineId::from_uuid(id)),
        ..NewEvent::default()
    }))
}

/// Says what there is instead, and what to do.
async fn exhausted(
    connection: &mut PgConnection,
    requirements: &Requirements,
) -> Result<StoreError, StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE status = 'ready') AS "ready!", count(*) FILTER (WHERE status = 'in_use') AS "in_use!",
            count(*) FILTER (WHERE status = 'offline') AS "offline!"
         FROM machines WHERE $1::text IS NULL OR type = $1"#,
        requirements.machine_type,
    )
    .fetch_one(connection)
    .await?;
    let mut needs: Vec<String> = Vec::new();
    needs.extend(requirements.machine_type.iter().map(|kind| format!("type {kind}")));
    needs.extend(requirements.min_cpu.map(|count| format!("{count} CPUs")));
    needs.extend(requirements.min_memory.map(|bytes| format!("{} MiB of memory", bytes >> 20)));
    needs.extend(requirements.labels.iter().map(|(key, value)| format!("{key}={value}")));
    Ok(StoreError::Exhausted {
        message: format!(
            "no machine is free{}; of those {} are ready, {} in use, {} offline: register another machine, or destroy a \
             deployment that holds one",
            if needs.is_empty() { String::new() } else { format!(" with {}", needs.join(", ")) },
            row.ready,
            row.in_use,
            row.offline,
        ),
    })
}
