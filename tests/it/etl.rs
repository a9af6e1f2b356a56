//! The example of a workflow: what comes out with sources that are down, and what does not.

use crate::harness::sql::column;
use crate::harness::{Db, example};

/// What the example prints, a line a job, and whether it succeeded.
async fn run(db: &Db, down: &[&str]) -> (Vec<String>, bool) {
    let mut command = example("etl");
    command.env("DATABASE_URL", db.url());
    for source in down {
        command.args(["--down", source]);
    }
    let output = command.output().await.expect("runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (text.lines().map(str::to_owned).collect(), output.status.success())
}

fn line<'a>(lines: &'a [String], job: &str) -> &'a str {
    let found = lines.iter().find(|line| line.starts_with(job));
    found.unwrap_or_else(|| panic!("{job} is not in {lines:#?}"))
}

#[tokio::test]
async fn the_etl_example_goes_on_without_what_it_can_spare() {
    let db = Db::new().await;
    let client = db.connect().await;
    for (down, summary, totals) in [
        (&["orders-west"][..], "0 orders left out", ["Ada 240", "Edsger 220", "Grace 200"]),
        (&["orders-east", "rates"], "3 orders left out", ["Ada 180", "Edsger 180", "Grace 180"]),
    ] {
        let (lines, succeeded) = run(&db, down).await;
        assert!(succeeded, "{lines:#?}");
        assert_eq!(lines.len(), 9, "{lines:#?}");
        assert!(lines[8].starts_with("workflow "), "{lines:#?}");
        assert!(line(&lines, &format!("extract {}", down[0])).contains("discarded"), "{lines:#?}");
        assert!(line(&lines, "report").contains(&format!("3 customers, {summary}")), "{lines:#?}");
        let sql = "delete from public.etl_totals returning customer || ' ' || euros";
        let mut found: Vec<String> = column(&client, sql).await;
        found.sort();
        assert_eq!(found, totals);
    }
    db.finish().await;
}

#[tokio::test]
async fn the_etl_example_ends_with_both_mirrors_down() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (lines, succeeded) = run(&db, &["orders-east", "orders-west"]).await;
    assert!(!succeeded, "{lines:#?}");
    for job in ["first", "transform", "load", "report"] {
        let line = line(&lines, job);
        assert!(line.contains("cancelled") && line.ends_with("a parent was discarded"), "{line}");
    }
    let rows =
        "select customer from public.etl_totals union select customer from public.etl_staged";
    assert_eq!(column::<String>(&client, rows).await, Vec::<String>::new());
    db.finish().await;
}
