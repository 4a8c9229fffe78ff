//! Loading the kernel programs and attaching them to the scheduler, the CPU clock and the target's poll functions.
//!
//! hud does without a program that this kernel does not take, says so, and records the rest: only context switches must be
//! there ([`Probes::left_out`]).

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    num::NonZeroU32,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
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
use hud_common::wire::{
    CONTEXT_WORDS, Calibration, Config, Counters, EventKind, Stream, StreamCounters, SwitchBudget, ThreadState,
    switch_tag,
};

use super::{
    cost::{Costs, RunTimes, Switches},
    loading::{Loaded, LoadedProbes, TRACEPOINTS},
    switch::{Attach as _, Switch, Tracepoints},
    uprobes::{self, Places, Programs, Refused, Relocated, TrapCost, Uprobes},
};
use crate::{
    error::{Error, Result},
    inspect::{Process, Tokio, VTABLE_ID_OFFSET},
    kernel::{self, BTF_PATH, Offsets},
    privilege,
    ring::Ring,
    symbols::Sources,
    unwind::{LoadingTables, Prepared, Unwinder},
};

/// The object that `cargo xtask build-ebpf` makes from hud-ebpf.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hud-ebpf/prebuilt/hud.bpf.o"));

/// [`ThreadState`] as aya wants it: plain words.
type ThreadWords = [u64; size_of::<ThreadState>() / 8];
type CalibrationWords = [u64; size_of::<Calibration>() / 8];
type CounterWords = [u64; size_of::<Counters>() / 8];
type BudgetWords = [u64; size_of::<SwitchBudget>() / 8];

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
    /// The word of tokio's thread-local context that was found to hold the current task's id.
    task_id_word: Option<u64>,
    /// Where stacks are walked by unwind tables.
    unwinder: Option<Unwinder>,
    /// Whether the CPUs are sampled.
    samples: bool,
    left_out: Vec<LeftOut>,
    /// The programs at context switches, where they can be taken off for a while.
    switches: Option<SwitchPrograms>,
    /// Since when switches count (CLOCK_MONOTONIC); 0 = they don't.
    switches_since: u64,
    costs: RefCell<Costs>,
}

/// The programs at context switches.
enum SwitchPrograms {
    /// They can be taken off, and put on again.
    Detachable(Switch),
    /// They stay on as long as these links do.
    Staying { _links: Tracepoints },
}

impl SwitchPrograms {
    /// `tracepoints` are on.
    ///
    /// To put one on or take it off, the kernel patches its own code while other CPUs run it. An emulated CPU may then still
    /// run what was there before: under QEMU without KVM a kernel has crashed (`Oops: int3` in `try_to_wake_up`) or hung,
    /// where that was done every other second. No kernel has on a real CPU.
    fn new(tracepoints: Tracepoints) -> Result<Self> {
        if kernel::is_emulated() || kernel::is_older_than(6, 12) {
            return Ok(SwitchPrograms::Staying { _links: tracepoints });
        }
        let switch = Switch::new("hud-switches", tracepoints);
        switch.map(SwitchPrograms::Detachable).map_err(|source| Error::Io { action: "start a thread", source })
    }
}

/// What is not recorded because this kernel does not take the program for it, or does not let hud attach it.
#[derive(Clone, Debug)]
pub(crate) struct LeftOut {
    /// The stream that is missing, where it is a whole one.
    pub(crate) stream: Option<Stream>,
    /// What is missing, and why, in words.
    pub(crate) what: String,
}

