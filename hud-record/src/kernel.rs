//! Facts about this kernel: offsets in its structures (by BTF), its release, its clocks.

use std::sync::OnceLock;

use hud_common::{session::Clock, wire::Config};
use rustix::time::{ClockId, clock_gettime};

use crate::btf::Types;

/// Where the kernel describes its own types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The initial pid namespace, as every kernel numbers it (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The pid namespace that hud runs in, if it is not the initial one: then its pids differ from those that the kernel gives
/// to the kernel programs, and these translate them.
pub fn inner_pid_namespace() -> Option<String> {
    pid_namespace_of("self").filter(|own| own != INITIAL_PID_NAMESPACE)
}

/// Whether the kernel programs can know the ids of a process by hud's own pid namespace, if that is not the initial one: the
/// process must be in the same one, and the kernel must have BTF.
pub(crate) fn can_translate_pids_of(pid: u32) -> bool {
    let own = pid_namespace_of("self");
    let offsets = Offsets::of_running_kernel();
    own.is_some() && own == pid_namespace_of(&pid.to_string()) && offsets.is_some_and(|o| o.pids.is_some())
}

fn pid_namespace_of(process: &str) -> Option<String> {
    Some(std::fs::read_link(format!("/proc/{process}/ns/pid")).ok()?.to_string_lossy().into_owned())
}

/// Device, as the kernel numbers it, and inode of the pid namespace that hud runs in, if it is not the initial one.
pub(crate) fn inner_pid_namespace_file() -> Option<(u64, u64)> {
    inner_pid_namespace()?;
    let file = rustix::fs::stat("/proc/self/ns/pid").ok()?;
    // `MKDEV` (include/linux/kdev_t.h).
    let device = u64::from(rustix::fs::major(file.st_dev)) << 20 | u64::from(rustix::fs::minor(file.st_dev));
    Some((device, file.st_ino))
}

/// Offsets of the fields that lead from a thread to its id in its own pid namespace (include/linux/pid.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidOffsets {
    /// `task_struct::thread_pid`
    pub task_thread_pid: u32,
    /// `pid::level`
    pub pid_level: u32,
    /// `pid::numbers`
    pub pid_numbers: u32,
    /// `pid_namespace::ns` + `ns_common::inum`
    pub pidns_inum: u32,
}

impl PidOffsets {
    fn of(types: &Types<'_>) -> Option<Self> {
        let offset = |of, name| Some(types.member(of, name)?.0);
        // The kernel programs take elements of `numbers` to be 16 bytes, with the namespace in the second half.
        if (offset("upid", "nr")?, offset("upid", "ns")?) != (0, 8) {
            return None;
        }
        Some(PidOffsets {
            task_thread_pid: offset("task_struct", "thread_pid")?,
            pid_level: offset("pid", "level")?,
            pid_numbers: offset("pid", "numbers")?,
            pidns_inum: offset("pid_namespace", "ns")?.checked_add(offset("ns_common", "inum")?)?,
        })
    }
}

/// Offsets of the fields that the kernel programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct::pid`
    pub task_pid: u32,
    /// `task_struct::tgid`
    pub task_tgid: u32,
    /// `task_struct::thread.fsbase`
    pub task_fsbase: u32,
    /// `task_struct::__state`, needed if the tracepoint `sched_switch` does not pass it: before Linux 5.18.
    pub task_state: Option<u32>,
    /// The fields of a thread's return probes.
    pub returns: Option<ReturnOffsets>,
    /// The fields that lead to a CPU's steal time.
    pub steal: Option<StealOffsets>,
    /// The fields that lead to a thread's id in its pid namespace.
    pub pids: Option<PidOffsets>,
}

/// Offsets of the fields that lead from the current thread to the steal time of its CPU (kernel/sched/sched.h; the kernel
/// was built with `CONFIG_PARAVIRT` and `CONFIG_FAIR_GROUP_SCHED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StealOffsets {
    /// `task_struct::se` + `sched_entity::cfs_rq`
    pub task_cfs_rq: u32,
    /// `cfs_rq::rq`
    pub cfs_rq_rq: u32,
    /// `rq::prev_steal_time`
    pub rq_steal: u32,
}

