//! The programs, variants and recorder options that `cargo xtask bench harm` measures.

use anyhow::{Context, Result};
use clap::ValueEnum;

/// The modes of `hud-record/examples/harm.rs`, by the same names, and `attach-load`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    SelfWake,
    NotifyPingPong,
    Timers,
    SwitchesFlat,
    #[value(name = "switches-100")]
    Switches100,
    #[value(name = "switches-500")]
    Switches500,
    SwitchesDeepChanging,
    Threads,
    Spawns,
    Monomorphs,
    ThreadChurn,
    Saturated,
    /// 100,000 context switches per second of a program that is not recorded, while hud records another
    Neighbour,
    /// Time to attach and to detach, on a saturated machine and with 2,000 threads
    AttachLoad,
}

impl Mode {
    /// Unit of its work.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::SelfWake | Self::Monomorphs => "polls",
            Self::NotifyPingPong | Self::Threads => "wakes",
            Self::Timers => "ticks",
            Self::SwitchesFlat
            | Self::Switches100
            | Self::Switches500
            | Self::SwitchesDeepChanging
            | Self::Neighbour => "switches",
            Self::Spawns => "tasks",
            Self::ThreadChurn => "pieces",
            Self::Saturated | Self::AttachLoad => "requests",
        }
    }

    /// Whether it has one worker by default.
    pub(super) fn has_one_worker(self) -> bool {
        matches!(self, Self::SelfWake | Self::NotifyPingPong | Self::Timers)
    }

    /// Arguments of the program.
    pub(super) fn arguments(self) -> Result<Vec<String>> {
        Ok(vec![name(if self == Self::Neighbour { &Self::SwitchesFlat } else { &self })?])
    }

    /// Arguments of the control: 4,000 threads that wake constantly would leave no CPU for others, and the neighbour's control
    /// must not switch, as hud's programs run at every switch of the machine.
    pub(super) fn of_the_control(self) -> Result<Vec<String>> {
        match self {
            Self::Threads => Ok(vec![name(&self)?, "--threads".into(), "400".into()]),
            Self::Neighbour => Ok(vec![name(&Self::SelfWake)?]),
            _ => self.arguments(),
        }
    }

    /// Arguments of the program that is recorded, if it is not the measured one: one that hardly does anything.
    pub(super) fn of_the_recorded(self) -> Result<Option<Vec<String>>> {
        let idle = || Ok(vec![name(&Self::Threads)?, "--threads".into(), "4".into()]);
        (self == Self::Neighbour).then(idle).transpose()
    }

    /// Least share of its speed that the program keeps while hud records it, or its neighbour. That hud's programs are called and
    /// return takes 150 ns of the 2.9 µs of one of these context switches.
    pub(super) fn least(self, side: Side) -> f64 {
        if self == Self::Neighbour { 0.92 } else { side.least() }
    }

    /// Whether the binary with debug information is measured too: hud finds the current task differently there.
    pub(super) fn has_two_variants(self) -> bool {
        matches!(self, Self::SelfWake | Self::NotifyPingPong | Self::Timers | Self::SwitchesFlat)
    }
}

/// Options of the recorder.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Side {
    /// `--polls off`
    Off,
    /// `--polls auto --budget 2%`
    Auto,
}

impl Side {
    pub(super) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Off => &["--polls", "off"],
            Self::Auto => &["--polls", "auto", "--budget", "2%"],
        }
    }

    /// Least share of its speed that a recorded program keeps.
    fn least(self) -> f64 {
        match self {
            Self::Off => 0.98,
            Self::Auto => 0.97,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    Stripped,
    WithDebugInformation,
}

impl Variant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stripped => "stripped",
            Self::WithDebugInformation => "debug information",
        }
    }
}

pub(super) fn names<T: ValueEnum>(values: &[T]) -> Result<String> {
    Ok(values.iter().map(name).collect::<Result<Vec<_>>>()?.join(","))
}

/// As written on the command line.
pub(super) fn name<T: ValueEnum>(value: &T) -> Result<String> {
    Ok(value.to_possible_value().context("a value without a name")?.get_name().to_owned())
}
