//! The shell over a database of a few rows in memory: an example of a database, and the program that the tests run.
//!
//! ```text
//! planets [-c SQL]… [-f FILE]… [--format FORMAT]
//! ```
//!
//! It supports `SELECT columns FROM table [LIMIT n]`, `SHOW width` and `SET …`. The table `endless` has no last row; neither has
//! `deaf`, which also ignores cancellation.

use std::{io::Write, process::ExitCode, time::Duration};

use clap::ValueEnum as _;
use hud_shell::{
    Column, Control, Database, Format, Function, FunctionKind, Input, Options, Outcome, Relation, RelationKind, Result,
    Settings, ShellError, Summary, run,
};

const PLANETS: [(&str, &str); 4] = [("Mercury", "0"), ("Venus", "0"), ("Earth", "1"), ("Mars", "2")];
const PACE: Duration = Duration::from_millis(20);

struct Planets;

struct Table {
    name: &'static str,
    kind: RelationKind,
    doc: &'static str,
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// `None` for an endless table.
    rows: Option<u64>,
    row: fn(u64) -> Vec<String>,
}

const TABLES: [Table; 5] = [
    Table {
        name: "planets",
        kind: RelationKind::Table,
        doc: "a planet, from the sun outwards",
        columns: &[("name", "text", "how it is called"), ("moons", "count", "its moons")],
        rows: Some(PLANETS.len() as u64),
        row: |n| {
            let at = usize::try_from(n).unwrap_or_default() % PLANETS.len();
            vec![PLANETS[at].0.to_owned(), PLANETS[at].1.to_owned()]
        },
    },
    Table {
        name: "plain_numbers",
        kind: RelationKind::Table,
        doc: "a number below a hundred thousand",
        columns: &[("n", "Int64", "the number")],
        rows: Some(100_000),
        row: |n| vec![n.to_string()],
    },
    Table {
        name: "endless",
        kind: RelationKind::Table,
        doc: "a number, slowly",
        columns: &[("n", "Int64", "the number")],
        rows: None,
        row: |n| vec![n.to_string()],
    },
    Table {
        name: "deaf",
        kind: RelationKind::Table,
        doc: "no number, forever",
        columns: &[("n", "Int64", "the number")],
        rows: None,
        row: |n| vec![n.to_string()],
    },
    Table {
        name: "moonless",
        kind: RelationKind::View,
        doc: "a planet without moons",
        columns: &[("name", "text", "how it is called")],
        rows: Some(2),
        row: |n| vec![PLANETS[usize::try_from(n % 2).unwrap_or_default()].0.to_owned()],
    },
];

impl Database for Planets {
    fn relations(&self) -> Vec<Relation> {
        let column = |(name, data_type, doc): &(&str, &str, &str)| Column {
            name: (*name).into(),
            data_type: (*data_type).into(),
            doc: (*doc).into(),
        };
        TABLES
            .iter()
            .map(|table| Relation {
                schema: None,
                name: table.name.into(),
                kind: table.kind,
                doc: table.doc.into(),
                columns: table.columns.iter().map(column).collect(),
            })
            .collect()
    }

    fn functions(&self) -> Vec<Function> {
        vec![Function {
            name: "brightness".into(),
            signature: "brightness(name) -> Float64".into(),
            kind: FunctionKind::Scalar,
            doc: "how bright a planet is at its best".into(),
        }]
    }

