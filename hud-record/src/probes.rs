//! Loading the kernel programs and attaching them to the scheduler, the CPU clock and the target's poll functions.

use std::{num::NonZeroU32, path::Path};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
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
    kernel::Offsets,
    target::{Process, Tokio},
};

/// The object that `cargo xtask build-ebpf` makes from hud-ebpf.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hud-ebpf/prebuilt/hud.bpf.o"));

/// [`ThreadState`] as aya wants it: plain words.
type ThreadWords = [u64; size_of::<ThreadState>() / 8];
type CalibrationWords = [u64; size_of::<Calibration>() / 8];
type CounterWords = [u64; size_of::<Counters>() / 8];

/// What to attach.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// CPU samples a second and CPU; 0 = none.
    pub freq: u32,
    /// Whether to probe every poll.
    pub polls: bool,
    /// Use the plain tracepoints even where the kernel has BTF (for tests of that path).
    pub no_btf: bool,
}

/// The attached programs. Detached when dropped: the kernel waits out a grace period of about 100 ms for each uprobe,
/// one after the other whatever the number of threads that ask (it holds `event_mutex` meanwhile).
pub struct Probes {
    bpf: Ebpf,
    poll_links: Vec<UProbeLink>,
    is_calibrating: bool,
    /// Switches on the kernel's accounting of program run time while it is held.
    _stats: Option<std::os::fd::OwnedFd>,
}

