//! The folder of a cluster and the files in it.
//!
//! ```text
//! <home>/rowlock.lock    launch lock, and the mark that the folder is ours
//! <home>/data/           the cluster
//! <home>/socket/         the socket, unless its path would be too long
//! <home>/socket-folder   where the socket went instead
//! <home>/postgres.log
//! ```
//!
//! The owner of the folder may be less privileged than we are, so files are never opened through
//! a link it could have planted: they are made under a new name and renamed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use rand::Rng;
use rand::distr::Alphanumeric;

use super::Error;
use super::owner::{Owner, am_root};

/// The port that names the socket file; private, because the folder is.
pub(super) const PORT: u16 = 5432;

const SOCKET_PATH_MAX: usize = 107;
const LOCK_FILE: &str = "rowlock.lock";
const LOCK_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) home: PathBuf,
}

impl Layout {
    /// Opens or makes the folder, and refuses one that holds somebody else's files.
    pub(super) fn create(home: &Path, owner: &Owner) -> Result<Layout, Error> {
        make_home(home, owner)?;
        let layout = Layout::canonical(home)?;
        let home = &layout.home;
        let empty = fs::read_dir(home).map_err(Error::io("read", home))?.next().is_none();
        if !empty && !layout.lock_file().exists() {
            return Err(Error::NotOurs { path: home.clone() });
        }
        let found = fs::metadata(home).map_err(Error::io("examine", home))?.uid();
        if found != owner.uid {
            if !(empty && am_root()) {
                let (path, wanted) = (home.clone(), owner.uid);
                return Err(Error::WrongOwner { path, found, wanted });
            }
            give(home, owner)?;
        }
        if let Err(error) = owner.check_reaches(home) {
            if empty {
                // Nothing was there before; a failure to tidy up hides no news.
                let _ = fs::remove_dir(home);
            }
            return Err(error);
        }
        Ok(layout)
    }

    /// The layout of a folder that already holds a cluster.
    pub(super) fn open(home: &Path) -> Option<Layout> {
        Layout::canonical(home).ok().filter(|layout| layout.major().is_some())
    }

    fn canonical(home: &Path) -> Result<Layout, Error> {
        let home = home.canonicalize().map_err(Error::io("find", home))?;
        Ok(Layout { home })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    fn lock_file(&self) -> PathBuf {
        self.home.join(LOCK_FILE)
    }

    fn socket_record(&self) -> PathBuf {
        self.home.join("socket-folder")
    }

    /// The major version that made the cluster, when there is one.
    pub(super) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// Takes the launch lock; it is released when the file is dropped or the process dies.
    pub(super) async fn lock(&self) -> Result<File, Error> {
        let path = self.lock_file();
        let file = open_lock_file(&path, true).map_err(Error::io("open", &path))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_DEADLINE => {
                    tokio::time::sleep(POLL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let seconds = LOCK_DEADLINE.as_secs();
                    return Err(Error::LockTimeout { path: self.home.clone(), seconds });
                }
            }
        }
    }

    /// The folder for the socket: inside the home, or a fresh private one when the kernel's limit
    /// on socket paths forbids that.
    pub(super) fn make_socket_dir(&self, owner: &Owner) -> Result<PathBuf, Error> {
        let inside = self.home.join("socket");
        if fits(&inside) {
            if !inside.is_dir() {
                make_private(&inside, owner)?;
            }
            return Ok(inside);
        }
        if let Some(recorded) = self.recorded_socket_dir(owner) {
            return Ok(recorded);
        }
        let fresh = PathBuf::from("/tmp").join(random_name("rowlock-"));
        make_private(&fresh, owner)?;
        self.write(&self.socket_record(), &format!("{}\n", fresh.display()), owner)?;
        Ok(fresh)
    }

    /// A recorded folder is used again only while it is still private to the owner.
    fn recorded_socket_dir(&self, owner: &Owner) -> Option<PathBuf> {
        let text = fs::read_to_string(self.socket_record()).ok()?;
        let path = PathBuf::from(text.trim_end());
        let meta = fs::symlink_metadata(&path).ok()?;
        let private = meta.is_dir() && meta.uid() == owner.uid && meta.mode() & 0o077 == 0;
        private.then_some(path)
    }

    /// Writes a file of the owner's, replacing what was there.
    pub(super) fn write(&self, path: &Path, text: &str, owner: &Owner) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(&self.home);
        let temporary = parent.join(random_name(".rowlock-"));
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        file.write_all(text.as_bytes()).map_err(Error::io("write", &temporary))?;
        if am_root() {
            fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(Error::io("give", path))?;
        }
        fs::rename(&temporary, path).map_err(Error::io("replace", path))
    }

    /// Deletes the cluster, the socket folder and the home.
    pub(super) fn remove(&self) -> Result<(), Error> {
        if let Ok(text) = fs::read_to_string(self.socket_record()) {
            // It holds nothing but the socket; a leftover is harmless.
            let _ = fs::remove_dir_all(text.trim_end());
        }
        fs::remove_dir_all(&self.home).map_err(Error::io("delete", &self.home))
    }
}

/// Opens a file to lock, not through a link.
pub(super) fn open_lock_file(path: &Path, create: bool) -> std::io::Result<File> {
    OpenOptions::new()
        .create(create)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// A name that nobody can guess.
pub(super) fn random_name(prefix: &str) -> String {
    let suffix: String = rand::rng().sample_iter(Alphanumeric).take(12).map(char::from).collect();
    format!("{prefix}{suffix}")
}

fn fits(socket_dir: &Path) -> bool {
    let socket = socket_dir.join(format!(".s.PGSQL.{PORT}"));
    socket.as_os_str().len() <= SOCKET_PATH_MAX
}

fn make_home(home: &Path, owner: &Owner) -> Result<(), Error> {
    if let Some(parent) = home.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !parent.is_dir()
    {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        if am_root() {
            // Whatever root's umask, the owner has to pass through.
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(parent, mode).map_err(Error::io("open up", parent))?;
        }
    }
    match make_private(home, owner) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(())
        }
        made => made,
    }
}

/// Makes a folder that did not exist, mode 0700, owned by `owner`.
pub(super) fn make_private(path: &Path, owner: &Owner) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::io("create", path))?;
    give(path, owner)
}

fn give(path: &Path, owner: &Owner) -> Result<(), Error> {
    if am_root() {
        std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
            .map_err(Error::io("give", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_limit_on_socket_paths_is_kept() {
        let socket = ".s.PGSQL.5432".len();
        let longest = format!("/{}", "a".repeat(SOCKET_PATH_MAX - socket - 2));
        assert!(fits(Path::new(&longest)));
        assert!(!fits(Path::new(&format!("{longest}a"))));
    }
}
