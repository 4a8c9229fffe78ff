//! The constants that the kernel programs are loaded with.

use aya::util::online_cpus;
use bytemuck::Zeroable as _;
use hud_common::wire::Config;

use crate::{
    inspect::VTABLE_ID_OFFSET,
    kernel::{self, Offsets},
};

/// The share of the overhead budget for stacks at context switches. The rest is for the minimum cost of a switch and
/// for the probes in the target's code.
pub(super) const SWITCH_SHARE: f64 = 0.5;

/// At least this share of one CPU's time, for all CPUs together: 2 % of a nearly idle target would be nothing.
pub(crate) const SWITCH_FLOOR: f64 = 0.0035;

/// The constants that depend on this kernel. Those that depend on the target are left to the caller.
pub(super) fn config(offsets: Option<Offsets>) -> Config {
    let offsets = offsets.unwrap_or(Offsets::NONE);
    let pids = offsets.pids.zip(kernel::inner_pid_namespace_file());
    let (pidns_device, pidns_inode) = pids.map_or((0, 0), |(_, file)| file);
    Config {
        task_pid: offsets.task_pid,
        task_tgid: offsets.task_tgid,
        task_fsbase: offsets.task_fsbase,
        task_state: offsets.task_state.unwrap_or(Config::NONE),
        vtable_id_offset: VTABLE_ID_OFFSET,
        task_utask: offsets.returns.map_or(Config::NONE, |r| r.task_utask),
        utask_instances: offsets.returns.map_or(0, |r| r.utask_instances),
        instance_stack: offsets.returns.map_or(0, |r| r.instance_stack),
        instance_return: offsets.returns.map_or(0, |r| r.instance_return),
        instance_next: offsets.returns.map_or(0, |r| r.instance_next),
        task_cfs_rq: offsets.steal.map_or(Config::NONE, |s| s.task_cfs_rq),
        cfs_rq_rq: offsets.steal.map_or(0, |s| s.cfs_rq_rq),
        rq_steal: offsets.steal.map_or(0, |s| s.rq_steal),
        pidns_device,
        pidns_inode,
        task_thread_pid: pids.map_or(0, |(p, _)| p.task_thread_pid),
        pid_level: pids.map_or(0, |(p, _)| p.pid_level),
        pid_numbers: pids.map_or(0, |(p, _)| p.pid_numbers),
        pidns_inum: pids.map_or(0, |(p, _)| p.pidns_inum),
        ..Config::zeroed()
    }
}

/// [`Config::switch_floor`]: each CPU has its own token bucket.
pub(super) fn switch_floor() -> u32 {
    let cpus = online_cpus().map_or(1, |cpus| cpus.len()).max(1);
    share(SWITCH_FLOOR / f64::from(u32::try_from(cpus).unwrap_or(u32::MAX))).max(1)
}

/// A share in 65,536ths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
pub(super) fn share(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 65_536.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_of_65536ths() {
        assert_eq!((share(0.01), share(2.0), share(-1.0)), (655, 65_536, 0));
    }
}
