//! Fits text to cells: sanitizes, measures and cuts it.
//!
//! Names come from the target and may be hostile. The output of this file moves no cursor, has at most the requested width,
//! and at most [`MOST_MARKS`] combining marks per character.

use std::borrow::Cow;

use hud_units::{fit_name, is_name, least_width};
use unicode_width::UnicodeWidthChar as _;

use crate::clean;

/// Maximum number of combining marks per character: enough for any script, and too few to cover the lines above.
const MOST_MARKS: usize = 3;
/// Number of bytes of a name that are examined at each end, per cell: a character with its marks. It bounds the time of a
/// frame for any names.
const BYTES_A_CELL: usize = 8;

/// The part of a text that is cut if it does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The end, of sentences.
    End,
    /// The middle.
    Middle,
    /// Names, alone or in a text: generic arguments first, then leading modules, never the last identifier if it fits.
    Name,
    /// The start, of paths, as file name and line matter most.
    Start,
}

/// `text`, sanitized, in at most `width` cells.
pub(super) fn fit(text: &str, width: usize, cut: Cut, ellipsis: char) -> Cow<'_, str> {
    if text.len() <= width && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Cow::Borrowed(text);
    }
    let cells = cells(text, width);
    let total: usize = cells.iter().map(|(_, w)| w).sum();
    let mut out = String::with_capacity(text.len().min(4 * width + 8));
    if cut == Cut::Name && total > width {
        return Cow::Owned(fit(&shortened(text, width, ellipsis), width, Cut::Middle, ellipsis).into_owned());
    }
    if total <= width {
        cells.iter().for_each(|(c, _)| out.push(*c));
        return Cow::Owned(out);
    }
    let room = width.saturating_sub(1);
    let (head, tail) = match cut {
        Cut::End => (room, 0),
        Cut::Middle | Cut::Name => (room / 3, room - room / 3),
        Cut::Start => (0, room),
    };
    if width == 0 {
        return Cow::Borrowed("");
    }
    let mut used = 0;
    for &(c, w) in &cells {
        if used + w > head {
            break;
        }
        used += w;
        out.push(c);
    }
    out.push(ellipsis);
    let mut from = cells.len();
    let mut used = 0;
    // A mark at the cut belongs to a character that is cut: it is cut as well.
    for (at, &(_, w)) in cells.iter().enumerate().rev() {
        if used + w > tail {
            break;
        }
        used += w;
        if w > 0 {
            from = at;
        }
    }
    cells.get(from..).unwrap_or_default().iter().for_each(|(c, _)| out.push(*c));
    Cow::Owned(out)
}

/// Length of a text whose names are shortened by their structure (bytes). It bounds the time of a frame.
const LONGEST: usize = 2_000;

/// A text with its names shortened by structure, the longest first, until it has `room` cells or nothing more can be given up.
pub(super) fn shortened(text: &str, room: usize, ellipsis: char) -> String {
    if text.len() > LONGEST {
        return text.to_owned();
    }
    let mut words: Vec<String> = words(text).into_iter().map(str::to_owned).collect();
    // A name alone: its last identifier may be cut as well.
    if let ([name], true) = (words.as_slice(), is_name(text)) {
        return fit_name(name, room).replace('…', ellipsis.encode_utf8(&mut [0; 4]));
    }
    let mut over = words.iter().map(|word| width(word) + 1).sum::<usize>().saturating_sub(room + 1);
    while over > 0 {
        let can_give = |word: &&mut String| is_name(word) && width(word) > least_width(word);
        let Some(longest) = words.iter_mut().filter(can_give).max_by_key(|word| width(word)) else { break };
        let before = width(longest);
        let shorter = fit_name(longest, before.saturating_sub(1).max(least_width(longest)));
        if width(&shorter) >= before {
            break;
        }
        over = over.saturating_sub(before - width(&shorter));
        *longest = shorter;
    }
    words.join(" ").replace('…', ellipsis.encode_utf8(&mut [0; 4]))
}

