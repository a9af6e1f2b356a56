//! What a lane has in hand: jobs that run, that wait for a slot, and that were asked for.
//!
//! # Invariants
//!
//! 1. No more jobs run than there are slots; a job runs until its [`Place`] is dropped.
//! 2. What runs, waits and was asked for is never more than the slots and what is fetched ahead.
//! 3. While jobs wait and a slot is free, a runner is about to take one, or the lane is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::stop::StopSignal;
use crate::model::AcquiredJob;

/// The most that is asked for at once; larger batches are slower again.
pub(super) const MOST_JOBS: usize = 500;

/// An acquired job with its stop signal.
pub(super) type Ready = (AcquiredJob, StopSignal);

/// How many jobs to have in hand beyond those that run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ahead {
    /// So many.
    Fixed(usize),
    /// As many as start in a moment, this at most.
    Paced(usize),
}

/// A lane's jobs in hand.
#[derive(Debug)]
pub(super) struct Room {
    slots: usize,
    ahead: Ahead,
    /// Runners that look for jobs or poll handlers at the same time; more would only contend.
    most_runners: usize,
    state: Mutex<State>,
    changed: Notify,
    /// Nothing starts any more.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Ready>,
    /// Since when the first of those waits, or the one before it did; means nothing without one.
    waiting_since: Option<Instant>,
    running: usize,
    asked: usize,
    runners: usize,
    pace: Pace,
    listens: Option<News>,
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A slot for a waiting job, and no runner to fill it.
    Slot,
    /// That, or room that is worth a call.
    Room,
    /// That, or room for as many as a call may bring.
    FullRoom,
}

