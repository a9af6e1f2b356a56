//! What the functions tell the planner.

use crate::harness::Db;
use crate::harness::sql::column;

/// A forbidden plan that is the only one costs ten thousand million: by that, Postgres compiles the
/// statement with all optimizations, and an enqueue takes half a second.
#[tokio::test]
async fn a_function_that_forbids_plans_forbids_their_compilation() {
    let db = Db::new().await;
    let client = db.connect().await;
    let sql = "select p.proname::text from pg_proc p
        where p.pronamespace = 'rowlock'::regnamespace
            and exists (select from unnest(p.proconfig) s where s ~ '^enable_.*=off$')";
    let forbidding: Vec<String> = column(&client, sql).await;
    assert!(forbidding.len() >= 10, "{forbidding:?}");
    let compiling: Vec<String> =
        column(&client, &format!("{sql} and 'jit=off' <> all (p.proconfig)")).await;
    assert!(compiling.is_empty(), "{compiling:?}");
    db.finish().await;
}
