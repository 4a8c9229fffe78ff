//! How a part of a worker's time is drawn: the one rule of the cockpit's timeline and of the command `timeline`.
//!
//! The height is the share of the time in which the worker was not idle. From the bottom it is blocked, running and waiting
//! time, to the eighth of a cell; a cell with parts of several of them has the colour of the largest.

use super::Load;

/// What a worker did, if it was not idle: the parts of a column, from the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// Asleep inside a task.
    Blocked,
    /// On a CPU.
    Running,
    /// Runnable without a CPU.
    Waiting,
}

impl Activity {
    /// All of them, from the bottom.
    pub const ALL: [Activity; 3] = [Activity::Blocked, Activity::Running, Activity::Waiting];

    /// Its time in a load.
    pub const fn time(self, load: &Load) -> i64 {
        match self {
            Activity::Blocked => load.blocked,
            Activity::Running => load.running,
            Activity::Waiting => load.waiting,
        }
    }
}

/// A cell of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCell {
    /// Eighths that are filled from the bottom, 1 to 8.
    pub eighths: i64,
    /// What took most of them.
    pub activity: Activity,
    /// What fills the rest of a full cell above the `eighths` of another activity.
    pub above: Option<Activity>,
}

/// Share of a column below which it counts as idle: 1 / this. A thread that wakes now and then would else look busy.
const IDLE: i64 = 100;

/// The cells of a column of `time` ns that is `rows` high, from the bottom; `None` is empty. A column that was not idle for a
/// hundredth of the time has at least an eighth.
pub fn lane_cells(load: &Load, time: i64, rows: u16) -> Vec<Option<LaneCell>> {
    let height = i64::from(rows) * 8;
    let scaled = |part: i64| {
        let eighths = (i128::from(part.max(0)) * i128::from(height) + i128::from(time) / 2) / i128::from(time.max(1));
        i64::try_from(eighths).unwrap_or(height).min(height)
    };
    // Where each activity ends, so that rounding does not add up.
    let (mut sum, mut start) = (0_i64, 0);
    let mut parts = Activity::ALL.map(|activity| {
        sum = sum.saturating_add(activity.time(load).max(0));
        let part = (activity, start, scaled(sum));
        start = part.2;
        part
    });
    if sum > time / IDLE && start == 0 {
        let most = Activity::ALL.into_iter().map(|activity| activity.time(load)).max();
        let first = parts.iter_mut().find(|(activity, ..)| Some(activity.time(load)) == most);
        if let Some((_, _, end)) = first {
            *end = 1;
        }
    }
    (0..i64::from(rows)).map(|row| cell(&parts, row * 8)).collect()
}

/// The cell whose lowest eighth is `bottom`, of parts with their start and end.
fn cell(parts: &[(Activity, i64, i64); 3], bottom: i64) -> Option<LaneCell> {
    let here = parts.map(|(activity, start, end)| (activity, (end.min(bottom + 8) - start.max(bottom)).max(0)));
    let filled: i64 = here.iter().map(|(_, eighths)| eighths).sum();
    let mut shown = here.into_iter().filter(|(_, eighths)| *eighths > 0);
    if let (8, Some((first, eighths)), Some((second, _)), None) = (filled, shown.next(), shown.next(), shown.next()) {
        return Some(LaneCell { eighths, activity: first, above: Some(second) });
    }
    // Of equal parts, the lowest.
    let most = here.into_iter().rev().max_by_key(|(_, eighths)| *eighths).filter(|(_, eighths)| *eighths > 0);
    most.map(|(activity, _)| LaneCell { eighths: filled, activity, above: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(blocked: i64, running: i64, waiting: i64, rows: u16) -> Vec<Option<(i64, Activity, Option<Activity>)>> {
        let load = Load { running, blocked, waiting, idle: 0 };
        let all = lane_cells(&load, 100, rows).into_iter();
        all.map(|cell| cell.map(|of| (of.eighths, of.activity, of.above))).collect()
    }

    use Activity::{Blocked, Running, Waiting};

    #[test]
    fn the_height_is_the_share_that_was_not_idle() {
        assert_eq!(cells(0, 0, 0, 1), [None]);
        assert_eq!(cells(0, 50, 0, 1), [Some((4, Running, None))]);
        assert_eq!(cells(0, 100, 0, 2), [Some((8, Running, None)); 2]);
        assert_eq!(cells(0, 50, 0, 2), [Some((8, Running, None)), None]);
        assert_eq!(cells(0, 2, 0, 1), [Some((1, Running, None))], "little is visible");
        assert_eq!(cells(0, 1, 0, 1), [None], "a hundredth is not");
        assert_eq!(cells(0, 1_000, 0, 1), [Some((8, Running, None))], "no more than all");
    }

    #[test]
    fn a_cell_has_the_colour_of_what_took_most_of_it() {
        assert_eq!(cells(5, 60, 0, 1), [Some((5, Running, None))]);
        assert_eq!(cells(40, 20, 0, 1), [Some((5, Blocked, None))]);
        assert_eq!(cells(0, 10, 60, 1), [Some((6, Waiting, None))]);
    }

    #[test]
    fn a_full_cell_shows_both_of_two_parts() {
        assert_eq!(cells(25, 75, 0, 1), [Some((2, Blocked, Some(Running)))]);
        assert_eq!(cells(50, 25, 25, 2), [Some((8, Blocked, None)), Some((4, Running, Some(Waiting)))]);
        assert_eq!(cells(20, 40, 40, 1), [Some((8, Running, None))], "of three, the first of the largest");
    }
}
