//! `hud-analyze replay`: from arguments to a cockpit.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use hud_common::cockpit::{Query, Source as _, ui};

use super::Replay;
use crate::{
    error::{Error, Result},
    run,
    window::{Moment, Window},
};

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// The session's folder
    pub(crate) session: PathBuf,
    /// The instant at first [default: one window after the session's start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<Moment>,
    /// The length of the window at first
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = run::duration)]
    pub(crate) window: i64,
    /// Colours: hud, colour-blind, mono, …
    #[arg(long)]
    pub(crate) theme: Option<String>,
    /// No character outside ASCII
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Leave the mouse to the terminal
    #[arg(long)]
    pub(crate) no_mouse: bool,
}

/// Shows the cockpit until the person quits.
pub(crate) fn run(args: ReplayArgs) -> Result<()> {
    let mut replay = Replay::open(&args.session)?;
    for notice in replay.notices() {
        let _ = writeln!(std::io::stderr(), "note: {}", hud_common::clean(notice));
    }
    let (from, to) = replay.range();
    let at = args.at.map_or_else(
        || from.saturating_add(args.window).min(to),
        |moment| Window { from, to }.at(replay.manifest().start, moment),
    );
    let mut options = ui::Options {
        theme: args.theme,
        is_ascii: args.ascii,
        has_mouse: !args.no_mouse,
        at: Some(at),
        window: args.window,
        ..ui::Options::default()
    };
    options.overview = Some(replay.overview(Query { thresholds: options.thresholds, ..Query::default() }));
    ui::run(replay, options).map(drop).map_err(|error| Error::Replay(error.to_string()))
}
