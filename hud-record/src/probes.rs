//! Loading the kernel programs and attaching them to the scheduler, the CPU clock and the target's poll functions.

use std::{
    num::NonZeroU32,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, OnceLock},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{
        BtfTracePoint, PerfEvent, Program, ProgramError, TracePoint, UProbe,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
    util::online_cpus,
};
use bytemuck::Zeroable as _;
use hud_common::wire::{CONTEXT_WORDS, Calibration, Config, Counters, Stream, StreamCounters, ThreadState};

use crate::{
    error::{Error, Result},
    kernel::{BTF_PATH, Offsets},
    names::Sources,
    ring::Ring,
    target::{Process, Tokio},
    unwind::{LoadingTables, Prepared, Unwinder},
    uprobes::{Places, Programs, Switch, TrapCost, Uprobes},
};

/// The object that `cargo xtask build-ebpf` makes from hud-ebpf.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hud-ebpf/prebuilt/hud.bpf.o"));

/// [`ThreadState`] as aya wants it: plain words.
type ThreadWords = [u64; size_of::<ThreadState>() / 8];
type CalibrationWords = [u64; size_of::<Calibration>() / 8];
type CounterWords = [u64; size_of::<Counters>() / 8];

/// Whether polls, wakes, spawns and ends are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polls {
    /// As much as a budget allows.
    Auto,
    /// Every one.
    Exact,
    /// None.
    Off,
}

impl Polls {
    /// Its name on the command line and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Polls::Auto => "auto",
            Polls::Exact => "exact",
            Polls::Off => "off",
        }
    }
}

/// How stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwind {
    /// By unwind tables where the kernel allows, else by frame pointers.
    Auto,
    /// By unwind tables.
    EhFrame,
    /// By frame pointers.
    Fp,
}

impl Unwind {
    /// Its name on the command line and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Unwind::Auto => "auto",
            Unwind::EhFrame => "eh-frame",
            Unwind::Fp => "fp",
        }
    }
}

/// What to attach.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// CPU samples a second and CPU; 0 = none.
    pub freq: u32,
    /// Whether to probe polls, wakes, spawns and ends.
    pub polls: Polls,
    /// How stacks are walked.
    pub unwind: Unwind,
    /// Use the plain tracepoints even where the kernel has BTF (for tests of that path).
    pub no_btf: bool,
}

/// The attached programs. Detached when dropped.
pub struct Probes {
    bpf: Ebpf,
    probed: Probed,
    /// The programs for them, where the kernel has `uprobe_multi` links.
    programs: Option<Programs>,
    places: usize,
    trap: Option<TrapCost>,
    /// Whether tokio's thread-local can be read.
    has_context: bool,
    is_calibrating: bool,
    /// Words in it, and looks at those that were not it.
    context_words: u64,
    looked: u64,
    /// Where stacks are walked by unwind tables.
    unwinder: Option<Unwinder>,
}

/// The probes in the target's code.
enum Probed {
    /// None, or none any more.
    Not,
    /// By `uprobe_multi` links, on or off.
    Switched(Switch),
    /// Linux before 6.6: one by one. The kernel waits out a grace period of about 100 ms for each as it is taken off, one
    /// after the other whatever the number of threads that ask (it holds `event_mutex` meanwhile).
    OneByOne(Vec<UProbeLink>),
}

