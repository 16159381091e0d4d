//! Machines: one table, whatever made them. Registered, claimed, seen, removed.

mod claim;
mod register;
mod row;

use model::{DeploymentId, MachineId, MachineStatus};
use serde_json::json;

pub(crate) use claim::release;
use row::machine_query;

use crate::convert::parse;
use crate::error::StoreError;
use crate::event;
use crate::page::{Page, PageRequest};
use crate::store::Store;
use crate::types::{Machine, MachineConnection, MachineFilter, NewEvent};

impl Store {
    /// Machines, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn machine_list(
        &self,
        filter: MachineFilter,
        page: PageRequest,
    ) -> Result<Page<Machine>, StoreError> {
        self.call("machine_list", async {
            let rows = machine_query!(
                "WHERE ($1::text IS NULL OR m.type = $1)
                   AND ($2::text IS NULL OR m.status = $2)
                   AND ($3 OR $2 IS NOT NULL OR m.status <> 'retired')
                   AND ($4::uuid IS NULL OR m.id < $4)
                 ORDER BY m.id DESC LIMIT $5",
                filter.machine_type,
                filter.status.map(MachineStatus::as_str),
                filter.include_retired,
                page.after.map(|cursor| cursor.0),
                page.probe(),
            )
            .fetch_all(&self.pool)
            .await?;
            let items = rows.into_iter().map(Machine::try_from).collect::<Result<_, _>>()?;
            Ok(page.page(items, |machine: &Machine| machine.id.uuid()))
        })
        .await
    }

    /// The machine of this id, retired ones too.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn machine_get(&self, id: MachineId) -> Result<Machine, StoreError> {
        self.call("machine_get", async { get(&mut *self.pool.acquire().await?, id).await }).await
    }

    /// The machine that a deployment holds.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn machine_of_deployment(
        &self,
        deployment: DeploymentId,
    ) -> Result<Option<Machine>, StoreError> {
        self.call("machine_of_deployment", async {
            machine_query!("WHERE m.current_deployment_id = $1", deployment.uuid())
                .fetch_optional(&self.pool)
                .await?
                .map(Machine::try_from)
                .transpose()
        })
        .await
    }

    /// What a connection to the machine's daemon needs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the machine is none, is retired or was never registered;
    /// [`StoreError::Configuration`] where its key is encrypted under another master key, which is named.
    pub async fn machine_connection(&self, id: MachineId) -> Result<MachineConnection, StoreError> {
        let key = self.master_key()?;
        self.call("machine_connection", async {
            let row = sqlx::query!(
                r#"SELECT address AS "address!", port, shared_key_ciphertext AS "sealed!", shared_key_key_id AS "key_id!",
                    certificate_sha256 AS "certificate_sha256!"
                 FROM machines
                 WHERE id = $1 AND address IS NOT NULL AND shared_key_ciphertext IS NOT NULL
                    AND certificate_sha256 IS NOT NULL AND status <> 'retired'"#,
                id.uuid(),
            )
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::not_found("reachable machine", id))?;
            Ok(MachineConnection {
                machine: id,
                address: row.address,
                port: crate::convert::port(row.port)?,
                shared_key: key.open(id, &row.key_id, &row.sealed)?,
                certificate_sha256: row.certificate_sha256,
            })
        })
        .await
    }

    /// Retires a machine: the row stays, its key is forgotten. Again is success. Event `machine.retired`.
    ///
    /// # Errors
    /// Conflict `machine-in-use` while somebody holds it; [`StoreError::NotFound`].
    pub async fn machine_remove(&self, id: MachineId) -> Result<Machine, StoreError> {
        self.call("machine_remove", async {
            let mut tx = self.pool.begin().await?;
            let row = sqlx::query!(
                "SELECT status, name, current_deployment_id, current_agent_id FROM machines WHERE id = $1
                 FOR NO KEY UPDATE",
                id.uuid(),
            )
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| StoreError::not_found("machine", id))?;
            let holder = match (row.current_deployment_id, row.current_agent_id) {
                (Some(deployment), _) => Some(DeploymentId::from_uuid(deployment).to_string()),
                (_, Some(agent)) => Some(model::AgentId::from_uuid(agent).to_string()),
                _ => None,
            };
            if let Some(holder) = holder {
                return Err(StoreError::conflict(
                    "machine-in-use",
                    format!("{} ({id}) is held by {holder}: destroy that first", row.name),
                ));
            }
            let retired = row.status == "retired";
            if !retired {
                retire(&mut tx, id).await?;
            }
            let machine = get(&mut tx, id).await?;
            if !retired {
                event::append(&mut tx, tell("machine.retired", id, [("name", json!(machine.name))])).await?;
            }
            tx.commit().await?;
            Ok(machine)
        })
        .await
    }

    /// Notes whether the machine's daemon answered. A success makes an offline machine `ready` or `in_use` at once; a
    /// number of failures in a row (`StoreOptions::machine_failures`) makes one `offline`. Events `machine.online`,
    /// `machine.offline`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn machine_seen(&self, id: MachineId, reachable: bool) -> Result<Machine, StoreError> {
        self.call("machine_seen", async {
            let mut tx = self.pool.begin().await?;
            let row = sqlx::query!(
                r#"SELECT status, name, num_nonnulls(current_deployment_id, current_agent_id) > 0 AS "held!"
                 FROM machines WHERE id = $1 FOR NO KEY UPDATE"#,
                id.uuid(),
            )
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| StoreError::not_found("machine", id))?;
            let failures = sqlx::query_scalar!(
                "INSERT INTO machine_health_checks AS c (machine_id, consecutive_failures, last_check_at,
                    last_success_at, last_failure_at)
                 VALUES ($1, CASE WHEN $2 THEN 0 ELSE 1 END, now(), CASE WHEN $2 THEN now() END,
                    CASE WHEN NOT $2 THEN now() END)
                 ON CONFLICT (machine_id) DO UPDATE SET
                    consecutive_failures = CASE WHEN $2 THEN 0 ELSE c.consecutive_failures + 1 END,
                    last_check_at = now(),
                    last_success_at = coalesce(excluded.last_success_at, c.last_success_at),
                    last_failure_at = coalesce(excluded.last_failure_at, c.last_failure_at)
                 RETURNING consecutive_failures",
                id.uuid(),
                reachable,
            )
            .fetch_one(&mut *tx)
            .await?;
            let status: MachineStatus = parse(&row.status)?;
            let next = next_status(status, reachable, row.held, failures >= self.options.machine_failures);
            sqlx::query!(
                "UPDATE machines SET status = $2, last_seen_at = CASE WHEN $3 THEN now() ELSE last_seen_at END
                 WHERE id = $1",
                id.uuid(),
                next.as_str(),
                reachable,
            )
            .execute(&mut *tx)
            .await?;
            let machine = get(&mut tx, id).await?;
            if next != status {
                let name = if next == MachineStatus::Offline { "machine.offline" } else { "machine.online" };
                event::append(&mut tx, tell(name, id, [("name", json!(row.name))])).await?;
            }
            tx.commit().await?;
            Ok(machine)
        })
        .await
    }

    /// Notes where the machine's daemon is reached from now on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for retired ones.
    pub async fn machine_update_address(
        &self,
        id: MachineId,
        address: &str,
        port: u16,
    ) -> Result<Machine, StoreError> {
        self.call("machine_update_address", async {
            let mut tx = self.pool.begin().await?;
            let done = sqlx::query!(
                "UPDATE machines SET address = $2, ipv4 = $3::text::inet, port = $4
                 WHERE id = $1 AND status <> 'retired'",
                id.uuid(),
                address,
                row::ipv4(address),
                i32::from(port),
            )
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::not_found("machine", id));
            }
            let machine = get(&mut tx, id).await?;
            tx.commit().await?;
            Ok(machine)
        })
        .await
    }
}

