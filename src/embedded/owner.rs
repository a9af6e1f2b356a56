//! The user that Postgres runs as: ourselves, or for root an unprivileged one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{User, geteuid};

use super::Error;

/// The user that owns the files and runs the server.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

pub(super) fn am_root() -> bool {
    geteuid().is_root()
}

impl Owner {
    /// Root takes the owner of an existing cluster, else `postgres`, else `nobody`.
    pub(super) fn choose(data_dir: &Path) -> Result<Owner, Error> {
        if !am_root() {
            let uid = geteuid();
            let user = User::from_uid(uid).ok().flatten();
            return user.map(Owner::from).ok_or(Error::NoPasswdEntry { uid: uid.as_raw() });
        }
        let existing = fs::metadata(data_dir.join("data")).ok().map(|meta| meta.uid());
        if let Some(uid) = existing.filter(|uid| *uid != 0) {
            let user = User::from_uid(uid.into()).ok().flatten();
            return user.map(Owner::from).ok_or(Error::NoPasswdEntry { uid });
        }
        unprivileged().ok_or(Error::NoUnprivilegedUser)
    }

    /// Makes a command run as this user, in a folder it can enter, without the caller's libpq
    /// settings, and out of reach of the terminal's Ctrl-C.
    pub(super) fn command(&self, program: &Path, current_dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(current_dir).process_group(0).env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if am_root() {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Checks that this user can enter a folder, parents included.
    pub(super) fn check_reaches(&self, folder: &Path) -> Result<(), Error> {
        match self.command(Path::new("/bin/sh"), folder).args(["-c", ":"]).status() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::Unreachable { user: self.name.clone(), path: folder.to_owned() })
            }
            Err(error) => Err(Error::io("enter", folder)(error)),
        }
    }
}

impl From<User> for Owner {
    fn from(user: User) -> Owner {
        Owner { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    }
}

/// Drops root for a command; leaves it alone for everybody else.
pub(super) fn run_unprivileged(command: &mut Command) {
    command.current_dir("/");
    if am_root()
        && let Some(owner) = unprivileged()
    {
        command.uid(owner.uid).gid(owner.gid);
    }
}

fn unprivileged() -> Option<Owner> {
    let named = |name| User::from_name(name).ok().flatten().map(Owner::from);
    named("postgres").or_else(|| named("nobody"))
}