impl Probes {
    /// Loads the programs for this target and attaches the always-on ones and, if the plan says so, the poll probes.
    /// Nothing is recorded before [`Probes::start`].
    pub fn attach(process: &Process, tokio: &Tokio, image: (u64, u64), plan: Plan) -> Result<Self> {
        let offsets = if plan.no_btf { None } else { Offsets::of_running_kernel() };
        let use_btf = offsets.is_some();
        let offsets = offsets.unwrap_or(Offsets::NONE);
        let config = Config {
            tgid: process.pid,
            task_pid: offsets.task_pid,
            task_fsbase: offsets.task_fsbase,
            header_vtable: 16,
            vtable_poll: 0,
            vtable_id_offset: 72,
            has_tls: u32::from(tokio.tls_task_id.is_some() && use_btf),
            polls: u32::from(plan.polls),
            tls_context: tokio.tls_context.map_or(0, |(offset, _)| offset),
            tls_words: match tokio.tls_context {
                Some((_, words)) if use_btf => words.min(CONTEXT_WORDS as u64),
                _ => 0,
            },
            tls_task_id: tokio.tls_task_id.unwrap_or(0),
            vtables_start: image.0,
            vtables_end: image.1,
        };
        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).ok();
        let bpf = EbpfLoader::new()
            .override_global("CONFIG", bytemuck::bytes_of(&config), true)
            .load(OBJECT)
            .map_err(|e| refused("loading the kernel programs", &e))?;
        let mut probes = Probes { bpf, poll_links: Vec::new(), is_calibrating: false, _stats: stats };
        probes.attach_scheduler(use_btf)?;
        if plan.freq > 0 {
            probes.attach_sampler(plan.freq)?;
        }
        probes.is_calibrating = config.has_tls == 0 && config.tls_words > 0;
        if plan.polls || probes.is_calibrating {
            probes.attach_polls(process, tokio)?;
        }
        Ok(probes)
    }

    fn attach_scheduler(&mut self, use_btf: bool) -> Result<()> {
        let btf = if use_btf { Btf::from_sys_fs().ok() } else { None };
        for name in ["sched_waking", "sched_switch"] {
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

    fn attach_polls(&mut self, process: &Process, tokio: &Tokio) -> Result<()> {
        let what = "attaching uprobes to raw::poll";
        let exe = process.exe_path();
        let pid = NonZeroU32::new(process.pid).ok_or(Error::NoSuchPid(process.pid))?;
        // Returns first: a return without its entry is ignored, an entry without its return would linger.
        for name in ["poll_return", "poll_enter"] {
            let program: &mut UProbe = self.program(name)?;
            program.load().map_err(|e| refused(what, &e))?;
            let mut links = Vec::new();
            for (index, poll) in tokio.exact_polls() {
                let point = UProbeAttachPoint {
                    location: UProbeAttachLocation::AbsoluteOffset(poll.file_offset),
                    cookie: Some(index as u64),
                };
                let link = program
                    .attach(point, exe.as_path() as &Path, UProbeScope::OneProcess(pid))
                    .and_then(|id| program.take_link(id))
                    .map_err(|e| if exe.exists() { refused(what, &e) } else { Error::Exited(process.pid) })?;
                links.push(link);
            }
            self.poll_links.append(&mut links);
        }
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

    /// Starts all streams at one instant.
    pub fn start(&mut self) -> Result<()> {
        self.set_recording(1)
    }

    /// Stops all streams at one instant; what is in the ring stays to be drained.
    pub fn stop(&mut self) -> Result<()> {
        self.set_recording(0)
    }

    fn set_recording(&mut self, on: u32) -> Result<()> {
        let map = self.bpf.map_mut("RECORDING").ok_or_else(|| missing("RECORDING"))?;
        let mut recording: Array<&mut MapData, u32> =
            Array::try_from(map).map_err(|e| refused("opening the recording switch", &e))?;
        recording.set(0, on, 0).map_err(|e| refused("turning the recording switch", &e))
    }

    /// The ring of events. Can be taken once.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.bpf.take_map("EVENTS").ok_or_else(|| missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(|e| refused("mapping the ring buffer", &e))
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

    /// Run time of all programs so far (ns); `None` where the kernel keeps no account.
    pub fn run_time(&self) -> Option<u64> {
        self._stats.as_ref()?;
        let times = self.bpf.programs().filter_map(|(_, p)| Some(p.info().ok()?.run_time().as_nanos()));
        u64::try_from(times.sum::<u128>()).ok()
    }

    /// Name and instructions verified of each loaded program.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        self.bpf
            .programs()
            .filter_map(|(name, p)| Some((name.to_string(), p.info().ok()?.verified_instruction_count()?)))
            .collect()
    }

    /// How many uprobes are attached. Detaching takes the kernel about 0.1 s for each.
    pub fn poll_probes(&self) -> usize {
        self.poll_links.len()
    }

    /// Whether the place of the current task's id is still being looked for.
    pub fn is_calibrating(&self) -> bool {
        self.is_calibrating
    }

    /// Looks whether the place of the current task's id is sure by now, and if so, or on giving up, tells the kernel
    /// programs. Gives false where it gave up.
    pub fn calibrate(&mut self, give_up: bool) -> Result<bool> {
        let map = self.bpf.map_mut("CALIBRATION").ok_or_else(|| missing("CALIBRATION"))?;
        let mut map: Array<&mut MapData, CalibrationWords> =
            Array::try_from(map).map_err(|e| refused("opening the calibration", &e))?;
        let words = map.get(&0, 0).map_err(|e| refused("reading the calibration", &e))?;
        let mut calibration: Calibration = bytemuck::cast(words);
        let found = match calibration.verdict() {
            Some(word) => Some(word as u64 + 1),
            None => give_up.then_some(Calibration::GAVE_UP),
        };
        if let Some(found) = found {
            calibration.found = found;
            map.set(0, bytemuck::cast::<_, CalibrationWords>(calibration), 0)
                .map_err(|e| refused("writing the calibration", &e))?;
            self.is_calibrating = false;
        }
        Ok(found != Some(Calibration::GAVE_UP))
    }

    /// Ends the search, and takes the poll probes off if they served only that. Taking them off is left to a thread:
    /// see [`Probes`].
    pub fn end_calibration(&mut self, keep_polls: bool) {
        self.is_calibrating = false;
        if !keep_polls {
            let links = std::mem::take(&mut self.poll_links);
            // A thread that cannot be had: the links go with the closure, right here.
            // Entries first, which were attached last: an entry without its return would linger.
            let detach = move || links.into_iter().rev().for_each(drop);
            let _ = std::thread::Builder::new().name("hud-detach".into()).spawn(detach);
        }
    }

    fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.bpf.program_mut(name).ok_or_else(|| missing(name))?;
        program.try_into().map_err(|e| refused(name, &e))
    }
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
