//! Draws the timeline as text: a line per worker, a character per step.
//!
//! A step shows the state other than idle that took most of it, if that is at least a fifth: over a whole session a worker is
//! idle for most of each step, and shorter states would not be visible.

use std::{collections::BTreeMap, io::Write};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};
use crossterm::style::{Color, Stylize as _};

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

/// State of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Blocked,
    Waiting,
    Idle,
}

impl State {
    const ALL: [State; 4] = [State::Running, State::Blocked, State::Waiting, State::Idle];

    /// The state to show for a step, from the time in each state.
    fn of_step(times: [i64; 4]) -> Self {
        let fifth = times.iter().sum::<i64>() / 5;
        let active = Self::ALL.into_iter().zip(times).take(3).rev().max_by_key(|(_, time)| *time);
        active.filter(|(_, time)| *time > 0 && *time >= fifth).map_or(State::Idle, |(state, _)| state)
    }

    const fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Blocked => "blocked",
            State::Waiting => "waiting",
            State::Idle => "idle",
        }
    }

    const fn letter(self, ascii: bool) -> char {
        match (self, ascii) {
            (State::Running, false) => '█',
            (State::Blocked, false) => '╳',
            (State::Waiting, false) => '░',
            (State::Idle, false) => '·',
            (State::Running, true) => 'R',
            (State::Blocked, true) => 'B',
            (State::Waiting, true) => 'w',
            (State::Idle, true) => '.',
        }
    }

    const fn colour(self) -> Color {
        match self {
            State::Running => Color::Green,
            State::Blocked => Color::Red,
            State::Waiting => Color::Yellow,
            State::Idle => Color::DarkGrey,
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

/// State by number of the step, for each worker.
type Lanes = BTreeMap<Worker, BTreeMap<i64, State>>;

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
        let [running, blocked, waiting, idle] = State::ALL.map(|state| long(state.name()));
        let times = [running?, blocked?, waiting?, idle?];
        for row in 0..batch.num_rows() {
            let who = Worker {
                runtime: runtime.is_valid(row).then(|| runtime.value(row)),
                worker: worker.is_valid(row).then(|| worker.value(row)),
                tid: tid.value(row),
            };
            let state = State::of_step(times.map(|time| time.value(row)));
            lanes.entry(who).or_default().insert((ts.value(row) - window.from) / step, state);
        }
    }
    Ok(lanes)
}

fn render(lanes: &Lanes, window: Window, step: i64, columns: i64, ascii: bool, colour: bool) -> String {
    if lanes.is_empty() {
        return "no worker was observed in this time range\n".into();
    }
    let paint = |state: State, text: String| match colour {
        true => text.with(state.colour()).to_string(),
        false => text,
    };
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
        for (who, states) in lanes {
            text += &format!("{:<LABEL$}", who.label(runtimes));
            // A run of equal states is painted at once.
            let mut at = from;
            while at < to {
                let state = states.get(&at);
                let run = (at..to).take_while(|i| states.get(i) == state).count();
                let letter = state.map_or(' ', |s| s.letter(ascii));
                let letters = letter.to_string().repeat(run);
                text += &state.map_or(letters.clone(), |s| paint(*s, letters));
                at += i64::try_from(run).unwrap_or(1).max(1);
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text += &axis(from, to, step);
        from = to;
    }
    let legend = State::ALL.map(|s| format!("{} {}", paint(s, s.letter(ascii).to_string()), s.name()));
    text + &format!("{:LABEL$}{}\n", "", legend.join("   "))
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

    fn lanes() -> Lanes {
        let lane = |states: &[(i64, State)]| states.iter().copied().collect();
        let worker = |worker| Worker { runtime: Some(0), worker: Some(worker), tid: 100 + worker };
        Lanes::from([
            (worker(0), lane(&[(0, State::Running), (1, State::Running), (2, State::Blocked), (4, State::Idle)])),
            (worker(1), lane(&[(3, State::Waiting)])),
        ])
    }

    const WINDOW: Window = Window { from: 0, to: 25_000_000 };

    #[test]
    fn draws_a_lane_per_worker_and_a_letter_per_step() {
        assert_eq!(
            render(&lanes(), WINDOW, 5_000_000, 100, false, false),
            "00:00:00.000 to 00:00:00.025 UTC, 5.00 ms a column\n\
             worker 0      ██╳ ·\n\
             worker 1         ░\n              \
             |+0 ns\n              \
             █ running   ╳ blocked   ░ waiting   · idle\n"
        );
    }

    #[test]
    fn a_state_that_took_a_fifth_of_a_step_precedes_idle() {
        assert_eq!(State::of_step([5, 15, 1, 30]), State::Blocked);
        assert_eq!(State::of_step([20, 15, 1, 30]), State::Running);
        assert_eq!(State::of_step([4, 1, 9, 36]), State::Idle);
        assert_eq!(State::of_step([0, 0, 0, 0]), State::Idle);
        assert_eq!(State::of_step([7, 7, 7, 0]), State::Running);
    }

    #[test]
    fn wraps_steps_beyond_the_width() {
        assert_eq!(
            render(&lanes(), WINDOW, 5_000_000, 3, true, false),
            "00:00:00.000 to 00:00:00.025 UTC, 5.00 ms a column\n\
             worker 0      RRB\n\
             worker 1\n              \
             |+0 ns\n\
             worker 0       .\n\
             worker 1      w\n              \
             |+15.0 ms\n              \
             R running   B blocked   w waiting   . idle\n"
        );
    }
}
