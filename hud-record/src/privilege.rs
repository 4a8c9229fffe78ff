//! What hud may do, and whose its files are.
//!
//! hud needs capabilities to attach and, fewer, to go on naming; each of its threads keeps only those that its work
//! needs. Under sudo the threads that write act as the user who called sudo, by file-system user id: their files are
//! that user's from the start, and no path can lead them where that user may not write. The one exception is a place that
//! nobody but root could have prepared, see [`is_roots_alone`]. Whoever only looks at a session gives up all of it.

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
use nix::unistd::{Gid, Uid, User, setfsgid, setfsuid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs};

/// Origin files are written, where that is not the user that hud runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// The user who called sudo, where hud runs as root under it.
    pub fn from_sudo() -> Option<Self> {
        let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        if !Uid::effective().is_root() {
            return None;
        }
        let uid = Uid::from_raw(id("SUDO_UID").filter(|&uid| uid != 0)?);
        // Whoever the user is, they are not root: no group that is missing or odd makes them so.
        let gid = id("SUDO_GID").map(Gid::from_raw);
        let gid = gid.or_else(|| Some(User::from_uid(uid).ok()??.gid)).unwrap_or(Gid::from_raw(uid.as_raw()));
        Some(Owner { uid, gid })
    }

    /// Their home.
    pub fn home(&self) -> Option<PathBuf> {
        User::from_uid(self.uid).ok()?.map(|user| user.dir).filter(|dir| dir.is_absolute())
    }

    /// Does file work as this user, on this thread.
    pub fn act<T>(owner: Option<Self>, work: impl FnOnce() -> T) -> T {
        struct Back(Uid, Gid);
        impl Drop for Back {
            fn drop(&mut self) {
                setfsuid(self.0);
                setfsgid(self.1);
            }
        }
        let Some(owner) = owner else { return work() };
        // The group first: once the user is another, the group may no longer be changed.
        let gid = setfsgid(owner.gid);
        let _back = Back(setfsuid(owner.uid), gid);
        work()
    }
}

/// Makes what is new at `place` as the user, or, where the user may not write and root alone may, as root. Gives whose
/// it is.
pub(crate) fn make_as<T, E>(
    owner: Option<Owner>,
    place: &Path,
    is_denied: impl FnOnce(&E) -> bool,
    make: impl Fn() -> Result<T, E>,
) -> Result<(T, Option<Owner>), E> {
    match Owner::act(owner, &make) {
        Err(e) if owner.is_some() && is_denied(&e) && is_roots_alone(place) => Ok((make()?, None)),
        done => Ok((done?, owner)),
    }
}

/// Whether root alone decides what is at `place`: every folder on the way, as far as there are any, is root's, and
/// nobody else may write there. A link is none, whoever made it: what it leads through is not looked at here.
pub(crate) fn is_roots_alone(place: &Path) -> bool {
    let Ok(place) = std::path::absolute(place) else { return false };
    if place.components().any(|part| part == Component::ParentDir) {
        return false;
    }
    let mut way = PathBuf::new();
    for part in place.components() {
        way.push(part);
        match fs::symlink_metadata(&way) {
            Ok(m) if m.is_dir() && m.uid() == 0 && m.mode() & 0o022 == 0 => {}
            // From here on it is root who makes it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            _ => return false,
        }
    }
    true
}

/// What each thread keeps once hud is attached.
///
/// To go on naming takes looking into the target: its `/proc` entries (`SYS_PTRACE`), its files (`DAC_READ_SEARCH`) and
/// the very files that it has mapped (`CHECKPOINT_RESTORE`); and the addresses of the kernel's functions (`SYSLOG`).
const LOOKING: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::SYSLOG);
/// To attach again, as a budget or the next process may want.
const ATTACHING: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
/// To write where root may: without it, root could not go on in a folder of another user's.
const WRITING: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);
/// To write as the user who called sudo.
const ACTING: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

static HAS_DROPPED: AtomicBool = AtomicBool::new(false);

/// Gives up what is not needed after the attach, for this thread and those that it will start.
pub fn drop_after_attach(keep_bpf: bool, owner: Option<Owner>) {
    let attaching = if keep_bpf { ATTACHING } else { CapabilitySet::empty() };
    let acting = if owner.is_some() { ACTING } else { CapabilitySet::empty() };
    // For the end, see `Hurry`.
    keep(LOOKING | WRITING | attaching | acting | CapabilitySet::SYS_NICE);
    HAS_DROPPED.store(true, Ordering::Relaxed);
    // None of hud's threads runs another program.
    let _ = set_no_new_privs(true);
}

/// What a thread that only writes keeps.
pub(crate) fn enter_writer(owner: Option<Owner>) {
    match owner {
        Some(owner) => {
            setfsgid(owner.gid);
            setfsuid(owner.uid);
            keep(CapabilitySet::empty());
        }
        None => keep(WRITING),
    }
}

/// How nice a thread is that lets others go first: it, and processes that it starts, take about a quarter of what another one
/// gets of a CPU that both want. At nice 19 it would be a hundredth, and on a machine that has stalled nothing would have a
/// name for minutes.
const STANDING_BACK: i32 = 5;
/// Niceness while hud attaches and detaches. On 2 CPUs with four busy threads each, the target keeps 50 to 60 % of its
/// throughput during an attach of 0.4 s (at -10: about as much for 0.6 s). With 2,000 threads that sleep 10 ms at a time, an
/// attach takes 1.2 s, at -10 2.7 s.
const HURRYING: i32 = -20;

