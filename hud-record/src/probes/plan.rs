//! What to attach, and how.

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
