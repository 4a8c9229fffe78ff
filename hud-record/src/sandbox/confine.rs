//! How the sandboxed child gives up its rights before it reads a byte that the target controls.
//!
//! Each measure works without the others. If the system lacks one (no landlock, no right to change the user), the
//! others still apply; the measures in effect are reported to the recorder.

use std::collections::BTreeMap;

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, Signal},
    thread::{CapabilitySet, CapabilitySets},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use serde::{Deserialize, Serialize};

/// Which measures confine the child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// It runs as a user other than root.
    pub unprivileged: bool,
    /// It has no capability and can gain none.
    pub no_capabilities: bool,
    /// It can open no file (landlock).
    pub no_files: bool,
    /// It can make few system calls (seccomp).
    pub few_calls: bool,
}

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;
/// Heap limit. A binary with 200 MB of debug information takes about 100 MB; compressed sections take the size that
/// they decompress to in addition.
const MOST_HEAP: u64 = 2 << 30;
/// Address space limit: includes mapped files.
const MOST_ADDRESSES: u64 = 64 << 30;
/// Descriptor limit: a module has a few, and each object of split debug information one for a moment.
const MOST_FILES: u64 = 64;

/// Gives up every right that reading descriptors and answering does not need.
pub(super) fn enter() -> Confinement {
    limit();
    let _ = rustix::thread::set_no_new_privs(true);
    let unprivileged = become_nobody();
    let no_capabilities = give_up_capabilities();
    // Other processes of user nobody may not trace this one either.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Set after the change of user, which clears it. If the parent has already exited, the socket is at its end.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let no_files = forbid_files();
    let few_calls = forbid_calls();
    Confinement { unprivileged, no_capabilities, no_files, few_calls }
}

fn limit() {
    let at_most = |resource, most| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        // It fails if the limit is already lower.
        let _ = rustix::process::setrlimit(resource, limit);
    };
    at_most(Resource::Data, MOST_HEAP);
    at_most(Resource::As, MOST_ADDRESSES);
    at_most(Resource::Nofile, MOST_FILES);
    // No processes or threads, no files, no core dump of the data read.
    at_most(Resource::Nproc, 0);
    at_most(Resource::Fsize, 0);
    at_most(Resource::Core, 0);
}

fn become_nobody() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let (uid, gid) = (rustix::process::Uid::from_raw(NOBODY), rustix::process::Gid::from_raw(NOBODY));
    // This process has one thread. Supplementary groups and group first: after the change of user they cannot be
    // changed.
    rustix::thread::set_thread_groups(&[]).is_ok()
        && rustix::thread::set_thread_res_gid(gid, gid, gid).is_ok()
        && rustix::thread::set_thread_res_uid(uid, uid, uid).is_ok()
}

fn give_up_capabilities() -> bool {
    let none = CapabilitySet::empty();
    let _ = rustix::thread::clear_ambient_capability_set();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .is_ok()
}

/// Denies all access to the file system and network: the ruleset allows nothing.
fn forbid_files() -> bool {
    let forbid = || {
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V5))?
            .scope(Scope::from_all(ABI::V6))?;
        rules.create()?.restrict_self()
    };
    forbid().is_ok_and(|status: landlock::RestrictionStatus| status.ruleset != RulesetStatus::NotEnforced)
}

/// Allows only the system calls that reading mapped files, allocating and answering need. Others fail with EPERM.
fn forbid_calls() -> bool {
    let always = [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_readv,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_recvmsg,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_lseek,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_gettimeofday,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getpid,
        libc::SYS_getrusage,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let not_executable = |call| {
        let condition = SeccompCondition::new(
            2,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(libc::PROT_EXEC.unsigned_abs().into()),
            0,
        )?;
        Ok((call, vec![SeccompRule::new(vec![condition])?]))
    };
    // On its own descriptor only: with an empty path.
    let itself = |call, flags_at| {
        let empty_path = u64::from(libc::AT_EMPTY_PATH.unsigned_abs());
        let condition =
            SeccompCondition::new(flags_at, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(empty_path), empty_path)?;
        Ok((call, vec![SeccompRule::new(vec![condition])?]))
    };
    // For `abort`.
    let own_process = |call| {
        let pid = u64::from(std::process::id());
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, pid)?;
        Ok((call, vec![SeccompRule::new(vec![condition])?]))
    };
    let filter = || -> Result<BpfProgram, seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = always.iter().map(|&call| (call, Vec::new())).collect();
        rules.extend([
            not_executable(libc::SYS_mmap)?,
            not_executable(libc::SYS_mprotect)?,
            itself(libc::SYS_statx, 2)?,
            itself(libc::SYS_newfstatat, 3)?,
            own_process(libc::SYS_tgkill)?,
        ]);
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        SeccompFilter::new(rules, denied, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
    };
    filter().is_ok_and(|filter| seccompiler::apply_filter(&filter).is_ok())
}
