//! The columns of a lane of the timeline: its load in any part of the window, from the load of buckets and from the spans
//! within them.

use super::{Bucket, Lane, Load, Span, SpanKind, Status, Thresholds, TypeId};

/// A part of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneColumn {
    /// Its load; the time in which the thread was not observed is in none of the states.
    pub load: Load,
    /// The type of task that it ran for longest.
    pub task_type: Option<TypeId>,
    /// Whether it has a part of an interval past the limit of a caution, or of a warning.
    pub over: Option<Status>,
}

/// Maximum number of columns.
const MOST_COLUMNS: u16 = 4_096;

/// The columns of a range, by their edges: one more than there are columns. Dividing for each span took half of a frame's time.
struct Grid(Vec<i64>);

impl Grid {
    fn new(from: i64, dur: i64, columns: u16) -> Self {
        let edge = |at: u16| {
            let offset = i128::from(dur) * i128::from(at) / i128::from(columns.max(1));
            from.saturating_add(i64::try_from(offset).unwrap_or(dur))
        };
        Grid((0..=columns).map(edge).collect())
    }

    /// The columns that a range touches, and its part in each. `near` is the first column of the range before: ranges come in
    /// the order of their starts.
    fn touched(&self, (from, to): (i64, i64), near: &mut usize) -> impl Iterator<Item = (usize, i64)> + '_ {
        if self.0.get(*near).is_none_or(|edge| *edge > from) {
            *near = 0;
        }
        while self.0.get(*near + 1).is_some_and(|edge| *edge <= from) {
            *near += 1;
        }
        let edges = self.0.get(*near..).unwrap_or_default();
        let within = (*near..).zip(edges.windows(2)).map_while(move |(at, edges)| match edges {
            [start, end] if *start < to => Some((at, overlap((from, to), *start, *end))),
            _ => None,
        });
        within.filter(|(_, part)| *part > 0)
    }
}

fn overlap((from, to): (i64, i64), start: i64, end: i64) -> i64 {
    to.min(end).saturating_sub(from.max(start)).max(0)
}

/// Times by activity: asleep and runnable inside tasks, and in polls, which contain both.
#[derive(Clone, Copy, Default)]
struct Times {
    asleep: i64,
    waiting: i64,
    polled: i64,
}

impl Times {
    fn add(&mut self, kind: SpanKind, part: i64) {
        let of = match kind {
            SpanKind::Asleep => &mut self.asleep,
            SpanKind::Waiting => &mut self.waiting,
            SpanKind::Poll => &mut self.polled,
        };
        *of = of.saturating_add(part);
    }

    fn running(&self) -> i64 {
        self.polled.saturating_sub(self.asleep).saturating_sub(self.waiting).max(0)
    }
}

impl Lane {
    /// Its columns from an instant to another.
    pub fn columns(&self, from: i64, to: i64, columns: u16, thresholds: &Thresholds) -> Vec<LaneColumn> {
        let columns = columns.min(MOST_COLUMNS);
        let dur = to.saturating_sub(from).max(1);
        let grid = Grid::new(from, dur, columns);
        let mut out = vec![LaneColumn::default(); usize::from(columns)];
        let mut times = vec![Times::default(); usize::from(columns)];
        let mut longest = vec![0_i64; usize::from(columns)];
        // The spans within the buckets of steps, which are in their order.
        let mut known = vec![Times::default(); self.steps.len()];
        let step_at = |bucket: Bucket| self.steps.binary_search_by_key(&bucket.start(), |step| step.ts).ok();
        let mut near = 0;
        for span in &self.spans {
            let range = (span.ts, span.ts.saturating_add(span.dur));
            if range.1 <= from.saturating_sub(Bucket::NANOS) || range.0 >= to.saturating_add(Bucket::NANOS) {
                continue;
            }
            let over = over(span, thresholds);
            for (at, part) in grid.touched(range, &mut near) {
                let (Some(times), Some(column), Some(longest)) =
                    (times.get_mut(at), out.get_mut(at), longest.get_mut(at))
                else {
                    continue;
                };
                times.add(span.kind, part);
                column.over = column.over.max(over);
                if span.kind == SpanKind::Poll && part > *longest {
                    *longest = part;
                    column.task_type = span.task.task_type.as_ref().map(|of| of.id);
                }
            }
            let (first, last) = (Bucket::of(range.0.max(from)), Bucket::of(range.1.min(to).saturating_sub(1)));
            for bucket in (first.0..=last.0).map(Bucket) {
                if let Some(times) = step_at(bucket).and_then(|at| known.get_mut(at)) {
                    times.add(span.kind, overlap(range, bucket.start(), bucket.end()));
                }
            }
        }
        for (times, column) in times.iter().zip(&mut out) {
            column.load = Load { running: times.running(), blocked: times.asleep, waiting: times.waiting, idle: 0 };
        }
        near = 0;
        // What is too short for a span is spread over its bucket.
        for (step, known) in self.steps.iter().zip(&known) {
            let range = (step.ts, step.ts.saturating_add(Bucket::NANOS));
            let rest = Load {
                running: step.load.running.saturating_sub(known.running()).max(0),
                blocked: step.load.blocked.saturating_sub(known.asleep).max(0),
                waiting: step.load.waiting.saturating_sub(known.waiting).max(0),
                idle: step.load.idle,
            };
            for (at, part) in grid.touched(range, &mut near) {
                let (Some(column), Some(longest)) = (out.get_mut(at), longest.get(at)) else { continue };
                let share = |time: i64| {
                    i64::try_from(i128::from(time) * i128::from(part) / i128::from(Bucket::NANOS)).unwrap_or(0)
                };
                let of = Load {
                    running: share(rest.running),
                    blocked: share(rest.blocked),
                    waiting: share(rest.waiting),
                    idle: share(rest.idle),
                };
                if of.running > *longest && step.task_type.is_some() {
                    column.task_type = step.task_type.as_ref().map(|of| of.id);
                }
                column.load.add(&of);
            }
        }
        out
    }
}

