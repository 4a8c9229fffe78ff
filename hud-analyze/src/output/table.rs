//! Text tables: cells without control characters, numbers right-aligned, long names shortened to fit the terminal.

use std::io::{self, Write};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement};
use hud_common::units::{fit_name, is_name, least_width};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::stdout::may_colour;
use crate::{
    error::Result,
    human,
    query::header::{Item, Unit},
};

/// Space between columns.
const GAP: u16 = 2;
/// Minimum width of shortened columns.
const MIN_WIDTH: usize = 12;
/// Numbers that a narrow table keeps.
const KEPT_NUMBERS: usize = 2;

/// How a result is shown as a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape<'a> {
    /// A view's columns, with their units.
    pub(crate) columns: &'a [Item],
    /// The units of other queries' columns, by position.
    pub(crate) units: Vec<Option<Unit>>,
    /// Text in place of a table without rows.
    pub(crate) empty: Option<String>,
    /// Maximum number of rows.
    pub(crate) limit: Option<usize>,
    /// Show all columns, and names in full.
    pub(crate) wide: bool,
    /// Text for null.
    pub(crate) null: &'a str,
    /// Show each row as a block of lines.
    pub(crate) expanded: bool,
    /// Width of the terminal; `None` for unlimited.
    pub(crate) width: Option<usize>,
}

