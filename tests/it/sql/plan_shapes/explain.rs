//! A session that reports the plan of every statement, those inside functions too.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::harness::Db;
use crate::harness::sql::{run, value};

/// Plans as JSON, with what each node did.
const REPORT: &str = "
    set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;
    set auto_explain.log_format = json; set auto_explain.log_analyze = on;
    set auto_explain.log_timing = off; set auto_explain.log_buffers = on;
    set auto_explain.log_level = notice; set client_min_messages = notice; set track_functions = 'all'";

/// Where the server looks for its libraries.
const INSTALLED: &str = "select count(*) from pg_config c, pg_ls_dir(c.setting) f(file)
    where c.name = 'PKGLIBDIR' and f.file like 'auto!_explain.%' escape '!'";

/// One executed statement.
pub(crate) struct Plan {
    pub(crate) statement: String,
    pub(crate) root: Value,
    pub(crate) compiled: bool,
}

/// A connection under `auto_explain`.
pub(crate) struct Explained {
    pub(crate) client: Client,
    reports: Arc<Mutex<Vec<String>>>,
}

impl Explained {
    /// `None` where the server has no `auto_explain`: some packages come without it. One that has
    /// it and cannot load it fails the test.
    pub(crate) async fn connect(db: &Db) -> Option<Explained> {
        let config: tokio_postgres::Config = db.url().parse().expect("a URL");
        let (client, mut connection) = config.connect(NoTls).await.expect("connects");
        let reports = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&reports);
        tokio::spawn(async move {
            let mut messages = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notice(notice) = message {
                    sink.lock().expect("not poisoned").push(notice.message().to_owned());
                }
            }
        });
        if let Err(error) = client.batch_execute("load 'auto_explain'").await {
            assert_eq!(error.code().map(SqlState::code), Some("58P01"), "{error:?}");
            assert_eq!(value::<i64>(&client, INSTALLED).await, 0, "it is installed: {error:?}");
            eprintln!("\n*** NO PLAN WAS CHECKED: this server's package lacks auto_explain ***\n");
            return None;
        }
        run(&client, REPORT).await;
        Some(Explained { client, reports })
    }

    /// Runs a statement whose answer must be this number, and gives all plans of it.
    pub(crate) async fn plans_of(&self, sql: &str, answer: i64) -> Vec<Plan> {
        self.reports.lock().expect("not poisoned").clear();
        assert_eq!(value::<i64>(&self.client, sql).await, answer, "{sql}");
        self.plans(sql)
    }

    /// The same for a statement without an answer, as a commit is.
    pub(crate) async fn plans_of_command(&self, sql: &str) -> Vec<Plan> {
        self.reports.lock().expect("not poisoned").clear();
        run(&self.client, sql).await;
        self.plans(sql)
    }

    /// But for the statement that was sent, which is the test's own.
    fn plans(&self, sent: &str) -> Vec<Plan> {
        let reports = std::mem::take(&mut *self.reports.lock().expect("not poisoned"));
        let sent = in_one_line(sent);
        let plans = reports.iter().filter_map(|report| parse(report));
        plans.filter(|plan| plan.statement != sent).collect()
    }
}

/// `duration: 0.1 ms  plan:` and a JSON object.
fn parse(report: &str) -> Option<Plan> {
    let (_, json) = report.split_once("plan:")?;
    let mut plan: Value = serde_json::from_str(json).ok()?;
    let statement = in_one_line(plan["Query Text"].as_str()?);
    let compiled = plan.get("JIT").is_some();
    Some(Plan { statement, root: plan["Plan"].take(), compiled })
}

fn in_one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}
