//! Loads the kernel programs and attaches them to the scheduler, the CPU clock and the target's poll functions.
//!
//! Programs that the kernel refuses are left out and reported ([`Probes::left_out`]); only context switches are
//! required.

use std::{cell::RefCell, collections::BTreeSet, num::NonZeroU32, os::fd::OwnedFd, sync::Arc};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{
        BtfTracePoint, PerfEvent, Program, ProgramError, TracePoint, UProbe,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
    util::online_cpus,
};
use hud_common::wire::{Config, Counters, Stream};

use super::{
    config::{SWITCH_SHARE, config, share, switch_floor},
    cost::Costs,
    left_out::{LeftOut, is_optional, lost_with},
    loading::{Loaded, LoadedProbes, TRACEPOINTS},
    object::OBJECT,
    plan::{Plan, Polls, Unwind},
    refusal::{kernel_error, missing, paranoid, refused, rejection},
    switch::{Attach as _, Switch, Tracepoints},
    trap_cost::TrapCost,
    uprobes::{self, Places, Programs, Refused, Uprobes},
};
use crate::{
    error::{Error, Result},
    inspect::{Process, Tokio},
    kernel::{self, BTF_PATH, Offsets},
    ring::Ring,
    symbols::Sources,
    unwind::{LoadedTables, LoadingTables, Prepared, Unwinder},
};

/// The attached programs. Detached when dropped.
pub struct Probes {
    pub(super) bpf: Ebpf,
    pub(super) probed: Probed,
    /// The programs for them, where the kernel has `uprobe_multi` links.
    pub(super) programs: Option<Programs>,
    pub(super) places: usize,
    pub(super) trap: Option<TrapCost>,
    /// Whether tokio's thread-local context can be read.
    pub(super) has_context: bool,
    pub(super) is_calibrating: bool,
    /// Its size in words, and the samples of earlier rounds of the search, which covered other words.
    pub(super) context_words: u64,
    pub(super) looked: u64,
    /// The word of tokio's thread-local context that was found to hold the current task's id.
    pub(super) task_id_word: Option<u64>,
    /// Keeps the unwind tables up to date, if they are used.
    pub(super) unwinder: Option<Unwinder>,
    /// Whether the CPUs are sampled.
    pub(super) samples: bool,
    pub(super) left_out: Vec<LeftOut>,
    /// Whether some places in the target's code cannot be probed.
    pub(super) lacks_places: bool,
    /// The programs at context switches, if they can be detached.
    pub(super) switches: Option<SwitchPrograms>,
    /// Since when switches count (CLOCK_MONOTONIC); 0 if they do not.
    pub(super) switches_since: u64,
    /// The same of the probes in the target's code.
    pub(super) probes_since: u64,
    pub(super) costs: RefCell<Costs>,
}

/// The programs at context switches.
pub(super) enum SwitchPrograms {
    /// They can be detached and attached again.
    Detachable(Switch),
    /// They stay attached while these links exist.
    Staying { _links: Tracepoints },
}

impl SwitchPrograms {
    /// For attached `tracepoints`.
    ///
    /// Attaching and detaching make the kernel patch its own code while other CPUs run it. An emulated CPU may then
    /// still run the old code: under QEMU without KVM a kernel crashed (`Oops: int3` in `try_to_wake_up`) or hung if
    /// that was done every other second. No kernel did on a real CPU.
    fn new(tracepoints: Tracepoints) -> Result<Self> {
        if kernel::is_emulated() || kernel::is_older_than(6, 12) {
            return Ok(SwitchPrograms::Staying { _links: tracepoints });
        }
        let switch = Switch::new("hud-switches", tracepoints);
        switch.map(SwitchPrograms::Detachable).map_err(|source| Error::Io { action: "start a thread", source })
    }
}

/// Fewest and most threads that the kernel programs can follow: four times the number at the attach; the most take 64
/// MB of kernel memory.
const THREADS: (usize, usize) = (4096, 32_768);

/// The probes in the target's code.
pub(super) enum Probed {
    /// None, or none any more.
    Not,
    /// By `uprobe_multi` links, on or off.
    Switched(Switch),
    /// Linux before 6.6: one by one. Detaching each takes a grace period of about 100 ms, one after the other even from
    /// several threads (the kernel holds `event_mutex`).
    OneByOne(Vec<UProbeLink>),
}

impl Probes {
    /// Loads the programs for this target and attaches the always-on ones. Nothing is recorded before
    /// [`Probes::start`]. `budget` is the share of the target's CPU time that they may cost.
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
            tls_module: tokio.tls_module,
            tls_words: match tokio.tls_context {
                Some((_, words)) if use_btf => words,
                _ => 0,
            },
            vtables_start: image.0,
            vtables_end: image.1,
            unwind: u32::from(by_tables),
            stop_at_exec: u32::from(plan.stop_at_exec),
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
        // In parallel to the verifier.
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
            lacks_places: false,
            switches: None,
            switches_since: 0,
            probes_since: 0,
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

