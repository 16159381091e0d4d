//! Which uploaded archives there are. Their bytes lie elsewhere.

use crate::convert::{count, number};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::Source;

impl Store {
    /// Records an archive by its lower-case hex SHA-256. Again is success.
    ///
    /// # Errors
    /// Conflict `invalid-digest`.
    pub async fn source_record(&self, sha256: &str, size_bytes: u64) -> Result<Source, StoreError> {
        if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(StoreError::conflict(
                "invalid-digest",
                format!("{sha256:?} is not a SHA-256: expected 64 lower-case hex digits"),
            ));
        }
        self.call("source_record", async {
            // The update that changes nothing makes the row come back.
            let row = sqlx::query!(
                "INSERT INTO sources AS s (sha256, size_bytes) VALUES ($1, $2)
                 ON CONFLICT (sha256) DO UPDATE SET size_bytes = s.size_bytes
                 RETURNING sha256, size_bytes, created_at",
                sha256,
                number(size_bytes),
            )
            .fetch_one(&self.pool)
            .await?;
            Ok(Source { sha256: row.sha256, size_bytes: count(row.size_bytes), created_at: row.created_at })
        })
        .await
    }

    /// What is known of an archive; none: never recorded.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn source_get(&self, sha256: &str) -> Result<Option<Source>, StoreError> {
        self.call("source_get", async {
            let row =
                sqlx::query!("SELECT sha256, size_bytes, created_at FROM sources WHERE sha256 = $1", sha256)
                    .fetch_optional(&self.pool)
                    .await?;
            Ok(row.map(|row| Source {
                sha256: row.sha256,
                size_bytes: count(row.size_bytes),
                created_at: row.created_at,
            }))
        })
        .await
    }
}
