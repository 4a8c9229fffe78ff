//! Loads the kernel programs in three threads.
//!
//! The verifier takes as long for the program at context switches as for the sampler and for the probes: beside a
//! target that leaves no CPU idle, loading them in sequence took three times as long as each.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, PerfEvent, Program, ProgramError, TracePoint},
};

use super::{
    cost,
    left_out::PROBED,
    plan::{Plan, Polls},
    refusal::{missing, refused},
    trap_cost::{self, TrapCost},
    uprobes::{Programs, Relocated},
};
use crate::error::{Error, Result};

/// The scheduler's tracepoints; the first is required.
pub(crate) const TRACEPOINTS: [&str; 4] = ["sched_switch", "sched_waking", "sched_process_exec", "sched_wakeup_new"];
/// The program that samples the CPUs.
pub(crate) const SAMPLER: &str = "sample_cpu";

/// The result.
pub(crate) struct Loaded {
    /// Whether the kernel counts the programs' run time.
    pub(crate) counts: bool,
    /// Whether the programs at tracepoints are for those with BTF.
    pub(crate) is_btf: bool,
    /// The programs at [`TRACEPOINTS`]; with their descriptors if they are at BTF tracepoints.
    pub(crate) tracepoints: Vec<Result<Option<OwnedFd>>>,
    /// The sampler, if wanted.
    pub(crate) sampler: Option<Result<()>>,
    /// The programs for probes in the target's code, if wanted.
    pub(crate) probed: Option<io::Result<LoadedProbes>>,
}

/// The programs for probes in the target's code.
pub(crate) struct LoadedProbes {
    pub(crate) programs: Programs,
    /// Rejected programs, with the verifier's reason.
    pub(crate) rejected: Vec<(&'static str, String)>,
    /// The target's cost of a hit; `None` if not measured.
    pub(crate) trap: Option<TrapCost>,
}

impl Loaded {
    /// Loads the programs of `object` that `plan` needs; its maps are in `bpf`.
    pub(crate) fn load(bpf: &mut Ebpf, object: &[u8], plan: Plan, use_btf: bool) -> Result<Self> {
        // Here, while the ring is still among the maps.
        let relocated = (plan.polls != Polls::Off).then(|| Relocated::new(bpf, object));
        let mut programs: HashMap<&str, &mut Program> = bpf.programs_mut().collect();
        let sampler = (plan.freq > 0).then(|| programs.remove(SAMPLER));
        let started = |source| Error::Io { action: "start a thread", source };
        thread::scope(|scope| {
            let builder = || thread::Builder::new().name("hud-loader".into());
            let sampler = sampler.map(|program| builder().spawn_scoped(scope, || load_sampler(program))).transpose();
            let sampler = sampler.map_err(started)?;
            let probed = builder().spawn_scoped(scope, || {
                let counts = cost::begin();
                (counts, relocated.map(|relocated| load_probed(relocated, plan)))
            });
            let probed = probed.map_err(started)?;
            let btf = if use_btf { Btf::from_sys_fs().ok() } else { None };
            let is_btf = btf.is_some();
            let tracepoints = TRACEPOINTS.map(|name| {
                let program = programs.remove(format!("{name}_{}", if is_btf { "btf" } else { "tp" }).as_str());
                load_tracepoint(program, btf.as_ref(), name)
            });
            let panicked = || Error::Kernel { what: "loading the kernel programs".into(), why: "panic".into() };
            let sampler = sampler.map(|loader| loader.join().unwrap_or_else(|_| Err(panicked())));
            let (counts, probed) = probed.join().map_err(|_| panicked())?;
            Ok(Loaded { counts, is_btf, tracepoints: tracepoints.into(), sampler, probed })
        })
    }
}

fn load_sampler(program: Option<&mut Program>) -> Result<()> {
    let program: &mut PerfEvent = program.ok_or_else(|| missing(SAMPLER))?.try_into().map_err(of(SAMPLER))?;
    program.load().map_err(|e| refused("sampling the CPUs by perf_event cpu-clock", &e))
}

fn load_probed(relocated: io::Result<Relocated>, plan: Plan) -> io::Result<LoadedProbes> {
    let (programs, rejected) = relocated?.load(&PROBED)?;
    let tested = trap_cost::test(&programs)?;
    let trap = if plan.polls == Polls::Auto { tested.trap_cost().ok() } else { None };
    Ok(LoadedProbes { programs, rejected, trap })
}

fn load_tracepoint(program: Option<&mut Program>, btf: Option<&Btf>, name: &str) -> Result<Option<OwnedFd>> {
    let program = program.ok_or_else(|| missing(name))?;
    let Some(btf) = btf else {
        let program: &mut TracePoint = program.try_into().map_err(of(name))?;
        program.load().map_err(|e| refused(&format!("attaching to tracepoint sched:{name}"), &e))?;
        return Ok(None);
    };
    let what = format!("attaching to tp_btf/{name}");
    let program: &mut BtfTracePoint = program.try_into().map_err(of(name))?;
    program.load(name, btf).map_err(|e| refused(&what, &e))?;
    let fd = program.fd().map_err(|e| refused(&what, &e))?;
    let fd = fd.as_fd().try_clone_to_owned();
    fd.map(Some).map_err(|source| Error::Io { action: "duplicate a descriptor", source })
}

fn of(name: &str) -> impl Fn(ProgramError) -> Error {
    move |e| refused(name, &e)
}