/// A number with its unit, as text.
pub(crate) fn spell(unit: Unit, value: i64) -> String {
    match unit {
        Unit::Ns => human::nanos(value),
        Unit::EpochNs => human::time_of_day(value),
        Unit::Bytes => human::bytes(value),
        Unit::Count => human::count(value),
        Unit::Id | Unit::Share | Unit::Text | Unit::Flag => value.to_string(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
fn saturated(value: f64) -> i64 {
    value.round() as i64
}

/// Alignment and shortening of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Right-aligned, never shortened.
    Number,
    /// Names are shortened by their structure, other texts in the middle.
    Text,
    /// Shortened at the start: the end of a file path is the most informative part.
    Path,
}

/// Rows as text.
pub(crate) struct Table {
    columns: Vec<(String, Look)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&str, Look)]) -> Self {
        let columns = columns.iter().map(|(name, look)| ((*name).to_string(), *look));
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// A query's result. Columns `file` and `line` of a view are combined into one, in the syntax of editors. Unless `wide`,
    /// columns that are null in all rows are omitted.
    pub(crate) fn of(schema: &SchemaRef, batches: &[RecordBatch], shape: &Shape<'_>) -> Result<Self> {
        let items = shape.columns;
        let fields = schema.fields();
        let unit = |name: &str| items.iter().find(|c| c.name == name).map(|c| c.unit);
        let by_position = |at: usize| shape.units.get(at).copied().flatten();
        let units: Vec<_> =
            fields.iter().enumerate().map(|(at, f)| by_position(at).or_else(|| unit(f.name()))).collect();
        let place = fields.windows(2).position(|pair| pair[0].name() == "file" && pair[1].name() == "line");
        let place = place.filter(|_| !items.is_empty());

        let columns = fields.iter().zip(&units).map(|(field, unit)| {
            let look = if field.data_type().is_numeric() { Look::Number } else { Look::Text };
            let name = hud_common::clean(field.name()).into_owned();
            match (unit.filter(|_| !items.is_empty()), name.strip_suffix("_share")) {
                // `9.8 %` shows that it is a share.
                (Some(Unit::Share), Some(of)) if schema.column_with_name(of).is_none() => (of.to_string(), look),
                (Some(Unit::Share), Some(_)) => ("share".to_string(), look),
                _ => (name, look),
            }
        });
        let mut table = Self { columns: columns.collect(), rows: Vec::new() };
        if let Some(file) = place {
            table.columns.splice(file..file + 2, [("file:line".to_string(), Look::Path)]);
        }

        let options = FormatOptions::default().with_null(shape.null);
        for batch in batches {
            let formatters =
                batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().zip(&units).zip(&formatters);
                let cells = cells.map(|((column, unit), formatter)| match (unit, column.data_type()) {
                    _ if column.is_null(row) => shape.null.to_string(),
                    (Some(unit), DataType::Int64) => spell(*unit, column.as_primitive::<Int64Type>().value(row)),
                    (Some(unit), DataType::Int32) => spell(*unit, column.as_primitive::<Int32Type>().value(row).into()),
                    // A mean, in SQL.
                    (Some(Unit::Ns), DataType::Float64) => {
                        human::nanos(saturated(column.as_primitive::<Float64Type>().value(row)))
                    }
                    (Some(Unit::Share), DataType::Float64) => {
                        human::percent(column.as_primitive::<Float64Type>().value(row))
                    }
                    _ => hud_common::clean(&formatter.value(row).to_string()).into_owned(),
                });
                let mut cells: Vec<_> = cells.collect();
                if let Some(file) = place {
                    let line = cells.remove(file + 1);
                    if line != shape.null {
                        cells[file] = format!("{}:{line}", cells[file]);
                    }
                }
                table.rows.push(cells);
            }
        }
        if !items.is_empty() && !shape.wide {
            table.drop_empty(shape.null);
        }
        Ok(table)
    }

    fn drop_empty(&mut self, null: &str) {
        for i in (0..self.columns.len()).rev() {
            if !self.rows.is_empty() && self.rows.iter().all(|row| row[i] == null) {
                self.columns.remove(i);
                self.rows.iter_mut().for_each(|row| drop(row.remove(i)));
            }
        }
    }

    /// Leaves out columns until the table fits into `width` with whole identifiers, the least important first, and returns
    /// their names. The first column, the first column of names and two columns of numbers stay.
    pub(crate) fn leave_out(&mut self, width: usize) -> Vec<String> {
        let mut left_out = Vec::new();
        let mut least: Vec<usize> = (0..self.columns.len()).map(|at| self.least(at)).collect();
        while least.iter().sum::<usize>() + usize::from(GAP) * least.len().saturating_sub(1) > width {
            let ranks = self.ranks();
            let droppable = ranks.iter().enumerate().filter_map(|(at, rank)| Some((rank.as_ref()?, at)));
            // Of equal rank, the last.
            let Some((_, at)) = droppable.min_by_key(|(rank, at)| (**rank, std::cmp::Reverse(*at))) else { break };
            least.remove(at);
            left_out.push(self.columns.remove(at).0);
            self.rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
        left_out.reverse();
        left_out
    }

    /// How important each column is; `None` for those that stay.
    fn ranks(&self) -> Vec<Option<u8>> {
        let (mut numbers, mut names) = (0, 0);
        let rank = |(at, (_, look)): (usize, &(String, Look))| match look {
            Look::Number => {
                numbers += 1;
                (at > 0 && numbers > KEPT_NUMBERS).then_some(0)
            }
            Look::Path => Some(2),
            Look::Text if self.has_names(at) => {
                names += 1;
                (at > 0 && names > 1).then_some(3)
            }
            Look::Text if self.has_flags(at) => (at > 0).then_some(0),
            Look::Text => (at > 0).then_some(1),
        };
        self.columns.iter().enumerate().map(rank).collect()
    }

    fn has_flags(&self, column: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(column)).all(|cell| matches!(cell.as_str(), "true" | "false"))
    }

    fn has_names(&self, column: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(column)).any(|cell| is_name(cell))
    }

    /// The width to which a column may be shortened.
    fn least(&self, column: usize) -> usize {
        let Some((name, look)) = self.columns.get(column) else { return 0 };
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| match look {
            Look::Number => cell.width(),
            Look::Path => cell.rsplit('/').next().map_or(0, |file| file.width() + 1).min(cell.width()),
            Look::Text if is_name(cell) => least_width(cell),
            Look::Text => cell.width().min(MIN_WIDTH),
        });
        cells.max().unwrap_or(0).max(name.width())
    }

    fn own_widths(&self) -> Vec<usize> {
        let own = |(i, (name, _)): (usize, &(String, Look))| {
            let cells = self.rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.width());
            cells.max().unwrap_or(0).max(name.width())
        };
        self.columns.iter().enumerate().map(own).collect()
    }

    /// Writes the table, shortened to `width`.
    pub(crate) fn print(&self, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.render(width, may_colour()).as_bytes())
    }

    /// Writes each row as a block of lines.
    pub(crate) fn blocks(&self, out: &mut dyn Write) -> io::Result<()> {
        let wide = self.columns.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
        for (place, row) in self.rows.iter().enumerate() {
            writeln!(out, "-[ {} ]{}", place + 1, "-".repeat(wide))?;
            for ((name, _), cell) in self.columns.iter().zip(row) {
                writeln!(out, "{name}{} | {cell}", " ".repeat(wide.saturating_sub(name.width())))?;
            }
        }
        Ok(())
    }

    fn render(&self, width: Option<usize>, colour: bool) -> String {
        let widths = self.widths(width);
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        match colour {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.set_header(self.columns.iter().map(|(name, _)| match colour {
            true => Cell::new(name).add_attribute(Attribute::Bold),
            false => Cell::new(name),
        }));
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.columns);
            table.add_row(cells.map(|((cell, width), (_, look))| shorten(cell, *width, *look)));
        }
        let last = self.columns.len().saturating_sub(1);
        for (i, (column, (_, look))) in table.column_iter_mut().zip(&self.columns).enumerate() {
            if *look == Look::Number {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_padding((0, if i == last { 0 } else { GAP }));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Width of each column. If the table is too wide, the widest columns that may be shortened are narrowed: first to whole
    /// identifiers, and if that is not enough, further.
    fn widths(&self, total: Option<usize>) -> Vec<usize> {
        let mut widths = self.own_widths();
        let Some(total) = total else { return widths };
        let room = total.saturating_sub(usize::from(GAP) * self.columns.len().saturating_sub(1));
        if widths.iter().sum::<usize>() <= room {
            return widths;
        }
        let least: Vec<_> = (0..self.columns.len()).map(|at| self.least(at)).collect();
        for limits in [least, vec![MIN_WIDTH; self.columns.len()]] {
            while widths.iter().sum::<usize>() > room {
                let all = widths.iter_mut().zip(&self.columns).zip(&limits);
                let clipped = all.filter(|((width, (_, look)), limit)| *look != Look::Number && **width > **limit);
                match clipped.map(|((width, _), _)| width).max() {
                    Some(widest) => *widest -= 1,
                    None => break,
                }
            }
        }
        widths
    }

    /// Writes a Markdown table. Names with markup characters are formatted as code.
    pub(crate) fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.iter().map(|(name, _)| markdown_cell(name)).collect());
        let rule = |look: &Look| if *look == Look::Number { "--:" } else { "---" };
        text += &line(self.columns.iter().map(|(_, look)| rule(look).to_string()).collect());
        for row in &self.rows {
            text += &line(row.iter().map(|c| markdown_cell(c)).collect());
        }
        out.write_all(text.as_bytes())
    }
}

