//! `hud-record`: records a running Tokio program into a session.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use hud_record::{
    attach::AttachArgs,
    check::CheckArgs,
    cli::{EXAMPLES, RecordArgs, print_manual, report},
};

/// Record a running Tokio program by eBPF into a session of Parquet tables: no code change, no rebuild, no restart
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    record: RecordArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Look at a session that another process is recording
    Attach(AttachArgs),
    /// Check whether this kernel takes hud's programs, and what hud may do here
    Check(CheckArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, for packages
    #[command(hide = true)]
    Manual,
}

fn main() -> ExitCode {
    if let Some(ended) = hud_record::sandbox::divert() {
        return ended;
    }
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "hud-record", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Some(Command::Manual) => report("hud-record", print_manual(Cli::command())),
        Some(Command::Check(check)) => report("hud-record", check.run()),
        Some(Command::Attach(attach)) => report("hud-record", attach.run()),
        None => report("hud-record", cli.record.run()),
    }
}
