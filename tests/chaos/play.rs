//! Runs from their beginning to their judgement: the usual one, and those with a planted bug.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use crate::Args;
use crate::canary;
use crate::database::Database;
use crate::faults::Field;
use crate::judge::{self, Judgement};
use crate::mutants::{self, Mix, Mutant, Trial};
use crate::plan::{self, Kind};
use crate::report;
use crate::run::{Run, Trade, in_micros, micros};
use crate::ways::Between;

/// For the processes to come up before production begins.
const RUN_UP: Duration = Duration::from_secs(3);
const CALM: Duration = Duration::from_secs(6);
const LEASE: Duration = Duration::from_secs(3);
/// Producers may be behind when the last fault has struck, in a long run by a part of it.
const LATE: Duration = Duration::from_secs(200);
const LATE_SHARE: u32 = 4;
/// A queue in which nothing changes for so long will not drain any more.
const STUCK: Duration = Duration::from_secs(25);
const STEP: Duration = Duration::from_millis(200);
/// What the producers keep up with, struck as they are, on two cores.
const JOBS_PER_SECOND: f64 = 370.0;
/// Below those that the system gives out.
const SERVICE_PORT: u16 = 7_311;

/// The usual run: everybody works, and everything is struck.
const USUAL: Mix = Mix {
    jobs: 0,
    faults: 0,
    kinds: &[],
    trades: &[Trade::Sql, Trade::Library, Trade::Sql, Trade::Library, Trade::Http],
    spacing: Duration::from_millis(1_100),
    poll: Duration::from_secs(2),
    slow: false,
    has_ways: true,
};

/// Plays the run that was asked for, and says whether nothing was found.
pub(crate) async fn play(args: &Args) -> Result<bool> {
    let needed = args.jobs as f64 / JOBS_PER_SECOND / args.faults.max(1) as f64;
    let spacing = USUAL.spacing.max(Duration::from_secs_f64(needed));
    let mix = Mix { jobs: args.jobs, faults: args.faults, spacing, ..USUAL };
    let (run, database, between) = prepare(args.seed, &mix).await?;
    let judgement = run_and_judge(&run, &database, between, mix.kinds).await?;
    let line = report::closing_line(&run, &judgement);
    if let Some(path) = &args.report {
        std::fs::write(path, report::markdown(&run, &judgement, &database).await?)?;
    }
    let good = judgement.violations() == 0;
    end(&run, database, args.keep, !good).await?;
    let struck = usize::try_from(judgement.figures.fault_count())?;
    judgement.print();
    println!("{line}");
    // What a fault wants may be away for as long as it tries: a few may be missed, not more.
    ensure!(9 * run.faults <= 10 * struck, "only {struck} of {} faults have struck", run.faults);
    Ok(good)
}

/// Tries a mutant, and says whether it got away: true is bad.
pub(crate) async fn try_mutant(args: &Args, mutant: &Mutant) -> Result<bool> {
    let caught = catch(args, mutant).await?;
    let Mutant { number, name, what, .. } = mutant;
    match &caught {
        Some(by) => println!("chaos: {number} {name} ({what}): caught by {by}"),
        None => println!("chaos: {number} {name} ({what}): MISSED"),
    }
    Ok(caught.is_none())
}

/// Tries every mutant, and says whether all were caught.
pub(crate) async fn try_all(args: &Args) -> Result<bool> {
    let mut lines = Vec::new();
    let mut missed = 0;
    for (name, mix) in mutants::controls() {
        let found = live(args, mix, None).await?;
        let by = found.clone().unwrap_or_else(|| "nothing".to_owned());
        println!("chaos: the original, {name}: {by} found");
        lines.push(format!("| none | {name} | the original, in such a run | {by} |"));
        missed += usize::from(found.is_some());
    }
    for mutant in mutants::all() {
        let Mutant { number, name, what, .. } = mutant;
        let caught = catch(args, mutant).await;
        let by = match caught {
            Ok(Some(by)) => by,
            Ok(None) => "MISSED".to_owned(),
            Err(error) => format!("MISSED: {error:#}"),
        };
        missed += usize::from(by.starts_with("MISSED"));
        lines.push(format!("| {number} | {name} | {what} | {by} |"));
        println!("chaos: {number} {name}: {by}");
    }
    let page = report::mutants(args.seed, &lines, missed);
    println!("{page}");
    if let Some(path) = &args.report {
        std::fs::write(path, page)?;
    }
    Ok(missed == 0)
}