/// The words between spaces that are in no bracket.
fn words(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut words) = (0_usize, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' | b'[' | b'{' => depth += 1,
            b'>' | b']' | b'}' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 => {
                words.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(text.get(start..).unwrap_or_default());
    words
}

/// Number of cells of a sanitized text.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { cells(text, text.len()).iter().map(|(_, w)| w).sum() }
}

/// The characters of a text with their widths: sanitized, marks limited, the middle of a very long one left out.
fn cells(text: &str, width: usize) -> Vec<(char, usize)> {
    let most = width.saturating_mul(BYTES_A_CELL).saturating_add(64);
    let mut out = Vec::with_capacity(text.len().min(most.saturating_mul(2)));
    if text.len() / 2 > most {
        let head = text.floor_char_boundary(most);
        let tail = text.floor_char_boundary(text.len() - most);
        push_cells(&mut out, text.get(..head).unwrap_or_default());
        push_cells(&mut out, text.get(tail..).unwrap_or_default());
    } else {
        push_cells(&mut out, text);
    }
    out
}

fn push_cells(out: &mut Vec<(char, usize)>, text: &str) {
    // A mark at the start would be drawn on the cell to its left.
    let mut marks = MOST_MARKS;
    for c in clean(text).chars() {
        match c {
            // Terminals differ in the width of these: they are left out.
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => {}
            '\u{180b}'..='\u{180f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{1f3fb}'..='\u{1f3ff}'
            | '\u{e0000}'..='\u{e0fff}' => {}
            c => match c.width().unwrap_or(0) {
                0 if marks < MOST_MARKS => {
                    marks += 1;
                    out.push((c, 0));
                }
                0 => {}
                w => {
                    marks = 0;
                    out.push((c, w));
                }
            },
        }
    }
}

/// A sentence as at most `most` lines of `room` cells: broken at spaces, long words cut.
pub(super) fn wrap(text: &str, room: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let word: Cow<'_, str> = fit(word, room, Cut::Middle, '~');
        if !line.is_empty() && width(&line) + 1 + width(&word) > room {
            lines.push(std::mem::take(&mut line));
            if lines.len() >= most {
                return lines;
            }
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_ends_of_a_name() {
        assert_eq!(fit("app::db::pool::query", 11, Cut::Middle, '…'), "app…::query");
        assert_eq!(fit("src/very/long/main.rs:12", 11, Cut::Start, '…'), "…main.rs:12");
        assert_eq!(fit("a sentence", 5, Cut::End, '~'), "a se~");
        assert_eq!(fit("short", 5, Cut::Middle, '…'), "short");
        assert_eq!(fit("anything", 0, Cut::Middle, '…'), "");
    }

    #[test]
    fn shortened_sentences_keep_their_figures() {
        let text = "app::orders::checkout held worker 0 for 312 ms in app::db::pool::query::{async_fn#0}";
        let short = |room| shortened(text, room, '…');
        assert_eq!(short(100), text);
        assert_eq!(short(80), "app::orders::checkout held worker 0 for 312 ms in app::db::pool::query");
        assert_eq!(short(66), "…orders::checkout held worker 0 for 312 ms in app::db::pool::query");
        assert_eq!(short(55), "…checkout held worker 0 for 312 ms in …db::pool::query");
        assert_eq!(short(50), "…checkout held worker 0 for 312 ms in …pool::query");
        assert_eq!(short(9), "…checkout held worker 0 for 312 ms in …query");
        assert_eq!(shortened(text, 9, '~'), "~checkout held worker 0 for 312 ms in ~query");
        assert_eq!(fit("app::serve<tonic::Executor, u8> #12", 15, Cut::Name, '…'), "app::serve #12");
        assert_eq!(fit("app::serve<tonic::Executor, u8> #12", 10, Cut::Name, '…'), "…serve #12");
    }

    #[test]
    fn limits_the_width_and_moves_no_cursor() {
        let hostile = [
            "\x1b[2J\x1b[H",
            "日本語のタスク名",
            "e\u{301}\u{302}\u{303}\u{304}\u{305}",
            "\u{202e}abc",
            "👩\u{200d}👩",
            "\u{301}x",
            "ｱ\u{ff9e}\t\r\n",
        ];
        for text in hostile {
            for cut in [Cut::End, Cut::Middle, Cut::Start] {
                for most in 0..20 {
                    let shown = fit(text, most, cut, '…');
                    assert!(width(&shown) <= most, "{text:?} at {most}: {shown:?}");
                    assert!(!shown.chars().any(char::is_control));
                }
            }
        }
    }

    #[test]
    fn limits_combining_marks() {
        let tower = format!("a{}", "\u{301}".repeat(4_000));
        assert_eq!(fit(&tower, 10, Cut::Middle, '…').chars().filter(|c| *c == '\u{301}').count(), MOST_MARKS);
        assert_eq!(fit("\u{301}x", 10, Cut::Middle, '…'), "x");
    }
}
