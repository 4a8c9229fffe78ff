//! Folded stacks, `outermost;…;leaf nanoseconds`, and the flame graph that inferno draws of them.

use std::{collections::BTreeMap, io::Write};

use hud_common::session::Table;
use inferno::flamegraph;

use crate::{
    Error, Kind, Options, Result, Rows, Summary,
    events::Reader,
    names::{Frame, Names, Origin},
    notes,
    out::Out,
    weigh,
};

/// Largest total in a drawing: inferno adds counts without overflow checks.
const MOST: i128 = 1 << 56;

fn table(kind: Kind) -> Table {
    match kind {
        Kind::Cpu => Table::Samples,
        Kind::OffCpu => Table::OffCpu,
        Kind::Await => Table::TaskStates,
    }
}

/// A name that is valid in a line: without semicolons, which separate frames, and without a number at its end, which
/// readers would take for a count.
fn foldable(name: &str) -> String {
    let mut name = name.replace(';', ":");
    if let Some((head, tail)) = name.rsplit_once(' ')
        && (tail.is_empty() || tail.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
    {
        name = format!("{head}_{tail}");
    }
    if name.is_empty() { "<unknown>".into() } else { name }
}

/// Suffixes by which flame graphs colour kernel and inlined frames.
fn suffix(frame: &Frame) -> &'static str {
    match frame {
        Frame { origin: Origin::Kernel, .. } => "_[k]",
        Frame { inline_depth: 1.., .. } => "_[i]",
        _ => "",
    }
}

/// Nanoseconds by line.
fn lines(reader: &mut Reader<'_>, options: &Options, summary: &mut Summary) -> Result<BTreeMap<String, i64>> {
    let names = Names::read(reader.rows(), true)?;
    summary.notes = notes::of(reader, options.window, &[table(options.kind)])?;
    let sums = match options.kind {
        Kind::Cpu => {
            let (sums, samples) = weigh::cpu(reader, &names)?;
            summary.samples = samples;
            sums
        }
        Kind::OffCpu => {
            let (sums, slices, clipped) = weigh::off_cpu(reader, &names)?;
            summary.slices = slices;
            if clipped > 0 {
                summary.notes.push(format!("{clipped} intervals are clipped to the time range"));
            }
            sums
        }
        Kind::Await => {
            let (sums, slices) = weigh::awaits(reader, &names)?;
            summary.slices = slices;
            sums
        }
    };
    let mut lines: BTreeMap<String, i64> = BTreeMap::new();
    for (key, weight) in sums.sorted() {
        let mut line = match (&key.task, options.by_task) {
            (_, false) => String::new(),
            (Some(task), true) => foldable(task),
            (None, true) => foldable(&format!("[{}]", names.thread(key.tid))),
        };
        let frames = names.stack(key.stack).iter().rev().filter_map(|frame| names.frame(*frame));
        let mut has_frames = false;
        for frame in frames {
            has_frames = true;
            if !line.is_empty() {
                line.push(';');
            }
            line.push_str(&foldable(&frame.name));
            line.push_str(suffix(frame));
        }
        if !has_frames {
            line.push_str(if line.is_empty() { "<no stack>" } else { ";<no stack>" });
        }
        let sum = lines.entry(line).or_default();
        *sum = sum.saturating_add(weight.ns);
    }
    lines.retain(|_, ns| *ns > 0);
    summary.entries = lines.len() as u64;
    Ok(lines)
}

pub(crate) fn write(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    let tables = [Table::Coverage, Table::Drops, table(options.kind)];
    let mut reader = Reader::new(rows, options, &tables, progress)?;
    let mut summary = Summary::default();
    let lines = lines(&mut reader, options, &mut summary)?;
    let mut out = Out::new(out);
    for (line, ns) in lines {
        writeln!(out, "{line} {ns}")?;
    }
    reader.finish();
    summary.bytes = out.finish()?;
    Ok(summary)
}

/// Draws them, in microseconds.
pub(crate) fn draw(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    let tables = [Table::Coverage, Table::Drops, table(options.kind)];
    let mut reader = Reader::new(rows, options, &tables, progress)?;
    let mut summary = Summary::default();
    let lines = lines(&mut reader, options, &mut summary)?;
    if lines.is_empty() {
        let table = table(options.kind).name();
        let why = summary.notes.iter().find(|note| note.starts_with(table)).cloned();
        return Err(Error::Nothing(why.unwrap_or_else(|| format!("no {table} in the window"))));
    }
    let total: i128 = lines.values().map(|ns| i128::from(*ns)).sum();
    let unit = (total / MOST + 1).max(1);
    if unit > 1 {
        summary.notes.push(format!("times are beyond belief; they are drawn in units of {unit} ns"));
    }
    let counted: Vec<String> =
        lines.iter().map(|(line, ns)| format!("{line} {}", (i128::from(*ns) / unit).max(1))).collect();

    let manifest = rows.manifest();
    let what = match options.kind {
        Kind::Cpu => "CPU time",
        Kind::OffCpu => "time off CPU",
        Kind::Await => "waiting time of tasks",
    };
    let exe = hud_common::clean_name(manifest.exe.rsplit('/').next().unwrap_or_default());
    let mut drawing = flamegraph::Options::default();
    drawing.title = options.title.clone().unwrap_or_else(|| format!("{exe}: {what}"));
    drawing.subtitle = (!summary.notes.is_empty()).then(|| summary.notes.join("; "));
    drawing.count_name = "µs".into();
    drawing.factor = 0.001;
    drawing.name_type = "Function:".into();
    drawing.deterministic = true;
    drawing.colors = match options.kind {
        Kind::Cpu => flamegraph::Palette::Multi(flamegraph::color::MultiPalette::Rust),
        Kind::OffCpu => flamegraph::Palette::Basic(flamegraph::color::BasicPalette::Blue),
        Kind::Await => flamegraph::Palette::Basic(flamegraph::color::BasicPalette::Aqua),
    };
    let mut out = Out::new(out);
    flamegraph::from_lines(&mut drawing, counted.iter().map(String::as_str), &mut out)?;
    reader.finish();
    summary.bytes = out.finish()?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_mistaken_for_nothing_else() {
        assert_eq!(foldable("<[u8; 4]>::map"), "<[u8: 4]>::map");
        assert_eq!(foldable("step 12"), "step_12");
        assert_eq!(foldable("step 1.5"), "step_1.5");
        assert_eq!(foldable("ends in a blank "), "ends in a blank_");
        assert_eq!(foldable("impl Future for T"), "impl Future for T");
        assert_eq!(foldable(""), "<unknown>");
    }
}
