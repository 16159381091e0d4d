//! Migrations, versions, servers that don't answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use store::{PageRequest, Store, StoreError, StoreOptions};
use test_kit::database::TestDatabase;

use crate::support::{Fixture, refused};

#[tokio::test]
async fn hosts_that_migrate_at_once_come_to_one_schema() {
    let database = TestDatabase::create_without_schema().await;
    let migrating = (0..4).map(|_| {
        let url = database.url().to_owned();
        tokio::spawn(async move {
            let store = Store::connect(&url, StoreOptions::default()).await.unwrap();
            store.migrate().await.unwrap();
            store.migrate().await.unwrap();
            store.project_list(PageRequest::default()).await.unwrap();
        })
    });
    for done in futures_util::future::join_all(migrating).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_newer_database_is_refused_before_anything_is_written() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.database.connect().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of tomorrow', true, '', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    // As if this program had one that the database has not: it must not be applied.
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version < 9999").execute(&mut connection).await.unwrap();
    let error = fixture.store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::NewerDatabase { database: 9999, binary: 1.. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("version 9999") && text.contains("newer than this program's"), "{text}");
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(&mut connection).await.unwrap();
    assert_eq!(versions, [9999]);
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let fixture = Fixture::new().await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = 'other'")
        .execute(&mut fixture.database.connect().await)
        .await
        .unwrap();
    let text = refused(fixture.store.migrate().await, "configuration");
    assert!(text.contains("migration 1 was applied to this database in another form"), "{text}");
    // The refusal holds no lock.
    refused(fixture.store.migrate().await, "configuration");
}

#[tokio::test]
async fn a_bad_url_is_said_to_be() {
    let text = refused(Store::connect("mysql://x", StoreOptions::default()).await, "configuration");
    assert!(text.contains("DATABASE_URL"), "{text}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let _mute = tokio::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let url = format!("postgres://u@localhost/d?host={}", folder.path().display());
    let options = StoreOptions { acquire_timeout: Duration::from_millis(50), ..StoreOptions::default() };
    let error = Store::connect(&url, options).await.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
}

#[tokio::test]
async fn no_call_waits_for_ever() {
    let fixture = Fixture::new().await;
    let mut holder = fixture.database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE projects IN ACCESS EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    for options in [
        StoreOptions { call_timeout: Duration::from_millis(50), ..StoreOptions::default() },
        StoreOptions { lock_timeout: Duration::from_millis(50), ..StoreOptions::default() },
        StoreOptions { statement_timeout: Duration::from_millis(50), ..StoreOptions::default() },
    ] {
        let store = Store::connect(fixture.database.url(), options).await.unwrap();
        let error = store.project_list(PageRequest::default()).await.unwrap_err();
        assert!(error.is_passing() && error.to_string().contains("project_list"), "{error:?}");
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    fixture.store.project_list(PageRequest::default()).await.unwrap();
}

#[tokio::test]
async fn each_query_is_measured_by_name() {
    let database = TestDatabase::create().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let on_query: store::QueryObserver =
        Arc::new(move |name, _elapsed, ok| into.lock().unwrap().push((name, ok)));
    let store =
        Store::connect(database.url(), StoreOptions { on_query: Some(on_query), ..StoreOptions::default() })
            .await
            .unwrap();
    store.ping().await.unwrap();
    refused(store.deployment_get(model::DeploymentId::new()).await, "not-found");
    assert_eq!(
        *seen.lock().unwrap(),
        [("store_connect", true), ("store_ping", true), ("deployment_get", false)]
    );
}
