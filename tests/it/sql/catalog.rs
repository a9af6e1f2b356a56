//! Rules that every object of the schema keeps, read from the catalog; and who may do what.

use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, column, enqueue, refused, run, value};

/// Nothing but an empty list will do.
async fn none(db: &Db, what: &str, sql: &str) {
    let client = db.connect().await;
    let found: Vec<String> = column(&client, sql).await;
    assert!(found.is_empty(), "{what}: {found:#?}");
}

#[tokio::test]
async fn everything_has_a_comment() {
    let db = Db::new().await;
    let functions = "select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'rowlock'::regnamespace and obj_description(p.oid, 'pg_proc') is null";
    none(&db, "functions without a comment", functions).await;
    let relations =
        "select c.relname::text from pg_class c where c.relnamespace = 'rowlock'::regnamespace
        and c.relkind in ('r', 'v') and obj_description(c.oid, 'pg_class') is null";
    none(&db, "tables and views without a comment", relations).await;
    let columns = "select a.attrelid::regclass || '.' || a.attname
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r'
          and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null";
    none(&db, "columns without a comment", columns).await;
    db.finish().await;
}

#[tokio::test]
async fn functions_find_their_names_here_and_temporary_ones_last() {
    let db = Db::new().await;
    // Those of the SQL standard's form carry their names resolved, and so may be inlined.
    let unpinned = "select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'rowlock'::regnamespace
          and not coalesce(p.proconfig @> '{\"search_path=rowlock, pg_temp\"}', false)
          and (p.prosecdef or p.prosqlbody is null) and p.proname <> 'wake'";
    none(&db, "functions without a search_path of their own", unpinned).await;
    let owners =
        "select p.oid::regprocedure::text from pg_proc p join pg_roles r on r.oid = p.proowner
        where p.pronamespace = 'rowlock'::regnamespace
          and (r.rolsuper or r.rolname <> 'rowlock_owner')";
    none(&db, "functions of the wrong owner", owners).await;
    let tables = "select c.relname::text from pg_class c join pg_roles r on r.oid = c.relowner
        where c.relnamespace = 'rowlock'::regnamespace and r.rolname <> 'rowlock_owner'";
    none(&db, "relations of the wrong owner", tables).await;
    let public = "select p.oid::regprocedure::text from pg_proc p,
            aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace = 'rowlock'::regnamespace and a.grantee = 0";
    none(&db, "functions that everybody may call", public).await;
    let relations = "select c.relname::text from pg_class c, aclexplode(c.relacl) a
        where c.relnamespace = 'rowlock'::regnamespace and a.grantee = 0
          and c.relname not in ('migrations', 'function_files', 'function_digests')";
    // Any role may ask which version is here.
    none(&db, "relations that everybody may read", relations).await;
    db.finish().await;
}

#[tokio::test]
async fn a_temporary_table_of_the_same_name_is_out_of_reach() {
    let db = Db::new().await;
    let client = db.connect().await;
    let trap = "
        create function public.trap() returns trigger language plpgsql as
            $$ begin raise exception 'reached as %', current_user; end $$";
    run(&client, trap).await;
    run(&client, "set search_path = pg_temp, rowlock").await;
    let tables: Vec<String> = column(
        &client,
        "select relname::text from pg_class
         where relnamespace = 'rowlock'::regnamespace and relkind = 'r'",
    )
    .await;
    assert!(10 < tables.len());
    for table in tables {
        run(
            &client,
            &format!(
                "create temporary table {table} (like rowlock.{table});
                 create trigger trap before insert or update or delete on {table}
                     for each statement execute function public.trap();
                 grant all on {table} to public"
            ),
        )
        .await;
    }
    let parent = value::<Uuid>(&client, "select rowlock.enqueue('p')").await;
    let child = format!("select rowlock.enqueue('c', depends_on => '{{{parent}}}')");
    run(&client, &child).await;
    run(&client, "select * from rowlock.acquire(gen_random_uuid(), '{default}', 2)").await;
    run(&client, "select * from rowlock.maintain(); select rowlock.pause_queue('q')").await;
    run(&client, &format!("select * from rowlock.cancel('{{{parent}}}')")).await;
    run(&client, "discard temp").await;
    db.finish().await;
}

