//! Text for a terminal: columns that line up, times and counts that people read.

use std::time::Duration;

use hud_common::clean;
use unicode_width::UnicodeWidthStr as _;

/// Rows of cells, each column as wide as its widest cell; the last one is not padded. Cells are cleaned here.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]], indent: &str) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| clean(cell).into_owned())).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat((width + 2).saturating_sub(cell.width())));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A duration: `12.4 ms`.
pub(crate) fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let tenths = |unit: u128, name: &str| format!("{}.{} {name}", nanos / unit, nanos % unit * 10 / unit);
    match nanos {
        0..1_000_000 => tenths(1_000, "µs"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => tenths(1_000_000_000, "s"),
        _ => format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

/// A count: `12.3 M`.
pub(crate) fn count(count: u64) -> String {
    let tenths = |unit: u64, name: &str| format!("{}.{} {name}", count / unit, count % unit * 10 / unit);
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000 => tenths(1_000, "k"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "M"),
        _ => tenths(1_000_000_000, "G"),
    }
}

/// `text`, cut to so many columns of a terminal.
pub(crate) fn cut(text: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, c) in text.char_indices() {
        width += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if width > columns {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_are_harmless() {
        let rows = [["日本".to_owned(), "x".to_owned()], ["a".to_owned(), "\x1b[2J".to_owned()]];
        assert_eq!(columns(&rows, " "), " 日本  x\n a     \\x1b[2J\n");
    }

    #[test]
    fn figures_are_read_by_people() {
        assert_eq!(duration(Duration::from_micros(12_480)), "12.4 ms");
        assert_eq!(duration(Duration::from_nanos(900)), "0.9 µs");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(duration(Duration::MAX).split(' ').nth(1), Some("min"));
        assert_eq!((count(99_999), count(12_345_678), count(u64::MAX)).1, "12.3 M");
        assert_eq!(cut("日本x", 4), "日本");
        assert_eq!(cut("日本x", 3), "日");
    }
}
