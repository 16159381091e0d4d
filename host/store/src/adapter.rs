//! Adapters and their grants, mirrored from the configuration for all hosts and clients to see.

use model::AdapterId;
use sqlx::types::Json;
use uuid::Uuid;

use crate::convert::parse;
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Adapter, AdapterRow, GrantRow};

/// As the rows' JSON holds it.
#[derive(serde::Deserialize)]
struct Grant {
    name: String,
    target: String,
    methods: Option<Vec<String>>,
    paths: Option<Vec<String>>,
}

struct Row {
    id: Uuid,
    name: String,
    component_sha256: String,
    version: String,
    summary: String,
    exports: Vec<String>,
    spec_schema: serde_json::Value,
    is_default: bool,
    updated_at: chrono::DateTime<chrono::Utc>,
    grants: Json<Vec<Grant>>,
}

impl TryFrom<Row> for Adapter {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let grant = |grant: Grant| GrantRow {
            name: grant.name,
            target: grant.target,
            methods: grant.methods,
            paths: grant.paths,
        };
        Ok(Self {
            id: AdapterId::from_uuid(row.id),
            row: AdapterRow {
                name: parse(&row.name)?,
                component_sha256: row.component_sha256,
                version: row.version,
                summary: row.summary,
                exports: row.exports,
                spec_schema: row.spec_schema,
                is_default: row.is_default,
                grants: row.grants.0.into_iter().map(grant).collect(),
            },
            updated_at: row.updated_at,
        })
    }
}

impl Store {
    /// Makes the tables equal to what is given. An adapter that stays keeps its id; one that is the same keeps
    /// its `updated_at`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn adapter_mirror(&self, adapters: Vec<AdapterRow>) -> Result<(), StoreError> {
        self.call("adapter_mirror", async {
            let mut tx = self.pool.begin().await?;
            // Two hosts that mirror at once: one after the other. Readers go on.
            sqlx::query!("LOCK TABLE adapters IN SHARE ROW EXCLUSIVE MODE").execute(&mut *tx).await?;
            let names: Vec<String> = adapters.iter().map(|adapter| adapter.name.to_string()).collect();
            sqlx::query!("DELETE FROM adapters WHERE name <> ALL($1)", &names).execute(&mut *tx).await?;
            // At most one is the default at any moment.
            sqlx::query!("UPDATE adapters SET is_default = false WHERE is_default").execute(&mut *tx).await?;
            for adapter in adapters {
                let id = sqlx::query_scalar!(
                    "INSERT INTO adapters AS a (id, name, component_sha256, version, summary, exports, spec_schema,
                        is_default)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                     ON CONFLICT (name) DO UPDATE SET component_sha256 = excluded.component_sha256,
                        version = excluded.version, summary = excluded.summary, exports = excluded.exports,
                        spec_schema = excluded.spec_schema, is_default = excluded.is_default,
                        updated_at = CASE
                            WHEN (a.component_sha256, a.version, a.summary, a.exports, a.spec_schema)
                                IS DISTINCT FROM (excluded.component_sha256, excluded.version, excluded.summary,
                                    excluded.exports, excluded.spec_schema)
                            THEN now() ELSE a.updated_at END
                     RETURNING id",
                    AdapterId::new().uuid(),
                    adapter.name.as_str(),
                    adapter.component_sha256,
                    adapter.version,
                    adapter.summary,
                    &adapter.exports,
                    adapter.spec_schema,
                    adapter.is_default,
                )
                .fetch_one(&mut *tx)
                .await?;
                sqlx::query!("DELETE FROM grants WHERE adapter_id = $1", id).execute(&mut *tx).await?;
                for grant in adapter.grants {
                    sqlx::query!(
                        "INSERT INTO grants (adapter_id, name, target, methods, paths) VALUES ($1, $2, $3, $4, $5)",
                        id,
                        grant.name,
                        grant.target,
                        grant.methods.as_deref(),
                        grant.paths.as_deref(),
                    )
                    .execute(&mut *tx)
                    .await?;
                }
            }
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// All adapters, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn adapter_list(&self) -> Result<Vec<Adapter>, StoreError> {
        self.call("adapter_list", self.adapters(None)).await
    }

    /// The adapter of this name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn adapter_get(&self, name: &str) -> Result<Adapter, StoreError> {
        let mut found = self.call("adapter_get", self.adapters(Some(name))).await?;
        found.pop().ok_or_else(|| StoreError::not_found("adapter", name))
    }

    async fn adapters(&self, name: Option<&str>) -> Result<Vec<Adapter>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT a.id, a.name, a.component_sha256, a.version, a.summary, a.exports, a.spec_schema,
                a.is_default, a.updated_at,
                (SELECT coalesce(json_agg(json_build_object('name', g.name, 'target', g.target, 'methods', g.methods,
                        'paths', g.paths) ORDER BY g.name), '[]')
                    FROM grants g WHERE g.adapter_id = a.id) AS "grants!: Json<Vec<Grant>>"
             FROM adapters a WHERE $1::text IS NULL OR a.name = $1 ORDER BY a.name"#,
            name,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Adapter::try_from).collect()
    }
}
