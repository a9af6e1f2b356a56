//! The bound on waiting: however urgent work arrives, what has aged past it gets its share of every
//! acquire, and urgent work keeps the rest.
//!
//! The adversary fills the lane `urgent` 0 before each acquire with as many jobs as that acquire
//! takes, so a share is missed as soon as one slot goes to the wrong side.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::harness::Db;
use crate::harness::sql::run;

/// Batch sizes, and rounds enough for a bound that tells a share from its square.
const SIZES: [(u32, u32); 3] = [(1, 600), (10, 100), (100, 10)];

/// One commit a round, as workers do it.
const PLAY: &str = "
    create temporary table taken (queue text, priority int);
    create procedure pg_temp.play(queues text[], sizes int[], rounds int)
    language plpgsql as $$
    declare
        workers uuid[] := array(select gen_random_uuid() from unnest(sizes));
        jobs jsonb := (
            select jsonb_agg(jsonb_build_object('kind', 'k', 'queue', 'urgent', 'priority', 0))
            from unnest(sizes) s(n), generate_series(1, s.n));
    begin
        for round in 1..rounds loop
            perform from enqueue_many(jobs);
            if cardinality(sizes) = 1 then
                insert into taken
                    select a.queue, a.priority from acquire(workers[1], queues, sizes[1]) a;
            else
                insert into taken
                    select a.queue, a.priority from acquire_batch(workers, sizes, queues) a;
            end if;
            commit;
        end loop;
    end $$";

/// How many jobs of each lane were taken.
type Taken = BTreeMap<(String, i32), f64>;

/// A lane of jobs that have been ready for so long.
async fn lane(client: &Client, queue: &str, priority: i32, jobs: u32, age: &str) {
    let sql = format!(
        "select from enqueue_many((select jsonb_agg(jsonb_build_object(
             'kind', 'k', 'queue', '{queue}', 'priority', {priority}))
         from generate_series(1, {jobs})));
         update ready set ready_at = clock_timestamp() - interval '{age}'
         where queue = '{queue}' and priority = {priority}"
    );
    run(client, &sql).await;
}

async fn set(client: &Client, queue: &str, interval: &str, share: f64) {
    let sql = format!(
        "insert into queues (name, aging_interval, aging_share)
         values ('{queue}', {interval}, {share})"
    );
    run(client, &sql).await;
}

/// Plays so many rounds, each an acquire of these sizes, and counts.
async fn play(client: &Client, queues: &str, sizes: &[u32], rounds: u32) -> Taken {
    let sizes: Vec<i32> = sizes.iter().map(|size| i32::try_from(*size).expect("small")).collect();
    run(client, PLAY).await;
    run(client, &format!("call pg_temp.play('{queues}', '{{{}}}', {rounds})", joined(&sizes)))
        .await;
    let sql = "select queue, priority, count(*)::float8 from taken group by queue, priority";
    let rows = client.query(sql, &[]).await.expect("counted");
    let taken: Taken = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    let wanted = sizes.iter().sum::<i32>() * i32::try_from(rounds).expect("small");
    assert_eq!(taken.values().sum::<f64>(), f64::from(wanted), "every acquire was full: {taken:?}");
    taken
}

