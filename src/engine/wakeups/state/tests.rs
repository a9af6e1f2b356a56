//! Whose turn it is, without a database.

use std::time::Duration;

use tokio::time::Instant;

use super::{State, Turn, Watched};

const RESTS: Turn = Turn::Rest { settled: true };

struct Bench {
    state: State,
    now: Instant,
}

impl Bench {
    /// A state in which `q` is watched by `sleepers` that have looked and wait.
    fn new(sleepers: u64) -> Self {
        let mut bench = Bench { state: State::default(), now: Instant::now() };
        for _ in 0..sleepers {
            bench.register("q", None);
        }
        (1..=sleepers).for_each(|id| bench.found_nothing(id));
        assert_eq!(bench.watch(), ["q"]);
        (1..=sleepers).for_each(|id| {
            assert_eq!(bench.turn(id), Turn::Look);
            bench.found_nothing(id);
            assert_eq!(bench.turn(id), RESTS);
        });
        bench
    }

    fn register(&mut self, queue: &str, kind: Option<&str>) -> u64 {
        let kinds = kind.map(|kind| vec![kind.to_owned()]);
        self.state.register(&[queue.to_owned()], kinds.as_deref()).0
    }

    fn found_nothing(&mut self, id: u64) {
        self.state.found_nothing(id, self.now);
    }

    fn turn(&mut self, id: u64) -> Turn {
        let turn = self.state.turn(id);
        if turn == Turn::Look {
            self.state.wait_ended(id);
        }
        turn
    }

    /// Watches what is wanted, settled at once.
    fn watch(&mut self) -> Vec<String> {
        let plan = self.state.plan(self.now);
        let watched = Watched { session: 1, group: 1, settled: true };
        self.state.watched(&plan.watch, watched, self.now);
        plan.watch
    }

    fn due(&mut self, ids: impl IntoIterator<Item = u64>) -> Vec<u64> {
        ids.into_iter().filter(|id| self.turn(*id) == Turn::Look).collect()
    }
}

#[test]
fn one_wakeup_wakes_one_and_a_full_one_the_next() {
    let mut bench = Bench::new(3);
    bench.state.wake("q");
    assert_eq!(bench.due(1..=3), [1]);
    bench.state.found(1, true, bench.now);
    assert_eq!(bench.due(2..=3), [2]);
    bench.state.found(2, false, bench.now);
    assert_eq!(bench.due([3]), [0; 0]);
}

#[test]
fn each_set_of_kinds_has_its_turn() {
    let mut bench = Bench::new(2);
    let other = bench.register("q", Some("mail"));
    bench.found_nothing(other);
    bench.state.wake("q");
    assert_eq!(bench.due(1..=3), [1, 3]);
}

#[test]
fn whoever_goes_before_its_look_hands_its_turn_on() {
    let mut bench = Bench::new(3);
    bench.state.wake("q");
    bench.state.wait_ended(1);
    bench.state.remove(1, bench.now);
    assert_eq!(bench.due(2..=3), [2]);
    // It looked, or was about to, and is gone without having said what it found.
    bench.state.remove(2, bench.now);
    assert_eq!(bench.due([3]), [3]);
}

#[test]
fn a_wakeup_during_a_look_makes_another_look() {
    let mut bench = Bench::new(1);
    bench.state.wake("q");
    assert_eq!(bench.due([1]), [1]);
    bench.state.wake("q");
    bench.found_nothing(1);
    assert_eq!(bench.turn(1), Turn::Look);
    bench.found_nothing(1);
    assert_eq!(bench.turn(1), RESTS);
}

#[test]
fn a_wakeup_before_the_first_wait_is_not_missed() {
    let mut bench = Bench::new(1);
    let late = bench.register("q", None);
    bench.state.wake("q");
    bench.found_nothing(late);
    assert_eq!(bench.turn(late), Turn::Look);
}

#[test]
fn nobody_rests_long_before_the_watch_is_settled() {
    let mut bench = Bench { state: State::default(), now: Instant::now() };
    let id = bench.register("q", None);
    bench.found_nothing(id);
    let plan = bench.state.plan(bench.now);
    let watched = Watched { session: 1, group: 7, settled: false };
    bench.state.watched(&plan.watch, watched, bench.now);
    assert_eq!(bench.turn(id), Turn::Look);
    bench.found_nothing(id);
    assert_eq!(bench.turn(id), Turn::Rest { settled: false });
    bench.state.settled(7);
    assert_eq!(bench.turn(id), Turn::Look);
    bench.found_nothing(id);
    assert_eq!(bench.turn(id), RESTS);
}

