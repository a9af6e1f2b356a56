//! The documents: text files below a folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Folders below folders, at most so many.
const DEPTH: usize = 4;
/// Documents of one run: an enqueue takes 10,000 jobs.
const MOST_DOCUMENTS: usize = 5_000;

/// What is below a folder.
pub(crate) struct Corpus {
    /// Those to be read, in the order of their paths.
    pub(crate) documents: Vec<PathBuf>,
    /// Those that cannot be opened, and why.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
    /// How many are more than one run takes.
    pub(crate) left_out: usize,
}

/// Where Cargo unpacks the sources of our own dependencies: every machine that builds has some.
pub(crate) fn default_input() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let folder = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    ensure!(folder.is_dir(), "{} is not there; name a folder by --input", folder.display());
    Ok(folder)
}

/// The documents below the folder: READMEs if there are any, else every `.md` and `.txt` file.
pub(crate) fn list(folder: &Path) -> anyhow::Result<Corpus> {
    let mut files = Vec::new();
    collect(folder, DEPTH, &mut files).with_context(|| format!("read {}", folder.display()))?;
    let readmes: Vec<PathBuf> = files.iter().filter(|path| is_readme(path)).cloned().collect();
    let mut found = if readmes.is_empty() { files } else { readmes };
    found.sort();
    let (mut documents, mut unreadable) = (Vec::new(), Vec::new());
    let mut rest = found.into_iter();
    while documents.len() < MOST_DOCUMENTS
        && let Some(path) = rest.next()
    {
        match open(&path) {
            Ok(()) => documents.push(path),
            Err(error) => unreadable.push((path, error)),
        }
    }
    ensure!(
        !documents.is_empty(),
        "there is no .md or .txt file below {} that can be read",
        folder.display()
    );
    Ok(Corpus { documents, unreadable, left_out: rest.len() })
}

/// Opens it to see whether that works; a pipe would wait for a writer.
fn open(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    File::open(path).map(drop)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            // A folder that is closed to us is not worth the whole run.
            if 0 < depth {
                let _ = collect(&path, depth - 1, files);
            }
        } else if path.extension().is_some_and(|end| end == "md" || end == "txt") {
            files.push(path);
        }
    }
    Ok(())
}

fn is_readme(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.is_some_and(|stem| stem.eq_ignore_ascii_case("readme"))
}
