//! Times below a strip or below lanes, at round steps.

use ratatui::layout::Rect;

use super::{
    clock::Clock,
    format::{since, time_of_day},
    paint::{Canvas, Cx},
    text::Cut,
};

/// Least number of cells from one time on the axis to the next.
const TICK: i64 = 14;
/// Steps of the axis from a second on (s).
const STEPS: [i64; 16] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 18_000, 43_200];
const SECOND: i64 = 1_000_000_000;

/// The step of an axis: 1, 2 or 5 of a power of ten below a second, above it what clocks are divided by.
fn tick(dur: i64, width: u16) -> i64 {
    let least = i128::from(dur) * i128::from(TICK) / i128::from(width.max(1));
    let below = (0..9).flat_map(|power| [1, 2, 5].map(|n| n * 10_i64.pow(power)));
    let above = STEPS.into_iter().map(|seconds| seconds * SECOND);
    let days = (0..20).map(|n| (86_400 * SECOND) << n.min(16));
    below.chain(above).chain(days).find(|step| i128::from(*step) >= least).unwrap_or(i64::MAX)
}

/// The axis of a time range, by the clock of the screen.
pub(super) fn draw(cx: &Cx<'_>, canvas: &mut Canvas<'_>, area: Rect, from: i64, to: i64) {
    let dur = to.saturating_sub(from).max(1);
    let clock = cx.state.clock();
    let zero = clock.zero(cx.snapshot.session.start);
    let step = tick(dur, area.width);
    let begin = from.saturating_sub(zero);
    let mut at = begin.div_euclid(step).saturating_mul(step);
    if at < begin {
        at = at.saturating_add(step);
    }
    while at < begin.saturating_add(dur) {
        let x = i128::from(at.saturating_sub(begin)) * i128::from(area.width) / i128::from(dur);
        let x = area.x.saturating_add(u16::try_from(x).unwrap_or(u16::MAX));
        let label = label(clock, at, step);
        let room = area.right().saturating_sub(x);
        // No half a time at the right edge.
        if usize::from(room) > label.len() {
            canvas.text(cx, (x, area.y), room, &format!("'{label}"), cx.theme.dim, Cut::End);
        }
        at = at.saturating_add(step);
        if at == i64::MAX {
            break;
        }
    }
}

/// A time on the axis with as many decimals as the step needs: `+1:02`, `+1:02.5`, `+1:02.512`.
fn label(clock: Clock, at: i64, step: i64) -> String {
    let is_relative = clock == Clock::Relative;
    let text = if is_relative { since(at) } else { time_of_day(at) };
    let millis = if is_relative { at.saturating_abs() } else { at };
    match step {
        SECOND.. => text.rsplit_once('.').map_or(text.clone(), |(whole, _)| whole.into()),
        100_000_000.. => text,
        _ => format!("{text}{:02}", millis.div_euclid(1_000_000).rem_euclid(100)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_round_steps() {
        const MS: i64 = 1_000_000;
        for (dur, width, step) in [
            (10 * SECOND, 110, 2 * SECOND),
            (10 * SECOND, 70, 2 * SECOND),
            (60 * SECOND, 110, 10 * SECOND),
            (42_500 * MS, 120, 5 * SECOND),
            (1_250 * MS, 100, 200 * MS),
            (3_600 * SECOND, 100, 600 * SECOND),
            (7 * 86_400 * SECOND, 100, 86_400 * SECOND),
        ] {
            assert_eq!(tick(dur, width), step, "{dur} in {width} cells");
        }
        assert!(tick(i64::MAX, 1) > 0 && tick(0, 0) > 0);
        assert_eq!(label(Clock::Relative, 62 * SECOND, SECOND), "+1:02");
        assert_eq!(label(Clock::Relative, 62_500 * MS, 500 * MS), "+1:02.5");
        assert_eq!(label(Clock::Relative, 62_512 * MS, MS), "+1:02.512");
        assert_eq!(label(Clock::Utc, 62_512 * MS, MS), "00:01:02.512");
        assert_eq!(label(Clock::Utc, 3_662 * SECOND, 2 * SECOND), "01:01:02");
    }
}