fn markdown_cell(cell: &str) -> String {
    let cell = cell.replace('|', "\\|");
    match cell.contains(['<', '>', '*', '_', '[', ']', '\\', '&', '~']) && !cell.contains('`') {
        true => format!("`{cell}`"),
        false => cell.replace('`', "\\`"),
    }
}

/// Shortens `text` to `width` columns.
fn shorten(text: &str, width: usize, look: Look) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    if look == Look::Text && is_name(text) {
        return fit_name(text, width);
    }
    let room = width.saturating_sub(1);
    let from_head = match look {
        Look::Path => 0,
        Look::Number | Look::Text => room / 4,
    };
    let head = take(text.chars(), from_head);
    let tail: String = take(text.chars().rev(), room - from_head).chars().rev().collect();
    format!("{head}…{tail}")
}

fn take(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("function", Look::Text), ("file:line", Look::Path), ("self", Look::Number)]);
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        table.push(row(["my_app::a_module::with_a_long_name::cpu_hog", "crates/my_app/src/main.rs:7", "1.99 s"]));
        table.push(row(["<u64>::wrapping_add", "-", "12.0 ms"]));
        table
    }

    #[test]
    fn right_aligns_numbers() {
        assert_eq!(
            table().render(None, false),
            "function                                     file:line                       self\n\
             my_app::a_module::with_a_long_name::cpu_hog  crates/my_app/src/main.rs:7   1.99 s\n\
             <u64>::wrapping_add                          -                            12.0 ms\n"
        );
    }

    #[test]
    fn shortens_names_to_fit_the_terminal() {
        assert_eq!(
            table().render(Some(60), false),
            "function             file:line                    self\n\
             …cpu_hog             …es/my_app/src/main.rs:7   1.99 s\n\
             <u64>::wrapping_add  -                         12.0 ms\n"
        );
    }

    #[test]
    fn leaves_out_the_least_important_columns_and_no_name() {
        let columns = [
            ("cause", Look::Text),
            ("spans", Look::Text),
            ("count", Look::Number),
            ("total", Look::Number),
            ("median", Look::Number),
            ("longest", Look::Number),
            ("function", Look::Text),
            ("file:line", Look::Path),
            ("task_type", Look::Text),
        ];
        let wide = || {
            let mut table = Table::new(&columns);
            let cells = [
                "cpu",
                "one poll",
                "56",
                "1.13 s",
                "20.1 ms",
                "20.6 ms",
                "app::burn_cpu",
                "src/main.rs:209",
                "app::cpu_hog",
            ];
            table.push(cells.map(String::from).to_vec());
            table
        };
        assert!(wide().leave_out(200).is_empty());
        assert_eq!(wide().leave_out(72), ["median", "longest"]);
        assert_eq!(wide().leave_out(60), ["spans", "median", "longest"]);
        let mut narrow = wide();
        assert_eq!(narrow.leave_out(42), ["file:line", "spans", "median", "longest"]);
        assert_eq!(
            narrow.render(Some(42), false),
            "cause  count   total  function   task_type\n\
             cpu       56  1.13 s  …burn_cpu  …cpu_hog\n"
        );
        assert_eq!(wide().leave_out(1).len(), 5, "the first, two numbers and the function stay");
    }

    #[test]
    fn escapes_markup_in_names() {
        let mut out = Vec::new();
        let mut table = Table::new(&[("function", Look::Text)]);
        table.push(vec!["<impl Fn(u8) | T>::call".into()]);
        table.markdown(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "| function |\n| --- |\n| `<impl Fn(u8) \\| T>::call` |\n");
    }

    #[test]
    fn counts_columns_not_characters() {
        assert_eq!(shorten("日本語日本語", 9, Look::Text), "日…日本語");
        assert_eq!(shorten("short", 5, Look::Text), "short");
        assert_eq!(shorten("longer", 5, Look::Text), "l…ger");
        assert_eq!(shorten("src/main.rs:7", 10, Look::Path), "…main.rs:7");
    }
}
