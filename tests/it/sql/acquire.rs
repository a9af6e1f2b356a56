//! What an acquire takes, in which order, and what it refuses.

use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_with, complete, drain, enqueue, finish, refused, run, value,
};

#[tokio::test]
async fn bad_input_is_refused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    let many = "array(select 'q' || n from generate_series(1, 101) n)";
    for (code, arguments) in [
        ("RL422", "null, '{a}'".to_owned()),
        ("RL422", format!("'{worker}', null")),
        ("RL422", format!("'{worker}', '{{}}'")),
        ("RL422", format!("'{worker}', array[null]")),
        ("RL422", format!("'{worker}', '{{a,-b}}'")),
        ("RL422", format!("'{worker}', array[repeat('a', 129)]")),
        ("RL413", format!("'{worker}', {many}")),
        ("RL422", format!("'{worker}', '{{a}}', 0")),
        ("RL422", format!("'{worker}', '{{a}}', 1001")),
        ("RL422", format!("'{worker}', '{{a}}', null")),
        ("RL422", format!("'{worker}', '{{a}}', lease => '999 ms'")),
        ("RL422", format!("'{worker}', '{{a}}', lease => '24:00:01'")),
        ("RL422", format!("'{worker}', '{{a}}', lease => null")),
        ("RL422", format!("'{worker}', '{{a}}', name => ''")),
        ("RL422", format!("'{worker}', '{{a}}', name => repeat('n', 129)")),
        ("RL422", format!("'{worker}', '{{a}}', capacity => 0")),
        ("RL413", format!("'{worker}', '{{a}}', metadata => to_jsonb(repeat('m', 262144))")),
    ] {
        let error = refused(&client, code, &format!("select * from acquire({arguments})")).await;
        assert!(!error.message().is_empty());
    }
    assert_eq!(value::<i64>(&client, "select count(*) from workers").await, 0);
    let most = "array(select 'q' || n from generate_series(1, 100) n), 1000, lease => '24 h'";
    assert!(acquire_with(&client, worker, most).await.is_empty());
    db.finish().await;
}

#[tokio::test]
async fn the_most_urgent_runs_first_and_in_a_lane_the_oldest() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut wanted = Vec::new();
    for priority in [9, 0, 5, 0, 9, 3] {
        let job = enqueue(&client, &format!("'k', priority => {priority}")).await;
        wanted.push((priority, job));
    }
    wanted.push((5, enqueue(&client, "'k'").await));
    wanted.sort_by_key(|(priority, _)| *priority);
    let worker = Uuid::new_v4();
    let got = acquire(&client, worker, 100).await;
    let got: Vec<_> = got.iter().map(|one| (one.priority, one.job_id)).collect();
    assert_eq!(got, wanted);
    db.finish().await;
}

#[tokio::test]
async fn queues_are_merged_and_their_duplicates_removed() {
    let db = Db::new().await;
    let client = db.connect().await;
    let later = enqueue(&client, "'k', queue => 'a', priority => 4").await;
    let first = enqueue(&client, "'k', queue => 'b', priority => 1").await;
    enqueue(&client, "'k', queue => 'other', priority => 0").await;
    let got = acquire_with(&client, Uuid::new_v4(), "'{a,b,a,b,a}', 10").await;
    let got: Vec<_> = got.iter().map(|one| one.job_id).collect();
    assert_eq!(got, [first, later]);
    db.finish().await;
}

#[tokio::test]
async fn never_more_than_asked_for_whatever_the_planner_may_do() {
    let db = Db::new().await;
    let client = db.connect().await;
    let fill = "select enqueue('k', priority => n % 10) from generate_series(1, 400) n";
    run(&client, fill).await;
    let settings = [
        "enable_nestloop = off",
        "enable_indexscan = off; set enable_indexonlyscan = off",
        "enable_tidscan = off",
        "enable_sort = off",
        "enable_material = off",
        "enable_memoize = off",
        "plan_cache_mode = force_custom_plan",
        "cursor_tuple_fraction = 1",
        "random_page_cost = 0; set seq_page_cost = 1000",
        "join_collapse_limit = 1; set from_collapse_limit = 1",
        "jit_above_cost = 0",
    ];
    for setting in settings {
        run(&client, &format!("reset all; set search_path = rowlock; set {setting}")).await;
        for max_jobs in [1, 7, 20] {
            let got = acquire(&client, Uuid::new_v4(), max_jobs).await;
            assert_eq!(got.len(), usize::try_from(max_jobs).expect("small"), "{setting}");
            // Sorted, but for the share that belongs to age; nothing here is old.
            assert!(got.is_sorted_by_key(|one| one.priority), "{setting}: {got:?}");
            assert_eq!(complete(&client, &got).await, vec!["completed"; got.len()]);
        }
    }
    assert_eq!(value::<i64>(&client, "select count(*) from ready").await, 400 - 28 * 11);
    db.finish().await;
}

