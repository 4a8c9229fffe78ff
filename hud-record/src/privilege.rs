//! hud's rights, and the owner of its files.
//!
//! hud needs capabilities to attach and, fewer, to resolve symbols; each thread keeps only those that its work needs.
//! Under sudo the writing threads act as the user who called sudo, by file-system user id: their files belong to that
//! user from the start, and no path can lead them where that user may not write. The one exception is a place that only
//! root could have prepared, see [`is_controlled_by_root`]. A process that only shows a session gives up all rights.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use hud_common::viewer::Viewer;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
    path_beneath_rules,
};
use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs},
};

use crate::user::User;

/// The owner of the files, if not the user that hud runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// The user who called sudo, if hud runs as root under it.
    pub fn from_sudo() -> Option<Self> {
        // The kernel's calls take the highest id for "unchanged".
        let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok().filter(|&id| id != u32::MAX);
        if !geteuid().is_root() {
            return None;
        }
        let uid = Uid::from_raw(id("SUDO_UID").filter(|&uid| uid != 0)?);
        // The user is not root: a missing or odd group does not make them so.
        let gid = id("SUDO_GID").map(Gid::from_raw);
        let gid = gid.or_else(|| Some(User::of(uid)?.gid)).unwrap_or(Gid::from_raw(uid.as_raw()));
        Some(Owner { uid, gid })
    }

    /// Their user id.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Their group id.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Makes a child process this user's, before it executes a program. Only system calls, as may be made after a fork.
    pub(crate) fn become_for_good(&self, groups: &[Gid]) -> io::Result<()> {
        // The groups first: the user may not change them.
        rustix::thread::set_thread_groups(groups)?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        Ok(rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)?)
    }

    /// Their home.
    pub fn home(&self) -> Option<PathBuf> {
        User::of(self.uid).map(|user| user.home).filter(|home| home.is_absolute())
    }

    /// Runs file operations as this user, on this thread.
    pub fn act<T>(owner: Option<Self>, work: impl FnOnce() -> T) -> T {
        struct Back(Uid, Gid);
        impl Drop for Back {
            fn drop(&mut self) {
                set_fs_user(self.0);
                set_fs_group(self.1);
            }
        }
        let Some(owner) = owner else { return work() };
        // The group first: it may not be changed after the user.
        let gid = set_fs_group(owner.gid);
        let _back = Back(set_fs_user(owner.uid), gid);
        work()
    }
}

/// Sets the user id by which the kernel checks this thread's file operations. Returns the previous one.
fn set_fs_user(uid: Uid) -> Uid {
    // SAFETY: the call has no pointer argument.
    Uid::from_raw(unsafe { libc::setfsuid(uid.as_raw()) }.cast_unsigned())
}

/// The same for the group id.
fn set_fs_group(gid: Gid) -> Gid {
    // SAFETY: as above.
    Gid::from_raw(unsafe { libc::setfsgid(gid.as_raw()) }.cast_unsigned())
}

/// Creates a file at `place` as the user, or, if the user may not write and only root may, as root. Returns the owner.
pub(crate) fn create_as<T, E>(
    owner: Option<Owner>,
    place: &Path,
    is_denied: impl FnOnce(&E) -> bool,
    make: impl Fn() -> Result<T, E>,
) -> Result<(T, Option<Owner>), E> {
    match Owner::act(owner, &make) {
        Err(e) if owner.is_some() && is_denied(&e) && is_controlled_by_root(place) => Ok((make()?, None)),
        done => Ok((done?, owner)),
    }
}

/// Whether only root controls `place`: every existing folder on the path is root's, and nobody else may write there. A
/// path with a symbolic link never is, as its target is not checked here.
pub(crate) fn is_controlled_by_root(place: &Path) -> bool {
    let Ok(place) = std::path::absolute(place) else { return false };
    if place.components().any(|part| part == Component::ParentDir) {
        return false;
    }
    let mut way = PathBuf::new();
    for part in place.components() {
        way.push(part);
        match fs::symlink_metadata(&way) {
            Ok(m) if m.is_dir() && m.uid() == 0 && m.mode() & 0o022 == 0 => {}
            // From here on root creates the path.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            _ => return false,
        }
    }
    true
}

