//! Settings of `\pset`, `\x` and `\timing`: how an answer is written.

use std::{fmt, str::FromStr};

use crate::error::{Result, ShellError};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// An object a line.
    Ndjson,
    /// With a header line.
    Csv,
    /// A table for a document.
    Markdown,
    /// An Arrow IPC stream; binary.
    Arrow,
    /// A Parquet file; binary.
    Parquet,
}

impl Format {
    pub(crate) const ALL: [(&'static str, Format); 7] = [
        ("table", Format::Table),
        ("json", Format::Json),
        ("ndjson", Format::Ndjson),
        ("csv", Format::Csv),
        ("markdown", Format::Markdown),
        ("arrow", Format::Arrow),
        ("parquet", Format::Parquet),
    ];

    /// Whether people read it.
    pub const fn is_text(self) -> bool {
        matches!(self, Format::Table | Format::Markdown)
    }

    /// Whether a terminal cannot show it.
    pub(crate) const fn is_binary(self) -> bool {
        matches!(self, Format::Arrow | Format::Parquet)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Format::ALL.iter().find(|(_, format)| format == self).map_or("table", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Format {
    type Err = ShellError;

    fn from_str(text: &str) -> Result<Self> {
        let found = Format::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, format)| *format).ok_or_else(|| {
            ShellError::usage(format!("there is no format {text}"), format!("formats are {}", names(&Format::ALL)))
        })
    }
}

/// Whether a row is written as a line of a table or as a block of lines, one per column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expanded {
    /// As a line.
    #[default]
    Off,
    /// As a block.
    On,
    /// As a block if a line would be wider than [`Settings::width`].
    Auto,
}

impl Expanded {
    pub(crate) const ALL: [(&'static str, Expanded); 3] =
        [("on", Expanded::On), ("off", Expanded::Off), ("auto", Expanded::Auto)];
}

impl fmt::Display for Expanded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Expanded::ALL.iter().find(|(_, expanded)| expanded == self).map_or("off", |(name, _)| name);
        f.write_str(name)
    }
}

/// How answers are written. The shell keeps the settings, [`Database::run`](crate::Database::run) applies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The format.
    pub format: Format,
    /// Whether a row of a table is written as a block.
    pub expanded: Expanded,
    /// Text of a null in a table.
    pub null: String,
    /// Most rows of an answer for people; none = all.
    pub limit: Option<u64>,
    /// The terminal's columns, if the answer is written to one (set by the shell for each statement).
    pub width: Option<usize>,
    /// Whether the number of rows is written below a table (by the shell).
    pub footer: bool,
    /// Whether a statement's duration is printed (by the shell).
    pub timing: bool,
    /// Whether output longer than the screen is sent through a pager (by the shell).
    pub pager: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            format: Format::Table,
            expanded: Expanded::Off,
            null: String::new(),
            limit: None,
            width: None,
            footer: true,
            timing: false,
            pager: true,
        }
    }
}

/// The options of `\pset`, with descriptions.
pub(crate) const OPTIONS: [(&str, &str); 7] = [
    ("format", "how answers are written: table, json, ndjson, csv, markdown, arrow or parquet"),
    ("expanded", "a row as a block of lines: on, off or auto (as \\x)"),
    ("null", "what stands for null in a table"),
    ("limit", "rows that are written at most, or off"),
    ("footer", "the number of rows below a table: on or off"),
    ("pager", "what is longer than the screen goes through $PAGER: on or off"),
    ("timing", "the time that a statement took: on or off (as \\timing)"),
];

impl Settings {
    /// Sets an option; without a value a switch is toggled, and the null text emptied.
    pub(crate) fn set(&mut self, option: &str, value: Option<&str>) -> Result<()> {
        match option {
            "format" => {
                let missing = || ShellError::usage("\\pset format wants a format", names(&Format::ALL));
                self.format = value.ok_or_else(missing)?.parse()?;
            }
            "expanded" => {
                self.expanded = match (value, self.expanded) {
                    (Some(value), _) => choice(value, &Expanded::ALL)?,
                    (None, Expanded::Off) => Expanded::On,
                    (None, _) => Expanded::Off,
                }
            }
            "null" => self.null = value.unwrap_or_default().to_owned(),
            "limit" => {
                self.limit = match value {
                    None | Some("off" | "0") => None,
                    Some(rows) => Some(rows.parse().map_err(|_| {
                        ShellError::usage(format!("{rows} is no number of rows"), "give a number, or off for all")
                    })?),
                }
            }
            "footer" => self.footer = switch(value, self.footer)?,
            "pager" => self.pager = switch(value, self.pager)?,
            "timing" => self.timing = switch(value, self.timing)?,
            other => {
                let all: Vec<_> = OPTIONS.iter().map(|(name, _)| *name).collect();
                let hint = match crate::command::nearest(other, all.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("options are {}", all.join(", ")),
                };
                return Err(ShellError::usage(format!("there is no option {other}"), hint));
            }
        }
        Ok(())
    }

    /// An option's value as `\pset` shows it.
    pub(crate) fn get(&self, option: &str) -> String {
        let on = |on: bool| if on { "on" } else { "off" }.to_owned();
        match option {
            "format" => self.format.to_string(),
            "expanded" => self.expanded.to_string(),
            "null" => format!("'{}'", self.null),
            "limit" => self.limit.map_or_else(|| "off".into(), |rows| rows.to_string()),
            "footer" => on(self.footer),
            "pager" => on(self.pager),
            "timing" => on(self.timing),
            _ => String::new(),
        }
    }
}

fn switch(value: Option<&str>, now: bool) -> Result<bool> {
    value.map_or(Ok(!now), |value| {
        choice(value, &[("on", true), ("off", false), ("true", true), ("false", false), ("1", true), ("0", false)])
            .map_err(|_| ShellError::usage(format!("{value} is neither on nor off"), "give on or off"))
    })
}

fn choice<T: Copy>(value: &str, all: &[(&str, T)]) -> Result<T> {
    let found = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, it)| *it).ok_or_else(|| ShellError::usage(format!("{value} is no choice"), names(all)))
}

fn names<T>(all: &[(&str, T)]) -> String {
    all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_turned_and_refused() {
        let mut settings = Settings::default();
        settings.set("format", Some("NDJSON")).unwrap();
        assert_eq!(settings.format, Format::Ndjson);
        settings.set("null", Some("∅")).unwrap();
        settings.set("expanded", None).unwrap();
        assert_eq!((settings.null.as_str(), settings.expanded), ("∅", Expanded::On));
        settings.set("expanded", None).unwrap();
        assert_eq!(settings.expanded, Expanded::Off);
        settings.set("pager", Some("off")).unwrap();
        settings.set("timing", None).unwrap();
        settings.set("limit", Some("20")).unwrap();
        assert_eq!((settings.pager, settings.timing, settings.limit), (false, true, Some(20)));
        settings.set("limit", None).unwrap();
        assert_eq!(settings.limit, None);
        for (option, value, words) in [
            ("format", Some("xml"), "table, json"),
            ("format", None, "wants a format"),
            ("formt", None, "did you mean format?"),
            ("pager", Some("maybe"), "on or off"),
            ("limit", Some("-3"), "no number"),
        ] {
            let error = settings.set(option, value).unwrap_err().line();
            assert!(error.contains(words), "{error}");
        }
        for (option, _) in OPTIONS {
            assert!(!settings.get(option).is_empty(), "{option}");
        }
    }
}