fn joined(sizes: &[i32]) -> String {
    sizes.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// All that was taken of lanes that are not the adversary's.
fn aged(taken: &Taken) -> f64 {
    taken.iter().filter(|((queue, _), _)| queue != "urgent").map(|(_, jobs)| jobs).sum()
}

/// A round gives `floor(size * share + random())`, one of two neighbours, with variance f (1 - f)
/// where f is the fraction of `size * share`. Six sigma over the rounds, which are independent:
/// missed by chance once in five hundred million times; nothing at all where f is zero.
#[track_caller]
fn is_share(jobs: f64, share: f64, size: u32, rounds: u32) {
    let each = f64::from(size) * share;
    let mean = each * f64::from(rounds);
    let sigma = (f64::from(rounds) * each.fract() * (1.0 - each.fract())).sqrt();
    let all = size * rounds;
    assert!(
        (jobs - mean).abs() <= 6.0 * sigma + 1e-6,
        "{jobs} of {all} in batches of {size}, not {mean} +- 6 * {sigma}"
    );
}

#[tokio::test]
async fn an_aged_lane_gets_its_share_and_no_more() {
    for (size, rounds) in SIZES {
        let db = Db::new().await;
        let client = db.connect().await;
        lane(&client, "urgent", 9, 400, "1 hour").await;
        let taken = play(&client, "{urgent}", &[size], rounds).await;
        let aged = taken.get(&("urgent".to_owned(), 9)).copied().unwrap_or(0.0);
        is_share(aged, 0.25, size, rounds);
        db.finish().await;
    }
}

#[tokio::test]
async fn several_aged_lanes_of_several_queues_share_it_oldest_first() {
    for (size, rounds) in SIZES {
        let db = Db::new().await;
        let client = db.connect().await;
        lane(&client, "a", 9, 30, "3 hours").await;
        lane(&client, "b", 7, 30, "2 hours").await;
        lane(&client, "a", 5, 400, "90 minutes").await;
        lane(&client, "c", 1, 100, "1 hour").await;
        let taken = play(&client, "{urgent,a,b,c}", &[size], rounds).await;
        is_share(aged(&taken), 0.25, size, rounds);
        let of = |queue: &str, priority| taken.get(&(queue.to_owned(), priority)).copied();
        let oldest = (of("a", 9), of("b", 7), of("c", 1));
        assert_eq!(oldest, (Some(30.0), Some(30.0), None), "{taken:?}");
        db.finish().await;
    }
}

#[tokio::test]
async fn workers_that_share_a_statement_keep_the_shares() {
    for (sizes, rounds) in [(vec![1; 3], 300), (vec![1, 3, 6], 100), (vec![10; 10], 10)] {
        let db = Db::new().await;
        let client = db.connect().await;
        lane(&client, "a", 9, 400, "1 hour").await;
        let taken = play(&client, "{urgent,a}", &sizes, rounds).await;
        is_share(aged(&taken), 0.25, sizes.iter().sum(), rounds);
        db.finish().await;
    }
}

#[tokio::test]
async fn a_share_is_set_per_queue() {
    for ((size, rounds), share) in SIZES.into_iter().zip([0.1, 0.57, 1.0]) {
        let db = Db::new().await;
        let client = db.connect().await;
        set(&client, "a", "'1 minute'", share).await;
        set(&client, "none", "'1 minute'", 0.0).await;
        lane(&client, "none", 9, 100, "1 day").await;
        lane(&client, "a", 9, 1100, "1 hour").await;
        let taken = play(&client, "{urgent,none,a}", &[size], rounds).await;
        is_share(aged(&taken), share, size, rounds);
        assert!(!taken.contains_key(&("none".to_owned(), 9)), "{taken:?}");
        db.finish().await;
    }
}

#[tokio::test]
async fn each_queue_ages_in_its_own_share_of_the_slots() {
    for (size, rounds) in SIZES {
        let db = Db::new().await;
        let client = db.connect().await;
        set(&client, "half", "'1 minute'", 0.5).await;
        lane(&client, "quarter", 9, 400, "2 hours").await;
        lane(&client, "half", 9, 600, "1 hour").await;
        let taken = play(&client, "{urgent,quarter,half}", &[size], rounds).await;
        let of = |queue: &str| taken.get(&(queue.to_owned(), 9)).copied().unwrap_or(0.0);
        // The older one has its quarter of the slots; the other those up to its half.
        is_share(of("quarter"), 0.25, size, rounds);
        is_share(of("quarter") + of("half"), 0.5, size, rounds);
        db.finish().await;
    }
}

#[tokio::test]
async fn many_shares_do_not_add_up_against_urgent_work() {
    for (size, rounds) in SIZES {
        let db = Db::new().await;
        let client = db.connect().await;
        let mut queues = "{urgent".to_owned();
        for n in 0..6 {
            let queue = format!("q{n}");
            set(&client, &queue, "'1 minute'", 0.25 - 0.02 * f64::from(n)).await;
            lane(&client, &queue, 9, 400, "1 hour").await;
            queues += &format!(",{queue}");
        }
        let taken = play(&client, &(queues + "}"), &[size], rounds).await;
        is_share(aged(&taken), 0.25, size, rounds);
        db.finish().await;
    }
}

/// Of one acquire of a hundred with so large args: aged jobs, urgent ones.
async fn with_args(aged_bytes: u32, urgent_bytes: u32) -> (i64, i64) {
    let db = Db::new().await;
    let client = db.connect().await;
    for (priority, bytes) in [(9, aged_bytes), (0, urgent_bytes)] {
        let sql = format!(
            "select enqueue('k', to_jsonb(repeat('x', {bytes})), priority => {priority})
             from generate_series(1, 100);
             update ready set ready_at = ready_at - interval '1 hour' where priority = 9"
        );
        run(&client, &sql).await;
    }
    let sql = "select count(*) filter (where priority = 9), count(*) filter (where priority = 0)
        from acquire(gen_random_uuid(), '{default}', 100)";
    let row = client.query_one(sql, &[]).await.expect("acquired");
    db.finish().await;
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn large_args_buy_no_larger_share() {
    // The reply has room for 32 jobs of 256 KiB.
    assert_eq!(with_args(262_000, 262_000).await, (8, 24));
    assert_eq!(with_args(262_000, 2).await, (25, 75));
    let (aged, urgent) = with_args(2, 262_000).await;
    assert!(aged >= 25 && urgent >= 24, "{aged} {urgent}");
}

#[tokio::test]
async fn where_aging_is_off_a_share_is_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    set(&client, "off", "null", 1.0).await;
    lane(&client, "off", 9, 200, "1 day").await;
    let taken = play(&client, "{urgent,off}", &[10], 50).await;
    assert_eq!(aged(&taken), 0.0, "{taken:?}");
    db.finish().await;
    // Nor does it stand in the way of the others'.
    for (size, rounds) in SIZES {
        let db = Db::new().await;
        let client = db.connect().await;
        set(&client, "urgent", "null", 1.0).await;
        lane(&client, "a", 9, 400, "1 hour").await;
        let taken = play(&client, "{urgent,a}", &[size], rounds).await;
        is_share(aged(&taken), 0.25, size, rounds);
        db.finish().await;
    }
}

#[tokio::test]
async fn what_has_not_aged_past_urgent_work_has_no_share_of_it() {
    for (size, rounds) in SIZES {
        let db = Db::new().await;
        let client = db.connect().await;
        set(&client, "greedy", "'1 minute'", 1.0).await;
        // Effective 3: past the fresh 5, not past the urgent.
        lane(&client, "greedy", 9, 200, "6 minutes 10 seconds").await;
        lane(&client, "fresh", 5, 200, "0").await;
        // Effective -1: past the urgent, and behind the greedy one in no order.
        lane(&client, "a", 1, 400, "2 minutes 10 seconds").await;
        let taken = play(&client, "{urgent,greedy,fresh,a}", &[size], rounds).await;
        is_share(taken.get(&("a".to_owned(), 1)).copied().unwrap_or(0.0), 0.25, size, rounds);
        is_share(aged(&taken), 0.25, size, rounds);
        db.finish().await;
    }
}