/// Capabilities that threads keep once hud is attached.
///
/// To resolve symbols, hud reads the target's `/proc` entries (`SYS_PTRACE`), its files (`DAC_READ_SEARCH`), the files
/// that it has mapped (`CHECKPOINT_RESTORE`), and the addresses of the kernel's functions (`SYSLOG`).
const LOOKING: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::SYSLOG);
/// To attach again, for the budget or the next process.
const ATTACHING: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
/// To write as root: without it, root could not continue in another user's folder.
const WRITING: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);
/// To write as the user who called sudo.
const ACTING: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

static HAS_DROPPED: AtomicBool = AtomicBool::new(false);

/// Gives up the capabilities not needed after the attach, for this thread and those that it starts.
pub fn drop_after_attach(keep_bpf: bool, owner: Option<Owner>) {
    let attaching = if keep_bpf { ATTACHING } else { CapabilitySet::empty() };
    let acting = if owner.is_some() { ACTING } else { CapabilitySet::empty() };
    // For the detach, see `RaisedPriority`.
    keep(LOOKING | WRITING | attaching | acting | CapabilitySet::SYS_NICE);
    HAS_DROPPED.store(true, Ordering::Relaxed);
    // hud's threads run no other program.
    let _ = set_no_new_privs(true);
}

/// Restricts a thread that only writes.
pub(crate) fn enter_writer(owner: Option<Owner>) {
    match owner {
        Some(owner) => {
            set_fs_group(owner.gid);
            set_fs_user(owner.uid);
            keep(CapabilitySet::empty());
        }
        None => keep(WRITING),
    }
}

/// Niceness of low-priority work: it, and its child processes, get about a quarter of a contended CPU. At nice 19 it
/// would be a hundredth, and on a saturated machine symbols would take minutes.
const LOW_PRIORITY: i32 = 5;
/// Niceness while hud attaches and detaches. On 2 CPUs with four busy threads each, the target keeps 50 to 60 % of its
/// throughput during an attach of 0.4 s (at -10: about as much for 0.6 s). With 2,000 threads that sleep 10 ms at a
/// time, an attach takes 1.2 s, at -10 2.7 s.
const HIGH_PRIORITY: i32 = -20;

/// Lowers this thread's priority.
pub(crate) fn lower_priority() {
    // If it fails, symbols have normal priority.
    be_nice(0, niceness(0).max(LOW_PRIORITY));
}

/// Raises the priority while hud attaches or detaches: half a second of work takes 10 s on a saturated machine, which
/// is when hud is needed. Until dropped; needs CAP_SYS_NICE, and has no effect without.
pub(crate) struct RaisedPriority {
    /// The calling thread's niceness before, which threads started meanwhile get as well.
    before: i32,
    /// Existing threads and processes, with their niceness.
    others: Vec<(u32, i32)>,
}

impl RaisedPriority {
    /// For the calling thread and those that it starts.
    pub(crate) fn begin() -> Self {
        let before = niceness(0);
        be_nice(0, HIGH_PRIORITY);
        RaisedPriority { before, others: Vec::new() }
    }

    /// For all threads and this child.
    pub(crate) fn all(child: Option<u32>) -> Self {
        let before = niceness(0);
        let others: Vec<_> = own_threads().chain(child).map(|tid| (tid, niceness(tid))).collect();
        for &(tid, _) in &others {
            be_nice(tid, HIGH_PRIORITY);
        }
        RaisedPriority { before, others }
    }

    /// Ends it for a process that was started meanwhile.
    pub(crate) fn end_for(&self, pid: u32) {
        be_nice(pid, self.before);
    }
}

impl Drop for RaisedPriority {
    fn drop(&mut self) {
        for &(tid, before) in &self.others {
            be_nice(tid, before);
        }
        // Threads that were started meanwhile get the niceness from before.
        for tid in own_threads().filter(|&tid| niceness(tid) == HIGH_PRIORITY) {
            be_nice(tid, self.before);
        }
    }
}

