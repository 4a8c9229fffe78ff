//! "Reading this screen": what the figures of each screen mean. The second page of the help.

use super::screen::Screen;

/// A term on a screen, and its meaning.
pub(super) type Line = (&'static str, &'static str);

/// What every screen shows around its lists.
const FRAME: &[Line] = &[
    ("≥ ~", "at least; an estimate: a stream was recorded in a part of the window only, see the last line"),
    ("status", "the worst finding; NORMAL: none; NO DATA: nothing was recorded, so no finding is no evidence"),
    ("drops", "events that were lost in this window"),
    ("hud 2.4 %", "what hud itself costs, in CPUs"),
    ("bottom bars", "longest poll or sleep of each moment, coloured by its severity; the mark is the instant shown"),
    ("window", "the time up to that instant that all figures cover: + and - change it"),
    ("14.2 s+", "a poll that has not returned: it lasts at least so long"),
    ("~", "an estimate: from samples or sums, not from single events"),
];

const DIALS: &[Line] = &[
    ("polls per second", "of the time in which polls were recorded"),
    ("poll p99", "99 of 100 polls took no longer"),
    ("wake to poll p99", "99 of 100 woken tasks waited no longer for their poll"),
    ("workers busy", "share of the workers' time on a CPU"),
    ("short of CPU", "share of their time in which they could run and no CPU was free: the machine's fault"),
    ("workers blocked", "share of their time asleep inside tasks"),
    ("bars", "the last 60 s; amber: over the limit"),
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
    ("attrib", "CPU time attributed to this code: it is the first own function on the stack, from the leaf"),
    ("self", "CPU time in it alone: it is the leaf itself, without what it called"),
    ("total", "CPU time of all stacks that contain it"),
    ("calling", "the function at the leaf of most of the attributed time, if that is another one"),
    ("task type", "whose polls most of the attributed time was in"),
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
    ("height", "the share of the time in which the thread was not idle"),
    ("colour", "what took most of that: a type of task that ran; red: asleep inside a poll; grey: waiting for a CPU"),
    ("a tick", "at the top: a poll or a sleep past the limit (10 ms; red: 100 ms) is in progress there"),
    ("pool", "lanes of the blocking pool are neutral: sleeping is their purpose"),
];

const FLAME: &[Line] = &[
    ("a box", "a function; its width is the time of the stacks through it: CPU time, or (o) time asleep in tasks"),
    ("colour", "own code, dependency, tokio, std, or system: C library and kernel"),
    ("tokio runtime", "frames of the runtime that follow each other, in one box; f shows them"),
    ("more", "functions too narrow to be drawn, together"),
    ("/", "search: boxes whose name contains the text are highlighted, and their share is in the title"),
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

const WAITING: &[Line] = &[
    ("read", "all tasks are read from the target's memory as recording begins, and then about every 10 s (--state)"),
    ("for", "time for which each of these readings found the task there; it may have been polled in between"),
    ("waiting in", "the innermost own function of the await stack, with the line of its .await"),
    ("for what", "the resource that the innermost future waits for"),
    ("held by", "the task that certainly holds it, receives from it, or whose end is awaited"),
    ("red", "a deadlock: tasks that wait for each other in a cycle"),
];

/// What a screen's figures mean, in groups: a title and its lines.
pub(super) fn of(screen: Screen) -> Vec<(&'static str, &'static [Line])> {
    let own: &[(&'static str, &'static [Line])] = match screen {
        Screen::Overview => {
            &[("Dials", DIALS), ("Blocking", BLOCKING), ("Hotspots", HOTSPOTS), ("Workers", WORKERS), ("Tasks", TASKS)]
        }
        Screen::Hotspots => &[("Hotspots", HOTSPOTS)],
        Screen::Blocking => &[("Blocking", BLOCKING)],
        Screen::Tasks | Screen::Task => &[("Tasks", TASKS)],
        Screen::Timeline => &[("Timeline", TIMELINE)],
        Screen::Flame => &[("Flame graph", FLAME)],
        Screen::Latency => &[("Latency", LATENCY)],
        Screen::Workers => &[("Workers", WORKERS)],
        Screen::Findings => &[("Findings", FINDINGS)],
        Screen::Session => &[("Session", SESSION)],
        Screen::Waiting => &[("Waiting", WAITING)],
    };
    own.iter().copied().chain([("On every screen", FRAME)]).collect()
}