impl Probes {
    /// Loads the programs for this target and attaches the always-on ones. Nothing is recorded before [`Probes::start`].
    pub(crate) fn attach(
        process: &Process,
        tokio: &Tokio,
        image: (u64, u64),
        plan: Plan,
        tables: Prepared,
        sources: &Arc<Sources>,
    ) -> Result<Self> {
        let offsets = if plan.no_btf { None } else { Offsets::of_running_kernel() };
        let use_btf = offsets.is_some();
        let offsets = offsets.unwrap_or(Offsets::NONE);
        let by_tables = use_btf && plan.unwind != Unwind::Fp;
        if plan.unwind == Unwind::EhFrame && !by_tables {
            let what = "walking stacks by unwind tables".into();
            return Err(Error::NoBpf { what, why: format!("this kernel has no BTF ({BTF_PATH})") });
        }
        let config = Config {
            tgid: process.pid,
            task_pid: offsets.task_pid,
            task_tgid: offsets.task_tgid,
            task_fsbase: offsets.task_fsbase,
            vtable_poll: 0,
            vtable_id_offset: 72,
            polls: u32::from(plan.polls != Polls::Off),
            tls_tagged: u32::from(tokio.tls_tagged),
            tls_context: tokio.tls_context.map_or(0, |(offset, _)| offset),
            tls_words: match tokio.tls_context {
                Some((_, words)) if use_btf => words,
                _ => 0,
            },
            vtables_start: image.0,
            vtables_end: image.1,
            unwind: u32::from(by_tables),
            task_utask: offsets.returns.map_or(Config::NONE, |r| r.task_utask),
            utask_instances: offsets.returns.map_or(0, |r| r.utask_instances),
            instance_stack: offsets.returns.map_or(0, |r| r.instance_stack),
            instance_return: offsets.returns.map_or(0, |r| r.instance_return),
            instance_next: offsets.returns.map_or(0, |r| r.instance_next),
        };
        let _ = has_run_times();
        let mut loader = EbpfLoader::new();
        if by_tables {
            tables.size(&mut loader);
        }
        let bpf = loader
            .override_global("CONFIG", bytemuck::bytes_of(&config), true)
            .load(OBJECT)
            .map_err(|e| refused("loading the kernel programs", &e))?;
        // While the verifier looks at the programs.
        let tables = if by_tables { Some(LoadingTables::begin(&bpf, tables)?) } else { None };
        let mut probes = Probes {
            bpf,
            probed: Probed::Not,
            programs: None,
            places: 0,
            trap: None,
            has_context: false,
            is_calibrating: false,
            context_words: config.tls_words,
            looked: 0,
            unwinder: None,
        };
        probes.attach_scheduler(use_btf)?;
        if plan.freq > 0 {
            probes.attach_sampler(plan.freq)?;
        }
        probes.has_context = config.tls_words > 0;
        if plan.polls != Polls::Off || probes.has_context {
            // Now, as the ring is still among the maps. An older kernel refuses.
            const NAMES: [&str; 5] = ["poll_return", "poll_enter", "panicked", "task_spawn", "task_wake"];
            probes.programs = Programs::load(&probes.bpf, OBJECT, &NAMES)
                .inspect_err(|e| tracing::debug!("no uprobe_multi links: {e}"))
                .ok();
        }
        if let Some(tables) = tables {
            probes.unwinder = Some(Unwinder::start(tables, process.clone(), Arc::clone(sources))?);
        }
        if plan.polls == Polls::Auto {
            probes.trap = probes.programs.as_ref().and_then(|p| TrapCost::measure(p).ok());
        }
        Ok(probes)
    }

    /// Makes use of what was learned of the target's tokio: tells the programs where the current task's id lies, or begins
    /// to look for it, and puts the probes on if the plan says so, or if that search needs them.
    pub fn use_learned(&mut self, process: &Process, tokio: &Tokio, plan: Plan) -> Result<()> {
        match tokio.task_id_word() {
            Some(word) if self.has_context => {
                self.set_calibration(|c| {
                    c.found = word + 1;
                    c.worker = tokio.worker_place.unwrap_or_default();
                })?;
            }
            _ => self.is_calibrating = self.has_context,
        }
        if plan.polls != Polls::Off || self.is_calibrating {
            self.attach_probes(process, tokio)?;
        }
        Ok(())
    }

    fn attach_scheduler(&mut self, use_btf: bool) -> Result<()> {
        let btf = if use_btf { Btf::from_sys_fs().ok() } else { None };
        for name in ["sched_process_exec", "sched_waking", "sched_switch"] {
            match &btf {
                Some(btf) => {
                    let what = format!("attaching to tp_btf/{name}");
                    let program: &mut BtfTracePoint = self.program(&format!("{name}_btf"))?;
                    program.load(name, btf).map_err(|e| refused(&what, &e))?;
                    program.attach().map_err(|e| refused(&what, &e))?;
                }
                None => {
                    let what = format!("attaching to tracepoint sched:{name}");
                    let program: &mut TracePoint = self.program(&format!("{name}_tp"))?;
                    program.load().map_err(|e| refused(&what, &e))?;
                    program.attach("sched", name).map_err(|e| refused(&what, &e))?;
                }
            }
        }
        // Threads at their birth, by whom they were started; without BTF they are met as they first run.
        if let Some(btf) = &btf {
            let what = "attaching to tp_btf/sched_wakeup_new";
            let program: &mut BtfTracePoint = self.program("sched_wakeup_new_btf")?;
            program.load("sched_wakeup_new", btf).map_err(|e| refused(what, &e))?;
            program.attach().map_err(|e| refused(what, &e))?;
        }
        Ok(())
    }

