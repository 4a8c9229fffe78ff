//! Measures hud against its targets, and keeps the result under docs/benchmarks.

mod big;
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
    Replay(replay::Args),
    Record(record::Args),
    Stacks(stacks::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Replay(args) => replay::run(args),
        What::Record(args) => record::run(args),
        What::Stacks(args) => stacks::run(args),
    }
}
