//! Giving up root before a session is read.
//!
//! What is in a session comes, in part, from the program that was recorded, and is parsed by the user who looks at it. Root does
//! that as the user whose session it is, without capabilities.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    vec::Vec,
};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

use crate::files;

/// What is done with sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They are read; one whose recorder was killed is recovered.
    Read,
    /// They are rewritten, in the folders that they lie in.
    Rewrite,
}

/// A user and their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    uid: u32,
    gid: u32,
}

/// As whom sessions are read, which is to be decided before it is done: what needs root comes in between.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// Who this process is to be; none where it stays who it is.
    account: Option<Account>,
    /// What it keeps.
    capabilities: CapabilitySet,
}

impl Viewer {
    /// For the sessions at `places`: folders, stores and archives. Anything else belongs to nobody.
    ///
    /// Only root becomes someone else. Where the sessions belong to several users there is nobody to become: root then
    /// keeps no more than the right to read them.
    pub fn of(places: &[PathBuf], purpose: Purpose) -> Self {
        if !Uid::effective().is_root() {
            return Viewer { account: None, capabilities: CapabilitySet::empty() };
        }
        let owners: BTreeSet<Account> = places.iter().flat_map(|place| owners(place)).collect();
        let users: BTreeSet<u32> = owners.iter().map(|owner| owner.uid).collect();
        match (owners.first(), users.len()) {
            (Some(owner), 1) if owner.uid != 0 => {
                Viewer { account: Some(*owner), capabilities: CapabilitySet::empty() }
            }
            // A session of root's can lie in a folder of another user's.
            _ => {
                let reading = CapabilitySet::DAC_READ_SEARCH;
                let writing = reading | CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN | CapabilitySet::FOWNER;
                let capabilities = if purpose == Purpose::Rewrite { writing } else { reading };
                Viewer { account: None, capabilities }
            }
        }
    }

    /// For the session at `folder`, with no capabilities at all.
    pub fn of_folder(folder: &Path) -> Self {
        let owner = fs::metadata(folder).ok().map(|m| Account { uid: m.uid(), gid: m.gid() });
        let account = owner.filter(|owner| Uid::effective().is_root() && owner.uid != 0);
        Viewer { account, capabilities: CapabilitySet::empty() }
    }

    /// Whether this process will be someone else, who may not write where it may now.
    pub fn is_someone_else(&self) -> bool {
        self.account.is_some()
    }

    /// Becomes that user, in all threads, and gives up capabilities, in this thread and those that it starts.
    ///
    /// Each measure holds without the others. Where the system refuses one, the rest must do; the error says why this
    /// process is still root then.
    pub fn enter(self) -> Result<(), nix::errno::Errno> {
        let _ = set_no_new_privs(true);
        let mut keep = self.capabilities;
        let become_owner = |Account { uid, gid }| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            // Groups first, then the group: afterwards it may not.
            setgroups(&[])?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)
        };
        let done = self.account.map_or(Ok(()), become_owner);
        if done.is_err() {
            // As root without any capability it could not even read.
            keep |= CapabilitySet::DAC_READ_SEARCH;
        }
        let _ = clear_ambient_capability_set();
        if let Ok(mut sets) = capabilities(None) {
            sets.effective &= keep;
            sets.permitted &= keep;
            sets.inheritable &= keep;
            let _ = set_capabilities(None, sets);
        }
        done
    }
}

/// For a process that is root: `place` without links on the way, if root alone decides what is there. Otherwise the folder,
/// on the way or itself, in which another user could exchange what root is about to write into.
pub fn roots_alone(place: &Path) -> io::Result<Result<PathBuf, PathBuf>> {
    let place = fs::canonicalize(place)?;
    for folder in place.ancestors() {
        let metadata = fs::symlink_metadata(folder)?;
        let (is_writable, is_sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
        // In a sticky folder others cannot rename what is root's; in the session itself they could add to it.
        if metadata.uid() != 0 || (is_writable && !(is_sticky && folder != place)) {
            return Ok(Err(folder.into()));
        }
    }
    Ok(Ok(place))
}

/// Whose the sessions at a place are: one, or those of a store.
fn owners(place: &Path) -> Vec<Account> {
    let account = |path: &Path| fs::metadata(path).ok().map(|m| Account { uid: m.uid(), gid: m.gid() });
    let own: Vec<Account> = account(place).into_iter().collect();
    if fs::symlink_metadata(place.join("manifest.json")).is_ok() {
        return own;
    }
    let folders = |parent: &Path, prefix: &str| files::folders_in(parent, prefix).unwrap_or_default();
    let hosts = folders(place, "host=");
    let sessions: Vec<Account> =
        hosts.iter().flat_map(|host| folders(host, "session=")).filter_map(|session| account(&session)).collect();
    if sessions.is_empty() { own } else { sessions }
}
