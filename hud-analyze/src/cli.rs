//! Parses the command line, gives up root, and runs the command.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use hud_common::{
    files::OutputFile,
    viewer::{Purpose, Viewer},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    commands::{diff, export, findings, fleet, generated, info, maintenance, replay, rollup, sql, verify, views},
    error::{Error, Result},
    output::stdout::Stdout,
    query::view,
    source::segment_cache,
};

/// Analyze sessions recorded by hud-record
#[derive(Parser, Debug)]
#[command(
    name = "hud-analyze",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  hud-analyze info SESSION
  hud-analyze blocking SESSION --from +5s --to +10s
  hud-analyze hotspots SESSION --format json | jq '.[0]'
  hud-analyze sql SESSION -c 'SELECT count(*) FROM polls'

Exit codes: 0 success, 1 failure, 2 invalid arguments."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Info(info::InfoArgs),
    Hotspots(views::HotspotsArgs),
    Blocking(views::BlockingArgs),
    Workers(views::WorkersArgs),
    Tasks(views::TasksArgs),
    Timeline(views::TimelineArgs),
    Replay(replay::ReplayArgs),
    Screenshot(replay::ScreenshotArgs),
    Sql(sql::SqlArgs),
    Diff(diff::DiffArgs),
    Verify(verify::VerifyArgs),
    Export(export::ExportArgs),
    Compact(maintenance::CompactArgs),
    Repair(maintenance::RepairArgs),
    Rollup(rollup::RollupArgs),
    Fleet(fleet::FleetArgs),
    Upload(rollup::UploadArgs),
    /// Print a shell completion script
    #[command(after_help = "Example:\n  hud-analyze completions bash > hud-analyze.bash && . ./hud-analyze.bash")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, for packages
    #[command(hide = true)]
    Manual,
}

