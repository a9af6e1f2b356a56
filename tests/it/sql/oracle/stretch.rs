//! Functions that nap between their statements now and then, so that what fits between two of them
//! once in a thousand calls does so all the time.

use tokio_postgres::Client;

use crate::harness::sql::{run, value};

/// The functions that change what graphs are made of.
const FUNCTIONS: &str = "{cancel_blocked,cancel_once,cascade_completed,cascade_ended,closure_of,
    end_running,free_keys,hold_jobs,let_go,link_children,place,reschedule,retry_once,revive,
    unblock,without_spared}";

/// Between two statements of a body, which its author wrote on lines of their own.
pub(super) async fn stretch(client: &Client) {
    let statements = "perform|update|delete|insert|with|select|return query|if|[a-z]+ :=";
    let nap = "perform pg_sleep(case when random() < 0.15 then random() * 0.004 else 0 end)";
    let sql = format!(
        r"do $do$
        declare
            f record;
        begin
            for f in
                select pg_get_functiondef(p.oid) as text
                from pg_proc p
                join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
                where p.pronamespace = 'rowlock'::regnamespace
                    and p.proname = any('{FUNCTIONS}')
            loop
                execute regexp_replace(
                    f.text, ';\n( +)({statements}) ', E';\n\\1{nap};\n\\1\\2 ', 'g'
                );
            end loop;
        end $do$"
    );
    run(client, &sql).await;
    let napping = "select count(*) from pg_proc where prosrc ~ 'pg_sleep\\(case'";
    let expected = FUNCTIONS.split(',').count() as i64;
    assert_eq!(value::<i64>(client, napping).await, expected, "all of these nap");
}
