//! The mutants.

use std::time::Duration;

use super::patch::patch;
use super::{Mix, Mutant, Patch, Trial, specs};
use crate::plan::Kind;
use crate::run::{Slip, Trade};

const EVERYBODY: &[Trade] = &[Trade::Sql, Trade::Library, Trade::Sql, Trade::Library, Trade::Http];

/// Many short jobs, and faults of processes and connections.
const BUSY: Mix = Mix {
    jobs: 5_000,
    faults: 12,
    kinds: &[Kind::KillWorker, Kind::PauseWorker, Kind::TerminateBackend],
    trades: EVERYBODY,
    spacing: Duration::from_millis(1_000),
    poll: Duration::from_secs(2),
    slow: false,
    has_ways: false,
};

/// Jobs that take a second, and zombies.
const ZOMBIES: Mix = Mix {
    jobs: 900,
    faults: 14,
    kinds: &[Kind::PauseWorker],
    spacing: Duration::from_millis(1_500),
    slow: true,
    ..BUSY
};

/// One worker that sleeps for as long as nobody wakes it.
const WAKE: Mix = Mix {
    jobs: 100,
    faults: 8,
    kinds: &[Kind::TerminateListener],
    trades: &[Trade::Sql],
    spacing: Duration::from_secs(5),
    poll: Duration::from_secs(20),
    slow: false,
    has_ways: false,
};

/// What must pass without a bug: each kind of run that a mutant is tried by.
pub(super) const CONTROLS: &[(&str, Mix)] =
    &[("busy", BUSY), ("zombies", ZOMBIES), ("wake", WAKE), ("doubt", DOUBT)];

/// Lost answers, and those that never reached the server.
const DOUBT: Mix =
    Mix { kinds: &[Kind::CutAnswer, Kind::CutCommit, Kind::ResetWire], has_ways: true, ..BUSY };

const fn live(
    number: &'static str,
    name: &'static str,
    what: &'static str,
    mix: Mix,
    patches: &'static [Patch],
) -> Mutant {
    Mutant { name, number, what, patches, slip: None, trial: Trial::Live(mix) }
}

const fn slip(
    number: &'static str,
    name: &'static str,
    what: &'static str,
    mix: Mix,
    slip: Slip,
) -> Mutant {
    Mutant { name, number, what, patches: &[], slip: Some(slip), trial: Trial::Live(mix) }
}

const fn steps(
    number: &'static str,
    name: &'static str,
    what: &'static str,
    trial: Trial,
    patches: &'static [Patch],
) -> Mutant {
    Mutant { name, number, what, patches, slip: None, trial }
}

const IS_ITS_EXECUTION: &str = "e.job_id = g.id
            and e.attempt = g.attempt
            and e.token = g.token
            and e.worker = g.worker";
const LOST_AND_LOCKED: &str = "limit lose.max_rows
            for update of e skip locked for no key update of j skip locked";
const OPEN_AND_LOCKED: &str = "where e.finished_at is null
        order by e.job_id for update of e skip locked";
const PARENTS_LOCKED: &str = "where j.id = any(parents) and j.state <> 'completed'
        order by j.id for no key update skip locked";
const BY_COUNT: &str = "or b.remaining = counts[
                    width_bucket(
                        b.job_id, array(select u.id from unnest(children) u(id) order by u.id)
                    )
                ]";
const NONE_UNFINISHED: &str = "or not exists (
                    select from dependencies d join jobs p on p.id = d.parent
                    where d.child = b.job_id and p.finished_at is null
                )";
const CHILDREN_LOCKED: &str = "select b.job_id
        from blocked b
        where b.job_id = any(children)
        order by b.job_id for update";
const CHILDREN_LOCKED_SLOWLY: &str = "select case when pg_sleep(0.01) is not null then b.job_id end
        from blocked b
        where b.job_id = any(children)
        order by b.job_id for update";