fn own_threads() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The niceness of a thread (0 = the calling one).
fn niceness(tid: u32) -> i32 {
    // SAFETY: a system call without pointers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, tid) }
}

/// Sets the niceness of a thread (0 = the calling one).
fn be_nice(tid: u32, nice: i32) {
    // SAFETY: a system call without pointers. If it is refused, the niceness does not change.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, nice) };
}

/// Restricts a thread that resolves symbols.
pub(crate) fn enter_namer() {
    keep(LOOKING);
}

/// Restricts the thread that starts the sandboxed child: it lets the child become nobody, and ends it.
pub(crate) fn enter_sandbox_host() {
    keep(ACTING | CapabilitySet::KILL);
}

/// Restricts a thread that signals the program that hud started, which may be another user's.
pub(crate) fn enter_signal_sender() {
    keep(CapabilitySet::KILL);
}

/// Restricts the thread that attaches and detaches the probes.
pub(crate) fn enter_attacher() {
    keep(LOOKING | ATTACHING);
}

/// Restricts a thread that only passes data on: it keeps no capability.
pub(crate) fn enter_unprivileged() {
    keep(CapabilitySet::empty());
}

/// Restricts a process that only shows a session to reading it, as its owner. The viewer parses the session's files,
/// whose content comes in part from the recorded program.
///
/// Each measure works without the others. If the system lacks one, the others still apply.
pub(crate) fn enter_viewer(session: &Path) {
    if let Err(e) = Viewer::of_folder(session).enter() {
        tracing::debug!("cannot become the session's owner: {e}");
    }
    if let Err(e) = read_only(session) {
        tracing::debug!("cannot confine itself to the session: {e}");
    }
}

/// Restricts this thread, and those that it starts, to files of the session, without network. In a store it may read
/// all sessions of the host, as one continues another.
fn read_only(session: &Path) -> Result<(), RulesetError> {
    let is_in_store = session.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with("session="));
    let beneath = session.parent().filter(|_| is_in_store).unwrap_or(session);
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules([beneath], AccessFs::ReadFile | AccessFs::ReadDir))?
        // A terminal's size is read from it.
        .add_rules(path_beneath_rules(["/dev/tty"], AccessFs::from_file(ABI::V5)))?;
    rules.restrict_self().map(drop)
}

/// Keeps at most these on this thread. Giving up needs no right; if it fails there was nothing to give up.
fn keep(most: CapabilitySet) {
    if let Ok(mut sets) = capabilities(None) {
        sets.effective &= most;
        sets.permitted &= most;
        sets.inheritable &= most;
        let _ = set_capabilities(None, sets);
    }
}

/// The capabilities needed for an attach that are missing, by name, unless hud has given them up itself.
pub fn missing_to_attach() -> Vec<&'static str> {
    if HAS_DROPPED.load(Ordering::Relaxed) {
        return Vec::new();
    }
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
        (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
        (CapabilitySet::CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE"),
    ]
    .into_iter()
    .filter(|(capability, _)| !sets.effective.contains(*capability))
    .map(|(_, name)| name)
    .collect()
}

/// Whether this thread has CAP_SYS_ADMIN.
pub(crate) fn may_do_everything() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether the rights to load programs are missing.
pub(crate) fn lacks_bpf() -> bool {
    missing_to_attach().iter().any(|name| matches!(*name, "CAP_BPF" | "CAP_PERFMON"))
}

/// Whether the target's mapped files can be opened by their path only, and not if they were replaced.
pub(crate) fn lacks_mapped_files() -> bool {
    missing_to_attach().contains(&"CAP_CHECKPOINT_RESTORE")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_root_controls_a_place_if_all_its_folders_are_roots() {
        assert!(is_controlled_by_root(Path::new("/")));
        assert!(is_controlled_by_root(Path::new("/hud-test-not-there/a/b")));
        // Any user may create a link there.
        assert!(!is_controlled_by_root(&std::env::temp_dir().join("a")));
        assert!(!is_controlled_by_root(Path::new("/proc/self/cwd/a")));
        assert!(!is_controlled_by_root(Path::new("/hud-test-not-there/../tmp")));
    }
}
