//! What to attach, and how.

/// Whether polls, wakes, spawns and ends are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polls {
    /// As the overhead budget allows.
    Auto,
    /// All of them.
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

/// How stacks are unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwind {
    /// By unwind tables if the kernel allows it, else by frame pointers.
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
    /// Sampling frequency per CPU, in Hz (0 disables sampling)
    pub freq: u32,
    /// Whether to probe polls, wakes, spawns and ends.
    pub polls: Polls,
    /// How stacks are unwound.
    pub unwind: Unwind,
    /// Use plain tracepoints even if the kernel has BTF (to test that path).
    pub no_btf: bool,
    /// Whether the target is stopped (SIGSTOP) when it executes another program, so that this one can be recorded from its
    /// first instruction.
    pub stop_at_exec: bool,
}