/// Which of the calls each role may make. Others must be refused for want of the right.
const RIGHTS: &[(&str, &str)] = &[
    ("producer service", "select rowlock.enqueue('k')"),
    ("producer service", "select rowlock.enqueue_many('[]')"),
    ("worker service", "select rowlock.acquire(gen_random_uuid(), '{a}')"),
    ("worker service", "select rowlock.complete(gen_random_uuid(), '{}', '{}', '{}')"),
    ("worker service", "select rowlock.fail(gen_random_uuid(), '{}', '{}', '{}')"),
    ("worker service", "select rowlock.snooze(gen_random_uuid(), '{}', '{}', '{}', '{}')"),
    ("worker service", "select rowlock.release(gen_random_uuid(), '{}', '{}', '{}')"),
    ("worker service", "select rowlock.heartbeat(gen_random_uuid(), '{}', '{}', '{}')"),
    ("worker service", "select rowlock.watch('{}')"),
    ("worker service", "select rowlock.settled(pg_current_snapshot())"),
    ("worker service", "select rowlock.unwatch('{}')"),
    ("worker service", "select rowlock.paused('{}')"),
    ("service", "select rowlock.cancel('{}')"),
    ("service", "select rowlock.retry('{}')"),
    ("producer service", "select rowlock.enqueue_many('{\"workflow\": \"n\", \"jobs\": []}')"),
    ("service", "select rowlock.cancel_workflow(null)"),
    ("service", "select rowlock.retry_workflow(null)"),
    ("service observer", "select rowlock.workflow_status(null)"),
    ("service observer", "select rowlock.workflow_jobs(null)"),
    ("service observer", "table rowlock.workflow_details"),
    ("service", "select rowlock.pause_queue('a')"),
    ("service", "select rowlock.set_retention('a', '1 day')"),
    ("service", "select rowlock.resume_queue('a')"),
    ("service", "select rowlock.maintain()"),
    ("service", "select rowlock.try_floors(null, null, null, 10)"),
    ("service observer", "select rowlock.verify()"),
    ("service observer", "table rowlock.queue_stats"),
    ("service observer", "table rowlock.longest_waits"),
    ("service observer", "table rowlock.acquire_latency"),
    ("service observer", "table rowlock.outcome_stats"),
    ("service observer", "table rowlock.worker_stats"),
    ("service observer", "table rowlock.running"),
    ("service observer", "table rowlock.job_details"),
    ("service", "select args from rowlock.jobs"),
    ("service", "select result, error from rowlock.executions"),
    ("service", "table rowlock.ready"),
    ("service", "select digest from rowlock.tokens"),
    ("service", "select rowlock.touch_token('x')"),
    ("", "select rowlock.create_token('x', '', 'n', '{work}')"),
    ("", "select rowlock.rotate_token('x', 'y', '', '1 day')"),
    ("", "select rowlock.revoke_token('x')"),
    ("", "update rowlock.tokens set queues = null"),
    ("service", "select rowlock.readable('{}')"),
    ("", "select rowlock.quarantine('{}')"),
    ("", "select rowlock.refuse('RL422', 'm', 'd', 'h')"),
    ("", "select rowlock.prune(10)"),
    ("", "select rowlock.raise_floors(0, '{}', null, 10)"),
    ("", "select rowlock.place('{}')"),
    ("", "select rowlock.wake('{}')"),
    ("", "select rowlock.forget('{}')"),
    ("", "select rowlock.take_back('{}', '{}', 'lost', 1, null, true)"),
    ("", "delete from rowlock.jobs"),
    ("", "update rowlock.queues set paused_at = null"),
    ("", "insert into rowlock.unique_keys values ('k', gen_random_uuid())"),
    ("", "select nextval('rowlock.ready_seq')"),
];

#[tokio::test]
async fn each_role_may_do_its_own_and_nothing_else() {
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue(&client, "'k', '{\"secret\": 1}'").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    run(
        &client,
        "do $$ begin create role rowlock_test_nobody nologin;
        exception when duplicate_object or unique_violation then null; end $$",
    )
    .await;
    for role in ["producer", "worker", "service", "observer", "test_nobody"] {
        for (allowed, call) in RIGHTS {
            run(&client, &format!("begin; set local role rowlock_{role}")).await;
            if allowed.split(' ').any(|one| one == role) {
                run(&client, call).await;
            } else {
                refused(&client, "42501", call).await;
            }
            run(&client, "rollback").await;
        }
    }
    db.finish().await;
}

#[tokio::test]
async fn what_the_observer_sees_holds_no_args_results_or_errors() {
    let db = Db::new().await;
    let told = "select a.attrelid::regclass || '.' || a.attname
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'v' and a.attnum > 0
          and a.attname in ('args', 'result', 'error', 'metadata', 'token')";
    none(&db, "columns that views must not show", told).await;
    let readable = "select c.relname::text from pg_class c
        where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r' 
          and c.relname not in ('queues', 'migrations', 'function_files', 'function_digests')
          and has_table_privilege('rowlock_observer', c.oid, 'select')";
    none(&db, "tables that the observer can read", readable).await;
    db.finish().await;
}

#[tokio::test]
async fn no_function_name_stands_twice() {
    let db = Db::new().await;
    let twice = "select p.proname::text from pg_proc p
        where p.pronamespace = 'rowlock'::regnamespace group by p.proname having count(*) > 1";
    none(&db, "overloaded functions", twice).await;
    db.finish().await;
}
