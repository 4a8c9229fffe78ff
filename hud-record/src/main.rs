//! `hud-record`: records a running Tokio program into a session.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use hud_record::{
    attach::AttachArgs,
    cli::{EXAMPLES, RecordArgs, report},
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
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "hud-record", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Some(Command::Attach(attach)) => report("hud-record", attach.run()),
        None => report("hud-record", cli.record.run()),
    }
}
