//! Giving up root before a session is read.
//!
//! The content of a session comes in part from the recorded program. So root parses it as the session's owner, without
//! capabilities.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    ptr,
};

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

use super::folder::folders_in;

/// The purpose of accessing sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They are read; one whose recorder was killed is recovered.
    Read,
    /// They are rewritten in their folders.
    Rewrite,
}

/// A user and their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    uid: u32,
    gid: u32,
}

/// The account under which sessions are read. It is chosen first and entered later, as some steps in between need root.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// The account to change to; `None` to keep the current one.
    account: Option<Account>,
    /// Capabilities to keep.
    capabilities: CapabilitySet,
}

impl Viewer {
    /// For the sessions at `places`: folders, stores and archives. Other places have no owner.
    ///
    /// Only root changes its account. If the sessions belong to several users, root keeps its account and only the capability
    /// to read them.
    pub fn of(places: &[PathBuf], purpose: Purpose) -> Self {
        if !geteuid().is_root() {
            return Viewer { account: None, capabilities: CapabilitySet::empty() };
        }
        let owners: BTreeSet<Account> = places.iter().flat_map(|place| owners(place)).collect();
        let users: BTreeSet<u32> = owners.iter().map(|owner| owner.uid).collect();
        match (owners.first(), users.len()) {
            (Some(owner), 1) if owner.uid != 0 => {
                Viewer { account: Some(*owner), capabilities: CapabilitySet::empty() }
            }
            // A session of root can lie in another user's folder.
            _ => {
                let reading = CapabilitySet::DAC_READ_SEARCH;
                let writing = reading | CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN | CapabilitySet::FOWNER;
                let capabilities = if purpose == Purpose::Rewrite { writing } else { reading };
                Viewer { account: None, capabilities }
            }
        }
    }

    /// For the session at `folder`, without capabilities.
    pub fn of_folder(folder: &Path) -> Self {
        let owner = fs::metadata(folder).ok().map(|m| Account { uid: m.uid(), gid: m.gid() });
        let account = owner.filter(|owner| geteuid().is_root() && owner.uid != 0);
        Viewer { account, capabilities: CapabilitySet::empty() }
    }

    /// Whether the account will change, and with it the right to write.
    pub fn is_someone_else(&self) -> bool {
        self.account.is_some()
    }

    /// Changes the account, in all threads, and drops capabilities, in this thread and those that it starts.
    ///
    /// Each measure is independent of the others. An error is the reason why this process is still root; the other measures are
    /// then in force.
    pub fn enter(self) -> io::Result<()> {
        let _ = set_no_new_privs(true);
        let mut keep = self.capabilities;
        let done = self.account.map_or(Ok(()), change_account);
        if done.is_err() {
            // Root without capabilities could not read the sessions.
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

/// Changes user and groups of all threads. The C library does that for all threads; the system calls, and with them rustix,
/// change the calling thread only.
fn change_account(Account { uid, gid }: Account) -> io::Result<()> {
    let check = |result: i32| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // Groups first: after the change of user they cannot be set.
    // SAFETY: the list is empty, so its pointer is not read.
    check(unsafe { libc::setgroups(0, ptr::null()) })?;
    // SAFETY: the call has no pointer argument.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: the call has no pointer argument.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

/// For root: `place` without links, if no other user can change the path. Otherwise the folder, on the path or at its end, in
/// which another user could exchange a file that root is about to write.
pub fn roots_alone(place: &Path) -> io::Result<Result<PathBuf, PathBuf>> {
    let place = fs::canonicalize(place)?;
    for folder in place.ancestors() {
        let metadata = fs::symlink_metadata(folder)?;
        let (is_writable, is_sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
        // In a sticky folder others cannot rename root's files; in the session itself they could add files.
        if metadata.uid() != 0 || (is_writable && !(is_sticky && folder != place)) {
            return Ok(Err(folder.into()));
        }
    }
    Ok(Ok(place))
}

/// The owners of the sessions at a place: one session, or those of a store.
fn owners(place: &Path) -> Vec<Account> {
    let account = |path: &Path| fs::metadata(path).ok().map(|m| Account { uid: m.uid(), gid: m.gid() });
    let own: Vec<Account> = account(place).into_iter().collect();
    if fs::symlink_metadata(place.join("manifest.json")).is_ok() {
        return own;
    }
    let folders = |parent: &Path, prefix: &str| folders_in(parent, prefix).unwrap_or_default();
    let hosts = folders(place, "host=");
    let sessions: Vec<Account> =
        hosts.iter().flat_map(|host| folders(host, "session=")).filter_map(|session| account(&session)).collect();
    if sessions.is_empty() { own } else { sessions }
}
