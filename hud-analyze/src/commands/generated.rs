//! Commands that are generated from the headers of views: a new file in `queries/` is a new command.

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use datafusion::common::ScalarValue;
use hud_shell::Format;

use crate::{
    commands::{
        args::{TIMES, ViewArgs},
        task_tree, views,
    },
    error::Result,
    human::parse_duration,
    output::stdout::Stdout,
    query::{
        defaults,
        header::{Item, Unit},
        schema,
        view::{ALL, Arguments, TASK_TREE, View},
        window::Window,
    },
};

/// Views that hand-written commands show.
const BY_HAND: [&str; 8] =
    ["blocking", "blocking_each", "findings", "hotspots", "tasks", "tasks_by_type", "timeline", "workers"];

/// The views with a generated command.
pub(crate) fn views() -> impl Iterator<Item = &'static View> {
    ALL.iter().filter(|view| !BY_HAND.contains(&view.name))
}

/// The name of a view's command.
pub(crate) fn name(view: &View) -> String {
    view.name.replace('_', "-")
}

/// Adds a subcommand for each of these views.
pub(crate) fn add(command: Command) -> Command {
    views().fold(command, |command, view| command.subcommand(of(view)))
}

/// The command of a view: its parameters as options.
pub(super) fn of(view: &View) -> Command {
    let about = schema::about(view);
    let command = Command::new(name(view)).about(sentence(about)).after_help(TIMES);
    let parameters = view.header().map(|header| header.parameters).unwrap_or_default();
    let own = parameters.iter().filter(|parameter| !matches!(parameter.name.as_str(), "from" | "to"));
    own.fold(ViewArgs::augment_args(command), |command, parameter| command.arg(argument(parameter)))
}

/// The columns of a view, with their descriptions. Those that only --wide and other formats show are marked.
pub(crate) fn columns(view: &View) -> String {
    let columns = view.header().map(|header| header.columns).unwrap_or_default();
    let width = columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
    let line = |column: &Item| {
        let mark = if column.is_further { " (--wide)" } else { "" };
        format!("\n  {:width$}  {}{mark}", column.name, column.about)
    };
    format!("Columns:{}", columns.iter().map(line).collect::<String>())
}

/// In the form of other commands' descriptions: upper case, no full stop.
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
        Unit::Ns => arg.value_name("DURATION").value_parser(parse_duration),
        _ => arg.value_name("N").value_parser(clap::value_parser!(i64)).allow_negative_numbers(true),
    }
    .action(ArgAction::Set)
}

/// The view of the command line's subcommand, and its arguments.
pub(crate) fn matched(matches: &ArgMatches) -> Option<(&'static View, &ArgMatches)> {
    let (command, given) = matches.subcommand()?;
    Some((views().find(|view| name(view) == command)?, given))
}

/// Runs it.
pub(crate) async fn run(view: &View, given: &ArgMatches, out: &mut Stdout) -> Result<()> {
    let args = ViewArgs::from_arg_matches(given).unwrap_or_else(|error| error.exit());
    let (catalog, window) = args.open().await?;
    let arguments = arguments(view, given, window)?;
    let is_tree =
        view.name == TASK_TREE.name && args.query.format == Format::Table && !args.wide && args.sort.is_empty();
    if is_tree && catalog.sessions().len() == 1 {
        return task_tree::show(&catalog, &arguments, &args, window, out).await;
    }
    views::show(&catalog, *view, window, arguments, &args, out).await
}

/// The values of a view's parameters: those given, otherwise their defaults.
pub(super) fn arguments(view: &View, given: &ArgMatches, window: Window) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    for parameter in view.header()?.parameters {
        let value = match parameter.unit {
            _ if matches!(parameter.name.as_str(), "from" | "to") => None,
            Unit::Flag => given.get_one::<bool>(&parameter.name).map(|flag| ScalarValue::Boolean(Some(*flag))),
            _ => given.get_one::<i64>(&parameter.name).map(|value| ScalarValue::Int64(Some(*value))),
        };
        arguments.set(&parameter.name, value.unwrap_or_else(|| defaults::of(&parameter, window)));
    }
    Ok(arguments)
}
