//! The plans of the statements inside the hot functions: with cold statistics on empty tables, on
//! two hundred thousand jobs never analysed, and analysed; generic and custom; and how their work
//! grows from a batch of ten to one of a thousand.

pub(super) mod explain;
mod fill;
mod judge;
mod several;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::harness::sql::{column, run};
use crate::harness::{Db, wait_until};
use explain::Explained;
use verbs::Walk;

/// For functions that do not say it themselves.
const GENERIC: &str = "force_generic_plan";
const CUSTOM: &str = "force_custom_plan";

const BATCHES: [u32; 3] = [10, 100, 1000];

/// Ten times the batch may cost so much more, and this besides: acquire looks at ten thousand jobs
/// of a lane when it is given kinds.
const MOST_GROWTH: f64 = 15.0;
const FIXED_WORK: f64 = 12_000.0;

/// Verbs that lock by the order in which rows are found.
const ORDERED: [&str; 8] = [
    "acquire",
    "acquire_batch",
    "complete",
    "complete_batch",
    "fail",
    "release",
    "heartbeat",
    "heartbeat_batch",
];

/// Functions made to be fast that no walk has called.
const LEFT_OUT: &str = "select p.proname::text from pg_proc p
    where p.pronamespace = 'rowlock'::regnamespace
        and p.proconfig @> '{plan_cache_mode=force_generic_plan}'
        and not exists (select from pg_stat_user_functions s where s.funcid = p.oid)";

/// Every verb at every batch size, with plans of both sorts.
async fn judge_verbs(
    session: &Explained,
    state: &str,
    modes: &[&str],
    faults: &mut BTreeSet<String>,
) {
    for mode in modes {
        run(&session.client, &format!("set plan_cache_mode = {mode}")).await;
        let mut works = BTreeMap::<(&str, String), BTreeMap<u32, f64>>::new();
        for n in BATCHES {
            for call in Walk::through(session, n).await {
                let ordered = ORDERED.contains(&call.verb.split(' ').next().unwrap_or_default());
                for plan in &call.plans {
                    for fault in judge::faults(plan, ordered) {
                        faults.insert(format!(
                            "{}: {fault}: {:.200}: {state}, {mode}",
                            call.verb, plan.statement
                        ));
                    }
                }
                for (statement, work) in judge::works(&call.plans) {
                    let most =
                        works.entry((call.verb, statement)).or_default().entry(n).or_default();
                    *most = most.max(work);
                }
            }
        }
        for ((verb, statement), works) in works {
            let mut allowed = FIXED_WORK;
            for (n, work) in &works {
                if allowed < *work {
                    faults.insert(format!(
                        "{verb}: work {works:?} at {n}: {statement:.200}: {state}, {mode}"
                    ));
                }
                allowed = work * MOST_GROWTH + FIXED_WORK;
            }
        }
    }
}

fn no_faults(faults: &BTreeSet<String>) {
    let text: Vec<&str> = faults.iter().map(String::as_str).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), text.join("\n"));
}

#[tokio::test]
async fn plans_are_made_for_tables_that_grow() {
    let db = Db::new().await;
    let client = db.connect().await;
    fill::without_autovacuum(&client).await;
    let mut faults = BTreeSet::new();
    let Some(early) = Explained::connect(&db).await else { return db.finish().await };
    judge_verbs(&early, "empty", &[GENERIC], &mut faults).await;
    fill::fill(&client).await;
    judge_verbs(&early, "planned when empty", &[GENERIC], &mut faults).await;
    drop(early);
    let fresh = Explained::connect(&db).await.expect("as before");
    judge_verbs(&fresh, "never analysed", &[CUSTOM], &mut faults).await;
    drop(fresh);
    run(&client, "analyze").await;
    let last = Explained::connect(&db).await.expect("as before");
    judge_verbs(&last, "analysed", &[GENERIC, CUSTOM], &mut faults).await;
    drop(last);
    no_faults(&faults);
    // Sessions report their calls now and then, and as they end.
    wait_until("no hot function is left out", Duration::from_secs(30), || async {
        column::<String>(&client, LEFT_OUT).await.is_empty()
    })
    .await;
    db.finish().await;
}

#[tokio::test]
async fn plans_that_read_as_much_as_there_is_are_told_from_others() {
    let db = Db::new().await;
    let Some(session) = Explained::connect(&db).await else { return db.finish().await };
    run(&session.client, "set enable_seqscan = off; set enable_bitmapscan = off; set jit = off")
        .await;
    let sorted = "a sort or aggregate of any number of rows of ready";
    for (statement, fault) in [
        ("job_id from ready where queue = 'q' and priority = 5 order by seq limit 10", None),
        ("job_id from ready where queue = 'q' order by ready_at limit 10", Some(sorted)),
        ("count(*) from ready where queue = 'q' and priority = 5", Some(sorted)),
        ("count(*) from (select from ready r where r.queue = 'q' limit 10) x", None),
        ("id from jobs where id = any('{}'::uuid[]) order by priority", None),
        ("id from jobs order by id limit 10", None),
        ("id from jobs order by id::text limit 10", Some("all of an index of jobs")),
    ] {
        let block = format!("do $$ begin perform {statement}; end $$");
        let plans = session.plans_of_command(&block).await;
        let faults: Vec<String> =
            plans.iter().flat_map(|plan| judge::faults(plan, false)).collect();
        assert_eq!(plans.len(), 1, "{statement}");
        assert_eq!(faults.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(fault));
    }
    drop(session);
    db.finish().await;
}
