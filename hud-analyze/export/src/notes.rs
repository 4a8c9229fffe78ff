//! Notes on data that an export cannot show: absence of evidence must not look like evidence.

use std::collections::BTreeMap;

use hud_common::{clean_name, session::Table, units::duration};

use crate::{Result, events::Reader};

/// Streams that are mentioned; an untrusted session may name any number.
const MOST_STREAMS: usize = 64;

/// Says for which part of the window these streams were observed, and their losses.
pub(crate) fn of(reader: &mut Reader<'_>, window: Option<(i64, i64)>, streams: &[Table]) -> Result<Vec<String>> {
    let manifest = reader.rows().manifest().clone();
    let mut watched: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut last = manifest.end.unwrap_or(manifest.start);
    reader.coverage(|span, stream, _| {
        last = last.max(span.to);
        if watched.len() < MOST_STREAMS || watched.contains_key(stream) {
            // Time ranges come in the order of their starts: overlaps count once.
            let (sum, until) = watched.entry(stream.to_string()).or_insert((0, i64::MIN));
            *sum = sum.saturating_add(span.to.saturating_sub(span.from.max(*until)).max(0));
            *until = span.to.max(*until);
        }
        Ok(())
    })?;
    let (from, to) = window.unwrap_or((manifest.start, last));
    let (from, to) = (from.max(manifest.start), to.min(last));
    let all = to.saturating_sub(from);
    let mut notes = Vec::new();
    for stream in streams {
        let on = watched.get(stream.name()).map_or(0, |(sum, _)| *sum);
        // Streams of a recording do not all start and end at the same instant.
        if all > 0 && on < all - all / 100 {
            notes.push(match on {
                0 => format!("{} were not watched: that there are none says nothing", stream.name()),
                _ => format!("{} were watched for {} of {}", stream.name(), duration(on), duration(all)),
            });
        }
    }
    let mut lost: BTreeMap<(String, String), i64> = BTreeMap::new();
    reader.drops(|_, stream, stage, count| {
        if lost.len() < MOST_STREAMS {
            let sum = lost.entry((clean_name(stream), clean_name(stage))).or_default();
            *sum = sum.saturating_add(count);
        }
        Ok(())
    })?;
    notes.extend(
        lost.into_iter().map(|((stream, stage), count)| format!("{count} events of {stream} were lost ({stage})")),
    );
    Ok(notes)
}