pub(super) const MUTANTS: &[Mutant] = &[
    live(
        "M1",
        "no_recheck",
        "acquire takes what it saw without a lock on it",
        BUSY,
        &[patch(
            "take",
            "where z.ctid = f.tid
                    for update skip locked",
            "where z.ctid = f.tid",
        )],
    ),
    live(
        "M2",
        "beyond_limit",
        "acquire gives more jobs than it was asked for",
        BUSY,
        &[patch("take", "limit take.max_jobs", "limit take.max_jobs + 1")],
    ),
    live(
        "M3",
        "complete_by_id",
        "complete goes by the job alone",
        ZOMBIES,
        &[patch("complete_batch", IS_ITS_EXECUTION, "e.job_id = g.id")],
    ),
    steps(
        "M4",
        "rescue_by_id",
        "rescue writes by id what it read a moment before",
        Trial::Steps(
            |url| Box::pin(specs::rescue_and_complete(url)),
            &[patch(
                "lose",
                "if ids is not null then",
                "perform pg_sleep(0.5);\n    if ids is not null then",
            )],
        ),
        &[
            patch("lose", LOST_AND_LOCKED, "limit lose.max_rows"),
            patch("take_back", OPEN_AND_LOCKED, "order by e.job_id"),
            patch("close_and_move", " and e.finished_at is null", ""),
            patch("reschedule", "where j.state = 'running'", "where true"),
        ],
    ),
    live(
        "M5",
        "plain_token",
        "a token is nothing that one could not know",
        BUSY,
        &[patch("acquire", "own_token uuid := gen_random_uuid()", "own_token uuid := worker")],
    ),
    live(
        "M6",
        "fan_in_by_look",
        "a child looks whether a parent is unfinished",
        BUSY,
        &[
            patch("cascade_completed", BY_COUNT, NONE_UNFINISHED),
            patch(
                "cascade_completed",
                CHILDREN_LOCKED,
                "select b.job_id from blocked b where b.job_id = any(children) order by b.job_id",
            ),
        ],
    ),
    steps(
        "M7",
        "unlocked_attach",
        "a child is attached to a parent that nobody holds",
        Trial::Steps(|url| Box::pin(specs::attach_and_complete(url)), &[]),
        &[patch(
            "link_children",
            PARENTS_LOCKED,
            "where j.id = any(parents) and j.state <> 'completed'
        order by j.id",
        )],
    ),
    steps(
        "M8",
        "unordered_cascade",
        "cascades lock shared children in any order",
        Trial::Steps(
            |url| Box::pin(specs::cascades_at_once(url)),
            &[patch("cascade_completed", CHILDREN_LOCKED, CHILDREN_LOCKED_SLOWLY)],
        ),
        &[patch(
            "cascade_completed",
            "order by b.job_id for update",
            "order by md5(b.job_id::text || pg_backend_pid()) for update",
        )],
    ),
    steps(
        "M9",
        "for_update",
        "parents are locked FOR UPDATE, against the keys of others",
        Trial::Steps(|url| Box::pin(specs::attach_beside_a_key(url)), &[]),
        &[patch(
            "link_children",
            PARENTS_LOCKED,
            "where j.id = any(parents) and j.state <> 'completed'
        order by j.id for update skip locked",
        )],
    ),
    slip(
        "M10",
        "look_then_watch",
        "a worker looks, and only then says that it sleeps",
        WAKE,
        Slip::LookThenWatch,
    ),
    slip(
        "M11",
        "no_new_listen",
        "a worker does not listen again when its session broke",
        WAKE,
        Slip::NoNewListen,
    ),
    slip(
        "M13",
        "new_ids",
        "an error on COMMIT is a failure, and the call is made anew under other ids",
        DOUBT,
        Slip::NewIdsAfterUnknown,
    ),
    live(
        "M12",
        "own_clock",
        "a lease is reckoned by the worker's clock, which is behind",
        BUSY,
        &[patch(
            "renew",
            "clock := chaos.clock();",
            "clock := chaos.clock() - interval '2900 milliseconds';",
        )],
    ),
    slip(
        "M14",
        "effect_apart",
        "the effect is committed before the completion",
        ZOMBIES,
        Slip::EffectApart,
    ),
    live(
        "M15",
        "forgotten_children",
        "a wide fan-out releases nobody",
        BUSY,
        &[patch(
            "cascade_completed",
            "if freed is not null then",
            "if cardinality(freed) < 40 then",
        )],
    ),
    steps(
        "M16",
        "revived_lease",
        "an ended lease is renewed with all that was held under it",
        Trial::Steps(|url| Box::pin(specs::acquire_after_the_lease(url)), &[]),
        &[patch("renew", "if ends is null or ends < clock then", "if ends is null then")],
    ),
    live(
        "M17",
        "any_number",
        "args are not looked at",
        BUSY,
        &[patch(
            "check_jobs",
            "where g.fault is not null or not job_is_valid(",
            "where false and not job_is_valid(",
        )],
    ),
    steps(
        "seen: fall",
        "one_reading",
        "the children of what falls are read once",
        Trial::Steps(
            |url| Box::pin(specs::attach_to_the_falling(url)),
            &[patch(
                "cascade_ended",
                "exit when fall.doomed is null",
                "perform pg_sleep(0.5);\n        exit when fall.doomed is null",
            )],
        ),
        &[patch("cascade_ended", "before := fall.touched;", "exit;")],
    ),
    steps(
        "seen: floors",
        "hasty_floors",
        "a floor passes an open producer",
        Trial::Steps(|url| Box::pin(specs::floors_and_a_producer(url)), &[]),
        &[patch("raise_floors", "if standing <> '{}' then", "if false then")],
    ),
    steps(
        "seen: wake-ups",
        "settled_at_once",
        "a sleeper waits although a producer looked before it lay down",
        Trial::Steps(|url| Box::pin(specs::settle_beside_a_producer(url)), &[]),
        &[patch(
            "settled",
            "pg_snapshot_xmin(pg_current_snapshot()) >= pg_snapshot_xmax(settled.since)",
            "true",
        )],
    ),
    live(
        "fan-in",
        "early_release",
        "a child is released by the first of its parents",
        BUSY,
        &[patch("cascade_completed", "or b.remaining = counts[", "or b.remaining >= counts[")],
    ),
    steps(
        "seen here",
        "unheld_cancel",
        "an operator's verb writes what it did not find a statement before",
        Trial::Steps(
            |url| Box::pin(specs::cancel_what_comes(url)),
            &[patch(
                "cancel_once",
                "delete from blocked b where b.job_id = any(cancel_once.ids);",
                "delete from blocked b where b.job_id = any(cancel_once.ids);
    perform pg_sleep(0.5);",
            )],
        ),
        &[patch(
            "in_tries",
            "select j.id from jobs j where j.id = any(in_tries.job_ids) order by j.id",
            "select distinct u.id from unnest(in_tries.job_ids) u(id) order by u.id",
        )],
    ),
    steps(
        "seen here",
        "kept_key",
        "a repeat keeps the key that it took of a job that has ended",
        Trial::Steps(|url| Box::pin(specs::repeat_beside_an_end(url)), &[]),
        &[patch("untake_keys", "j.id = u.job_id and j.finished_at is null", "j.id = u.job_id")],
    ),
    live(
        "seen: heartbeat",
        "eager_reconcile",
        "a heartbeat gives back what is being handed over",
        BUSY,
        &[patch("unlisted", "unlisted.seen_call is null or", "true or")],
    ),
    live(
        "operators",
        "cancelled_in_words",
        "the operator is told that a job is cancelled which had ended before",
        BUSY,
        &[patch("cancel_once", "then 'finished'", "then 'cancelled'")],
    ),
];
