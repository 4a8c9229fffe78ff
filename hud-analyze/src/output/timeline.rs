//! Draws the timeline as text: a line per worker, a column per step, by the rule of the cockpit's timeline
//! ([`lane_cells`]): the height is the share of the step in which the worker was not idle, the colour what took most of that.
//! Without colours, further lines show blocked and waiting time.

use std::{collections::BTreeMap, io::Write};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};
use crossterm::style::{Color, Stylize as _};
use hud_common::cockpit::{Activity, LaneCell, Load, lane_cells};

use crate::{
    error::{Error, Result},
    human,
    output::stdout::{may_colour, terminal_width},
    query::window::Window,
};

/// Width of a lane's label.
const LABEL: usize = 14;
/// Width without a terminal.
const WIDTH: usize = 114;

/// Glyphs of a height, from an eighth to all.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['.', '.', ':', ':', '-', '=', '+', '#'];

const fn name(activity: Activity) -> &'static str {
    match activity {
        Activity::Blocked => "blocked",
        Activity::Running => "running",
        Activity::Waiting => "waiting",
    }
}

const fn colour(activity: Activity) -> Color {
    match activity {
        Activity::Blocked => Color::Red,
        Activity::Running => Color::Green,
        Activity::Waiting => Color::DarkGrey,
    }
}

fn glyph(eighths: i64, ascii: bool) -> char {
    let glyphs = if ascii { &ASCII } else { &HEIGHTS };
    usize::try_from(eighths - 1).ok().and_then(|at| glyphs.get(at)).copied().unwrap_or(' ')
}

/// How a line is drawn.
#[derive(Clone, Copy)]
struct Pen {
    ascii: bool,
    colour: bool,
}

impl Pen {
    fn paint(self, text: String, ink: Option<Activity>, above: Option<Activity>) -> String {
        match ink.filter(|_| self.colour) {
            None => text,
            Some(ink) => {
                let text = text.with(colour(ink));
                match above {
                    Some(above) => text.on(colour(above)).to_string(),
                    None => text.to_string(),
                }
            }
        }
    }

    /// A run of equal columns.
    fn columns(self, of: Option<Option<LaneCell>>, count: usize) -> String {
        match of {
            // Not observed.
            None => " ".repeat(count),
            Some(None) => (if self.ascii { '.' } else { '·' }).to_string().repeat(count),
            // Without colours, two activities that fill a cell are one.
            Some(Some(cell)) if cell.above.is_some() && !self.colour => glyph(8, self.ascii).to_string().repeat(count),
            Some(Some(cell)) => {
                let text = glyph(cell.eighths, self.ascii).to_string().repeat(count);
                self.paint(text, Some(cell.activity), cell.above)
            }
        }
    }
}

/// A worker, ordered as the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worker {
    runtime: Option<i64>,
    worker: Option<i32>,
    tid: i32,
}

/// Load by number of the step, for each worker.
type Lanes = BTreeMap<Worker, BTreeMap<i64, Load>>;

/// Number of steps per line.
pub(crate) fn columns() -> i64 {
    let width = terminal_width().unwrap_or(WIDTH).saturating_sub(LABEL).max(10);
    i64::try_from(width).unwrap_or(100)
}

/// Draws the rows of the view `timeline`.
pub(crate) fn draw(rows: &[RecordBatch], window: Window, step: i64, ascii: bool, out: &mut dyn Write) -> Result<()> {
    let text = render(&lanes(rows, window, step)?, window, step, columns(), ascii, may_colour());
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write the result"))
}

fn lanes(batches: &[RecordBatch], window: Window, step: i64) -> Result<Lanes> {
    let missing = |column: &str| Error::View { view: "timeline", why: format!("there is no column {column}") };
    let mut lanes = Lanes::new();
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| missing(name));
        let long = |name: &str| Ok::<_, Error>(column(name)?.as_primitive::<Int64Type>());
        let int = |name: &str| Ok::<_, Error>(column(name)?.as_primitive::<Int32Type>());
        let (ts, runtime, worker, tid) = (long("ts")?, long("runtime_id")?, int("worker")?, int("tid")?);
        let (running, blocked) = (long("running")?, long("blocked")?);
        let (waiting, idle) = (long("waiting")?, long("idle")?);
        for row in 0..batch.num_rows() {
            let who = Worker {
                runtime: runtime.is_valid(row).then(|| runtime.value(row)),
                worker: worker.is_valid(row).then(|| worker.value(row)),
                tid: tid.value(row),
            };
            let load = Load {
                running: running.value(row),
                blocked: blocked.value(row),
                waiting: waiting.value(row),
                idle: idle.value(row),
            };
            lanes.entry(who).or_default().insert((ts.value(row) - window.from) / step, load);
        }
    }
    Ok(lanes)
}

