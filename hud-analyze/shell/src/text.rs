//! Text for a terminal: aligned columns, wrapped lines, formatted times and counts.

use std::time::Duration;

use hud_common::clean;
use unicode_width::UnicodeWidthStr as _;

/// The narrowest column that is wrapped; narrower ones keep long lines.
const NARROWEST: usize = 20;

/// Rows of cells, each column as wide as its widest cell. The last one is wrapped to fit `width`, if given. Cells are
/// sanitized here.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]], indent: &str, width: Option<usize>) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| clean(cell).into_owned())).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let before = indent.width() + widths.iter().take(N.saturating_sub(1)).map(|width| width + 2).sum::<usize>();
    let mut out = String::new();
    for row in &rows {
        let Some((last, firsts)) = row.split_last() else { continue };
        let mut head = indent.to_owned();
        for (cell, width) in firsts.iter().zip(widths) {
            head.push_str(cell);
            head.push_str(&" ".repeat((width + 2).saturating_sub(cell.width())));
        }
        for line in wrap(last, width.map_or(usize::MAX, |width| width.saturating_sub(before))) {
            out.push_str(format!("{head}{line}").trim_end());
            out.push('\n');
            head = " ".repeat(before);
        }
    }
    out
}

/// `text` in lines of this number of columns, broken between words; at least one line, which may be empty.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while columns >= NARROWEST && rest.width() > columns {
        // A word longer than the line stays whole.
        let fitting = cut(rest, columns + 1).rfind(' ').filter(|at| *at > 0).or_else(|| rest.find(' '));
        let Some(at) = fitting else { break };
        lines.push(rest[..at].trim_end());
        rest = rest[at..].trim_start();
    }
    lines.push(rest);
    lines
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

/// `text`, cut to this number of terminal columns.
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
        assert_eq!(columns(&rows, " ", None), " 日本  x\n a     \\x1b[2J\n");
        let rows =
            [["a".to_owned(), "words that are more than fit a line".to_owned()], ["b".to_owned(), String::new()]];
        assert_eq!(columns(&rows, "", Some(25)), "a  words that are more\n   than fit a line\nb\n");
        assert_eq!(columns(&rows, "", Some(5)).lines().count(), 2);
    }

    #[test]
    fn words_are_wrapped_and_none_is_lost() {
        for seed in 1..500_u64 {
            let mut random = crate::random::Random::new(seed);
            let text: String = (0..random.below(200)).map(|_| ["a", " ", "日", "bc "][random.below(4)]).collect();
            let columns = random.below(40);
            let lines = wrap(&text, columns);
            assert!(lines.join(" ").split_whitespace().eq(text.split_whitespace()), "{text:?}");
            let fits = |line: &&str| line.width() <= columns || !line.trim().contains(' ') || columns < NARROWEST;
            assert!(lines.iter().all(fits), "{text:?} {lines:?}");
        }
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
