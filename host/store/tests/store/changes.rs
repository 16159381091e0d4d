//! Events in order, and changes as they happen.

use model::{Seen, Wanted};
use store::{Change, Channel, EventFilter, NewEvent};

use crate::support::{Fixture, MINUTE, connect, seen};

fn event(name: &str) -> NewEvent {
    NewEvent { name: name.to_owned(), ..NewEvent::default() }
}

#[tokio::test]
async fn a_listener_hears_what_others_act_on_and_nothing_else() {
    let fixture = Fixture::new().await;
    let mut changes =
        fixture.store.listen(&[Channel::Projects, Channel::Deployments, Channel::Machines]).await.unwrap();
    assert_eq!(changes.next().await, Change::Resync);
    let made = fixture.deployment().await;
    assert_eq!(changes.next().await, Change::Projects(made.project_id));
    assert_eq!(changes.next().await, Change::Deployments(made.id));
    // A lease and a locator are nobody else's concern; what is seen is.
    let lease = fixture.lease().await;
    fixture.store.deployment_set_locator(&lease, Some("here")).await.unwrap();
    fixture.store.deployment_lease_renew(&lease, MINUTE).await.unwrap();
    fixture.store.deployment_observe(&lease, seen(&made, Seen::Running)).await.unwrap();
    assert_eq!(changes.next().await, Change::Deployments(made.id));
    let machine = fixture.machine(1).await;
    assert_eq!(changes.next().await, Change::Machines(machine));
    fixture.store.machine_update_address(machine, "192.0.2.8", 8911).await.unwrap();
    assert_eq!(changes.next().await, Change::Machines(machine));
    fixture.store.deployment_want(made.id, Wanted::Stopped, None).await.unwrap();
    assert_eq!(changes.next().await, Change::Deployments(made.id));
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_says_so() {
    let fixture = Fixture::new().await;
    let mut changes = fixture.store.listen(Channel::ALL).await.unwrap();
    assert_eq!(changes.next().await, Change::Resync);
    for round in 0..3 {
        let killed: Vec<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .fetch_all(&mut fixture.database.connect().await)
        .await
        .unwrap();
        assert_eq!(killed, [true]);
        // Missed: nobody listens at present.
        fixture.store.event_append(event("test.missed")).await.unwrap();
        assert_eq!(changes.next().await, Change::Resync, "round {round}");
        let seq = fixture.store.event_append(event("test.heard")).await.unwrap();
        assert_eq!(changes.next().await, Change::Events(seq), "round {round}");
    }
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_nothing() {
    let fixture = Fixture::new().await;
    let mut changes = fixture.store.listen(&[Channel::Events]).await.unwrap();
    assert_eq!(changes.next().await, Change::Resync);
    let mut heard = Vec::new();
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(fixture.store.event_append(event("test.tick")).await.unwrap());
        // Polled once or twice, then dropped, most often in the middle.
        tokio::select! {
            biased;
            change = changes.next() => heard.push(change),
            () = tokio::task::yield_now() => {}
        }
    }
    while heard.len() < sent.len() {
        heard.push(changes.next().await);
    }
    assert_eq!(heard, sent.into_iter().map(Change::Events).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_a_cursor_misses_no_event_of_many_writers() {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let fixture = Fixture::new().await;
    let reader = connect(&fixture.database).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = fixture.store.clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                store.event_append(event("test.tick")).await.unwrap();
            }
        });
    }
    // Reads while they write: a number that is committed after a higher one was read would be missed.
    let (mut cursor, mut count) = (0, 0);
    loop {
        let done = writers.is_empty() || {
            while writers.try_join_next().is_some() {}
            writers.is_empty()
        };
        let events = reader.events_after(cursor, EventFilter::default(), 1000).await.unwrap();
        count += events.len();
        assert!(events.is_sorted_by_key(|event| event.seq));
        if let Some(last) = events.last() {
            cursor = last.seq;
        } else if done {
            break;
        }
    }
    assert_eq!(count, WRITERS * EACH);
}

#[tokio::test]
async fn events_are_filtered_and_the_newest_can_be_asked_for() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = fixture.deployment().await;
    for name in ["test.one", "test.two", "test.three"] {
        store.event_append(event(name)).await.unwrap();
    }
    let names = |events: Vec<store::Event>| events.into_iter().map(|event| event.name).collect::<Vec<_>>();
    let all = EventFilter::default();
    assert_eq!(names(store.events_latest(all, 2).await.unwrap()), ["test.two", "test.three"]);
    let project = EventFilter { project: Some(made.project_id), ..all };
    assert_eq!(
        names(store.events_after(0, project, 10).await.unwrap()),
        ["project.created", "deployment.created"]
    );
    assert_eq!(store.event_prune(MINUTE).await.unwrap(), 0);
    assert_eq!(store.event_prune(std::time::Duration::ZERO).await.unwrap(), 5);
}