/// The share of the overhead budget that context switches may use for stacks. The rest is for what a switch costs at least,
/// and for the probes in the target's code.
const SWITCH_SHARE: f64 = 0.5;
/// And at least this share of one CPU's time, however many CPUs there are: of a target that does nearly nothing, 2 % is
/// nothing.
pub(crate) const SWITCH_FLOOR: f64 = 0.0035;
/// Threads that the kernel programs can follow at least; four times as many as there are at the attach, and at most what
/// takes 64 MB of the kernel's memory.
const THREADS: (usize, usize) = (4096, 32_768);

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
    /// `budget` is the share of the target's CPU time that they may cost.
    pub(crate) fn attach(
        process: &Process,
        tokio: &Tokio,
        image: (u64, u64),
        plan: Plan,
        budget: f64,
        tables: Prepared,
        sources: &Arc<Sources>,
    ) -> Result<Self> {
        if kernel::is_locked_down() {
            return Err(Error::LockedDown);
        }
        let offsets = if plan.no_btf { None } else { Offsets::of_running_kernel() };
        let use_btf = offsets.is_some();
        let by_tables = use_btf && plan.unwind != Unwind::Fp;
        if plan.unwind == Unwind::EhFrame && !by_tables {
            let what = "walking stacks by unwind tables".into();
            return Err(Error::NoBpf { what, why: format!("this kernel has no BTF ({BTF_PATH})") });
        }
        let config = Config {
            tgid: process.pid,
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
            switch_share: share(budget * SWITCH_SHARE),
            switch_floor: switch_floor(),
            ..config(offsets)
        };
        let mut loader = EbpfLoader::new();
        if by_tables {
            tables.size(&mut loader);
        }
        let threads = (process.threads().len() * 4).clamp(THREADS.0, THREADS.1);
        loader.map_max_entries("THREADS", u32::try_from(threads).unwrap_or(u32::MAX));
        let mut bpf = loader
            .override_global("CONFIG", bytemuck::bytes_of(&config), true)
            .load(OBJECT)
            .map_err(|e| refused("loading the kernel programs", &e))?;
        // While the verifier looks at the programs.
        let tables = if by_tables { Some(LoadingTables::begin(&bpf, tables)?) } else { None };
        let Loaded { counts, is_btf, tracepoints, sampler, probed } = Loaded::load(&mut bpf, OBJECT, plan, use_btf)?;
        let mut probes = Probes {
            bpf,
            probed: Probed::Not,
            programs: None,
            places: 0,
            trap: None,
            has_context: config.tls_words > 0,
            is_calibrating: false,
            context_words: config.tls_words,
            looked: 0,
            task_id_word: None,
            unwinder: None,
            samples: false,
            left_out: Vec::new(),
            switches: None,
            switches_since: 0,
            costs: RefCell::new(Costs::new(counts)),
        };
        probes.attach_scheduler(tracepoints, is_btf)?;
        if let Some(loaded) = sampler {
            match loaded.and_then(|()| probes.attach_sampler(plan.freq)) {
                Ok(()) => probes.samples = true,
                Err(e) => probes.leave_out_samples(&e),
            }
        }
        match probed {
            Some(Ok(LoadedProbes { programs, rejected, trap })) => {
                for (name, why) in rejected {
                    let why = rejection(name, &why);
                    if !is_optional(name) {
                        return Err(why);
                    }
                    let (stream, lost) = lost_with(name);
                    probes.leave_out(stream, format!("{lost}: {why}"));
                }
                (probes.programs, probes.trap) = (Some(programs), trap);
            }
            Some(Err(e)) => tracing::debug!("no uprobe_multi links, the probes are attached one by one: {e}"),
            None => {}
        }
        if let Some(tables) = tables {
            probes.unwinder = Some(Unwinder::start(tables, process.clone(), Arc::clone(sources))?);
        }
        Ok(probes)
    }

    /// What is not recorded here.
    pub(crate) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn leave_out(&mut self, stream: Option<Stream>, what: String) {
        self.left_out.push(LeftOut { stream, what });
    }

    fn leave_out_samples(&mut self, why: &Error) {
        // Some CPUs may be sampled already.
        if let Ok(program) = self.program::<PerfEvent>("sample_cpu") {
            let _ = program.unload();
        }
        let hint = if matches!(why, Error::NoPermission { .. }) { paranoid() } else { String::new() };
        self.leave_out(Some(Stream::Samples), format!("the CPUs are not sampled: {why}{hint}"));
    }

    /// Whether the CPUs are sampled.
    pub(crate) fn has_samples(&self) -> bool {
        self.samples
    }

    /// Makes use of what was learned of the target's tokio: tells the programs where the current task's id lies, or has them
    /// look for it, and puts the probes on if the plan says so.
    pub fn use_learned(&mut self, process: &Process, tokio: &Tokio, plan: Plan) -> Result<()> {
        match tokio.task_id_word() {
            Some(word) if self.has_context => {
                self.set_calibration(|c| {
                    c.found = word + 1;
                    c.worker = tokio.worker_place.unwrap_or_default();
                })?;
                self.task_id_word = Some(word);
            }
            _ => self.is_calibrating = self.has_context,
        }
        if plan.polls != Polls::Off {
            self.attach_probes(process, tokio)?;
        }
        Ok(())
    }

    fn attach_scheduler(&mut self, loaded: Vec<Result<Option<OwnedFd>>>, is_btf: bool) -> Result<()> {
        let lost_without = |name| match name {
            "sched_waking" => "run-queue latency and who wakes whom are not recorded",
            "sched_process_exec" => "hud does not notice if the target executes another program",
            // Without BTF threads are seen when they first run.
            _ => "it is not recorded who starts a thread",
        };
        let mut switches = Vec::new();
        for (name, loaded) in TRACEPOINTS.into_iter().zip(loaded) {
            let attached = loaded.and_then(|program| match name {
                "sched_switch" | "sched_waking" => {
                    switches.push(program);
                    Ok(())
                }
                _ => self.attach_tracepoint(is_btf, name),
            });
            match attached {
                Err(e) if name == "sched_switch" => return Err(e),
                Err(e) if is_btf || name != "sched_wakeup_new" => {
                    self.leave_out(None, format!("{}: {e}", lost_without(name)));
                }
                _ => {}
            }
        }
        let what = "attaching to the scheduler's tracepoints";
        let has_waking = switches.len() > 1;
        match switches.into_iter().collect::<Option<Vec<_>>>() {
            Some(programs) => {
                let mut tracepoints = Tracepoints::new(programs);
                tracepoints.attach().map_err(|e| refused(what, &e))?;
                self.switches = Some(SwitchPrograms::new(tracepoints)?);
            }
            None => {
                self.attach_tracepoint(false, "sched_switch")?;
                if has_waking {
                    self.attach_tracepoint(false, "sched_waking")?;
                }
            }
        }
        Ok(())
    }

    /// Attaches it.
    fn attach_tracepoint(&mut self, is_btf: bool, name: &str) -> Result<()> {
        if is_btf {
            let program: &mut BtfTracePoint = self.program(&format!("{name}_btf"))?;
            program.attach().map_err(|e| refused(&format!("attaching to tp_btf/{name}"), &e))?;
        } else {
            let program: &mut TracePoint = self.program(&format!("{name}_tp"))?;
            program.attach("sched", name).map_err(|e| refused(&format!("attaching to tracepoint sched:{name}"), &e))?;
        }
        Ok(())
    }

    fn attach_sampler(&mut self, freq: u32) -> Result<()> {
        let what = "sampling the CPUs by perf_event cpu-clock";
        let cpus = online_cpus().map_err(|(_, source)| Error::Io { action: "list the CPUs", source })?;
        let program: &mut PerfEvent = self.program("sample_cpu")?;
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
        let distinct = distinct_places(&places);
        let Some(programs) = self.programs.clone() else {
            return match self.attach_one_by_one(process, &places) {
                // They are perf events, which a `uprobe_multi` link is not.
                Err(e @ Error::NoPermission { .. }) => {
                    let (stream, lost) = lost_with("poll_enter");
                    self.leave_out(stream, format!("{lost}: {e}{}", paranoid()));
                    Ok(())
                }
                done => done,
            };
        };
        let started = |e: std::io::Error| match e.kind() {
            _ if !Path::new(&exe).exists() => Error::Exited(process.pid),
            std::io::ErrorKind::PermissionDenied => Error::NoPermission { what: what.into(), why: e.to_string() },
            _ => Error::Kernel { what: what.into(), why: e.to_string() },
        };
        // Without what is left out.
        let places = places.into_iter().filter(|p| programs.has(p.program)).collect();
        let mut probes = Uprobes::new(programs, places, &exe, process.pid).map_err(started)?;
        probes.attach().map_err(started)?;
        self.leave_out_places(probes.refused(), distinct);
        let switch =
            Switch::new("hud-probes", probes).map_err(|source| Error::Io { action: "start a thread", source })?;
        self.probed = Probed::Switched(switch);
        Ok(())
    }

    fn attach_one_by_one(&mut self, process: &Process, places: &[Places]) -> Result<()> {
        let what = "attaching uprobes to tokio";
        let exe = process.exe_path();
        let pid = NonZeroU32::new(process.pid).ok_or(Error::NoSuchPid(process.pid))?;
        let (mut links, mut bad) = (Vec::new(), Refused::default());
        for Places { program: name, at, .. } in places {
            let program: &mut UProbe = self.program(name)?;
            if let Err(e) = program.load().map_err(|e| refused(what, &e)) {
                if !is_optional(name) {
                    return Err(e);
                }
                let (stream, lost) = lost_with(name);
                self.leave_out(stream, format!("{lost}: {e}"));
                continue;
            }
            for &(offset, cookie) in at {
                if bad.places.contains(&offset) {
                    continue;
                }
                let point =
                    UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: Some(cookie) };
                let link = program
                    .attach(point, exe.as_path() as &Path, UProbeScope::OneProcess(pid))
                    .and_then(|id| program.take_link(id));
                match link {
                    Ok(link) => links.push(link),
                    Err(_) if !exe.exists() => return Err(Error::Exited(process.pid)),
                    Err(e) => match kernel_error(&e) {
                        Some(e) if e.raw_os_error().is_some_and(uprobes::is_of_the_place) => bad.add([offset], e),
                        _ => return Err(refused(what, &e)),
                    },
                }
            }
        }
        self.leave_out_places(&bad, distinct_places(places));
        self.probed = Probed::OneByOne(links);
        Ok(())
    }

    /// Says that there are places which the kernel does not probe.
    fn leave_out_places(&mut self, refused: &Refused, all: usize) {
        if !refused.places.is_empty() {
            let count = refused.places.len();
            self.leave_out(
                None,
                format!("{count} of {all} places in the target's code cannot be probed: {}", refused.why),
            );
        }
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
        self.count_switches_since(now)?;
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

    /// Lets context switches count from `since` (CLOCK_MONOTONIC), or not at all (0).
    pub fn count_switches_since(&mut self, since: u64) -> Result<()> {
        self.switches_since = since;
        self.set("SWITCHES_SINCE", since)
    }

    /// Whether the programs at context switches are on.
    pub fn switches_are_on(&self) -> bool {
        self.detachable().is_none_or(Switch::is_on)
    }

    /// Whether they are being put on.
    pub fn switches_go_on(&self) -> bool {
        self.detachable().is_some_and(Switch::goes_on)
    }

    /// Whether they are off, and can be put on again.
    pub fn switches_can_go_on(&self) -> bool {
        self.detachable().is_some_and(Switch::is_off)
    }

    /// Whether they can be taken off, and put on again.
    pub fn switches_can_detach(&self) -> bool {
        self.detachable().is_some()
    }

    /// Puts them on or takes them off, soon.
    pub fn turn_switches(&self, on: bool) {
        if let Some(switch) = self.detachable() {
            switch.turn(on);
        }
    }

    fn detachable(&self) -> Option<&Switch> {
        match &self.switches {
            Some(SwitchPrograms::Detachable(switch)) => Some(switch),
            _ => None,
        }
    }

    /// Context switches of the target that counted so far.
    pub fn switches(&self) -> u64 {
        self.switch_counts().unwrap_or_default().count
    }

    /// Whether the probes in the target's code can be put on again once they are off.
    pub fn probes_can_turn(&self) -> bool {
        matches!(&self.probed, Probed::Switched(_))
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
            sum.merged += c.merged;
            sum.not_walked += c.not_walked;
            sum.poll_hits += c.poll_hits;
            sum.other_hits += c.other_hits;
        }
        Ok(sum)
    }

    /// Threads that are off CPU now, with the interval in progress, or have intervals that were not reported yet; `is_off` says
    /// which. To be called when switches do not count any more, with the time since which they did.
    pub fn unfinished(&mut self, since: u64) -> Result<Vec<ThreadState>> {
        let threads = self.threads()?;
        let mut unfinished = Vec::new();
        for (_, words) in threads.iter().flatten() {
            let mut state = bytemuck::cast::<ThreadWords, ThreadState>(words);
            let head = &mut state.off.head;
            if since == 0 || head.kind != EventKind::OffCpu as u32 {
                state.is_off = 0;
            } else if state.is_off != 0 && state.is_off != switch_tag(since) {
                // It left its CPU before switches began to count. Unless it was seen on one since, it was off all the time.
                (head.ts, head.frames, head.task_id, head.is_sum) = (since, 0, 0, 1);
                head.wake_ts = if head.wake_ts < since { 0 } else { head.wake_ts };
                if state.on_since >= since {
                    state.is_off = 0;
                }
            }
            // What was not reported when switches last stopped counting has been reported then.
            if since == 0 || state.unreported.since < since {
                state.unreported.intervals = 0;
            }
            if state.is_off != 0 || state.unreported.intervals != 0 {
                unfinished.push(state);
            }
        }
        Ok(unfinished)
    }

    /// Since when switches count (CLOCK_MONOTONIC); 0 = they don't.
    pub fn switches_since(&self) -> u64 {
        self.switches_since
    }

    /// Removes what the kernel programs remember of threads that are gone. Gives those.
    pub fn forget_threads(&mut self, process: &Process) -> Result<Vec<u32>> {
        let mut threads = self.threads()?;
        let known: Vec<u32> = threads.keys().flatten().collect();
        // After those that are known: one that is born in between is not among them.
        let alive: HashSet<u32> = process.threads().into_iter().collect();
        let gone: Vec<u32> = known.into_iter().filter(|tid| !alive.contains(tid)).collect();
        for tid in &gone {
            // One that the programs have removed meanwhile is what is wanted.
            let _ = threads.remove(tid);
        }
        Ok(gone)
    }

    /// The word of tokio's thread-local context that was found to hold the current task's id.
    pub(crate) fn task_id_word(&self) -> Option<u64> {
        self.task_id_word
    }

    /// A thread's stack pointer as it was last walked at a context switch.
    pub(crate) fn last_stack_pointer(&mut self, tid: u32) -> Option<u64> {
        let words = self.threads().ok()?.get(&tid, 0).ok()?;
        let state: ThreadState = bytemuck::cast(words);
        Some(state.leaf.sp).filter(|&sp| sp != 0)
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

    /// Run time of the programs so far (ns), counted by the kernel or calculated.
    pub(crate) fn run_times(&self, now: u64, counters: &Counters) -> RunTimes {
        let switches = self.switch_counts().unwrap_or_default();
        self.costs.borrow_mut().run_times(now, counters, switches, || {
            let times = self.bpf.programs().filter_map(|(_, p)| Some(p.info().ok()?.run_time().as_nanos()));
            let probed = self.programs.as_ref().map_or(0, Programs::run_time);
            RunTimes { always_on: as_float(times.sum()), probed: as_float(probed.into()) }
        })
    }

    /// What the programs at context switches have cost the target so far (ns), with what the kernel takes to get to them.
    pub(crate) fn switch_cost(&self) -> f64 {
        let switches = self.switch_counts().unwrap_or_default();
        as_float(switches.count.into()) * self.costs.borrow().switch() + as_float(switches.spent.into())
    }

    fn switch_counts(&self) -> Result<Switches> {
        let map = self.bpf.map("SWITCH_BUDGET").ok_or_else(|| missing("SWITCH_BUDGET"))?;
        let budgets: PerCpuArray<&MapData, BudgetWords> =
            PerCpuArray::try_from(map).map_err(|e| refused("opening the budgets", &e))?;
        let per_cpu = budgets.get(&0, 0).map_err(|e| refused("reading the budgets", &e))?;
        let budgets = per_cpu.iter().map(|words| bytemuck::cast::<BudgetWords, SwitchBudget>(*words));
        Ok(budgets.fold(Switches::default(), |sum, budget| Switches {
            count: sum.count + budget.switches,
            spent: sum.spent + budget.spent,
            sampled: sum.sampled + budget.sampled,
        }))
    }

    /// Run time of all programs so far (ns).
    pub fn run_time(&self) -> Option<u64> {
        let times = self.run_times(kernel::now(), &self.counters().ok()?);
        Some(whole(times.always_on + times.probed))
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
        let mut last = (0, 0, [0; CONTEXT_WORDS]);
        self.set_calibration(|calibration| {
            last = (calibration.first, calibration.looks, calibration.hits);
            found = match calibration.verdict(words) {
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
        tracing::trace!("looking for the task id: {found:?}, {looked} looks before, {last:?}");
        self.looked = looked;
        self.task_id_word = found.filter(|&word| word != Calibration::GAVE_UP).map(|word| word - 1);
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

    fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.bpf.program_mut(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(|e| refused(name, &e))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and times, for shares")]
fn as_float(n: u128) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds, never negative")]
fn whole(nanoseconds: f64) -> u64 {
    nanoseconds.max(0.0) as u64
}

/// The stream whose events a counter index belongs to.
pub fn stream_counters(counters: &Counters, stream: Stream) -> StreamCounters {
    counters.streams.get(stream as usize).copied().unwrap_or_default()
}

pub(crate) fn missing(what: &str) -> Error {
    Error::Kernel {
        what: format!("the kernel object has no {what}"),
        why: "hud-ebpf/prebuilt is out of date; run `cargo xtask build-ebpf`".into(),
    }
}

/// The programs in the target's code.
pub(crate) const PROBED: [&str; 5] = ["poll_return", "poll_enter", "panicked", "task_spawn", "task_wake"];

/// Whether there is something to record without a program.
fn is_optional(program: &str) -> bool {
    !matches!(program, "poll_return" | "poll_enter")
}

/// What is not recorded without a program.
fn lost_with(program: &str) -> (Option<Stream>, &'static str) {
    match program {
        "panicked" => (None, "tasks that panic are recorded as completed"),
        "task_spawn" => (Some(Stream::Spawns), "spawns are not recorded"),
        "task_wake" => (Some(Stream::Wakes), "wakes are not recorded"),
        _ => (Some(Stream::Polls), "polls are not recorded"),
    }
}

/// What the kernel programs have to know of this kernel. The target's part is left to be filled in.
fn config(offsets: Option<Offsets>) -> Config {
    let offsets = offsets.unwrap_or(Offsets::NONE);
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
        ..Config::zeroed()
    }
}

/// [`Config::switch_floor`]: each CPU has a token bucket of its own.
fn switch_floor() -> u32 {
    let cpus = online_cpus().map_or(1, |cpus| cpus.len()).max(1);
    share(SWITCH_FLOOR / as_float(cpus as u128)).max(1)
}

/// A share in 65536ths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
fn share(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 65_536.0) as u32
}

/// A program, and how many instructions the verifier walked, or why it rejected it.
pub type Checked = (String, Result<u32, String>);

/// Loads each program by itself, and attaches none. For a target that does not exist: what the verifier says does not depend
/// on it.
pub fn check(no_btf: bool) -> Result<Vec<Checked>> {
    if kernel::is_locked_down() {
        return Err(Error::LockedDown);
    }
    let offsets = if no_btf { None } else { Offsets::of_running_kernel() };
    let use_btf = offsets.is_some();
    let config = Config {
        tgid: std::process::id(),
        polls: 1,
        tls_tagged: 1,
        tls_context: -0x100,
        tls_words: if use_btf { CONTEXT_WORDS as u64 } else { 0 },
        vtables_start: 0x5555_0000_0000,
        vtables_end: 0x5556_0000_0000,
        unwind: u32::from(use_btf),
        switch_share: share(0.01),
        switch_floor: switch_floor(),
        ..config(offsets)
    };
    let mut bpf = EbpfLoader::new()
        .override_global("CONFIG", bytemuck::bytes_of(&config), true)
        .load(OBJECT)
        .map_err(|e| refused("loading the kernel programs", &e))?;
    let btf = if use_btf { Btf::from_sys_fs().ok() } else { None };
    let mut checked = Vec::new();
    let names: BTreeSet<String> = bpf.programs().map(|(name, _)| name.to_string()).collect();
    for name in names {
        let tracepoint = name.strip_suffix("_btf");
        if PROBED.contains(&&*name) || (use_btf && name.ends_with("_tp")) || (!use_btf && tracepoint.is_some()) {
            continue;
        }
        let Some(program) = bpf.program_mut(&name) else { continue };
        let loaded = match (program, &btf) {
            (Program::BtfTracePoint(p), Some(btf)) => p.load(tracepoint.unwrap_or(&name), btf),
            (Program::TracePoint(p), _) => p.load(),
            (Program::PerfEvent(p), _) => p.load(),
            _ => continue,
        };
        let verified = match loaded {
            Ok(()) => {
                let info = bpf.program(&name).and_then(|p| p.info().ok());
                Ok(info.and_then(|i| i.verified_instruction_count()).unwrap_or(0))
            }
            Err(e) => match refused(&name, &e) {
                Error::Rejected { why, .. } => Err(why),
                e => return Err(e),
            },
        };
        checked.push((name, verified));
    }
    let (programs, rejected) = Relocated::new(&bpf, OBJECT)
        .and_then(|relocated| relocated.load(&PROBED))
        .map_err(|source| Error::Io { action: "load the uprobes", source })?;
    checked.extend(programs.verified_instructions().into_iter().map(|(name, n)| (name, Ok(n))));
    checked.extend(rejected.into_iter().map(|(name, why)| (name.to_string(), Err(why))));
    Ok(checked)
}

/// In which way the system keeps perf events from those who have all the capabilities that hud asks for.
fn paranoid() -> String {
    match kernel::perf_event_paranoid() {
        Some(level @ 3..) => format!(
            " (kernel.perf_event_paranoid is {level}: above 2, this kernel asks for CAP_SYS_ADMIN; set it to 2 to have them)"
        ),
        _ => String::new(),
    }
}

/// An error for a program that the verifier rejected.
fn rejection(program: &str, why: &str) -> Error {
    Error::Rejected { program: program.into(), release: kernel::release(), why: why.into() }
}

/// The verifier's reason: it comes last in its log, before its statistics.
pub(crate) fn verdict(log: &str) -> &str {
    let statistics = ["processed ", "verification time", "stack depth", "func#", "mark_precise", "max_states"];
    let is_reason = |line: &&str| !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s));
    log.lines().rev().map(str::trim).find(is_reason).unwrap_or_default()
}

/// How many places there are: entry and return of a function are one.
fn distinct_places(places: &[Places]) -> usize {
    places.iter().flat_map(|p| &p.at).map(|(place, _)| place).collect::<BTreeSet<_>>().len()
}

/// The system's error that an error of aya's comes from.
fn kernel_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |e| e.source()).find_map(|e| e.downcast_ref())
}

