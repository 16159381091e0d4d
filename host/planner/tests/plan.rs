//! The plan for every state, and a runtime that misbehaves driven to what is wanted.

use model::{Health, OperationKind, Seen, Wanted};
use planner::{Action, CurrentOperation, Policy, Snapshot, plan};
use proptest::prelude::*;

fn snapshot(wanted: Wanted, seen: Seen, wanted_incarnation: u64, seen_incarnation: u64) -> Snapshot {
    Snapshot {
        wanted,
        wanted_incarnation,
        generation: 1,
        seen,
        seen_incarnation,
        seen_at_ms: Some(1_000),
        health: Health::Unknown,
        health_at_ms: None,
        operation: None,
        failures: 0,
        stop_after_ms: None,
        is_refused: false,
    }
}

#[test]
fn every_pair_of_wanted_and_seen_has_its_plan() {
    let mut table = String::new();
    for wanted in Wanted::ALL {
        for seen in Seen::ALL {
            for (wanted_incarnation, seen_incarnation) in [(3, 3), (3, 2)] {
                let snapshot = snapshot(*wanted, *seen, wanted_incarnation, seen_incarnation);
                let action = plan(&snapshot, 1_000, &Policy::default());
                let incarnation = if seen_incarnation == wanted_incarnation { "present" } else { "earlier" };
                table.push_str(&format!("{wanted:<9} {seen:<9} {incarnation}  {action:?}\n"));
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_stop_that_may_be_called_off_waits_for_its_time() {
    let announced = Snapshot { stop_after_ms: Some(6_000), ..snapshot(Wanted::Stopped, Seen::Running, 3, 3) };
    assert_eq!(plan(&announced, 1_000, &Policy::default()), Action::Wait { for_ms: Some(5_000) });
    let stop = Action::Operate { kind: OperationKind::Stop, incarnation: 3, new_operation: true };
    assert_eq!(plan(&announced, 6_000, &Policy::default()), stop);
    // What has begun goes on, and what does not run is seen to at once.
    let begun = CurrentOperation { kind: OperationKind::Stop, generation: 1, incarnation: 3 };
    let begun = Snapshot { operation: Some(begun), ..announced.clone() };
    assert!(matches!(plan(&begun, 1_000, &Policy::default()), Action::Operate { new_operation: false, .. }));
    let failed = Snapshot { seen: Seen::Failed, ..announced };
    assert_eq!(plan(&failed, 1_000, &Policy::default()), stop);
}

#[test]
fn an_operation_under_way_keeps_its_number_until_what_is_wanted_changes() {
    let mut snapshot = snapshot(Wanted::Running, Seen::Starting, 2, 2);
    snapshot.operation =
        Some(CurrentOperation { kind: OperationKind::Restart, generation: 1, incarnation: 2 });
    let restart =
        |new_operation| Action::Operate { kind: OperationKind::Restart, incarnation: 2, new_operation };
    assert_eq!(plan(&snapshot, 0, &Policy::default()), restart(false));
    snapshot.generation = 2;
    assert_eq!(plan(&snapshot, 0, &Policy::default()), restart(true));
}

#[test]
fn what_failed_comes_back_later_each_time_as_the_next_incarnation() {
    let policy = Policy::default();
    let mut failed = snapshot(Wanted::Running, Seen::Failed, 1, 1);
    failed.failures = 3;
    assert_eq!(plan(&failed, 1_000, &policy), Action::Wait { for_ms: Some(4_000) });
    assert_eq!(plan(&failed, 5_000, &policy), Action::BeginNextIncarnation);
    failed.failures = 40;
    assert_eq!(plan(&failed, 1_000, &policy), Action::Wait { for_ms: Some(policy.max_backoff_ms) });
    failed.is_refused = true;
    assert_eq!(plan(&failed, u64::MAX, &policy), Action::Wait { for_ms: None });
}

#[test]
fn a_stop_reaches_a_start_of_which_nothing_was_seen() {
    let mut created = snapshot(Wanted::Stopped, Seen::Created, 1, 0);
    created.generation = 2;
    assert_eq!(plan(&created, 0, &Policy::default()), Action::Wait { for_ms: None });
    created.operation = Some(CurrentOperation { kind: OperationKind::Start, generation: 1, incarnation: 1 });
    let Action::Operate { kind, new_operation, .. } = plan(&created, 0, &Policy::default()) else {
        panic!("a stop must be sent");
    };
    assert_eq!((kind, new_operation), (OperationKind::Stop, true));
}

/// What the world does between two plans.
#[derive(Debug, Clone)]
enum Turn {
    Want(Wanted),
    Restart,
    /// The adapter answers with what it has.
    Answer,
    /// The adapter says that it is still on its way.
    Passing,
    /// The call failed: nothing is learnt.
    Silence,
    /// What ran has ended by itself.
    Crash,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let wanted = prop_oneof![Just(Wanted::Running), Just(Wanted::Stopped)];
    let turn = prop_oneof![
        2 => wanted.prop_map(Turn::Want),
        1 => Just(Turn::Restart),
        6 => Just(Turn::Answer),
        2 => Just(Turn::Passing),
        2 => Just(Turn::Silence),
        1 => Just(Turn::Crash),
    ];
    prop::collection::vec(turn, 0..60)
}

/// A runtime that keeps the contract, and the row as the executor would keep it.
struct World {
    row: Snapshot,
    now: u64,
    /// Incarnations that the runtime has begun, in order.
    begun: Vec<u64>,
    running: bool,
}

impl World {
    fn new() -> Self {
        let mut row = snapshot(Wanted::Running, Seen::Created, 1, 0);
        row.seen_at_ms = None;
        Self { row, now: 0, begun: Vec::new(), running: false }
    }

    fn want(&mut self, wanted: Wanted) {
        if self.row.wanted == wanted || self.row.wanted == Wanted::Destroyed {
            return;
        }
        if wanted == Wanted::Running && (self.row.seen != Seen::Created || self.row.operation.is_some()) {
            self.row.wanted_incarnation += 1;
        }
        self.row.wanted = wanted;
        self.row.generation += 1;
    }

    fn see(&mut self, seen: Seen, incarnation: u64, finished: bool) {
        self.row.seen = seen;
        self.row.seen_incarnation = incarnation;
        self.row.seen_at_ms = Some(self.now);
        if seen != Seen::Running {
            self.row.health = Health::Unknown;
            self.row.health_at_ms = None;
        }
        if finished {
            self.row.operation = None;
        }
    }

    fn turn(&mut self, turn: &Turn, policy: &Policy) {
        self.now += 10;
        match turn {
            Turn::Want(wanted) => return self.want(*wanted),
            Turn::Restart => {
                if self.row.wanted == Wanted::Running {
                    self.row.wanted_incarnation += 1;
                    self.row.generation += 1;
                }
                return;
            }
            Turn::Crash => {
                self.running = false;
                return;
            }
            Turn::Answer | Turn::Passing | Turn::Silence => {}
        }
        match plan(&self.row, self.now, policy) {
            Action::Operate { kind, incarnation, new_operation } => {
                if new_operation {
                    self.row.operation =
                        Some(CurrentOperation { kind, generation: self.row.generation, incarnation });
                }
                self.operate(kind, incarnation, turn);
            }
            Action::BeginNextIncarnation => {
                self.row.wanted_incarnation += 1;
                self.row.operation = None;
            }
            Action::Inspect => {
                let seen = if self.running { Seen::Running } else { Seen::Failed };
                if !matches!(turn, Turn::Silence) {
                    self.see(seen, self.row.seen_incarnation, true);
                }
            }
            Action::CheckHealth => {
                self.row.health = if self.running { Health::Healthy } else { Health::Unhealthy };
                self.row.health_at_ms = Some(self.now);
            }
            Action::Wait { for_ms } => self.now += for_ms.unwrap_or(0),
        }
    }

    fn operate(&mut self, kind: OperationKind, incarnation: u64, turn: &Turn) {
        match kind {
            OperationKind::Start | OperationKind::Restart => {
                if kind == OperationKind::Start {
                    assert!(
                        !self.running || self.begun.last() == Some(&incarnation),
                        "a start beside what runs"
                    );
                }
                if self.begun.last() != Some(&incarnation) {
                    assert!(
                        self.begun.iter().all(|begun| *begun < incarnation),
                        "an incarnation begun twice"
                    );
                    self.begun.push(incarnation);
                    self.running = true;
                }
                let came_up = if self.running { Seen::Running } else { Seen::Failed };
                match turn {
                    Turn::Answer => self.see(came_up, incarnation, true),
                    Turn::Passing => self.see(Seen::Starting, incarnation, false),
                    _ => {}
                }
            }
            OperationKind::Stop | OperationKind::Destroy => {
                let end = if kind == OperationKind::Stop { Seen::Stopped } else { Seen::Destroyed };
                match turn {
                    Turn::Answer => {
                        self.running = false;
                        self.see(end, self.row.seen_incarnation, true);
                    }
                    Turn::Passing => self.see(Seen::Stopping, self.row.seen_incarnation, false),
                    _ => {}
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happened_the_wanted_state_is_reached(turns in turns(), end in prop::sample::select(Wanted::ALL)) {
        let policy = Policy::default();
        let mut world = World::new();
        for turn in &turns {
            world.turn(turn, &policy);
        }
        world.want(end);
        for _ in 0..200 {
            world.turn(&Turn::Answer, &policy);
        }
        match end {
            Wanted::Running => {
                prop_assert_eq!(world.row.seen, Seen::Running);
                prop_assert_eq!(world.row.seen_incarnation, world.row.wanted_incarnation);
                prop_assert_eq!(world.row.health, Health::Healthy);
                prop_assert!(world.running);
            }
            Wanted::Stopped => prop_assert!(!world.running),
            Wanted::Destroyed => {
                prop_assert_eq!(world.row.seen, Seen::Destroyed);
                prop_assert!(!world.running);
            }
        }
    }
}
