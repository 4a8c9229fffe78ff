//! Loads each program by itself, for `hud-record check`.

use std::collections::BTreeSet;

use aya::{Btf, EbpfLoader, programs::Program};
use hud_common::wire::{CONTEXT_WORDS, Config};

use super::{
    config::{config, share, switch_floor},
    left_out::PROBED,
    object::OBJECT,
    refusal::refused,
    uprobes::Relocated,
};
use crate::{
    error::{Error, Result},
    kernel::{self, Offsets},
};

/// A program, with the number of instructions that the verifier walked, or its reason for rejecting it.
pub type Checked = (String, Result<u32, String>);

/// Loads each program separately and attaches none, for a target that does not exist: the verifier's result does not
/// depend on it.
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
        // The longer way to the thread-local.
        tls_module: 2,
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