impl StealOffsets {
    fn of(types: &Types<'_>) -> Option<Self> {
        let (entity, _) = types.member("task_struct", "se")?;
        Some(StealOffsets {
            task_cfs_rq: entity.checked_add(types.member("sched_entity", "cfs_rq")?.0)?,
            cfs_rq_rq: types.member("cfs_rq", "rq")?.0,
            rq_steal: types.member("rq", "prev_steal_time")?.0,
        })
    }
}

/// Offsets of the fields by which the kernel programs find the return address of a function with a return probe
/// (include/linux/uprobes.h, Linux 3.10): the one on the stack is the probe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnOffsets {
    /// `task_struct::utask`
    pub task_utask: u32,
    /// `uprobe_task::return_instances`
    pub utask_instances: u32,
    /// `return_instance::stack`
    pub instance_stack: u32,
    /// `return_instance::orig_ret_vaddr`
    pub instance_return: u32,
    /// `return_instance::next`
    pub instance_next: u32,
}

impl ReturnOffsets {
    fn of(types: &Types<'_>) -> Option<Self> {
        let offset = |of, name| Some(types.member(of, name)?.0);
        Some(ReturnOffsets {
            task_utask: offset("task_struct", "utask")?,
            utask_instances: offset("uprobe_task", "return_instances")?,
            instance_stack: offset("return_instance", "stack")?,
            instance_return: offset("return_instance", "orig_ret_vaddr")?,
            instance_next: offset("return_instance", "next")?,
        })
    }
}

impl Offsets {
    /// By the running kernel's BTF; `None` if it has none. Read once.
    pub fn of_running_kernel() -> Option<Self> {
        static READ: OnceLock<Option<Offsets>> = OnceLock::new();
        *READ.get_or_init(|| Self::of(&Types::parse(&std::fs::read(BTF_PATH).ok()?)?))
    }

    fn of(types: &Types<'_>) -> Option<Self> {
        let offset = |of, name| Some(types.member(of, name)?.0);
        let (thread, thread_struct) = types.member("task_struct", "thread")?;
        Some(Offsets {
            task_pid: offset("task_struct", "pid")?,
            task_tgid: offset("task_struct", "tgid")?,
            task_fsbase: thread.checked_add(types.member_by_id(thread_struct, "fsbase")?.0)?,
            // void *, preempt, prev, next; include/trace/events/sched.h adds prev_state since Linux 5.18.
            task_state: match types.parameters("btf_trace_sched_switch") {
                Some(..=4) => Some(offset("task_struct", "__state")?),
                _ => None,
            },
            returns: ReturnOffsets::of(types),
            steal: StealOffsets::of(types),
            pids: PidOffsets::of(types),
        })
    }

    /// No offset known.
    pub const NONE: Offsets = Offsets {
        task_pid: Config::NONE,
        task_tgid: Config::NONE,
        task_fsbase: Config::NONE,
        task_state: None,
        returns: None,
        steal: None,
        pids: None,
    };
}

/// The kernel's release, such as `6.12.117+deb13-cloud-amd64`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major, minor and patch version of a release such as `6.12.117+deb13-cloud-amd64`; missing numbers are 0.
pub(crate) fn version(release: &str) -> (u32, u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// Whether the running kernel is older than a version.
pub(crate) fn is_older_than(major: u32, minor: u32) -> bool {
    version(&release()) < (major, minor, 0)
}

/// Whether the CPUs are emulated by QEMU (TCG), according to `/proc/cpuinfo`.
pub(crate) fn is_emulated() -> bool {
    let cpus = std::fs::read_to_string("/proc/cpuinfo");
    cpus.is_ok_and(|text| text.lines().any(|line| line.starts_with("model name") && line.contains("QEMU TCG")))
}

/// Whether the kernel's lockdown forbids even root's programs to read its memory (`lockdown=confidentiality`,
/// security/lockdown/lockdown.c).
pub fn is_locked_down() -> bool {
    let modes = std::fs::read_to_string("/sys/kernel/security/lockdown");
    modes.is_ok_and(|modes| modes.contains("[confidentiality]"))
}

/// The sysctl `kernel.perf_event_paranoid`: above 2, Debian's and Ubuntu's kernels require CAP_SYS_ADMIN for perf
/// events.
pub fn perf_event_paranoid() -> Option<i32> {
    std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

/// CLOCK_MONOTONIC now (ns).
pub fn now() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Both clocks at one instant: the middle of the narrowest of several readings.
pub fn anchor() -> Clock {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    (0..16)
        .map(|_| {
            let before = now();
            let real = nanos(ClockId::Realtime);
            let after = now();
            (after - before, Clock { mono: signed(before + (after - before) / 2), real: signed(real) })
        })
        .min_by_key(|(width, _)| *width)
        .map(|(_, clock)| clock)
        .unwrap_or_default()
}

/// CPU time that this process has used (ns).
pub fn own_cpu_time() -> u64 {
    nanos(ClockId::ProcessCPUTime)
}

/// CPU time that a process has used (ns); `None` if there is no such process.
pub fn cpu_time(pid: u32) -> Option<u64> {
    let mut clock = 0;
    // SAFETY: the call writes one integer, the clock's id.
    if unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills `time`.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    u64::try_from(time.tv_sec).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec).ok()?)
}

