//! A cluster that lives as long as its process: started in a fresh folder, deleted afterwards.
//!
//! A process that is killed cannot delete anything, so each keeps a lock on a file in its folder,
//! and the next one to start deletes the folders whose lock has been let go.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::layout::{open_lock_file, random_name};
use super::owner::am_root;
use super::{Cluster, Error, Options, Profile, Status, base_dir, start, status};

const PREFIX: &str = "rowlock-";
const ALIVE_FILE: &str = "alive.lock";

/// A running cluster with a folder of its own, to be ended by [`Temporary::destroy`].
#[derive(Debug)]
pub struct Temporary {
    cluster: Cluster,
    /// Locked as long as this process lives.
    _alive: File,
}

impl Temporary {
    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops the server and deletes its folders.
    pub async fn destroy(self) -> Result<(), Error> {
        self.cluster.destroy().await
    }

    /// Lets it run on, for whoever wants to look at it: nobody deletes it any more.
    pub fn keep(self) -> Result<Cluster, Error> {
        let path = self.cluster.data_dir().join(ALIVE_FILE);
        fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        Ok(self.cluster)
    }
}

/// Starts a cluster in a fresh folder, after deleting those that killed processes left behind.
pub async fn start_temporary(profile: Profile) -> Result<Temporary, Error> {
    let data_dir = fresh_data_dir(profile);
    sweep(data_dir.parent().unwrap_or(Path::new("."))).await;
    let options = Options { data_dir: data_dir.clone(), profile, bin_dir: None };
    let started = match start(&options).await {
        Ok(cluster) => keep_alive(cluster),
        Err(error) => Err(error),
    };
    if started.is_err() {
        delete(&data_dir).await;
    }
    started
}

/// A path, not yet existing and not guessable, for a cluster of a short life.
pub fn fresh_data_dir(profile: Profile) -> PathBuf {
    let parent = match profile {
        Profile::Throwaway if !am_root() => std::env::temp_dir(),
        // A temporary folder may be in memory, where nothing is durable; root's may be private.
        Profile::Throwaway | Profile::Durable => base_dir(),
    };
    parent.join(random_name(PREFIX))
}

fn keep_alive(cluster: Cluster) -> Result<Temporary, Error> {
    let path = cluster.data_dir().join(ALIVE_FILE);
    // Locked before it gets its name, so that no sweeper finds it unlocked.
    let unnamed = path.with_extension("new");
    let alive = open_lock_file(&unnamed, true).map_err(Error::io("create", &unnamed))?;
    alive.lock().map_err(Error::io("lock", &unnamed))?;
    fs::rename(&unnamed, &path).map_err(Error::io("rename", &unnamed))?;
    Ok(Temporary { cluster, _alive: alive })
}

/// Deletes abandoned folders in `parent`, as far as it can.
async fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !named || !is_private(&entry.path()) {
            continue;
        }
        let Ok(alive) = open_lock_file(&entry.path().join(ALIVE_FILE), false) else { continue };
        if alive.try_lock().is_ok() {
            delete(&entry.path()).await;
        }
    }
}

/// Whether others could not have made the folder or meddle with it. Root looks only into a folder
/// of its own.
fn is_private(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|meta| {
        let ours = am_root() || meta.uid() == geteuid().as_raw();
        meta.is_dir() && ours && meta.mode() & 0o077 == 0
    })
}

async fn delete(data_dir: &Path) {
    let _ = match status(data_dir).await {
        Ok(Status::Running(cluster)) => cluster.destroy().await.is_ok(),
        Ok(Status::Absent | Status::Stopped) | Err(_) => fs::remove_dir_all(data_dir).is_ok(),
    };
}
