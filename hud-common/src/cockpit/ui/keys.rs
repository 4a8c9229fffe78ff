//! What each key does: the one list from which help is printed; `state.rs` acts on it.

/// A group of keys.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) keys: &'static [(&'static str, &'static str)],
}

/// All of them.
pub(super) const GROUPS: &[Group] = &[
    Group {
        title: "Move",
        keys: &[
            ("1 to 9, 0", "the screens, as the third line names them"),
            ("Tab, Shift-Tab", "next, previous list of the screen"),
            ("arrows, hjkl", "row up and down; across: list, or pan the timeline"),
            ("PgUp PgDn Home", "a page up, a page down, to the first row"),
            ("Enter", "open the row: a task's page, a lane, a flame graph"),
            ("Backspace", "back to where you came from"),
            ("Esc", "close what is open; then clear the filter; then back"),
            ("q, Ctrl-C", "quit"),
            ("Ctrl-Z", "suspend (fg brings it back)"),
        ],
    },
    Group {
        title: "See",
        keys: &[
            ("/", "filter by name; Enter keeps it, Esc drops it"),
            ("s", "sort: tasks by the next column, hotspots by self or total"),
            ("t", "flame graph: of all, or of the next type of task"),
            ("+ -", "shorter, longer window; in the timeline zoom in and out"),
            ("c", "the status line's finding"),
            ("w W", "next, previous session, where several are open"),
        ],
    },
    Group {
        title: "Time",
        keys: &[
            ("space", "live: hold, and go on with now; replay: play, pause"),
            ("[ ]", "slower, faster: 0.1x to 100x"),
            (", .", "a step back, forward: to where something happened"),
            ("< >", "a window back, forward"),
            ("n N", "next, previous anomaly"),
            ("g", "go to a time: +12.5s, -30s, 14:03:20"),
            ("G, End", "to now, or to the end"),
            ("b B", "set or lift a bookmark here; go to the next one"),
        ],
    },
    Group {
        title: "Mouse",
        keys: &[
            ("click", "focus and select a row; again, or on the overview: open it"),
            ("wheel", "scroll; over the scrubber or timeline: move in time"),
            ("drag", "the scrubber's position"),
        ],
    },
];
