//! Machines that join with a one-time token.

use model::{MachineId, UserId};
use serde_json::json;
use sqlx::types::Json;

use super::{retire, row, tell};
use crate::convert::{number, seconds};
use crate::error::StoreError;
use crate::event;
use crate::secret::{SharedKey, random_token, sha256};
use crate::store::Store;
use crate::types::{NewMachine, NewRegistration};

/// What a registration's token begins with; 48 hex digits follow.
const PREFIX: &str = "amt_";

impl Store {
    /// Makes a one-time token with which one machine may join: `amt_` and 48 hex digits. Given this once.
    ///
    /// # Errors
    /// Conflict `invalid-machine-type`.
    pub async fn registration_create(&self, new: NewRegistration) -> Result<String, StoreError> {
        let valid = new.machine_type.starts_with(|c: char| c.is_ascii_lowercase())
            && new.machine_type.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !valid {
            return Err(StoreError::conflict(
                "invalid-machine-type",
                format!(
                    "{:?} is not a machine type: a-z, 0-9 and `-`, with a letter first",
                    new.machine_type
                ),
            ));
        }
        self.call("registration_create", async {
            let token = random_token(PREFIX)?;
            sqlx::query!(
                "INSERT INTO machine_registrations (token_sha256, name, type, labels, owner_id, expires_at)
                 VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))",
                sha256(&token),
                new.name,
                new.machine_type,
                Json(&new.labels) as _,
                new.owner.map(|id| id.uuid()),
                seconds(new.ttl),
            )
            .execute(&self.pool)
            .await?;
            Ok(token)
        })
        .await
    }

    /// Makes the machine that presents a token, ready to be claimed, and a key to share with it. The token is
    /// used up with it, or nothing happens. A machine of the same certificate that nobody holds is retired: its
    /// daemon joins anew. Event `machine.registered`.
    ///
    /// # Errors
    /// Conflict `registration-token-malformed`, `-unknown`, `-used`, `-expired` or `invalid-certificate`.
    pub async fn machine_register(
        &self,
        token: &str,
        machine: NewMachine,
    ) -> Result<(MachineId, SharedKey), StoreError> {
        let refuse = |code, message: &str| {
            Err(StoreError::conflict(code, format!("the registration token {message}: make another one")))
        };
        let digits = token.strip_prefix(PREFIX).unwrap_or_default();
        if digits.len() != 48 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return refuse("registration-token-malformed", "is not `amt_` and 48 hex digits");
        }
        if machine.certificate_sha256.len() != 64
            || !machine.certificate_sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(StoreError::conflict(
                "invalid-certificate",
                "the certificate's SHA-256 is not 64 lower-case hex digits",
            ));
        }
        let master_key = self.master_key()?;
        self.call("machine_register", async {
            let token_sha256 = sha256(token);
            let mut tx = self.pool.begin().await?;
            let registration = sqlx::query!(
                r#"SELECT status, expires_at <= now() AS "expired!", name, type AS machine_type, labels, owner_id
                 FROM machine_registrations WHERE token_sha256 = $1 FOR UPDATE"#,
                token_sha256,
            )
            .fetch_optional(&mut *tx)
            .await?;
            let Some(registration) = registration else {
                return refuse("registration-token-unknown", "is not known here");
            };
            if registration.status == "used" {
                return refuse("registration-token-used", "was used already");
            }
            if registration.expired || registration.status == "expired" {
                return refuse("registration-token-expired", "has expired");
            }
            let earlier = sqlx::query_scalar!(
                "SELECT id FROM machines
                 WHERE certificate_sha256 = $1 AND status <> 'retired'
                    AND num_nonnulls(current_deployment_id, current_agent_id) = 0
                 FOR NO KEY UPDATE",
                machine.certificate_sha256,
            )
            .fetch_all(&mut *tx)
            .await?;
            for id in &earlier {
                retire(&mut tx, MachineId::from_uuid(*id)).await?;
            }
            let id = MachineId::new();
            let key = SharedKey::generate()?;
            let name = registration.name.unwrap_or(machine.name);
            sqlx::query!(
                "INSERT INTO machines (id, type, name, status, owner_id, address, ipv4, port, shared_key_ciphertext,
                    shared_key_key_id, certificate_sha256, os, arch, cpu_count, memory_bytes, labels, last_seen_at)
                 VALUES ($1, $2, $3, 'ready', $4, $5, $6::text::inet, $7, $8, $9, $10, $11, $12, $13, $14, $15, now())",
                id.uuid(),
                registration.machine_type,
                name,
                registration.owner_id,
                machine.address,
                row::ipv4(&machine.address),
                i32::from(machine.port),
                master_key.seal(id, &key)?,
                master_key.id(),
                machine.certificate_sha256,
                machine.os,
                machine.arch,
                // Facts that a machine does not know are none.
                i32::try_from(machine.cpu_count).ok().filter(|count| *count > 0),
                Some(number(machine.memory_bytes)).filter(|bytes| *bytes > 0),
                registration.labels,
            )
            .execute(&mut *tx)
            .await?;
            sqlx::query!(
                "UPDATE machine_registrations SET status = 'used', machine_id = $2 WHERE token_sha256 = $1",
                token_sha256,
                id.uuid(),
            )
            .execute(&mut *tx)
            .await?;
            for id in earlier {
                event::append(&mut tx, tell("machine.retired", MachineId::from_uuid(id), [("replaced", json!(true))]))
                    .await?;
            }
            let data = [
                ("name", json!(name)),
                ("type", json!(registration.machine_type)),
                ("owner", json!(registration.owner_id.map(UserId::from_uuid))),
            ];
            event::append(&mut tx, tell("machine.registered", id, data)).await?;
            tx.commit().await?;
            Ok((id, key))
        })
        .await
    }
}