fn render(lanes: &Lanes, window: Window, step: i64, columns: i64, ascii: bool, colour: bool) -> String {
    if lanes.is_empty() {
        return "no worker was observed in this time range\n".into();
    }
    let pen = Pen { ascii, colour };
    let runtimes = lanes.keys().filter(|w| w.runtime != lanes.keys().next().and_then(|w| w.runtime)).count() > 0;
    let steps = (window.dur() + step - 1) / step;
    let mut text = format!(
        "{} to {} UTC, {} a column\n",
        human::time_of_day(window.from),
        human::time_of_day(window.to),
        human::nanos(step)
    );
    let mut from = 0;
    while from < steps {
        let to = (from + columns).min(steps);
        for (who, loads) in lanes {
            let length = |at: i64| step.min(window.dur() - at * step);
            let whole = |at: i64| loads.get(&at).map(|load| cell(load, length(at)));
            line(&mut text, &who.label(runtimes), pen, from..to, whole);
            // Causes that colours would show.
            for cause in [Activity::Blocked, Activity::Waiting].into_iter().filter(|_| !colour) {
                let alone = |load: &Load| match cause {
                    Activity::Blocked => Load { running: 0, waiting: 0, ..*load },
                    _ => Load { running: 0, blocked: 0, ..*load },
                };
                if (from..to).any(|at| loads.get(&at).is_some_and(|load| cause.time(load) > 0)) {
                    let of = |at: i64| loads.get(&at).map(|load| cell(&alone(load), length(at)));
                    line(&mut text, &format!("  {}", name(cause)), pen, from..to, of);
                }
            }
        }
        text += &axis(from, to, step);
        from = to;
    }
    let full = glyph(8, ascii).to_string();
    let causes = [Activity::Running, Activity::Blocked, Activity::Waiting];
    let causes = causes.map(|cause| format!("{} {}", pen.paint(full.clone(), Some(cause), None), name(cause)));
    let idle = if ascii { "." } else { "·" };
    let legend = match colour {
        true => format!("height: share of the time not idle; {}   {idle} idle", causes.join("   ")),
        false => format!("height: share of the time not idle, below it blocked and waiting for a CPU; {idle} idle"),
    };
    text + &format!("{:LABEL$}{legend}\n", "")
}

/// The cell of a step.
fn cell(load: &Load, step: i64) -> Option<LaneCell> {
    lane_cells(load, step, 1).into_iter().next().flatten()
}

/// A line of columns; runs of equal ones are painted at once.
fn line(
    text: &mut String,
    label: &str,
    pen: Pen,
    steps: std::ops::Range<i64>,
    of: impl Fn(i64) -> Option<Option<LaneCell>>,
) {
    *text += &format!("{label:<LABEL$}");
    let mut at = steps.start;
    while at < steps.end {
        let shown = of(at);
        let run = (at..steps.end).take_while(|at| of(*at) == shown).count();
        *text += &pen.columns(shown, run);
        at += i64::try_from(run).unwrap_or(1).max(1);
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// A line of times since the start of the window, every 20 columns.
fn axis(from: i64, to: i64, step: i64) -> String {
    let mut line = " ".repeat(LABEL);
    for at in (from..to).step_by(20) {
        line += &format!("{:<20}", format!("|+{}", human::nanos(at * step)));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

impl Worker {
    fn label(self, with_runtime: bool) -> String {
        match (self.worker, self.runtime) {
            (Some(worker), Some(runtime)) if with_runtime => format!("worker {runtime}/{worker}"),
            (Some(worker), _) => format!("worker {worker}"),
            _ => format!("thread {}", self.tid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn load(running: i64, blocked: i64, waiting: i64) -> Load {
        Load { running: running * MS, blocked: blocked * MS, waiting: waiting * MS, idle: 0 }
    }

    fn lanes() -> Lanes {
        let lane = |loads: &[(i64, Load)]| loads.iter().copied().collect();
        let worker = |worker| Worker { runtime: Some(0), worker: Some(worker), tid: 100 + worker };
        Lanes::from([
            (worker(0), lane(&[(0, load(5, 0, 0)), (1, load(2, 0, 0)), (2, load(1, 4, 0)), (4, load(0, 0, 0))])),
            (worker(1), lane(&[(3, load(0, 0, 3))])),
        ])
    }

    const WINDOW: Window = Window { from: 0, to: 25_000_000 };

    #[test]
    fn draws_the_share_of_the_time_that_was_not_idle() {
        assert_eq!(
            render(&lanes(), WINDOW, 5_000_000, 100, false, false),
            "00:00:00.000 to 00:00:00.025 UTC, 5.00 ms a column\n\
             worker 0      █▃█ ·\n  \
             blocked     ··▆ ·\n\
             worker 1         ▅\n  \
             waiting        ▅\n              \
             |+0 ns\n              \
             height: share of the time not idle, below it blocked and waiting for a CPU; · idle\n"
        );
    }

    #[test]
    fn wraps_steps_beyond_the_width() {
        assert_eq!(
            render(&lanes(), WINDOW, 5_000_000, 3, true, false),
            "00:00:00.000 to 00:00:00.025 UTC, 5.00 ms a column\n\
             worker 0      #:#\n  \
             blocked     ..=\n\
             worker 1\n              \
             |+0 ns\n\
             worker 0       .\n\
             worker 1      -\n  \
             waiting     -\n              \
             |+15.0 ms\n              \
             height: share of the time not idle, below it blocked and waiting for a CPU; . idle\n"
        );
    }

    #[test]
    fn colours_show_the_cause() {
        let text = render(&lanes(), WINDOW, 5_000_000, 100, false, true);
        let green = "█".with(Color::Green).to_string();
        let both = "▆".with(Color::Red).on(Color::Green).to_string();
        assert!(text.contains(&green) && text.contains(&both), "{text:?}");
        assert!(!text.contains("\n  blocked"), "{text}");
    }
}
