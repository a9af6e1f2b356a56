//! Results: what is kept, and what is too large to be.

use super::finish::running;
use crate::harness::Db;
use crate::harness::sql::{finish, state, value};

#[tokio::test]
async fn of_one_execution_given_twice_the_result_that_fits_is_taken() {
    let db = Db::new().await;
    let client = db.connect().await;
    let large = "to_jsonb(repeat('x', 262143))";
    for (results, wanted) in [
        (vec![large, "'1'"], vec!["result_too_large", "completed"]),
        (vec!["'1'", large], vec!["completed", "repeated"]),
        (vec![large, large], vec!["result_too_large", "result_too_large"]),
        (
            vec![large, "'1'", large, "'2'"],
            vec!["result_too_large", "completed", "repeated", "repeated"],
        ),
    ] {
        let execution = running(&client, 1).await.remove(0);
        let given: Vec<_> = results.iter().map(|_| execution.clone()).collect();
        let arguments = format!(", results => array[{}]::jsonb[]", results.join(","));
        assert_eq!(finish(&client, "complete", &given, &arguments).await, wanted);
        if wanted.contains(&"completed") {
            let sql = format!(
                "select result::text from executions where job_id = '{}'",
                execution.job_id
            );
            assert_eq!(value::<String>(&client, &sql).await, "1");
        }
    }
    db.finish().await;
}

#[tokio::test]
async fn a_result_too_large_harms_nobody_else() {
    let db = Db::new().await;
    let client = db.connect().await;
    let executions = running(&client, 3).await;
    let results =
        ", results => array[to_jsonb(repeat('x', 262143)), to_jsonb(repeat('x', 262142)), null]";
    let verdicts = finish(&client, "complete", &executions, results).await;
    assert_eq!(verdicts, ["result_too_large", "completed", "completed"]);
    assert_eq!(state(&client, executions[0].job_id).await, "running");
    let bomb = format!(", results => array['[{}]'::jsonb]", vec!["1e131071"; 9000].join(","));
    assert_eq!(finish(&client, "complete", &executions[..1], &bomb).await, ["result_too_large"]);
    let small = ", results => array['{\"n\": 1.50}'::jsonb]";
    assert_eq!(finish(&client, "complete", &executions[..1], small).await, ["completed"]);
    let sql =
        format!("select result::text from executions where job_id = '{}'", executions[0].job_id);
    assert_eq!(value::<String>(&client, &sql).await, "{\"n\": 1.50}");
    db.finish().await;
}