#[tokio::test]
async fn a_reply_carries_8_mib_of_args_but_one_job_at_least() {
    let db = Db::new().await;
    let client = db.connect().await;
    // 262,144 bytes as text, quotes and all: 32 fill a reply to the last byte.
    let fill = "select enqueue('k', to_jsonb(repeat('x', 262142))) from generate_series(1, 40)";
    run(&client, fill).await;
    let worker = Uuid::new_v4();
    let call = format!(
        "select count(*), sum(octet_length(args::text)) from acquire('{worker}', '{{default}}', 100)"
    );
    let row = client.query_one(&call, &[]).await.expect("acquires");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (32, 8_388_608));
    // A little one before them, and the last does not fit any more.
    run(&client, fill).await;
    run(&client, "select enqueue('k', priority => 0)").await;
    let row = client.query_one(&call, &[]).await.expect("acquires");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (32, 31 * 262_144 + 2));
    assert_eq!(acquire(&client, worker, 100).await.len(), 17);
    // What is above the bound by itself still travels, alone.
    let grown = "select enqueue('k') from generate_series(1, 3);
        update ready set args_bytes = 9000000";
    run(&client, grown).await;
    for _ in 0..3 {
        assert_eq!(acquire(&client, worker, 100).await.len(), 1);
    }
    db.finish().await;
}

#[tokio::test]
async fn kinds_are_looked_for_within_ten_thousand_of_the_head() {
    let db = Db::new().await;
    let client = db.connect().await;
    let fill = |kind: &str, many: i32| {
        format!(
            "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object('kind', '{kind}'))
             from generate_series(1, {many})))"
        )
    };
    run(&client, &fill("foreign", 9_999)).await;
    let near = enqueue(&client, "'mine'").await;
    let far = enqueue(&client, "'mine'").await;
    let only_mine = "'{default}', 10, kinds => '{mine,mine too}'";
    let got = acquire_with(&client, Uuid::new_v4(), only_mine).await;
    assert_eq!(got.iter().map(|one| one.job_id).collect::<Vec<_>>(), [near]);
    // One of the others gone, it is in reach.
    assert_eq!(acquire(&client, Uuid::new_v4(), 1).await.len(), 1);
    run(&client, "select enqueue('foreign')").await;
    let got = acquire_with(&client, Uuid::new_v4(), only_mine).await;
    assert_eq!(got.iter().map(|one| one.job_id).collect::<Vec<_>>(), [far]);
    assert!(acquire_with(&client, Uuid::new_v4(), "'{default}', kinds => '{}'").await.is_empty());
    db.finish().await;
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_and_takes_everything() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    enqueue(&client, "'k'").await;
    let before = acquire(&client, worker, 1).await;
    assert!(value::<bool>(&client, "select pause_queue('default')").await);
    assert!(!value::<bool>(&client, "select pause_queue('default')").await);
    enqueue(&client, "'k'").await;
    enqueue(&client, "'k', queue => 'b'").await;
    assert!(acquire(&client, worker, 10).await.is_empty());
    assert_eq!(acquire_with(&client, worker, "'{default,b}', 10").await.len(), 1);
    // What runs is not touched.
    assert_eq!(finish(&client, "heartbeat", &before, "").await, ["held"]);
    assert_eq!(complete(&client, &before).await, ["completed"]);
    assert!(value::<bool>(&client, "select resume_queue('default')").await);
    assert!(!value::<bool>(&client, "select resume_queue('default')").await);
    assert_eq!(drain(&client).await, 1);
    db.finish().await;
}

#[tokio::test]
async fn the_workers_row_is_written_only_when_its_lease_or_a_new_queue_needs_it() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    let version = format!("select xmin::text || ctid::text from workers where id = '{worker}'");
    acquire_with(&client, worker, "'{a}', lease => '60 s', name => 'w', capacity => 3").await;
    let first: String = value(&client, &version).await;
    acquire_with(&client, worker, "'{a}', lease => '60 s'").await;
    acquire_with(&client, worker, "'{a}', lease => '80 s'").await;
    assert_eq!(value::<String>(&client, &version).await, first);
    // Two thirds of 100 s are more than what is left of 60.
    acquire_with(&client, worker, "'{a}', lease => '100 s', kinds => '{k}'").await;
    let second: String = value(&client, &version).await;
    assert_ne!(second, first);
    let sql = "select format('%s %s %s %s %s', name, capacity, queues, kinds,
        round(extract(epoch from lease_ends_at - heartbeat_at))) from workers";
    assert_eq!(value::<String>(&client, sql).await, "w 3 {a} {k} 100");
    run(&client, "update workers set lease_ends_at = clock_timestamp() + interval '66 s'").await;
    let third: String = value(&client, &version).await;
    acquire_with(&client, worker, "'{a}', lease => '100 s'").await;
    let fourth: String = value(&client, &version).await;
    assert_ne!(fourth, third);
    acquire_with(&client, worker, "'{a,b}', lease => '1 s'").await;
    let fifth: String = value(&client, &version).await;
    assert_ne!(fifth, fourth);
    for queues in ["{a}", "{b}", "{b,a}"] {
        acquire_with(&client, worker, &format!("'{queues}', lease => '1 s'")).await;
        assert_eq!(value::<String>(&client, &version).await, fifth);
    }
    db.finish().await;
}

