//! Backslash commands, with psql's names.

use std::time::Duration;

use crate::{
    error::{Result, ShellError},
    settings,
};

/// A parsed command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    /// `\d`: tables and views; or one of them.
    Describe(Option<String>),
    /// `\dt`: tables.
    Tables,
    /// `\dv`: views.
    Views,
    /// `\df`: functions, or those of that name.
    Functions(Option<String>),
    /// `\i`, `\ir`: a file of statements.
    Include { path: String, beside: bool },
    /// `\o`: the output of answers; none = the screen.
    Output(Option<String>),
    /// `\timing`, `\x`, `\pset NAME`: an option, and its value.
    Set { option: String, value: Option<String> },
    /// `\pset`: all options.
    Options,
    /// `\e`: edit the statement, or a file.
    Edit(Option<String>),
    /// `\watch`: run it repeatedly.
    Watch { every: Duration, times: Option<u64> },
    /// `\g`, `\gx`: run it, and write the answer there.
    Go { file: Option<String>, expanded: bool },
    /// `\p`: show the statement so far.
    Print,
    /// `\r`: discard the statement so far.
    Reset,
    /// `\echo`: write words.
    Echo(String),
    /// `\?`: the commands.
    Help,
    /// `\h`: help on SQL.
    SqlHelp(String),
    /// `\q`: leave.
    Quit,
}

/// The kind of a command's argument, for completion and for the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Relation,
    Function,
    File,
    Switch,
    Option,
    Topic,
    Words,
}

/// All commands: name, usage, argument, description.
pub(crate) const COMMANDS: [(&str, &str, Takes, &str); 22] = [
    ("\\d", "\\d [NAME]", Takes::Relation, "tables and views; or the columns of one"),
    ("\\dt", "\\dt", Takes::Nothing, "tables"),
    ("\\dv", "\\dv", Takes::Nothing, "views"),
    ("\\df", "\\df [NAME]", Takes::Function, "functions; * in the name stands for anything"),
    ("\\h", "\\h [NAME]", Takes::Topic, "help on a statement, function, table or view"),
    ("\\g", "\\g [FILE]", Takes::File, "run the statement so far, or the last one again"),
    ("\\gx", "\\gx [FILE]", Takes::File, "the same, a row as a block of lines"),
    ("\\watch", "\\watch [SECS] [c=N]", Takes::Words, "run it every SECS seconds, N times or until Ctrl-C"),
    ("\\e", "\\e [FILE]", Takes::File, "edit the statement so far, or the last one, in $EDITOR"),
    ("\\p", "\\p", Takes::Nothing, "show the statement so far"),
    ("\\r", "\\r", Takes::Nothing, "forget the statement so far"),
    ("\\i", "\\i FILE", Takes::File, "run the statements of a file"),
    ("\\ir", "\\ir FILE", Takes::File, "the same, of a file beside the script that says so"),
    ("\\o", "\\o [FILE]", Takes::File, "write answers to a file or to `|program`, or here again"),
    ("\\pset", "\\pset [OPTION [VALUE]]", Takes::Option, "show or set how answers are written"),
    ("\\x", "\\x [on|off|auto]", Takes::Switch, "a row as a block of lines"),
    ("\\timing", "\\timing [on|off]", Takes::Switch, "tell the time that a statement took"),
    ("\\echo", "\\echo WORDS", Takes::Words, "write words to where answers go"),
    ("\\?", "\\?", Takes::Nothing, "these commands"),
    ("\\q", "\\q", Takes::Nothing, "leave"),
    ("\\quit", "\\quit", Takes::Nothing, "the same"),
    ("\\help", "\\help [NAME]", Takes::Topic, "the same as \\h"),
];

/// The longest time between two runs of `\watch`.
const LONGEST_WATCH: f64 = 86_400.0;
const SHORTEST_WATCH: f64 = 0.1;