impl Room {
    pub(super) fn new(
        slots: usize,
        ahead: Ahead,
        most_runners: usize,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Notify::new());
        Arc::new(Room { slots, ahead, most_runners, state, changed, stop })
    }

    /// How many jobs to ask for, if there is as much room as `news` says; they count until
    /// [`Room::answered`].
    pub(super) fn ask(&self, news: News) -> Option<usize> {
        let mut state = self.lock();
        if !self.has_room(news, &state) {
            return None;
        }
        let jobs = self.free(&state).min(MOST_JOBS);
        state.asked += jobs;
        Some(jobs)
    }

    /// The answer to a call that asked for so many.
    pub(super) fn answered(&self, asked: usize, jobs: Vec<Ready>) {
        let mut state = self.lock();
        state.asked -= asked;
        if state.waiting.is_empty() {
            state.waiting_since = Some(Instant::now());
        }
        state.waiting.extend(jobs);
    }

    /// How many runners to start; they count from now on.
    pub(super) fn hire(&self) -> usize {
        let mut state = self.lock();
        let useful = state.waiting.len().min(self.slots - state.running).min(self.most_runners);
        let more = useful.saturating_sub(state.runners);
        state.runners += more;
        more
    }

    /// The next job for a runner; `None` is the runner's end.
    pub(super) fn next(self: &Arc<Self>) -> Option<(Ready, Arc<Place>)> {
        let mut state = self.lock();
        let free = state.running < self.slots && !self.stop.is_cancelled();
        let Some(job) = free.then(|| state.waiting.pop_front()).flatten() else {
            state.runners -= 1;
            return None;
        };
        state.running += 1;
        state.waiting_since = Some(Instant::now());
        Some((job, Arc::new(Place(self.clone()))))
    }

    /// A runner waits for its handler; others may take its part. Whether one is needed.
    pub(super) fn suspended(&self) -> bool {
        let mut state = self.lock();
        state.runners -= 1;
        !state.waiting.is_empty() && state.running < self.slots
    }

    /// The handler of a suspended runner has ended.
    pub(super) fn resumed(&self) {
        self.lock().runners += 1;
    }

    /// A job took so long.
    pub(super) fn note(&self, took: Duration) {
        self.lock().pace.note(took);
    }

    /// Waits for news; now and then there are none.
    pub(super) async fn changed(&self, news: News) {
        {
            let mut state = self.lock();
            state.listens = Some(news);
            self.tell(&mut state);
        }
        self.changed.notified().await;
    }

    /// What was fetched ahead at the pace of jobs that were shorter than those that run now.
    pub(super) fn take_late(&self, patience: Duration) -> Vec<Ready> {
        let mut state = self.lock();
        let late = !state.waiting.is_empty()
            && state.waiting_since.is_some_and(|since| patience <= since.elapsed());
        if !late || matches!(self.ahead, Ahead::Fixed(_)) {
            return Vec::new();
        }
        state.pace.at_least(patience);
        state.waiting.drain(..).collect()
    }

    /// What has not been started.
    pub(super) fn take_all(&self) -> Vec<Ready> {
        self.lock().waiting.drain(..).collect()
    }

    fn free(&self, state: &State) -> usize {
        let most = self.slots + self.ahead(state);
        most.saturating_sub(state.running + state.waiting.len() + state.asked)
    }

    fn ahead(&self, state: &State) -> usize {
        match self.ahead {
            Ahead::Fixed(jobs) => jobs,
            Ahead::Paced(most) => state.pace.ahead(self.slots, most),
        }
    }

    /// Half of what is fetched ahead is worth a call: then calls are few, and the other half lasts
    /// until the answer.
    fn has_room(&self, news: News, state: &State) -> bool {
        let least = match news {
            News::Slot => return false,
            News::Room => (self.ahead(state) / 2).clamp(1, MOST_JOBS),
            News::FullRoom => MOST_JOBS,
        };
        least <= self.free(state)
    }

    fn tell(&self, state: &mut State) {
        let Some(news) = state.listens.filter(|_| !self.stop.is_cancelled()) else { return };
        let stuck = state.runners == 0 && state.running < self.slots && !state.waiting.is_empty();
        if stuck || self.has_room(news, state) {
            state.listens = None;
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running job's slot; free when the last clone is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        self.0.tell(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Execution, Token};

    fn room(slots: usize, ahead: Ahead) -> Arc<Room> {
        Room::new(slots, ahead, 2, CancellationToken::new())
    }

    fn jobs(count: usize) -> Vec<Ready> {
        let job = |_| {
            let execution =
                Execution { job_id: Uuid::now_v7(), attempt: 1, token: Token::new(Uuid::nil()) };
            let epoch = time::OffsetDateTime::UNIX_EPOCH;
            let job = AcquiredJob {
                execution,
                queue: "default".to_owned(),
                kind: "a".to_owned(),
                priority: 5,
                args: serde_json::value::to_raw_value(&()).unwrap(),
                timeout: None,
                run_at: epoch,
                created_at: epoch,
            };
            (job, StopSignal::default())
        };
        (0..count).map(job).collect()
    }

    #[test]
    fn slots_alone_are_asked_for_until_the_pace_is_known() {
        let room = room(3, Ahead::Paced(2_000));
        assert_eq!(room.ask(News::Room), Some(3));
        assert_eq!(room.ask(News::Room), None);
        room.answered(3, jobs(1));
        assert_eq!(room.ask(News::Room), Some(2));
        room.note(Duration::from_micros(1));
        assert_eq!(room.ask(News::Slot), None);
        assert_eq!(room.ask(News::FullRoom), Some(MOST_JOBS));
    }

    #[test]
    fn a_call_is_worth_half_of_what_is_fetched_ahead() {
        let room = room(2, Ahead::Fixed(10));
        assert_eq!(room.ask(News::Room), Some(12));
        room.answered(12, jobs(12));
        let mut places = Vec::new();
        assert_eq!(room.hire(), 2);
        for expected in [None, None] {
            let (_, place) = room.next().unwrap();
            places.push(place);
            assert_eq!(room.ask(News::Room), expected);
        }
        assert!(room.next().is_none(), "no slot is left");
        for ended in 1..=5 {
            places.pop();
            assert_eq!(room.ask(News::Room), (ended == 5).then_some(5));
            if let Some((_, place)) = room.next() {
                places.push(place);
            }
        }
    }

    #[test]
    fn runners_are_as_many_as_are_useful() {
        let room = room(10, Ahead::Fixed(0));
        assert_eq!(room.hire(), 0);
        room.answered(room.ask(News::Room).unwrap(), jobs(3));
        assert_eq!(room.hire(), 2);
        let _place = room.next().unwrap();
        assert!(room.suspended(), "another is to take its part");
        assert_eq!(room.hire(), 1);
        room.resumed();
        assert_eq!(room.hire(), 0);
    }

    #[test]
    fn an_idle_lane_keeps_its_pace() {
        const PATIENCE: Duration = Duration::from_secs(1);
        let room = room(3, Ahead::Paced(2_000));
        room.note(Duration::from_micros(1));
        let long_ago = Instant::now().checked_sub(PATIENCE);
        room.lock().waiting_since = long_ago;
        assert!(room.take_late(PATIENCE).is_empty());
        assert_eq!(room.ask(News::FullRoom), Some(MOST_JOBS));
        room.answered(MOST_JOBS, jobs(2));
        assert!(room.take_late(PATIENCE).is_empty(), "they have just come");
        room.lock().waiting_since = long_ago;
        assert_eq!(room.take_late(PATIENCE).len(), 2);
        assert_eq!(room.ask(News::FullRoom), None, "only the slots are worth asking for");
        assert_eq!(room.ask(News::Room), Some(3));
    }

    #[test]
    fn after_the_stop_nothing_starts() {
        let room = room(2, Ahead::Fixed(2));
        room.answered(room.ask(News::Room).unwrap(), jobs(4));
        assert_eq!(room.hire(), 2);
        room.stop.cancel();
        assert!(room.next().is_none());
        assert_eq!(room.take_all().len(), 4);
    }
}