    fn attach_sampler(&mut self, freq: u32) -> Result<()> {
        let what = "sampling the CPUs by perf_event cpu-clock";
        let cpus = online_cpus().map_err(|(_, source)| Error::Io { action: "list the CPUs", source })?;
        let program: &mut PerfEvent = self.program("sample_cpu")?;
        program.load().map_err(|e| refused(what, &e))?;
        for cpu in cpus {
            program
                .attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Frequency(u64::from(freq)),
                    false,
                )
                .map_err(|e| refused(what, &e))?;
        }
        Ok(())
    }

    fn attach_probes(&mut self, process: &Process, tokio: &Tokio) -> Result<()> {
        let what = "attaching uprobes to tokio";
        let exe = format!("/proc/{}/exe", process.pid);
        let plain = |places: &[u64]| places.iter().map(|&p| (p, 0)).collect::<Vec<_>>();
        let polls: Vec<_> = tokio.exact_polls().map(|(index, p)| (p.file_offset, index as u64)).collect();
        // Returns first: a return without its entry is ignored, an entry without its return would linger.
        let places = vec![
            Places { program: "poll_return", is_return: true, at: polls.clone() },
            Places { program: "poll_enter", is_return: false, at: polls },
            Places { program: "panicked", is_return: false, at: plain(&tokio.panics) },
            Places { program: "task_spawn", is_return: false, at: plain(&tokio.spawns) },
            Places { program: "task_wake", is_return: false, at: plain(&tokio.wakes) },
        ];
        self.places = places.iter().map(|p| p.at.len()).sum();
        let Some(programs) = self.programs.clone() else {
            return self.attach_one_by_one(process, &places);
        };
        let started = |e: std::io::Error| match e.kind() {
            _ if !Path::new(&exe).exists() => Error::Exited(process.pid),
            std::io::ErrorKind::PermissionDenied => Error::NoPermission { what: what.into(), why: e.to_string() },
            _ => Error::Kernel { what: what.into(), why: e.to_string() },
        };
        let mut probes = Uprobes::new(programs, places, &exe, process.pid).map_err(started)?;
        probes.attach().map_err(started)?;
        let switch = Switch::new(probes).map_err(|source| Error::Io { action: "start a thread", source })?;
        self.probed = Probed::Switched(switch);
        Ok(())
    }

    fn attach_one_by_one(&mut self, process: &Process, places: &[Places]) -> Result<()> {
        let what = "attaching uprobes to tokio";
        let exe = process.exe_path();
        let pid = NonZeroU32::new(process.pid).ok_or(Error::NoSuchPid(process.pid))?;
        let mut links = Vec::new();
        for Places { program, at, .. } in places {
            let program: &mut UProbe = self.program(program)?;
            program.load().map_err(|e| refused(what, &e))?;
            for &(offset, cookie) in at {
                let point =
                    UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: Some(cookie) };
                let link = program
                    .attach(point, exe.as_path() as &Path, UProbeScope::OneProcess(pid))
                    .and_then(|id| program.take_link(id))
                    .map_err(|e| if exe.exists() { refused(what, &e) } else { Error::Exited(process.pid) })?;
                links.push(link);
            }
        }
        self.probed = Probed::OneByOne(links);
        Ok(())
    }

    /// Tells the kernel program of threads that exist already, so that it tells only news.
    pub fn know_thread(&mut self, tid: u32, name: &str) -> Result<()> {
        let mut state = ThreadState::zeroed();
        let name = name.as_bytes();
        let length = name.len().min(15);
        if let (Some(to), Some(from)) = (state.comm.get_mut(..length), name.get(..length)) {
            to.copy_from_slice(from);
        }
        // BPF_NOEXIST: a thread that the programs met meanwhile keeps its state.
        let _ = self.threads()?.insert(tid, bytemuck::cast::<_, ThreadWords>(state), 1);
        Ok(())
    }

    /// Starts all streams at one instant, given as CLOCK_MONOTONIC; the probes, if they are on, count from it.
    pub fn start(&mut self, now: u64) -> Result<()> {
        if self.probes_are_on() {
            self.count_probes_since(now)?;
        }
        self.set("RECORDING", 1_u32)
    }

    /// Stops all streams at one instant; what is in the ring stays to be drained.
    pub fn stop(&mut self) -> Result<()> {
        self.set("RECORDING", 0_u32)
    }

    /// Lets the probes in the target's code count from `since` (CLOCK_MONOTONIC), or not at all (0).
    pub fn count_probes_since(&mut self, since: u64) -> Result<()> {
        self.set("PROBES_SINCE", since)
    }

    /// When the target executed another program (CLOCK_MONOTONIC), which ended all streams; `None` while it has not.
    pub fn executed(&self) -> Result<Option<u64>> {
        let map = self.bpf.map("EXECUTED").ok_or_else(|| missing("EXECUTED"))?;
        let map: Array<&MapData, u64> = Array::try_from(map).map_err(|e| refused("opening a switch", &e))?;
        let at = map.get(&0, 0).map_err(|e| refused("reading a switch", &e))?;
        Ok((at != 0).then_some(at))
    }

    fn set<T: aya::Pod>(&mut self, name: &str, value: T) -> Result<()> {
        let map = self.bpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut map: Array<&mut MapData, T> = Array::try_from(map).map_err(|e| refused("opening a switch", &e))?;
        map.set(0, value, 0).map_err(|e| refused("turning a switch", &e))
    }

    /// Whether all probes in the target's code are on.
    pub fn probes_are_on(&self) -> bool {
        match &self.probed {
            Probed::Not => false,
            Probed::Switched(switch) => switch.is_on(),
            Probed::OneByOne(_) => true,
        }
    }

    /// Whether they are being put on.
    pub fn probes_go_on(&self) -> bool {
        matches!(&self.probed, Probed::Switched(switch) if switch.goes_on())
    }

    /// Whether they are off and can be put on again.
    pub fn probes_can_go_on(&self) -> bool {
        matches!(&self.probed, Probed::Switched(switch) if switch.is_off())
    }

    /// Puts the probes on or takes them off, soon. What was put on one by one is taken off for good.
    pub fn turn_probes(&mut self, on: bool) {
        match &self.probed {
            Probed::Switched(switch) => switch.turn(on),
            Probed::OneByOne(_) if !on => {
                tracing::warn!(
                    "polls, wakes, spawns and ends are no longer recorded: putting probes on again takes Linux 6.6"
                );
                if let Probed::OneByOne(links) = std::mem::replace(&mut self.probed, Probed::Not) {
                    // A thread that cannot be had: the links go with the closure, right here. Entries first, which were
                    // attached last: an entry without its return would linger.
                    let detach = move || links.into_iter().rev().for_each(drop);
                    let _ = std::thread::Builder::new().name("hud-probes".into()).spawn(detach);
                }
            }
            _ => {}
        }
    }

    /// What a hit of a probe costs the target here, without the kernel programs' own run time; `None` where that can't be
    /// measured.
    pub(crate) fn trap_cost(&self) -> Option<TrapCost> {
        self.trap
    }

    /// Run time (ns) of the programs in the target's code so far; `None` where the kernel keeps no account.
    pub fn probed_run_time(&self) -> Option<u64> {
        self.programs.as_ref().filter(|_| has_run_times()).map(Programs::run_time)
    }

    /// Lets the kernel programs tell the types of all tasks again, as they meet them.
    pub fn retell_tasks(&mut self) -> Result<()> {
        let map = self.bpf.map_mut("TASKS").ok_or_else(|| missing("TASKS"))?;
        let mut tasks: HashMap<&mut MapData, u64, u32> =
            HashMap::try_from(map).map_err(|e| refused("opening the task map", &e))?;
        let known: Vec<u64> = tasks.keys().flatten().collect();
        for task in known {
            // One that the map has forgotten meanwhile is what is wanted.
            let _ = tasks.remove(&task);
        }
        Ok(())
    }

    /// The ring of events. Can be taken once.
    pub(crate) fn take_ring(&mut self) -> Result<Ring> {
        let map = self.bpf.take_map("EVENTS").ok_or_else(|| missing("EVENTS"))?;
        let Map::RingBuf(data) = map else { return Err(missing("EVENTS")) };
        Ring::new(data).map_err(|e| refused("mapping the ring buffer", &e))
    }

    /// The counters of all CPUs, added up.
    pub fn counters(&self) -> Result<Counters> {
        let map = self.bpf.map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let counters: PerCpuArray<&MapData, CounterWords> =
            PerCpuArray::try_from(map).map_err(|e| refused("opening the counters", &e))?;
        let per_cpu = counters.get(&0, 0).map_err(|e| refused("reading the counters", &e))?;
        let mut sum = Counters::default();
        for words in per_cpu.iter() {
            let c: Counters = bytemuck::cast(*words);
            for (to, from) in sum.streams.iter_mut().zip(c.streams) {
                to.produced += from.produced;
                to.lost += from.lost;
                to.untracked += from.untracked;
            }
            sum.arrivals_missed += c.arrivals_missed;
            sum.tls_failed += c.tls_failed;
            sum.scan_failed += c.scan_failed;
            sum.unmapped += c.unmapped;
            sum.spared += c.spared;
            sum.poll_hits += c.poll_hits;
            sum.other_hits += c.other_hits;
        }
        Ok(sum)
    }

    /// Threads that are off CPU now, with the stretch under way. To be asked after [`Probes::stop`].
    pub fn off_cpu_now(&mut self) -> Result<Vec<ThreadState>> {
        let threads = self.threads()?;
        Ok(threads
            .iter()
            .flatten()
            .map(|(_, words)| bytemuck::cast::<ThreadWords, ThreadState>(words))
            .filter(|state| state.is_off != 0)
            .collect())
    }

    fn threads(&mut self) -> Result<HashMap<&mut MapData, u32, ThreadWords>> {
        let map = self.bpf.map_mut("THREADS").ok_or_else(|| missing("THREADS"))?;
        HashMap::try_from(map).map_err(|e| refused("opening the thread map", &e))
    }

    /// Has the unwind tables brought up to date, if walks came to unknown code.
    pub fn follow_mappings(&mut self, counters: &Counters) {
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.look_again(counters.unmapped);
        }
    }

    /// Run time of all programs so far (ns); `None` where the kernel keeps no account.
    pub fn run_time(&self) -> Option<u64> {
        if !has_run_times() {
            return None;
        }
        let times = self.bpf.programs().filter_map(|(_, p)| Some(p.info().ok()?.run_time().as_nanos()));
        let probed = self.programs.as_ref().map_or(0, Programs::run_time);
        u64::try_from(times.sum::<u128>()).ok()?.checked_add(probed)
    }

    /// Name and instructions verified of each loaded program.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        let probed = self.programs.iter().flat_map(Programs::verified_instructions);
        self.bpf
            .programs()
            .filter_map(|(name, p)| Some((name.to_string(), p.info().ok()?.verified_instruction_count()?)))
            .chain(probed)
            .collect()
    }

    /// How many places of the target's code are probed.
    pub fn probed_places(&self) -> usize {
        match &self.probed {
            Probed::Not => 0,
            Probed::Switched(_) | Probed::OneByOne(_) => self.places,
        }
    }

    /// Whether the place of the current task's id is still being looked for.
    pub fn is_calibrating(&self) -> bool {
        self.is_calibrating
    }

    /// Looks whether the place of the current task's id is sure by now, and if so, or on giving up, tells the kernel
    /// programs. Gives false where it gave up.
    ///
    /// Giving up takes evidence too: a target that was idle has shown none.
    pub fn calibrate(&mut self, give_up: bool) -> Result<bool> {
        const ENOUGH: u64 = 64;
        let mut found = None;
        let (words, mut looked) = (self.context_words, self.looked);
        self.set_calibration(|calibration| {
            found = match calibration.verdict() {
                Some(word) => Some(word + 1),
                None => (give_up && looked + calibration.looks >= ENOUGH).then_some(Calibration::GAVE_UP),
            };
            calibration.found = found.unwrap_or(0);
            if found.is_none() && words > CONTEXT_WORDS as u64 && calibration.looks >= ENOUGH / 2 {
                // Not among these words: on to the next ones, and round.
                looked += calibration.looks;
                let next = calibration.first + CONTEXT_WORDS as u64;
                let first = if next < words { next } else { 0 };
                *calibration = Calibration { first, worker: calibration.worker, ..Calibration::zeroed() };
            }
        })?;
        self.looked = looked;
        self.is_calibrating = found.is_none();
        Ok(found != Some(Calibration::GAVE_UP))
    }

    fn set_calibration(&mut self, change: impl FnOnce(&mut Calibration)) -> Result<()> {
        let map = self.bpf.map_mut("CALIBRATION").ok_or_else(|| missing("CALIBRATION"))?;
        let mut map: Array<&mut MapData, CalibrationWords> =
            Array::try_from(map).map_err(|e| refused("opening the calibration", &e))?;
        let words = map.get(&0, 0).map_err(|e| refused("reading the calibration", &e))?;
        let mut calibration: Calibration = bytemuck::cast(words);
        let before = (calibration.found, calibration.first, calibration.worker);
        change(&mut calibration);
        if (calibration.found, calibration.first, calibration.worker) != before {
            map.set(0, bytemuck::cast::<_, CalibrationWords>(calibration), 0)
                .map_err(|e| refused("writing the calibration", &e))?;
        }
        Ok(())
    }

    /// Ends the search, and takes the probes off if they served only that.
    pub fn end_calibration(&mut self, keep_probes: bool) -> Result<()> {
        self.is_calibrating = false;
        if !keep_probes {
            self.count_probes_since(0)?;
            self.turn_probes(false);
        }
        Ok(())
    }

    fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.bpf.program_mut(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(|e| refused(name, &e))
    }
}