/// The checks that found a mutant.
async fn catch(args: &Args, mutant: &Mutant) -> Result<Option<String>> {
    match &mutant.trial {
        Trial::Live(mix) => live(args, mix, Some(mutant)).await,
        Trial::Steps(steps, widen) => {
            let said = mutants::step(mutant, *steps, widen).await?;
            Ok(said.map(|said| format!("steps: {said}")))
        }
    }
}

/// Plays a run of this kind, and gives the checks that found something.
async fn live(args: &Args, mix: &Mix, mutant: Option<&Mutant>) -> Result<Option<String>> {
    let (mut run, database, between) = prepare(args.seed, mix).await?;
    if let Some(mutant) = mutant {
        run.slip = mutant.slip;
        mutants::apply(&database.accepts().await?, mutant.patches).await?;
    }
    let judgement = run_and_judge(&run, &database, between, mix.kinds).await?;
    end(&run, database, args.keep, false).await?;
    judgement.print();
    Ok((0 < judgement.violations()).then(|| judgement.found_by().join(", ")))
}

async fn prepare(seed: u64, mix: &Mix) -> Result<(Run, Arc<Database>, Between)> {
    let database = Arc::new(Database::new().await?);
    let name = format!("chaos-{}", uuid::Uuid::new_v4().simple());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder)?;
    // An address of the run's own: nobody takes its port between two starts of the service.
    let [.., one, other] = uuid::Uuid::new_v4().into_bytes();
    let service = format!("127.77.{one}.{other}:{SERVICE_PORT}");
    let between =
        if mix.has_ways { Between::all(&database.url, &service).await } else { Between::nothing() };
    let run = Run {
        seed,
        jobs: mix.jobs,
        faults: mix.faults,
        folder,
        url: database.url.clone(),
        ways: between.ways(&database.url),
        service,
        starts: micros() + in_micros(RUN_UP),
        calm: CALM,
        spacing: mix.spacing,
        lease: LEASE,
        poll: mix.poll,
        trades: mix.trades.to_vec(),
        slow: mix.slow,
        slip: None,
    };
    Ok((run, database, between))
}

/// Deletes what a run has made, unless somebody wants to look at it.
async fn end(run: &Run, database: Arc<Database>, keep: bool, keep_ledgers: bool) -> Result<()> {
    let database = Arc::into_inner(database).context("nobody else has the database")?;
    if keep {
        println!("chaos: the database is {}", run.url);
        database.keep()?;
    } else {
        database.end().await?;
    }
    if keep || keep_ledgers {
        println!("chaos: ledgers and logs are in {}", run.folder.display());
    } else {
        std::fs::remove_dir_all(&run.folder)?;
    }
    Ok(())
}

/// Produces, works and strikes; drains; judges.
async fn run_and_judge(
    run: &Run,
    database: &Arc<Database>,
    between: Between,
    only: &[Kind],
) -> Result<Judgement> {
    let started = Instant::now();
    let told = |what: &str| println!("chaos: {:>5.1} s: {what}", started.elapsed().as_secs_f64());
    let faults = plan::schedule(run, only);
    told(&format!("seed {}: {} jobs, {} faults to come", run.seed, run.jobs, faults.len()));
    let field = Arc::new(Field::new(run, database, between));
    let canary = AbortOnDropHandle::new(tokio::spawn(canary::sing(run.clone())));
    field.strike_all(&faults).await;
    told("the faults have struck");
    let produced = field.supervisor.produced(LATE + run.span() / LATE_SHARE).await;
    told("the producers have ended");
    let client = database.accepts().await?;
    let left = drain(&client).await?;
    told(&format!("drained, {left} jobs have not ended"));
    let left_open = judge::left_open(&client).await?;
    drop((client, canary));
    Arc::into_inner(field).context("all faults have ended")?.supervisor.end();
    // What a producer that cannot end was not told is found by L1.
    if let Err(error) = produced {
        told(&format!("{error:#}"));
    }
    let judgement = judge::judge(run, database, left_open).await?;
    told("judged");
    Ok(judgement)
}

/// Waits until every job has ended, or nothing changes any more; gives how many have not.
async fn drain(client: &Client) -> Result<i64> {
    // What waits for its time, after many failures for long, is not stuck.
    let sql = "select count(*), (select last_value from chaos.steps),
            exists (select from rowlock.scheduled where run_at > clock_timestamp())
         from rowlock.jobs where finished_at is null";
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let row = client.query_one(sql, &[]).await?;
        let (left, step): (i64, i64) = (row.get(0), row.get(1));
        if left == 0 || STUCK < since.elapsed() {
            return Ok(left);
        }
        if step != last || row.get(2) {
            (last, since) = (step, Instant::now());
        }
        tokio::time::sleep(STEP).await;
    }
}
