//! Stops of what is idle.

use std::time::Duration;

use model::{Seen, StopReason, Wanted};
use store::{Deployment, DeploymentActivity, NewDeployment};
use uuid::Uuid;

use crate::support::{Fixture, healthy, new_deployment, refused};

const WINDOW: Duration = Duration::from_secs(5);

/// A running deployment that is stopped when it was idle for a minute.
async fn running(fixture: &Fixture) -> Deployment {
    let project = fixture.project("shop").await;
    let new = NewDeployment { idle_timeout_seconds: Some(60), ..new_deployment(project) };
    let made = fixture.store.deployment_create(new).await.unwrap();
    let lease = fixture.lease().await;
    fixture.store.deployment_observe(&lease, healthy(&made)).await.unwrap();
    fixture.store.deployment_release(&lease).await.unwrap();
    fixture.store.deployment_get(made.id).await.unwrap()
}

fn activity(deployment: &Deployment, open: u32, idle_for: u64) -> [DeploymentActivity; 1] {
    [DeploymentActivity { deployment: deployment.id, open, idle_for: Duration::from_secs(idle_for) }]
}

/// What a look finds: stopped and kept.
async fn sweep(fixture: &Fixture) -> (usize, usize) {
    let sweep = fixture.store.deployment_idle_sweep(WINDOW).await.unwrap();
    (sweep.stopped.len(), sweep.kept.len())
}

async fn let_activity_pass(fixture: &Fixture, column: &str, by: &str) {
    fixture
        .database
        .execute(&format!("UPDATE deployment_activity SET {column} = {column} - interval '{by}'"))
        .await;
}

#[tokio::test]
async fn what_is_idle_at_every_host_is_stopped_and_woken_by_a_request() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let deployment = running(&fixture).await;
    let (here, there) = (Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(sweep(&fixture).await, (0, 0), "it has just begun to run");
    fixture.pass("running_at").await;
    store.activity_report(here, &activity(&deployment, 0, 90)).await.unwrap();
    store.activity_report(there, &activity(&deployment, 0, 10)).await.unwrap();
    assert_eq!(sweep(&fixture).await, (0, 0), "the other host had a request");
    // Nothing goes back in time.
    store.activity_report(there, &activity(&deployment, 0, 90)).await.unwrap();
    assert_eq!(sweep(&fixture).await, (0, 0));
    let_activity_pass(&fixture, "last_active_at", "1 minute").await;
    assert_eq!(sweep(&fixture).await, (1, 0));
    assert_eq!(sweep(&fixture).await, (0, 0), "once");
    let stopping = store.deployment_get(deployment.id).await.unwrap();
    assert_eq!((stopping.wanted, stopping.stop_reason), (Wanted::Stopped, Some(StopReason::Idle)));
    assert_eq!(stopping.generation, deployment.generation + 1);
    assert!(stopping.stop_after.is_some());
    let events = fixture.events(&deployment).await;
    assert_eq!(events.last().unwrap(), "deployment.idle-stop-requested");

    // The stop has begun: a request starts it anew.
    let lease = fixture.lease().await;
    store.operation_begin(&lease, model::OperationKind::Stop, stopping.generation, 1).await.unwrap();
    store.deployment_release(&lease).await.unwrap();
    let woken = store.deployment_wake(deployment.id).await.unwrap();
    assert_eq!((woken.wanted, woken.wanted_incarnation), (Wanted::Running, 2));
    assert_eq!((woken.stop_reason, woken.stop_after), (None, None));
}

#[tokio::test]
async fn a_stop_is_called_off_by_a_request_or_by_what_was_on_its_way() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let deployment = running(&fixture).await;
    let host = Uuid::now_v7();
    fixture.pass("running_at").await;
    assert_eq!(sweep(&fixture).await, (1, 0), "nothing ever came");
    let woken = store.deployment_wake(deployment.id).await.unwrap();
    assert_eq!((woken.wanted, woken.wanted_incarnation, woken.seen), (Wanted::Running, 1, Seen::Running));
    assert_eq!(sweep(&fixture).await, (0, 0), "its time has begun anew");

    fixture.pass("running_at").await;
    assert_eq!(sweep(&fixture).await, (1, 0));
    store.activity_report(host, &activity(&deployment, 1, 0)).await.unwrap();
    assert_eq!(sweep(&fixture).await, (0, 1));
    let kept = store.deployment_get(deployment.id).await.unwrap();
    assert_eq!((kept.wanted, kept.wanted_incarnation, kept.stop_reason), (Wanted::Running, 1, None));
    let events = fixture.events(&deployment).await;
    assert_eq!(events.last().unwrap(), "deployment.idle-stop-cancelled");
}

#[tokio::test]
async fn what_is_open_keeps_it_running_as_long_as_its_host_lives() {
    let fixture = Fixture::new().await;
    let deployment = running(&fixture).await;
    fixture.pass("running_at").await;
    let host = Uuid::now_v7();
    fixture.store.activity_report(host, &activity(&deployment, 3, 0)).await.unwrap();
    let_activity_pass(&fixture, "last_active_at", "1 day").await;
    assert_eq!(sweep(&fixture).await, (0, 0), "a stream of a day");
    let_activity_pass(&fixture, "reported_at", "1 minute").await;
    assert_eq!(sweep(&fixture).await, (1, 0), "its host has died");
    let_activity_pass(&fixture, "reported_at", "1 day").await;
    sweep(&fixture).await;
    let mut connection = fixture.database.connect().await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM deployment_activity")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 0, "and is forgotten");
}

#[tokio::test]
async fn only_what_runs_and_has_an_idle_time_out_is_stopped() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let project = fixture.project("other").await;
    let new = new_deployment(project);
    for seconds in [0, 4, 31_536_001] {
        let new = NewDeployment { idle_timeout_seconds: Some(seconds), ..new.clone() };
        refused(store.deployment_create(new).await, "invalid-idle-timeout");
    }
    let made = store.deployment_create(new).await.unwrap();
    let lease = fixture.lease().await;
    store.deployment_observe(&lease, healthy(&made)).await.unwrap();
    store.deployment_release(&lease).await.unwrap();
    // Not yet seen to run.
    let idle = NewDeployment { idle_timeout_seconds: Some(60), ..new_deployment(project) };
    store.deployment_create(idle).await.unwrap();
    fixture.pass("created_at").await;
    assert_eq!(sweep(&fixture).await, (0, 0));
    store.activity_report(Uuid::now_v7(), &activity(&made, 0, 1)).await.unwrap();
    let mut connection = fixture.database.connect().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM deployment_activity")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(rows, 0, "nobody needs to know");
    store.deployment_want(made.id, Wanted::Stopped, None).await.unwrap();
    assert_eq!(store.deployment_get(made.id).await.unwrap().stop_reason, None, "somebody said so");
}

#[tokio::test]
async fn what_is_to_be_stopped_for_being_idle_can_be_destroyed() {
    let fixture = Fixture::new().await;
    let deployment = running(&fixture).await;
    fixture.pass("running_at").await;
    assert_eq!(sweep(&fixture).await, (1, 0));
    fixture.database.execute("UPDATE projects SET primary_deployment_id = NULL").await;
    fixture.database.execute("UPDATE deployments SET expires_at = now() - interval '1 minute'").await;
    assert_eq!(fixture.store.deployment_expire_due().await.unwrap(), [deployment.id]);
    let going = fixture.store.deployment_get(deployment.id).await.unwrap();
    assert_eq!((going.wanted, going.stop_reason, going.stop_after), (Wanted::Destroyed, None, None));
}
