//! Settings of output.

use clap::ValueEnum;

use crate::error::{Result, ShellError};

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for a terminal.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// One object per line.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv,
    /// A Markdown table.
    Markdown,
    /// An Arrow IPC stream (binary).
    Arrow,
    /// A Parquet file (binary).
    Parquet,
}

impl Format {
    /// Whether it is for people.
    pub const fn is_text(self) -> bool {
        matches!(self, Format::Table | Format::Markdown)
    }

    /// Whether a terminal cannot show it.
    pub const fn is_binary(self) -> bool {
        matches!(self, Format::Arrow | Format::Parquet)
    }

    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The names of all formats.
    pub(crate) fn names() -> Vec<String> {
        Format::value_variants().iter().map(|format| format.name()).collect()
    }
}

/// How results are written. The shell keeps the settings, [`Database::run`](crate::Database::run) applies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The format.
    pub format: Format,
    /// Whether a row of a table is written as a block of lines.
    pub expanded: bool,
    /// Width of the terminal that results are written to, in columns (set by the shell for each statement).
    pub width: Option<usize>,
    /// Whether the number of rows is written below a table (by the shell).
    pub footer: bool,
    /// Whether the duration of statements is printed (by the shell).
    pub timing: bool,
    /// Whether times and durations in tables are nanoseconds, as in other formats.
    pub raw_times: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { format: Format::Table, expanded: false, width: None, footer: true, timing: false, raw_times: false }
    }
}

/// The options of `\pset`, with descriptions.
pub(crate) const OPTIONS: [(&str, &str); 4] = [
    ("format", "output format: table, json, ndjson, csv, markdown, arrow or parquet"),
    ("expanded", "show each row as a block of lines: on or off (also \\x)"),
    ("times", "times and durations in tables: human, or ns for nanoseconds"),
    ("timing", "print the duration of statements: on or off (also \\timing)"),
];

impl Settings {
    /// Sets an option; a switch without value is toggled.
    pub(crate) fn set(&mut self, option: &str, value: Option<&str>) -> Result<()> {
        match (option, value) {
            ("format", value) => {
                let found = value.and_then(|value| Format::from_str(value, true).ok());
                let hint = || format!("formats are {}", Format::names().join(", "));
                self.format = found.ok_or_else(|| {
                    ShellError::usage(format!("there is no format {}", value.unwrap_or_default()), hint())
                })?;
            }
            ("times", Some("human")) => self.raw_times = false,
            ("times", Some("ns")) => self.raw_times = true,
            ("times", value) => {
                let why = format!("times are not shown as {}", value.unwrap_or("nothing"));
                return Err(ShellError::usage(why, "use human or ns"));
            }
            ("expanded", value) => self.expanded = switch(value, self.expanded)?,
            ("timing", value) => self.timing = switch(value, self.timing)?,
            (other, _) => {
                let all = OPTIONS.map(|(name, _)| name).join(", ");
                return Err(ShellError::usage(format!("there is no option {other}"), format!("options are {all}")));
            }
        }
        Ok(())
    }

    /// An option's value as text.
    pub(crate) fn get(&self, option: &str) -> String {
        let on = |on: bool| if on { "on" } else { "off" }.to_owned();
        match option {
            "format" => self.format.name(),
            "expanded" => on(self.expanded),
            "times" => if self.raw_times { "ns" } else { "human" }.to_owned(),
            _ => on(self.timing),
        }
    }
}

fn switch(value: Option<&str>, now: bool) -> Result<bool> {
    match value {
        None => Ok(!now),
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(ShellError::usage(format!("{other} is neither on nor off"), "use on or off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_and_shown() {
        let mut settings = Settings::default();
        for (option, value, shown) in [
            ("format", Some("CSV"), "csv"),
            ("expanded", None, "on"),
            ("timing", Some("on"), "on"),
            ("times", Some("ns"), "ns"),
        ] {
            settings.set(option, value).unwrap();
            assert_eq!(settings.get(option), shown, "{option}");
        }
        for (option, value) in [
            ("format", Some("xml")),
            ("format", None),
            ("timing", Some("maybe")),
            ("times", None),
            ("times", Some("s")),
            ("a", None),
        ] {
            assert!(settings.set(option, value).is_err(), "{option}");
        }
    }
}