/// A machine's status after it was asked for.
fn next_status(status: MachineStatus, reachable: bool, held: bool, given_up: bool) -> MachineStatus {
    use MachineStatus::{InUse, Offline, Ready};
    match status {
        Offline if reachable && held => InUse,
        Offline if reachable => Ready,
        Ready | InUse if !reachable && given_up => Offline,
        other => other,
    }
}

async fn get(connection: &mut sqlx::PgConnection, id: MachineId) -> Result<Machine, StoreError> {
    machine_query!("WHERE m.id = $1", id.uuid())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::not_found("machine", id))?
        .try_into()
}

async fn retire(connection: &mut sqlx::PgConnection, id: MachineId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE machines SET status = 'retired', retired_at = now(), shared_key_ciphertext = NULL,
            shared_key_key_id = NULL
         WHERE id = $1",
        id.uuid(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn tell<const N: usize>(name: &str, id: MachineId, data: [(&str, serde_json::Value); N]) -> NewEvent {
    NewEvent { name: name.to_owned(), machine_id: Some(id), data: event::data(data), ..NewEvent::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_what_is_seen_and_only_as_the_model_allows() {
        for status in MachineStatus::ALL {
            for (reachable, held, given_up) in [
                (true, true, false),
                (true, false, false),
                (false, true, true),
                (false, false, true),
                (false, true, false),
            ] {
                let next = next_status(*status, reachable, held, given_up);
                assert!(status.may_become(next), "{status} {next}");
            }
        }
        use MachineStatus::{InUse, Offline, Ready};
        assert_eq!(next_status(Offline, true, true, false), InUse);
        assert_eq!(next_status(Offline, true, false, false), Ready);
        assert_eq!(next_status(InUse, false, true, false), InUse);
        assert_eq!(next_status(InUse, false, true, true), Offline);
    }
}
