//! `rollup` and `upload`: publish sums per minute of sessions in a fleet store, and copy it to an object store.

use std::{io::Write as _, path::PathBuf};

use clap::Args;

use crate::{
    error::{Error, Result},
    fleet::{
        publish::{self, Labels},
        store::Store,
        upload,
    },
    human,
    output::stdout::Stdout,
    source::location,
};

/// Publish sums per minute of sessions in a fleet store, which `fleet` queries
#[derive(Args, Debug)]
#[command(after_help = "\
A session's rollups are those that its recorder wrote; a session without any is summed up from its events. Publishing a session
again replaces its rows, unless its day has been compacted. docs/FLEET.md describes the store.

Examples:
  hud-analyze rollup SESSION --store /srv/fleet
  hud-analyze rollup /var/lib/hud --store /srv/fleet --service api --version 1.4.2 --label zone=eu-1")]
pub(crate) struct RollupArgs {
    /// Session folders, stores of sessions, archives (.hud.zip), or s3://, gs:// and az:// URLs of these
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<PathBuf>,
    /// Folder of the fleet store
    #[arg(long, value_name = "STORE")]
    store: PathBuf,
    /// Name of the service [default: the name of the recorded binary]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Version of the service
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Further label of the rows
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<String>,
}

/// Copy a fleet store to an object store
#[derive(Args, Debug)]
#[command(after_help = "\
Only what is missing there is copied, and a session's manifest last: an upload that was interrupted continues where it was.
Failed requests are repeated with growing delays for up to three minutes.

Examples:
  hud-analyze upload /srv/fleet s3://telemetry/hud")]
pub(crate) struct UploadArgs {
    /// Folder of the fleet store
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// s3://, gs:// or az:// URL, with credentials in the environment
    #[arg(value_name = "URL")]
    url: String,
}

/// Copies a store.
pub(crate) fn upload(args: &UploadArgs, out: &mut Stdout) -> Result<()> {
    let done = upload::upload(&Store::open(&args.store)?, &args.url)?;
    let size = human::bytes(i64::try_from(done.bytes).unwrap_or(i64::MAX));
    let mut text = format!(
        "{} uploaded in {}, {size}; {} there already",
        human::many(done.sessions, "session"),
        human::many(done.objects, "object"),
        human::many(done.known, "session"),
    );
    if done.compacted > 0 {
        text += &format!("; {} in compact files not uploaded", human::many(done.compacted, "session"));
    }
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::io("write the result"))
}

/// `key=value` without a comma.
fn label(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains(',') => Ok(text.to_owned()),
        _ => Err("write it like zone=eu-1, without a comma".into()),
    }
}

/// Runs it.
pub(crate) fn run(args: &RollupArgs, out: &mut Stdout) -> Result<()> {
    publish::check_place(&args.store)?;
    let store = Store::at(&args.store);
    let mut given = args.label.clone();
    given.sort();
    let labels = Labels { service: args.service.clone(), version: args.version.clone(), labels: given.join(",") };
    for path in &args.sessions {
        for found in location::find(path)? {
            let id = found.manifest.id.clone();
            let done = publish::publish(found, &store, &labels)?;
            let source = if done.is_recorded { "the recorder's" } else { "from events" };
            let size = human::bytes(i64::try_from(done.bytes).unwrap_or(i64::MAX));
            let line = format!(
                "{id}: {}, {} in {size} ({source})",
                human::many(done.minutes, "minute"),
                human::many(done.rows, "row")
            );
            let compacted =
                done.compacted.iter().map(|day| format!("{id}: {day} is compacted already and stays as it is"));
            let mut lines = std::iter::once(line).chain(compacted).map(|line| hud_common::clean(&line).into_owned());
            lines.try_for_each(|line| writeln!(out, "{line}")).map_err(Error::io("write the result"))?;
        }
    }
    out.flush().map_err(Error::io("write the result"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("zone=eu-1"), Ok("zone=eu-1".into()));
        assert!(label("zone").is_err() && label("=a").is_err() && label("a=b,c=d").is_err());
    }
}
