//! Compares hud with its targets, and keeps the result under docs/benchmarks.

mod analyze;
mod big;
mod cockpit;
mod harm;
mod names;
mod record;
mod replay;
mod report;
mod stacks;

use anyhow::Result;

/// Measures hud against its targets
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Analyze(analyze::Args),
    Cockpit(cockpit::Args),
    Harm(harm::Args),
    Names(names::Args),
    Record(record::Args),
    Stacks(stacks::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Analyze(args) => analyze::run(args),
        What::Cockpit(args) => cockpit::run(args),
        What::Harm(args) => harm::run(args),
        What::Names(args) => names::run(args),
        What::Record(args) => record::run(args),
        What::Stacks(args) => stacks::run(args),
    }
}
