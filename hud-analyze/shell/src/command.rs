//! Backslash commands.

use crate::error::{Result, ShellError};

/// A parsed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `\d`: all tables and views, or one of them.
    Describe(Option<String>),
    /// `\df`: all functions, or those whose name contains a text.
    Functions(Option<String>),
    /// `\pset`, `\x`, `\timing`: an option and its value.
    Set(String, Option<String>),
    /// `\pset`: all options.
    Options,
    /// `\?`: the commands.
    Help,
    /// `\q`: quit.
    Quit,
}

/// Name, usage and description of all commands.
pub(crate) const COMMANDS: [(&str, &str, &str); 7] = [
    ("\\d", "\\d [NAME]", "list tables and views, or describe one"),
    ("\\df", "\\df [TEXT]", "list functions, or those whose name contains TEXT"),
    ("\\pset", "\\pset [OPTION VALUE]", "show or set options"),
    ("\\x", "\\x [on|off]", "show each row as a block of lines"),
    ("\\timing", "\\timing [on|off]", "print the duration of statements"),
    ("\\?", "\\?", "list commands and keys"),
    ("\\q", "\\q", "quit"),
];

/// Parses a command, which begins with the backslash.
pub(crate) fn parse(text: &str) -> Result<Command> {
    let mut words = text.trim_end_matches(';').split_whitespace().map(|word| word.trim_matches('\'').to_owned());
    let name = words.next().unwrap_or_default();
    let (first, second, third) = (words.next(), words.next(), words.next());
    let (command, most) = match name.strip_suffix('+').unwrap_or(&name) {
        "\\d" => (Command::Describe(first.clone()), 1),
        "\\df" => (Command::Functions(first.clone()), 1),
        "\\pset" => (first.clone().map_or(Command::Options, |option| Command::Set(option, second.clone())), 2),
        "\\x" => (Command::Set("expanded".into(), first.clone()), 1),
        "\\timing" => (Command::Set("timing".into(), first.clone()), 1),
        "\\?" | "\\h" | "\\help" => (Command::Help, usize::MAX),
        "\\q" | "\\quit" => (Command::Quit, 0),
        _ => return Err(ShellError::usage(format!("there is no command {name}"), "\\? lists the commands")),
    };
    match [first, second, third].into_iter().flatten().nth(most) {
        Some(word) => Err(ShellError::usage(format!("{name} does not take {word}"), "\\? lists the commands")),
        None => Ok(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_all_commands() {
        let some = |text: &str| Some(text.to_owned());
        for (text, wanted) in [
            ("\\d", Command::Describe(None)),
            ("\\d+ polls;", Command::Describe(some("polls"))),
            ("\\df hum", Command::Functions(some("hum"))),
            ("\\pset", Command::Options),
            ("\\pset format csv", Command::Set("format".into(), some("csv"))),
            ("\\x", Command::Set("expanded".into(), None)),
            ("\\timing off", Command::Set("timing".into(), some("off"))),
            ("\\? select", Command::Help),
            ("\\q", Command::Quit),
        ] {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
        for (name, ..) in COMMANDS {
            assert!(parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn refuses_unknown_commands_and_arguments() {
        for (text, words) in [
            ("\\wat", "there is no command \\wat; \\? lists the commands"),
            ("\\", "there is no command \\"),
            ("\\q now", "\\q does not take now"),
            ("\\pset a b c", "\\pset does not take c"),
            ("\\x\u{1b}[2J", "there is no command \\x\\x1b[2J"),
        ] {
            let error = parse(text).unwrap_err().line();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
