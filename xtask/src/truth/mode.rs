//! In which way a program is recorded.

use clap::ValueEnum;

/// A value of `--polls`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Mode {
    /// Within the budget.
    Auto,
    /// Without probes.
    Off,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}
