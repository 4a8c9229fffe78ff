//! A command for each view that has none of its own: made of the view's header, so that a new file in `queries/` is a new
//! command.

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use datafusion::common::ScalarValue;

use crate::{
    cli::{TIMES, ViewArgs},
    defaults,
    error::Result,
    names,
    output::Stdout,
    run,
    view::{ALL, Arguments, Item, Unit, View},
};

/// Views that commands written by hand show.
const BY_HAND: [&str; 7] = ["blocking", "blocking_each", "hotspots", "tasks", "tasks_by_type", "timeline", "workers"];

/// The views that have a command here.
fn views() -> impl Iterator<Item = &'static View> {
    ALL.iter().filter(|view| !BY_HAND.contains(&view.name))
}

/// The name of a view's command.
fn name(view: &View) -> String {
    view.name.replace('_', "-")
}

/// `command` with one for each of these views.
pub(crate) fn add(command: Command) -> Command {
    views().fold(command, |command, view| command.subcommand(of(view)))
}

fn of(view: &View) -> Command {
    let about = names::about(view);
    let command = Command::new(name(view)).about(sentence(about)).after_help(TIMES);
    let parameters = view.header().map(|header| header.parameters).unwrap_or_default();
    let own = parameters.iter().filter(|parameter| !matches!(parameter.name.as_str(), "from" | "to"));
    own.fold(ViewArgs::augment_args(command), |command, parameter| command.arg(argument(parameter)))
}

/// As other commands tell of themselves.
fn sentence(about: &str) -> String {
    let mut chars = about.trim_end_matches('.').chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn argument(parameter: &Item) -> Arg {
    let arg = Arg::new(parameter.name.clone()).long(parameter.name.replace('_', "-"));
    let about = match &parameter.default {
        Some(default) => format!("{} [default: {default}]", parameter.about),
        None => parameter.about.clone(),
    };
    let arg = arg.help(about);
    match parameter.unit {
        Unit::Flag => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(clap::value_parser!(bool))
            .value_name("true|false"),
        Unit::Ns => arg.value_name("DURATION").value_parser(run::duration),
        _ => arg.value_name("N").value_parser(clap::value_parser!(i64)).allow_negative_numbers(true),
    }
    .action(ArgAction::Set)
}

/// The view of a command, and what it was given.
pub(crate) fn asked(matches: &ArgMatches) -> Option<(&'static View, &ArgMatches)> {
    let (command, given) = matches.subcommand()?;
    Some((views().find(|view| name(view) == command)?, given))
}

/// Answers it.
pub(crate) async fn answer(view: &View, given: &ArgMatches, out: &mut Stdout) -> Result<()> {
    let args = ViewArgs::from_arg_matches(given).unwrap_or_else(|error| error.exit());
    let catalog = run::open(&args.sessions, args.memory)?;
    let window = run::window(&catalog, &args).await?;
    let mut arguments = Arguments::default();
    for parameter in view.header()?.parameters {
        let value = match parameter.unit {
            _ if matches!(parameter.name.as_str(), "from" | "to") => None,
            Unit::Flag => given.get_one::<bool>(&parameter.name).map(|flag| ScalarValue::Boolean(Some(*flag))),
            _ => given.get_one::<i64>(&parameter.name).map(|value| ScalarValue::Int64(Some(*value))),
        };
        arguments.set(&parameter.name, value.unwrap_or_else(|| defaults::of(&parameter, window)));
    }
    run::show(&catalog, *view, arguments, &args, out).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    #[test]
    fn every_view_has_a_command() {
        cli::command().debug_assert();
        for view in views() {
            let command = cli::command();
            let of = command.find_subcommand(name(view)).expect("a command");
            assert!(of.get_about().is_some_and(|about| !about.to_string().is_empty()), "{}", view.name);
        }
    }
}