/// The CPU time of a process, read so often that reading takes at most 0.2 % of a CPU, and extrapolated in between.
///
/// The kernel adds up the times of all threads (`thread_group_cputime`, kernel/sched/cputime.c): 90 µs for 2,000.
#[derive(Debug)]
pub(crate) struct CpuTime {
    pid: u32,
    /// When it was read last, by CLOCK_MONOTONIC, and for how long that suffices (ns).
    read: u64,
    pause: u64,
    used: u64,
    /// What the process used per nanosecond between the last two readings.
    rate: f64,
    /// The last answer: it never decreases.
    last: u64,
}

impl CpuTime {
    /// Time between readings, as a multiple of the time that one takes.
    const PAUSE: u64 = 500;

    pub(crate) fn of(pid: u32) -> Self {
        let used = cpu_time(pid).unwrap_or(0);
        CpuTime { pid, read: now(), pause: 0, used, rate: 0.0, last: used }
    }

    /// Nanoseconds that the process has used by `at`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, never negative"
    )]
    pub(crate) fn at(&mut self, at: u64) -> u64 {
        let passed = at.saturating_sub(self.read);
        let estimate = if passed < self.pause {
            self.used.saturating_add((self.rate * passed as f64) as u64)
        } else if let Some(used) = cpu_time(self.pid) {
            self.rate = used.saturating_sub(self.used) as f64 / passed.max(1) as f64;
            (self.used, self.read) = (used, at);
            self.pause = now().saturating_sub(at).saturating_mul(Self::PAUSE);
            used
        } else {
            self.last
        };
        self.last = self.last.max(estimate);
        self.last
    }
}

/// CPU time that the calling thread has used (ns).
pub(crate) fn thread_cpu_time() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.12.117+deb13-cloud-amd64"), (6, 12, 117));
        assert_eq!(version("6.1.0-50-cloud-amd64"), (6, 1, 0));
        assert_eq!(version("5.15"), (5, 15, 0));
        assert!(version("6.1.0") < (6, 12, 0) && version("6.12.0") >= (6, 12, 0));
    }

    #[test]
    fn cpu_time_is_extrapolated_between_readings() {
        let mut clock = CpuTime { pid: std::process::id(), read: 1_000, pause: 500, used: 100, rate: 0.5, last: 100 };
        assert_eq!((clock.at(1_200), clock.at(1_100), clock.at(1_400)), (200, 200, 300));
        // A new reading.
        let before = own_cpu_time();
        assert!(clock.at(now()) >= before && clock.read > 1_000 && clock.pause > 0);
        // Larger than any pid (PID_MAX_LIMIT, include/linux/threads.h).
        let mut gone = CpuTime { pid: 1 << 22, read: 0, pause: 0, used: 7, rate: 0.5, last: 9 };
        assert_eq!(gone.at(1_000), 9);
    }

    #[test]
    fn the_anchor_ties_both_clocks() {
        let (a, b) = (anchor(), anchor());
        assert!(b.mono > a.mono);
        // Two anchors agree on the distance between the clocks, unless the time was set in between.
        assert!(((b.real - b.mono) - (a.real - a.mono)).abs() < 1_000_000);
    }
}
