//! A table of text: cells cleaned, numbers to the right, long names clipped in their middle where it must fit.

use std::io::{self, Write};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{may_colour, spell, terminal_width};
use crate::{
    clean,
    error::Result,
    human,
    view::{Item, Unit},
};

/// Space between columns.
const GAP: usize = 2;
/// No column is clipped below this, however narrow the terminal.
const MIN_WIDTH: usize = 12;

/// Rows as text.
pub(crate) struct Table {
    names: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
    has_more: bool,
}

impl Table {
    /// An empty table of columns `names`, of which those with `true` hold numbers.
    pub(crate) fn new(names: &[(&str, bool)]) -> Self {
        Self {
            names: names.iter().map(|(name, _)| (*name).to_string()).collect(),
            right: names.iter().map(|(_, right)| *right).collect(),
            rows: Vec::new(),
            has_more: false,
        }
    }

    /// With one row more.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The first `limit` rows of a query's answer.
    pub(crate) fn of(
        schema: &SchemaRef,
        batches: &[RecordBatch],
        columns: &[Item],
        limit: Option<usize>,
    ) -> Result<Self> {
        let fields = schema.fields();
        let unit = |name: &str| columns.iter().find(|c| c.name == name).map(|c| c.unit);
        let units: Vec<_> = fields.iter().map(|f| unit(f.name())).collect();
        let mut table = Self {
            names: fields
                .iter()
                .map(|f| clean::text(f.name()).into_owned())
                .collect(),
            right: fields.iter().map(|f| f.data_type().is_numeric()).collect(),
            rows: Vec::new(),
            has_more: false,
        };
        let options = FormatOptions::default().with_null("-");
        for batch in batches {
            let formatters = batch
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c, &options))
                .collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                if limit.is_some_and(|limit| table.rows.len() >= limit) {
                    table.has_more = true;
                    return Ok(table);
                }
                let cells = batch.columns().iter().zip(&units).zip(&formatters);
                let cells =
                    cells.map(
                        |((column, unit), formatter)| match (unit, column.data_type()) {
                            _ if column.is_null(row) => "-".to_string(),
                            (Some(unit), DataType::Int64) => {
                                spell(*unit, column.as_primitive::<Int64Type>().value(row))
                            }
                            (Some(unit), DataType::Int32) => {
                                spell(*unit, column.as_primitive::<Int32Type>().value(row).into())
                            }
                            (Some(Unit::Share), DataType::Float64) => {
                                human::percent(column.as_primitive::<Float64Type>().value(row))
                            }
                            _ => clean::text(&formatter.value(row).to_string()).into_owned(),
                        },
                    );
                table.rows.push(cells.collect());
            }
        }
        Ok(table)
    }

    /// Whether rows were left out.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// To a terminal, within its width; to anything else in full.
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = self.render(terminal_width(), may_colour());
        out.write_all(text.as_bytes())
    }

    fn render(&self, width: Option<usize>, colour: bool) -> String {
        let widths = self.widths(width);
        let mut table = comfy_table::Table::new();
        table
            .load_preset(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        match colour {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.set_header(self.names.iter().map(|name| match colour {
            true => Cell::new(name).add_attribute(Attribute::Bold),
            false => Cell::new(name),
        }));
        for row in &self.rows {
            table.add_row(
                row.iter()
                    .zip(&widths)
                    .map(|(cell, width)| clip(cell, *width)),
            );
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            if self.right.get(i).is_some_and(|right| *right) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_padding((0, u16::try_from(GAP).unwrap_or(1)));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// How wide each column may be: its own width, or, where the table is too wide, the widest text columns give way.
    fn widths(&self, total: Option<usize>) -> Vec<usize> {
        let own = |i: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(i))
                .map(|cell| cell.width());
            cells
                .chain(self.names.get(i).map(|name| name.width()))
                .max()
                .unwrap_or(0)
        };
        let mut widths: Vec<_> = (0..self.names.len()).map(own).collect();
        let Some(total) = total else { return widths };
        let gaps = GAP * self.names.len().saturating_sub(1);
        loop {
            let sum: usize = widths.iter().sum::<usize>() + gaps;
            let widest = widths
                .iter_mut()
                .zip(&self.right)
                .filter(|(_, right)| !**right)
                .map(|(w, _)| w)
                .max();
            match widest {
                Some(widest) if sum > total && *widest > MIN_WIDTH => *widest -= 1,
                _ => return widths,
            }
        }
    }

    /// As a table for a document. Names stand as code where they would be read as markup.
    pub(crate) fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.names.iter().map(|n| markdown_cell(n)).collect());
        text += &line(
            self.right
                .iter()
                .map(|right| if *right { "--:" } else { "---" }.to_string())
                .collect(),
        );
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

/// `text` in at most `width` columns, its middle left out: the ends of a path or of a function tell the most.
pub(crate) fn clip(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let room = width.saturating_sub(1);
    let head = take(text.chars(), room / 2);
    let tail: String = take(text.chars().rev(), room - room / 2)
        .chars()
        .rev()
        .collect();
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
        let mut table = Table::new(&[("function", false), ("self", true)]);
        table.push(vec![
            "test_async_app::a_module::with_a_long_name::cpu_hog".into(),
            "1.99 s".into(),
        ]);
        table.push(vec!["<u64>::wrapping_add".into(), "12.0 ms".into()]);
        table
    }

    #[test]
    fn numbers_stand_to_the_right() {
        assert_eq!(
            table().render(None, false),
            "function                                                self\n\
             test_async_app::a_module::with_a_long_name::cpu_hog   1.99 s\n\
             <u64>::wrapping_add                                  12.0 ms\n"
        );
    }

    #[test]
    fn it_fits_the_terminal_and_keeps_both_ends_of_a_name() {
        let text = table().render(Some(40), false);
        assert!(text.lines().all(|l| l.width() <= 40), "{text}");
        assert!(text.contains("test_async_app:…g_name::cpu_hog"), "{text}");
        assert!(text.contains("<u64>::wrapping_add"), "{text}");
    }

    #[test]
    fn a_name_is_no_markup() {
        let mut out = Vec::new();
        let mut table = Table::new(&[("function", false)]);
        table.push(vec!["<impl Fn(u8) | T>::call".into()]);
        table.markdown(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "| function |\n| --- |\n| `<impl Fn(u8) \\| T>::call` |\n"
        );
    }

    #[test]
    fn clipping_counts_columns_not_characters() {
        assert_eq!(clip("日本語日本語", 7), "日…語");
        assert_eq!(clip("short", 5), "short");
        assert_eq!(clip("longer", 5), "lo…er");
    }
}