#[tokio::test]
async fn late_in_a_long_transaction_the_clock_has_gone_on() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "begin; select enqueue('k'); select pg_sleep(1.2)").await;
    let got = acquire_with(&client, Uuid::new_v4(), "'{default}', lease => '1 s'").await;
    assert_eq!(got.len(), 1);
    // A lease counted from the transaction's start would have ended.
    let alive = "select lease_ends_at > clock_timestamp() from workers";
    assert!(value::<bool>(&client, alive).await);
    let late = "select started_at > now() + interval '1.1 s' from executions";
    assert!(value::<bool>(&client, late).await);
    run(&client, "commit").await;
    db.finish().await;
}

#[tokio::test]
async fn timeouts_are_noted_with_the_grant() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(
        &client,
        "select enqueue('k', timeout => n * '1 h'::interval) from generate_series(3, 1, -1) n",
    )
    .await;
    enqueue(&client, "'k'").await;
    let worker = Uuid::new_v4();
    let got = acquire_with(&client, worker, "'{default}', 10, call_number => 7").await;
    assert_eq!(got.len(), 4);
    let sql = "select g.call_number || ' ' || cardinality(job_ids) || ' ' ||
        (g.expires_at = (select min(started_at) + interval '1 h' from executions))::text from grants g";
    assert_eq!(value::<String>(&client, sql).await, "7 4 true");
    db.finish().await;
}

/// The queues in the row of the only worker.
const QUEUES: &str = "select array_to_string(queues, ' ') from workers";

#[tokio::test]
async fn a_worker_keeps_the_queues_that_it_asked_for_in_separate_calls() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    for (queues, known) in [("{a}", "a"), ("{b,c,b}", "b c a"), ("{c,a}", "b c a")] {
        acquire_with(&client, worker, &format!("'{queues}'")).await;
        assert_eq!(value::<String>(&client, QUEUES).await, known);
    }
    // Neither a renewal for one of them nor a heartbeat forgets the others.
    run(&client, "update workers set lease_ends_at = clock_timestamp() + interval '1 s'").await;
    acquire_with(&client, worker, "'{a}'").await;
    assert_eq!(value::<String>(&client, QUEUES).await, "a b c");
    run(&client, &format!("select heartbeat('{worker}', '{{}}', '{{}}', '{{}}')")).await;
    assert_eq!(value::<String>(&client, QUEUES).await, "a b c");
    let batch = format!("select acquire_batch(array['{worker}'::uuid], '{{1}}', '{{d}}')");
    run(&client, &batch).await;
    assert_eq!(value::<String>(&client, QUEUES).await, "d a b c");
    // The newest hundred.
    let many = "array(select 'q' || n from generate_series(1, 98) n)";
    acquire_with(&client, worker, many).await;
    let kept = "select cardinality(queues) || ' ' || queues[98] || ' ' || queues[99] || ' '
        || queues[100] from workers";
    assert_eq!(value::<String>(&client, kept).await, "100 q98 d a");
    db.finish().await;
}

#[tokio::test]
async fn asking_for_another_queue_does_not_shorten_the_lease() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    acquire_with(&client, worker, "'{a}', lease => '1 h'").await;
    acquire_with(&client, worker, "'{b}', lease => '1 s'").await;
    let long = "select lease_ends_at > clock_timestamp() + interval '50 min' from workers";
    assert!(value::<bool>(&client, long).await);
    assert_eq!(value::<String>(&client, QUEUES).await, "b a");
    db.finish().await;
}

#[tokio::test]
async fn each_queue_of_a_worker_has_floors() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = Uuid::new_v4();
    for queue in ["a", "b"] {
        let fill = format!("select enqueue('k', queue => '{queue}') from generate_series(1, 200)");
        run(&client, &fill).await;
        let got = acquire_with(&client, worker, &format!("'{{{queue}}}', 200")).await;
        assert_eq!(complete(&client, &got).await.len(), 200);
    }
    assert_eq!(value::<i64>(&client, "select done from floors(10)").await, 2);
    run(&client, "select tidy_floors(10)").await;
    assert_eq!(value::<i64>(&client, "select count(*) from lane_floors").await, 2);
    db.finish().await;
}