#[test]
fn a_queue_of_busy_sleepers_is_not_watched() {
    let mut bench = Bench::new(2);
    bench.state.found(1, false, bench.now);
    assert_eq!(bench.state.plan(bench.now).unwatch, [""; 0]);
    bench.state.found(2, false, bench.now);
    let again_at = bench.state.plan(bench.now).again_at.expect("it lingers");
    let plan = bench.state.plan(again_at);
    assert_eq!(plan.unwatch, ["q"]);
    bench.state.unwatched(&plan.unwatch);
    assert_eq!(bench.state.plan(again_at), super::Plan::default());
    bench.found_nothing(1);
    assert_eq!(bench.watch(), ["q"]);
    assert_eq!(bench.turn(1), Turn::Look);
}

#[test]
fn wakeups_for_nothing_close_the_watch_for_a_while() {
    let mut bench = Bench::new(1);
    for _ in 0..10 {
        assert_eq!(bench.state.plan(bench.now).unwatch, [""; 0]);
        bench.state.wake("q");
        assert_eq!(bench.turn(1), Turn::Look);
        bench.found_nothing(1);
    }
    let plan = bench.state.plan(bench.now);
    assert_eq!(plan.unwatch, ["q"]);
    bench.state.wake("q");
    assert_eq!(bench.turn(1), Turn::Look, "it is watched still");
    bench.found_nothing(1);
    bench.state.unwatched(&plan.unwatch);
    assert_eq!(bench.watch(), [""; 0]);
    bench.state.wake("q");
    assert_eq!(bench.turn(1), Turn::Rest { settled: true });
    bench.now = plan.again_at.expect("it opens again");
    assert_eq!(bench.watch(), ["q"]);
    assert_eq!(bench.turn(1), Turn::Look, "whatever was not heard is found");
}

#[test]
fn a_paused_queue_is_left_out_until_it_is_resumed() {
    let mut bench = Bench { state: State::default(), now: Instant::now() };
    let id = bench.register("q", None);
    bench.found_nothing(id);
    assert_eq!(bench.state.plan(bench.now).watch, ["q"]);
    bench.state.paused(&["q".to_owned()], bench.now);
    assert_eq!(bench.watch(), [""; 0]);
    bench.state.resumed("q");
    assert_eq!(bench.watch(), ["q"]);
}

#[test]
fn a_new_session_watches_afresh_and_everybody_looks() {
    let mut bench = Bench::new(2);
    bench.state.reconnected(2);
    assert_eq!(bench.due(1..=2), [1, 2]);
    assert_eq!(bench.watch(), ["q"]);
    bench.now += Duration::from_secs(1);
    bench.state.reconnected(1);
    assert_eq!(bench.watch(), [""; 0]);
}

#[test]
fn names_that_are_none_are_not_watched() {
    let mut bench = Bench { state: State::default(), now: Instant::now() };
    for name in ["", "-a", "a b", "\0", &"x".repeat(129)] {
        let id = bench.register(name, None);
        bench.found_nothing(id);
    }
    assert_eq!(bench.watch(), [""; 0]);
}

#[test]
fn who_comes_while_a_queue_is_being_left_has_it_watched_again() {
    let mut bench = Bench::new(1);
    bench.state.found(1, false, bench.now);
    bench.now += Duration::from_secs(1);
    let unwatch = bench.state.plan(bench.now).unwatch;
    assert_eq!(unwatch, ["q"]);
    let late = bench.register("q", None);
    bench.found_nothing(late);
    bench.state.take_concern();
    bench.state.unwatched(&unwatch);
    assert!(bench.state.take_concern(), "the task has to plan again");
    assert_eq!(bench.watch(), ["q"]);
    assert_eq!(bench.turn(late), Turn::Look);
}

#[test]
fn names_do_not_pile_up_where_nobody_plans() {
    let mut bench = Bench { state: State::default(), now: Instant::now() };
    for name in ["a", "b", "c"] {
        let id = bench.register(name, None);
        bench.found_nothing(id);
        bench.state.remove(id, bench.now);
    }
    assert!(bench.state.queues.is_empty());
}
