//! Tokens of the control API: kept as SHA-256, shown once.

use std::time::Duration;

use crate::convert::seconds;
use crate::error::StoreError;
use crate::secret::{random_token, sha256};
use crate::store::Store;
use crate::types::TokenInfo;

/// What an API token begins with; 48 hex digits follow.
const PREFIX: &str = "hyt_";
/// The name of the token that is made at the first start.
const ADMIN: &str = "admin";

impl Store {
    /// Makes the admin's token where there is none: given this once, to one of several hosts that ask at once.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn api_token_ensure_admin(&self) -> Result<Option<String>, StoreError> {
        self.call("api_token_ensure_admin", async {
            let token = random_token(PREFIX)?;
            let done = sqlx::query!(
                "INSERT INTO api_tokens (sha256, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                sha256(&token),
                ADMIN,
            )
            .execute(&self.pool)
            .await?;
            Ok((done.rows_affected() == 1).then_some(token))
        })
        .await
    }

    /// Makes a token of this name; none for `ttl`: it does not expire.
    ///
    /// # Errors
    /// Conflict `token-name-taken`.
    pub async fn api_token_create(&self, name: &str, ttl: Option<Duration>) -> Result<String, StoreError> {
        self.call("api_token_create", async {
            let token = random_token(PREFIX)?;
            sqlx::query!(
                "INSERT INTO api_tokens (sha256, name, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))",
                sha256(&token),
                name,
                ttl.map(seconds),
            )
            .execute(&self.pool)
            .await
            .map_err(StoreError::from)
            .map_err(|error| {
                if error.violates("api_tokens_name_key") {
                    StoreError::conflict("token-name-taken", format!("a token named {name:?} exists: choose another name"))
                } else {
                    error
                }
            })?;
            Ok(token)
        })
        .await
    }

    /// Gives the token of this name another secret: the old one is void at once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn api_token_replace(&self, name: &str) -> Result<String, StoreError> {
        self.call("api_token_replace", async {
            let token = random_token(PREFIX)?;
            let done = sqlx::query!(
                "UPDATE api_tokens SET sha256 = $2, created_at = now() WHERE name = $1",
                name,
                sha256(&token)
            )
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 0 { Err(StoreError::not_found("token", name)) } else { Ok(token) }
        })
        .await
    }

    /// Voids a token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn api_token_delete(&self, name: &str) -> Result<(), StoreError> {
        self.call("api_token_delete", async {
            let done =
                sqlx::query!("DELETE FROM api_tokens WHERE name = $1", name).execute(&self.pool).await?;
            if done.rows_affected() == 0 { Err(StoreError::not_found("token", name)) } else { Ok(()) }
        })
        .await
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn api_token_list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        self.call("api_token_list", async {
            Ok(sqlx::query_as!(
                TokenInfo,
                "SELECT name, created_at, expires_at FROM api_tokens ORDER BY name"
            )
            .fetch_all(&self.pool)
            .await?)
        })
        .await
    }

    /// Whose token this is; none: nobody's, or it has expired.
    ///
    /// # Errors
    /// Those of the database: answer 503 then, not 401.
    pub async fn api_token_check(&self, token: &str) -> Result<Option<TokenInfo>, StoreError> {
        self.call("api_token_check", async {
            // Looked up by its hash: how long it takes tells nothing about other tokens.
            Ok(sqlx::query_as!(
                TokenInfo,
                "SELECT name, created_at, expires_at FROM api_tokens
                 WHERE sha256 = $1 AND (expires_at IS NULL OR expires_at > now())",
                sha256(token),
            )
            .fetch_optional(&self.pool)
            .await?)
        })
        .await
    }
}