/// A command from its text, which begins with the backslash.
pub(crate) fn parse(text: &str) -> Result<Command> {
    let (name, rest) = split_name(text);
    let words = words(rest);
    let mut arguments = words.into_iter();
    let first = arguments.next();
    let only = |command: Command, first: &Option<String>| match first {
        Some(word) => Err(ShellError::usage(format!("{name} takes no {word}"), "\\? lists the commands")),
        None => Ok(command),
    };
    let needed = |what: &str, first: Option<String>| {
        first.ok_or_else(|| ShellError::usage(format!("{name} wants {what}"), "\\? lists the commands"))
    };
    // `\d+` shows more in psql; here `\d` shows everything.
    let command = match name.strip_suffix('+').unwrap_or(name) {
        "\\d" => Command::Describe(first),
        "\\dt" => only(Command::Tables, &first)?,
        "\\dv" => only(Command::Views, &first)?,
        "\\df" => Command::Functions(first),
        "\\i" | "\\include" => Command::Include { path: needed("a file", first)?, beside: false },
        "\\ir" => Command::Include { path: needed("a file", first)?, beside: true },
        "\\o" | "\\out" => Command::Output(file(rest, first)),
        "\\timing" => Command::Set { option: "timing".into(), value: first },
        "\\x" => Command::Set { option: "expanded".into(), value: first },
        "\\pset" => match first {
            Some(option) => Command::Set { option: option.to_ascii_lowercase(), value: arguments.next() },
            None => Command::Options,
        },
        "\\e" | "\\edit" => Command::Edit(first),
        "\\watch" => watch(first.into_iter().chain(arguments.by_ref()))?,
        "\\g" => Command::Go { file: file(rest, first), expanded: false },
        "\\gx" => Command::Go { file: file(rest, first), expanded: true },
        "\\p" | "\\print" => only(Command::Print, &first)?,
        "\\r" | "\\reset" => only(Command::Reset, &first)?,
        "\\echo" => Command::Echo(first.into_iter().chain(arguments.by_ref()).collect::<Vec<_>>().join(" ")),
        "\\?" => Command::Help,
        "\\h" | "\\help" => Command::SqlHelp(rest.trim().trim_end_matches(';').trim_end().to_owned()),
        "\\q" | "\\quit" => only(Command::Quit, &first)?,
        _ => {
            let all = COMMANDS.iter().map(|(name, ..)| *name);
            let hint = match nearest(name, all) {
                Some(near) => format!("did you mean {near}?"),
                None => "\\? lists the commands".to_owned(),
            };
            return Err(ShellError::usage(format!("there is no command {name}"), hint));
        }
    };
    match arguments.next() {
        // A pipe's program has its own arguments, help any words.
        Some(_) if matches!(&command, Command::SqlHelp(_) | Command::Help) || rest.trim_start().starts_with('|') => {
            Ok(command)
        }
        Some(word) => {
            Err(ShellError::usage(format!("{name} does not take {word}"), "quote a name that has spaces: 'a b'"))
        }
        None => Ok(command),
    }
}

/// The name of a command, with its backslash, and the rest of its text.
pub(crate) fn split_name(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// The kind of a command's argument, by its name.
pub(crate) fn takes(name: &str) -> Takes {
    COMMANDS.iter().find(|(known, ..)| *known == name).map_or(Takes::Nothing, |(_, _, takes, _)| *takes)
}

/// A file's name, or a pipe with everything that follows it.
fn file(rest: &str, first: Option<String>) -> Option<String> {
    let rest = rest.trim();
    if rest.starts_with('|') { Some(rest.to_owned()) } else { first }
}

fn watch(words: impl Iterator<Item = String>) -> Result<Command> {
    let hint = "give seconds, and how many times: \\watch 2 c=10";
    let (mut every, mut times) = (2.0, None);
    for word in words {
        let wrong = || ShellError::usage(format!("\\watch does not know {word}"), hint);
        if let Some(count) = word.strip_prefix("c=") {
            times = Some(count.parse().map_err(|_| wrong())?);
        } else {
            every = word.strip_prefix("i=").unwrap_or(&word).parse().map_err(|_| wrong())?;
        }
    }
    if !(SHORTEST_WATCH..=LONGEST_WATCH).contains(&every) {
        return Err(ShellError::usage(
            format!("\\watch cannot wait {every} s"),
            format!("give {SHORTEST_WATCH} to {LONGEST_WATCH} seconds"),
        ));
    }
    Ok(Command::Watch { every: Duration::from_secs_f64(every), times })
}

/// The arguments in `text`: words, or quoted text, in which a doubled quote stands for one.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(open) if c == open => {
                if chars.next_if_eq(&open).is_some() {
                    word.push(open);
                } else {
                    quote = None;
                }
            }
            Some(_) => word.push(c),
            None if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            // An apostrophe within a word is a letter.
            None if matches!(c, '\'' | '"') && !begun => {
                quote = Some(c);
                begun = true;
            }
            None => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The name that a user who typed `wrong` may have meant.
