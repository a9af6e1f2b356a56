//! What a run says in the end: a line, or a page.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use crate::database::Database;
use crate::judge::Judgement;
use crate::run::Run;

/// Upper ends of the bars of a histogram, in seconds.
const BARS: [f64; 7] = [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, f64::INFINITY];

/// The line that sums a run up.
pub(crate) fn closing_line(run: &Run, judgement: &Judgement) -> String {
    let figures = &judgement.figures;
    format!(
        "chaos: seed {}: {} jobs ({} in graphs), {} faults, {} lost, {} doubled, \
         {} duplicates explained, {} violations; {:.0} % of the time free of faults that strike all; \
         next attempt after the lease of a killed worker: \
         p50 {}, p99 {}, of {}",
        run.seed,
        figures.jobs,
        figures.in_graphs,
        figures.fault_count(),
        judgement.of("L1"),
        judgement.of("L3"),
        figures.explained(),
        judgement.violations(),
        100.0 * figures.judged_share,
        recovery(judgement, 0.5),
        recovery(judgement, 0.99),
        figures.recovery.len(),
    )
}

/// The page about planted bugs: a row each, and one for each kind of run without any.
pub(crate) fn mutants(seed: u64, rows: &[String], missed: usize) -> String {
    format!(
        "# Planted bugs, seed {seed}\n\n{} of {} rows are as they have to be.\n\n\
         | number | mutant | what it does | found by |\n|---|---|---|---|\n{}\n",
        rows.len() - missed,
        rows.len(),
        rows.join("\n")
    )
}

fn recovery(judgement: &Judgement, share: f64) -> String {
    let seconds = judgement.figures.recovery_at(share);
    seconds.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds:.2} s"))
}

/// The page about a run.
pub(crate) async fn markdown(
    run: &Run,
    judgement: &Judgement,
    database: &Database,
) -> Result<String> {
    let figures = &judgement.figures;
    let client = database.accepts().await?;
    let version: String = client.query_one("show server_version", &[]).await?.get(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut page = format!(
        "# Chaos, seed {}\n\n{}\n\n{cores} cores, Postgres {version} with fsync on, {build} build. \
         To replay: `make chaos JOBS={} FAULTS={} SEED={}`.\n",
        run.seed,
        closing_line(run, judgement),
        run.jobs,
        run.faults,
        run.seed,
    );
    let ledger = BTreeMap::from([
        ("calls".to_owned(), figures.calls),
        (
            "answers that never came, each resolved by repeating the call".to_owned(),
            figures.unknowns,
        ),
        ("jobs".to_owned(), figures.jobs),
        ("jobs in graphs".to_owned(), figures.in_graphs),
        ("executions".to_owned(), figures.executions),
        ("ends refused as stale".to_owned(), figures.stale),
        ("planned faults that found nothing to strike".to_owned(), figures.missed),
        ("times a process of ours was kept from running for 0.7 s".to_owned(), figures.stalls),
    ]);
    table(&mut page, "Ledgers", "what", &ledger)?;
    table(&mut page, "Jobs by state", "state", &figures.by_state)?;
    table(&mut page, "Faults by kind", "kind", &figures.faults)?;
    table(
        &mut page,
        "Executions that did not complete their job, by cause",
        "cause",
        &figures.causes,
    )?;
    writeln!(page, "\n## Checks\n\n| check | violations |\n|---|---|")?;
    for finding in &judgement.findings {
        writeln!(page, "| {} {} | {} |", finding.check, finding.what, finding.violations.len())?;
    }
    writeln!(
        page,
        "\n## Recovery\n\nFrom the end of a killed worker's lease to the next attempt of what it \
         held, where neither the database nor the service was away meanwhile: p50 {}, p99 {}.\n\n\
         | up to | executions |\n|---|---|",
        recovery(judgement, 0.5),
        recovery(judgement, 0.99),
    )?;
    let mut from = f64::NEG_INFINITY;
    for to in BARS {
        let inside = figures.recovery.iter().filter(|time| from < **time && **time <= to).count();
        let name = if to.is_finite() { format!("{to} s") } else { "more".to_owned() };
        writeln!(page, "| {name} | {inside} |")?;
        from = to;
    }
    writeln!(
        page,
        "\nJobs ended a second in the 5 s before the database went down, and in the 10 s after it \
         accepted connections again (the load is paced; faults are {:.1} s apart):\n\n\
         | before | after |\n|---|---|",
        run.spacing.as_secs_f64()
    )?;
    for (before, after) in &figures.restarts {
        writeln!(page, "| {before:.0} | {after:.0} |")?;
    }
    Ok(page)
}

fn table(
    page: &mut String,
    title: &str,
    first: &str,
    rows: &BTreeMap<String, i64>,
) -> std::fmt::Result {
    writeln!(page, "\n## {title}\n\n| {first} | count |\n|---|---|")?;
    rows.iter().try_for_each(|(name, count)| writeln!(page, "| {name} | {count} |"))
}