    /// Data that is not recorded here.
    pub(crate) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Whether no poll goes unseen while the probes count.
    pub(crate) fn has_all_polls(&self) -> bool {
        !self.lacks_places && self.left_out.iter().all(|left_out| left_out.stream != Some(Stream::Polls))
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

    /// Applies debug information about the target's tokio: gives the programs the offset of the current task's id, or
    /// has them search for it, and attaches the probes if the plan says so.
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
            "sched_waking" => "run-queue latency and wakers are not recorded",
            "sched_process_exec" => "an exec of the target is not detected",
            // Without BTF, threads are first seen when they run.
            _ => "the starters of threads are not recorded",
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
        let file = process.tokio_path();
        let plain = |places: &[u64]| places.iter().map(|&p| (p, 0)).collect::<Vec<_>>();
        let polls: Vec<_> = tokio.exact_polls().map(|(index, p)| (p.file_offset, index as u64)).collect();
        // Returns first: a return without its entry is ignored, an entry without its return would remain.
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
                // They are perf events, unlike a `uprobe_multi` link.
                Err(e @ Error::NoPermission { .. }) => {
                    let (stream, lost) = lost_with("poll_enter");
                    self.leave_out(stream, format!("{lost}: {e}{}", paranoid()));
                    Ok(())
                }
                done => done,
            };
        };
        let started = |e: std::io::Error| match e.kind() {
            _ if !file.exists() => Error::Exited(process.pid),
            std::io::ErrorKind::PermissionDenied => Error::NoPermission { what: what.into(), why: e.to_string() },
            _ => Error::Kernel { what: what.into(), why: e.to_string() },
        };
        // Without programs that are left out.
        let places = places.into_iter().filter(|p| programs.has(p.program)).collect();
        let mut probes = Uprobes::new(programs, places, &file.to_string_lossy(), process.pid).map_err(started)?;
        probes.attach().map_err(started)?;
        self.leave_out_places(probes.refused(), distinct);
        let switch =
            Switch::new("hud-probes", probes).map_err(|source| Error::Io { action: "start a thread", source })?;
        self.probed = Probed::Switched(switch);
        Ok(())
    }

    fn attach_one_by_one(&mut self, process: &Process, places: &[Places]) -> Result<()> {
        let what = "attaching uprobes to tokio";
        let file = process.tokio_path();
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
                    .attach(point, file.as_path(), UProbeScope::OneProcess(pid))
                    .and_then(|id| program.take_link(id));
                match link {
                    Ok(link) => links.push(link),
                    Err(_) if !file.exists() => return Err(Error::Exited(process.pid)),
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

    /// Reports places that the kernel cannot probe.
    fn leave_out_places(&mut self, refused: &Refused, all: usize) {
        if !refused.places.is_empty() {
            self.lacks_places = true;
            let count = refused.places.len();
            self.leave_out(
                None,
                format!("{count} of {all} places in the target's code cannot be probed: {}", refused.why),
            );
        }
    }

    /// Starts all streams at one instant, given as CLOCK_MONOTONIC; attached probes count from it.
    pub fn start(&mut self, now: u64) -> Result<()> {
        if self.probes_are_on() {
            self.count_probes_since(now)?;
        }
        self.count_switches_since(now)?;
        self.set("RECORDING", 1_u32)
    }

    /// Stops all streams at one instant; records in the ring can still be drained.
    pub fn stop(&mut self) -> Result<()> {
        self.set("RECORDING", 0_u32)
    }

    /// The target's cost of a hit, without the kernel programs' own run time; `None` if it cannot be measured.
    pub(crate) fn trap_cost(&self) -> Option<TrapCost> {
        self.trap
    }

    /// The ring of events. Can be taken once.
    pub(crate) fn take_ring(&mut self) -> Result<Ring> {
        let map = self.bpf.take_map("EVENTS").ok_or_else(|| missing("EVENTS"))?;
        let Map::RingBuf(data) = map else { return Err(missing("EVENTS")) };
        Ring::new(data).map_err(|e| refused("mapping the ring buffer", &e))
    }

    /// The word of tokio's thread-local context that was found to hold the current task's id.
    pub(crate) fn task_id_word(&self) -> Option<u64> {
        self.task_id_word
    }

    /// Has the unwind tables updated if walks reached unknown code.
    pub fn follow_mappings(&mut self, counters: &Counters) {
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.request_update(counters.unmapped);
        }
    }

    /// The unwind tables, if stacks are walked by them.
    pub(crate) fn unwind_tables(&self) -> Option<LoadedTables> {
        self.unwinder.as_ref().map(Unwinder::tables)
    }

    fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.bpf.program_mut(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(|e| refused(name, &e))
    }
}

/// The number of places: entry and return of a function count as one.
fn distinct_places(places: &[Places]) -> usize {
    places.iter().flat_map(|p| &p.at).map(|(place, _)| place).collect::<BTreeSet<_>>().len()
}