/// Runs hud-analyze.
pub fn main() -> ExitCode {
    let command = command();
    let matches = command.clone().get_matches();
    segment_cache::raise_limit();
    let mut out = Stdout::new();
    let result = give_up_root(&command, &matches).and_then(|output| {
        if let Some((view, arguments)) = generated::matched(&matches) {
            return runtime()?.block_on(generated::run(view, arguments, &mut out));
        }
        if let Some(arguments) = findings::matched(&matches) {
            return runtime()?.block_on(findings::run(arguments, &mut out));
        }
        match Cli::from_arg_matches(&matches) {
            Ok(cli) => run(cli.command, output, &mut out),
            Err(error) => error.exit(),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if out.broken || error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "hud-analyze: {}", hud_common::clean(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command line: the commands above, `findings`, and one generated for each other view.
fn command() -> clap::Command {
    let command = generated::add(findings::add(Cli::command()));
    // Deferred: only the header of the command that is run is read.
    view::ALL.iter().map(generated::name).fold(command, |command, name| match command.find_subcommand(&name) {
        Some(_) => command.mut_subcommand(name, |sub| sub.defer(with_columns)),
        None => command,
    })
}

/// The command of a view with its columns in the long help.
fn with_columns(command: clap::Command) -> clap::Command {
    // `tasks` shows types unless it is asked for tasks.
    let shown = match command.get_name() {
        "tasks" => generated::name(&view::TASKS_BY_TYPE),
        name => name.to_owned(),
    };
    let Some(view) = view::ALL.iter().find(|view| generated::name(view) == shown) else { return command };
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.after_long_help(format!("{help}\n\n{}", generated::columns(view)))
}

/// If root runs the command, becomes the owner of its sessions before any of them is read. An output file is created before
/// that: it belongs to root, and may lie where the owner cannot write.
fn give_up_root(command: &clap::Command, matches: &ArgMatches) -> Result<Option<OutputFile>> {
    let Some((name, given)) = matches.subcommand() else { return Ok(None) };
    let paths = |id: &str| given.try_get_many::<PathBuf>(id).ok().flatten().into_iter().flatten().cloned();
    let positionals = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_positionals);
    let sessions: Vec<_> = positionals.flat_map(|argument| paths(argument.get_id().as_str())).collect();
    if sessions.is_empty() {
        return Ok(None);
    }
    let purpose = if matches!(name, "compact" | "repair") { Purpose::Rewrite } else { Purpose::Read };
    let viewer = Viewer::of(&sessions, purpose);
    let path = paths("output").next().filter(|_| matches!(name, "export" | "screenshot"));
    let create = |path: PathBuf| -> io::Result<OutputFile> {
        let mut file = OutputFile::create(&path)?;
        if viewer.is_someone_else() {
            file.place()?;
        }
        Ok(file)
    };
    let created = |path: PathBuf| create(path.clone()).map_err(Error::io(format!("create {}", path.display())));
    let output = path.filter(|path| path.as_os_str() != "-").map(created).transpose()?;
    if let Err(why) = viewer.enter() {
        let _ = writeln!(io::stderr(), "note: cannot become the session's owner, continuing as root: {why}");
    }
    Ok(output)
}

/// Stack size of the runtime's threads: expressions are evaluated recursively. Unused pages take no memory.
const STACK: usize = 64 << 20;

fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_time().thread_stack_size(STACK).build().map_err(Error::io("start the runtime"))
}

fn run(command: Command, output: Option<OutputFile>, out: &mut Stdout) -> Result<()> {
    match command {
        Command::Info(args) => runtime()?.block_on(info::run(&args, out)),
        Command::Hotspots(args) => runtime()?.block_on(views::hotspots(&args, out)),
        Command::Blocking(args) => runtime()?.block_on(views::blocking(&args, out)),
        Command::Workers(args) => runtime()?.block_on(views::workers(&args, out)),
        Command::Tasks(args) => runtime()?.block_on(views::tasks(&args, out)),
        Command::Timeline(args) => runtime()?.block_on(views::timeline(&args, out)),
        Command::Replay(args) => replay::run(&args),
        Command::Screenshot(args) => replay::screenshot(&args, output),
        Command::Sql(args) => sql::run(&args, runtime()?),
        Command::Diff(args) => runtime()?.block_on(diff::run(&args, out)),
        Command::Verify(args) => verify::run(&args, out),
        Command::Export(args) => runtime()?.block_on(export::run(&args, output, out)),
        Command::Compact(args) => {
            if let Some(store) = args.fleet_store()
                && runtime()?.block_on(fleet::compact(store, out))?
            {
                return Ok(());
            }
            maintenance::compact(&args, out)
        }
        Command::Repair(args) => maintenance::repair(&args, out),
        Command::Rollup(args) => rollup::run(&args, out),
        Command::Upload(args) => rollup::upload(&args, out),
        Command::Fleet(args) => runtime()?.block_on(fleet::run(&args, out)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut self::command(), "hud-analyze", out);
            out.flush().map_err(Error::io("write the script"))
        }
        Command::Manual => {
            clap_mangen::Man::new(self::command()).render(out).map_err(Error::io("write the manual"))?;
            out.flush().map_err(Error::io("write the manual"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_description_of_its_own() {
        let command = command();
        command.clone().debug_assert();
        let mut known = std::collections::BTreeMap::new();
        for command in command.get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.len() > 10, "{}: {about:?}", command.get_name());
            assert_eq!(known.insert(about.clone(), command.get_name()), None, "{}: {about:?}", command.get_name());
        }
    }

    #[test]
    fn the_long_help_of_a_view_lists_its_columns() {
        let mut command = command();
        for (name, column) in
            [("tasks", "longest_poll"), ("blocking", "median"), ("findings", "sentence"), ("locks", "held")]
        {
            let help =
                command.find_subcommand_mut(name).map(|sub| sub.render_long_help().to_string()).unwrap_or_default();
            assert!(help.contains(&format!("\n  {column} ")) && help.contains("TIME is one of"), "{name}: {help}");
        }
    }

    #[test]
    fn every_view_has_a_command() {
        let command = command();
        for view in generated::views() {
            assert!(command.find_subcommand(generated::name(view)).is_some(), "{}", view.name);
        }
    }
}
