//! Finding Postgres server binaries.
//!
//! Debian keeps `postgres` out of PATH, and a machine may have client tools without a server, so a
//! folder counts only when it holds `initdb`, `postgres` and `pg_ctl`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::layout::Layout;
use super::{Error, owner};

/// The oldest major version that Rowlock's schema runs on.
pub const MIN_MAJOR: u32 = 14;

const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_ctl"];

/// A folder with server binaries of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder itself.
    pub bin_dir: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
}

/// Finds server binaries: `ROWLOCK_PG_BIN`, `pg_config --bindir`, PATH, the usual system folders
/// (newest first), then the cache that set-up fills.
///
/// `ROWLOCK_PG_BIN` is final: when it is set and unusable, nothing else is tried.
/// `ROWLOCK_SETUP_HIDE_SYSTEM` leaves only it and the cache.
pub fn find_binaries() -> Result<Binaries, Error> {
    search(None).map_err(|tried| Error::NoBinaries { min: MIN_MAJOR, tried })
}

/// The binaries for a folder: of `bin_dir` when given, and of the version that made its cluster.
pub(super) fn choose(bin_dir: Option<&Path>, layout: &Layout) -> Result<Binaries, Error> {
    let major = layout.major();
    let named =
        bin_dir.map(Path::to_owned).or_else(|| setting("ROWLOCK_PG_BIN").map(PathBuf::from));
    if let Some(bin_dir) = named {
        let found = inspect(&bin_dir)
            .map_err(|reason| Error::BadBinaries { bin_dir: bin_dir.clone(), reason })?;
        return match major {
            Some(wanted) if wanted != found.major => {
                let reason = format!("it is Postgres {}, the cluster needs {wanted}", found.major);
                Err(Error::BadBinaries { bin_dir, reason })
            }
            Some(_) | None => Ok(found),
        };
    }
    let Some(wanted) = major else { return find_binaries() };
    let data_dir = layout.home.clone();
    search(major).map_err(|tried| Error::OtherMajor { data_dir, wanted, tried })
}

fn search(major: Option<u32>) -> Result<Binaries, String> {
    let mut tried = Vec::new();
    for bin_dir in candidates() {
        match inspect(&bin_dir) {
            Ok(found) if major.is_none_or(|wanted| wanted == found.major) => return Ok(found),
            Ok(found) => tried.push(format!("{} (is {})", bin_dir.display(), found.major)),
            Err(reason) => tried.push(format!("{} ({reason})", bin_dir.display())),
        }
    }
    let places = "ROWLOCK_PG_BIN, pg_config, PATH, system folders and the set-up cache";
    Err(if tried.is_empty() { places.to_owned() } else { tried.join(", ") })
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(named) = setting("ROWLOCK_PG_BIN") {
        return vec![PathBuf::from(named)];
    }
    if setting("ROWLOCK_SETUP_HIDE_SYSTEM").is_none() {
        folders.extend(pg_config_bindir());
        folders.extend(on_path());
        folders.extend(versioned("/usr/lib/postgresql", "", "bin"));
        folders.extend(versioned("/usr", "pgsql-", "bin"));
        for brew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
            folders.extend(versioned(brew, "postgresql@", "bin"));
            folders.push(Path::new(brew).join("postgresql/bin"));
        }
    }
    for cache in caches() {
        folders.extend(versioned(&cache.to_string_lossy(), "", "bin"));
    }
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| folder.is_dir() && seen.insert(folder.clone()));
    folders
}

/// The folders that set-up unpacks binaries into. Root's is shared, because the user that
/// Postgres runs as must be able to reach it.
fn caches() -> Vec<PathBuf> {
    let shared = PathBuf::from("/var/cache/rowlock/postgres");
    if owner::am_root() {
        return vec![shared];
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let own = setting("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    own.map(|cache| cache.join("rowlock/postgres")).into_iter().chain([shared]).collect()
}

fn setting(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim())).filter(|path| path.is_absolute())
}

fn on_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|folder| folder.join("postgres").is_file()).collect()
}

/// `parent/<prefix><version>/<sub>`, newest version first.
fn versioned(parent: &str, prefix: &str, sub: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = version_key(name.strip_prefix(prefix)?)?;
            Some((version, entry.path().join(sub)))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().map(|(_, path)| path).collect()
}

fn version_key(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// Reads a folder's version, or says why the folder will not do.
fn inspect(bin_dir: &Path) -> Result<Binaries, String> {
    for program in PROGRAMS {
        if !bin_dir.join(program).is_file() {
            return Err(format!("no {program}"));
        }
    }
    // Run it as the user it will run as: root's own folders may be closed to that user.
    let mut command = Command::new(bin_dir.join("postgres"));
    owner::run_unprivileged(&mut command);
    let output = command
        .arg("--version")
        .output()
        .map_err(|error| format!("cannot run postgres: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match parse_major(&text) {
        Some(major) if MIN_MAJOR <= major => Ok(Binaries { bin_dir: bin_dir.to_owned(), major }),
        Some(major) => Err(format!("version {major} is older than {MIN_MAJOR}")),
        None => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(format!("no version in {:?}", format!("{text}{stderr}").trim()))
        }
    }
}

/// The major version in the output of `postgres --version`.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.trim().strip_prefix("postgres (PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_real_outputs() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.20 (Debian 15.20-1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18.4"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_major("psql (PostgreSQL) 15.20"), None);
        assert_eq!(parse_major(""), None);
    }

    #[test]
    fn versions_sort_as_numbers() {
        assert!(version_key("9.6") < version_key("14"));
        assert!(version_key("14") < version_key("18.4.0"));
        assert_eq!(version_key("common"), None);
    }
}