/// Whether the kernel accounts the run time of programs, which it does while a descriptor for it is open: from the first
/// call to this process's end, as opening it takes CAP_SYS_ADMIN, which is given up.
fn has_run_times() -> bool {
    static STATS: OnceLock<Option<OwnedFd>> = OnceLock::new();
    STATS.get_or_init(|| aya::sys::enable_stats(aya::sys::Stats::RunTime).ok()).is_some()
}

/// The stream whose events a counter index belongs to.
pub fn stream_counters(counters: &Counters, stream: Stream) -> StreamCounters {
    counters.streams.get(stream as usize).copied().unwrap_or_default()
}

fn missing(what: &str) -> Error {
    Error::Kernel {
        what: format!("the kernel object has no {what}"),
        why: "hud-ebpf/prebuilt is out of date; run `cargo xtask build-ebpf`".into(),
    }
}

/// An error of aya's in DESIGN's terms: no permission, no eBPF, or a program of ours that is at fault.
fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut why = error.to_string();
    let mut source = error.source();
    let mut io = None;
    while let Some(e) = source {
        io = io.or_else(|| e.downcast_ref::<std::io::Error>());
        let text = e.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = e.source();
    }
    let why = match why.split_once("Verifier output:") {
        // The verifier tells its reason last, before its statistics.
        Some((call, log)) => {
            let statistics = ["processed ", "verification time", "stack depth"];
            let reason =
                log.lines().rev().find(|l| !l.trim().is_empty() && !statistics.iter().any(|s| l.starts_with(s)));
            format!("{} the verifier: {}", call.trim(), reason.unwrap_or_default().trim())
        }
        None => why.lines().next().unwrap_or_default().trim().to_string(),
    };
    let what = what.to_string();
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::PermissionDenied) => Error::NoPermission { what, why },
        Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::Unsupported) => Error::NoBpf { what, why },
        _ if io.and_then(std::io::Error::raw_os_error) == Some(rustix::io::Errno::NOSYS.raw_os_error()) => {
            Error::NoBpf { what, why }
        }
        _ => Error::Kernel { what, why },
    }
}