/// Lets others go first.
pub(crate) fn stand_back() {
    // Where it fails, names are as urgent as all else.
    be_nice(0, niceness(0).max(STANDING_BACK));
}

/// While hud attaches or detaches, its work has priority: half a second of it takes 10 s on a machine that has stalled, which
/// is when it is needed. Until dropped; takes CAP_SYS_NICE, and does nothing without.
pub(crate) struct Hurry {
    /// How nice the calling thread was, and so those that it starts meanwhile are to be.
    before: i32,
    /// Threads and processes that were there already, and how nice they were.
    others: Vec<(u32, i32)>,
}

impl Hurry {
    /// The calling thread, and those that it starts.
    pub(crate) fn begin() -> Self {
        let before = niceness(0);
        be_nice(0, HURRYING);
        Hurry { before, others: Vec::new() }
    }

    /// All threads, and this child.
    pub(crate) fn all(child: Option<u32>) -> Self {
        let before = niceness(0);
        let others: Vec<_> = own_threads().chain(child).map(|tid| (tid, niceness(tid))).collect();
        for &(tid, _) in &others {
            be_nice(tid, HURRYING);
        }
        Hurry { before, others }
    }

    /// Ends it for a process that was started meanwhile.
    pub(crate) fn end_for(&self, pid: u32) {
        be_nice(pid, self.before);
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        for &(tid, before) in &self.others {
            be_nice(tid, before);
        }
        // Threads that were started meanwhile are no faster than others from here on.
        for tid in own_threads().filter(|&tid| niceness(tid) == HURRYING) {
            be_nice(tid, self.before);
        }
    }
}

fn own_threads() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// How nice a thread is (0 = the calling one).
fn niceness(tid: u32) -> i32 {
    // SAFETY: a system call without pointers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, tid) }
}

/// Sets how nice a thread is (0 = the calling one).
fn be_nice(tid: u32, nice: i32) {
    // SAFETY: a system call without pointers. Where it is refused, the thread stays as it is.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, nice) };
}

/// What a thread that names keeps.
pub(crate) fn enter_namer() {
    keep(LOOKING);
}

/// What the thread keeps that starts the sandbox: it has the child become nobody, and ends it.
pub(crate) fn enter_sandbox_host() {
    keep(ACTING | CapabilitySet::KILL);
}

/// What the thread keeps that puts the probes on and takes them off.
pub(crate) fn enter_attacher() {
    keep(LOOKING | ATTACHING);
}

/// What a thread keeps that only passes on what is said: nothing.
pub(crate) fn enter_bystander() {
    keep(CapabilitySet::empty());
}

/// What a process keeps that only shows a session: to read it, as the user whose it is. Files of a session are parsed by
/// whoever looks at it, and what is in them comes, in part, from the program that was recorded.
///
/// Each measure holds without the others. Where the system lacks one, the rest must do.
pub(crate) fn enter_viewer(session: &Path) {
    if let Err(e) = Viewer::of_folder(session).enter() {
        tracing::debug!("cannot become the session's owner: {e}");
    }
    if let Err(e) = read_only(session) {
        tracing::debug!("cannot confine itself to the session: {e}");
    }
}

/// From here on this thread, and those that it starts, can open files of the session alone, and no network. Of a store
/// it is those of all sessions of the host, as one goes on where another ended.
fn read_only(session: &Path) -> Result<(), RulesetError> {
    let is_in_store = session.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with("session="));
    let beneath = session.parent().filter(|_| is_in_store).unwrap_or(session);
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules([beneath], AccessFs::ReadFile | AccessFs::ReadDir))?
        // A terminal's size is asked of it.
        .add_rules(path_beneath_rules(["/dev/tty"], AccessFs::from_file(ABI::V5)))?;
    rules.restrict_self().map(drop)
}

/// Keeps at most these, on this thread. Giving up needs no right; where it fails there was nothing to give up.
fn keep(most: CapabilitySet) {
    if let Ok(mut sets) = capabilities(None) {
        sets.effective &= most;
        sets.permitted &= most;
        sets.inheritable &= most;
        let _ = set_capabilities(None, sets);
    }
}

/// Which of the capabilities that an attach needs are missing, by name, where hud has not given them up itself.
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

/// Whether the rights to load programs are missing.
pub(crate) fn lacks_bpf() -> bool {
    missing_to_attach().iter().any(|name| matches!(*name, "CAP_BPF" | "CAP_PERFMON"))
}

/// Whether the files that the target has mapped can be opened only by their path, and not at all where they were replaced.
pub(crate) fn lacks_mapped_files() -> bool {
    missing_to_attach().contains(&"CAP_CHECKPOINT_RESTORE")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_place_is_roots_alone_only_if_all_the_way_to_it_is() {
        assert!(is_roots_alone(Path::new("/")));
        assert!(is_roots_alone(Path::new("/hud-test-not-there/a/b")));
        // Anyone may put a link there.
        assert!(!is_roots_alone(&std::env::temp_dir().join("a")));
        assert!(!is_roots_alone(Path::new("/proc/self/cwd/a")));
        assert!(!is_roots_alone(Path::new("/hud-test-not-there/../tmp")));
    }
}