/// Whether a span is past a limit: a long poll, or a sleep as long.
fn over(span: &Span, thresholds: &Thresholds) -> Option<Status> {
    let is_over = match span.kind {
        SpanKind::Poll => span.is_long,
        SpanKind::Asleep => span.dur > thresholds.long_poll,
        SpanKind::Waiting => false,
    };
    is_over.then_some(if span.dur > thresholds.very_long_poll { Status::Warning } else { Status::Caution })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, Step, TaskId, TaskRef, Tid};

    const MS: i64 = 1_000_000;

    fn lane(spans: &[(i64, i64, SpanKind)], steps: &[Load]) -> Lane {
        let span = |(ts, dur, kind): &(i64, i64, SpanKind)| Span {
            ts: ts * MS,
            dur: dur * MS,
            kind: *kind,
            task: TaskRef { id: TaskId(1), task_type: None },
            is_long: *kind == SpanKind::Poll && *dur > 10,
        };
        let step = |(at, load): (i64, &Load)| Step {
            ts: at * Bucket::NANOS,
            load: *load,
            polls: 0,
            longest_poll: 0,
            task_type: None,
        };
        Lane {
            tid: Tid(1),
            name: "".into(),
            role: Role::Worker,
            runtime: None,
            worker: None,
            steps: (0..).zip(steps).map(step).collect(),
            spans: spans.iter().map(span).collect(),
            left_out: 0,
        }
    }

    fn load(running: i64, blocked: i64, waiting: i64) -> Load {
        Load {
            running: running * MS,
            blocked: blocked * MS,
            waiting: waiting * MS,
            idle: (100 - running - blocked - waiting) * MS,
        }
    }

    #[test]
    fn wide_columns_have_the_load_of_their_buckets() {
        // A poll of 30 ms that slept for 20, and 15 ms of short polls.
        let lane = lane(&[(10, 30, SpanKind::Poll), (12, 20, SpanKind::Asleep)], &[load(25, 20, 0), load(50, 0, 10)]);
        let columns = lane.columns(0, 2 * Bucket::NANOS, 1, &Thresholds::default());
        assert_eq!(columns[0].load, Load { running: 75 * MS, blocked: 20 * MS, waiting: 10 * MS, idle: 95 * MS });
        assert_eq!(columns[0].over, Some(Status::Caution));
    }

    #[test]
    fn narrow_columns_show_spans_where_they_are() {
        let lane = lane(&[(10, 30, SpanKind::Poll), (20, 20, SpanKind::Asleep)], &[load(10, 20, 0)]);
        let columns = lane.columns(0, Bucket::NANOS, 10, &Thresholds::default());
        let shown: Vec<(i64, i64)> = columns.iter().map(|of| (of.load.running / MS, of.load.blocked / MS)).collect();
        assert_eq!(shown, [(0, 0), (10, 0), (0, 10), (0, 10), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]);
        assert_eq!(
            columns.iter().map(|of| of.over.is_some()).collect::<Vec<_>>()[..5],
            [false, true, true, true, false]
        );
    }

    #[test]
    fn any_range_and_number_of_columns_will_do() {
        let all = [(0, 90, SpanKind::Poll), (95, 200, SpanKind::Waiting)];
        let lane = lane(&all, &[load(90, 0, 5), load(0, 0, 100)]);
        for (from, to) in [(0, 1), (-5 * MS, 7 * MS), (i64::MIN, i64::MAX), (50, 50), (900 * MS, 901 * MS)] {
            for columns in [0, 1, 7, 3_000] {
                assert_eq!(lane.columns(from, to, columns, &Thresholds::default()).len(), usize::from(columns));
            }
        }
    }
}
