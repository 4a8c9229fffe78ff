//! The part of the window that the timeline shows, its marked column and its selected lane.

use crate::{Tid, Window};

/// The shortest part of the window that the timeline shows (ns).
const MIN_DURATION: i64 = 10_000;

/// The timeline's zoom and selection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lens {
    /// Start and length of the part; `None` is the whole window.
    part: Option<(i64, i64)>,
    /// The time range of the column that was clicked.
    pub(super) mark: Option<(i64, i64)>,
    /// The selected lane by its thread, as lanes change places.
    pub(super) lane: Option<Tid>,
}

impl Lens {
    /// The time range that is shown.
    pub(super) fn range(&self, window: Window) -> (i64, i64) {
        let (start, end) = (window.start(), window.end());
        match self.part {
            Some((from, dur)) if dur < end.saturating_sub(start) => {
                let from = from.clamp(start, end.saturating_sub(dur).max(start));
                (from, from.saturating_add(dur))
            }
            _ => (start, end),
        }
    }

    pub(super) fn show_all(&mut self) {
        self.part = None;
    }

    /// Moves by an eighth of the range. Returns how far the window has to move, if the range would leave it.
    pub(super) fn pan(&mut self, by: isize, window: Window) -> Option<i64> {
        let (from, to) = self.range(window);
        let dur = to.saturating_sub(from);
        let step = (dur / 8).max(1).saturating_mul(if by < 0 { -1 } else { 1 });
        let wanted = from.saturating_add(step);
        let is_inside = wanted >= window.start() && wanted.saturating_add(dur) <= window.end();
        if dur < window.dur() && is_inside {
            self.part = Some((wanted, dur));
            return None;
        }
        if self.part.is_some() {
            self.part = Some((wanted, dur));
        }
        // The window moves by whole buckets.
        Some(if step < 0 { step.min(-crate::Bucket::NANOS) } else { step.max(crate::Bucket::NANOS) })
    }

    /// Halves the range around the mark, else around its middle.
    pub(super) fn zoom_in(&mut self, window: Window) {
        let (centre, dur) = self.centre(window);
        let dur = (dur / 2).max(MIN_DURATION);
        self.part = Some((centre.saturating_sub(dur / 2), dur));
    }

    /// Doubles the range. Returns `false` if it is the whole window already.
    pub(super) fn zoom_out(&mut self, window: Window) -> bool {
        let (centre, dur) = self.centre(window);
        if dur >= window.dur() {
            return false;
        }
        let dur = dur.saturating_mul(2);
        self.part = (dur < window.dur()).then(|| (centre.saturating_sub(dur / 2), dur));
        true
    }

    /// The centre of a zoom, and the length of the range.
    fn centre(&self, window: Window) -> (i64, i64) {
        let (from, to) = self.range(window);
        let middle = |(from, to): (i64, i64)| from.saturating_add(to.saturating_sub(from) / 2);
        let mark = self.mark.map(middle).filter(|centre| (from..to).contains(centre));
        (mark.unwrap_or_else(|| middle((from, to))), to.saturating_sub(from))
    }

    /// Shows the part that another session's timeline shows, shifted by `by` (ns).
    pub(super) fn follow(&mut self, leader: &Lens, by: i64) {
        self.part = leader.part.map(|(from, dur)| (from.saturating_add(by), dur));
    }
}
