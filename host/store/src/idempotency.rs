//! Requests that may come twice, and must be carried out once.
//!
//! A request that was begun and whose host died is never carried out again under the same key: nobody knows
//! how far it came. Its key stays [`Idempotency::InProgress`] until it is pruned.

use std::time::Duration;

use crate::convert::seconds;
use crate::error::StoreError;
use crate::store::Store;
use crate::types::Idempotency;

impl Store {
    /// Begins a request under a key. `scope` keeps the keys of different callers and routes apart;
    /// `request_sha256` tells other requests under the same key.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn idempotency_begin(
        &self,
        scope: &str,
        key: &str,
        request_sha256: &[u8; 32],
    ) -> Result<Idempotency, StoreError> {
        self.call("idempotency_begin", async {
            loop {
                let done = sqlx::query!(
                    "INSERT INTO idempotency_keys (scope, key, request_sha256) VALUES ($1, $2, $3)
                     ON CONFLICT (scope, key) DO NOTHING",
                    scope,
                    key,
                    request_sha256.as_slice(),
                )
                .execute(&self.pool)
                .await?;
                if done.rows_affected() == 1 {
                    return Ok(Idempotency::Fresh);
                }
                let row = sqlx::query!(
                    "SELECT request_sha256, status, response, created_at FROM idempotency_keys
                     WHERE scope = $1 AND key = $2",
                    scope,
                    key,
                )
                .fetch_optional(&self.pool)
                .await?;
                // Forgotten in between: once more.
                let Some(row) = row else { continue };
                return Ok(match (row.request_sha256 == request_sha256, row.status) {
                    (false, _) => Idempotency::Mismatch,
                    (true, Some(status)) => Idempotency::Replay {
                        status: u16::try_from(status).map_err(StoreError::unreadable)?,
                        response: row.response.unwrap_or_default(),
                    },
                    (true, None) => Idempotency::InProgress { since: row.created_at },
                });
            }
        })
        .await
    }

    /// Keeps the answer of a request that was carried out.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the key was pruned meanwhile.
    pub async fn idempotency_finish(
        &self,
        scope: &str,
        key: &str,
        status: u16,
        response: &serde_json::Value,
    ) -> Result<(), StoreError> {
        self.call("idempotency_finish", async {
            let done = sqlx::query!(
                "UPDATE idempotency_keys SET status = $3, response = $4 WHERE scope = $1 AND key = $2",
                scope,
                key,
                i32::from(status),
                response,
            )
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 0 {
                Err(StoreError::not_found("idempotency key", key))
            } else {
                Ok(())
            }
        })
        .await
    }

    /// Frees the key of a request that failed before it did anything: it may be tried again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn idempotency_forget(&self, scope: &str, key: &str) -> Result<(), StoreError> {
        self.call("idempotency_forget", async {
            sqlx::query!(
                "DELETE FROM idempotency_keys WHERE scope = $1 AND key = $2 AND status IS NULL",
                scope,
                key
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    /// Forgets keys older than this; gives how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn idempotency_prune(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.call("idempotency_prune", async {
            let done = sqlx::query!(
                "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1)",
                seconds(older_than),
            )
            .execute(&self.pool)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}