/// An error of aya's in hud's terms: no permission, no eBPF, or a program of ours that is at fault.
pub(crate) fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut why = error.to_string();
    let mut source = error.source();
    let io = kernel_error(error);
    while let Some(e) = source {
        let text = e.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = e.source();
    }
    let is_denied = io.map(std::io::Error::kind) == Some(std::io::ErrorKind::PermissionDenied);
    let why = match why.split_once("Verifier output:") {
        Some((call, log)) => {
            let reason = verdict(log);
            // The verifier says "permission denied" of a program that it rejects too.
            let lacks_rights = is_denied && privilege::lacks_bpf();
            if !reason.is_empty() && !lacks_rights {
                return rejection(what.rsplit('/').next().unwrap_or(what), reason);
            }
            call.trim().trim_end_matches('.').to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_the_last_line_before_its_statistics() {
        let log = "63: (79) r1 = *(u64 *)(r0 +1688)\nR1 !read_ok\nverification time 12 usec\nstack depth 96+0\nprocessed 90 \
                   insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(verdict(log), "R1 !read_ok");
        assert_eq!(verdict(" verification time 12 usec\nstack depth 96\nprocessed 90 insns\n"), "");
    }

    #[test]
    fn a_share_is_a_number_of_65536ths() {
        assert_eq!((share(0.01), share(2.0), share(-1.0)), (655, 65_536, 0));
    }
}
