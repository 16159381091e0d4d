//! Uploaded archives.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stored archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Of its bytes, lower-case hex.
    pub sha256: String,
    pub size_bytes: u64,
    pub created_at: DateTime<Utc>,
}