    fn run(&self, sql: &str, settings: &Settings, out: &mut dyn Write, control: &Control) -> Result<Summary> {
        let lines: Vec<&str> = sql.lines().filter_map(|line| line.split("--").next()).collect();
        let words: Vec<String> = lines.join(" ").replace(',', " ").split_whitespace().map(str::to_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let rows = match words.as_slice() {
            ["set", ..] => None,
            ["show", "width"] => {
                let width = settings.width.map_or_else(String::new, |width| width.to_string());
                Some(write(&["width"], std::iter::once(vec![width]), settings, out)?)
            }
            ["select", columns @ .., "from", name] => Some(select(columns, name, None, settings, out, control)?),
            ["select", columns @ .., "from", name, "limit", limit] => {
                let limit = limit.parse().map_err(|_| ShellError::Query(format!("{limit} is no limit")))?;
                Some(select(columns, name, Some(limit), settings, out, control)?)
            }
            _ => return Err(ShellError::Query(format!("this database does not understand: {sql}"))),
        };
        Ok(Summary { rows })
    }
}

fn select(
    wanted: &[&str],
    name: &str,
    limit: Option<u64>,
    settings: &Settings,
    out: &mut dyn Write,
    control: &Control,
) -> Result<u64> {
    let table = TABLES.iter().find(|table| table.name == name);
    let table = table.ok_or_else(|| ShellError::Query(format!("there is no table {name}")))?;
    let names: Vec<&str> = table.columns.iter().map(|(name, ..)| *name).collect();
    let mut chosen = Vec::new();
    for name in wanted {
        match names.iter().position(|known| known == name) {
            _ if *name == "*" => chosen.extend(0..names.len()),
            Some(at) => chosen.push(at),
            None => return Err(ShellError::Query(format!("there is no column {name}"))),
        }
    }
    control.set_phase(format!("reading {}", table.name));
    let Some(mut rows) = table.rows else {
        control.set_total(1_000_000);
        if table.name == "deaf" {
            loop {
                std::thread::sleep(PACE);
            }
        }
        for read in 1.. {
            if control.is_cancelled() {
                break;
            }
            control.set_read(read * 1_000);
            std::thread::sleep(PACE);
        }
        return Err(ShellError::Cancelled);
    };
    rows = limit.map_or(rows, |limit| rows.min(limit));
    let all = (0..rows).map(|n| {
        let row = (table.row)(n);
        chosen.iter().map(|at| row[*at].clone()).collect()
    });
    let names: Vec<&str> = chosen.iter().map(|at| names[*at]).collect();
    write(&names, all, settings, out)
}

/// Writes rows, and counts them. A real database fits tables to the width and escapes control characters.
fn write(
    names: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    settings: &Settings,
    out: &mut dyn Write,
) -> Result<u64> {
    let failed = || ShellError::io("write the result");
    let parted = |cells: &[String]| cells.join(if settings.format == Format::Csv { "," } else { " | " });
    let is_expanded = settings.expanded && settings.format == Format::Table;
    if !is_expanded && settings.format != Format::Ndjson {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        writeln!(out, "{}", parted(&names)).map_err(failed())?;
    }
    let mut count = 0;
    for row in rows {
        count += 1;
        if settings.format == Format::Ndjson {
            let fields: Vec<String> = names.iter().zip(&row).map(|(name, cell)| format!("{name:?}:{cell:?}")).collect();
            writeln!(out, "{{{}}}", fields.join(",")).map_err(failed())?;
        } else if is_expanded {
            for (name, cell) in names.iter().zip(&row) {
                writeln!(out, "{name}: {cell}").map_err(failed())?;
            }
        } else {
            writeln!(out, "{}", parted(&row)).map_err(failed())?;
        }
    }
    Ok(count)
}

fn main() -> ExitCode {
    let (mut inputs, mut options) = (Vec::new(), Options { greeting: "four planets".into(), ..Options::default() });
    let mut arguments = std::env::args().skip(1);
    while let (Some(option), Some(value)) = (arguments.next(), arguments.next()) {
        match (option.as_str(), Format::from_str(&value, false)) {
            ("-c", _) => inputs.push(Input::Sql(value)),
            ("-f", _) => inputs.push(Input::File(value.into())),
            ("--format", Ok(format)) => options.settings.format = format,
            _ => return ExitCode::from(2),
        }
    }
    match run(&Planets, &inputs, options) {
        Ok(Outcome::Signal(signal)) => {
            eprintln!("ended by signal {signal}");
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) if error.is_cancelled() => {
            eprintln!("error: {}", error.line());
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {}", error.line());
            ExitCode::FAILURE
        }
    }
}
