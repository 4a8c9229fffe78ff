//! `check`: whether this kernel accepts hud's programs, and which rights hud has.

use std::io::Write as _;

use clap::Args;

use crate::{
    error::{Error, Result},
    kernel, privilege, probes,
};

/// Loads each of hud's kernel programs separately and attaches none.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Check the programs for kernels without BTF
    #[arg(long)]
    pub no_btf: bool,
}

impl CheckArgs {
    /// Prints a line for each program: `program NAME ok N`, N being the instructions that the verifier walked, or
    /// `program NAME refused REASON`; then `check ok` or `check failed`.
    pub fn run(self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let failed = |source| Error::Io { action: "write to stdout", source };
        let mut line = |text: String| writeln!(out, "{text}").map_err(failed);
        line(format!("kernel {}", kernel::release()))?;
        line(format!("btf {}", if kernel::Offsets::of_running_kernel().is_some() { "yes" } else { "no" }))?;
        if let Some(level) = kernel::perf_event_paranoid() {
            line(format!("kernel.perf_event_paranoid {level}"))?;
        }
        let missing = privilege::missing_to_attach();
        line(format!("missing capabilities {}", if missing.is_empty() { "none".into() } else { missing.join(", ") }))?;
        let checked = probes::check(self.no_btf)?;
        let mut rejected = None;
        for (program, verified) in checked {
            match verified {
                Ok(instructions) => line(format!("program {program} ok {instructions}"))?,
                Err(why) => {
                    line(format!("program {program} refused {why}"))?;
                    rejected = rejected.or(Some((program, why)));
                }
            }
        }
        match rejected {
            None => line("check ok".into()),
            Some((program, why)) => {
                line("check failed".into())?;
                Err(Error::Rejected { program, release: kernel::release(), why })
            }
        }
    }
}
