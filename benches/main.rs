//! The benches: one file a question, one binary, so that it links once. `make bench`, or
//! `make bench ROW=name` for one of them.

mod prune;
mod seed_report;
mod support;
mod views;

fn main() {
    let wanted = std::env::var("ROW").unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        match wanted.as_str() {
            "views" => views::report().await,
            "prune_steady" => prune::report().await,
            row if row.is_empty() || seed_report::has(row) => seed_report::report(row).await,
            other => {
                eprintln!(
                    "no bench {other}; there are: seed_report (and its rows), prune_steady, views"
                );
                std::process::exit(2);
            }
        }
    });
}
