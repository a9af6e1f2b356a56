//! psql alone as producer and worker, under the roles of the first migration.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rowlock::embedded;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use uuid::Uuid;

use crate::harness::{Db, wait_until};

const DEADLINE: Duration = Duration::from_secs(30);
const END: &str = "-- end of answer";

const GRAPHS: &str = include_str!("../../docs/GRAPHS.md");

/// On the PATH, else beside the server's programs.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let server = embedded::find_binaries().ok().map(|binaries| binaries.bin_dir);
    let folders = std::env::split_paths(&path).chain(server);
    folders.map(|folder| folder.join("psql")).find(|program| program.is_file())
}

/// One psql that stays, fed line by line.
struct Psql {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Psql {
    /// Connected to the test's database as a role, or as the owner.
    fn start(db: &Db, role: Option<&str>) -> Option<Psql> {
        let Some(program) = find() else {
            eprintln!("SKIPPED: there is no psql on the PATH or beside the server");
            return None;
        };
        let role = role.map(|role| format!("%20-crole%3D{role}")).unwrap_or_default();
        let mut child = Command::new(program)
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", &format!("{}{role}", db.url())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("psql can be run");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Some(Psql { _child: child, stdin, lines })
    }

    /// What psql prints for these lines.
    async fn ask(&mut self, lines: &str) -> Vec<String> {
        let text = format!("{lines}\n\\echo '{END}'\n");
        self.stdin.write_all(text.as_bytes()).await.expect("psql reads");
        let mut answer = Vec::new();
        loop {
            let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await;
            let line = line.expect("psql answers in time").expect("psql can be read");
            match line.unwrap_or_else(|| panic!("psql ended at {lines}")) {
                line if line == END => return answer,
                line => answer.push(line),
            }
        }
    }
}

#[tokio::test]
async fn psql_alone_enqueues_works_and_completes() {
    let db = Db::new().await;
    let sessions = (
        Psql::start(&db, Some("rowlock_producer")),
        Psql::start(&db, Some("rowlock_worker")),
        Psql::start(&db, None),
    );
    let (Some(mut producer), Some(mut worker), Some(mut owner)) = sessions else {
        return db.finish().await;
    };
    assert_eq!(producer.ask("select current_user;").await, ["rowlock_producer"]);
    assert_eq!(worker.ask("select current_user;").await, ["rowlock_worker"]);

    let id = producer.ask("select enqueue('greet', '{\"to\": \"ann\"}', queue => 'shell');").await;
    let child =
        format!("select enqueue('sum', queue => 'shell', depends_on => array['{}'::uuid]);", id[0]);
    let child = producer.ask(&child).await;

    let acquire = format!(
        "\\set worker '{}'
         select * from acquire(:'worker', array['shell'], max_jobs => 10) \\gset
         \\set mine ':''worker'', array[:''job_id''::uuid], array[:attempt], array[:''token''::uuid]'
         \\echo :job_id :kind :args",
        Uuid::new_v4()
    );
    assert_eq!(worker.ask(&acquire).await, [format!("{} greet {{\"to\": \"ann\"}}", id[0])]);
    assert_eq!(worker.ask("select verdict from heartbeat(:mine);").await, ["held"]);
    let complete = "select verdict from complete(:mine, results => array['{\"n\": 3}'::jsonb]);";
    assert_eq!(worker.ask(complete).await, ["completed"]);
    assert_eq!(worker.ask(complete).await, ["repeated"]);
    assert_eq!(
        owner.ask("select state from job_details order by id;").await,
        ["completed", "ready"]
    );
    let next = "select job_id from acquire(:'worker', array['shell']);";
    assert_eq!(worker.ask(next).await, child);
    db.finish().await;
}

#[tokio::test]
async fn psql_sleeps_and_is_woken() {
    let db = Db::new().await;
    let sessions =
        (Psql::start(&db, Some("rowlock_producer")), Psql::start(&db, Some("rowlock_worker")));
    let (Some(mut producer), Some(worker)) = sessions else {
        return db.finish().await;
    };
    let worker = tokio::sync::Mutex::new(worker);
    let ask = async |lines: &str| worker.lock().await.ask(lines).await;
    let enqueue = "select enqueue('greet', queue => 'shell');";

    assert!(ask("listen rowlock;\nselect watch(array['shell']) as since \\gset").await.is_empty());
    // Other databases of the cluster may have transactions that are older.
    wait_until("the watch is settled", DEADLINE, || async {
        ask("select settled(:'since');").await == ["t"]
    })
    .await;
    producer.ask(enqueue).await;
    wait_until("psql is notified", DEADLINE, || async {
        let said = ask("select 1;").await.join("\n");
        said.contains("notification \"rowlock\" with payload \"shell\"")
    })
    .await;

    ask("select unwatch(array['shell']);").await;
    producer.ask(enqueue).await;
    let said =
        ask("select 1;\nselect count(*) from acquire(gen_random_uuid(), '{shell}', 9);").await;
    assert_eq!(said, ["1", "2"], "nobody sleeps, so nobody is told");
    db.finish().await;
}

#[tokio::test]
async fn psql_maintains_as_the_owner() {
    let db = Db::new().await;
    let Some(mut owner) = Psql::start(&db, None) else {
        return db.finish().await;
    };
    // Without notifications a parent is attached by maintenance, not inside COMMIT.
    let enqueue = "select enqueue('parent') as parent \\gset
        begin;
        set local rowlock.notify = off;
        select enqueue('child', depends_on => array[:'parent'::uuid]) is not null;
        commit;";
    assert_eq!(owner.ask(enqueue).await, ["t"]);
    let links = "select count(*) from links;";
    assert_eq!(owner.ask(links).await, ["1"]);
    assert_eq!(owner.ask("select done from maintain() where duty = 'link';").await, ["1"]);
    assert_eq!(owner.ask(links).await, ["0"]);
    let waits = "select waits_for from job_details where kind = 'child';";
    assert_eq!(owner.ask(waits).await, ["1"]);
    db.finish().await;
}

/// The blocks of a page that are SQL, each with the block of text that follows it, if one does.
fn examples(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut examples: Vec<(&str, Vec<&str>)> = Vec::new();
    for block in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap_or((block, ""));
        match (language, examples.last_mut()) {
            ("sql", _) => examples.push((text, Vec::new())),
            ("text", Some(last)) => last.1 = text.lines().collect(),
            _ => {}
        }
    }
    examples
}

#[tokio::test]
async fn the_page_on_graphs_says_what_happens() {
    let db = Db::new().await;
    let Some(mut psql) = Psql::start(&db, None) else {
        return db.finish().await;
    };
    let examples = examples(GRAPHS);
    assert!(8 <= examples.iter().filter(|(_, answer)| !answer.is_empty()).count());
    for (sql, answer) in examples {
        assert_eq!(psql.ask(sql).await, answer, "{sql}");
    }
    db.finish().await;
}
