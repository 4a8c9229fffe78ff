//! Names of functions and types in little room: shortened by their structure.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::names::{segments, short_type};

/// Whether a text is a path of modules, types and functions.
pub fn is_name(text: &str) -> bool {
    text.contains("::")
}

/// `name` in at most `width` cells: without generic arguments, then without closures, then without leading modules. The last
/// identifier is cut only if it does not fit itself.
pub fn fit(name: &str, width: usize) -> String {
    if name.width() <= width {
        return name.to_owned();
    }
    let (indent, name) = indent(name);
    format!("{}{}", indent.get(..width / 2).unwrap_or(indent), unindented(name, width - indent.len().min(width / 2)))
}

/// The spaces at the start, and the rest.
fn indent(name: &str) -> (&str, &str) {
    name.split_at(name.len() - name.trim_start_matches(' ').len())
}

fn unindented(name: &str, width: usize) -> String {
    if name.width() <= width {
        return name.to_owned();
    }
    let short = short_type(name);
    let mut segments = segments(&short);
    // The width of the segments from each on, with the `::` between them.
    let widths = |segments: &[&str]| -> Vec<usize> {
        let mut sum = 0;
        let each = segments.iter().rev().enumerate().map(|(after, segment)| {
            sum += segment.width() + if after > 0 { 2 } else { 0 };
            sum
        });
        let mut widths: Vec<usize> = each.collect();
        widths.reverse();
        widths
    };
    let is_body = |segment: &&str| segment.starts_with('{');
    let mut whole = widths(&segments).first().copied().unwrap_or_default();
    while whole > width && segments.len() > 1 && segments.last().is_some_and(is_body) {
        whole = whole.saturating_sub(segments.pop().map_or(0, |body| body.width() + 2));
    }
    if whole <= width {
        return segments.join("::");
    }
    let fits = widths(&segments).into_iter().skip(1).position(|rest| rest < width);
    if let Some(from) = fits {
        return format!("…{}", segments.get(from + 1..).unwrap_or_default().join("::"));
    }
    let last = segments.last().copied().unwrap_or_default();
    let mut used = 1;
    let head = last.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    head.collect::<String>() + if width > 0 { "…" } else { "" }
}

/// The width below which the last identifier does not fit.
pub fn least(name: &str) -> usize {
    let (indent, name) = indent(name);
    let short = short_type(name);
    let mut segments = segments(&short);
    while segments.len() > 1 && segments.last().is_some_and(|segment| segment.starts_with('{')) {
        segments.pop();
    }
    let mark = usize::from(segments.len() > 1);
    indent.len() + segments.last().map_or(0, |last| last.width() + mark).min(name.width())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "tonic::transport::server::serve_connection<hyper::body::Incoming, tonic::Executor>";

    #[test]
    fn gives_up_arguments_then_modules_and_never_the_last_identifier() {
        assert_eq!(fit(NAME, 200), NAME);
        assert_eq!(fit(NAME, 60), "tonic::transport::server::serve_connection");
        assert_eq!(fit(NAME, 40), "…transport::server::serve_connection");
        assert_eq!(fit(NAME, 30), "…server::serve_connection");
        assert_eq!(fit(NAME, 20), "…serve_connection");
        assert_eq!(least(NAME), "…serve_connection".width());
        assert_eq!(fit(NAME, 8), "serve_c…");
        assert_eq!(fit("app::main::{closure}::{closure}", 16), "app::main");
        assert_eq!(fit("<app::Server as core::future::Future>::poll", 12), "…poll");
        assert_eq!(fit("    app::orders::checkout", 16), "    …checkout");
        assert_eq!((fit("main", 4), least("main"), least("")), ("main".into(), 4, 0));
    }

    #[test]
    fn fits_any_name() {
        let names = ["", "::", "a::", "::{x}", "日本::日本語", "a::<b", "x::{{{", "\u{1f600}::y::\u{1f600}"];
        for name in names.iter().copied().chain([NAME]) {
            for width in 1..40 {
                assert!(fit(name, width).width() <= width, "{name:?} at {width}: {:?}", fit(name, width));
            }
        }
    }
}
