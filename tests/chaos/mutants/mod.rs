//! The checker is checked: bugs of the field, planted on purpose, each of which must be caught.

mod list;
mod patch;
mod specs;

pub(crate) use patch::{Patch, apply};

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::database::Database;
use crate::plan::Kind;
use crate::run::{Slip, Trade};

/// A planted bug.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// In the list of the field's bugs (M1 to M18), or where else it was seen.
    pub(crate) number: &'static str,
    pub(crate) what: &'static str,
    pub(crate) patches: &'static [Patch],
    pub(crate) slip: Option<Slip>,
    pub(crate) trial: Trial,
}

/// How a mutant is tried.
#[derive(Clone, Copy)]
pub(crate) enum Trial {
    /// A run of its own, and the judge.
    Live(Mix),
    /// Two or three sessions, step by step. The patches widen the moment in which the bug shows,
    /// for the original too.
    Steps(Steps, &'static [Patch]),
}

/// Says what is wrong in the end, or nothing.
pub(crate) type Steps =
    fn(&str) -> Pin<Box<dyn Future<Output = Result<Option<&'static str>>> + Send + '_>>;

/// A run of another kind than the usual one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) jobs: usize,
    pub(crate) faults: usize,
    pub(crate) kinds: &'static [Kind],
    pub(crate) trades: &'static [Trade],
    pub(crate) spacing: Duration,
    pub(crate) poll: Duration,
    pub(crate) slow: bool,
    /// Whether some come by wires and a pooler.
    pub(crate) has_ways: bool,
}

/// All of them.
pub(crate) fn all() -> &'static [Mutant] {
    list::MUTANTS
}

/// The runs that mutants are tried by, by name: they must find nothing in the original.
pub(crate) fn controls() -> &'static [(&'static str, Mix)] {
    list::CONTROLS
}

/// The one of this name.
pub(crate) fn named(name: &str) -> Result<&'static Mutant> {
    let Some(mutant) = all().iter().find(|mutant| mutant.name == name) else {
        let names: Vec<_> = all().iter().map(|mutant| mutant.name).collect();
        bail!("no mutant {name}; there are {}", names.join(", "));
    };
    Ok(mutant)
}

/// Tries a mutant step by step, after the original, which must pass. Gives what is wrong with the
/// mutant.
pub(crate) async fn step(
    mutant: &Mutant,
    steps: Steps,
    widen: &[Patch],
) -> Result<Option<&'static str>> {
    let mut said = None;
    for patches in [&[][..], mutant.patches] {
        let database = Database::new().await?;
        let client = database.accepts().await?;
        apply(&client, widen).await?;
        apply(&client, patches).await?;
        drop(client);
        let outcome = steps(&database.url).await;
        database.end().await?;
        said = outcome?;
        if patches.is_empty()
            && let Some(wrong) = said
        {
            bail!("the original itself fails: {wrong}");
        }
    }
    Ok(said)
}