pub(crate) fn nearest<'a>(wrong: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A very long word resembles none of them.
    let short: String = wrong.chars().take(40).collect::<String>().to_lowercase();
    let most = if short.trim_start_matches('\\').chars().count() <= 3 { 1 } else { 2 };
    all.map(|name| (distance(&short, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= most && *distance + 1 < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The number of letters to change, add, remove or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<_>>());
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut least = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                let two_ago: &Vec<usize> = &before;
                least = least.min(two_ago[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The options that `\pset` knows, for completion.
pub(crate) fn pset_options() -> impl Iterator<Item = (&'static str, &'static str)> {
    settings::OPTIONS.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(option: &str, value: Option<&str>) -> Command {
        Command::Set { option: option.into(), value: value.map(str::to_owned) }
    }

    #[test]
    fn commands_are_understood() {
        let some = |text: &str| Some(text.to_owned());
        for (text, wanted) in [
            ("\\d", Command::Describe(None)),
            ("\\d+", Command::Describe(None)),
            ("\\d polls", Command::Describe(some("polls"))),
            ("\\d views.polls", Command::Describe(some("views.polls"))),
            ("\\d 'my table'", Command::Describe(some("my table"))),
            ("\\dt", Command::Tables),
            ("\\dv", Command::Views),
            ("\\df", Command::Functions(None)),
            ("\\df hum*", Command::Functions(some("hum*"))),
            ("\\i a.sql", Command::Include { path: "a.sql".into(), beside: false }),
            ("\\ir 'it''s.sql'", Command::Include { path: "it's.sql".into(), beside: true }),
            ("\\o", Command::Output(None)),
            ("\\o out.csv", Command::Output(some("out.csv"))),
            ("\\o |gzip -c > x", Command::Output(some("|gzip -c > x"))),
            ("\\timing", set("timing", None)),
            ("\\timing off", set("timing", Some("off"))),
            ("\\x auto", set("expanded", Some("auto"))),
            ("\\pset", Command::Options),
            ("\\pset FORMAT csv", set("format", Some("csv"))),
            ("\\pset null ''", set("null", Some(""))),
            ("\\pset null '(none)'", set("null", Some("(none)"))),
            ("\\e", Command::Edit(None)),
            ("\\g", Command::Go { file: None, expanded: false }),
            ("\\gx f", Command::Go { file: some("f"), expanded: true }),
            ("\\watch", Command::Watch { every: Duration::from_secs(2), times: None }),
            ("\\watch .5 c=3", Command::Watch { every: Duration::from_millis(500), times: Some(3) }),
            ("\\watch i=1", Command::Watch { every: Duration::from_secs(1), times: None }),
            ("\\p", Command::Print),
            ("\\r", Command::Reset),
            ("\\echo a  'b  c'", Command::Echo("a b  c".into())),
            ("\\?", Command::Help),
            ("\\h", Command::SqlHelp(String::new())),
            ("\\h create view;", Command::SqlHelp("create view".into())),
            ("\\q", Command::Quit),
        ] {
            assert_eq!(parse(text).unwrap_or_else(|e| panic!("{text}: {e}")), wanted, "{text}");
        }
    }

    #[test]
    fn wrong_commands_say_what_is_right() {
        for (text, words) in [
            ("\\timng on", "did you mean \\timing?"),
            ("\\wathc", "did you mean \\watch?"),
            ("\\pest", "did you mean \\pset?"),
            ("\\xyzzyx", "\\? lists the commands"),
            ("\\", "there is no command \\"),
            ("\\i", "\\i wants a file"),
            ("\\i a b", "quote a name that has spaces"),
            ("\\q now", "\\q takes no now"),
            ("\\watch often", "does not know often"),
            ("\\watch 0", "cannot wait 0 s"),
            ("\\watch NaN", "cannot wait NaN s"),
            ("\\watch inf", "cannot wait inf s"),
            ("\\watch -1", "cannot wait -1 s"),
            ("\\watch 1 c=x", "does not know c=x"),
        ] {
            let error = parse(text).unwrap_err().line();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn every_command_of_the_list_is_one() {
        for (name, usage, ..) in COMMANDS {
            assert!(usage.starts_with(name));
            let argument = if usage.contains(" FILE") { " x" } else { "" };
            assert!(parse(&format!("{name}{argument}")).is_ok(), "{name}");
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused() {
        let alphabet: Vec<char> = "\\dgxpsetiowatch +*'\"|=0.9é\u{1b}\t日".chars().collect();
        for seed in 1..5000_u64 {
            let mut random = crate::random::Random::new(seed);
            let text: String = (0..random.below(30)).map(|_| alphabet[random.below(alphabet.len())]).collect();
            let _ = parse(&text);
            let _ = parse(&format!("\\{text}")).map_err(|e| assert!(!e.line().contains('\u{1b}')));
        }
    }
}
