//! "Reading this screen": what the figures of each screen mean. The second page of the help.

use super::screen::Screen;

/// A term on a screen, and its meaning.
pub(super) type Line = (&'static str, &'static str);

/// What every screen shows around its lists.
const FRAME: &[Line] = &[
    ("status", "the worst finding; NORMAL: none; NO DATA: nothing was recorded, so no finding is no evidence"),
    ("drops", "events that were lost in this window"),
    ("polls 40 %", "the least recorded stream: hud stays within its budget (0 session lists all)"),
    ("hud 2.4 %", "what hud itself costs, in CPUs"),
    ("bottom bars", "longest poll or sleep of each moment, coloured by its severity; the mark is the instant shown"),
    ("window", "the time up to that instant that all figures cover: + and - change it"),
    ("14.2 s+", "a poll that has not returned: it lasts at least so long"),
    ("~", "an estimate: from samples or sums, not from single events"),
];

const BLOCKING: &[Line] = &[
    ("blocked", "a task slept inside a poll: its worker could poll nothing else"),
    ("cpu", "a task computed inside a poll for longer than the limit (10 ms)"),
    ("short", "sleeps below 1 ms each, whose sum is over the limit"),
    ("times, total", "number of intervals, and their sum"),
    ("code, at", "the first own function on the stack, and where it slept; of cpu, its hottest line"),
    ("stack", "of the row under the cursor, leaf first; own code is bright"),
];

const HOTSPOTS: &[Line] = &[
    ("self", "CPU time attributed to this code: it is the first own function on the stack, from the leaf"),
    ("total", "CPU time of all stacks that contain it"),
    ("calling", "the function at the leaf of most of self, if that is another one"),
    ("task type", "whose polls most of self was in"),
];

const TASKS: &[Line] = &[
    ("polls", "polls that ended in the window"),
    ("busy", "time computing inside polls: neither asleep nor waiting for a CPU"),
    ("longest", "the longest poll; with +, one that has not returned"),
    ("delay", "mean time from a wake to the poll that it led to"),
    ("blocked", "time asleep inside polls"),
    ("CPU", "CPU time by samples: an estimate that needs no polls"),
    ("by self", "wakes of a task by itself"),
    ("state", "in poll: a poll has not returned; idle: since the last event of the task"),
];

const WORKERS: &[Line] = &[
    ("load", "the worker's time: blocked, busy, waiting for a CPU, idle"),
    ("busy", "share of its observed time on a CPU"),
    ("blocked", "share asleep inside polls"),
    ("waiting", "share runnable while no CPU was free: the machine is short of CPU"),
    ("now", "what it polls, and since when; idle: no event since then"),
    ("pool", "threads of spawn_blocking: sleeping is their purpose"),
];

const TIMELINE: &[Line] = &[
    ("a lane", "a worker; p and a number: a thread of the blocking pool"),
    ("height", "the share of the time in which the thread was busy or blocked"),
    ("colour", "the type of task; red: asleep inside a poll; amber: a long poll"),
    ("grey", "runnable without a CPU"),
];

const FLAME: &[Line] = &[
    ("a box", "a function; its width is the CPU time of the stacks through it"),
    ("rows", "callers above, callees below; the top is all of it"),
    ("t", "one type of task after the other"),
];

const LATENCY: &[Line] = &[
    ("polls", "how long polls took, in buckets whose width doubles"),
    ("wake to poll", "how long woken tasks waited for a worker"),
    ("p50, p99", "half, and 99 of 100, took no longer"),
];

const FINDINGS: &[Line] = &[
    ("warning", "tasks are stopped, or a limit is far exceeded"),
    ("caution", "a limit is exceeded"),
    ("evidence", "the figures, the first with the limit that it exceeds"),
    ("arrow", "what to do; docs/FINDINGS.md has each rule"),
];

const SESSION: &[Line] = &[
    ("stream", "a kind of event"),
    ("recorded", "share of the window in which it was recorded; not recorded is no evidence of none"),
    ("off, unknown", "time in which it was off, and time of which the recorder has not reported yet"),
    ("reason", "why it was turned on or off last"),
];

/// What a screen's figures mean, in groups: a title and its lines.
pub(super) fn of(screen: Screen) -> Vec<(&'static str, &'static [Line])> {
    let own: &[(&'static str, &'static [Line])] = match screen {
        Screen::Overview => &[("Blocking", BLOCKING), ("Hotspots", HOTSPOTS), ("Workers", WORKERS), ("Tasks", TASKS)],
        Screen::Hotspots => &[("Hotspots", HOTSPOTS)],
        Screen::Blocking => &[("Blocking", BLOCKING)],
        Screen::Tasks | Screen::Task => &[("Tasks", TASKS)],
        Screen::Timeline => &[("Timeline", TIMELINE)],
        Screen::Flame => &[("Flame graph", FLAME)],
        Screen::Latency => &[("Latency", LATENCY)],
        Screen::Workers => &[("Workers", WORKERS)],
        Screen::Findings => &[("Findings", FINDINGS)],
        Screen::Session => &[("Session", SESSION)],
    };
    own.iter().copied().chain([("On every screen", FRAME)]).collect()
}
